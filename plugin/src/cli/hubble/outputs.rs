//! Settings of Hubble's metrics and flow logs.

use super::super::{Failure, named_file::NamedFile, usage};
use crate::{
    export::FlowLog,
    hubble::{
        Exported, Filters, InvalidExport, InvalidFilter,
        metrics::{Config, ConfigError},
    },
    outputs::{FLAGS, Settings, Wanted},
    proto::{flow::FlowFilter, json},
};
use clap::{ArgAction, ValueHint, builder::BoolishValueParser};
use std::str::FromStr;

/// Metrics and flow logs. The names of the flags are those of cilium-agent's.
#[derive(Clone, Debug, clap::Args)]
pub(in super::super) struct OutputArgs {
    /// Hubble's own metrics, in the format of cilium-agent's flag: names with options, such as `flow
    /// drop:sourceContext=pod;labelsContext=source_zone,destination_zone`; `off`; or `auto`: off beside a cilium-agent,
    /// otherwise `flow drop tcp icmp port-distribution`.
    #[arg(
        id = "hubble.metrics",
        long = "hubble-metrics",
        env = "MERIDIAN_HUBBLE_METRICS",
        value_name = "METRICS",
        conflicts_with = "hubble.metrics_file",
        default_value = "auto"
    )]
    metrics: WantedMetrics,
    /// File that configures these metrics, with filters, in the format of cilium-agent's. Read again when it changes.
    #[arg(
        id = "hubble.metrics_file",
        long = "hubble-dynamic-metrics-config-path",
        env = "MERIDIAN_HUBBLE_DYNAMIC_METRICS_CONFIG_PATH",
        value_name = "FILE",
        value_hint = ValueHint::FilePath
    )]
    metrics_file: Option<NamedFile>,
    #[command(flatten)]
    export: ExportArgs,
    /// File that configures any number of flow logs, in the format of cilium-agent's. Read again when it changes.
    #[arg(
        id = "hubble.flow_logs_file",
        long = "hubble-flowlogs-config-path",
        env = "MERIDIAN_HUBBLE_FLOWLOGS_CONFIG_PATH",
        value_name = "FILE",
        value_hint = ValueHint::FilePath
    )]
    flow_logs_file: Option<NamedFile>,
}

/// A flow log.
#[derive(Clone, Debug, clap::Args)]
struct ExportArgs {
    /// File for flows as lines of JSON, or `stdout`. Default: none.
    #[arg(
        id = "hubble.export.file",
        long = "hubble-export-file-path",
        env = "MERIDIAN_HUBBLE_EXPORT_FILE_PATH",
        value_name = "FILE",
        value_hint = ValueHint::FilePath
    )]
    file: Option<String>,
    /// Size in MiB at which that file is rotated.
    #[arg(
        id = "hubble.export.max_size_mb",
        long = "hubble-export-file-max-size-mb",
        env = "MERIDIAN_HUBBLE_EXPORT_FILE_MAX_SIZE_MB",
        value_name = "NUMBER",
        default_value_t = 10
    )]
    max_size_mb: u64,
    /// Number of rotated files to keep.
    #[arg(
        id = "hubble.export.max_backups",
        long = "hubble-export-file-max-backups",
        env = "MERIDIAN_HUBBLE_EXPORT_FILE_MAX_BACKUPS",
        value_name = "NUMBER",
        default_value_t = 5
    )]
    max_backups: usize,
    /// Compress rotated files.
    #[arg(
        id = "hubble.export.compress",
        long = "hubble-export-file-compress",
        env = "MERIDIAN_HUBBLE_EXPORT_FILE_COMPRESS",
        value_name = "BOOL",
        action = ArgAction::Set,
        value_parser = BoolishValueParser::new(),
        num_args = 0..=1,
        default_missing_value = "true",
        default_value = "false"
    )]
    compress: bool,
    /// Flows to write, as one or more filters in JSON like `{"source_pod":["shop/"]}`, one after the other. Default:
    /// all.
    #[arg(
        id = "hubble.export.allow",
        long = "hubble-export-allowlist",
        env = "MERIDIAN_HUBBLE_EXPORT_ALLOWLIST",
        value_name = "FILTERS"
    )]
    allow: Option<FilterList>,
    /// Flows to leave out, as filters in JSON.
    #[arg(
        id = "hubble.export.deny",
        long = "hubble-export-denylist",
        env = "MERIDIAN_HUBBLE_EXPORT_DENYLIST",
        value_name = "FILTERS"
    )]
    deny: Option<FilterList>,
    /// Fields of a flow to write, such as `source.pod_name`. Default: all.
    #[arg(
        id = "hubble.export.fields",
        long = "hubble-export-fieldmask",
        env = "MERIDIAN_HUBBLE_EXPORT_FIELDMASK",
        value_name = "FIELD",
        value_delimiter = ','
    )]
    fields: Vec<FieldPaths>,
}

