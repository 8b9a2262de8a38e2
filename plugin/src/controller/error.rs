//! Errors of a controller.

use crate::{cluster, export::Output, link::SettingsError, servers, yaml, zones::InvalidTable};
use std::{io, net::SocketAddr};
use tokio::task::JoinError;

/// The reason why a controller ended without success.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The static table is invalid.
    #[error(transparent)]
    StaticTable(#[from] yaml::Error<InvalidTable>),
    /// The certificate for agents can't be used.
    #[error(transparent)]
    Tls(io::Error),
    /// The API server can't be reached or refuses.
    #[error(transparent)]
    Cluster(#[from] cluster::ConnectError),
    /// Other replicas and agents could not reach this replica.
    #[error(
        "--feed-listen {feed}: agents that look for the holder of the Lease need an address: name --advertise, or \
         --lease off for a single replica"
    )]
    NoAddress {
        /// The address for agents.
        feed: SocketAddr,
    },
    /// The settings for connections between replicas are invalid.
    #[error(transparent)]
    Replicas(#[from] SettingsError),
    /// A port can't be opened.
    #[error(transparent)]
    Servers(#[from] servers::Error),
    /// The address of a port can't be determined.
    #[error(transparent)]
    Address(io::Error),
    /// The pair log can't be written.
    #[error("the pair log {output}: {source}")]
    PairLog {
        /// The output.
        output: Output,
        /// The cause.
        source: io::Error,
    },
    /// A server has failed.
    #[error(transparent)]
    Failed(io::Error),
    /// A part panicked.
    #[error(transparent)]
    Panicked(JoinError),
    /// A part ended without a shutdown.
    #[error("a part of the controller has ended")]
    Ended,
}

impl Error {
    /// Whether the configuration is wrong; otherwise the failure happened at run time.
    pub const fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::StaticTable(_) | Self::Tls(_) | Self::Cluster(_) | Self::NoAddress { .. } | Self::Replicas(_)
        )
    }
}
