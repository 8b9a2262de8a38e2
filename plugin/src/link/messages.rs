//! The messages of a request's stream. tonic's reader keeps a buffer as large as the largest message for as long as
//! the stream lasts, and thousands of streams wait most of the time: this one keeps what is not complete yet.

use super::Check;
use http_body_util::BodyExt;
use prost::{
    Message,
    bytes::{Buf, Bytes},
};
use std::{
    fmt,
    marker::PhantomData,
    mem,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};
use tonic::{
    Code, Request, Status, Streaming,
    body::Body,
    codegen::{Service, http},
    server::NamedService,
};

/// The bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// A service of which the streams to a method are read by [`Messages`].
#[derive(Clone, Debug)]
pub struct Lean<S> {
    inner: S,
    path: &'static str,
    limit: usize,
}

impl<S> Lean<S> {
    /// The method at `path` takes messages of at most `limit` bytes.
    pub const fn new(inner: S, path: &'static str, limit: usize) -> Self {
        Self { inner, path, limit }
    }
}

impl<S: NamedService> NamedService for Lean<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for Lean<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> S::Future {
        if request.uri().path() == self.path {
            let body = mem::take(request.body_mut());
            request.extensions_mut().insert(Taken(Arc::new(Mutex::new(Some(body))), self.limit));
        }
        self.inner.call(request)
    }
}

/// The body of a request, on its way past tonic, and the limit of its messages.
#[derive(Clone, Debug)]
struct Taken(Arc<Mutex<Option<Body>>>, usize);

/// The messages of a stream to a [`Lean`] service. Each passes the check `C` before it is decoded.
pub struct Messages<T, C> {
    body: Body,
    limit: usize,
    /// The rest of what was read last.
    rest: Bytes,
    /// A message that is not complete, if it is in several parts.
    begun: Vec<u8>,
    of: PhantomData<fn() -> (T, C)>,
}

impl<T, C> fmt::Debug for Messages<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").finish_non_exhaustive()
    }
}

