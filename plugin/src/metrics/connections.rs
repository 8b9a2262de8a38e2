//! Serves HTTP/1 on a bounded number of connections. A client that sends half a request, or reads half an answer, does
//! not block others: it gives way to new connections.

use super::access::Remote;
use crate::link::{Admission, Permit};
use axum::{Extension, Router, body::Body};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_service::Service;

/// How long a client may take to send a request, from the connection or the last answer on.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(150);
/// How long a client may take none of an answer.
const STUCK: Duration = Duration::from_secs(30);
/// The maximum size of a request.
const REQUEST_BYTES: usize = 16 << 10;
/// How long to wait where no connection can be accepted, for want of files perhaps.
const PAUSE: Duration = Duration::from_millis(100);
/// How long answers may take that have begun when the process ends.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves until `shutdown`.
pub(super) async fn serve(listener: TcpListener, router: Router, places: Arc<Admission>, shutdown: CancellationToken) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, from)) => {
                let place = places.admit(from.ip());
                // Every request of the connection names its client.
                let router = router.clone().layer(Extension(Remote(from.ip())));
                connections.spawn(serve_connection(stream, router, place, shutdown.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the HTTP port can't be accepted");
                sleep(PAUSE).await;
            }
        }
    }
    connections.close();
    // A client that does not read is not waited for.
    let _ = timeout(SHUTDOWN_TIMEOUT, connections.wait()).await;
}

/// Serves a connection until one of the two ends it, or its place is another's.
async fn serve_connection(stream: TcpStream, router: Router, place: Permit, shutdown: CancellationToken) {
    let mut stream = Box::pin(TimeoutStream::new(stream));
    stream.as_mut().set_write_timeout_pinned(Some(STUCK));
    let place = Arc::new(place);
    let busy = Arc::clone(&place);
    let service = service_fn(move |request: Request<Incoming>| {
        let (mut router, busy) = (router.clone(), Arc::clone(&busy));
        async move {
            busy.set_busy(true);
            // It is always ready.
            let response = router.call(request.map(Body::new)).await;
            // From here on it is the client that is waited for.
            busy.set_busy(false);
            response
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .max_buf_size(REQUEST_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = place.displaced() => return,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "an HTTP connection has broken");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::{net::SocketAddr, sync::atomic::Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    struct Server {
        at: SocketAddr,
        places: Arc<Admission>,
        shutdown: CancellationToken,
    }

    impl Server {
        async fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (at, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
            let places = Arc::new(Admission::new(64, 32));
            let large = get(async || "x".repeat(64 << 20));
            let router = Router::new().route("/healthz", get(async || "ok\n")).route("/large", large);
            tokio::spawn(serve(listener, router, Arc::clone(&places), shutdown.clone()));
            Self { at, places, shutdown }
        }

        /// A client at this loopback address that sends a text.
        async fn client(&self, from: [u8; 4], text: &str) -> TcpStream {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::from((from, 0))).unwrap();
            let mut stream = socket.connect(self.at).await.unwrap();
            // It may be displaced already.
            let _ = stream.write_all(text.as_bytes()).await;
            stream
        }

        async fn is_healthy(&self, from: [u8; 4]) -> bool {
            let mut probe = self.client(from, "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
            let mut answer = String::new();
            probe.read_to_string(&mut answer).await.unwrap();
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n")
        }
    }

    #[tokio::test]
    async fn a_probe_is_answered_while_half_sent_requests_hold_all_places() {
        let server = Server::start().await;
        let mut held = Vec::new();
        // From one address, and from as many as there are places.
        for n in 0..200u8 {
            held.push(server.client([127, 0, 1, 1], "GET /healthz HTTP/1.1\r\nHost:").await);
            held.push(server.client([127, 0, 2, n], "GET /heal").await);
            if n % 20 == 19 {
                assert!(server.is_healthy([127, 0, 0, 1]).await, "after {n}");
            }
        }
        assert!(server.places.held() <= 64);
        assert!(server.places.displaced.load(Ordering::Relaxed) >= 300);
        server.shutdown.cancel();
    }

    #[tokio::test]
    async fn a_probe_is_answered_while_clients_do_not_read_their_answers() {
        let server = Server::start().await;
        let mut held = Vec::new();
        for n in 0..100u8 {
            held.push(server.client([127, 0, 1, n % 5], "GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await);
        }
        assert!(server.is_healthy([127, 0, 0, 1]).await);
        server.shutdown.cancel();
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_request_has_an_end() {
        let server = Server::start().await;
        let mut slow = server.client([127, 0, 1, 1], "GET /healthz HTTP/1.1\r\nHost:").await;
        let mut answer = Vec::new();
        // The clock runs ahead while all wait.
        slow.read_to_end(&mut answer).await.unwrap();
        assert_eq!(server.places.held(), 0);
        server.shutdown.cancel();
    }
}
