//! A question for a statement, as the command line and the API take it: texts by name. Every error names the text.

use super::{
    form::OutputFormat,
    group::{ChargeTo, Dimension, UnknownDimension},
    query::Query,
};
use crate::zones::Locality;
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use std::collections::BTreeMap;

/// A question.
#[derive(Clone, Debug)]
pub struct StatementRequest {
    /// The query.
    pub query: Query,
    /// The first second, that of an hour.
    pub from: u64,
    /// The second after the last one, that of an hour.
    pub to: u64,
    /// The range before that it is compared with.
    pub compare: Option<(u64, u64)>,
    /// The form of the answer.
    pub form: OutputFormat,
}

/// A question that makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum InvalidStatementRequest {
    /// A key that there is none of.
    #[error("`{0}` is none of from, to, by, locality, charge, compare, top, explain and output")]
    Key(String),
    /// The key of the rows.
    #[error("by: {0}")]
    By(#[from] UnknownDimension),
    /// A time.
    #[error("{key}: `{text}` is not a time: 2026-11-25T13:00:00Z, 2026-11-25, now, or how long ago as 90m, 24h or 7d")]
    Time {
        /// Which of the two.
        key: &'static str,
        /// The text.
        text: String,
    },
    /// A range that ends before it begins.
    #[error("the range ends before it begins: from {from} to {to}")]
    Empty {
        /// The beginning.
        from: String,
        /// The end.
        to: String,
    },
    /// A locality.
    #[error("locality: `{0}` is none of same-zone, cross-zone, cross-region, internet, unknown and all")]
    Locality(String),
    /// The charged ends.
    #[error("charge: `{0}` is neither ends nor client")]
    Charge(String),
    /// The charged ends, by node.
    #[error("charge: client needs another key than node: use namespace, workload, service or region")]
    ChargeByNode,
    /// A range.
    #[error("compare: `{0}` is not a range like 2026-11-01..2026-11-15 or 28d..14d")]
    Range(String),
    /// A number of rows.
    #[error("top: `{0}` is not a number of rows from 1 to {MAX_ROWS}")]
    Top(String),
    /// Yes or no.
    #[error("explain: `{0}` is neither true nor false")]
    Explain(String),
    /// A form.
    #[error("output: `{0}` is none of table, json, csv and markdown")]
    OutputFormat(String),
}

/// The default beginning: how long ago.
const FROM: &str = "7d";
/// The largest number of rows; beyond it the others are one row even where none was asked for.
const MAX_ROWS: usize = 100_000;
const HOUR: u64 = 3600;

impl StatementRequest {
    /// The question of these texts at this second.
    ///
    /// # Errors
    /// A text that makes no sense.
    pub fn parse(texts: &BTreeMap<String, String>, now: u64) -> Result<Self, InvalidStatementRequest> {
        let mut query = Query { top: Some(MAX_ROWS), ..Query::default() };
        let (mut from, mut to, mut form, mut compare) = (time("from", FROM, now)?, now, OutputFormat::default(), None);
        for (key, text) in texts {
            let quoted = || text.chars().filter(|c| !c.is_control()).take(60).collect::<String>();
            match key.as_str() {
                "from" => from = time("from", text, now)?,
                "to" => to = time("to", text, now)?,
                "compare" => {
                    let (first, last) =
                        text.split_once("..").ok_or_else(|| InvalidStatementRequest::Range(quoted()))?;
                    let (first, last) = (time("compare", first, now)?, time("compare", last, now)?);
                    compare = Some(whole(first, last).ok_or_else(|| InvalidStatementRequest::Range(quoted()))?);
                }
                "by" => query.by = text.parse()?,
                "locality" => query.localities = localities(text)?,
                "charge" => {
                    query.charge = match text.as_str() {
                        "ends" => ChargeTo::Ends,
                        "client" => ChargeTo::Client,
                        _ => return Err(InvalidStatementRequest::Charge(quoted())),
                    }
                }
                "top" => {
                    let top = text.parse().ok().filter(|top| (1..=MAX_ROWS).contains(top));
                    query.top = Some(top.ok_or_else(|| InvalidStatementRequest::Top(quoted()))?);
                }
                "explain" => query.explain = text.parse().map_err(|_| InvalidStatementRequest::Explain(quoted()))?,
                "output" => {
                    form = match text.as_str() {
                        "table" => OutputFormat::Table,
                        "json" => OutputFormat::Json,
                        "csv" => OutputFormat::Csv,
                        "markdown" => OutputFormat::Markdown,
                        _ => return Err(InvalidStatementRequest::OutputFormat(quoted())),
                    }
                }
                _ => {
                    return Err(InvalidStatementRequest::Key(
                        key.chars().filter(|c| !c.is_control()).take(60).collect(),
                    ));
                }
            }
        }
        if query.charge == ChargeTo::Client && query.by == Dimension::Node {
            return Err(InvalidStatementRequest::ChargeByNode);
        }
        let Some((from, to)) = whole(from, to) else {
            let text = |key: &str| texts.get(key).cloned().unwrap_or_else(|| "now".to_owned());
            return Err(InvalidStatementRequest::Empty { from: text("from"), to: text("to") });
        };
        Ok(Self { query, from, to, compare, form })
    }
}

