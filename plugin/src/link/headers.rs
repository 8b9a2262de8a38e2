//! Headers for a server of others, in a file: a line `NAME: VALUE` each.

use crate::bounded_file;
use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};
use tonic::codegen::http::{HeaderMap, HeaderName, HeaderValue, Uri};

/// The largest file that is read.
const BYTES: u64 = 64 << 10;

/// A file of headers that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidHeaders {
    /// The file can't be read.
    #[error("{}: {error}", path.display())]
    File {
        /// The file's path.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// A line is not a header.
    #[error("{}:{line}: this is not a header like `authorization: Bearer TOKEN`", path.display())]
    Line {
        /// The file's path.
        path: PathBuf,
        /// The number of the line.
        line: usize,
    },
    /// Without TLS others on the network could read it.
    #[error("{}: the header `{name}` is sent only over TLS or to this machine: use https", path.display())]
    InTheClear {
        /// The file's path.
        path: PathBuf,
        /// The header's name.
        name: String,
    },
}

/// Reads a file of headers. Empty lines and those that begin with `#` are left out. Unless `is_private`, a header that
/// may hold a secret is refused.
///
/// # Errors
/// The file can't be read or is malformed, or a secret would be sent in the clear.
pub fn read_headers(path: &Path, is_private: bool) -> Result<HeaderMap, InvalidHeaders> {
    let text = bounded_file::read_text(path, BYTES);
    let headers = parse(&text.map_err(|error| InvalidHeaders::File { path: path.to_owned(), error })?, path)?;
    match headers.keys().find(|name| !is_private && may_be_secret(name.as_str())) {
        Some(name) => Err(InvalidHeaders::InTheClear { path: path.to_owned(), name: name.to_string() }),
        None => Ok(headers),
    }
}

/// Whether a server is on this machine, so that requests to it are private without TLS.
pub fn is_local(server: &Uri) -> bool {
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn may_be_secret(name: &str) -> bool {
    ["auth", "token", "key", "secret", "cookie", "pass"].iter().any(|part| name.contains(part))
}

fn parse(text: &str, path: &Path) -> Result<HeaderMap, InvalidHeaders> {
    let mut headers = HeaderMap::new();
    for (line, text) in (1..).zip(text.lines()) {
        if text.trim().is_empty() || text.starts_with('#') {
            continue;
        }
        let header = || {
            let (name, value) = text.split_once(':')?;
            let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
            // gRPC takes such a header for binary.
            let is_text = !name.as_str().ends_with("-bin");
            Some((name, HeaderValue::from_str(value.trim()).ok()?)).filter(|_| is_text)
        };
        let (name, mut value) = header().ok_or_else(|| InvalidHeaders::Line { path: path.to_owned(), line })?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_lines_and_a_bad_one_is_named() {
        let headers = parse("# ours\nAuthorization: Bearer a:b\n\nx-tenant:7\n", "h".as_ref()).unwrap();
        let header = |name: &str| headers.get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!((header("authorization"), header("x-tenant")), ("Bearer a:b".to_owned(), "7".to_owned()));
        for bad in ["a: b\nnothing", "a: b\n: c", "a: b\nx y: c", "a: b\nc-bin: d", "a: b\nc: \u{1}"] {
            let error = parse(bad, "h".as_ref()).unwrap_err().to_string();
            assert_eq!(error, "h:2: this is not a header like `authorization: Bearer TOKEN`", "{bad}");
        }
    }

    #[test]
    fn a_server_on_this_machine_has_a_loopback_address() {
        for (server, expected) in [
            ("http://localhost:4317", true),
            ("http://127.0.0.9:4317", true),
            ("http://[::1]:4317", true),
            ("http://localhost.example.com", false),
            ("http://127.0.0.1.example.com", false),
            ("http://10.0.0.1", false),
            ("/path", false),
        ] {
            assert_eq!(is_local(&server.parse().unwrap()), expected, "{server}");
        }
    }

    #[test]
    fn secrets_are_not_sent_in_the_clear_and_tenants_are() {
        let path = std::env::temp_dir().join(format!("meridian-headers-{}", std::process::id()));
        std::fs::write(&path, "X-Scope-OrgID: shop\n").unwrap();
        assert_eq!(read_headers(&path, false).unwrap().get("x-scope-orgid").unwrap(), "shop");
        std::fs::write(&path, "X-Scope-OrgID: shop\nAuthorization: Bearer x\n").unwrap();
        assert!(read_headers(&path, true).is_ok());
        let error = read_headers(&path, false).unwrap_err().to_string();
        assert!(
            error.ends_with("the header `authorization` is sent only over TLS or to this machine: use https"),
            "{error}"
        );
        std::fs::remove_file(path).unwrap();
    }
}