/// The metrics that a flag selects.
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
    type Err = InvalidFilters;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let values = serde_json::Deserializer::from_str(text).into_iter::<serde_json::Value>();
        let filter = |value| json::read("flow.FlowFilter", &value?);
        let filters = values.map(filter).collect::<Result<Vec<_>, _>>()?;
        // An invalid text is refused with its place.
        Filters::new(&filters, &[])?;
        Ok(Self(filters))
    }
}

/// Filters that can't be.
#[derive(Debug, thiserror::Error)]
enum InvalidFilters {
    /// They are none.
    #[error("not filters like {{\"source_pod\":[\"shop/\"]}}: {0}")]
    Unreadable(#[from] json::Unreadable),
    /// One of them can't be.
    #[error(transparent)]
    Filter(#[from] InvalidFilter),
}

/// Paths of fields of a flow.
#[derive(Clone, Debug, PartialEq)]
struct FieldPaths(String);

impl FromStr for FieldPaths {
    type Err = InvalidExport;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Exported::new(&[], &[], &[text.to_owned()])?;
        Ok(Self(text.to_owned()))
    }
}

impl OutputArgs {
    /// The settings in force.
    pub(in super::super) fn settings(self) -> Result<Settings, Failure> {
        let log = self.export.flow_log();
        if let Some(FlowLog { include_filters, exclude_filters, field_mask, .. }) = &log {
            let refused = |error| usage(format!("hubble.export: {error}"));
            Exported::new(include_filters, exclude_filters, field_mask).map_err(refused)?;
        }
        Ok(Settings {
            metrics: self.metrics.0,
            metrics_file: self.metrics_file.map(|NamedFile(path)| path),
            log,
            logs_file: self.flow_logs_file.map(|NamedFile(path)| path),
        })
    }
}

impl ExportArgs {
    fn flow_log(self) -> Option<FlowLog> {
        let fields = self.fields.into_iter().map(|FieldPaths(paths)| paths);
        Some(FlowLog {
            name: FLAGS.to_owned(),
            file_path: self.file?,
            field_mask: fields.filter(|paths| !paths.trim().is_empty()).collect(),
            include_filters: self.allow.unwrap_or_default().0,
            exclude_filters: self.deny.unwrap_or_default().0,
            file_max_size_mb: self.max_size_mb,
            file_max_backups: self.max_backups,
            file_compress: self.compress,
            ..FlowLog::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_refused_where_they_are_written() {
        let refused = |text: &str| text.parse::<FilterList>().unwrap_err().to_string();
        assert!(refused("{\"pod\":[]}").starts_with("not filters like"));
        assert!(refused("shop/").starts_with("not filters like"));
        assert_eq!(refused("{\"source_pod\":[\"\"]}"), "invalid filter, name must not be empty");
        let two: FilterList = "{\"source_pod\":[\"a/\"]} {\"destination_pod\":[\"a/\"]}".parse().unwrap();
        assert_eq!(two.0.len(), 2);
    }
}
