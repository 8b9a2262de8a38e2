//! Tests that pages name: each is there.

use std::{collections::BTreeSet, fs, path::Path};

/// Full names of all tests, with their suite or the path of their module: `feed::client::tests::hostile::a_bucket…`.
pub fn tests() -> BTreeSet<String> {
    let plugin = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    for folder in ["src", "tests"] {
        collect(&plugin.join(folder), "", &mut found);
    }
    found
}

fn collect(folder: &Path, module: &str, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("the folder is readable").path();
        let name = path.file_stem().expect("it has a name").to_string_lossy().into_owned();
        let inner = if ["main", "lib", "mod"].contains(&name.as_str()) {
            module.to_owned()
        } else {
            format!("{module}::{name}")
        };
        if path.is_dir() {
            collect(&path, &inner, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("the file is text");
            found.extend(tests_in(&text).into_iter().map(|test| format!("{inner}::{test}")));
        }
    }
}

/// The tests of a file, with its own module of tests before their names.
fn tests_in(text: &str) -> Vec<String> {
    let (mut module, mut is_test, mut tests) = ("", false, Vec::new());
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("mod tests {") || line.starts_with("pub(super) mod tests {") {
            module = "tests::";
        } else if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if is_test && let Some((_, rest)) = line.split_once("fn ") {
            tests.push(format!("{module}{}", rest.split('(').next().unwrap_or_default()));
            is_test = false;
        }
    }
    tests
}

/// Rows of the tables of a page that have a column of tests: the row, and the names in that cell.
pub fn rows(page: &str) -> Vec<(String, Vec<String>)> {
    let (mut rows, mut is_table) = (Vec::new(), false);
    for line in page.lines() {
        let Some(cells) = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) else {
            is_table = false;
            continue;
        };
        let last = cells.rsplit('|').next().unwrap_or_default().trim();
        if last == "test" {
            is_table = true;
        } else if is_table && !last.starts_with("---") {
            let names = last.split('`').skip(1).step_by(2).filter(|name| name.contains("::"));
            rows.push((
                cells.split('|').next().unwrap_or_default().trim().to_owned(),
                names.map(str::to_owned).collect(),
            ));
        }
    }
    rows
}

/// Whether a name is that of a test, or of a module with tests, from the end of its path or from any module of it on.
pub fn is_named(tests: &BTreeSet<String>, name: &str) -> bool {
    let (test, module) = (format!("::{name}"), format!("::{name}::"));
    tests.iter().any(|full| full.ends_with(&test) || full.contains(&module))
}
