//! `meridian advise`: changes that reduce traffic between zones, their savings and their risks.

use super::{
    Failure,
    history_args::{self, HistoryArgs, RangeArgs, Texts},
    print, usage,
};
use crate::{
    advice::{Advice, AdviceRequest, InvalidAdviceRequest, Snapshot},
    catalogue::Catalogue,
    cost::PriceTable,
    historian::second,
    zones::StaticTable,
};
use std::path::{Path, PathBuf};

/// The question, and the history that answers it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    history: HistoryArgs,
    /// Static table with the workloads, for --history. A folder has no services.
    #[arg(long, value_name = "FILE", requires = "history", value_hint = clap::ValueHint::FilePath)]
    zones_file: Option<PathBuf>,
    #[command(flatten)]
    range: RangeArgs,
    /// Smallest saving to show, in dollars a month.
    #[arg(long, value_name = "USD", default_value = "1")]
    floor: String,
    /// Number of findings to show.
    #[arg(long, value_name = "NUMBER", default_value = "50")]
    cap: String,
    /// Recorded time that advice needs.
    #[arg(long, value_name = "TIME", default_value = "24h")]
    min_data: String,
    /// Show the finding with this id in full.
    #[arg(long, value_name = "ID")]
    explain: Option<String>,
    /// Output format: table, json, patch (commands for kubectl) or markdown.
    #[arg(long, value_name = "FORM", default_value = "table")]
    output: String,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let texts = args.texts();
    // Bad questions are refused before a server is asked.
    let question = AdviceRequest::parse(&texts, second()).map_err(|error| match error {
        InvalidAdviceRequest::Range(range) => history_args::bad_range(range),
        // It begins with the name of the flag.
        flag => usage(format!("--{flag}")),
    })?;
    let of_folder = |folder: &Path, prices: &PriceTable| args.of_folder(folder, &question, prices);
    print(&args.history.answer("/api/v1/advice", &texts, of_folder)?)
}

impl Args {
    fn texts(&self) -> Texts {
        let always =
            [("floor", &self.floor), ("cap", &self.cap), ("min-data", &self.min_data), ("output", &self.output)];
        self.range.texts(always.into_iter().chain(self.explain.iter().map(|id| ("explain", id))))
    }

    fn of_folder(&self, folder: &Path, question: &AdviceRequest, prices: &PriceTable) -> Result<String, Failure> {
        let catalogue = match &self.zones_file {
            Some(path) => Catalogue::of_static(&StaticTable::read(path).map_err(usage)?),
            None => Catalogue::default(),
        };
        let mut traffic = question.traffic(second());
        history_args::read(folder, question.from, question.to, |block| traffic.add(block))?;
        let snapshot = Snapshot { traffic: &traffic, catalogue: &catalogue, prices };
        let advice = Advice::new(&snapshot, &question.options);
        match &question.explain {
            Some(id) => advice.explained(id, question.form).map_err(|none| usage(format!("--{none}"))),
            None => Ok(advice.form(question.form)),
        }
    }
}
