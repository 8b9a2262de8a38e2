//! The imports between files, and circles among them.

use crate::source::{Crate, Name, Use};
use std::collections::{BTreeMap, BTreeSet};

/// The target of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    /// An item, and the module that defines it.
    Item(At),
    /// A module.
    Module(At),
    /// A foreign crate.
    Foreign(String),
}

/// A crate and a module, as indices.
type At = (usize, usize);

/// An import of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    /// The importing file, and the line.
    pub from: String,
    pub line: usize,
    /// The imported file, or the foreign crate.
    pub to: String,
    /// The path in the source.
    pub path: String,
}

impl std::fmt::Display for Import {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: `{}` of {}", self.from, self.line, self.path, self.to)
    }
}

/// The imports of our crates.
#[derive(Debug, Default)]
pub struct Graph {
    /// Imports of items, between files.
    pub items: Vec<Import>,
    /// Imports of items and of modules, between files.
    pub all: Vec<Import>,
    /// Imports of foreign crates.
    pub foreign: Vec<Import>,
}

/// Our crates, by their names in code.
pub type Crates = Vec<(&'static str, Crate)>;

/// The limit of re-exports to follow.
const DEPTH: usize = 16;

impl Graph {
    pub fn new(crates: &Crates) -> Self {
        let mut graph = Self::default();
        for (of, (_, each)) in crates.iter().enumerate() {
            for (at, module) in each.modules.iter().enumerate() {
                for named in &module.named {
                    let import = |to: &str| Import {
                        from: module.file.clone(),
                        line: named.line,
                        to: to.to_owned(),
                        path: named.path.join("::"),
                    };
                    for found in follow(crates, (of, at), &named.path, named.of != Use::Code, DEPTH) {
                        let (to, is_item) = match found {
                            Found::Foreign(name) => {
                                // A name that another room re-exports belongs to that room.
                                if named.path.first() == Some(&name) {
                                    graph.foreign.push(import(&name));
                                }
                                continue;
                            }
                            Found::Item(to) => (to, true),
                            Found::Module(to) => (to, false),
                        };
                        let file = file(crates, to);
                        if file == module.file {
                            continue;
                        }
                        graph.all.push(import(file));
                        // A parent that re-exports a name of its child does not use it.
                        let is_handed_on = named.of == Use::HandedOn && is_below(crates, to, (of, at));
                        if is_item && !is_handed_on {
                            graph.items.push(import(file));
                        }
                    }
                }
            }
        }
        graph
    }
}

fn file(crates: &Crates, (of, at): At) -> &str {
    &crates[of].1.modules[at].file
}

fn is_below(crates: &Crates, mut at: At, above: At) -> bool {
    while at != above {
        match crates[at.0].1.modules[at.1].parent {
            Some(parent) => at.1 = parent,
            None => return false,
        }
    }
    true
}

/// The targets of a path in a module.
fn follow(crates: &Crates, from: At, path: &[String], is_use: bool, depth: usize) -> Vec<Found> {
    let (Some(first), Some(left)) = (path.first(), depth.checked_sub(1)) else { return Vec::new() };
    let parent = |at: At| (at.0, crates[at.0].1.modules[at.1].parent.unwrap_or_default());
    let start = match first.as_str() {
        "crate" => vec![Found::Module((from.0, 0))],
        "self" => vec![Found::Module(from)],
        "super" => vec![Found::Module(parent(from))],
        name => {
            let known = lookup(crates, from, name, left);
            let ours = crates.iter().position(|(of, _)| *of == name);
            match ours {
                _ if !known.is_empty() => known,
                Some(of) => vec![Found::Module((of, 0))],
                None if is_use || path.len() > 1 => vec![Found::Foreign(name.to_owned())],
                None => Vec::new(),
            }
        }
    };
    let mut found = start;
    for (at, name) in path.iter().enumerate().skip(1) {
        let modules = found.iter().filter_map(|found| match found {
            Found::Module(module) => Some(*module),
            _ => None,
        });
        let modules: Vec<At> = modules.collect();
        // Names after an item's name belong to the item.
        let [module, ..] = modules.as_slice() else { break };
        if name == "super" {
            found = vec![Found::Module(parent(*module))];
            continue;
        }
        let next = lookup(crates, *module, name, left);
        let is_last = at + 1 == path.len();
        let continuing: Vec<_> = next.iter().filter(|found| !matches!(found, Found::Item(_))).cloned().collect();
        found = if is_last || continuing.is_empty() { next } else { continuing };
    }
    // If there is an item, a module of the same name is not meant.
    let items: Vec<_> = found.iter().filter(|found| matches!(found, Found::Item(_))).cloned().collect();
    if items.is_empty() { found } else { items }
}

/// The targets of a name in a module's scope.
fn lookup(crates: &Crates, at: At, name: &str, depth: usize) -> Vec<Found> {
    let module = &crates[at.0].1.modules[at.1];
    let mut found = Vec::new();
    for known in module.names.get(name).into_iter().flatten() {
        match known {
            Name::Item => found.push(Found::Item(at)),
            Name::Module(below) => found.push(Found::Module((at.0, *below))),
            Name::Import(path) if path.as_slice() == [name] => found.push(outside(crates, name)),
            Name::Import(path) => found.extend(follow(crates, at, path, true, depth)),
        }
    }
    if let (true, Some(left)) = (found.is_empty(), depth.checked_sub(1)) {
        for glob in &module.globs {
            for target in follow(crates, at, glob, true, left) {
                if let Found::Module(target) = target
                    && target != at
                {
                    found.extend(lookup(crates, target, name, left));
                }
            }
        }
    }
    found
}

fn outside(crates: &Crates, name: &str) -> Found {
    let ours = crates.iter().position(|(of, _)| *of == name);
    ours.map_or_else(|| Found::Foreign(name.to_owned()), |of| Found::Module((of, 0)))
}

/// The circles of a graph: sets of nodes that can all reach each other.
pub fn circles<'a>(edges: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<BTreeSet<&'a str>> {
    let mut next = BTreeMap::<&str, BTreeSet<&str>>::new();
    for (from, to) in edges.filter(|(from, to)| from != to) {
        next.entry(from).or_default().insert(to);
    }
    let reach = |start: &'a str| {
        let (mut seen, mut left) = (BTreeSet::new(), vec![start]);
        while let Some(at) = left.pop() {
            left.extend(next.get(at).into_iter().flatten().filter(|to| seen.insert(**to)).copied());
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<&str>> = next.keys().map(|node| (*node, reach(node))).collect();
    let mut circles = BTreeSet::new();
    for (node, ahead) in reached.iter().filter(|(node, ahead)| ahead.contains(**node)) {
        let back = ahead.iter().filter(|other| reached.get(**other).is_some_and(|theirs| theirs.contains(node)));
        circles.insert(back.copied().collect::<BTreeSet<_>>());
    }
    circles.into_iter().collect()
}
