//! The controller: the program of a cluster. It watches the cluster, sends the agents the zone and the endpoint of
//! each address, and sums their reports.

mod announced;
mod error;
mod history;
mod run;
mod serving;
mod settings;
mod static_table;
mod totals;

pub use error::Error;
pub use run::run;
pub use settings::{Accounts, LeaseSettings, Settings, TotalsSettings};
