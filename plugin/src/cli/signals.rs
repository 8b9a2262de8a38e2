//! Signals to a long-running command.

use super::Failure;
use std::sync::Arc;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};
use tokio_util::sync::CancellationToken;

/// The requests received so far.
#[derive(Clone, Debug, Default)]
pub(super) struct ReceivedSignals {
    /// A request to end: SIGINT or SIGTERM.
    pub(super) end: CancellationToken,
    /// A request to read files again: SIGHUP.
    pub(super) reload: Arc<Notify>,
}

/// Handles every signal from now on. Must be called inside a runtime.
pub(super) fn signals() -> Result<ReceivedSignals, Failure> {
    let asked = ReceivedSignals::default();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut signal = signal(kind).map_err(Failure::failed)?;
        let asked = asked.clone();
        // The task ends with the runtime.
        tokio::spawn(async move {
            while signal.recv().await.is_some() {
                if kind == SignalKind::hangup() {
                    asked.reload.notify_one();
                } else {
                    asked.end.cancel();
                }
            }
        });
    }
    Ok(asked)
}
