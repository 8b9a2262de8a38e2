//! The hooks, and whether this kernel has them.

use super::{Error, probe, sys};
use std::fmt;

/// A place in the kernel where packets are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hook {
    /// netfilter POSTROUTING (Linux 6.4).
    #[default]
    Netfilter,
    /// tcx egress of the uplinks (Linux 6.6).
    Tcx,
    /// clsact egress of the uplinks (Linux 4.5).
    Clsact,
}

/// A device that every network namespace has.
const LOOPBACK: u32 = 1;

impl Hook {
    /// All hooks, in the order of preference.
    pub const ALL: [Self; 3] = [Self::Netfilter, Self::Tcx, Self::Clsact];

    /// Checks that this kernel has the hook.
    ///
    /// # Errors
    /// The kernel lacks the hook, or does not permit eBPF to this process.
    pub fn require(self) -> Result<(), Error> {
        match self {
            Self::Netfilter => probe::accept_all().map(drop),
            Self::Tcx => {
                sys::query_tcx(LOOPBACK, sys::Side::Egress).map(drop).map_err(|source| match source.raw_os_error() {
                    Some(libc::EPERM) => Error::not_permitted("asking for eBPF programs", source),
                    _ => Error::NoTcx { release: probe::release(), source },
                })
            }
            // The other hooks came after this instruction.
            Self::Clsact => probe::atomic_exchange(),
        }
    }

    /// The name in options, reports and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Netfilter => "netfilter",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
