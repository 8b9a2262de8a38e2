//! Metrics and health over HTTP.

use super::{
    Measured,
    connections::Bounded,
    text::{self, Form},
};
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The address of an HTTP or gRPC listener; `:PORT` means every address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(pub SocketAddr);

/// A text that is not an address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address like 127.0.0.1:9980 or :9980")]
pub struct InvalidListen(String);

impl std::str::FromStr for Listen {
    type Err = InvalidListen;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let full = match text.strip_prefix("localhost:") {
            // As Go's listeners accept it.
            Some(port) => format!("127.0.0.1:{port}"),
            None if text.starts_with(':') => format!("[::]{text}"),
            None => text.to_owned(),
        };
        full.parse().map(Self).map_err(|_| InvalidListen(text.to_owned()))
    }
}

/// Serves `/metrics`, `/healthz` and `/readyz` until `shutdown`.
///
/// # Errors
/// The listener fails.
pub async fn serve(measured: impl Measured, listener: TcpListener, shutdown: CancellationToken) -> io::Result<()> {
    let measured: Arc<dyn Measured> = Arc::new(measured);
    let listener = Bounded::new(listener, Arc::clone(measured.process()));
    let router = Router::new()
        .route("/metrics", get(metrics))
        // Healthy as soon as the process answers.
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(measured);
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

async fn metrics(State(measured): State<Arc<dyn Measured>>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let form = Form::accepted(accept);
    match text::page(&*measured, form) {
        Ok(page) => ([(header::CONTENT_TYPE, form.content_type())], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Ready once the process is fully started.
async fn ready(State(measured): State<Arc<dyn Measured>>) -> Response {
    if !measured.process().ready.load(Ordering::Relaxed) {
        (StatusCode::SERVICE_UNAVAILABLE, "not yet\n").into_response()
    } else {
        "ok\n".into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_every_address() {
        let listen = |text: &str| text.parse::<Listen>().map(|listen| listen.0.to_string());
        assert_eq!(listen(":9980").unwrap(), "[::]:9980");
        assert_eq!(listen("127.0.0.1:0").unwrap(), "127.0.0.1:0");
        assert_eq!(listen("localhost:1").unwrap(), "127.0.0.1:1");
        assert!(listen("9980").is_err() && listen("localhost").is_err() && listen("example.com:1").is_err());
    }
}
