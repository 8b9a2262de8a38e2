//! Connects an agent to a controller.

use super::PEM_BYTES;
use crate::{bounded_file, error_chain::error_chain};
use std::{
    io,
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

/// The time limit for connecting and for the TLS handshake.
const CONNECT: Duration = Duration::from_secs(10);
/// A vanished controller is detected after twice this time.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// The largest token that is read.
const TOKEN_BYTES: u64 = 64 << 10;
/// The flow control window: bytes that the controller may send before they are read.
const WINDOW: u32 = 256 << 10;
/// What the streams of a connection may be sent beyond the window of one: an agent that is slow to apply its table
/// still receives the answers to its reports.
const BESIDE: u32 = 64 << 10;

/// The controller's address, and the credentials of both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The agent's node.
    pub node: String,
    /// HOST:PORT.
    pub server: String,
    /// The authority that signed the controller's certificate, as PEM; without one there is no TLS.
    pub authority: Option<PathBuf>,
    /// The name in the controller's certificate, if it differs from the host.
    pub server_name: Option<String>,
    /// The file with the token; read for every connection, because the token is renewed.
    pub token: Option<PathBuf>,
}

/// The reason why a controller can't be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A required file can't be read.
    #[error("{}: {error}", path.display())]
    File {
        /// The file's path.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// The file has no token.
    #[error("{}: the file has no token", .0.display())]
    Token(PathBuf),
    /// The network or TLS failed.
    #[error("{0}")]
    Unreachable(String),
}

/// Invalid settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The server is not HOST:PORT.
    #[error("`{server}` is not a server like meridian-controller.meridian:4345")]
    Server {
        /// The configured text.
        server: String,
    },
    /// Without TLS others on the network could read the token.
    #[error("a token is shown only over TLS: name the authority with --controller-ca")]
    TokenInTheClear,
}

/// The host of HOST:PORT.
///
/// # Errors
/// It is not of this form.
pub fn host(server: &str) -> Result<&str, SettingsError> {
    let host = server.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    host.map(|(host, _)| host).ok_or_else(|| SettingsError::Server { server: server.to_owned() })
}

impl Settings {
    /// Checks that the server is HOST:PORT, and that no token is sent without TLS.
    ///
    /// # Errors
    /// A setting is invalid.
    pub fn checked(self) -> Result<Self, SettingsError> {
        let is_near =
            host(&self.server)?.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if self.token.is_some() && self.authority.is_none() && !is_near {
            return Err(SettingsError::TokenInTheClear);
        }
        Ok(self)
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// The network or TLS fails, or the authority's file can't be read.
    pub async fn connect(&self) -> Result<Channel, ConnectError> {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        let failed = |error: tonic::transport::Error| ConnectError::Unreachable(error_chain(&error));
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{}", self.server))
            .map_err(failed)?
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            // Flow control: how much the controller may send before it is read.
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW + BESIDE)
            .tcp_nodelay(true);
        if let Some(path) = &self.authority {
            let authority = bounded_file::read(path, PEM_BYTES)
                .map_err(|error| ConnectError::File { path: path.clone(), error })?;
            let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority));
            if let Some(name) = &self.server_name {
                tls = tls.domain_name(name);
            }
            endpoint = endpoint.tls_config(tls).map_err(failed)?;
        }
        // The endpoint's own time limit covers only the TCP connection, and a controller that hangs may stall TLS.
        let late = |_| ConnectError::Unreachable(format!("{} does not answer", self.server));
        timeout(CONNECT, endpoint.connect()).await.map_err(late)?.map_err(failed)
    }

    /// Adds the token to a request.
    ///
    /// # Errors
    /// The token's file can't be read.
    pub fn request<T>(&self, message: T) -> Result<Request<T>, ConnectError> {
        let mut request = Request::new(message);
        if let Some(path) = &self.token {
            request.metadata_mut().insert("authorization", token(path)?);
        }
        Ok(request)
    }

    /// The settings with another address, for one replica of the same controller.
    #[must_use]
    pub fn at(&self, server: String) -> Self {
        let host = || self.server.rsplit_once(':').map_or(&*self.server, |(host, _)| host).to_owned();
        Self { server, server_name: Some(self.server_name.clone().unwrap_or_else(host)), ..self.clone() }
    }
}

fn token(path: &Path) -> Result<MetadataValue<Ascii>, ConnectError> {
    let text = bounded_file::read_text(path, TOKEN_BYTES)
        .map_err(|error| ConnectError::File { path: path.to_owned(), error })?;
    format!("Bearer {}", text.trim()).parse().map_err(|_| ConnectError::Token(path.to_owned()))
}
