//! Flags and keys of what is made of flows beside their streams.

use super::super::{Failure, usage};
use crate::{
    export::FlowLog,
    hubble::{
        Exported,
        metrics::{Config, ConfigError},
    },
    outputs::{FLAGS, Settings, Wanted},
    proto::{flow::FlowFilter, json},
};
use serde::Deserialize;
use std::{path::PathBuf, str::FromStr};

/// Metrics and flow logs. The names are those of cilium-agent's flags.
#[derive(Clone, Debug, Default, clap::Args)]
pub(in super::super) struct OutputArgs {
    /// Hubble's own metrics of flows, as cilium-agent's flag of this name has them: names with options, such as `flow
    /// drop:sourceContext=pod;labelsContext=source_zone,destination_zone`; `off`; or `auto`: off where a cilium-agent
    /// is, that has its own, otherwise `flow drop tcp icmp port-distribution`.
    #[arg(long, env = "MERIDIAN_HUBBLE_METRICS", value_name = "METRICS")]
    hubble_metrics: Option<WantedMetrics>,
    /// A file that says which of these metrics there are and which flows they count; it is read again when it changes.
    #[arg(
        long,
        env = "MERIDIAN_HUBBLE_DYNAMIC_METRICS_CONFIG_PATH",
        value_name = "FILE",
        value_hint = clap::ValueHint::FilePath
    )]
    hubble_dynamic_metrics_config_path: Option<PathBuf>,
    /// Where flows are written as lines of JSON, a file or `stdout`; by default nowhere.
    #[arg(long, env = "MERIDIAN_HUBBLE_EXPORT_FILE_PATH", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    hubble_export_file_path: Option<String>,
    /// MiB of that file before it is moved aside; by default 10.
    #[arg(long, env = "MERIDIAN_HUBBLE_EXPORT_FILE_MAX_SIZE_MB", value_name = "NUMBER")]
    hubble_export_file_max_size_mb: Option<u64>,
    /// Files that were moved aside and are kept; by default 5.
    #[arg(long, env = "MERIDIAN_HUBBLE_EXPORT_FILE_MAX_BACKUPS", value_name = "NUMBER")]
    hubble_export_file_max_backups: Option<usize>,
    /// Whether those are compressed.
    #[arg(
        long,
        env = "MERIDIAN_HUBBLE_EXPORT_FILE_COMPRESS",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    hubble_export_file_compress: Option<bool>,
    /// Flows that are written there, as filters in JSON like `{"source_pod":["shop/"]}`, several after each other; by
    /// default all.
    #[arg(long, env = "MERIDIAN_HUBBLE_EXPORT_ALLOWLIST", value_name = "FILTERS")]
    hubble_export_allowlist: Option<FilterList>,
    /// Flows that are not written there.
    #[arg(long, env = "MERIDIAN_HUBBLE_EXPORT_DENYLIST", value_name = "FILTERS")]
    hubble_export_denylist: Option<FilterList>,
    /// Fields of a flow that are written there, such as `source.pod_name`; by default all.
    #[arg(long, env = "MERIDIAN_HUBBLE_EXPORT_FIELDMASK", value_name = "FIELD", value_delimiter = ',')]
    hubble_export_fieldmask: Vec<String>,
    /// A file that says which flow logs there are, any number of them; it is read again when it changes.
    #[arg(long, env = "MERIDIAN_HUBBLE_FLOWLOGS_CONFIG_PATH", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    hubble_flowlogs_config_path: Option<PathBuf>,
}

/// The same in a file.
#[derive(Debug, Default)]
pub(in super::super) struct OutputKeys {
    pub(in super::super) metrics: Option<String>,
    pub(in super::super) metrics_file: Option<PathBuf>,
    pub(in super::super) export: ExportKeys,
    pub(in super::super) flow_logs_file: Option<PathBuf>,
}

/// A flow log.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in super::super) struct ExportKeys {
    file: Option<String>,
    max_size_mb: Option<u64>,
    max_backups: Option<usize>,
    compress: Option<bool>,
    allow: Option<String>,
    deny: Option<String>,
    fields: Vec<String>,
}

/// Which metrics are wanted, as a flag says it.
#[derive(Clone, Debug, PartialEq)]
struct WantedMetrics(Wanted);

impl FromStr for WantedMetrics {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(match text.trim() {
            "auto" => Wanted::Auto,
            "off" => Wanted::These(Config::default()),
            list => Wanted::These(list.parse()?),
        }))
    }
}

/// Filters in JSON, after each other.
#[derive(Clone, Debug, Default, PartialEq)]
struct FilterList(Vec<FlowFilter>);

