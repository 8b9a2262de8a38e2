//! A file that a setting names.

use super::invalid::Invalid;
use std::{path::PathBuf, str::FromStr};

/// A path that counts from the folder of the configuration that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedFile(pub(super) PathBuf);

impl FromStr for NamedFile {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() { Err(Invalid::NoFile) } else { Ok(Self(text.into())) }
    }
}
