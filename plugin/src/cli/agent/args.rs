//! The settings of an agent.

use super::super::{
    Failure,
    access::TokenFileArgs,
    families::{CONTROLLER, FamilyArgs},
    history_data_args::HistoryDataArgs,
    hook::HookArgs,
    host::{SOCKET, host_name},
    hubble::{Capacity, Cluster, OutputArgs, Peer, TlsArgs},
    named_file::NamedFile,
    otlp::OtlpArgs,
    pair_log::PairLogArgs,
    usage,
    values::{ListenOrOff, OFF, Seconds, Server},
};
use crate::{
    agent::{AgentArtifacts, Settings, ZoneSource},
    historian,
    hubble::{DEFAULT_CLUSTER, NodeName},
    link,
    metrics::Listen,
};
use clap::{ArgAction, ValueHint, builder::BoolishValueParser};
use std::path::{Path, PathBuf};

/// The agent's settings. A flag counts before a variable, a variable before the file. The ids are the keys of the file.
#[derive(Debug, clap::Args)]
pub(in super::super) struct Args {
    /// The configuration file.
    #[arg(long, env = "MERIDIAN_CONFIG", value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Name of this node. Default: the host's name.
    #[arg(id = "node", long = "node", env = "MERIDIAN_NODE", value_name = "NAME")]
    node: Option<String>,
    /// Name of the cluster. Flows have it before the node's name, unless it is `default`.
    #[arg(
        id = "cluster_name",
        long = "cluster-name",
        env = "MERIDIAN_CLUSTER_NAME",
        value_name = "NAME",
        default_value = DEFAULT_CLUSTER
    )]
    cluster_name: Cluster,
    /// File with the static zone table, read again when it changes and on SIGHUP. Required without a controller.
    #[arg(
        id = "zones_file",
        long = "zones-file",
        env = "MERIDIAN_ZONES_FILE",
        value_name = "FILE",
        value_hint = ValueHint::FilePath
    )]
    zones_file: Option<NamedFile>,
    #[command(flatten)]
    controller: ControllerArgs,
    #[command(flatten)]
    hook: HookArgs,
    /// Ports of services, in addition to ports on which connections were seen. Of a flow's two ports, the service's is
    /// its key.
    #[arg(
        id = "service_ports",
        long = "service-port",
        env = "MERIDIAN_SERVICE_PORTS",
        value_name = "PORT",
        value_delimiter = ','
    )]
    service_ports: Vec<u16>,
    /// Bytes of an overlay's headers to add to each packet: 50 for VXLAN or Geneve over IPv4, 70 over IPv6. 0 counts
    /// the inner packet only.
    #[arg(
        id = "overlay_header_bytes",
        long = "overlay-header-bytes",
        env = "MERIDIAN_OVERLAY_HEADER_BYTES",
        value_name = "BYTES",
        default_value_t = 0
    )]
    overlay_header_bytes: u32,
    #[command(flatten)]
    unload: UnloadArgs,
    #[command(flatten)]
    hubble: HubbleArgs,
    /// Address of the HTTP server for metrics, health, the page and its API.
    #[arg(
        id = "http.listen",
        long = "http-listen",
        env = "MERIDIAN_HTTP_LISTEN",
        value_name = "ADDRESS",
        default_value = ":9980"
    )]
    http_listen: Listen,
    #[command(flatten)]
    access: TokenFileArgs,
    #[command(flatten)]
    pair_log: PairLogArgs,
    #[command(flatten)]
    families: FamilyArgs,
    /// Maximum number of pods, and of pairs of workloads or pods, with a series of their own. The rest is in `other`.
    #[arg(
        id = "metrics.series",
        long = "metrics-series",
        env = "MERIDIAN_METRICS_SERIES",
        value_name = "NUMBER",
        default_value_t = 1000
    )]
    series: usize,
    /// Folder for the agent's sums and the controller's last table, which outlive the agent.
    #[arg(
        id = "state_dir",
        long = "state-dir",
        env = "MERIDIAN_STATE_DIR",
        value_name = "FOLDER",
        value_hint = ValueHint::DirPath,
        default_value = "/var/lib/meridian"
    )]
    state_dir: PathBuf,
    /// Folder for the history of this node. Only without a controller, which keeps the history of all nodes.
    #[arg(
        id = "history_dir",
        long = "history-dir",
        env = "MERIDIAN_HISTORY_DIR",
        value_name = "FOLDER",
        value_hint = ValueHint::DirPath
    )]
    history_dir: Option<PathBuf>,
    #[command(flatten)]
    kept: HistoryDataArgs,
    #[command(flatten)]
    otlp: OtlpArgs,
}

