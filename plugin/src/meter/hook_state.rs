//! The state of a node's hook besides its name.

use crate::counters::DeviceBytes;
use std::sync::Arc;

/// The state of a node's hook besides its name.
#[derive(Clone, Debug)]
pub struct HookState {
    /// The reason for this hook.
    pub reason: Arc<str>,
    /// How often the agent changed a hook that missed traffic.
    pub changes: u64,
    /// Steps of such changes that the kernel refused.
    pub refused: u64,
    /// Bytes sent by the devices and bytes seen by the hook, where they are compared.
    pub seen: Option<DeviceBytes>,
    /// Filters of other programs that run before ours.
    pub foreign_filters: u64,
}

impl Default for HookState {
    fn default() -> Self {
        Self { reason: "as asked for".into(), changes: 0, refused: 0, seen: None, foreign_filters: 0 }
    }
}
