//! Imports point one way: rooms import only the rooms that docs/ARCHITECTURE.md allows, and there are no circles of
//! rooms or files. Tests that pages name are there.

mod graph;
mod named;
mod source;
mod table;

use graph::{Crates, Graph, Import, circles};
use source::Crate;
use std::{collections::BTreeSet, fs, path::Path};
use table::Room;

/// The root with the list of rooms.
const ROOT: &str = "plugin/src/lib.rs";
/// The root of the command.
const MAIN: &str = "plugin/src/main.rs";

fn text(path: &str) -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    // A generated file's path is absolute, and joining leaves it unchanged.
    fs::read_to_string(root.join(path)).ok()
}

fn ours() -> Graph {
    let read = |root| Crate::read(root, env!("OUT_DIR"), &text);
    let crates: Crates =
        vec![("meridian", read(ROOT)), ("meridian_abi", read("plugin-abi/src/lib.rs")), ("main", read(MAIN))];
    Graph::new(&crates)
}

fn rooms() -> Vec<Room> {
    table::read(&text("docs/ARCHITECTURE.md").expect("the page is there"))
}

/// Imports that the table does not allow.
fn against(rooms: &[Room], graph: &Graph) -> BTreeSet<String> {
    let name = |file: &str| table::room(rooms, file).map(|room| room.name.as_str());
    let mut found = BTreeSet::new();
    for import in graph.all.iter().filter(|import| ![ROOT, MAIN].contains(&import.from.as_str())) {
        let Some(from) = table::room(rooms, &import.from) else {
            found.insert(format!("{} is in no room of the table", import.from));
            continue;
        };
        if let Some(to) = name(&import.to)
            && to != from.name
            && !from.knows.contains(to)
        {
            found.insert(format!("{} may not know {to}: {import}", from.name));
        }
    }
    let owned: BTreeSet<&String> = rooms.iter().flat_map(|room| &room.crates).collect();
    for import in graph.foreign.iter().filter(|import| owned.contains(&import.to)) {
        if let Some(from) = table::room(rooms, &import.from)
            && !from.crates.contains(&import.to)
        {
            found.insert(format!("{} may not name a crate of other rooms: {import}", from.name));
        }
    }
    found
}

/// Allowed imports that no file uses.
fn idle(rooms: &[Room], graph: &Graph) -> Vec<String> {
    let is_between = |import: &Import, from: &str, to: &str| {
        let name = |file: &str| table::room(rooms, file).map(|room| room.name.as_str());
        name(&import.from) == Some(from) && name(&import.to) == Some(to)
    };
    let mut idle = Vec::new();
    for room in rooms {
        let is_idle = |to: &&String| !graph.all.iter().any(|import| is_between(import, &room.name, to));
        idle.extend(room.knows.iter().filter(is_idle).map(|to| format!("{} does not know {to}", room.name)));
        let names = |of: &str| {
            let is_named =
                |it: &Import| it.to == of && table::room(rooms, &it.from).is_some_and(|at| at.name == room.name);
            graph.foreign.iter().any(is_named)
        };
        let crates = room.crates.iter().filter(|of| !names(of));
        idle.extend(crates.map(|of| format!("{} does not name {of}", room.name)));
    }
    idle
}

fn nothing<T: std::fmt::Display>(found: impl IntoIterator<Item = T>, what: &str) {
    let found: Vec<String> = found.into_iter().map(|found| format!("  {found}\n")).collect();
    assert!(found.is_empty(), "{what}:\n{}", found.concat());
}

#[test]
fn rooms_import_only_rooms_of_their_row() {
    let (rooms, graph) = (rooms(), ours());
    nothing(against(&rooms, &graph), "imports against the table in docs/ARCHITECTURE.md");
    nothing(idle(&rooms, &graph), "the table in docs/ARCHITECTURE.md allows more than there is");
}

