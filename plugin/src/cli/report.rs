//! `meridian report`: traffic between zones and its cost, from a history.

use super::{Failure, ask, prices::PriceArgs, print, usage};
use crate::{
    archive, historian,
    statement::{BadQuestion, Question, Statement, Summary},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// The question, and the history that answers it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address of the HTTP port of a controller, or of an agent without one.
    #[arg(long, env = "MERIDIAN_REPORT_SERVER", value_name = "HOST:PORT", default_value = "127.0.0.1:9981")]
    server: String,
    /// Folder of a history to read instead of asking a server.
    #[arg(long, value_name = "DIR", conflicts_with = "server", value_hint = clap::ValueHint::DirPath)]
    history: Option<PathBuf>,
    /// Start of the range: a time (2026-11-25T13:00:00Z), a day (2026-11-25) or an age (24h, 7d), in whole hours.
    #[arg(long, value_name = "TIME", default_value = "7d")]
    from: String,
    /// End of the range, in the same form.
    #[arg(long, value_name = "TIME", default_value = "now")]
    to: String,
    /// Key of the rows: zone-pair, namespace-pair, workload-pair, namespace, workload, service, node, region or label:KEY.
    #[arg(long, value_name = "KEY", default_value = "zone-pair")]
    by: String,
    /// Localities to sum up: same-zone, cross-zone, cross-region, internet, unknown; or all.
    #[arg(long, value_name = "LOCALITY", default_value = "cross-zone,cross-region,unknown")]
    locality: String,
    /// The charged end: `ends` charges each end its own price, as the bill does; `client` charges the service's client
    /// both prices.
    #[arg(long, value_name = "WHO", default_value = "ends")]
    charge: String,
    /// An earlier range to compare with, by the hour of the week. One sentence gives the change per month, and whether
    /// it exceeds the differences among the earlier weeks.
    #[arg(long, value_name = "FROM..TO")]
    compare: Option<String>,
    /// Number of most expensive rows to show. The others are one row.
    #[arg(long, value_name = "NUMBER")]
    top: Option<String>,
    /// Output format: table, json, csv or markdown.
    #[arg(long, value_name = "FORM", default_value = "table")]
    output: String,
    /// Show the applied price rules with their day and source, and the reasons for unpriced bytes.
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    prices: PriceArgs,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let texts = args.texts();
    // Bad questions are refused before a server is asked.
    let question = Question::parse(&texts, now).map_err(|error| match error {
        range @ BadQuestion::Empty { .. } => usage(range),
        // It begins with the name of the flag.
        flag => usage(format!("--{flag}")),
    })?;
    let text = match &args.history {
        Some(dir) => of_folder(dir, question, args)?,
        None if args.prices.is_own() => {
            return Err(usage("--prices applies to --history only: a server uses the prices of its own --prices"));
        }
        None => ask::answer(&args.server, "/api/v1/report", &texts)?,
    };
    print(&text)
}

impl Args {
    fn texts(&self) -> BTreeMap<String, String> {
        let texts = [
            ("from", &self.from),
            ("to", &self.to),
            ("by", &self.by),
            ("locality", &self.locality),
            ("charge", &self.charge),
            ("output", &self.output),
        ];
        let mut texts: BTreeMap<String, String> =
            texts.into_iter().map(|(key, text)| (key.to_owned(), text.clone())).collect();
        texts.insert("explain".to_owned(), self.explain.to_string());
        texts.extend(self.top.clone().map(|top| ("top".to_owned(), top)));
        texts.extend(self.compare.clone().map(|compare| ("compare".to_owned(), compare)));
        texts
    }
}

fn of_folder(dir: &Path, question: Question, args: &Args) -> Result<String, Failure> {
    let prices = args.prices.table()?;
    let Question { query, from, to, compare, form } = question;
    let comparison = match compare {
        Some(before) => historian::compared(dir, &query, &prices, [before, (from, to)]).map_err(Failure::failed)?,
        None => None,
    };
    let mut summary = Summary::new(query, &prices);
    let damaged = archive::read_range(dir, from, to, |block| summary.add(block)).map_err(Failure::failed)?;
    damaged.iter().for_each(|error| tracing::warn!(%error, "a block is left out: its time is missing"));
    summary.ask(from, to);
    Ok(Statement { comparison, ..summary.finish() }.form(form))
}
