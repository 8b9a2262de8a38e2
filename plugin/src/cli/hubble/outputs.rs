//! What is made of flows beside their streams: Hubble's own metrics, and flow logs.

use super::super::{Failure, usage};
use crate::{
    export::{FlowLog, FlowLogs, FlowLogsConfig},
    flows::{Listener, Ring},
    hubble::{
        Exported,
        metrics::{Config, ConfigError, FlowMetrics},
    },
    identity::Index,
    metrics::{self, Reloads},
    proto::{flow::FlowFilter, json},
    watched::{Look, Watched},
    yaml,
};
use serde::{Deserialize, de::DeserializeOwned};
use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// The flow log that flags ask for.
const FLAGS: &str = "flags";
/// The metrics where none are named and no cilium-agent has its own: those of Hubble's dashboard.
const METRICS: &str = "flow drop tcp icmp port-distribution";
/// How often it is looked for pods that are gone.
const PODS: Duration = Duration::from_secs(60);

/// Metrics and flow logs. The names are those of cilium-agent's flags.
#[derive(Clone, Debug, Default, clap::Args)]
pub(in super::super) struct OutputArgs {
    /// Hubble's own metrics of flows, as cilium-agent's flag of this name has them: names with options, such as `flow
    /// drop:sourceContext=pod;labelsContext=source_zone,destination_zone`; `off`; or `auto`: off where a cilium-agent
    /// is, that has its own, otherwise `flow drop tcp icmp port-distribution`.
    #[arg(long, env = "MERIDIAN_HUBBLE_METRICS", value_name = "METRICS")]
    hubble_metrics: Option<Wanted>,
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

/// Which metrics are wanted.
#[derive(Clone, Debug, PartialEq)]
enum Wanted {
    Auto,
    These(Config),
}

impl FromStr for Wanted {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.trim() {
            "auto" => Self::Auto,
            "off" => Self::These(Config::default()),
            list => Self::These(list.parse()?),
        })
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

/// What is wanted.
#[derive(Debug)]
pub(in super::super) struct OutputSettings {
    metrics: Option<Wanted>,
    metrics_file: Option<PathBuf>,
    log: Option<FlowLog>,
    logs_file: Option<PathBuf>,
}

impl OutputArgs {
    /// The flags, or else the keys.
    pub(in super::super) fn or(self, keys: OutputKeys) -> Result<OutputSettings, Failure> {
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
        Ok(OutputSettings { metrics, metrics_file, log, logs_file })
    }
}

impl OutputSettings {
    /// Reads the files that it names, and says of each what is in it.
    pub(in super::super) fn check(&self) -> Result<Vec<String>, Failure> {
        let mut said = Vec::new();
        if let Some(path) = &self.metrics_file {
            let config = read::<Config>(path)?;
            FlowMetrics::new(&config).map_err(|error| usage(format!("{}: {error}", path.display())))?;
            said.push(format!("{}: good, {} metrics", path.display(), config.metrics.len()));
        }
        if let Some(path) = &self.logs_file {
            let logs = read::<FlowLogsConfig>(path)?.flow_logs;
            for log in &logs {
                let refused = |error| usage(format!("{}: {}: {error}", path.display(), log.name));
                Exported::new(&log.include_filters, &log.exclude_filters, &log.field_mask).map_err(refused)?;
            }
            said.push(format!("{}: good, {} flow logs", path.display(), logs.len()));
        }
        Ok(said)
    }
}

/// What is made of flows.
pub(in super::super) struct Outputs {
    metrics: Option<Arc<FlowMetrics>>,
    metrics_file: Option<Watched>,
    logs: Option<FlowLogs>,
    log: Option<FlowLog>,
    logs_file: Option<Watched>,
    reloads: Arc<Reloads>,
    looked_for_pods: Instant,
}

impl Outputs {
    /// Begins with the flows that come into the ring from now on. `node` says that flows were lost; `auto` stands for
    /// metrics that are not said.
    pub(in super::super) fn start(
        settings: &OutputSettings,
        ring: &Arc<Ring>,
        node: String,
        auto: bool,
    ) -> Result<Self, Failure> {
        let config = match (&settings.metrics_file, &settings.metrics) {
            (Some(file), _) => Some(read(file)?),
            (None, Some(Wanted::These(config))) => Some(config.clone()).filter(|config| !config.metrics.is_empty()),
            (None, _) if auto => Some(METRICS.parse::<Config>().map_err(Failure::failed)?),
            (None, _) => None,
        };
        let metrics = config.map(|config| FlowMetrics::new(&config)).transpose().map_err(usage)?;
        let mut outputs = Self {
            metrics: metrics.map(Arc::new),
            metrics_file: settings.metrics_file.as_deref().map(Watched::new),
            logs: None,
            log: settings.log.clone(),
            logs_file: settings.logs_file.as_deref().map(Watched::new),
            reloads: Arc::default(),
            looked_for_pods: Instant::now(),
        };
        if outputs.log.is_some() || outputs.logs_file.is_some() {
            let mut logs = FlowLogs::new(Arc::clone(ring), node);
            logs.apply(&outputs.wanted_logs()?).map_err(usage)?;
            outputs.logs = Some(logs);
        }
        Ok(outputs)
    }

