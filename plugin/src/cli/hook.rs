//! Where packets are counted.

use super::host::{CILIUM_STATE_DIR, PIN_DIR};
use crate::datapath::Hook;
use clap::{ValueEnum, ValueHint};
use std::path::PathBuf;

/// The hook that a person chooses.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum HookChoice {
    /// The hook of this kernel that sees the node's packets.
    Auto,
    /// netfilter POSTROUTING (Linux 6.4 and newer).
    Netfilter,
    /// tcx egress of the uplinks (Linux 6.6 and newer).
    Tcx,
    /// clsact egress of the uplinks (every Linux in use).
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

/// The hook, and the settings that decide it.
#[derive(Debug, clap::Args)]
pub(super) struct HookArgs {
    /// Hook that counts packets.
    #[arg(id = "hook", long = "hook", env = "MERIDIAN_HOOK", default_value = "auto")]
    pub(super) hook: HookChoice,
    /// Devices through which packets leave the node. Default: those of the default routes.
    #[arg(id = "uplinks", long = "uplink", env = "MERIDIAN_UPLINKS", value_name = "DEVICE", value_delimiter = ',')]
    pub(super) uplinks: Vec<String>,
    /// Folder of cilium-agent's state, if there is one. The hook that sees the packets depends on Cilium's
    /// configuration there.
    #[arg(
        id = "cilium_state_dir",
        long = "cilium-state-dir",
        env = "MERIDIAN_CILIUM_STATE_DIR",
        value_name = "FOLDER",
        value_hint = ValueHint::DirPath,
        default_value = CILIUM_STATE_DIR
    )]
    pub(super) cilium_state_dir: PathBuf,
    /// Folder for pinned counters and programs, which continue while the agent is down; or `off`.
    #[arg(
        id = "pin_dir",
        long = "pin-dir",
        env = "MERIDIAN_PIN_DIR",
        value_name = "FOLDER",
        value_hint = ValueHint::DirPath,
        default_value = PIN_DIR
    )]
    pub(super) pin_dir: PathBuf,
}
