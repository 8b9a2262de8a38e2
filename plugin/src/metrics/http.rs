//! Metrics and health over HTTP.

use super::{
    advice::{advice, whatif},
    connections,
    parts::Page,
    process::HttpPlaces,
    text::{self, Form},
};
use crate::statement::{Form as AnswerForm, Question};
use axum::{
    Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::{net::TcpListener, sync::Semaphore, task::spawn_blocking};
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

/// Serves `/metrics`, `/healthz`, `/readyz`, `/api/v1/report`, `/api/v1/advice` and
/// `/api/v1/whatif` until `shutdown`.
///
/// # Errors
/// The listener fails.
pub async fn serve(mut page: Page, listener: TcpListener, shutdown: CancellationToken) -> io::Result<()> {
    let places = HttpPlaces::default();
    page.add(places.clone());
    let router = Router::new()
        .route("/metrics", get(metrics))
        // Healthy as soon as the process answers.
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/api/v1/report", get(report))
        .route("/api/v1/advice", get(advice))
        .route("/api/v1/whatif", get(whatif))
        .with_state(page);
    connections::serve(listener, router, places.0, shutdown).await;
    Ok(())
}

async fn metrics(State(page): State<Page>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let form = Form::accepted(accept);
    match text::page(&page, form) {
        Ok(page) => ([(header::CONTENT_TYPE, form.content_type())], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Ready once the process is fully started.
async fn ready(State(page): State<Page>) -> Response {
    if !page.ready.is_set() {
        (StatusCode::SERVICE_UNAVAILABLE, "not yet\n").into_response()
    } else {
        "ok\n".into_response()
    }
}

/// Answers of reports that are made at once: each reads a part of the history.
static ANSWERING: Semaphore = Semaphore::const_new(2);

/// A report of the history.
async fn report(State(page): State<Page>, Query(texts): Query<BTreeMap<String, String>>) -> Response {
    let Some(historian) = page.history else {
        return (StatusCode::NOT_FOUND, "no history is kept here: start with --history-dir\n").into_response();
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let question = match Question::parse(&texts, now) {
        Ok(question) => question,
        Err(bad) => return (StatusCode::BAD_REQUEST, format!("{bad}\n")).into_response(),
    };
    // The semaphore is never closed.
    let _permit = ANSWERING.acquire().await;
    let form = question.form;
    let answer = spawn_blocking(move || historian.answer(question).map(|statement| statement.form(form)));
    let content_type = match form {
        AnswerForm::Json => "application/json",
        AnswerForm::Csv => "text/csv; charset=utf-8",
        AnswerForm::Markdown => "text/markdown; charset=utf-8",
        AnswerForm::Table => "text/plain; charset=utf-8",
    };
    match answer.await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, content_type)], text).into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
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
