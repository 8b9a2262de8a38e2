//! Why a controller ends without success.

use crate::{cluster, export::Output, link::SettingsError, servers, yaml};
use std::{io, net::SocketAddr};
use tokio::task::JoinError;

/// Why a controller ends without success.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The static table.
    #[error(transparent)]
    StaticTable(#[from] yaml::Error),
    /// The certificate that agents are shown.
    #[error(transparent)]
    Tls(io::Error),
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] cluster::ConnectError),
    /// Nobody could reach this replica.
    #[error(
        "--feed-listen {feed}: agents that look for the holder of the Lease need an address: name --advertise, or \
         --lease off for a single replica"
    )]
    NoAddress {
        /// Where agents are served.
        feed: SocketAddr,
    },
    /// How replicas reach each other.
    #[error(transparent)]
    Replicas(#[from] SettingsError),
    /// A port can't be had.
    #[error(transparent)]
    Servers(#[from] servers::Error),
    /// A port can't be told.
    #[error(transparent)]
    Address(io::Error),
    /// The pair log can't be written.
    #[error("the pair log {output}: {source}")]
    PairLog {
        /// Where it would go.
        output: Output,
        /// Why.
        source: io::Error,
    },
    /// A server has failed.
    #[error(transparent)]
    Failed(io::Error),
    /// A part has panicked.
    #[error(transparent)]
    Panicked(JoinError),
    /// A part has ended that was not asked to.
    #[error("a part of the controller has ended")]
    Ended,
}

impl Error {
    /// Whether what was configured can't be; otherwise something did not work.
    pub const fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::StaticTable(_) | Self::Tls(_) | Self::Cluster(_) | Self::NoAddress { .. } | Self::Replicas(_)
        )
    }
}