    /// Who counts flows that come.
    pub(in super::super) fn listener(&self) -> Option<Arc<dyn Listener>> {
        self.metrics.clone().map(|metrics| metrics as _)
    }

    /// What is shown of it.
    pub(in super::super) fn shown(&self) -> metrics::Outputs {
        metrics::Outputs {
            metrics: self.metrics.clone(),
            logs: self.logs.as_ref().map(FlowLogs::known),
            reloads: Arc::clone(&self.reloads),
        }
    }

    /// The flow logs that there are to be.
    fn wanted_logs(&self) -> Result<Vec<FlowLog>, Failure> {
        let file = self.logs_file.as_ref().map(|file| read::<FlowLogsConfig>(&file.path)).transpose()?;
        let of_file = file.unwrap_or_default().flow_logs;
        if let Some(log) = of_file.iter().find(|log| log.name == FLAGS && self.log.is_some()) {
            return Err(usage(format!("the flow log {}: the name is that of the one of the flags", log.name)));
        }
        Ok(self.log.iter().cloned().chain(of_file).collect())
    }

    /// Takes files again that have changed. What is refused leaves in force what there was.
    pub(in super::super) fn look(&mut self) {
        if let Some(file) = &mut self.metrics_file
            && matches!(file.look(), Look::Changed)
        {
            let taken = read::<Config>(&file.path).and_then(|config| match &self.metrics {
                Some(metrics) => metrics.configure(&config).map_err(usage),
                None => Ok(()),
            });
            say("metrics", &file.path, &taken);
            self.reloads.metrics[usize::from(taken.is_err())].fetch_add(1, Ordering::Relaxed);
        }
        if let Some(file) = &mut self.logs_file
            && matches!(file.look(), Look::Changed)
        {
            let path = file.path.clone();
            let taken = self.wanted_logs().and_then(|wanted| match &mut self.logs {
                Some(logs) => logs.apply(&wanted).map_err(usage),
                None => Ok(()),
            });
            say("flow logs", &path, &taken);
            self.reloads.logs[usize::from(taken.is_err())].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Forgets series of pods that no address is known of any more.
    pub(in super::super) fn forget_pods(&mut self, index: &Index, now: Instant) {
        let Some(metrics) = &self.metrics else { return };
        if now.duration_since(self.looked_for_pods) < PODS || !metrics.has_pods() {
            return;
        }
        self.looked_for_pods = now;
        let mut pods = ahash::AHashSet::new();
        index.each(|_, owner| {
            pods.insert((Arc::clone(&owner.namespace), Arc::clone(&owner.pod)));
        });
        let lives = |namespace: &str, pod: &str| pods.contains(&(namespace.into(), pod.into()));
        metrics.forget_pods(lives);
    }

    /// Writes what has come, and ends.
    pub(in super::super) fn finish(self, patience: Duration) {
        if self.logs.is_some_and(|logs| !logs.finish(patience)) {
            tracing::warn!("the flow logs can't be written in time: their last lines are lost");
        }
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let refuse = |(line, reason)| yaml::Error::Refused { path: path.to_owned(), line, reason };
    yaml::read(path)
        .and_then(|text| yaml::parse(&text, "`metrics:` or `flowLogs:`, though it be empty").map_err(refuse))
        .map_err(usage)
}

fn say(what: &str, path: &Path, taken: &Result<(), Failure>) {
    let file = path.display();
    match taken {
        Ok(()) => tracing::info!(%file, "new {what} are in force"),
        Err(reason) => tracing::error!(%file, %reason, "new {what} are refused; the old ones stay in force"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(file.metrics, Some("drop".parse().unwrap()));
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
