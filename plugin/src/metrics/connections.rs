//! A listener with a limit of connections, and time limits for clients that neither read nor write.

use super::process::RefusedConnections;
use axum::serve::Listener;
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_io_timeout::TimeoutStream;

/// The limit of concurrent connections. A node has a handful of scrapers and probes.
const CONNECTIONS: usize = 64;
/// How long a client may be silent between requests: longer than usual scrape intervals.
const SILENCE: Duration = Duration::from_secs(150);
/// How long a client may read nothing of a response.
const STUCK: Duration = Duration::from_secs(30);

/// Accepts connections up to the limit, and closes further ones.
#[derive(Debug)]
pub(super) struct Bounded {
    listener: TcpListener,
    free: Arc<Semaphore>,
    refused: RefusedConnections,
}

impl Bounded {
    pub(super) fn new(listener: TcpListener, refused: RefusedConnections) -> Self {
        Self { listener, free: Arc::new(Semaphore::new(CONNECTIONS)), refused }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            if let Ok(held) = Arc::clone(&self.free).try_acquire_owned() {
                let mut stream = Box::pin(TimeoutStream::new(stream));
                stream.as_mut().set_read_timeout_pinned(Some(SILENCE));
                stream.as_mut().set_write_timeout_pinned(Some(STUCK));
                return (Connection { stream, _held: held }, address);
            }
            self.refused.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that counts against the limit until it is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Pin<Box<TimeoutStream<TcpStream>>>,
    _held: OwnedSemaphorePermit,
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(cx)
    }
}
