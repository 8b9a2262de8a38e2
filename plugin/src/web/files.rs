//! The files that are served as they are: the built page, as `scripts/web.sh build` writes it, and the description of
//! the API.

/// The script of the page.
pub(super) const SCRIPT: &str = include_str!("../../page/page.js");
/// Its style.
pub(super) const STYLE: &str = include_str!("../../page/page.css");
/// The icon.
pub(super) const ICON: &str = include_str!("../../page/icon.svg");
/// The licences of the libraries in the script.
pub(super) const LICENSES: &str = include_str!("../../page/licenses.txt");
/// The description of the API.
pub(super) const OPENAPI: &str = include_str!("openapi.json");
