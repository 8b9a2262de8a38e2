//! Other projects' programs that tests need, named by environment variables that `scripts/test.sh` sets.

use std::path::PathBuf;

/// The path of the program in a variable.
///
/// A test that can't run is never green: it is ignored unless `scripts/test.sh` runs it, or it fails here.
#[track_caller]
pub fn program(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from);
    path.unwrap_or_else(|| panic!("{variable} is not set: run this by scripts/test.sh, which builds what it names"))
}
