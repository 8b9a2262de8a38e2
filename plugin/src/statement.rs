//! Statements: traffic by key, with its cost, the price rules, and the coverage. Pure.
//!
//! However a statement is grouped, the bytes, the packets and the money of its rows are those of its total, to the byte
//! and to the smallest unit.

mod budgets;
mod comparison;
mod coverage;
mod form;
pub mod grid;
mod group;
mod json;
mod query;
mod question;
mod rows;
mod samples;
mod series;
mod summary;
mod table;
mod time;

pub use budgets::{BudgetState, BudgetSums};
pub use comparison::Comparison;
pub use coverage::Coverage;
pub use form::OutputFormat;
pub use group::{ChargeTo, Dimension, Key, UnknownDimension};
pub(crate) use json::field as csv_field;
pub use query::Query;
pub use question::{InvalidStatementRequest, StatementRequest};
pub use rows::{Row, Statement, Sum};
pub use samples::Samples;
pub use series::{MAX_POINTS, MAX_ROWS, Series, Step};
pub use summary::Summary;

#[cfg(test)]
mod tests;
