//! The counters for an OpenTelemetry collector, over OTLP/gRPC: cumulative, monotonic sums of whole numbers.
//!
//! A sum has the time at which its counting began, so a receiver knows a counter that began again from one that lost
//! messages. A lost message costs nothing: the next one has the totals.

mod exporter;
mod message;
mod points;
mod settings;
mod starts;
mod tally;

pub use exporter::Exporter;
pub use message::Program;
pub use points::Content;
pub use settings::{Settings, SettingsError};
pub use tally::Tally;

#[cfg(test)]
mod tests;
