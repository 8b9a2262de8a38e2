//! The arguments of the commands that show the past: a server or a folder with a history, a range of time, prices.

use super::{Failure, access::TokenArgs, ask, prices::PriceArgs, usage};
use crate::{archive, cost::PriceTable, history::Block, statement::InvalidStatementRequest};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The server to ask.
#[derive(Debug, clap::Args)]
pub(super) struct ServerArgs {
    /// Address of the HTTP port of a controller, or of an agent without one.
    #[arg(long, env = "MERIDIAN_REPORT_SERVER", value_name = "HOST:PORT", default_value = "127.0.0.1:9981")]
    server: String,
    #[command(flatten)]
    token: TokenArgs,
}

/// The range of time.
#[derive(Debug, clap::Args)]
pub(super) struct RangeArgs {
    /// Start of the range: a time (2026-11-25T13:00:00Z), a day (2026-11-25) or an age (24h, 7d), in whole hours.
    #[arg(long, value_name = "TIME", default_value = "7d")]
    from: String,
    /// End of the range, in the same form.
    #[arg(long, value_name = "TIME", default_value = "now")]
    to: String,
}

/// The history: of a server, or in a folder with prices of one's own.
#[derive(Debug, clap::Args)]
pub(super) struct HistoryArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Folder of a history to read instead of asking a server.
    #[arg(long, value_name = "DIR", conflicts_with = "server", value_hint = clap::ValueHint::DirPath)]
    history: Option<PathBuf>,
    #[command(flatten)]
    prices: PriceArgs,
}

/// The texts of a question, by name.
pub(super) type Texts = BTreeMap<String, String>;

impl ServerArgs {
    /// The server's answer at a path.
    pub(super) fn answer(&self, path: &str, texts: &Texts) -> Result<String, Failure> {
        ask::answer(&self.server, self.token.token()?.as_deref(), path, texts)
    }
}

impl RangeArgs {
    /// The texts of the range, and others.
    pub(super) fn texts<'a>(&'a self, others: impl IntoIterator<Item = (&'a str, &'a String)>) -> Texts {
        let range = [("from", &self.from), ("to", &self.to)];
        range.into_iter().chain(others).map(|(name, text)| (name.to_owned(), text.clone())).collect()
    }
}

/// Where the past is read from.
pub(super) enum HistorySource<'a> {
    Server(&'a ServerArgs),
    Folder(&'a Path, PriceTable),
}

impl HistoryArgs {
    /// The server, or the folder with the prices to apply.
    pub(super) fn past(&self) -> Result<HistorySource<'_>, Failure> {
        match &self.history {
            Some(folder) => Ok(HistorySource::Folder(folder, self.prices.table()?)),
            None if self.prices.is_own() => {
                Err(usage("--prices applies to --history only: a server uses the prices of its own --prices"))
            }
            None => Ok(HistorySource::Server(&self.server)),
        }
    }

    /// The prices to apply here, if no server applies its own.
    pub(super) fn prices(&self) -> Result<PriceTable, Failure> {
        self.prices.table()
    }

    /// Whether a folder is named.
    pub(super) const fn is_folder(&self) -> bool {
        self.history.is_some()
    }

    /// The server's answer at a path, or that of a folder.
    pub(super) fn answer(
        &self,
        path: &str,
        texts: &Texts,
        of_folder: impl FnOnce(&Path, &PriceTable) -> Result<String, Failure>,
    ) -> Result<String, Failure> {
        match self.past()? {
            HistorySource::Folder(folder, prices) => of_folder(folder, &prices),
            HistorySource::Server(server) => server.answer(path, texts),
        }
    }
}

/// Reads the blocks of a range in a folder. Damaged ones are left out, with a warning.
pub(super) fn read(folder: &Path, from: u64, to: u64, each: impl FnMut(&Block)) -> Result<(), Failure> {
    let damaged = archive::read_range(folder, from, to, each).map_err(Failure::failed)?;
    damaged.iter().for_each(|error| tracing::warn!(%error, "a block is left out: its time is missing"));
    Ok(())
}

/// A bad question, which begins with the name of its flag; an empty range names both.
pub(super) fn bad_range(error: InvalidStatementRequest) -> Failure {
    match error {
        range @ InvalidStatementRequest::Empty { .. } => usage(range),
        flag => usage(format!("--{flag}")),
    }
}
