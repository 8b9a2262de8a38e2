//! A question for advice, as the command line and the API take it: texts by name. Every error names the text.

use super::{Options, form::OutputFormat, traffic::Traffic};
use crate::{
    cost::{Price, Unit},
    statement,
};
use std::{collections::BTreeMap, time::Duration};

/// A question.
#[derive(Clone, Debug)]
pub struct AdviceRequest {
    /// The first second of the range.
    pub from: u64,
    /// The second after the last one.
    pub to: u64,
    /// The findings to show.
    pub options: Options,
    /// The finding that is shown in full, by its id.
    pub explain: Option<String>,
    /// The form of the answer.
    pub form: OutputFormat,
}

/// A question that makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum InvalidAdviceRequest {
    /// A key that there is none of.
    #[error("`{0}` is none of from, to, floor, cap, min-data, explain and output")]
    Key(String),
    /// The range.
    #[error("{0}")]
    Range(#[from] statement::InvalidStatementRequest),
    /// An amount of money.
    #[error("floor: `{0}` is no amount of dollars like 1 or 0.50, up to 100")]
    Floor(String),
    /// A number of findings.
    #[error("cap: `{0}` is no number from 1 to {max}", max = Options::MAX_CAP)]
    Cap(String),
    /// A time.
    #[error("min-data: `{0}` is no time like 0s, 30m, 24h or 7d")]
    MinData(String),
    /// A form.
    #[error("output: `{0}` is none of table, json, patch and markdown")]
    OutputFormat(String),
}

/// The last hours of the range are the present.
const RECENT: u64 = 12 * 3600;

impl AdviceRequest {
    /// Traffic to which the blocks of the range are added at this second.
    pub fn traffic(&self, now: u64) -> Traffic {
        Traffic::recent_from(self.to.min(now).saturating_sub(RECENT))
    }

    /// The question of these texts at this second.
    ///
    /// # Errors
    /// A text that makes no sense.
    pub fn parse(texts: &BTreeMap<String, String>, now: u64) -> Result<Self, InvalidAdviceRequest> {
        let mut range = BTreeMap::new();
        let (mut options, mut form, mut explain) = (Options::default(), OutputFormat::default(), None);
        for (key, text) in texts {
            match key.as_str() {
                "from" | "to" => {
                    range.insert(key.clone(), text.clone());
                }
                "floor" => {
                    let floor = Price::parse(text).map_err(|_| InvalidAdviceRequest::Floor(quoted(text)))?;
                    options.floor = floor.of(1_000_000_000, Unit::Gigabyte);
                }
                "cap" => {
                    let cap = text.parse().ok().filter(|cap| (1..=Options::MAX_CAP).contains(cap));
                    options.cap = cap.ok_or_else(|| InvalidAdviceRequest::Cap(quoted(text)))?;
                }
                "min-data" => {
                    options.min_recorded = duration(text).ok_or_else(|| InvalidAdviceRequest::MinData(quoted(text)))?;
                }
                "explain" => explain = Some(text.clone()),
                "output" => {
                    form =
                        OutputFormat::of_name(text).ok_or_else(|| InvalidAdviceRequest::OutputFormat(quoted(text)))?
                }
                _ => return Err(InvalidAdviceRequest::Key(quoted(key))),
            }
        }
        let statement::StatementRequest { from, to, .. } = statement::StatementRequest::parse(&range, now)?;
        Ok(Self { from, to, options, explain, form })
    }
}

/// The beginning of a text, for an error.
fn quoted(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

fn duration(text: &str) -> Option<Duration> {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 24 * 3600)];
    let of = |(unit, seconds): (&str, u64)| Some(u64::from(text.strip_suffix(unit)?.parse::<u32>().ok()?) * seconds);
    units.into_iter().find_map(of).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(key: &str, text: &str) -> Result<AdviceRequest, String> {
        let texts = BTreeMap::from([(key.to_owned(), text.to_owned())]);
        AdviceRequest::parse(&texts, 1_764_000_100).map_err(|error| error.to_string())
    }

    #[test]
    fn texts_are_read_or_refused_by_name() {
        assert_eq!(parse("floor", "0.50").unwrap().options.floor.exact(), "0.5");
        assert_eq!(parse("min-data", "90m").unwrap().options.min_recorded, Duration::from_secs(5400));
        let default = parse("cap", "3").unwrap();
        assert_eq!(
            (default.options.cap, default.options.floor.exact(), default.form),
            (3, "1".into(), OutputFormat::Json)
        );
        assert_eq!(default.to - default.from, 7 * 24 * 3600 + 3600);
        for (key, text, start) in [
            ("floor", "-1", "floor: `-1` is no amount"),
            ("floor", "101", "floor: `101` is no amount"),
            ("cap", "0", "cap: `0` is no number from 1 to 1000"),
            ("cap", "1001", "cap: `1001` is no number"),
            ("min-data", "1", "min-data: `1` is no time"),
            ("min-data", "99999999999d", "min-data: `99999999999d` is no time"),
            ("output", "csv", "output: `csv` is none of"),
            ("from", "yesterday", "from: `yesterday` is not a time"),
            ("by", "node", "`by` is none of"),
        ] {
            let error = parse(key, text).unwrap_err();
            assert!(error.starts_with(start), "{error}");
        }
    }
}
