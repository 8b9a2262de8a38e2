//! The settings of an agent.

use crate::{
    datapath::Hook,
    export::Output,
    historian,
    hubble::{NodeName, Peers},
    link,
    metrics::{Access, Families},
    otlp, outputs,
};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// The source of the zone table.
#[derive(Debug)]
pub enum ZoneSource {
    /// A static table.
    File(PathBuf),
    /// A controller.
    Controller(link::Settings),
}

/// The configuration in force.
#[derive(Debug)]
pub struct Settings {
    /// The node's name.
    pub node: String,
    /// The source of the zone table.
    pub zones: ZoneSource,
    /// The interval of reports to the controller.
    pub report_interval: Duration,
    /// The folder for state that outlives the agent.
    pub state_dir: PathBuf,
    /// The hook; `None` chooses the one that sees this node's packets.
    pub hook: Option<Hook>,
    /// The devices through which packets leave the node; empty means those of the default routes.
    pub uplinks: Vec<String>,
    /// Ports of services.
    pub service_ports: Vec<u16>,
    /// Bytes that an overlay adds before each packet, to be counted with it.
    pub overlay_header_bytes: u32,
    /// The state folder of cilium-agent.
    pub cilium_state_dir: PathBuf,
    /// The folder for pinned counters and programs; `None` pins nothing.
    pub pin_dir: Option<PathBuf>,
    /// The address for Hubble's clients; `None` serves them at the socket alone.
    pub hubble: Option<SocketAddr>,
    /// The node's names in flows.
    pub hubble_name: NodeName,
    /// The certificate for Hubble's clients.
    pub hubble_tls: Option<link::Files>,
    /// Other flow servers to announce if there is no controller.
    pub hubble_peers: Peers,
    /// Whether the summary at the end of a flow's line includes its zones.
    pub hubble_zones_in_summary: bool,
    /// The number of flows kept for Hubble's clients.
    pub hubble_capacity: usize,
    /// Hubble's metrics and flow logs.
    pub outputs: outputs::Settings,
    /// The unix socket.
    pub socket: Option<PathBuf>,
    /// The address for metrics and health.
    pub http: SocketAddr,
    /// Who may read the page and its API there.
    pub access: Access,
    /// The output of the pair log, if there is one.
    pub pair_log: Option<Output>,
    /// The interval of the pair log.
    pub pair_log_interval: Duration,
    /// The families of series.
    pub families: Families,
    /// The limit of series in each family.
    pub series: usize,
    /// The history, where no controller is followed.
    pub history: historian::Settings,
    /// The cluster's name.
    pub cluster: String,
    /// The OpenTelemetry collector, if there is one.
    pub otlp: Option<otlp::Settings>,
}
