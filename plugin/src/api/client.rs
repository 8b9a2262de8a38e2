//! The client of meridian.v1, for the command line.

use super::services::{counters_client::CountersClient, zones_client::ZonesClient};
use crate::{
    bounded_file,
    feed::services::controller_client::ControllerClient,
    leader::leader_in,
    link::PEM_BYTES,
    proto::v1::{
        ListRequest, LookupRequest, LookupResponse, Prefix, StatusRequest, StatusResponse, WatchRequest, WatchResponse,
    },
};
use std::{fmt, io, path::PathBuf, str::FromStr, time::Duration};
use tonic::{
    Code, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Identity},
};

/// The time limit for connecting.
const CONNECT: Duration = Duration::from_secs(5);

/// The address of a server: `HOST:PORT`, or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A host and a port.
    Tcp(String),
    /// A unix socket.
    Unix(PathBuf),
}

/// A text that is not a server's address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a server like 127.0.0.1:4344 or unix:/run/meridian/hubble.sock")]
pub struct InvalidTarget(String);

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.trim_start_matches("//").into()));
        }
        let port = text.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        port.map(|_| Self::Tcp(text.to_owned())).ok_or_else(|| InvalidTarget(text.to_owned()))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The authority that a client trusts, and the client's own certificate.
#[derive(Clone, Debug)]
pub struct Trust {
    /// The authority that signed the server's certificate, as PEM.
    pub authority: PathBuf,
    /// The name in the server's certificate, if it is not the host's name.
    pub server_name: Option<String>,
    /// The client's certificate and key, as PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Trust {
    fn config(&self) -> Result<ClientTlsConfig, ClientError> {
        let read = |path: &PathBuf| {
            let unreadable = |error| ClientError::File { path: path.clone(), error };
            bounded_file::read(path, PEM_BYTES).map_err(unreadable)
        };
        let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(&self.authority)?));
        if let Some(name) = &self.server_name {
            config = config.domain_name(name);
        }
        if let Some((certificate, key)) = &self.identity {
            config = config.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        Ok(config)
    }
}

/// A request that failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no server at this address.
    #[error("{target}: no server answers ({reason}): is it running? --server names another one")]
    Unreachable {
        /// The address.
        target: Target,
        /// The cause.
        reason: String,
    },
    /// A file can't be read.
    #[error("{}: {error}", path.display())]
    File {
        /// The file's path.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// Another replica answers this request.
    #[error("{target}: {message}")]
    Elsewhere {
        /// The server that was asked.
        target: Target,
        /// The address of the replica that answers.
        leader: String,
        /// The message of the server.
        message: String,
    },
    /// The server has no answer.
    #[error("{target}: {message}")]
    Refused {
        /// The server that was asked.
        target: Target,
        /// The message.
        message: String,
    },
}

/// A connection to an agent.
#[derive(Clone, Debug)]
pub struct Client {
    target: Target,
    channel: Channel,
}

impl Client {
    /// Connects without TLS.
    ///
    /// # Errors
    /// There is no server.
    pub async fn connect(target: Target) -> Result<Self, ClientError> {
        Self::connect_with(target, None).await
    }

    /// Connects to a server; a port uses TLS if `trust` is given.
    ///
    /// # Errors
    /// There is no server, or the TLS handshake fails.
    pub async fn connect_with(target: Target, trust: Option<&Trust>) -> Result<Self, ClientError> {
        let (uri, trust) = match &target {
            Target::Tcp(address) if trust.is_some() => (format!("https://{address}"), trust),
            Target::Tcp(address) => (format!("http://{address}"), None),
            Target::Unix(path) => (format!("unix:{}", path.display()), None),
        };
        let failed = |error: &dyn std::error::Error| ClientError::Unreachable {
            target: target.clone(),
            reason: innermost(error).to_string(),
        };
        let mut endpoint = tonic::transport::Endpoint::from_shared(uri).map_err(|error| failed(&error))?;
        if let Some(trust) = trust {
            endpoint = endpoint.tls_config(trust.config()?).map_err(|error| failed(&error))?;
        }
        let channel = endpoint.connect_timeout(CONNECT).connect().await.map_err(|error| failed(&error))?;
        Ok(Self { target, channel })
    }

    /// Starts to watch the counters.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn watch(&self, request: WatchRequest) -> Result<Stream<WatchResponse>, ClientError> {
        let mut client = CountersClient::new(self.channel.clone());
        let stream = client.watch(request).await.map_err(|status| self.refused(&status))?;
        Ok(Stream { client: self.clone(), stream: stream.into_inner() })
    }

    /// The most specific prefix that contains an address, and the endpoint behind it; `None` if there is no prefix.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn lookup(&self, ip: String) -> Result<Option<LookupResponse>, ClientError> {
        match ZonesClient::new(self.channel.clone()).lookup(LookupRequest { ip }).await {
            Ok(answer) => Ok(Some(answer.into_inner())),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(self.refused(&status)),
        }
    }

    /// Every prefix.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn list(&self) -> Result<Stream<Prefix>, ClientError> {
        let mut client = ZonesClient::new(self.channel.clone());
        let stream = client.list(ListRequest {}).await.map_err(|status| self.refused(&status))?;
        Ok(Stream { client: self.clone(), stream: stream.into_inner() })
    }

    /// The state of a controller's table.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn status(&self) -> Result<StatusResponse, ClientError> {
        let answer = ControllerClient::new(self.channel.clone()).status(StatusRequest {}).await;
        answer.map(tonic::Response::into_inner).map_err(|status| match status.code() {
            Code::Unimplemented => {
                let message =
                    "this server is not a controller, and only a controller has this: --server names one".to_owned();
                ClientError::Refused { target: self.target.clone(), message }
            }
            _ => self.refused(&status),
        })
    }

    fn refused(&self, status: &Status) -> ClientError {
        if let Some(leader) = leader_in(status) {
            let message = status.message().to_owned();
            return ClientError::Elsewhere { target: self.target.clone(), leader, message };
        }
        let message = match status.code() {
            Code::Unimplemented => "this server does not have this service".to_owned(),
            _ => status.message().to_owned(),
        };
        ClientError::Refused { target: self.target.clone(), message }
    }
}

/// A stream of messages from a server.
#[derive(Debug)]
pub struct Stream<T> {
    client: Client,
    stream: tonic::Streaming<T>,
}

impl<T> Stream<T> {
    /// The next message; `None` at the end.
    ///
    /// # Errors
    /// The connection broke, or the server ended the stream with an error.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        self.stream.message().await.map_err(|status| self.client.refused(&status))
    }
}

/// The innermost cause: outer errors often name no reason.
fn innermost<'a>(error: &'a (dyn std::error::Error + 'a)) -> &'a (dyn std::error::Error + 'a) {
    error.source().map_or(error, innermost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_port_of_a_host_or_a_socket() {
        for text in ["127.0.0.1:4344", "node-a:4344", "[::1]:4344", "unix:/run/meridian/hubble.sock"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        assert_eq!("unix:///run/x".parse::<Target>().unwrap(), Target::Unix("/run/x".into()));
        for text in ["node-a", ":4344", "node-a:http", ""] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
