//! Answers of the query API.

use serde::Deserialize;
use std::collections::BTreeMap;

/// A series with its values by time.
#[derive(Debug, Deserialize)]
pub(super) struct Series {
    #[serde(rename = "metric")]
    pub(super) labels: BTreeMap<String, String>,
    values: Vec<(f64, String)>,
}

impl Series {
    /// Times in seconds, and values. Values that are no counts are left out.
    pub(super) fn values(&self) -> impl Iterator<Item = (u64, f64)> {
        self.values.iter().filter_map(|(time, value)| {
            let value: f64 = value.parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0)?;
            (*time >= 0.0 && *time < 1e12).then_some((*time as u64, value))
        })
    }
}

/// An answer.
pub(super) enum Answer {
    Series(Vec<Series>),
    /// The server's reason.
    Error(String),
}

#[derive(Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum Envelope {
    Success { data: Data },
    Error { error: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: Vec<Series>,
}

/// Reads an answer.
///
/// # Errors
/// It is none of this API: a description.
pub(super) fn read(body: &[u8]) -> Result<Answer, String> {
    match serde_json::from_slice(body) {
        Ok(Envelope::Success { data: Data { result_type, result } }) if result_type == "matrix" => {
            Ok(Answer::Series(result))
        }
        Ok(Envelope::Success { .. }) => Err("it is no matrix".to_owned()),
        Ok(Envelope::Error { error }) => Ok(Answer::Error(error)),
        Err(_) => {
            let beginning: String = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
            let words: Vec<&str> = beginning.split_whitespace().collect();
            let beginning: String = words.join(" ").chars().filter(|c| !c.is_control()).take(40).collect();
            Err(if beginning.is_empty() { "it is empty".to_owned() } else { format!("it begins with `{beginning}`") })
        }
    }
}
