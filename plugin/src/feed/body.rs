//! The response body of a followed stream: gRPC messages whose updates are shared with other streams, not copied.
//!
//! Thousands of streams wait most of the time, and then all send the same. tonic encodes each message into a buffer of
//! its stream, which stays as large as the largest message. This body sends an update itself, and has no buffer.

use super::services::feed_server::{Feed, FeedServer};
use crate::{
    link::{Lean, Receiver},
    proto::v1::FollowResponse,
};
use hyper::body::Frame;
use prost::{
    Message as _,
    bytes::{BufMut, Bytes, BytesMut},
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, message},
};
use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};
use tokio_stream::Stream;
use tonic::{
    Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
    server::NamedService,
};

/// The numbers of the fields of a response.
const POSITION: u32 = 1;
const UPDATES: u32 = 2;
const WHOLE: u32 = 3;
/// Smaller updates are copied: a part of a body costs more than these bytes.
const COPIED: usize = 1 << 10;
/// The bytes before a gRPC message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// The path of the method.
const FOLLOW: &str = "/meridian.v1.Feed/Follow";

/// The messages of a stream.
pub(super) type Messages = Receiver<Result<FollowResponse, Status>>;

/// The messages of a stream, until [`FollowServer`] takes them for a body of its own.
#[derive(Clone, Debug)]
pub struct FollowStream(Arc<Mutex<Option<Messages>>>);

impl FollowStream {
    pub(super) fn new(messages: Messages) -> Self {
        Self(Arc::new(Mutex::new(Some(messages))))
    }

    fn with<T>(&self, f: impl FnOnce(&mut Option<Messages>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Stream for FollowStream {
    type Item = Result<FollowResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.with(|messages| messages.as_ref().map_or(Poll::Ready(None), |messages| messages.poll_receive(cx)))
    }
}

/// `meridian.v1.Feed`, with bodies that share the updates.
pub struct FollowServer<S>(Lean<FeedServer<S>>);

impl<S> Clone for FollowServer<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S> fmt::Debug for FollowServer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FollowServer").finish_non_exhaustive()
    }
}

impl<S: Feed> FollowServer<S> {
    /// Serves a feed; an agent's message has at most `limit` bytes.
    pub fn new(service: S, limit: usize) -> Self {
        Self(Lean::new(FeedServer::new(service), FOLLOW, limit))
    }
}

impl<S: Feed> NamedService for FollowServer<S> {
    const NAME: &'static str = <FeedServer<S> as NamedService>::NAME;
}

impl<S: Feed> Service<http::Request<Body>> for FollowServer<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let called = self.0.call(request);
        Box::pin(async move {
            let mut response = called.await?;
            let messages =
                response.extensions_mut().remove::<FollowStream>().and_then(|stream| stream.with(Option::take));
            Ok(match messages {
                Some(messages) => {
                    response.map(|_| Body::new(FollowBody { messages: Some(messages), parts: VecDeque::new() }))
                }
                // A refusal.
                None => response,
            })
        })
    }
}

/// The body of a stream.
#[derive(Debug)]
struct FollowBody {
    /// `None` behind the trailers.
    messages: Option<Messages>,
    /// The rest of the message that is being sent.
    parts: VecDeque<Bytes>,
}

impl hyper::body::Body for FollowBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.parts.is_empty() {
            let Some(messages) = &self.messages else { return Poll::Ready(None) };
            let status = match ready!(messages.poll_receive(cx)) {
                Some(Ok(message)) => {
                    self.parts = parts(&message);
                    None
                }
                Some(Err(status)) => Some(status),
                None => Some(Status::ok("")),
            };
            if let Some(status) = status {
                // Closes the channel, too.
                self.messages = None;
                let mut trailers = http::HeaderMap::new();
                return Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))));
            }
        }
        let part = self.parts.pop_front().unwrap_or_default();
        if self.parts.is_empty() {
            // Frees the list while the stream waits.
            self.parts = VecDeque::new();
        }
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.messages.is_none() && self.parts.is_empty()
    }
}