/// The range in whole hours, as blocks are; `None` if it is empty.
fn whole(from: u64, to: u64) -> Option<(u64, u64)> {
    let to_end = to.checked_next_multiple_of(HOUR)?;
    (from < to).then_some((from - from % HOUR, to_end))
}

fn localities(text: &str) -> Result<Vec<Locality>, InvalidStatementRequest> {
    if text == "all" {
        return Ok(Locality::ALL.into());
    }
    let of = |name: &str| {
        let found = Locality::ALL.into_iter().find(|locality| locality.name() == name.trim());
        found.ok_or_else(|| {
            InvalidStatementRequest::Locality(name.chars().filter(|c| !c.is_control()).take(60).collect())
        })
    };
    text.split(',').map(of).collect()
}

fn time(key: &'static str, text: &str, now: u64) -> Result<u64, InvalidStatementRequest> {
    let bad =
        || InvalidStatementRequest::Time { key, text: text.chars().filter(|c| !c.is_control()).take(60).collect() };
    if text == "now" {
        return Ok(now);
    }
    let units = [("m", 60), ("h", HOUR), ("d", 24 * HOUR), ("w", 7 * 24 * HOUR)];
    for (unit, seconds) in units {
        if let Some(count) = text.strip_suffix(unit).and_then(|count| count.parse::<u32>().ok()) {
            return Ok(now.saturating_sub(u64::from(count) * seconds));
        }
    }
    let time = match text.parse::<Timestamp>() {
        Ok(time) => time,
        Err(_) => {
            let date: Date = text.parse().map_err(|_| bad())?;
            date.to_zoned(TimeZone::UTC).map_err(|_| bad())?.timestamp()
        }
    };
    // No block is as late as that, and sums with it stay numbers.
    u64::try_from(time.as_second()).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_764_000_100;

    fn parse(texts: &[(&str, &str)]) -> Result<StatementRequest, String> {
        let texts = texts.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
        StatementRequest::parse(&texts, NOW).map_err(|error| error.to_string())
    }

    #[test]
    fn times_are_of_whole_hours() {
        let of = |from, to| parse(&[("from", from), ("to", to)]).map(|question| (question.from, question.to)).unwrap();
        assert_eq!(of("2025-11-24T10:30:00Z", "2025-11-24T12:00:01Z"), (1_763_978_400, 1_763_989_200));
        assert_eq!(of("2025-11-23", "2025-11-24"), (1_763_856_000, 1_763_942_400));
        assert_eq!(of("2h", "now"), (1_763_992_800, 1_764_003_600));
        let question = parse(&[]).unwrap();
        assert_eq!((question.to - question.from, question.form), (7 * 24 * 3600 + 3600, OutputFormat::Json));
        let compared = parse(&[("compare", "2025-11-01..2025-11-08")]).unwrap().compare;
        assert_eq!(compared, Some((1_761_955_200, 1_762_560_000)));
    }

    #[test]
    fn texts_that_make_no_sense_are_named() {
        let refused = |key, text, start: &str| {
            let error = parse(&[(key, text)]).unwrap_err();
            assert!(error.starts_with(start) && !error.contains('\n') && error.len() < 200, "{error}");
        };
        refused("from", "yesterday", "from: `yesterday` is not a time");
        refused("from", "99999999999d", "from: `99999999999d` is not a time");
        refused("to", "-1", "to: `-1` is not a time");
        refused("to", "2020-01-01", "the range ends before it begins: from now to 2020-01-01");
        refused("by", "pod", "by: `pod` is none of zone-pair");
        refused("by", "label:", "by: `label:` is none of");
        refused("locality", "cross-zone,near", "locality: `near` is none of");
        refused("charge", "me", "charge: `me` is neither");
        refused("compare", "28d", "compare: `28d` is not a range");
        refused("compare", "14d..28d", "compare: `14d..28d` is not a range");
        refused("compare", "a..b", "compare: `a` is not a time");
        refused("top", "0", "top: `0` is not a number of rows");
        refused("top", "100001", "top: `100001` is not a number of rows from 1 to 100000");
        refused("explain", "yes", "explain: `yes` is neither");
        refused("output", "xml", "output: `xml` is none of");
        refused("frm", "x", "`frm` is none of");
        assert!(parse(&[("by", "node"), ("charge", "client")]).unwrap_err().starts_with("charge: client"));
    }
}
