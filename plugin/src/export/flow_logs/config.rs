//! Which flow logs there are: a file as cilium-agent's `--hubble-flowlogs-config-path`.

use super::super::rotated::Rotation;
use crate::{
    hubble::metrics::{filters, or_none},
    proto::flow::FlowFilter,
};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de::Error};
use std::{collections::BTreeSet, time::SystemTime};

const MIB: u64 = 1 << 20;
/// Where 0 or nothing is said.
const SIZE_MB: u64 = 10;
const BACKUPS: usize = 5;
/// The path of standard output.
const STDOUT: &str = "stdout";

/// The flow logs.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct FlowLogs {
    /// Each with a name and a path of its own.
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
    /// Fields of a flow that are written, such as `source.pod_name`; all, if there is none.
    #[serde(deserialize_with = "or_none")]
    pub field_mask: Vec<String>,
    /// Flows that are written; all, if there is none.
    #[serde(deserialize_with = "filters")]
    pub include_filters: Vec<FlowFilter>,
    /// Flows that are not written.
    #[serde(deserialize_with = "filters")]
    pub exclude_filters: Vec<FlowFilter>,
    /// MiB of a file before it is moved aside; 0 is 10.
    pub file_max_size_mb: u64,
    /// Files that were moved aside and are kept; 0 is 5.
    pub file_max_backups: usize,
    /// Whether those are compressed.
    pub file_compress: bool,
    /// When it ends.
    #[serde(deserialize_with = "time")]
    pub end: Option<Timestamp>,
    /// Hubble's, which sums flows up; here it is refused.
    #[serde(deserialize_with = "none")]
    pub field_aggregate: (),
    /// The interval of that, which means nothing without it.
    #[serde(deserialize_with = "anything")]
    pub aggregation_interval: (),
}

impl FlowLog {
    /// Whether its end has not come.
    pub(super) fn is_active(&self, now: SystemTime) -> bool {
        self.end.is_none_or(|end| SystemTime::from(end) > now)
    }

    /// How its file is written; `None` where it is standard output.
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
    let time = |text: String| text.parse().map_err(|_| Error::custom(format!("`{text}` is no time")));
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
        let refused = |text: &str| yaml::parse::<FlowLogs>(text.as_bytes(), "").unwrap_err().1;
        let log = |more: &str| format!("flowLogs: [{{name: a, filePath: b{more}}}]");
        assert!(refused(&log("}, {name: a, filePath: c")).contains("two flow logs have this name"));
        assert!(refused(&log("}, {name: b, filePath: b")).contains("two flow logs have the path b"));
        assert!(refused("flowLogs: [{name: a}]").contains("it has no `filePath`"));
        assert!(refused(&log(", fieldAggregate: [source]")).contains("not summed up here"));
        assert!(refused(&log(", colour: red")).contains("colour"));
        assert!(refused(&log(", end: soon")).contains("`soon` is no time"));
    }
}