/// The controller that the agent follows.
#[derive(Debug, clap::Args)]
struct ControllerArgs {
    /// Address of the controller to follow for zones and endpoints, as HOST:PORT.
    #[arg(id = CONTROLLER, long = "controller", env = "MERIDIAN_CONTROLLER", value_name = "ADDRESS")]
    address: Option<Server>,
    /// PEM file with the authority of the controller's certificate. Without it, the connection has no TLS.
    #[arg(
        id = "controller.ca_file",
        long = "controller-ca",
        env = "MERIDIAN_CONTROLLER_CA",
        value_name = "FILE",
        value_hint = ValueHint::FilePath
    )]
    ca: Option<PathBuf>,
    /// Name in the controller's certificate. Default: the host in `controller`.
    #[arg(
        id = "controller.server_name",
        long = "controller-name",
        env = "MERIDIAN_CONTROLLER_NAME",
        value_name = "NAME"
    )]
    name: Option<String>,
    /// File with the token for the controller, read again for every connection.
    #[arg(
        id = "controller.token_file",
        long = "controller-token",
        env = "MERIDIAN_CONTROLLER_TOKEN",
        value_name = "FILE",
        value_hint = ValueHint::FilePath
    )]
    token: Option<PathBuf>,
    /// Interval of reports to the controller, at least 1s.
    #[arg(
        id = "controller.report_interval",
        long = "report-interval",
        env = "MERIDIAN_REPORT_INTERVAL",
        value_name = "TIME",
        default_value = "10s"
    )]
    report_interval: Seconds,
}

/// Removal instead of counting.
#[derive(Debug, clap::Args)]
struct UnloadArgs {
    /// Removes everything that agents left in the kernel and in the state folder, then exits.
    #[arg(long)]
    unload: bool,
    /// With --unload: keeps running afterwards, and reports completion on the health port.
    #[arg(long, requires = "unload")]
    stay: bool,
}

/// The server of flows.
#[derive(Debug, clap::Args)]
struct HubbleArgs {
    /// Address of the server for Hubble's clients and `meridian top`, or `off` if the socket is enough. Beyond
    /// loopback it needs TLS.
    #[arg(
        id = "hubble.listen",
        long = "hubble-listen",
        env = "MERIDIAN_HUBBLE_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:4344"
    )]
    listen: ListenOrOff,
    /// Unix socket of the same server, or `off`.
    #[arg(
        id = "hubble.socket",
        long = "hubble-socket",
        env = "MERIDIAN_HUBBLE_SOCKET",
        value_name = "PATH",
        value_hint = ValueHint::FilePath,
        default_value = SOCKET
    )]
    socket: PathBuf,
    /// Name of the node in flows and for hubble-relay, if it must differ from cilium-agent's in the same relay.
    /// Default: the node's name.
    #[arg(id = "hubble.node_name", long = "hubble-node-name", env = "MERIDIAN_HUBBLE_NODE_NAME", value_name = "NAME")]
    node_name: Option<String>,
    /// Without a controller: another flow server to announce to hubble-relay, as NAME=HOST:PORT.
    #[arg(
        id = "hubble.peers",
        long = "hubble-peer",
        env = "MERIDIAN_HUBBLE_PEERS",
        value_name = "PEER",
        value_delimiter = ','
    )]
    peers: Vec<Peer>,
    /// Appends the zones of a flow to its line in `hubble observe`.
    #[arg(
        id = "hubble.zones_in_summary",
        long = "hubble-zones-in-summary",
        env = "MERIDIAN_HUBBLE_ZONES_IN_SUMMARY",
        value_name = "BOOL",
        action = ArgAction::Set,
        value_parser = BoolishValueParser::new(),
        num_args = 0..=1,
        default_missing_value = "true",
        default_value = "false"
    )]
    zones_in_summary: bool,
    /// Number of newest flows to keep for Hubble's clients: a power of two, less one.
    #[arg(
        id = "hubble.capacity",
        long = "hubble-event-buffer-capacity",
        env = "MERIDIAN_HUBBLE_EVENT_BUFFER_CAPACITY",
        value_name = "FLOWS",
        // Hubble's.
        default_value_t = Capacity(4095)
    )]
    capacity: Capacity,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    outputs: OutputArgs,
}

