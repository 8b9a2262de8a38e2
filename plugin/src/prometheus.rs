//! The traffic of a range from a server with Prometheus's query API: Prometheus, Thanos, Mimir or VictoriaMetrics.
//!
//! The counters' values at the hours of the range are asked for, and what each grew by is summed. A counter that fell began
//! again at zero; one that is new begins at zero if its node's counters began within the range, and otherwise with its
//! first value. So the sums are approximate: what was counted between the last scrape and a restart is missing, and so is
//! what was counted while nobody scraped and the counters began again.

mod answer;
mod client;
mod edges;
mod traffic;

pub use client::{AskError, Server, Settings, SettingsError};
pub use traffic::{Reader, Unsupported};

/// What a report from such a server says of itself.
pub const NOTE: &str = "from the metrics' values at whole hours; bytes between the last scrape and a restart are missing, \
                        providers are guessed from the names of zones, and external prefixes count as zones";

#[cfg(test)]
mod tests;
