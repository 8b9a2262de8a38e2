//! How an agent reaches a controller.

use crate::error_chain::error_chain;
use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::timeout;
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

/// How long a controller may take to accept a connection and to agree on TLS.
const CONNECT: Duration = Duration::from_secs(10);
/// A controller that has vanished is noticed after this time, and once more.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// What the controller may send before it is read.
const WINDOW: u32 = 256 << 10;

/// Where the controller is, and how it and the agent know each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The node where this agent is.
    pub node: String,
    /// HOST:PORT.
    pub server: String,
    /// The authority that signed the controller's certificate, as PEM; without one there is no TLS.
    pub authority: Option<PathBuf>,
    /// The name in the controller's certificate, if it is not that of the host.
    pub server_name: Option<String>,
    /// The token to show; read for every connection, since it is renewed.
    pub token: Option<PathBuf>,
}

/// Why a controller can't be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A file that is needed.
    #[error("{}: {error}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why it can't be read.
        error: io::Error,
    },
    /// The file has no token.
    #[error("{}: it is no token", .0.display())]
    Token(PathBuf),
    /// The network, or TLS.
    #[error("{0}")]
    Unreachable(String),
}

/// Settings that can't be.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The server is not one.
    #[error("controller: `{server}` is not a server like meridian-controller.meridian:4345")]
    Server {
        /// What was named.
        server: String,
    },
    /// Whoever is on the way would read the token.
    #[error("a token is shown only over TLS: name the authority with --controller-ca")]
    TokenInTheClear,
}

impl Settings {
    /// The same, if the server is HOST:PORT, and no token is shown to it in the clear.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn checked(self) -> Result<Self, SettingsError> {
        let host = self.server.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        let Some((host, _)) = host else { return Err(SettingsError::Server { server: self.server }) };
        let is_near = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if self.token.is_some() && self.authority.is_none() && !is_near {
            return Err(SettingsError::TokenInTheClear);
        }
        Ok(self)
    }

    /// A connection.
    ///
    /// # Errors
    /// The network, TLS, or the authority's file.
    pub async fn connect(&self) -> Result<Channel, ConnectError> {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        let failed = |error: tonic::transport::Error| ConnectError::Unreachable(error_chain(&error));
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{}", self.server))
            .map_err(failed)?
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            // What the controller may send ahead of us.
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .tcp_nodelay(true);
        if let Some(path) = &self.authority {
            let authority = fs::read(path).map_err(|error| ConnectError::File { path: path.clone(), error })?;
            let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority));
            if let Some(name) = &self.server_name {
                tls = tls.domain_name(name);
            }
            endpoint = endpoint.tls_config(tls).map_err(failed)?;
        }
        // The endpoint's own limit is for the connection alone, and a controller that hangs agrees on no TLS.
        let late = |_| ConnectError::Unreachable(format!("{} does not answer", self.server));
        timeout(CONNECT, endpoint.connect()).await.map_err(late)?.map_err(failed)
    }

    /// A request, with the token.
    ///
    /// # Errors
    /// The token's file.
    pub fn request<T>(&self, message: T) -> Result<Request<T>, ConnectError> {
        let mut request = Request::new(message);
        if let Some(path) = &self.token {
            request.metadata_mut().insert("authorization", token(path)?);
        }
        Ok(request)
    }

    /// The same controller, at the address of one of its replicas.
    #[must_use]
    pub fn at(&self, server: String) -> Self {
        let host = || self.server.rsplit_once(':').map_or(&*self.server, |(host, _)| host).to_owned();
        Self { server, server_name: Some(self.server_name.clone().unwrap_or_else(host)), ..self.clone() }
    }
}

fn token(path: &Path) -> Result<MetadataValue<Ascii>, ConnectError> {
    let text = fs::read_to_string(path).map_err(|error| ConnectError::File { path: path.to_owned(), error })?;
    format!("Bearer {}", text.trim()).parse().map_err(|_| ConnectError::Token(path.to_owned()))
}
