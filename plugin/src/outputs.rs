//! What a process makes of flows beside their streams: Hubble's own metrics, and flow logs. Their files are read
//! again when they change; one with an error is refused, and what was in force stays.

use crate::{
    export::{FlowLog, FlowLogs, FlowLogsConfig, Refused},
    flows::{Listener, Ring},
    hubble::{
        Exported,
        metrics::{Config, ConfigError, FlowMetrics},
    },
    identity::Index,
    metrics::{self, Reloads},
    watched::{Look, Watched},
    yaml,
};
use serde::de::DeserializeOwned;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// The flow log that flags ask for.
pub const FLAGS: &str = "flags";
/// The metrics where none are named and no cilium-agent has its own: those of Hubble's dashboard.
const METRICS: &str = "flow drop tcp icmp port-distribution";
/// How often it is looked for pods that are gone.
const PODS: Duration = Duration::from_secs(60);

/// Which metrics are wanted.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// Those of Hubble's dashboard, unless a cilium-agent has its own.
    Auto,
    /// These.
    These(Config),
}

/// What is wanted.
#[derive(Debug)]
pub struct Settings {
    /// Hubble's own metrics; none is [`Wanted::Auto`].
    pub metrics: Option<Wanted>,
    /// The file that says which of these metrics there are.
    pub metrics_file: Option<PathBuf>,
    /// A flow log.
    pub log: Option<FlowLog>,
    /// The file that says which flow logs there are beside it.
    pub logs_file: Option<PathBuf>,
}

/// An output can't be as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file can't be read.
    #[error(transparent)]
    File(#[from] yaml::Error),
    /// The metrics.
    #[error(transparent)]
    Metrics(#[from] ConfigError),
    /// The metrics of a file.
    #[error("{}: {source}", path.display())]
    MetricsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        source: ConfigError,
    },
    /// A flow log.
    #[error(transparent)]
    Log(#[from] Refused),
    /// A flow log of a file.
    #[error("{}: {name}: {reason}", path.display())]
    LogsFile {
        /// The file.
        path: PathBuf,
        /// The flow log.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Two flow logs have one name.
    #[error("the flow log {name}: the name is that of the one of the flags")]
    NameTaken {
        /// The name.
        name: String,
    },
}

/// A file that is good, and how many metrics or flow logs it has.
#[derive(Debug)]
pub struct Checked {
    /// The file.
    pub path: PathBuf,
    /// How many it has.
    pub count: usize,
    /// Of what.
    pub what: &'static str,
}

impl Settings {
    /// Reads the files that are named.
    ///
    /// # Errors
    /// One of them can't be read, or says something that can't be.
    pub fn check(&self) -> Result<Vec<Checked>, Error> {
        let mut checked = Vec::new();
        if let Some(path) = &self.metrics_file {
            let config = read::<Config>(path)?;
            FlowMetrics::new(&config).map_err(|source| Error::MetricsFile { path: path.clone(), source })?;
            checked.push(Checked { path: path.clone(), count: config.metrics.len(), what: "metrics" });
        }
        if let Some(path) = &self.logs_file {
            let logs = read::<FlowLogsConfig>(path)?.flow_logs;
            for log in &logs {
                let refused = |reason| Error::LogsFile { path: path.clone(), name: log.name.clone(), reason };
                Exported::new(&log.include_filters, &log.exclude_filters, &log.field_mask).map_err(refused)?;
            }
            checked.push(Checked { path: path.clone(), count: logs.len(), what: "flow logs" });
        }
        Ok(checked)
    }
}

/// What is made of flows.
pub struct Outputs {
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
    ///
    /// # Errors
    /// What is configured can't be.
    pub fn start(settings: &Settings, ring: &Arc<Ring>, node: String, auto: bool) -> Result<Self, Error> {
        let config = match (&settings.metrics_file, &settings.metrics) {
            (Some(file), _) => Some(read(file)?),
            (None, Some(Wanted::These(config))) => Some(config.clone()).filter(|config| !config.metrics.is_empty()),
            (None, _) if auto => Some(METRICS.parse::<Config>()?),
            (None, _) => None,
        };
        let metrics = config.map(|config| FlowMetrics::new(&config)).transpose()?;
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
            logs.apply(&outputs.wanted_logs()?)?;
            outputs.logs = Some(logs);
        }
        Ok(outputs)
    }

    /// Who counts flows that come.
    pub fn listener(&self) -> Option<Arc<dyn Listener>> {
        self.metrics.clone().map(|metrics| metrics as _)
    }

    /// What is shown of it.
    pub fn shown(&self) -> metrics::Outputs {
        metrics::Outputs {
            metrics: self.metrics.clone(),
            logs: self.logs.as_ref().map(FlowLogs::outputs),
            reloads: Arc::clone(&self.reloads),
        }
    }

    /// The flow logs that there are to be.
    fn wanted_logs(&self) -> Result<Vec<FlowLog>, Error> {
        let file = self.logs_file.as_ref().map(|file| read::<FlowLogsConfig>(&file.path)).transpose()?;
        let of_file = file.unwrap_or_default().flow_logs;
        if let Some(log) = of_file.iter().find(|log| log.name == FLAGS && self.log.is_some()) {
            return Err(Error::NameTaken { name: log.name.clone() });
        }
        Ok(self.log.iter().cloned().chain(of_file).collect())
    }

    /// Takes files again that have changed. What is refused leaves in force what there was.
    pub fn look(&mut self) {
        if let Some(file) = &mut self.metrics_file
            && matches!(file.look(), Look::Changed)
        {
            let taken = read::<Config>(&file.path).and_then(|config| match &self.metrics {
                Some(metrics) => Ok(metrics.configure(&config)?),
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
                Some(logs) => Ok(logs.apply(&wanted)?),
                None => Ok(()),
            });
            say("flow logs", &path, &taken);
            self.reloads.logs[usize::from(taken.is_err())].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Forgets series of pods that no address is known of any more.
    pub fn forget_pods(&mut self, index: &Index, now: Instant) {
        let Some(metrics) = &self.metrics else { return };
        if now.duration_since(self.looked_for_pods) < PODS || !metrics.has_pods() {
            return;
        }
        self.looked_for_pods = now;
        let mut pods = ahash::AHashSet::new();
        index.each(|_, endpoint| {
            pods.insert((Arc::clone(&endpoint.namespace), Arc::clone(&endpoint.pod)));
        });
        let lives = |namespace: &str, pod: &str| pods.contains(&(namespace.into(), pod.into()));
        metrics.forget_pods(lives);
    }

    /// Writes what has come, and ends.
    pub fn finish(self, patience: Duration) {
        if self.logs.is_some_and(|logs| !logs.finish(patience)) {
            tracing::warn!("the flow logs can't be written in time: their last lines are lost");
        }
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let refuse = |(line, reason)| yaml::Error::Refused { path: path.to_owned(), line, reason };
    let text = yaml::read(path)?;
    Ok(yaml::parse(&text, "`metrics:` or `flowLogs:`, though it be empty").map_err(refuse)?)
}

fn say(what: &str, path: &Path, taken: &Result<(), Error>) {
    let file = path.display();
    match taken {
        Ok(()) => tracing::info!(%file, "new {what} are in force"),
        Err(reason) => tracing::error!(%file, %reason, "new {what} are refused; the old ones stay in force"),
    }
}