impl Args {
    /// The settings in force.
    pub(in super::super) fn settings(self) -> Result<Settings, Failure> {
        let node = self.node.unwrap_or_else(host_name);
        let zones = self.controller.zone_source(&node, self.zones_file.map(|NamedFile(path)| path))?;
        let is_followed = matches!(zones, ZoneSource::Controller(_));
        let dir = self.history_dir.filter(|_| !is_followed);
        let history = historian::Settings { dir, ..self.kept.settings()? };
        let otlp = self.otlp.settings()?;
        if is_followed && otlp.is_some() {
            return Err(usage(
                "--otlp-endpoint: the controller exports the sums of all nodes: name the collector there, and not at an \
                 agent with --controller",
            ));
        }
        let hubble = self.hubble;
        let hubble_tls = match hubble.listen.0 {
            Some(listen) => hubble.tls.files(listen, "--hubble-listen")?,
            None => None,
        };
        Ok(Settings {
            zones,
            report_interval: self.controller.report_interval.0,
            state_dir: self.state_dir,
            hook: self.hook.hook.fixed(),
            uplinks: self.hook.uplinks,
            service_ports: self.service_ports,
            overlay_header_bytes: self.overlay_header_bytes,
            cilium_state_dir: self.hook.cilium_state_dir,
            pin_dir: unless_off(self.hook.pin_dir),
            hubble: hubble.listen.0,
            hubble_name: NodeName {
                cluster: self.cluster_name.0.clone(),
                node: hubble.node_name.unwrap_or_else(|| node.clone()),
            },
            hubble_peers: hubble.peers.iter().map(|peer| peer.announced(hubble_tls.is_some())).collect(),
            hubble_tls,
            hubble_zones_in_summary: hubble.zones_in_summary,
            hubble_capacity: hubble.capacity.0,
            outputs: hubble.outputs.settings()?,
            socket: unless_off(hubble.socket),
            http: self.http_listen.0,
            access: self.access.access()?,
            pair_log: self.pair_log.output.0,
            pair_log_interval: self.pair_log.interval.0,
            families: self.families.families(),
            series: self.series,
            history,
            cluster: self.cluster_name.0,
            otlp,
            node,
        })
    }

    /// The objects to remove instead of running, and the health port that reports their removal.
    pub(in super::super) fn unload(&self) -> Option<(AgentArtifacts, Option<Listen>)> {
        let remains =
            || AgentArtifacts { pin_dir: unless_off(self.hook.pin_dir.clone()), state_dir: self.state_dir.clone() };
        self.unload.unload.then(|| (remains(), self.unload.stay.then_some(self.http_listen)))
    }
}

impl ControllerArgs {
    fn zone_source(&self, node: &str, zones_file: Option<PathBuf>) -> Result<ZoneSource, Failure> {
        let server = match (&self.address, zones_file) {
            (Some(Server(server)), None) => server.clone(),
            (None, Some(file)) => return Ok(ZoneSource::File(file)),
            (Some(_), Some(_)) => {
                return Err(usage(
                    "zones come from a file or from a controller: name one of `zones_file` and `controller`",
                ));
            }
            (None, None) => {
                return Err(usage(
                    "there is no zone table: name a file with --zones-file or the key `zones_file`, or a controller \
                     with --controller",
                ));
            }
        };
        let link = link::Settings {
            node: node.to_owned(),
            server,
            authority: self.ca.clone(),
            server_name: self.name.clone(),
            token: self.token.clone(),
        };
        link.checked().map(ZoneSource::Controller).map_err(usage)
    }
}

