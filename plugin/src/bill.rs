//! The provider's bill beside the history: the transfer between zones that a bill charges for, by day and resource,
//! and the bytes that the history has for the same. Pure: readers take bytes, and nothing here opens a file.
//!
//! Bills are read as streams: of each line only a few fields are kept, a line has a limit, and so has the number of
//! resources, beyond which they are one sum. Sums are exact, to the billionth of a byte.

mod amount;
mod aws;
mod charges;
mod columns;
mod day;
mod form;
mod gcp;
mod invalid;
mod lines;
mod measured;
mod reading;
mod reconciliation;
mod unpacked;

pub use amount::{BillUnit, InvalidAmount, bytes};
pub use charges::{Charges, Resource};
pub use day::{Day, InvalidDay};
pub use invalid::{BadBill, InvalidLine};
pub use measured::{BadAnswer, Measured, MeasuredDay, MeasuredNode, NodeId};
pub use reading::{Format, read};
pub use reconciliation::{GroupBy, Payer, Reason, Reconciliation, Row, UnknownBy};

#[cfg(test)]
mod tests;
