//! The streams of a connection, each with an account of the bytes that wait for the client.
//!
//! HTTP/2 keeps a response's bytes until the client's window and socket take them, and then drops them: the bytes
//! count until that moment. A stream whose account is ended is reset, even if nothing of it can be sent.

use crate::link::{Account, Request, Requests, Waiting};
use hyper::{
    body::{Body, Bytes, Frame, SizeHint},
    rt::Executor,
};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

tokio::task_local! {
    /// The stream that the current task serves.
    static STREAM: Stream;
}

/// The account and the request of a stream.
#[derive(Clone)]
struct Stream {
    account: Arc<Account>,
    request: Arc<Request>,
}

/// Runs the streams of a connection.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    account: Arc<Account>,
    requests: Arc<Requests>,
}

impl Streams {
    /// The streams of a connection with this account, whose requests are among these.
    pub(super) const fn new(account: Arc<Account>, requests: Arc<Requests>) -> Self {
        Self { account, requests }
    }
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let (account, request) = (self.account.stream(), Arc::new(self.requests.open(self.account.id())));
        let of_stream = Stream { account, request };
        let served = STREAM.scope(of_stream.clone(), stream);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = of_stream.account.ended() => {}
                () = of_stream.request.ended() => {}
                _ = served => {}
            }
        });
    }
}

/// A response body whose bytes count until they are sent, and that waits for room for them.
pub(super) struct BacklogBody<B> {
    body: B,
    /// None outside of a stream.
    account: Option<Arc<Account>>,
    /// Present while the body waits.
    room: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<B> BacklogBody<B> {
    /// The body of the response in the stream that the current task serves.
    pub(super) fn new(body: B) -> Self {
        let stream = STREAM.try_with(Stream::clone).ok();
        if let Some(stream) = &stream {
            stream.request.answered();
        }
        Self { body, account: stream.map(|stream| stream.account), room: None }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(account) = &self.account else { return Poll::Ready(()) };
        if self.room.is_none() && account.has_room() {
            return Poll::Ready(());
        }
        let room = self.room.get_or_insert_with(|| Box::pin(Arc::clone(account).room()));
        ready!(room.as_mut().poll(cx));
        self.room = None;
        Poll::Ready(())
    }
}

/// The memory of a frame beside its bytes: the rest of its buffer, and the next flows of its stream.
const BESIDE: usize = 4 << 10;

/// Bytes that are counted.
struct Sent {
    bytes: Bytes,
    _waiting: Waiting,
}

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for BacklogBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        ready!(self.poll_room(cx));
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let count = |bytes: Bytes| match &self.account {
            // The buffer of a message grows by doubling, and the stream's next flows are as large.
            Some(account) if !bytes.is_empty() => {
                let _waiting = account.add(2 * bytes.len() + BESIDE);
                Bytes::from_owner(Sent { bytes, _waiting })
            }
            _ => bytes,
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(count))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request body, whose bytes count until the response begins.
pub(super) struct Incomplete<B> {
    body: B,
    /// None outside of a stream.
    request: Option<Arc<Request>>,
}

impl<B> Incomplete<B> {
    /// The body of the request in the stream that the current task serves.
    pub(super) fn new(body: B) -> Self {
        Self { body, request: STREAM.try_with(|stream| Arc::clone(&stream.request)).ok() }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Incomplete<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let (Some(Ok(frame)), Some(request)) = (&frame, &self.request) {
            request.add(frame.data_ref().map_or(0, Bytes::len));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
