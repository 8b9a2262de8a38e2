//! `meridian reconcile`: a provider's bill beside the history.

use super::{
    Failure,
    history_args::{self, ServerArgs, Texts},
    print,
    progress::Progress,
    usage,
};
use crate::{
    bill::{self, BillUnit, Charges, Day, Format, GroupBy, Measured, MeasuredDay, Payer, Reconciliation},
    historian::second,
    statement::StatementRequest,
};
use clap::ValueEnum;
use std::path::{Path, PathBuf};

/// The days that are read at once, and the days of the longest range.
const DAYS_AT_ONCE: u32 = 7;
const MAX_DAYS: usize = 800;

/// A bill, and the history to compare it with.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("bill").required(true)))]
pub(super) struct Args {
    /// Files of AWS's Cost and Usage Report, legacy or 2.0, hourly or daily: CSV, packed by gzip or not.
    #[arg(long, value_name = "FILE", num_args = 1.., group = "bill", value_hint = clap::ValueHint::FilePath)]
    aws_cur: Vec<PathBuf>,
    /// Files of the detailed export of Google Cloud's billing: JSON lines or CSV, packed by gzip or not.
    #[arg(long, value_name = "FILE", num_args = 1.., group = "bill", value_hint = clap::ValueHint::FilePath)]
    gcp_billing: Vec<PathBuf>,
    /// The GB of traffic between zones on an invoice, as a decimal number.
    #[arg(long, value_name = "NUMBER", group = "bill")]
    invoice_gb: Option<String>,
    /// The unit of the amounts in AWS's report and on the invoice.
    #[arg(long, value_name = "UNIT", default_value = "GB")]
    unit: Unit,
    #[command(flatten)]
    server: ServerArgs,
    /// Folder of a history to read instead of asking a server.
    #[arg(long, value_name = "DIR", conflicts_with = "server", value_hint = clap::ValueHint::DirPath)]
    history: Option<PathBuf>,
    /// First day of the comparison: a day (2026-11-25) or an age (30d). By default the bill's first day; for an
    /// invoice the first day of the last calendar month.
    #[arg(long, value_name = "DAY")]
    from: Option<String>,
    /// Day after the last one, in the same form. By default the day after the bill's last one.
    #[arg(long, value_name = "DAY")]
    to: Option<String>,
    /// Key of the rows: day-node, day or node.
    #[arg(long, value_name = "KEY", default_value = "day-node")]
    by: String,
    /// Output format: table, json, csv or markdown.
    #[arg(long, value_name = "FORM", default_value = "table")]
    output: String,
}

/// The unit of a bill's amounts.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Unit {
    /// 10⁹ bytes.
    #[value(name = "GB")]
    Gigabyte,
    /// 2³⁰ bytes.
    #[value(name = "GiB")]
    Gibibyte,
}

impl From<Unit> for BillUnit {
    fn from(unit: Unit) -> Self {
        match unit {
            Unit::Gigabyte => Self::Gigabyte,
            Unit::Gibibyte => Self::Gibibyte,
        }
    }
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let by: GroupBy = args.by.parse().map_err(|error| usage(format!("--by: {error}")))?;
    let question = args.question()?;
    let mut history = History { args, window: Measured::default(), read_to: None };
    let reconciliation = if let Some(number) = &args.invoice_gb {
        let bytes = bill::bytes(number, args.unit.into()).map_err(|error| usage(format!("--invoice-gb: {error}")))?;
        let days = args.days_of_invoice(&question)?;
        let mut measured = Measured::default();
        for day in Day::each(days) {
            history.day(day)?;
            measured.extend(std::mem::take(&mut history.window));
        }
        Reconciliation::of_invoice(bytes, days, &measured)
    } else {
        let (payer, charges) = args.charges()?;
        let days = charges.days().ok_or_else(|| args.nothing(payer))?;
        let days = args.limited(&question, days)?;
        Reconciliation::new((payer, by), &charges, days, |day| history.day(day))?
    };
    print(&reconciliation.form(question.form))
}

