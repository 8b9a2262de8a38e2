//! Asks a process over HTTP.

use crate::link::{ExchangeError, exchange};
use http_body_util::Empty;
use hyper::{Request, StatusCode, header};
use std::{io, time::Duration};
use tokio::{net::TcpStream, time::timeout};

/// The largest answer.
const MAX_ANSWER: usize = 256 << 20;
/// How long to wait for a connection, and for the whole answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No server answers.
    #[error("{server}: {source}: is this the address of --http-listen of a controller or an agent?")]
    Unreachable {
        /// The server.
        server: String,
        /// Why.
        source: io::Error,
    },
    /// The answer did not come in time.
    #[error("{0}: no answer in time")]
    Silent(String),
    /// The answer is not HTTP.
    #[error("{server}: {source}")]
    Http {
        /// The server.
        server: String,
        /// Why.
        source: hyper::Error,
    },
    /// The server refuses the question.
    #[error("{server}: {reason}")]
    Refused {
        /// The server.
        server: String,
        /// Its body.
        reason: String,
        /// Whether the question makes no sense.
        is_bad: bool,
    },
    /// The answer is too large.
    #[error("{0}: the answer is larger than {MAX_ANSWER} bytes")]
    TooLarge(String),
}

/// The answer of a server at HOST:PORT to a question with this path, which shows a token.
///
/// # Errors
/// The server can't be reached, or refuses.
pub async fn ask(server: &str, token: Option<&str>, path: &str) -> Result<String, AskError> {
    let unreachable = |source| AskError::Unreachable { server: server.to_owned(), source };
    let silent = |_| AskError::Silent(server.to_owned());
    let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(server)).await.map_err(silent)?;
    let stream = connected.map_err(unreachable)?;
    let mut request = Request::get(path).header(header::HOST, server);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Empty::new()).map_err(|error| unreachable(io::Error::other(error)))?;
    let answer = timeout(ANSWER_TIMEOUT, exchange(stream, request, MAX_ANSWER)).await.map_err(silent)?;
    let (status, body) = answer.map_err(|error| match error {
        ExchangeError::Http(source) => AskError::Http { server: server.to_owned(), source },
        ExchangeError::TooLarge(_) => AskError::TooLarge(server.to_owned()),
    })?;
    let text = String::from_utf8_lossy(&body).into_owned();
    if status.is_success() {
        return Ok(text);
    }
    let reason = text.lines().next().filter(|line| !line.is_empty()).map_or_else(|| status.to_string(), str::to_owned);
    let reason = reason.chars().filter(|c| !c.is_control()).take(300).collect();
    Err(AskError::Refused { server: server.to_owned(), reason, is_bad: status == StatusCode::BAD_REQUEST })
}