impl FromStr for FilterList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let values = serde_json::Deserializer::from_str(text).into_iter::<serde_json::Value>();
        let filter = |value: Result<_, serde_json::Error>| {
            value.map_err(|error| error.to_string()).and_then(|value| json::read("flow.FlowFilter", &value))
        };
        let filters: Result<Vec<_>, _> = values.map(filter).collect();
        let filters = filters.map_err(|error| format!("not filters like {{\"source_pod\":[\"shop/\"]}}: {error}"))?;
        // What can't be is said where it is written.
        crate::hubble::Filters::new(&filters, &[])?;
        Ok(Self(filters))
    }
}

impl OutputArgs {
    /// The flags, or else the keys.
    pub(in super::super) fn or(self, keys: OutputKeys) -> Result<Settings, Failure> {
        fn parsed<T: FromStr<Err: std::fmt::Display>>(key: &str, text: Option<String>) -> Result<Option<T>, Failure> {
            text.map(|text| text.parse().map_err(|error| usage(format!("{key}: {error}")))).transpose()
        }
        let export = keys.export;
        let allow = parsed("hubble.export.allow", export.allow)?;
        let deny = parsed("hubble.export.deny", export.deny)?;
        let mut fields = self.hubble_export_fieldmask;
        fields.retain(|field| !field.trim().is_empty());
        let log = self.hubble_export_file_path.or(export.file).map(|file_path| FlowLog {
            name: FLAGS.to_owned(),
            file_path,
            field_mask: if fields.is_empty() { export.fields } else { fields },
            include_filters: self.hubble_export_allowlist.or(allow).unwrap_or_default().0,
            exclude_filters: self.hubble_export_denylist.or(deny).unwrap_or_default().0,
            file_max_size_mb: self.hubble_export_file_max_size_mb.or(export.max_size_mb).unwrap_or_default(),
            file_max_backups: self.hubble_export_file_max_backups.or(export.max_backups).unwrap_or_default(),
            file_compress: self.hubble_export_file_compress.or(export.compress).unwrap_or_default(),
            ..FlowLog::default()
        });
        if let Some(FlowLog { include_filters, exclude_filters, field_mask, .. }) = &log {
            let refused = |error| usage(format!("hubble.export: {error}"));
            Exported::new(include_filters, exclude_filters, field_mask).map_err(refused)?;
        }
        let metrics = match self.hubble_metrics {
            None => parsed("hubble.metrics", keys.metrics)?,
            flag => flag,
        };
        let metrics_file = self.hubble_dynamic_metrics_config_path.or(keys.metrics_file);
        if metrics.is_some() && metrics_file.is_some() {
            return Err(usage(
                "metrics come from a list or from a file: name one of `hubble.metrics` and `hubble.metrics_file`",
            ));
        }
        let logs_file = self.hubble_flowlogs_config_path.or(keys.flow_logs_file);
        Ok(Settings { metrics: metrics.map(|WantedMetrics(wanted)| wanted), metrics_file, log, logs_file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    #[test]
    fn a_flag_counts_before_the_file() {
        let keys = || -> OutputKeys {
            let export = b"{file: a.log, fields: [verdict], deny: '{\"verdict\":[\"DROPPED\"]}'}";
            let export = yaml::parse(export, "").unwrap();
            OutputKeys { metrics: Some("drop".into()), export, ..OutputKeys::default() }
        };
        let file = OutputArgs::default().or(keys()).unwrap();
        let log = file.log.unwrap();
        assert_eq!((log.file_path.as_str(), log.field_mask[0].as_str()), ("a.log", "verdict"));
        assert_eq!(log.exclude_filters[0].verdict, [2]);
        assert_eq!(file.metrics, Some(Wanted::These("drop".parse().unwrap())));
        let args = OutputArgs {
            hubble_metrics: Some("off".parse().unwrap()),
            hubble_export_fieldmask: vec!["uuid".into()],
            ..OutputArgs::default()
        };
        let flags = args.or(keys()).unwrap();
        assert_eq!(flags.log.unwrap().field_mask, ["uuid"]);
        assert_eq!(flags.metrics, Some(Wanted::These(Config::default())));
    }

    #[test]
    fn filters_are_refused_where_they_are_written() {
        let refused = |text: &str| text.parse::<FilterList>().unwrap_err();
        assert!(refused("{\"pod\":[]}").starts_with("not filters like"));
        assert!(refused("shop/").starts_with("not filters like"));
        assert_eq!(refused("{\"source_pod\":[\"\"]}"), "invalid filter, name must not be empty");
        let two: FilterList = "{\"source_pod\":[\"a/\"]} {\"destination_pod\":[\"a/\"]}".parse().unwrap();
        assert_eq!(two.0.len(), 2);
    }
}
