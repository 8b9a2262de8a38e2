//! A connection that is closed when its place is another's.

use super::{Arrival, Connection};
use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The loss of its place appears as an error of the connection.
pub struct PermittedStream {
    stream: Connection,
    from: SocketAddr,
    displaced: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_displaced: bool,
}

impl fmt::Debug for PermittedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Placed").field("from", &self.from).finish_non_exhaustive()
    }
}

impl From<Arrival> for PermittedStream {
    fn from(Arrival { stream, from, place }: Arrival) -> Self {
        let displaced = Box::pin(async move { place.displaced().await });
        Self { stream, from, displaced, is_displaced: false }
    }
}

impl PermittedStream {
    /// The client's address.
    pub const fn client(&self) -> SocketAddr {
        self.from
    }

    fn poll_displaced(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.is_displaced = self.is_displaced || self.displaced.as_mut().poll(cx).is_ready();
        if self.is_displaced { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

impl AsyncRead for PermittedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_displaced(cx)?;
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PermittedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_displaced(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
