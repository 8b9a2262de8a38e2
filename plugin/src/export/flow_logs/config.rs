//! The configuration of flow logs: a file in the format of cilium-agent's `--hubble-flowlogs-config-path`.

use super::super::rotated::Rotation;
use crate::{
    hubble::metrics::{filters, or_none},
    proto::flow::FlowFilter,
};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de::Error};
use std::{collections::BTreeSet, time::SystemTime};

const MIB: u64 = 1 << 20;
/// The default of the file size, which 0 also means.
const SIZE_MB: u64 = 10;
const BACKUPS: usize = 5;
/// The path of standard output.
const STDOUT: &str = "stdout";

/// The flow logs.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct FlowLogs {
    /// The flow logs; names and paths are unique.
    #[serde(deserialize_with = "apart")]
    pub flow_logs: Vec<FlowLog>,
}

/// A flow log.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct FlowLog {
    /// Its name.
    pub name: String,
    /// A file, or `stdout`.
    pub file_path: String,
    /// Fields to write, such as `source.pod_name`; empty means all.
    #[serde(deserialize_with = "or_none")]
    pub field_mask: Vec<String>,
    /// Writes only flows that match; empty means all flows.
    #[serde(deserialize_with = "filters")]
    pub include_filters: Vec<FlowFilter>,
    /// Does not write flows that match.
    #[serde(deserialize_with = "filters")]
    pub exclude_filters: Vec<FlowFilter>,
    /// The size in MiB at which a file is rotated; 0 means 10.
    pub file_max_size_mb: u64,
    /// The number of rotated files to keep; 0 means 5.
    pub file_max_backups: usize,
    /// Whether rotated files are compressed.
    pub file_compress: bool,
    /// The time at which the log ends.
    #[serde(deserialize_with = "time")]
    pub end: Option<Timestamp>,
    /// Hubble's option to aggregate flows; refused here.
    #[serde(deserialize_with = "none")]
    pub field_aggregate: (),
    /// The interval of the aggregation; ignored without it.
    #[serde(deserialize_with = "anything")]
    pub aggregation_interval: (),
}

impl FlowLog {
    /// Whether the log's end time has not come yet.
    pub(super) fn is_active(&self, now: SystemTime) -> bool {
        self.end.is_none_or(|end| SystemTime::from(end) > now)
    }

    /// The rotation of the log's file; `None` for standard output.
    pub(super) fn rotation(&self) -> Option<Rotation> {
        let or = |value, default| if value == 0 { default } else { value };
        (self.file_path != STDOUT).then(|| Rotation {
            path: self.file_path.clone().into(),
            size: or(self.file_max_size_mb, SIZE_MB).saturating_mul(MIB),
            backups: if self.file_max_backups == 0 { BACKUPS } else { self.file_max_backups },
            compress: self.file_compress,
        })
    }
}

fn apart<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<FlowLog>, D::Error> {
    let logs: Vec<FlowLog> = or_none(from)?;
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for log in &logs {
        if log.name.is_empty() {
            return Err(Error::custom("a flow log has no `name`"));
        }
        if log.file_path.is_empty() {
            return Err(Error::custom(format!("{}: it has no `filePath`", log.name)));
        }
        if !names.insert(&log.name) {
            return Err(Error::custom(format!("{}: two flow logs have this name", log.name)));
        }
        if !paths.insert(&log.file_path) {
            return Err(Error::custom(format!("{}: two flow logs have the path {}", log.name, log.file_path)));
        }
    }
    Ok(logs)
}

fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
    let text: Option<String> = Option::deserialize(from)?;
    let time = |text: String| text.parse().map_err(|_| Error::custom(format!("`{text}` is not a time")));
    text.map(time).transpose()
}

fn none<'de, D: Deserializer<'de>>(from: D) -> Result<(), D::Error> {
    let fields: Vec<String> = or_none(from)?;
    fields.is_empty().then_some(()).ok_or_else(|| Error::custom("fieldAggregate: flows are not summed up here"))
}

fn anything<'de, D: Deserializer<'de>>(from: D) -> Result<(), D::Error> {
    serde::de::IgnoredAny::deserialize(from).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn a_file_is_read_as_hubble_reads_it() {
        let text = br#"
flowLogs:
- name: "all"
  filePath: "/var/log/all.log"
  fieldMask: []
  fieldAggregate: []
  aggregationInterval: "0s"
  includeFilters: []
  fileMaxSizeMb: 0
  excludeFilters:
  end: "2023-10-09T23:59:59-07:00"
- name: drops
  filePath: stdout
  fieldMask: ["source.namespace", "verdict"]
  includeFilters:
  - source_pod: ["default/"]
    event_type: [{type: 1}]
  excludeFilters:
  - destination_pod: ["ingress/"]
  fileCompress: true
"#;
        let FlowLogs { flow_logs } = yaml::parse(text, "").unwrap();
        let [all, drops] = &*flow_logs else { panic!("{flow_logs:?}") };
        let path = "/var/log/all.log".into();
        assert_eq!(all.rotation(), Some(Rotation { path, size: 10 << 20, backups: 5, compress: false }));
        let end = UNIX_EPOCH + Duration::from_secs(1_696_921_199);
        assert!(all.is_active(end - Duration::from_secs(1)) && !all.is_active(end));
        assert_eq!((drops.rotation(), drops.include_filters[0].event_type[0].r#type), (None, 1));
        assert_eq!(drops.field_mask, ["source.namespace", "verdict"]);
        let refused = |text: &str| yaml::parse::<FlowLogs>(text.as_bytes(), "").unwrap_err().reason.to_string();
        let log = |more: &str| format!("flowLogs: [{{name: a, filePath: b{more}}}]");
        assert!(refused(&log("}, {name: a, filePath: c")).contains("two flow logs have this name"));
        assert!(refused(&log("}, {name: b, filePath: b")).contains("two flow logs have the path b"));
        assert!(refused("flowLogs: [{name: a}]").contains("it has no `filePath`"));
        assert!(refused(&log(", fieldAggregate: [source]")).contains("not summed up here"));
        assert!(refused(&log(", colour: red")).contains("colour"));
        assert!(refused(&log(", end: soon")).contains("`soon` is not a time"));
    }
}
