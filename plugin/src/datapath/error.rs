//! Why the kernel side does not work.

use super::btf;
use std::{io, path::PathBuf};

/// Why the kernel side does not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel's type information lacks something.
    #[error(transparent)]
    Btf(#[from] btf::Error),
    /// The kernel knows no netfilter programs.
    #[error(
        "Linux {release} has no netfilter eBPF programs ({source}): Linux 6.4 or newer with CONFIG_NETFILTER_BPF_LINK is needed"
    )]
    NoNetfilter {
        /// The kernel's release.
        release: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// This process may not do it.
    #[error("{what} is not permitted ({source}): run as root, or with the capabilities BPF, NET_ADMIN and PERFMON")]
    NotPermitted {
        /// What was tried.
        what: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The embedded object is not what this program expects.
    #[error("the embedded eBPF object is not usable: {what}")]
    Object {
        /// What is wrong with it.
        what: String,
    },
    /// The verifier refused a program.
    #[error("the kernel refused the program {program}: {source}; the end of the verifier's log: {}", log.replace('\n', " | "))]
    Load {
        /// The program.
        program: &'static str,
        /// What the kernel answered.
        source: io::Error,
        /// The last lines of the verifier's log.
        log: String,
    },
    /// A map can't be made, written or read.
    #[error("the eBPF map {map}: {source}")]
    Map {
        /// The map.
        map: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A prefix can't be written.
    #[error("the eBPF map of zones, prefix {prefix}: {source}")]
    Prefix {
        /// The prefix.
        prefix: ipnetwork::IpNetwork,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The devices of this node can't be listed.
    #[error("listing the network devices: {source}")]
    Devices {
        /// What netlink answered.
        source: io::Error,
    },
    /// A device was named that is not there.
    #[error("there is no network device {name}: name the uplinks as `ip link` does")]
    NoSuchUplink {
        /// The name.
        name: String,
    },
    /// Nothing says through which device packets leave.
    #[error("no network device has a default route: name the uplinks with --uplink")]
    NoUplink,
    /// No program can be attached.
    #[error("attaching to {to}: {source}")]
    Attach {
        /// The hook, and where it is.
        to: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The folder of the pins can't be used.
    #[error("the pins in {}: {source}", path.display())]
    Pins {
        /// The folder, or what is in it.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// What is pinned is not what this program would pin.
    #[error(
        "the pinned eBPF map {map} is not as this version makes it: `meridian agent --unload` takes the pins away, and the counters begin anew"
    )]
    PinnedShape {
        /// The map.
        map: String,
    },
    /// The kernel knows no tcx.
    #[error("Linux {release} has no tcx ({source}): Linux 6.6 or newer is needed; --hook clsact works on older ones")]
    NoTcx {
        /// The kernel's release.
        release: String,
        /// What the kernel answered.
        source: io::Error,
    },
}
