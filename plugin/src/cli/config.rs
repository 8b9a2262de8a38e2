//! The agent's configuration: a file, whose every key is also a flag and an environment variable.

mod command;

pub(super) use command::{Config, run};

use super::{
    Failure, HookChoice,
    hubble::{Capacity, Cluster, ExportKeys, OutputArgs, OutputKeys, Peer, TlsArgs, TlsKeys},
    invalid::Invalid,
    usage,
};
use crate::{
    agent::{Remains, Settings, ZoneSource},
    cost::PriceTable,
    export::Output,
    historian,
    hubble::NodeName,
    link,
    metrics::{Families, Listen},
    yaml,
};
use jiff::SignedDuration;
use serde::Deserialize;
use std::{
    fs,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

/// Where the agent is found on its node.
pub(super) const SOCKET: &str = "/run/meridian/hubble.sock";
const HUBBLE_LISTEN: &str = "127.0.0.1:4344";
const HTTP_LISTEN: &str = ":9980";
const STATE_DIR: &str = "/var/lib/meridian";
pub(super) const PIN_DIR: &str = "/sys/fs/bpf/meridian";
pub(super) const CILIUM_STATE_DIR: &str = "/var/run/cilium/state";
const PAIR_LOG_INTERVAL: Duration = Duration::from_secs(10);
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
const SERIES: usize = 1000;
/// Hubble's default.
const RING_CAPACITY: Capacity = Capacity(4095);
/// What turns an output off.
const OFF: &str = "off";

/// The agent's configuration. A flag counts before a variable, a variable before the file.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    /// The configuration file.
    #[arg(long, env = "MERIDIAN_CONFIG", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// This node's name; by default the host's.
    #[arg(long, env = "MERIDIAN_NODE", value_name = "NAME")]
    node: Option<String>,
    /// The cluster's name, which stands before the node's in flows unless it is `default`.
    #[arg(long, env = "MERIDIAN_CLUSTER_NAME", value_name = "NAME")]
    cluster_name: Option<Cluster>,
    /// The static table; it is read again when it changes and on SIGHUP. Either this or a controller is needed.
    #[arg(long, env = "MERIDIAN_ZONES_FILE", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    zones_file: Option<PathBuf>,
    /// The controller that says which zone an address is in and who has it, as HOST:PORT.
    #[arg(long, env = "MERIDIAN_CONTROLLER", value_name = "ADDRESS")]
    controller: Option<String>,
    /// The authority that signed the controller's certificate, as PEM; without it there is no TLS.
    #[arg(long, env = "MERIDIAN_CONTROLLER_CA", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    controller_ca: Option<PathBuf>,
    /// The name in the controller's certificate; by default the host that `controller` names.
    #[arg(long, env = "MERIDIAN_CONTROLLER_NAME", value_name = "NAME")]
    controller_name: Option<String>,
    /// The token that the controller asks for; it is read again for every connection.
    #[arg(long, env = "MERIDIAN_CONTROLLER_TOKEN", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    controller_token: Option<PathBuf>,
    /// How often the controller is told what was counted, at least 1s; by default 10s.
    #[arg(long, env = "MERIDIAN_REPORT_INTERVAL", value_name = "TIME")]
    report_interval: Option<Seconds>,
    /// Where packets are counted; by default auto.
    #[arg(long, env = "MERIDIAN_HOOK")]
    hook: Option<HookChoice>,
    /// Devices through which packets leave the node; by default those of the default routes.
    #[arg(long = "uplink", env = "MERIDIAN_UPLINKS", value_name = "DEVICE", value_delimiter = ',')]
    uplinks: Vec<String>,
    /// Ports that services are on, beside those that a connection was seen to be made to: of two ports the
    /// one that is a service's names the flow.
    #[arg(long = "service-port", env = "MERIDIAN_SERVICE_PORTS", value_name = "PORT", value_delimiter = ',')]
    service_ports: Vec<u16>,
    /// Bytes that an overlay puts before each packet, to be counted with it: 50 for VXLAN or Geneve over IPv4, 70
    /// over IPv6; by default 0, the packet inside alone.
    #[arg(long, env = "MERIDIAN_OVERLAY_HEADER_BYTES", value_name = "BYTES")]
    overlay_header_bytes: Option<u32>,
    /// Where cilium-agent keeps its state, if there is one: its configuration there says which hook sees the
    /// packets; by default /var/run/cilium/state.
    #[arg(long, env = "MERIDIAN_CILIUM_STATE_DIR", value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    cilium_state_dir: Option<PathBuf>,
    /// Where the counters and programs are pinned, so that they go on while the agent is away, or `off`; by default
    /// /sys/fs/bpf/meridian.
    #[arg(long, env = "MERIDIAN_PIN_DIR", value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    pin_dir: Option<PathBuf>,
    /// Takes everything away that agents have left in the kernel and in the state folder, and ends.
    #[arg(long)]
    unload: bool,
    /// With --unload: does not end then, but says that it is done on the port for health.
    #[arg(long, requires = "unload")]
    stay: bool,
    /// Where Hubble's clients and `meridian top` are served; by default 127.0.0.1:4344. Beyond loopback with TLS.
    #[arg(long, env = "MERIDIAN_HUBBLE_LISTEN", value_name = "ADDRESS")]
    hubble_listen: Option<Listen>,
    /// The node's name in flows and for hubble-relay, where cilium-agent has its own in the same relay; by default the
    /// node's.
    #[arg(long, env = "MERIDIAN_HUBBLE_NODE_NAME", value_name = "NAME")]
    hubble_node_name: Option<String>,
    /// Where no controller is followed: another server of flows that is announced to hubble-relay, as NAME=HOST:PORT.
    #[arg(long = "hubble-peer", env = "MERIDIAN_HUBBLE_PEERS", value_name = "PEER", value_delimiter = ',')]
    hubble_peers: Vec<Peer>,
    /// Says the zones of a flow at the end of its line in `hubble observe`, too.
    #[arg(long, env = "MERIDIAN_HUBBLE_ZONES_IN_SUMMARY", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    hubble_zones_in_summary: Option<bool>,
    /// Flows that are kept for Hubble's clients, the newest ones: a power of two, less one; by default 4095.
    #[arg(long, env = "MERIDIAN_HUBBLE_EVENT_BUFFER_CAPACITY", value_name = "FLOWS")]
    hubble_event_buffer_capacity: Option<Capacity>,
    #[command(flatten)]
    hubble_tls: TlsArgs,
    #[command(flatten)]
    hubble_outputs: OutputArgs,
    /// The unix socket where they are served, too, or `off`; by default /run/meridian/hubble.sock.
    #[arg(long, env = "MERIDIAN_HUBBLE_SOCKET", value_name = "PATH", value_hint = clap::ValueHint::FilePath)]
    hubble_socket: Option<PathBuf>,
    /// Where metrics and health are served over HTTP; by default :9980.
    #[arg(long, env = "MERIDIAN_HTTP_LISTEN", value_name = "ADDRESS")]
    http_listen: Option<Listen>,
    /// Where the pair log goes, a JSON line for each pair that crossed zones in an interval: `stdout`, `off` or a
    /// file; by default stdout, where a controller is followed off: it logs.
    #[arg(long, env = "MERIDIAN_PAIR_LOG", value_name = "OUTPUT", value_hint = clap::ValueHint::FilePath)]
    pair_log: Option<PairLogOutput>,
    /// The interval of the pair log, at least 1s; by default 10s.
    #[arg(long, env = "MERIDIAN_PAIR_LOG_INTERVAL", value_name = "TIME")]
    pair_log_interval: Option<Seconds>,
    /// Whether there are series by pair of namespaces (`meridian_namespace_*`); by default true,
    /// where a controller is followed false: it has them.
    #[arg(long, env = "MERIDIAN_METRICS_NAMESPACES", value_name = "BOOL")]
    metrics_namespaces: Option<bool>,
    /// Whether there are series by pair of workloads (`meridian_workload_*`); by default true,
    /// where a controller is followed false: it has them.
    #[arg(long, env = "MERIDIAN_METRICS_WORKLOADS", value_name = "BOOL")]
    metrics_workloads: Option<bool>,
    /// Whether there are series by pair of pods (`meridian_pod_*`); by default false.
    #[arg(long, env = "MERIDIAN_METRICS_PODS", value_name = "BOOL")]
    metrics_pods: Option<bool>,
    /// Whether kubezonnet's series by pod are there (`pod_cross_zone_network_traffic_bytes_total`); by default true,
    /// where a controller is followed false: it has them.
    #[arg(long, env = "MERIDIAN_METRICS_KUBEZONNET", value_name = "BOOL")]
    metrics_kubezonnet: Option<bool>,
    /// Whether OpenCost's series by pod are there (`kubecost_pod_network_egress_bytes_total`); by default true,
    /// where a controller is followed false: it has them.
    #[arg(long, env = "MERIDIAN_METRICS_OPENCOST", value_name = "BOOL")]
    metrics_opencost: Option<bool>,
    /// Pods, and pairs of workloads or pods, that have a series of their own at most; the rest is `other`; by
    /// default 1000.
    #[arg(long, env = "MERIDIAN_METRICS_SERIES", value_name = "NUMBER")]
    metrics_series: Option<usize>,
    /// Where the agent keeps what must outlast it, its sums and the controller's last table; by default /var/lib/meridian.
    #[arg(long, env = "MERIDIAN_STATE_DIR", value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    state_dir: Option<PathBuf>,
    /// A folder for the history of this node, where no controller is followed: a controller keeps it for all nodes.
    #[arg(long, env = "MERIDIAN_HISTORY_DIR", value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    history_dir: Option<PathBuf>,
    /// A file with prices of your own, which come before the list prices, and with discounts.
    #[arg(long, env = "MERIDIAN_PRICES", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    prices: Option<PathBuf>,
}

