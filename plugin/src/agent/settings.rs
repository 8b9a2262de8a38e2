//! The settings of an agent.

use crate::{
    datapath::Hook,
    export::Output,
    hubble::{NodeName, Peers},
    link,
    metrics::Families,
    outputs,
};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Where the zone table comes from.
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
    /// Where the zone table comes from.
    pub zones: ZoneSource,
    /// How often the controller is told what was counted.
    pub report_interval: Duration,
    /// The folder of what must outlast the agent.
    pub state_dir: PathBuf,
    /// The hook; `None` is the one that sees this node's packets.
    pub hook: Option<Hook>,
    /// The devices through which packets leave the node; empty for those of the default routes.
    pub uplinks: Vec<String>,
    /// Ports that services are on.
    pub service_ports: Vec<u16>,
    /// Bytes that an overlay puts before each packet, to be counted with it.
    pub overlay_header_bytes: u32,
    /// Where cilium-agent keeps its state, if there is one.
    pub cilium_state_dir: PathBuf,
    /// Where counters and programs are pinned, if they are.
    pub pin_dir: Option<PathBuf>,
    /// Where Hubble's clients are served.
    pub hubble: SocketAddr,
    /// The node's names in flows.
    pub hubble_name: NodeName,
    /// The certificate that Hubble's clients are shown.
    pub hubble_tls: Option<link::Files>,
    /// Other servers of flows that are announced, where no controller is followed.
    pub hubble_peers: Peers,
    /// Whether the zones of a flow are said at the end of its line.
    pub hubble_zones_in_summary: bool,
    /// Flows that are kept for Hubble's clients.
    pub hubble_capacity: usize,
    /// What is made of flows beside their streams.
    pub outputs: outputs::Settings,
    /// The unix socket.
    pub socket: Option<PathBuf>,
    /// Where metrics and health are served.
    pub http: SocketAddr,
    /// Where the pair log goes, if anywhere.
    pub pair_log: Option<Output>,
    /// Its interval.
    pub pair_log_interval: Duration,
    /// Families of series.
    pub families: Families,
    /// Series of each family.
    pub series: usize,
}
