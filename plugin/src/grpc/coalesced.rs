//! A connection that combines small writes.
//!
//! HTTP/2 has frames of 16 KiB, and without this each frame would be one write, which is most of the cost of
//! streaming flows. A flush is delayed until the connection is polled again: by then every frame that was ready is
//! in the buffer.

use crate::link::Account;
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

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
    /// Counts the buffer while the client does not take it.
    account: Arc<Account>,
    is_counted: bool,
}

impl<S: AsyncWrite + Unpin> Coalesced<S> {
    /// The connection of this account.
    pub(super) const fn new(inner: S, account: Arc<Account>) -> Self {
        Self { inner, buffer: Vec::new(), written: 0, is_flushing: false, account, is_counted: false }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let before = self.written;
        let drained = self.poll_write_all(cx);
        match &drained {
            // The buffer's size does not shrink as it is written, so progress is counted from nothing.
            Poll::Pending if self.written > before || !self.is_counted => {
                self.account.set(0);
                self.account.set(self.buffer.capacity());
                self.is_counted = true;
            }
            Poll::Pending => {}
            Poll::Ready(_) if self.is_counted => {
                self.account.set(0);
                self.is_counted = false;
            }
            Poll::Ready(_) => {}
        }
        ready!(drained)?;
        // The next burst takes a new buffer: a thousand idle connections hold none.
        self.buffer = Vec::new();
        (self.written, self.is_flushing) = (0, false);
        Poll::Ready(Ok(()))
    }

    fn poll_write_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.buffer.len() {
            let wrote = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.buffer[self.written..]))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += wrote;
        }
        // TLS has its own buffer.
        Pin::new(&mut self.inner).poll_flush(cx)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Backlog;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn flushed_bytes_are_sent_when_the_connection_is_read() {
        let (client, server) = duplex(64);
        let (mut from_client, mut to_client) = tokio::io::split(client);
        let mut server = Coalesced::new(server, Arc::new(Backlog::new(1 << 20)).connection("test"));
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
            let mut server = Coalesced::new(server, Arc::new(Backlog::new(1 << 20)).connection("test"));
            server.write_all(&sent).await.unwrap();
            server.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        writer.await.unwrap();
        assert!(got == expected);
    }

    #[tokio::test]
    async fn the_buffer_counts_while_the_client_takes_nothing_and_is_given_back() {
        let (mut client, server) = duplex(64);
        let backlog = Arc::new(Backlog::new(1 << 20));
        let mut server = Coalesced::new(server, backlog.connection("test"));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut server = Pin::new(&mut server);
        assert!(server.as_mut().poll_write(&mut cx, &[7; 1000]).is_ready());
        assert_eq!(backlog.bytes(), 0, "it was not flushed yet");
        assert!(server.as_mut().poll_flush(&mut cx).is_ready());
        assert!(server.poll_drain(&mut cx).is_pending());
        assert!(backlog.bytes() >= 1000);
        let mut taken = [0; 1000];
        let (read, drained) =
            tokio::join!(client.read_exact(&mut taken), std::future::poll_fn(|cx| server.poll_drain(cx)));
        assert_eq!((read.unwrap(), taken), (1000, [7; 1000]));
        drained.unwrap();
        assert_eq!((backlog.bytes(), server.buffer.capacity()), (0, 0));
    }
}