impl<T: Message + Default + 'static, C: Check> Messages<T, C> {
    /// The messages of a request.
    ///
    /// # Errors
    /// The service is not a [`Lean`] one.
    pub fn of(mut request: Request<Streaming<T>>) -> Result<Self, Status> {
        let taken = request.extensions_mut().remove::<Taken>();
        let taken = taken.and_then(|Taken(body, limit)| {
            let body = body.lock().unwrap_or_else(PoisonError::into_inner).take();
            Some(Self::new(body?, limit))
        });
        taken.ok_or_else(|| Status::internal("the stream is read elsewhere"))
    }

    const fn new(body: Body, limit: usize) -> Self {
        Self { body, limit, rest: Bytes::new(), begun: Vec::new(), of: PhantomData }
    }

    /// The next message; `None` at the end of the stream. Cancel safe.
    ///
    /// # Errors
    /// The stream is broken, or a message is not one.
    pub async fn message(&mut self) -> Result<Option<T>, Status> {
        loop {
            if let Some(message) = self.decode()? {
                return Ok(Some(message));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.add(data),
                    // Trailers.
                    Err(_) => return self.end(),
                },
                // The client has cancelled the stream.
                Some(Err(status)) if status.code() == Code::Cancelled => return Ok(None),
                Some(Err(status)) => return Err(status),
                None => return self.end(),
            }
        }
    }

    fn end(&self) -> Result<Option<T>, Status> {
        let is_whole = self.rest.is_empty() && self.begun.is_empty();
        if is_whole { Ok(None) } else { Err(Status::internal("the stream ended within a message")) }
    }

    fn add(&mut self, data: Bytes) {
        if self.rest.is_empty() && self.begun.is_empty() {
            self.rest = data;
            return;
        }
        // Grows with what comes, not with what a length promises.
        self.begun.extend_from_slice(&mem::take(&mut self.rest));
        self.begun.extend_from_slice(&data);
    }

    /// A message that is complete.
    fn decode(&mut self) -> Result<Option<T>, Status> {
        let known: &[u8] = if self.begun.is_empty() { &self.rest } else { &self.begun };
        let Some(([is_compressed, length @ ..], behind)) = known.split_first_chunk::<PREFIX>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if *is_compressed != 0 {
            return Err(Status::internal("a message is compressed, and none may be"));
        }
        if length > self.limit {
            let text = format!("a message has {length} bytes, and at most {} are taken", self.limit);
            return Err(Status::out_of_range(text));
        }
        let Some(message) = behind.get(..length) else { return Ok(None) };
        C::check::<T>(message)?;
        let message = T::decode(message).map_err(|error| Status::internal(error.to_string()))?;
        self.forget(PREFIX + length);
        Ok(Some(message))
    }

    /// Frees what was decoded.
    fn forget(&mut self, bytes: usize) {
        if self.begun.is_empty() {
            self.rest.advance(bytes);
        } else {
            self.rest = Bytes::copy_from_slice(&mem::take(&mut self.begun)[bytes..]);
        }
        if self.rest.is_empty() {
            // It may be a part of something large.
            self.rest = Bytes::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{link::Unchecked, proto::v1::FollowResponse};
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use tokio_stream::iter;

    fn body(parts: Vec<Vec<u8>>) -> Body {
        Body::new(StreamBody::new(iter(parts.into_iter().map(|part| Ok::<_, Status>(Frame::data(Bytes::from(part)))))))
    }

    fn encoded(message: &FollowResponse) -> Vec<u8> {
        let body = message.encode_to_vec();
        [&[0][..], &(body.len() as u32).to_be_bytes(), &body].concat()
    }

    fn messages() -> Vec<FollowResponse> {
        let message = |n: usize| FollowResponse { updates: vec![Bytes::from(vec![n as u8; n])], ..Default::default() };
        let mut all: Vec<_> = [0, 1, 300, 5, 20_000, 2].into_iter().map(message).collect();
        all.push(FollowResponse::default());
        all
    }

    #[tokio::test]
    async fn messages_arrive_in_whatever_parts_they_come_and_nothing_stays_behind_them() {
        let bytes: Vec<u8> = messages().iter().flat_map(encoded).collect();
        for size in [1, 2, 3, 5, 7, 100, 4096, bytes.len()] {
            let mut parts: Vec<Vec<u8>> = bytes.chunks(size).map(Vec::from).collect();
            parts.insert(1, Vec::new());
            let mut read = Messages::<FollowResponse, Unchecked>::new(body(parts), 1 << 20);
            for expected in messages() {
                assert_eq!(read.message().await.unwrap(), Some(expected), "in parts of {size}");
                assert_eq!(read.begun.capacity(), 0);
                assert!(read.rest.len() < bytes.len());
            }
            assert!(read.message().await.unwrap().is_none() && read.rest.is_empty());
        }
    }

    #[tokio::test]
    async fn what_is_no_message_ends_the_stream() {
        struct Never;
        impl Check for Never {
            fn check<M: 'static>(_: &[u8]) -> Result<(), Status> {
                Err(Status::invalid_argument("never"))
            }
        }
        let code = async |bytes: &[u8]| {
            let mut read = Messages::<FollowResponse, Unchecked>::new(body(vec![bytes.to_vec()]), 100);
            read.message().await.map_err(|status| status.code())
        };
        assert_eq!(code(&[]).await, Ok(None));
        assert_eq!(code(&[0, 0, 0, 0, 101]).await, Err(Code::OutOfRange), "before any of it is there");
        assert_eq!(code(&[1, 0, 0, 0, 0]).await, Err(Code::Internal), "compressed");
        assert_eq!(code(&[0, 0, 0, 0, 1, 0xff]).await, Err(Code::Internal), "not decoded");
        assert_eq!(code(&[0, 0, 0, 0, 2, 8]).await, Err(Code::Internal), "cut");
        let mut read = Messages::<FollowResponse, Never>::new(body(vec![vec![0; 5]]), 100);
        assert_eq!(read.message().await.unwrap_err().code(), Code::InvalidArgument);
    }
}
