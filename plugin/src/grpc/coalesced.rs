//! A connection that combines small writes.
//!
//! HTTP/2 has frames of 16 KiB, and without this each frame would be one write, which is most of the cost of
//! streaming flows. A flush is delayed until the connection is polled again: by then every frame that was ready is
//! in the buffer.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// The size from which the buffer is written at once.
const LIMIT: usize = 256 << 10;

/// A connection that combines small writes. It must be read from as often as it is polled.
#[derive(Debug)]
pub(super) struct Coalesced<S> {
    inner: S,
    /// The bytes to write; the first `written` of them are written.
    buffer: Vec<u8>,
    written: usize,
    is_flushing: bool,
    from: Option<SocketAddr>,
}

impl<S: AsyncWrite + Unpin> Coalesced<S> {
    /// A connection from a client at this address, if it has one.
    pub(super) const fn new(inner: S, from: Option<SocketAddr>) -> Self {
        Self { inner, buffer: Vec::new(), written: 0, is_flushing: false, from }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.buffer.len() {
            let wrote = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.buffer[self.written..]))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += wrote;
        }
        // TLS has its own buffer.
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        // A busy stream will need the buffer again; an idle connection holds none.
        if self.buffer.len() < LIMIT / 2 {
            self.buffer = Vec::new();
        }
        self.buffer.clear();
        (self.written, self.is_flushing) = (0, false);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Coalesced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.buffer.len() >= LIMIT {
            ready!(self.poll_drain(cx))?;
        }
        self.buffer.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.buffer.len() >= LIMIT {
            ready!(self.poll_drain(cx))?;
        }
        let before = self.buffer.len();
        slices.iter().for_each(|slice| self.buffer.extend_from_slice(slice));
        Poll::Ready(Ok(self.buffer.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.buffer.is_empty() && !self.is_flushing {
            self.is_flushing = true;
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Coalesced<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_flushing
            && let Poll::Ready(result) = self.poll_drain(cx)
        {
            result?;
        }
        Pin::new(&mut self.inner).poll_read(cx, into)
    }
}

impl<S> Connected for Coalesced<S> {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        TcpConnectInfo { local_addr: None, remote_addr: self.from }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn flushed_bytes_are_sent_when_the_connection_is_read() {
        let (client, server) = duplex(64);
        let (mut from_client, mut to_client) = tokio::io::split(client);
        let mut server = Coalesced::new(server, None);
        for part in [b"a".as_slice(), b"b", b"c"] {
            server.write_all(part).await.unwrap();
            server.flush().await.unwrap();
        }
        assert_eq!(server.buffer, b"abc", "nothing is written yet");
        to_client.write_all(b"x").await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), b'x');
        let mut got = [0; 3];
        from_client.read_exact(&mut got).await.unwrap();
        assert_eq!((&got, server.buffer.len()), (b"abc", 0));
    }

    #[tokio::test]
    async fn the_end_of_a_connection_loses_nothing() {
        let (mut client, server) = duplex(64);
        let sent: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
        let expected = sent.clone();
        let writer = tokio::spawn(async move {
            let mut server = Coalesced::new(server, None);
            server.write_all(&sent).await.unwrap();
            server.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        writer.await.unwrap();
        assert!(got == expected);
    }
}
