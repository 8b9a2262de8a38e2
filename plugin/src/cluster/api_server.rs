//! Small API servers for tests: one on loopback, and one without sockets for tests whose clock is paused.

use super::{Client, connect};
use hyper::{
    Request, Response,
    body::{Bytes, Frame},
};
use kube::client::Body;
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    time::{Sleep, sleep},
};

/// An answer: its code, its bytes, and whether the connection stays open after it.
pub(super) struct Answer(pub(super) u16, pub(super) Value, pub(super) bool);

/// Starts a server, and returns a client of it.
pub(super) async fn client(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let (mut first, mut line) = (String::new(), String::new());
                stream.read_line(&mut first).await.unwrap();
                while stream.read_line(&mut line).await.unwrap() > 2 {
                    line.clear();
                }
                let Answer(code, body, stays) = answer(first.split(' ').nth(1).unwrap());
                let head = format!("HTTP/1.1 {code} Answer\r\ncontent-type: application/json\r\nconnection: close\r\n");
                let _ = stream.write_all(format!("{head}\r\n{body}\n").as_bytes()).await;
                let _ = stream.flush().await;
                if stays {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    let file = std::env::temp_dir().join(format!("meridian-watch-{}-{}", std::process::id(), address.port()));
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    std::fs::write(&file, config.to_string()).unwrap();
    let client = connect(Some(&file)).await;
    std::fs::remove_file(&file).unwrap();
    client.unwrap()
}

/// The time after which a server without sockets ends a response that stays open.
const STAYS: Duration = Duration::from_secs(290);

/// A client of a server without sockets, whose answers come after a time.
pub(super) fn delayed(answer: impl Fn(&str) -> (Duration, Answer) + Send + Sync + 'static) -> Client {
    Client::new(Delayed(Arc::new(answer)), "meridian")
}

type Answering = dyn Fn(&str) -> (Duration, Answer) + Send + Sync;

#[derive(Clone)]
struct Delayed(Arc<Answering>);

impl tower_service::Service<Request<Body>> for Delayed {
    type Response = Response<Lines>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Lines>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (delay, Answer(code, body, stays)) = (self.0)(&request.uri().to_string());
        Box::pin(async move {
            sleep(delay).await;
            let end = Box::pin(sleep(if stays { STAYS } else { Duration::ZERO }));
            let body = Lines { lines: Some(format!("{body}\n").into()), end };
            Ok(Response::builder().status(code).body(body).unwrap())
        })
    }
}

/// A body that has its bytes at once and ends later.
struct Lines {
    lines: Option<Bytes>,
    end: Pin<Box<Sleep>>,
}

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.lines.take() {
            Some(lines) => Poll::Ready(Some(Ok(Frame::data(lines)))),
            None => self.end.as_mut().poll(context).map(|()| None),
        }
    }
}
