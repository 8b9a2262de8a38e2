//! The traffic of a range from a server with Prometheus's query API: Prometheus, Thanos, Mimir or VictoriaMetrics.
//!
//! The counters' values at the hours of the range are asked for, and their growth is summed. A counter that fell began
//! again at zero; one that is new begins at zero if its node's counters began within the range, and otherwise with its
//! first value. So the sums are approximate: bytes between the last scrape and a restart are missing, and so are
//! those of counters that began again while there were no scrapes.

mod answer;
mod client;
mod edges;
mod traffic;

pub use client::{AskError, Server, Settings, SettingsError};
pub use traffic::{Reader, Unsupported};

/// The note in a report from such a server.
pub const NOTE: &str = "from the metrics' values at whole hours; bytes between the last scrape and a restart are missing, \
                        providers are guessed from the names of zones, and external prefixes count as zones";

#[cfg(test)]
mod tests;
