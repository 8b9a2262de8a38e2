//! Errors of the demo.

use crate::{archive, cost::InvalidPrices, datapath, netlab, yaml, zones::InvalidTable};
use std::io;

/// An error of the demo.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its network.
    #[error(transparent)]
    Network(#[from] netlab::Error),
    /// A client or server of the demo failed.
    #[error("the demo's traffic: {source}")]
    Traffic {
        /// The cause.
        source: io::Error,
    },
    /// The datapath failed.
    #[error(transparent)]
    Datapath(#[from] datapath::Error),
    /// The history can't be read.
    #[error(transparent)]
    History(#[from] archive::Error),
    /// The demo's table is invalid.
    #[error(transparent)]
    Table(#[from] yaml::Error<InvalidTable>),
    /// The demo's prices are invalid.
    #[error(transparent)]
    Prices(#[from] yaml::Error<InvalidPrices>),
}