#[test]
fn a_room_imports_only_rooms_above_it_in_the_table() {
    let rooms = rooms();
    let mut above = BTreeSet::new();
    for room in &rooms {
        let unknown: Vec<_> = room.knows.iter().filter(|name| !above.contains(*name)).collect();
        assert!(unknown.is_empty(), "{} may import {unknown:?}, which are not above it", room.name);
        assert!(above.insert(room.name.clone()), "{} is there twice", room.name);
    }
}

#[test]
fn no_files_know_each_other_in_a_circle() {
    nothing(circles_of_files(&ours()), "files that know each other in a circle");
}

/// Rows without a test, and tests that are not there.
fn untested(page: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    for (row, names) in named::rows(page) {
        if names.is_empty() {
            found.push(format!("{row}: no test"));
        }
        let absent = names.iter().filter(|name| !named::is_named(tests, name));
        found.extend(absent.map(|name| format!("{row}: {name} is no test")));
    }
    found
}

#[test]
fn each_fault_and_each_bound_of_the_pages_names_tests_and_metrics_that_exist() {
    let tests = named::tests();
    for page in ["docs/reliability.md", "docs/threat-model.md"] {
        let page_text = text(page).expect("the page is there");
        assert!(named::rows(&page_text).len() > 10, "{page} has its table");
        nothing(untested(&page_text, &tests), page);
        // Another test compares this list with the code.
        let metrics = text("docs/metrics.md").expect("the page is there");
        let named = page_text.split('`').skip(1).step_by(2).filter(|name| name.starts_with("meridian_"));
        let absent = named.filter(|name| !metrics.contains(name.split('{').next().unwrap_or_default()));
        nothing(absent, "metrics that docs/metrics.md does not have");
    }
    let made = "| fault | test |\n|---|---|\n| a | `zones::no_such_test` |\n| b | |\n| c | `structure::no_files_know_each_other_in_a_circle` |\n";
    assert_eq!(untested(made, &tests), ["a: zones::no_such_test is no test", "b: no test"]);
}

/// The circles, each with its imports.
fn circles_of_files(graph: &Graph) -> Vec<String> {
    let edges = graph.items.iter().map(|import| (import.from.as_str(), import.to.as_str()));
    let described = |circle: BTreeSet<&str>| {
        let is_in = |import: &&Import| circle.contains(&*import.from) && circle.contains(&*import.to);
        // One import represents all between two files.
        let mut imports: Vec<&Import> = graph.items.iter().filter(is_in).collect();
        imports.sort();
        imports.dedup_by(|a, b| (&a.from, &a.to) == (&b.from, &b.to));
        let imports: Vec<String> = imports.iter().map(|import| format!("    {import}\n")).collect();
        format!("{}\n{}", circle.into_iter().collect::<Vec<_>>().join(", "), imports.concat())
    };
    circles(edges).into_iter().map(described).collect()
}

/// A crate from these files.
fn made(files: &[(&str, &str)]) -> Graph {
    let read = |path: &str| files.iter().find(|(of, _)| *of == path).map(|(_, text)| (*text).to_owned());
    Graph::new(&vec![("meridian", Crate::read(ROOT, "/out", &read))])
}

fn table_of(rows: &str) -> Vec<Room> {
    table::read(&format!("| room | purpose | may import | foreign crates that are its own |\n|---|\n{rows}"))
}

