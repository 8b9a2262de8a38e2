//! The controller: the program of a cluster. It watches the cluster, tells the agents which zone an address is in and
//! which endpoint is behind it, and sums up what they report.

mod error;
mod run;
mod serving;
mod settings;
mod static_table;
mod totals;

pub use error::Error;
pub use run::run;
pub use settings::{Accounts, LeaseSettings, Settings, TotalsSettings};
