//! Asks a server over HTTP, with TLS and headers if it needs them, for an answer of bounded size.

use super::answer::{self, Answer, Series};
use crate::link::{ExchangeError, InvalidHeaders, exchange, is_local, read_headers, start_tls};
use http_body_util::Empty;
use hyper::{Request, StatusCode, Uri, body::Bytes, header};
use std::{io, path::PathBuf, time::Duration};
use tokio::{net::TcpStream, time::timeout};

/// The largest answer.
const MAX_ANSWER: usize = 32 << 20;
/// The time limit for a connection with its handshake, and for a whole answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// The server, its authority and the headers of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `http://HOST:PORT` or `https://HOST:PORT`, with the path before `/api/v1` if there is one.
    pub url: String,
    /// The authority that signed the server's certificate, as PEM.
    pub authority: Option<PathBuf>,
    /// The file with headers for every request.
    pub headers: Option<PathBuf>,
}

/// Invalid settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The text is not the URL of a server.
    #[error(
        "--prometheus: `{0}` is not the address of a query API like http://prometheus:9090 or http://mimir/prometheus"
    )]
    Url(String),
    /// TLS without an authority.
    #[error(
        "--prometheus {0}: https needs the authority of the server's certificate: --prometheus-ca names its PEM file, \
         mostly /etc/ssl/certs/ca-certificates.crt for public ones"
    )]
    NoAuthority(String),
    /// An authority without TLS.
    #[error("--prometheus-ca: {0} has no TLS: it begins with http://")]
    NoTls(String),
    /// The headers can't be used.
    #[error("--prometheus-headers-file: {0}")]
    Headers(#[from] InvalidHeaders),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No server answers.
    #[error("{url}: {source}: is this the address of a query API, such as http://prometheus:9090?")]
    Unreachable {
        /// The server.
        url: String,
        /// The cause.
        source: io::Error,
    },
    /// The answer did not come in time.
    #[error("{0}: no answer in time")]
    Silent(String),
    /// The answer is not HTTP.
    #[error("{url}: {source}: is this a server of HTTP, with TLS if the address begins with https?")]
    Http {
        /// The server.
        url: String,
        /// The cause.
        source: hyper::Error,
    },
    /// The server refuses.
    #[error("{url}: {status}{reason}: {remedy}")]
    Refused {
        /// The server.
        url: String,
        /// The status.
        status: StatusCode,
        /// The server's reason.
        reason: String,
        /// The remedy.
        remedy: &'static str,
    },
    /// The answer is none of this API.
    #[error("{url}: this is no answer of Prometheus's query API ({found}): is a path missing, such as /prometheus?")]
    Other {
        /// The server.
        url: String,
        /// The beginning of the answer, or the reader's reason.
        found: String,
    },
    /// The answer is too large.
    #[error(
        "{0}: the answer is too large: --selector names fewer series, --from a later time, or metrics.series limits the series"
    )]
    TooLarge(String),
}

/// A server.
#[derive(Clone, Debug)]
pub struct Server {
    settings: Settings,
    uri: Uri,
    headers: hyper::HeaderMap,
}

impl Server {
    /// Checks the settings.
    ///
    /// # Errors
    /// A setting is invalid, or the headers can't be read.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        let shown: String = settings.url.chars().filter(|c| !c.is_control()).take(100).collect();
        let uri = settings.url.parse::<Uri>().ok().filter(|uri| {
            let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.query().is_none()
                && !has_user
                && uri.host().is_some_and(|host| !host.is_empty())
        });
        let uri = uri.ok_or_else(|| SettingsError::Url(shown.clone()))?;
        let is_https = uri.scheme_str() == Some("https");
        match (is_https, &settings.authority) {
            (true, None) => return Err(SettingsError::NoAuthority(shown)),
            (false, Some(_)) => return Err(SettingsError::NoTls(shown)),
            _ => {}
        }
        let headers = settings.headers.as_deref().map(|path| read_headers(path, is_https || is_local(&uri)));
        Ok(Self { headers: headers.transpose()?.unwrap_or_default(), settings, uri })
    }

    pub(super) fn url(&self) -> String {
        self.settings.url.clone()
    }

    /// The series of a query at times in seconds since 1970, each a step after the one before.
    ///
    /// # Errors
    /// The server can't be reached, refuses, or answers otherwise.
    pub(super) async fn query_range(
        &self,
        query: &str,
        (start, end): (u64, u64),
        step: u64,
    ) -> Result<Vec<Series>, AskError> {
        let [start, end, step] = [start, end, step].map(|number| number.to_string());
        let parameters = [("query", query), ("start", &start), ("end", &end), ("step", &step)];
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        let prefix = self.uri.path().trim_end_matches('/');
        let (status, body) = self.get(&format!("{prefix}/api/v1/query_range?{query}")).await?;
        match answer::read(&body) {
            Ok(Answer::Series(series)) if status.is_success() => Ok(series),
            Ok(Answer::Error(reason)) => Err(self.refused(status, &format!(": {reason}"))),
            _ if !status.is_success() => Err(self.refused(status, "")),
            Ok(Answer::Series(_)) => Err(self.refused(status, "")),
            Err(found) => Err(AskError::Other { url: self.url(), found }),
        }
    }

    fn refused(&self, status: StatusCode, reason: &str) -> AskError {
        let remedy = match status.as_u16() {
            401 | 403 => "--prometheus-headers-file names a file with a line like `authorization: Bearer TOKEN`",
            404 | 405 => "is a path missing, such as /prometheus?",
            300..=399 => "name the address that it points to",
            _ => "--selector names fewer series, and --from a later time",
        };
        let reason = reason.chars().filter(|c| !c.is_control()).take(300).collect();
        AskError::Refused { url: self.url(), status, reason, remedy }
    }

    async fn get(&self, path: &str) -> Result<(StatusCode, Bytes), AskError> {
        let unreachable = |source| AskError::Unreachable { url: self.url(), source };
        let silent = |_| AskError::Silent(self.url());
        let host = host(&self.uri);
        let port = self.uri.port_u16().unwrap_or(if self.settings.authority.is_some() { 443 } else { 80 });
        let connecting = async {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(match &self.settings.authority {
                Some(authority) => tokio_util::either::Either::Left(start_tls(stream, host, authority).await?),
                None => tokio_util::either::Either::Right(stream),
            })
        };
        let stream = timeout(CONNECT_TIMEOUT, connecting).await.map_err(silent)?.map_err(unreachable)?;
        let mut request = Request::get(path).header(header::HOST, format!("{host}:{port}")).body(Empty::<Bytes>::new());
        if let Ok(request) = &mut request {
            request.headers_mut().extend(self.headers.clone());
        }
        let request = request.map_err(|error| unreachable(io::Error::other(error)))?;
        let answer = timeout(ANSWER_TIMEOUT, exchange(stream, request, MAX_ANSWER)).await.map_err(silent)?;
        answer.map_err(|error| match error {
            ExchangeError::Http(source) => AskError::Http { url: self.url(), source },
            ExchangeError::TooLarge(_) => AskError::TooLarge(self.url()),
        })
    }
}

fn host(uri: &Uri) -> &str {
    uri.host().unwrap_or_default().trim_matches(['[', ']'])
}
