//! A small API server on loopback, for tests.

use super::{Client, connect};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
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
