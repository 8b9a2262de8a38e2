//! Flows: turns the kernel's counters of traffic between two addresses into Hubble's flow events, and keeps the
//! events in a ring for readers.
//!
//! An event is Hubble's own message, encoded, so recorded flows and live flows are handled the same way. Pure: no
//! kernel, no network; time is a parameter.

mod by_slot;
mod encoded;
mod endpoint;
mod entry;
mod event;
mod events;
pub mod icmp;
mod namespaces;
mod node;
#[cfg(test)]
mod orders;
mod own_fields;
mod ring;
mod sink;
mod steps;
mod tracker;

pub use by_slot::BySlot;
pub use encoded::{Beside, Encoded, Part, Parts};
pub use entry::{Entry, Event, SlotId};
pub use event::FlowBuilder;
pub use events::{EventLog, Wanted as WantedEvents};
pub use namespaces::Namespaces;
pub use node::Node;
pub use ring::{Batch, Held, Lost, READERS, Record, Ring};
pub use sink::{Listener, Sink};
pub use tracker::{Growth, Progress, Tracker};
