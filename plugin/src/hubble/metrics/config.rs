//! The configuration of the families: a list in Hubble's syntax, or a file that is read again when it changes.

use super::super::filter::InvalidFilter;
use crate::proto::{flow::FlowFilter, json};
use serde::{Deserialize, Deserializer, de::Error};
use std::collections::BTreeMap;

/// The families.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The families, each at most once.
    #[serde(deserialize_with = "or_none")]
    pub metrics: Vec<MetricConfig>,
}

/// A family.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct MetricConfig {
    /// The name of Hubble's handler, such as `flow`.
    pub name: String,
    /// The options that select labels.
    #[serde(deserialize_with = "or_none")]
    pub context_options: Vec<ContextOption>,
    /// Counts only flows that match; empty means all flows.
    #[serde(deserialize_with = "filters")]
    pub include_filters: Vec<FlowFilter>,
    /// Does not count flows that match.
    #[serde(deserialize_with = "filters")]
    pub exclude_filters: Vec<FlowFilter>,
}

/// An option of a family, such as `sourceContext`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContextOption {
    /// The option's name; case is ignored.
    pub name: String,
    /// The option's values, in order.
    #[serde(deserialize_with = "or_none")]
    pub values: Vec<String>,
}

/// The reason why the families are refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A family is invalid.
    #[error("{0}: {1}")]
    Metric(String, MetricError),
    /// A family is listed twice.
    #[error("{0}: it is listed twice")]
    Twice(String),
    /// A family exists with other labels.
    #[error("{0}: its labels can't change without a restart")]
    Labels(String),
}

/// The reason why a family is invalid.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MetricError {
    /// The name is missing.
    #[error("a metric has no name")]
    NoName,
    /// Hubble has no such handler.
    #[error("there is no such metric; there are {0}")]
    Unknown(&'static str),
    /// The handler has no such option.
    #[error("it has no option `{0}`")]
    Option(String),
    /// `labelsContext` has no label of this name.
    #[error("invalid labelsContext value: {0}")]
    Label(String),
    /// There is no such context for an end.
    #[error("unknown context '{0}'")]
    Context(String),
    /// A filter is invalid.
    #[error(transparent)]
    Filter(#[from] InvalidFilter),
}

/// `flow:sourceContext=pod|ip;labelsContext=source_zone drop`: the syntax of cilium-agent's `--hubble-metrics`.
impl Config {
    /// Parses a list without checking the names.
    pub(super) fn listed(text: &str) -> Self {
        let metric = |text: &str| {
            let (name, options) = text.split_once(':').unwrap_or((text, ""));
            let options = options.split(';').filter(|option| !option.is_empty());
            let option = |text: &str| {
                let (name, values) = text.split_once('=').unwrap_or((text, ""));
                let separator = if values.contains('|') { '|' } else { ',' };
                let values = values.split(separator).filter(|value| !value.is_empty()).map(str::to_owned);
                ContextOption { name: name.to_owned(), values: values.collect() }
            };
            MetricConfig { name: name.to_owned(), context_options: options.map(option).collect(), ..Default::default() }
        };
        Self { metrics: text.split_whitespace().map(metric).collect() }
    }
}

/// A list; a key without a value is an empty one.
pub fn or_none<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Filters by field name, as in Hubble's files.
pub fn filters<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<FlowFilter>, D::Error> {
    let values: Option<Vec<BTreeMap<String, serde_json::Value>>> = Option::deserialize(from)?;
    let filter = |fields: BTreeMap<String, serde_json::Value>| {
        json::read("flow.FlowFilter", &fields.into_iter().collect()).map_err(Error::custom)
    };
    values.unwrap_or_default().into_iter().map(filter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    #[test]
    fn a_list_is_read_as_hubble_reads_it() {
        let config: Config = "drop:sourceContext=pod|ip;labelsContext=source_pod,source_app flow".parse().unwrap();
        let option = |name: &str, values: [&str; 2]| ContextOption {
            name: name.into(),
            values: values.map(str::to_owned).into(),
        };
        assert_eq!(config.metrics[0].name, "drop");
        let expected = [option("sourceContext", ["pod", "ip"]), option("labelsContext", ["source_pod", "source_app"])];
        assert_eq!(config.metrics[0].context_options, expected);
        assert_eq!(config.metrics[1], MetricConfig { name: "flow".into(), ..MetricConfig::default() });
    }

    #[test]
    fn an_invalid_configuration_is_refused_with_the_reason() {
        let refused = |text: &str| text.parse::<Config>().unwrap_err().to_string();
        assert_eq!(
            refused("flwo"),
            "flwo: there is no such metric; there are flow, drop, tcp, icmp, port-distribution, flows-to-world"
        );
        assert_eq!(refused("flow:sourceContext=pood"), "flow: unknown context 'pood'");
        assert_eq!(refused("flow:labelsContext=pod"), "flow: invalid labelsContext value: pod");
        assert_eq!(refused("flow:port"), "flow: it has no option `port`");
        assert_eq!(refused("flow flow"), "flow: it is listed twice");
        assert!("dns flow".parse::<Config>().is_ok(), "a list of Cilium's is taken, without what is not seen here");
    }

    #[test]
    fn a_file_is_read_as_hubble_reads_it() {
        let text = br#"
metrics:
- name: "drop"
  contextOptions:
  - name: "labelsContext"
    values: ["source_namespace", "source_pod"]
  includeFilters:
  - source_pod: ["allow/src_pod"]
    event_type: [{type: 1}]
  - verdict: [DROPPED]
  excludeFilters: []
- name: flow
  contextOptions:
"#;
        let config: Config = yaml::parse(text, "").unwrap();
        assert_eq!(config.metrics[0].include_filters[0].source_pod, ["allow/src_pod"]);
        assert_eq!(config.metrics[0].include_filters[1].verdict, [2]);
        assert_eq!(config.metrics[1].name, "flow");
        assert_eq!(yaml::parse::<Config>(b"metrics:", "").unwrap(), Config::default());
        let refused = yaml::parse::<Config>(b"metrics: [{name: flow, includeFilters: [{pod: [a]}]}]", "").unwrap_err();
        assert!(refused.reason.to_string().contains("pod"), "{refused:?}");
    }
}