/// The flag that each key of the file is, by its name in [`Args`].
const KEYS: [(&str, &str); 46] = [
    ("node", "node"),
    ("cluster_name", "cluster_name"),
    ("zones_file", "zones_file"),
    ("controller", "controller.address"),
    ("controller_ca", "controller.ca_file"),
    ("controller_name", "controller.server_name"),
    ("controller_token", "controller.token_file"),
    ("report_interval", "controller.report_interval"),
    ("hook", "hook"),
    ("uplinks", "uplinks"),
    ("service_ports", "service_ports"),
    ("overlay_header_bytes", "overlay_header_bytes"),
    ("cilium_state_dir", "cilium_state_dir"),
    ("pin_dir", "pin_dir"),
    ("hubble_listen", "hubble.listen"),
    ("hubble_node_name", "hubble.node_name"),
    ("hubble_peers", "hubble.peers"),
    ("hubble_zones_in_summary", "hubble.zones_in_summary"),
    ("hubble_event_buffer_capacity", "hubble.capacity"),
    ("hubble_tls_cert_file", "hubble.tls.cert_file"),
    ("hubble_tls_key_file", "hubble.tls.key_file"),
    ("hubble_tls_client_ca_files", "hubble.tls.client_ca_files"),
    ("hubble_disable_tls", "hubble.tls.disable"),
    ("hubble_metrics", "hubble.metrics"),
    ("hubble_dynamic_metrics_config_path", "hubble.metrics_file"),
    ("hubble_export_file_path", "hubble.export.file"),
    ("hubble_export_file_max_size_mb", "hubble.export.max_size_mb"),
    ("hubble_export_file_max_backups", "hubble.export.max_backups"),
    ("hubble_export_file_compress", "hubble.export.compress"),
    ("hubble_export_allowlist", "hubble.export.allow"),
    ("hubble_export_denylist", "hubble.export.deny"),
    ("hubble_export_fieldmask", "hubble.export.fields"),
    ("hubble_flowlogs_config_path", "hubble.flow_logs_file"),
    ("hubble_socket", "hubble.socket"),
    ("http_listen", "http.listen"),
    ("pair_log", "pair_log.output"),
    ("pair_log_interval", "pair_log.interval"),
    ("metrics_namespaces", "metrics.namespaces"),
    ("metrics_workloads", "metrics.workloads"),
    ("metrics_pods", "metrics.pods"),
    ("metrics_kubezonnet", "metrics.kubezonnet"),
    ("metrics_opencost", "metrics.opencost"),
    ("metrics_series", "metrics.series"),
    ("state_dir", "state_dir"),
    ("history_dir", "history_dir"),
    ("prices", "prices"),
];

