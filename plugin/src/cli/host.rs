//! This host, and where an agent is found on it.

use std::fs;

/// The unix socket of an agent.
pub(super) const SOCKET: &str = "/run/meridian/hubble.sock";
/// The pins of an agent.
pub(super) const PIN_DIR: &str = "/sys/fs/bpf/meridian";
/// The state of cilium-agent.
pub(super) const CILIUM_STATE_DIR: &str = "/var/run/cilium/state";

/// This host's name.
pub(super) fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "localhost".to_owned(), |name| name.trim().to_owned())
}
