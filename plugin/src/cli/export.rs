//! `meridian export`: the history in the columns of other tools.

use super::{
    Failure,
    history_args::{self, HistoryArgs, HistorySource, RangeArgs},
    print, usage,
};
use crate::{
    focus::Charges,
    historian::second,
    history::Span,
    statement::{Query, StatementRequest},
};
use jiff::Timestamp;

/// The longest range that a server is asked for, in days: ten years.
const MAX_DAYS: u64 = 3653;

/// The tools' columns.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Export {
    /// Charges in the columns of FOCUS 1.3 as CSV, on stdout. Each transfer has two charges for each hour or day: one
    /// for the bytes that the sender sent, one for the bytes that the receiver received.
    Focus(FocusArgs),
}

/// The history, and the part of it to write.
#[derive(Debug, clap::Args)]
pub(super) struct FocusArgs {
    #[command(flatten)]
    history: HistoryArgs,
    #[command(flatten)]
    range: RangeArgs,
    /// Localities to write: same-zone, cross-zone, cross-region, internet, unknown; or all.
    #[arg(long, value_name = "LOCALITY", default_value = "cross-zone,cross-region,unknown")]
    locality: String,
}

pub(super) fn run(command: &Export) -> Result<(), Failure> {
    let Export::Focus(args) = command;
    args.run()
}

impl FocusArgs {
    fn run(&self) -> Result<(), Failure> {
        let texts = self.range.texts([("locality", &self.locality)]);
        let StatementRequest { query, from, to, .. } =
            StatementRequest::parse(&texts, second()).map_err(history_args::bad_range)?;
        match self.history.past()? {
            HistorySource::Folder(folder, prices) => {
                let Query { localities, .. } = query;
                let charges = Charges::new(&prices, localities);
                let (mut printed, mut text) = (Ok(()), Charges::header());
                // A block at a time, so that memory does not grow with the range.
                history_args::read(folder, from, to, |block| {
                    charges.write(block, &mut text);
                    if printed.is_ok() {
                        printed = print(&text);
                    }
                    text.clear();
                })?;
                // Without a block the header is left.
                printed.and_then(|()| print(&text))
            }
            HistorySource::Server(server) => {
                let days = days(from, to)?;
                for (at, (from, to)) in days.into_iter().enumerate() {
                    let mut texts = texts.clone();
                    texts.extend([("from".to_owned(), time(from)), ("to".to_owned(), time(to))]);
                    let answer = server.answer("/api/v1/focus", &texts)?;
                    let (_header, rows) = answer.split_once('\n').unwrap_or_default();
                    print(if at == 0 { &answer } else { rows })?;
                }
                Ok(())
            }
        }
    }
}

/// The parts of a range by day in UTC, as a history keeps days.
fn days(from: u64, to: u64) -> Result<Vec<(u64, u64)>, Failure> {
    if (to - from) / u64::from(Span::DAY) > MAX_DAYS {
        return Err(usage(format!("the range is longer than {MAX_DAYS} days: --from names a later time")));
    }
    let (mut days, mut begin) = (Vec::new(), from);
    while begin < to {
        let end = Span::day_of(begin).end().min(to);
        days.push((begin, end));
        begin = end;
    }
    Ok(days)
}

fn time(second: u64) -> String {
    let time = i64::try_from(second).ok().and_then(|second| Timestamp::from_second(second).ok());
    time.unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_asked_for_by_day() {
        let (hour, day) = (3600, 86_400);
        assert_eq!(days(day + hour, day + 2 * hour).unwrap(), [(day + hour, day + 2 * hour)]);
        let parts = [(day - hour, day), (day, 2 * day), (2 * day, 2 * day + hour)];
        assert_eq!(days(day - hour, 2 * day + hour).unwrap(), parts);
        assert!(matches!(days(0, 3655 * day), Err(Failure::Usage(_))));
        assert_eq!(time(1_764_000_000), "2025-11-24T16:00:00Z");
    }
}
