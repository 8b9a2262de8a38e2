//! A port or socket of people and their tools: each connection is served in bounded memory.
//!
//! The connections are served in hyper's own words: tonic's server has none for how much of a stream waits to be
//! sent, nor for the end of a stream that its client does not read.

use super::{
    coalesced::Coalesced,
    streams::{BacklogBody, Incomplete, Streams},
    unimplemented::ServiceNames,
};
use crate::link::{Backlog, Requests};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_stream::{Stream, StreamExt};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    codegen::{Service, http},
    service::Routes,
    transport::server::TcpConnectInfo,
};
use tower_layer::Layer;

/// How long until a vanished client is detected.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// The time limit for an answer to a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// The time limit for streams to end by themselves at a shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of a stream that HTTP/2 takes at a time.
const SEND_BYTES: usize = 16 << 10;
/// Streams of a connection at one time.
const STREAMS: u32 = 200;
/// Bytes of the requests of a connection that are taken before they are read: the least that HTTP/2 has.
const WINDOW: u32 = (64 << 10) - 1;

/// The services of a port, and what its connections have in common.
#[derive(Clone)]
pub(super) struct Port {
    pub(super) routes: Routes,
    /// Words the errors about unknown services.
    pub(super) named: ServiceNames,
    pub(super) backlog: Arc<Backlog>,
    pub(super) requests: Arc<Requests>,
    pub(super) shutdown: CancellationToken,
}

impl Port {
    /// Serves these connections, each with its client's address if it has one, until `shutdown`.
    ///
    /// # Errors
    /// No more connections can be accepted.
    pub(super) async fn serve<S>(
        self,
        connections: impl Stream<Item = io::Result<(S, Option<SocketAddr>)>>,
    ) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (tasks, mut connections) = (TaskTracker::new(), std::pin::pin!(connections));
        let ended = loop {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => break Ok(()),
                next = connections.next() => match next {
                    None => break Ok(()),
                    Some(Err(error)) => break Err(error),
                    Some(Ok((stream, from))) => tasks.spawn(self.clone().serve_connection(stream, from)),
                },
            };
        };
        tasks.close();
        tasks.wait().await;
        ended
    }

    async fn serve_connection<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        self,
        stream: S,
        from: Option<SocketAddr>,
    ) {
        let client = from.map_or_else(|| "the socket".to_owned(), |from| from.to_string());
        let account = self.backlog.connection(&client);
        let stream = TokioIo::new(Coalesced::new(stream, Arc::clone(&account)));
        let Self { routes, named, requests, shutdown, .. } = self;
        let service = service_fn(move |mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(TcpConnectInfo { local_addr: None, remote_addr: from });
            let mut service = named.layer(routes.clone());
            // The routes are always ready. The stream's task runs this, so the body finds its account.
            async move { service.call(request.map(Incomplete::new)).await.map(|response| response.map(BacklogBody::new)) }
        });
        let connection = http2::Builder::new(Streams::new(Arc::clone(&account), requests))
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_concurrent_streams(STREAMS)
            .max_send_buf_size(SEND_BYTES)
            .serve_connection(stream, service);
        let mut connection = std::pin::pin!(connection);
        let served = tokio::select! {
            served = &mut connection => served,
            () = account.ended() => return,
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                timeout(SHUTDOWN_TIMEOUT, connection.as_mut()).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = served {
            tracing::debug!(%client, %error, "a connection has broken");
        }
    }
}

#[cfg(test)]
mod tests;
