//! The hook that a person chooses.

use crate::datapath::Hook;
use clap::ValueEnum;
use serde::Deserialize;

/// Where packets are counted.
#[derive(Clone, Copy, Debug, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum HookChoice {
    /// The one that sees this node's packets, of those that this kernel has.
    Auto,
    /// netfilter POSTROUTING (Linux 6.4 and newer).
    Netfilter,
    /// tcx egress of the uplinks (Linux 6.6 and newer).
    Tcx,
    /// clsact egress of the uplinks (every Linux that is in use).
    Clsact,
}

impl HookChoice {
    /// The hook, unless the kernel is to decide.
    pub(super) const fn fixed(self) -> Option<Hook> {
        match self {
            Self::Auto => None,
            Self::Netfilter => Some(Hook::Netfilter),
            Self::Tcx => Some(Hook::Tcx),
            Self::Clsact => Some(Hook::Clsact),
        }
    }
}