/// agent.yaml.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    node: Option<String>,
    cluster_name: Option<String>,
    /// Relative to the folder of this file.
    zones_file: Option<PathBuf>,
    controller: ControllerKeys,
    hook: Option<HookChoice>,
    uplinks: Vec<String>,
    service_ports: Vec<u16>,
    overlay_header_bytes: Option<u32>,
    cilium_state_dir: Option<PathBuf>,
    pin_dir: Option<PathBuf>,
    hubble: HubbleKeys,
    http: HttpKeys,
    pair_log: PairLogKeys,
    metrics: MetricsKeys,
    state_dir: Option<PathBuf>,
    history_dir: Option<PathBuf>,
    /// Relative to the folder of this file.
    prices: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ControllerKeys {
    address: Option<String>,
    ca_file: Option<PathBuf>,
    server_name: Option<String>,
    token_file: Option<PathBuf>,
    report_interval: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HubbleKeys {
    listen: Option<String>,
    socket: Option<PathBuf>,
    node_name: Option<String>,
    peers: Vec<String>,
    zones_in_summary: Option<bool>,
    capacity: Option<usize>,
    tls: TlsKeys,
    metrics: Option<String>,
    metrics_file: Option<PathBuf>,
    export: ExportKeys,
    flow_logs_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HttpKeys {
    listen: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PairLogKeys {
    output: Option<String>,
    interval: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MetricsKeys {
    namespaces: Option<bool>,
    workloads: Option<bool>,
    pods: Option<bool>,
    kubezonnet: Option<bool>,
    opencost: Option<bool>,
    series: Option<usize>,
}

/// Where the pair log goes; `None` is nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PairLogOutput(pub(super) Option<Output>);

impl FromStr for PairLogOutput {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(match text {
            "" => return Err(Invalid::NoOutput),
            OFF => None,
            "stdout" | "-" => Some(Output::Stdout),
            path => Some(Output::File(path.into())),
        }))
    }
}

/// A time of at least a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seconds(pub(super) Duration);

impl FromStr for Seconds {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time: SignedDuration = text.parse().map_err(|_| Invalid::Time(text.to_owned()))?;
        let time = Duration::try_from(time).ok().filter(|time| *time >= Duration::from_secs(1));
        time.map(Self).ok_or_else(|| Invalid::ShortTime(text.to_owned()))
    }
}

fn read_file(path: &Path) -> Result<File, Failure> {
    let refuse = |(line, reason)| yaml::Error::Refused { path: path.to_owned(), line, reason };
    let mut file: File = yaml::read(path)
        .and_then(|text| yaml::parse(&text, "at least the key `zones_file`").map_err(refuse))
        .map_err(usage)?;
    for named in [&mut file.zones_file, &mut file.prices].into_iter().flatten() {
        if let Some(folder) = path.parent() {
            *named = folder.join(&named);
        }
    }
    Ok(file)
}

/// A value by its flag, or by its key, or by default.
fn value<T: FromStr<Err: std::fmt::Display>>(
    flag: Option<T>,
    text: Option<String>,
    key: &str,
    default: impl FnOnce() -> Result<T, T::Err>,
) -> Result<T, Failure> {
    match (flag, text) {
        (Some(flag), _) => Ok(flag),
        (None, Some(text)) => text.parse().map_err(|error| usage(format!("{key}: {error}"))),
        (None, None) => default().map_err(usage),
    }
}

impl Args {
    /// The configuration in force.
    pub(super) fn settings(self) -> Result<Settings, Failure> {
        let args = self;
        let file = args.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let folder = args.config.as_deref().and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
        let node = args.node.or(file.node).unwrap_or_else(host_name);
        let zones_file = args.zones_file.or(file.zones_file);
        let zones = match (args.controller.or(file.controller.address), zones_file) {
            (Some(_), Some(_)) => {
                return Err(usage(
                    "zones come from a file or from a controller: name one of `zones_file` and `controller`",
                ));
            }
            (None, None) => {
                return Err(usage(
                    "there is no zone table: name a file with --zones-file or the key `zones_file`, or a \
                                  controller with --controller",
                ));
            }
            (None, Some(file)) => ZoneSource::File(file),
            (Some(server), None) => ZoneSource::Controller(
                link::Settings {
                    node: node.clone(),
                    server,
                    authority: args.controller_ca.or(file.controller.ca_file),
                    server_name: args.controller_name.or(file.controller.server_name),
                    token: args.controller_token.or(file.controller.token_file),
                }
                .checked()
                .map_err(usage)?,
            ),
        };
        let in_folder = |path: Option<PathBuf>| path.map(|path| folder.join(path));
        let outputs = OutputKeys {
            metrics: file.hubble.metrics,
            metrics_file: in_folder(file.hubble.metrics_file),
            export: file.hubble.export,
            flow_logs_file: in_folder(file.hubble.flow_logs_file),
        };
        let hubble = value(args.hubble_listen, file.hubble.listen, "hubble.listen", || HUBBLE_LISTEN.parse())?;
        let cluster = value(args.cluster_name, file.cluster_name, "cluster_name", || Ok(Cluster::default()))?.0;
        let hubble_name = args.hubble_node_name.or(file.hubble.node_name).unwrap_or_else(|| node.clone());
        let hubble_peers: Vec<Peer> = match args.hubble_peers {
            none if none.is_empty() => {
                let peers = file.hubble.peers.iter().map(|peer| peer.parse());
                peers.collect::<Result<_, Invalid>>().map_err(|error| usage(format!("hubble.peers: {error}")))?
            }
            peers => peers,
        };
        let socket = args.hubble_socket.or(file.hubble.socket).unwrap_or_else(|| SOCKET.into());
        let switch = |flag: Option<bool>, key: Option<bool>, default| flag.or(key).unwrap_or(default);
        let (output, interval) = (file.pair_log.output, file.pair_log.interval);
        let default_interval = || Ok(Seconds(PAIR_LOG_INTERVAL));
        // A controller sums up and logs for all; what each said again would count twice.
        let is_followed = matches!(zones, ZoneSource::Controller(_));
        let families = if is_followed { Families::NONE } else { Families::default() };
        let log_to = if is_followed { OFF } else { "stdout" };
        let report_interval =
            value(args.report_interval, file.controller.report_interval, "controller.report_interval", || {
                Ok(Seconds(REPORT_INTERVAL))
            })?;
        let hubble_tls = args.hubble_tls.or(file.hubble.tls).files(hubble.0, "--hubble-listen")?;
        let hubble_peers = hubble_peers.iter().map(|peer| peer.announced(hubble_tls.is_some())).collect();
        let prices = args.prices.or(file.prices);
        let prices = prices.as_deref().map_or_else(|| Ok(PriceTable::default()), PriceTable::read).map_err(usage)?;
        let dir = args.history_dir.or(file.history_dir).filter(|_| !is_followed);
        let history = historian::Settings { dir, prices, ..historian::Settings::default() };
        Ok(Settings {
            node,
            zones,
            report_interval: report_interval.0,
            state_dir: args.state_dir.or(file.state_dir).unwrap_or_else(|| STATE_DIR.into()),
            hook: args.hook.or(file.hook).unwrap_or(HookChoice::Auto).fixed(),
            uplinks: if args.uplinks.is_empty() { file.uplinks } else { args.uplinks },
            service_ports: if args.service_ports.is_empty() { file.service_ports } else { args.service_ports },
            overlay_header_bytes: args.overlay_header_bytes.or(file.overlay_header_bytes).unwrap_or_default(),
            cilium_state_dir: args
                .cilium_state_dir
                .or(file.cilium_state_dir)
                .unwrap_or_else(|| CILIUM_STATE_DIR.into()),
            pin_dir: pin_dir(args.pin_dir.or(file.pin_dir)),
            hubble: hubble.0,
            hubble_name: NodeName { cluster, node: hubble_name },
            hubble_tls,
            hubble_peers,
            hubble_zones_in_summary: switch(args.hubble_zones_in_summary, file.hubble.zones_in_summary, false),
            hubble_capacity: value(
                args.hubble_event_buffer_capacity,
                file.hubble.capacity.map(|capacity| capacity.to_string()),
                "hubble.capacity",
                || Ok(RING_CAPACITY),
            )?
            .0,
            outputs: args.hubble_outputs.or(outputs)?,
            socket: (socket != Path::new(OFF)).then_some(socket),
            http: value(args.http_listen, file.http.listen, "http.listen", || HTTP_LISTEN.parse())?.0,
            pair_log: value(args.pair_log, output, "pair_log.output", || log_to.parse())?.0,
            pair_log_interval: value(args.pair_log_interval, interval, "pair_log.interval", default_interval)?.0,
            families: Families {
                namespaces: switch(args.metrics_namespaces, file.metrics.namespaces, families.namespaces),
                workloads: switch(args.metrics_workloads, file.metrics.workloads, families.workloads),
                pods: switch(args.metrics_pods, file.metrics.pods, families.pods),
                kubezonnet: switch(args.metrics_kubezonnet, file.metrics.kubezonnet, families.kubezonnet),
                opencost: switch(args.metrics_opencost, file.metrics.opencost, families.opencost),
            },
            series: args.metrics_series.or(file.metrics.series).unwrap_or(SERIES),
            history,
        })
    }
}

fn pin_dir(chosen: Option<PathBuf>) -> Option<PathBuf> {
    let folder = chosen.unwrap_or_else(|| PIN_DIR.into());
    (folder != Path::new(OFF)).then_some(folder)
}

impl Args {
    /// What is to be taken away instead of running, and where it is said that it is gone, if somebody waits for that.
    pub(super) fn unload(&self) -> Result<Option<(Remains, Option<Listen>)>, Failure> {
        if !self.unload {
            return Ok(None);
        }
        let file = self.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let listen = value(self.http_listen, file.http.listen, "http.listen", || HTTP_LISTEN.parse())?;
        let remains = Remains {
            pin_dir: pin_dir(self.pin_dir.clone().or(file.pin_dir)),
            state_dir: self.state_dir.clone().or(file.state_dir).unwrap_or_else(|| STATE_DIR.into()),
        };
        Ok(Some((remains, self.stay.then_some(listen))))
    }
}

/// This host's name.
pub(super) fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "localhost".to_owned(), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_counts_before_the_file() {
        let folder = std::env::temp_dir().join(format!("meridian-settings-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("agent.yaml");
        fs::write(&path, "zones_file: z.yaml\nhubble: {socket: off}\npair_log: {output: a.json, interval: 1m}\nmetrics: {pods: true}\n").unwrap();
        let config = Some(path);
        let file = Args { config: config.clone(), ..Args::default() }.settings().unwrap();
        assert!(matches!(file.zones, ZoneSource::File(path) if path == folder.join("z.yaml")));
        assert_eq!(file.socket, None);
        assert_eq!(file.pair_log, Some(Output::File("a.json".into())));
        assert_eq!(file.pair_log_interval, Duration::from_secs(60));
        assert_eq!(file.families, Families { pods: true, ..Families::default() });
        let args = Args {
            config,
            pair_log: Some(PairLogOutput(None)),
            metrics_pods: Some(false),
            hubble_socket: Some("/x".into()),
            ..Args::default()
        };
        let flags = args.settings().unwrap();
        assert_eq!((flags.pair_log, flags.socket), (None, Some("/x".into())));
        assert_eq!(flags.families, Families::default());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn zones_come_from_one_source_and_a_token_is_not_shown_in_the_clear() {
        let refused = |args: Args| args.settings().unwrap_err().to_string();
        let controller = |address: &str| Args { controller: Some(address.into()), ..Args::default() };
        assert!(refused(Args::default()).starts_with("there is no zone table"));
        let both = Args { zones_file: Some("z.yaml".into()), ..controller("c:4345") };
        assert!(refused(both).starts_with("zones come from a file or from a controller"));
        assert!(refused(controller("c")).starts_with("controller: `c` is not a server"));
        let shown = |address: &str| Args { controller_token: Some("token".into()), ..controller(address) };
        assert!(refused(shown("c:4345")).starts_with("a token is shown only over TLS"));
        assert!(shown("127.0.0.1:4345").settings().is_ok());
        assert!(Args { controller_ca: Some("ca.crt".into()), ..shown("c:4345") }.settings().is_ok());
    }

    #[test]
    fn an_interval_is_at_least_a_second() {
        assert_eq!("1m30s".parse(), Ok(Seconds(Duration::from_secs(90))));
        assert_eq!("500ms".parse::<Seconds>(), Err(Invalid::ShortTime("500ms".to_owned())));
        assert_eq!("ten".parse::<Seconds>(), Err(Invalid::Time("ten".to_owned())));
    }
}
