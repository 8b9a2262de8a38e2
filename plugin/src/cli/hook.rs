//! The hook that a person chooses.

use super::failure::Failure;
use crate::datapath::{
    Devices, Hook,
    auto::{self, Choice},
};
use clap::ValueEnum;
use serde::Deserialize;
use std::path::Path;

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

    /// The hook that was chosen, or the one for these devices.
    pub(super) fn resolve(
        self,
        devices: &Devices,
        cilium_state: &Path,
        pinned: Option<Hook>,
    ) -> Result<Choice, Failure> {
        match self.fixed() {
            Some(hook) => Ok(Choice { hook, why: "as asked for".into() }),
            None => auto::choose(devices, cilium_state, pinned).map_err(Failure::failed),
        }
    }
}
