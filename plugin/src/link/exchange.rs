//! One request to an HTTP server, for an answer of bounded size.

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// The reason why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The answer is not HTTP, or not whole.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// The answer is too large.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}

/// Sends a request on a connection, and reads an answer of at most `limit` bytes.
///
/// # Errors
/// The answer is not HTTP, not whole, or too large.
pub async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
    limit: usize,
) -> Result<(StatusCode, Bytes), ExchangeError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), limit).collect().await;
        let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(error) => ExchangeError::Http(*error),
            Err(error) => {
                debug_assert!(error.is::<LengthLimitError>(), "{error}");
                ExchangeError::TooLarge(limit)
            }
        })?;
        Ok((status, body.to_bytes()))
    };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = connection => {
            ended?;
            // The server closed the connection behind its answer, or without one.
            exchange.await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    /// The result of a request to a server that closes the connection right behind these bytes.
    async fn after(answer: &'static str, limit: usize) -> Result<(StatusCode, Bytes), ExchangeError> {
        let (ours, mut theirs) = duplex(4096);
        tokio::spawn(async move {
            let _ = theirs.read(&mut [0; 1024]).await;
            theirs.write_all(answer.as_bytes()).await.unwrap();
        });
        exchange(ours, Request::get("/").body(Empty::new()).unwrap(), limit).await
    }

    #[tokio::test]
    async fn an_answer_counts_though_the_server_closes_the_connection_behind_it() {
        // The end of the connection and that of the answer are seen in either order.
        for _ in 0..64 {
            for whole in ["HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ntrue", "HTTP/1.0 200 OK\r\n\r\ntrue"] {
                let (status, body) = after(whole, 4).await.unwrap();
                assert_eq!((status, &body[..]), (StatusCode::OK, &b"true"[..]));
            }
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_not_whole_or_too_large_is_none() {
        for broken in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ntru", "220 smtp\r\n"] {
            let error = after(broken, 4).await.unwrap_err();
            assert!(matches!(error, ExchangeError::Http(_)), "{broken}: {error}");
        }
        let error = after("HTTP/1.0 200 OK\r\n\r\nfalse", 4).await.unwrap_err();
        assert!(matches!(error, ExchangeError::TooLarge(4)), "{error}");
    }
}