/// A gRPC message: large updates as they are, and the bytes between them.
fn parts(FollowResponse { position, updates, whole }: &FollowResponse) -> VecDeque<Bytes> {
    let of_updates = updates.iter().map(|update| field_len(update.len())).sum::<usize>();
    let of_position = position.as_ref().map_or(0, |position| field_len(position.encoded_len()));
    let length = of_position + of_updates + if *whole { 2 } else { 0 };
    let copied = updates.iter().map(Bytes::len).filter(|length| *length < COPIED).sum::<usize>();
    let (mut parts, mut open) = (VecDeque::new(), BytesMut::with_capacity(PREFIX + 40 + 8 * updates.len() + copied));
    open.put_u8(0);
    // Far below 4 GiB: an agent takes 4 MiB.
    open.put_u32(length as u32);
    if let Some(position) = position {
        message::encode(POSITION, position, &mut open);
    }
    for update in updates {
        encode_key(UPDATES, WireType::LengthDelimited, &mut open);
        encode_varint(update.len() as u64, &mut open);
        if update.len() < COPIED {
            open.put_slice(update);
        } else {
            parts.push_back(open.split().freeze());
            parts.push_back(update.clone());
        }
    }
    if *whole {
        encode_key(WHOLE, WireType::Varint, &mut open);
        encode_varint(1, &mut open);
    }
    if !open.is_empty() {
        parts.push_back(open.freeze());
    }
    parts
}

/// The length of a field of so many bytes, whose number is small.
fn field_len(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{link::handoff, proto::v1::Position};
    use http_body_util::BodyExt;
    use hyper::body::Body as _;

    /// The bytes of a message as tonic encodes it.
    fn encoded(message: &FollowResponse) -> Vec<u8> {
        let body = message.encode_to_vec();
        [&[0][..], &(body.len() as u32).to_be_bytes(), &body].concat()
    }

    fn message(position: Option<(u64, u64)>, updates: &[usize], whole: bool) -> FollowResponse {
        let position = position.map(|(instance, version)| Position { instance, version });
        let updates = updates.iter().map(|length| Bytes::from(vec![*length as u8; *length])).collect();
        FollowResponse { position, updates, whole }
    }

    #[test]
    fn a_message_in_parts_has_the_bytes_of_an_encoded_one() {
        let positions = [None, Some((0, 0)), Some((1, 0)), Some((u64::MAX, u64::MAX)), Some((0, 127)), Some((7, 128))];
        let updates: [&[usize]; 8] = [
            &[],
            &[0],
            &[1, 127, 128],
            &[COPIED - 1],
            &[COPIED],
            &[COPIED, 3, COPIED + 1],
            &[0, 20_000, 0, 1 << 20],
            &[5; 1024],
        ];
        for position in positions {
            for updates in updates {
                for whole in [false, true] {
                    let message = message(position, updates, whole);
                    let parts = parts(&message);
                    assert_eq!(Vec::from(parts).concat(), encoded(&message), "{position:?} {updates:?} {whole}");
                }
            }
        }
    }

    #[test]
    fn a_large_update_is_shared_and_not_copied() {
        let message = message(None, &[10, 5000], true);
        let parts = parts(&message);
        assert!(parts.iter().any(|part| part.as_ptr() == message.updates[1].as_ptr()));
        assert!(parts.iter().filter(|part| part.len() != 5000).all(|part| part.len() < 40), "nothing else is large");
    }

    #[tokio::test]
    async fn a_body_ends_with_the_status_of_its_stream_and_with_nothing_behind() {
        for (status, code) in [(None, "0"), (Some(Status::aborted("moved")), "10")] {
            let (sender, messages) = handoff();
            let mut body = FollowBody { messages: Some(messages), parts: VecDeque::new() };
            let (first, last) = (message(Some((1, 2)), &[3], true), status.is_some());
            let sent = tokio::spawn(async move {
                sender.send(Ok(first)).await.unwrap();
                if let Some(status) = status {
                    sender.send(Err(status)).await.unwrap();
                }
            });
            assert!(body.frame().await.unwrap().unwrap().is_data());
            let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
            assert_eq!(trailers["grpc-status"], code);
            assert_eq!(trailers.get("grpc-message").is_some(), last);
            assert!(body.frame().await.is_none() && body.is_end_stream());
            sent.await.unwrap();
        }
    }
}