#[test]
fn an_import_against_the_table_is_found_however_it_is_written() {
    let rooms = table_of("| `zones` | | | |\n| `flows` | | | |\n| `link` | | | aya |\n");
    let allowed = table_of("| `zones` | | | |\n| `flows` | | zones | aya |\n");
    for code in [
        "use crate::zones::Zone;",
        "use crate::{zones::{self as places, Zone}};",
        "use super::zones::Zone as Z;",
        "fn f(_: &crate::zones::Zone) {}",
        "use crate::zones; fn f() { let _ = [zones::Zone]; }",
        "fn f() { println!(\"{:?}\", (1, crate::zones::Zone)) }",
        "#[derive(Debug)] struct S(#[cfg_attr(x, with = crate::zones::Zone)] u8);",
        "mod inner { use super::super::zones::Zone; }",
        "use crate::zones::*; fn f(_: Zone) {}",
        "fn f() { use crate::zones::Zone; }",
        "use crate::handed::Zone;",
    ] {
        let graph = made(&[
            (ROOT, "mod zones; mod flows; mod handed { pub use crate::zones::Zone; }"),
            ("plugin/src/zones.rs", "pub struct Zone;"),
            ("plugin/src/flows.rs", code),
        ]);
        let found = against(&rooms, &graph);
        assert!(found.iter().any(|found| found.starts_with("flows may not know zones")), "{code}: {found:?}");
        assert!(against(&allowed, &graph).is_empty(), "{code}");
    }
    for code in ["use aya::Ebpf;", "fn f() -> aya::Ebpf { loop {} }", "fn f() { dbg!(aya::load()) }", "use ::aya as b;"]
    {
        let graph = made(&[(ROOT, "mod flows;"), ("plugin/src/flows.rs", code)]);
        assert_eq!(against(&rooms, &graph).len(), 1, "{code}");
        assert!(against(&allowed, &graph).is_empty(), "{code}");
    }
    let graph = made(&[(ROOT, "mod flows; mod zones;"), ("plugin/src/flows.rs", ""), ("plugin/src/zones.rs", "")]);
    assert_eq!(idle(&allowed, &graph), ["flows does not know zones", "flows does not name aya"]);
    let tests = "#[cfg(test)] mod tests { use crate::zones::Zone; } #[test] fn t() { crate::zones::f() }";
    let graph = made(&[(ROOT, "mod flows; mod zones;"), ("plugin/src/flows.rs", tests), ("plugin/src/zones.rs", "")]);
    assert!(against(&rooms, &graph).is_empty(), "tests may reach anywhere");
    let elsewhere = made(&[
        (ROOT, "mod other; mod zones;"),
        ("plugin/src/zones.rs", "pub struct Zone;"),
        ("plugin/src/other.rs", "use crate::zones::Zone;"),
    ]);
    assert_eq!(
        against(&rooms, &elsewhere).into_iter().collect::<Vec<_>>(),
        ["plugin/src/other.rs is in no room of the table"]
    );
}

#[test]
fn generated_code_is_a_part_of_the_module_that_includes_it() {
    let include = r#"include!(concat!(env!("OUT_DIR"), "/x.rs"));"#;
    let graph = made(&[
        (ROOT, "mod zones; mod flows;"),
        ("plugin/src/zones.rs", "pub struct Zone;"),
        ("plugin/src/flows.rs", include),
        ("/out/x.rs", "pub fn f(_: crate::zones::Zone) {}"),
    ]);
    let rooms = table_of("| `zones` | | | |\n| `flows` | | | |\n");
    assert_eq!(against(&rooms, &graph).len(), 1);
}

#[test]
fn a_circle_of_files_is_found_and_a_name_that_is_handed_on_makes_none() {
    let a_and_b = |a, b| {
        made(&[
            (ROOT, "mod a;"),
            ("plugin/src/a.rs", a),
            ("plugin/src/a/b.rs", b),
            ("plugin/src/a/c.rs", "pub struct C;"),
        ])
    };
    for (a, b) in [
        ("mod b; use b::B; pub struct A(B);", "use super::A; pub struct B;"),
        ("mod b; pub use b::B; pub struct A(B);", "pub struct B; fn f(_: super::A) {}"),
        ("mod b; pub struct A; fn f() { b::f() }", "pub fn f() { dbg!(super::A); }"),
    ] {
        let found = circles_of_files(&a_and_b(a, b));
        assert!(found.len() == 1 && found[0].starts_with("plugin/src/a.rs, plugin/src/a/b.rs\n"), "{a} {b}: {found:?}");
    }
    for (a, b) in [
        ("mod b; mod c; pub use b::B; pub use c::C;", "use super::C; pub struct B(C);"),
        ("mod b; mod c; use c::C; fn f(_: b::B) {}", "pub struct B(super::C);"),
        ("mod b; pub use b::B; pub struct A;", "pub struct B(super::A);"),
    ] {
        assert_eq!(circles_of_files(&a_and_b(a, b)), [""; 0], "{a} {b}");
    }
}
