//! Errors of the kernel side.

use super::{btf, denial::Denial};
use aya::maps::MapError;
use std::{error::Error as _, io, path::PathBuf};

/// An error of the kernel side.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel's type information lacks something.
    #[error(transparent)]
    Btf(#[from] btf::Error),
    /// The kernel has no netfilter programs.
    #[error(
        "Linux {release} has no netfilter eBPF programs ({source}): Linux 6.4 or newer with CONFIG_NETFILTER_BPF_LINK is needed"
    )]
    NoNetfilter {
        /// The kernel's release.
        release: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// The kernel's eBPF has no atomic exchange.
    #[error("Linux {release} has no atomic exchange in eBPF ({source}): Linux 5.12 or newer is needed")]
    NoAtomicExchange {
        /// The kernel's release.
        release: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// This process lacks a permission.
    #[error("{what} is not permitted ({source}): {denial}")]
    NotPermitted {
        /// The operation.
        what: &'static str,
        /// The kernel's error.
        source: io::Error,
        /// The likely reason.
        denial: Denial,
    },
    /// The embedded object does not fit this program.
    #[error("the embedded eBPF object is not usable: {what}")]
    Object {
        /// The reason.
        what: String,
    },
    /// The verifier refused a program.
    #[error("the kernel refused the program {program}: {source}; the end of the verifier's log: {}", log.replace('\n', " | "))]
    Load {
        /// The program.
        program: &'static str,
        /// The kernel's error.
        source: io::Error,
        /// The last lines of the verifier's log.
        log: String,
    },
    /// A map can't be made, written or read.
    #[error("the eBPF map {map}: {source}")]
    Map {
        /// The map.
        map: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// A prefix can't be written.
    #[error("the eBPF map of zones, prefix {prefix}: {source}")]
    Prefix {
        /// The prefix.
        prefix: ipnetwork::IpNetwork,
        /// The kernel's error.
        source: io::Error,
    },
    /// The devices of this node can't be listed.
    #[error("listing the network devices: {source}")]
    Devices {
        /// Netlink's error.
        source: io::Error,
    },
    /// There is no device of this name.
    #[error("there is no network device {name}: name the uplinks as `ip link` does")]
    NoSuchUplink {
        /// The name.
        name: String,
    },
    /// No route shows through which device packets leave.
    #[error("no network device has a default route: name the uplinks with --uplink")]
    NoUplink,
    /// A program can't be attached.
    #[error("attaching to {to}: {source}")]
    Attach {
        /// The hook and the device.
        to: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// The folder of the pins can't be used.
    #[error("the pins in {}: {source}", path.display())]
    Pins {
        /// The folder or a pin in it.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// A pinned map has another shape than this program's.
    #[error(
        "the pinned eBPF map {map} has another layout than this version's: `meridian agent --unload` removes the pins, and the counters start from zero"
    )]
    PinnedShape {
        /// The map.
        map: String,
    },
    /// The kernel has no tcx.
    #[error("Linux {release} has no tcx ({source}): Linux 6.6 or newer is needed; --hook clsact works on older ones")]
    NoTcx {
        /// The kernel's release.
        release: String,
        /// The kernel's error.
        source: io::Error,
    },
}

impl Error {
    /// The kernel does not permit it.
    pub(super) fn not_permitted(what: &'static str, source: io::Error) -> Self {
        Self::NotPermitted { what, source, denial: Denial::here() }
    }

    /// A map can't be made, or asked about.
    pub(super) fn of_map(map: &str, error: MapError) -> Self {
        // The kernel's answer is a source of the library's error.
        let mut cause: Option<&(dyn std::error::Error + 'static)> = error.source();
        while let Some(error) = cause {
            if let Some(code) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
                if code == libc::EPERM {
                    return Self::not_permitted("making an eBPF map", io::Error::from_raw_os_error(code));
                }
                return Self::Map { map: map.to_owned(), source: io::Error::from_raw_os_error(code) };
            }
            cause = error.source();
        }
        Self::Map { map: map.to_owned(), source: io::Error::other(error) }
    }
}