fn unless_off(path: PathBuf) -> Option<PathBuf> {
    (path != Path::new(OFF)).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::{Cli, Command},
        export::Output,
        hubble::metrics::Config,
        metrics::Families,
        outputs::Wanted,
    };
    use std::{fs, time::Duration};

    fn settings(args: &[&str]) -> Result<Settings, Failure> {
        let args = ["meridian", "agent"].iter().chain(args);
        match Cli::from_args(args.map(Into::into).collect())?.command {
            Command::Agent(args) => args.settings(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_flag_counts_before_the_file_and_the_file_before_the_default() {
        let folder = std::env::temp_dir().join(format!("meridian-settings-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("agent.yaml");
        fs::write(
            &path,
            "zones_file: z.yaml\nhubble: {socket: off, metrics: drop, export: {file: a.log, fields: [verdict], \
             deny: '{\"verdict\":[\"DROPPED\"]}'}}\npair_log: {output: a.json, interval: 1m}\nmetrics: {pods: true}\n",
        )
        .unwrap();
        let config = format!("--config={}", path.display());
        let file = settings(&[&config]).unwrap();
        assert!(matches!(file.zones, ZoneSource::File(path) if path == folder.join("z.yaml")));
        assert_eq!((file.socket, file.series), (None, 1000));
        assert_eq!(
            (file.pair_log, file.pair_log_interval),
            (Some(Output::File("a.json".into())), Duration::from_mins(1))
        );
        assert_eq!(file.families, Families { pods: true, ..Families::default() });
        assert_eq!(file.outputs.metrics, Wanted::These("drop".parse().unwrap()));
        let log = file.outputs.log.unwrap();
        assert_eq!((log.file_path.as_str(), log.field_mask[0].as_str()), ("a.log", "verdict"));
        assert_eq!((log.exclude_filters[0].verdict[0], log.file_max_size_mb), (2, 10));
        let flags = ["--pair-log=off", "--metrics-pods=false", "--hubble-socket=/x", "--hubble-metrics=off"];
        let args = [&[config.as_str(), "--hubble-export-fieldmask", "uuid"], &flags[..]].concat();
        let flags = settings(&args).unwrap();
        assert_eq!((flags.pair_log, flags.socket), (None, Some("/x".into())));
        assert_eq!((flags.families, flags.outputs.metrics), (Families::default(), Wanted::These(Config::default())));
        assert_eq!(flags.outputs.log.unwrap().field_mask, ["uuid"]);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn an_agent_that_follows_a_controller_leaves_logs_and_series_to_it() {
        let of = |args: &[&str]| settings(&[&["--controller=c:4345"], args].concat()).unwrap();
        let followed = of(&[]);
        assert_eq!((followed.pair_log, followed.families), (None, Families::NONE));
        let asked = of(&["--pair-log=stdout", "--metrics-workloads=true"]);
        assert_eq!(asked.pair_log, Some(Output::Stdout));
        assert_eq!(asked.families, Families { workloads: true, ..Families::NONE });
    }

    #[test]
    fn sums_are_exported_by_whoever_has_all_of_them() {
        let refused = |args: &[&str]| settings(args).unwrap_err().to_string();
        let alone = settings(&["--zones-file=z.yaml", "--otlp-endpoint=http://c:4317", "--otlp-interval=5s"]).unwrap();
        let otlp = alone.otlp.unwrap();
        assert_eq!((otlp.endpoint.as_str(), otlp.every), ("http://c:4317", Duration::from_secs(5)));
        assert_eq!(settings(&["--zones-file=z.yaml", "--otlp-endpoint="]).unwrap().otlp, None);
        let followed = refused(&["--controller=c:4345", "--otlp-endpoint=http://c:4317"]);
        assert!(followed.starts_with("--otlp-endpoint: the controller exports the sums of all nodes"), "{followed}");
        let nowhere = refused(&["--zones-file=z.yaml", "--otlp-ca=ca.pem"]);
        assert!(nowhere.starts_with("--otlp-ca and --otlp-headers-file: name the collector"), "{nowhere}");
        let bad = refused(&["--zones-file=z.yaml", "--otlp-endpoint=c:4317"]);
        assert!(bad.starts_with("--otlp-endpoint: `c:4317` is not the address"), "{bad}");
    }

    #[test]
    fn zones_come_from_one_source_and_a_token_is_not_shown_in_the_clear() {
        let refused = |args: &[&str]| settings(args).unwrap_err().to_string();
        assert!(refused(&[]).starts_with("there is no zone table"));
        let both = ["--zones-file=z.yaml", "--controller=c:4345"];
        assert!(refused(&both).starts_with("zones come from a file or from a controller"));
        let shown = |address: &str| settings(&["--controller-token=token", &format!("--controller={address}")]);
        assert!(shown("c:4345").unwrap_err().to_string().starts_with("a token is shown only over TLS"));
        assert!(shown("127.0.0.1:4345").is_ok());
        assert!(settings(&["--controller-ca=ca.crt", "--controller-token=token", "--controller=c:4345"]).is_ok());
        assert_eq!(
            "c".parse::<Server>().unwrap_err().to_string(),
            "`c` is not a server like meridian-controller.meridian:4345"
        );
    }
}
