//! Reads the modules of a crate: their names, and every path in their code.
//!
//! Code under `#[cfg(test)]` is left out: tests may use everything. Files that build.rs generates are read as part of
//! the module that includes them.

use proc_macro2::{TokenStream, TokenTree};
use std::{collections::BTreeMap, path::Path};
use syn::{
    Attribute, Item, UseTree, Visibility,
    spanned::Spanned,
    visit::{self, Visit},
};

/// The purpose of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Code uses the path.
    Code,
    /// A private `use`.
    Import,
    /// A public `use`: the module re-exports the name.
    HandedOn,
}

/// A path in a module.
#[derive(Clone, Debug)]
pub struct Named {
    pub path: Vec<String>,
    pub line: usize,
    pub of: Use,
}

/// The meaning of a name in a module's scope.
#[derive(Clone, Debug)]
pub enum Name {
    /// An item that the module defines.
    Item,
    /// A child module, by its index in the crate.
    Module(usize),
    /// Another path's item.
    Import(Vec<String>),
}

/// A module: a file, or a part of one.
#[derive(Debug, Default)]
pub struct Module {
    /// The file, from the root of the repository.
    pub file: String,
    pub parent: Option<usize>,
    pub names: BTreeMap<String, Vec<Name>>,
    /// Paths whose names are all imported.
    pub globs: Vec<Vec<String>>,
    pub named: Vec<Named>,
}

/// The modules of a crate; the first is its root.
#[derive(Debug, Default)]
pub struct Crate {
    pub modules: Vec<Module>,
}

/// Returns the text of a file; `None` if there is no such file.
pub type Files<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Crate {
    /// The crate with this root file. `generated` is the folder that build.rs fills.
    pub fn read(root: &str, generated: &str, files: Files<'_>) -> Self {
        let mut of = Self::default();
        let text = files(root).unwrap_or_else(|| panic!("{root}: there is no such file"));
        let folder = Path::new(root).parent().expect("a root is in a folder").display().to_string();
        let reading = Reading { files, generated };
        of.add(&reading, None, root, &folder, &parse(root, &text).items);
        of
    }

    fn add(&mut self, reading: &Reading<'_>, parent: Option<usize>, file: &str, folder: &str, items: &[Item]) -> usize {
        let at = self.modules.len();
        self.modules.push(Module { file: file.to_owned(), parent, ..Module::default() });
        self.fill(reading, at, folder, items);
        at
    }

    fn fill(&mut self, reading: &Reading<'_>, at: usize, folder: &str, items: &[Item]) {
        for item in items.iter().filter(|item| !is_test(attributes(item))) {
            match item {
                Item::Mod(module) => self.add_module(reading, at, folder, module),
                Item::Macro(call) if call.mac.path.is_ident("include") || call.mac.path.segments.len() > 1 => {
                    if let Some(path) = reading.included(&call.mac) {
                        let text = (reading.files)(&path).unwrap_or_else(|| panic!("{path}: there is no such file"));
                        self.fill(reading, at, folder, &parse(&path, &text).items);
                    } else {
                        Paths(&mut self.modules[at]).visit_item(item);
                    }
                }
                _ => Paths(&mut self.modules[at]).visit_item(item),
            }
        }
    }

    fn add_module(&mut self, reading: &Reading<'_>, at: usize, folder: &str, module: &syn::ItemMod) {
        let (name, file) = (module.ident.to_string(), self.modules[at].file.clone());
        let below = format!("{folder}/{name}");
        let child = if let Some((_, items)) = &module.content {
            self.add(reading, Some(at), &file, &below, items)
        } else {
            let candidates = [format!("{below}.rs"), format!("{below}/mod.rs")];
            let found = candidates.into_iter().find_map(|path| Some(((reading.files)(&path)?, path)));
            let (text, path) = found.unwrap_or_else(|| panic!("{file}: there is no file of module {name}"));
            self.add(reading, Some(at), &path, &below, &parse(&path, &text).items)
        };
        self.modules[at].names.entry(name).or_default().push(Name::Module(child));
    }
}

struct Reading<'a> {
    files: Files<'a>,
    generated: &'a str,
}

impl Reading<'_> {
    /// The generated file in an include macro.
    fn included(&self, call: &syn::Macro) -> Option<String> {
        let name = call.path.segments.last()?.ident.to_string();
        let text = call.tokens.to_string();
        let literal = text.rsplit('"').nth(1)?;
        match name.as_str() {
            "include" => Some(format!("{}{literal}", self.generated)),
            "include_proto" => Some(format!("{}/{literal}.rs", self.generated)),
            _ => None,
        }
    }
}

