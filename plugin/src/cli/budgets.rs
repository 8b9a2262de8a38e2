//! The file of the budgets.

use super::{Failure, named_file::NamedFile, usage};
use crate::budget::Budgets;
use std::path::{Path, PathBuf};

/// The budgets to use.
#[derive(Debug, Default, clap::Args)]
pub(super) struct BudgetArgs {
    /// File with monthly budgets of namespaces and of labels. A process reads it again when it changes.
    #[arg(
        id = "budgets",
        long = "budgets",
        env = "MERIDIAN_BUDGETS",
        value_name = "FILE",
        value_hint = clap::ValueHint::FilePath
    )]
    budgets: Option<NamedFile>,
}

impl BudgetArgs {
    /// The file, if one is named.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.file().map(Path::to_owned)
    }

    /// Whether a file is named.
    pub(super) const fn is_own(&self) -> bool {
        self.budgets.is_some()
    }

    /// The budgets of the file.
    pub(super) fn budgets(&self) -> Result<Budgets, Failure> {
        self.file().map_or_else(|| Ok(Budgets::default()), |path| Budgets::read(path).map_err(usage))
    }

    fn file(&self) -> Option<&Path> {
        self.budgets.as_ref().map(|NamedFile(path)| path.as_path())
    }
}
