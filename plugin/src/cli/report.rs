//! `meridian report`: traffic between zones and its cost, from a history or from metrics.

use super::{
    Failure,
    budgets::BudgetArgs,
    history_args::{self, HistoryArgs, RangeArgs, Texts},
    print,
    prometheus_args::PrometheusArgs,
    usage,
};
use crate::{
    budget::Budgets,
    cost::PriceTable,
    historian::{self, second},
    statement::{BudgetSums, Statement, StatementRequest, Summary},
};
use std::path::Path;

/// The question, and the history that answers it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    history: HistoryArgs,
    #[command(flatten)]
    budgets: BudgetArgs,
    #[command(flatten)]
    prometheus: PrometheusArgs,
    #[command(flatten)]
    range: RangeArgs,
    /// Key of the rows: zone-pair, namespace-pair, workload-pair, namespace, workload, service, node, region or label:KEY.
    #[arg(long, value_name = "KEY", default_value = "zone-pair")]
    by: String,
    /// Localities to sum up: same-zone, cross-zone, cross-region, internet, unknown; or all.
    #[arg(long, value_name = "LOCALITY", default_value = "cross-zone,cross-region,unknown")]
    locality: String,
    /// The charged end: `ends` charges each end its own price, as the bill does; `client` charges the service's client
    /// both prices.
    #[arg(long, value_name = "END", default_value = "ends")]
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
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let texts = args.texts();
    if args.budgets.is_own() && !args.history.is_folder() {
        return Err(usage("--budgets applies to --history only: a server has the budgets of its own --budgets"));
    }
    // Bad questions are refused before a server is asked.
    let now = second();
    let question = StatementRequest::parse(&texts, now).map_err(history_args::bad_range)?;
    if args.prometheus.is_given() {
        return print(&args.prometheus.answer(question, &args.history.prices()?, now)?);
    }
    let of_folder = |folder: &Path, prices: &PriceTable| of_folder(folder, question, prices, &args.budgets.budgets()?);
    print(&args.history.answer("/api/v1/report", &texts, of_folder)?)
}

impl Args {
    fn texts(&self) -> Texts {
        let explain = self.explain.to_string();
        let always = [
            ("by", &self.by),
            ("locality", &self.locality),
            ("charge", &self.charge),
            ("output", &self.output),
            ("explain", &explain),
        ];
        let given = [("top", self.top.as_ref()), ("compare", self.compare.as_ref())];
        let given = given.into_iter().filter_map(|(name, text)| Some((name, text?)));
        self.range.texts(always.into_iter().chain(given))
    }
}

fn of_folder(
    folder: &Path,
    question: StatementRequest,
    prices: &PriceTable,
    budgets: &Budgets,
) -> Result<String, Failure> {
    let StatementRequest { query, from, to, compare, form } = question;
    let comparison = match compare {
        Some(before) => historian::compared(folder, &query, prices, [before, (from, to)]).map_err(Failure::failed)?,
        None => None,
    };
    let mut summary = Summary::new(query, prices);
    history_args::read(folder, from, to, |block| summary.add(block))?;
    summary.ask(from, to);
    let mut sums = BudgetSums::new(budgets, prices, second());
    if !budgets.is_empty() {
        let (from, to) = sums.range();
        history_args::read(folder, from, to, |block| sums.add(block))?;
    }
    Ok(Statement { comparison, budgets: sums.finish(), ..summary.finish() }.form(form))
}
