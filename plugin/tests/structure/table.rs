//! The table of rooms in docs/ARCHITECTURE.md: a row for each room, with the rooms and foreign crates that it may
//! import. It is the only place with this list.

use std::collections::BTreeSet;

/// The heading of the table.
const HEADING: &str = "| room | purpose | may import | foreign crates that are its own |";

/// A row of the table.
#[derive(Debug)]
pub struct Room {
    /// For example `hubble/metrics`, with the files `hubble/metrics.rs` and those below `hubble/metrics/`.
    pub name: String,
    /// The rooms that it may import.
    pub knows: BTreeSet<String>,
    /// Crates that only the rooms that list them may use.
    pub crates: BTreeSet<String>,
}

/// Reads the table from the page.
pub fn read(page: &str) -> Vec<Room> {
    let mut lines = page.lines().skip_while(|line| *line != HEADING);
    assert!(lines.next().is_some(), "docs/ARCHITECTURE.md has no table with the heading {HEADING}");
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    let rooms: Vec<Room> = rows.map(row).collect();
    assert!(!rooms.is_empty(), "the table of rooms is empty");
    rooms
}

fn row(line: &str) -> Room {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [name, _, knows, crates] = cells[..] else { panic!("a row has four cells: {line}") };
    let list = |cell: &str| cell.split([',', ' ']).filter(|word| !word.is_empty()).map(str::to_owned).collect();
    Room { name: name.trim_matches('`').to_owned(), knows: list(knows), crates: list(crates) }
}

/// The room of a file; `None` for the roots of our crates, which only list rooms.
pub fn room<'r>(rooms: &'r [Room], file: &str) -> Option<&'r Room> {
    let path = file.strip_prefix("plugin/src/").unwrap_or(if file.starts_with("plugin-abi/") { "abi.rs" } else { "" });
    let holds = |room: &&Room| {
        let left = path.strip_prefix(room.name.as_str());
        left.is_some_and(|left| left == ".rs" || left.starts_with('/'))
    };
    rooms.iter().filter(holds).max_by_key(|room| room.name.len())
}