fn parse(path: &str, text: &str) -> syn::File {
    syn::parse_file(text).unwrap_or_else(|error| panic!("{path}:{}: {error}", error.span().start().line))
}

/// Whether code is compiled only for tests.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_cfg = attribute.path().is_ident("cfg");
        attribute.path().is_ident("test")
            || is_cfg && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(it) => &it.attrs,
        Item::Enum(it) => &it.attrs,
        Item::ExternCrate(it) => &it.attrs,
        Item::Fn(it) => &it.attrs,
        Item::ForeignMod(it) => &it.attrs,
        Item::Impl(it) => &it.attrs,
        Item::Macro(it) => &it.attrs,
        Item::Mod(it) => &it.attrs,
        Item::Static(it) => &it.attrs,
        Item::Struct(it) => &it.attrs,
        Item::Trait(it) => &it.attrs,
        Item::TraitAlias(it) => &it.attrs,
        Item::Type(it) => &it.attrs,
        Item::Union(it) => &it.attrs,
        Item::Use(it) => &it.attrs,
        _ => &[],
    }
}

/// Collects a module's names and paths.
struct Paths<'a>(&'a mut Module);

impl Paths<'_> {
    fn define(&mut self, name: &syn::Ident) {
        self.0.names.entry(name.to_string()).or_default().push(Name::Item);
    }

    fn add_use(&mut self, before: &[String], tree: &UseTree, of: Use) {
        let mut import = |path: Vec<String>, name: String, line: usize| {
            self.0.names.entry(name).or_default().push(Name::Import(path.clone()));
            self.0.named.push(Named { path, line, of });
        };
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.add_use(&with(&path.ident), &path.tree, of),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_use(before, tree, of)),
            UseTree::Name(name) if name.ident == "self" => {
                import(before.to_vec(), before.last().cloned().unwrap_or_default(), name.span().start().line);
            }
            UseTree::Name(name) => import(with(&name.ident), name.ident.to_string(), name.span().start().line),
            UseTree::Rename(renamed) => {
                let path = if renamed.ident == "self" { before.to_vec() } else { with(&renamed.ident) };
                import(path, renamed.rename.to_string(), renamed.span().start().line);
            }
            UseTree::Glob(glob) => {
                self.0.globs.push(before.to_vec());
                self.0.named.push(Named { path: before.to_vec(), line: glob.span().start().line, of });
            }
        }
    }

    /// Paths in the tokens of a macro call, which may be anything.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let is = |at: usize, sign: char| matches!(tokens.get(at), Some(TokenTree::Punct(it)) if it.as_char() == sign);
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.add_tokens(group.stream()),
                // An identifier after a dot is a field or a method.
                TokenTree::Ident(first) if at == 0 || !is(at - 1, '.') || at > 1 && is(at - 2, '.') => {
                    let (mut path, line) = (vec![first.to_string()], first.span().start().line);
                    while is(at + 1, ':') && is(at + 2, ':') {
                        let Some(TokenTree::Ident(next)) = tokens.get(at + 3) else { break };
                        path.push(next.to_string());
                        at += 3;
                    }
                    self.0.named.push(Named { path, line, of: Use::Code });
                }
                _ => {}
            }
            at += 1;
        }
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if is_test(attributes(item)) {
            return;
        }
        match item {
            Item::Const(it) => self.define(&it.ident),
            Item::Enum(it) => self.define(&it.ident),
            Item::Fn(it) => self.define(&it.sig.ident),
            Item::Static(it) => self.define(&it.ident),
            Item::Struct(it) => self.define(&it.ident),
            Item::Trait(it) => self.define(&it.ident),
            Item::Type(it) => self.define(&it.ident),
            Item::Union(it) => self.define(&it.ident),
            Item::Macro(it) => it.ident.iter().for_each(|name| self.define(name)),
            Item::Use(it) => {
                let of = if matches!(it.vis, Visibility::Inherited) { Use::Import } else { Use::HandedOn };
                return self.add_use(&[], &it.tree, of);
            }
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_test(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let line = path.span().start().line;
        let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.0.named.push(Named { path: segments, line, of: Use::Code });
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.add_tokens(call.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            self.add_tokens(list.tokens.clone());
        }
    }

    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}
