//! `meridian advise`: what to change so that less crosses zones, what that saves and what it risks.

use super::{Failure, ask, prices::PriceArgs, print, usage};
use crate::{
    advice::{Advice, BadQuestion, Question, Snapshot},
    archive,
    catalogue::Catalogue,
    statement,
    zones::StaticTable,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// Which advice to show, of whom.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The HTTP port of a controller, or of an agent that has none.
    #[arg(long, env = "MERIDIAN_REPORT_SERVER", value_name = "HOST:PORT", default_value = "127.0.0.1:9981")]
    server: String,
    /// The folder of a history to read, without asking anybody. Nothing is known of services then.
    #[arg(long, value_name = "DIR", conflicts_with = "server", value_hint = clap::ValueHint::DirPath)]
    history: Option<PathBuf>,
    /// With --history: the static table, which has the workloads.
    #[arg(long, value_name = "FILE", requires = "history", value_hint = clap::ValueHint::FilePath)]
    zones_file: Option<PathBuf>,
    /// The beginning of the traffic that advice is made of: a time as 2026-11-25T13:00:00Z, a day as 2026-11-25, or how
    /// long ago as 24h or 7d. Of whole hours.
    #[arg(long, value_name = "TIME", default_value = "7d")]
    from: String,
    /// The end, in the same form.
    #[arg(long, value_name = "TIME", default_value = "now")]
    to: String,
    /// The smallest saving that is shown, in dollars a month.
    #[arg(long, value_name = "USD", default_value = "1")]
    floor: String,
    /// The most findings that are shown.
    #[arg(long, value_name = "NUMBER", default_value = "50")]
    cap: String,
    /// The recorded time below which there is no advice.
    #[arg(long, value_name = "TIME", default_value = "24h")]
    min_data: String,
    /// Show one finding in full, by its id.
    #[arg(long, value_name = "ID")]
    explain: Option<String>,
    /// The form of the result: table, json, patch (commands for kubectl) or markdown.
    #[arg(long, value_name = "FORM", default_value = "table")]
    output: String,
    #[command(flatten)]
    prices: PriceArgs,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let texts = args.texts();
    // Bad questions are refused here, whoever would be asked.
    let question = Question::parse(&texts, now).map_err(|error| match error {
        BadQuestion::Range(empty @ statement::BadQuestion::Empty { .. }) => usage(empty),
        // It begins with the name of the flag.
        flag => usage(format!("--{flag}")),
    })?;
    let text = match &args.history {
        Some(dir) => of_folder(dir, &question, (args, now))?,
        None if args.prices.is_own() => {
            return Err(usage(
                "--prices: a server has prices of its own, which its --prices sets; here it is for --history",
            ));
        }
        None => ask::answer(&args.server, "/api/v1/advice", &texts)?,
    };
    print(&text)
}

fn of_folder(dir: &Path, question: &Question, (args, now): (&Args, u64)) -> Result<String, Failure> {
    let prices = args.prices.table()?;
    let catalogue = match &args.zones_file {
        Some(path) => Catalogue::of_static(&StaticTable::read(path).map_err(usage)?),
        None => Catalogue::default(),
    };
    let mut traffic = question.traffic(now);
    let damaged = archive::read_range(dir, question.from, question.to, |block| traffic.add(block));
    let damaged = damaged.map_err(Failure::failed)?;
    damaged.iter().for_each(|error| tracing::warn!(%error, "a block is left out: its time is missing"));
    let snapshot = Snapshot { traffic: &traffic, catalogue: &catalogue, prices: &prices };
    let advice = Advice::new(&snapshot, &question.options);
    match &question.explain {
        Some(id) => advice.explained(id, question.form).map_err(|none| usage(format!("--{none}"))),
        None => Ok(advice.form(question.form)),
    }
}

impl Args {
    fn texts(&self) -> BTreeMap<String, String> {
        let texts = [
            ("from", &self.from),
            ("to", &self.to),
            ("floor", &self.floor),
            ("cap", &self.cap),
            ("min-data", &self.min_data),
            ("output", &self.output),
        ];
        let mut texts: BTreeMap<String, String> =
            texts.into_iter().map(|(key, text)| (key.to_owned(), text.clone())).collect();
        texts.extend(self.explain.clone().map(|id| ("explain".to_owned(), id)));
        texts
    }
}
