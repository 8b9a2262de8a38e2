//! Metrics and health over HTTP.

use super::{
    access::{Access, Denial, Remote},
    connections,
    parts::Page,
    process::HttpPlaces,
    text::{self, ExpositionFormat},
};
use crate::web::{Answer, CONTENT_SECURITY_POLICY, Request, Site};
use axum::{
    Extension, Router,
    extract::{FromRef, Query, Request as HttpRequest, State, rejection::QueryRejection},
    handler::Handler,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::{net::TcpListener, sync::Semaphore, task::spawn_blocking, time::timeout};
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

/// Serves `/metrics`, `/healthz`, `/readyz`, the page and its API until `shutdown`.
///
/// # Errors
/// The listener fails.
pub async fn serve(mut page: Page, listener: TcpListener, shutdown: CancellationToken) -> io::Result<()> {
    let places = HttpPlaces::default();
    page.add(places.clone());
    let router = router(page, &places);
    connections::serve(listener, router, places.connections, shutdown).await;
    Ok(())
}

fn router(page: Page, places: &HttpPlaces) -> Router {
    let door = AccessGuard { access: page.access.clone(), denied: Arc::clone(&places.denied) };
    Router::new()
        .route("/metrics", get(metrics))
        // Healthy as soon as the process answers.
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .fallback(site.layer(from_fn_with_state(door, guard)))
        .with_state(ServerState { page, turns: Arc::new(Semaphore::new(ANSWERING)), late: Arc::clone(&places.late) })
}

/// The parameters of a query.
type QueryTexts = Result<Query<BTreeMap<String, String>>, QueryRejection>;

async fn metrics(State(page): State<Page>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let form = ExpositionFormat::accepted(accept);
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

/// Answers from the history that are made at once.
const ANSWERING: usize = 2;
/// How long a request waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(30);

/// The state of the server.
#[derive(Clone)]
struct ServerState {
    page: Page,
    turns: Arc<Semaphore>,
    /// Requests that waited too long for theirs.
    late: Arc<AtomicU64>,
}

impl FromRef<ServerState> for Page {
    fn from_ref(served: &ServerState) -> Self {
        served.page.clone()
    }
}

/// Answers those who may read the page and the API, and refuses the others.
async fn guard(
    State(door): State<AccessGuard>,
    Extension(remote): Extension<Remote>,
    request: HttpRequest,
    next: Next,
) -> Response {
    match door.access.check(remote, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(denial) => {
            door.denied.fetch_add(1, Ordering::Relaxed);
            denied(denial)
        }
    }
}

/// Only a token makes a browser ask for a password.
fn denied(denial: Denial) -> Response {
    let status = match denial {
        Denial::Token => StatusCode::UNAUTHORIZED,
        Denial::Elsewhere | Denial::Host => StatusCode::FORBIDDEN,
    };
    let mut response = (status, [(header::CACHE_CONTROL, "no-store")], format!("{denial}\n")).into_response();
    if denial == Denial::Token {
        let schemes = HeaderValue::from_static("Basic realm=\"Meridian\", Bearer realm=\"Meridian\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, schemes);
    }
    response
}

/// Access to the page and the API, and the number of refused requests.
#[derive(Clone)]
struct AccessGuard {
    access: Access,
    denied: Arc<AtomicU64>,
}

/// The page, its files and the API.
async fn site(State(served): State<ServerState>, method: Method, uri: Uri, query: QueryTexts) -> Response {
    if method != Method::GET && method != Method::HEAD {
        let text = "this port answers GET alone\n";
        return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")], text).into_response();
    }
    let Ok(Query(query)) = query else {
        return (StatusCode::BAD_REQUEST, "the query can't be read\n").into_response();
    };
    let path = uri.path().to_owned();
    let turn = if Site::is_costly(&path) {
        match timeout(TURN_TIMEOUT, served.turns.acquire_owned()).await {
            Ok(turn) => turn.ok(),
            Err(_) => {
                served.late.fetch_add(1, Ordering::Relaxed);
                return (StatusCode::SERVICE_UNAVAILABLE, "too many requests at once: try again\n").into_response();
            }
        }
    } else {
        None
    };
    let page = served.page;
    let catalogue = if Site::needs_catalogue(&path) { page.site.catalogue().await } else { None };
    let request = Request { path, query, now: SystemTime::now(), is_ready: page.ready.is_set(), catalogue };
    // The turn ends with the answer, also if the client has gone.
    let answer = move || {
        let _turn = turn;
        page.site.answer(&request)
    };
    match spawn_blocking(answer).await {
        Ok(answer) => response(answer),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn response(answer: Answer) -> Response {
    let Answer { status, content_type, is_fixed, body } = answer;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let cached = if is_fixed { "public, max-age=31536000, immutable" } else { "no-store" };
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, cached),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (status, headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use super::{super::parts::Ready, *};

    #[test]
    fn a_port_alone_is_every_address() {
        let listen = |text: &str| text.parse::<Listen>().map(|listen| listen.0.to_string());
        assert_eq!(listen(":9980").unwrap(), "[::]:9980");
        assert_eq!(listen("127.0.0.1:0").unwrap(), "127.0.0.1:0");
        assert_eq!(listen("localhost:1").unwrap(), "127.0.0.1:1");
        assert!(listen("9980").is_err() && listen("localhost").is_err() && listen("example.com:1").is_err());
    }

    async fn status(page: &Page, remote: &str, path: &str, headers: &[(&str, &str)]) -> (StatusCode, Response) {
        let request =
            headers.iter().fold(HttpRequest::get(path), |request, (name, value)| request.header(*name, *value));
        let request = request.extension(Remote(remote.parse().unwrap())).body(axum::body::Body::empty()).unwrap();
        let response = tower_service::Service::call(&mut router(page.clone(), &HttpPlaces::default()), request).await;
        let response = response.unwrap();
        (response.status(), response)
    }

    #[tokio::test]
    async fn beyond_this_machine_metrics_and_health_are_open_and_the_page_and_its_api_are_not() {
        let page = Page::default();
        let far = "10.0.0.7";
        for path in ["/metrics", "/healthz"] {
            assert_eq!(status(&page, far, path, &[]).await.0, StatusCode::OK, "{path}");
        }
        let site = [
            "/",
            "/page.js",
            "/api/v1/health",
            "/api/v1/openapi.json",
            "/nowhere",
            "//metrics",
            "/metrics/",
            "/%6detrics",
        ];
        for path in site {
            let (code, response) = status(&page, far, path, &[("host", "127.0.0.1")]).await;
            assert_eq!(code, StatusCode::FORBIDDEN, "{path}");
            assert!(!response.headers().contains_key(header::WWW_AUTHENTICATE), "no password would help");
            let (code, _) = status(&page, "127.0.0.1", path, &[("host", "evil.example")]).await;
            assert_eq!(code, StatusCode::FORBIDDEN, "{path}");
        }
        assert_eq!(status(&page, "127.0.0.1", "/", &[("host", "localhost:9981")]).await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn with_a_token_a_browser_elsewhere_is_asked_for_it() {
        let path = std::env::temp_dir().join(format!("meridian-http-token-{}", std::process::id()));
        std::fs::write(&path, "a-token-that-is-long-enough").unwrap();
        let mut page = Page::new(Ready::default());
        page.access = Access::with_token(&path).unwrap();
        let (code, response) = status(&page, "10.0.0.7", "/", &[]).await;
        assert_eq!(code, StatusCode::UNAUTHORIZED);
        assert!(response.headers()[header::WWW_AUTHENTICATE].to_str().unwrap().starts_with("Basic realm="));
        let bearer = [("authorization", "Bearer a-token-that-is-long-enough")];
        assert_eq!(status(&page, "10.0.0.7", "/api/v1/health", &bearer).await.0, StatusCode::OK);
        assert_eq!(status(&page, "10.0.0.7", "/metrics", &[]).await.0, StatusCode::OK);
        std::fs::remove_file(&path).unwrap();
    }

    async fn ask(served: &ServerState, method: Method, uri: &str) -> Response {
        let uri: Uri = uri.parse().unwrap();
        let query = Query::try_from_uri(&uri);
        site(State(served.clone()), method, uri, query).await
    }

    fn served() -> ServerState {
        ServerState { page: Page::default(), turns: Arc::new(Semaphore::new(ANSWERING)), late: Arc::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_does_not_wait_for_its_turn_for_ever_and_cheap_ones_need_none() {
        let served = served();
        let turns = Arc::clone(&served.turns).acquire_many_owned(2).await.unwrap();
        let report = "/api/v1/report?by=workload";
        assert_eq!(ask(&served, Method::GET, report).await.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ask(&served, Method::GET, "/api/v1/health").await.status(), StatusCode::OK);
        assert_eq!(served.late.load(Ordering::Relaxed), 1);
        drop(turns);
        assert_eq!(ask(&served, Method::GET, report).await.status(), StatusCode::NOT_FOUND);
        assert_eq!(served.turns.available_permits(), ANSWERING);
    }

    #[tokio::test]
    async fn nothing_is_changed_by_a_request_and_nothing_foreign_is_loaded_by_the_page() {
        let served = served();
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
            let answer = ask(&served, method, "/").await;
            assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
        }
        let page = ask(&served, Method::GET, "/").await;
        let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        assert_eq!(ask(&served, Method::GET, "/api/v1/report?%ff=%ff&by").await.status(), StatusCode::NOT_FOUND);
    }
}
