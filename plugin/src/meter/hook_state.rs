//! What is known of a node's hook beside its name.

use crate::counters::DeviceBytes;
use std::sync::Arc;

/// What is known of a node's hook beside its name.
#[derive(Clone, Debug)]
pub struct HookState {
    /// Why packets are counted there.
    pub reason: Arc<str>,
    /// How often the hook was changed because it was blind.
    pub changes: u64,
    /// What the devices sent and what of it the hook saw, if that is compared.
    pub seen: Option<DeviceBytes>,
    /// Filters of others that run before ours.
    pub foreign_filters: u64,
}

impl Default for HookState {
    fn default() -> Self {
        Self { reason: "as asked for".into(), changes: 0, seen: None, foreign_filters: 0 }
    }
}
