//! Asks a process over HTTP.

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
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
    let http = |source| AskError::Http { server: server.to_owned(), source };
    let silent = || AskError::Silent(server.to_owned());
    let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(server)).await.map_err(|_| silent())?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(connected.map_err(unreachable)?)).await.map_err(http)?;
    let mut request = Request::get(path).header(header::HOST, server);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| unreachable(io::Error::other(error)))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(http)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(error) => http(*error),
            Err(error) if error.is::<LengthLimitError>() => AskError::TooLarge(server.to_owned()),
            Err(error) => unreachable(io::Error::other(error)),
        })?;
        Ok::<_, AskError>((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    };
    let answered = async {
        tokio::select! {
            answer = exchange => answer,
            ended = connection => Err(ended.err().map_or_else(silent, http)),
        }
    };
    let (status, text) = timeout(ANSWER_TIMEOUT, answered).await.map_err(|_| silent())??;
    if status.is_success() {
        return Ok(text);
    }
    let reason = text.lines().next().filter(|line| !line.is_empty()).map_or_else(|| status.to_string(), str::to_owned);
    let reason = reason.chars().filter(|c| !c.is_control()).take(300).collect();
    Err(AskError::Refused { server: server.to_owned(), reason, is_bad: status == StatusCode::BAD_REQUEST })
}