impl Args {
    fn question(&self) -> Result<StatementRequest, Failure> {
        let texts = [("from", self.from.as_ref()), ("to", self.to.as_ref()), ("output", Some(&self.output))];
        let texts = texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.clone())));
        StatementRequest::parse(&texts.collect::<Texts>(), second()).map_err(history_args::bad_range)
    }

    /// The days that an invoice is for: those that were asked for, by default the last calendar month.
    fn days_of_invoice(&self, question: &StatementRequest) -> Result<(Day, Day), Failure> {
        let is_asked = self.from.is_some() || self.to.is_some();
        let asked = (Day::of(question.from), Day::of(question.to.saturating_sub(1)));
        few(if is_asked { asked } else { Day::last_month(second()) })
    }

    /// The days of the comparison: those of the bill, as far as they were asked for.
    fn limited(&self, question: &StatementRequest, (first, last): (Day, Day)) -> Result<(Day, Day), Failure> {
        let first = if self.from.is_some() { first.max(Day::of(question.from)) } else { first };
        let last = if self.to.is_some() { last.min(Day::of(question.to.saturating_sub(1))) } else { last };
        few((first, last))
    }

    fn charges(&self) -> Result<(Payer, Charges), Failure> {
        let (payer, files, format) = if self.aws_cur.is_empty() {
            (Payer::Gcp, &self.gcp_billing, Format::GcpBilling)
        } else {
            (Payer::Aws, &self.aws_cur, Format::AwsCur(self.unit.into()))
        };
        let (mut charges, progress) = (Charges::default(), Progress::new(files));
        for (at, path) in files.iter().enumerate() {
            let name = path.display().to_string();
            if files[..at].contains(path) {
                return Err(usage(format!("{name}: the file is named twice, and would count twice")));
            }
            let file = progress.open(path).map_err(|error| usage(format!("{name}: {error}")))?;
            bill::read(format, file, &name, &mut charges).map_err(usage)?;
        }
        Ok((payer, charges))
    }

    fn nothing(&self, payer: Payer) -> Failure {
        let (files, what) = match payer {
            Payer::Aws => (&self.aws_cur, "usage type that ends in DataTransfer-Regional-Bytes"),
            Payer::Gcp => (&self.gcp_billing, "SKU like Network Inter Zone Data Transfer Out"),
        };
        let first = files.first().map(|path| path.display().to_string()).unwrap_or_default();
        let others = if files.len() > 1 { format!(" and {} more", files.len() - 1) } else { String::new() };
        Failure::failed(format!("{first}{others}: no line is of traffic between zones: none has a {what}"))
    }
}

/// Days, if there are any and not too many.
fn few((first, last): (Day, Day)) -> Result<(Day, Day), Failure> {
    match Day::each((first, last)).take(MAX_DAYS + 1).count() {
        0 => Err(usage("the bill has no day between --from and --to")),
        count if count > MAX_DAYS => Err(usage(format!(
            "the bill has more than {MAX_DAYS} days, {first} to {last}: choose with --from and --to"
        ))),
        _ => Ok((first, last)),
    }
}

/// The history, of which a few days are in memory.
struct History<'a> {
    args: &'a Args,
    window: Measured,
    /// The first day that was not read yet.
    read_to: Option<Day>,
}

impl History<'_> {
    fn day(&mut self, day: Day) -> Result<MeasuredDay, Failure> {
        if self.read_to.is_none_or(|read_to| day >= read_to) {
            let end = day.after(DAYS_AT_ONCE);
            self.window = match &self.args.history {
                Some(folder) => of_folder(folder, day, end)?,
                None => self.of_server(day, end)?,
            };
            self.read_to = Some(end);
        }
        Ok(self.window.day(day).cloned().unwrap_or_default())
    }

    fn of_server(&self, day: Day, end: Day) -> Result<Measured, Failure> {
        let texts = [("from".to_owned(), day.to_string()), ("to".to_owned(), end.to_string())];
        let answer = self.args.server.answer("/api/v1/nodes", &texts.into())?;
        Measured::parse(&answer).map_err(Failure::failed)
    }
}

fn of_folder(folder: &Path, day: Day, end: Day) -> Result<Measured, Failure> {
    let mut measured = Measured::default();
    history_args::read(folder, day.start(), end.start(), |block| measured.add(block))?;
    Ok(measured)
}
