//! Access to the page and its API: for clients of this machine, and for clients with a token. `kubectl port-forward`
//! comes from loopback, too. Metrics and health are open: Prometheus and probes have no token.
//!
//! A browser on this machine does not prove that its user makes the request: a foreign site whose name resolves to
//! loopback would read the page through it. So a request from loopback must name loopback as its host.

use crate::bounded_file;
use axum::http::{HeaderMap, HeaderValue, header, uri::Authority};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use ring::{hmac, rand::SystemRandom};
use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

/// The largest file with a token, and the shortest token.
const TOKEN_BYTES: u64 = 64 << 10;
const SHORTEST: usize = 16;

/// The rule for readers of the page and its API.
#[derive(Clone, Debug, Default)]
pub struct Access {
    token: Option<PathBuf>,
}

/// A file without a usable token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file can't be read.
    #[error("the token for the page, {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The token is too short to be a secret.
    #[error("the token for the page, {}: it has fewer than {SHORTEST} characters", .0.display())]
    Short(PathBuf),
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denial {
    /// It comes from elsewhere, and this process has no token.
    #[error(
        "the page and its API answer this machine alone: use `kubectl port-forward`, or start with --http-token-file"
    )]
    Elsewhere,
    /// It comes from elsewhere without the token.
    #[error("the page and its API need a token beyond this machine")]
    Token,
    /// It comes from this machine, for another host.
    #[error("a request from this machine must be for localhost, 127.0.0.1 or [::1]")]
    Host,
}

/// The client of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Remote(pub(super) IpAddr);

impl Access {
    /// Also admits clients with the token in a file, which is read again for every request that shows one.
    ///
    /// # Errors
    /// The file has no token.
    pub fn with_token(path: &Path) -> Result<Self, TokenError> {
        token(path)?;
        Ok(Self { token: Some(path.to_owned()) })
    }

    /// Whether a request may be answered.
    pub(super) fn check(&self, remote: Remote, headers: &HeaderMap) -> Result<(), Denial> {
        if self.token.as_ref().is_some_and(|path| has_token(path, headers)) {
            return Ok(());
        }
        match remote.0.to_canonical().is_loopback() {
            true if names_loopback(headers) => Ok(()),
            true if self.token.is_none() => Err(Denial::Host),
            false if self.token.is_none() => Err(Denial::Elsewhere),
            _ => Err(Denial::Token),
        }
    }
}

fn token(path: &Path) -> Result<String, TokenError> {
    let text = bounded_file::read_text(path, TOKEN_BYTES);
    let text = text.map_err(|source| TokenError::Unreadable { path: path.to_owned(), source })?;
    let token = text.trim();
    if token.chars().count() < SHORTEST { Err(TokenError::Short(path.to_owned())) } else { Ok(token.to_owned()) }
}

/// Whether the one `Authorization` has the token of a file: as a bearer's, or as the password that browsers ask for.
fn has_token(path: &Path, headers: &HeaderMap) -> bool {
    let Some(given) = only(headers, header::AUTHORIZATION).and_then(shown) else { return false };
    match token(path) {
        Ok(token) => is_equal(token.as_bytes(), &given),
        Err(error) => {
            tracing::debug!(%error, "no token is accepted");
            false
        }
    }
}

/// Compares in a time that depends on neither text: under a key that is made for it, both are a code of one length.
fn is_equal(known: &[u8], given: &[u8]) -> bool {
    let Ok(key) = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()) else { return false };
    hmac::verify(&key, given, hmac::sign(&key, known).as_ref()).is_ok()
}

/// A header that is there once: which of two is meant would be a guess.
fn only(headers: &HeaderMap, name: header::HeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// The token that an `Authorization` shows.
fn shown(value: &HeaderValue) -> Option<Vec<u8>> {
    let (scheme, credentials) = value.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(credentials.trim().as_bytes().to_vec());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = BASE64.decode(credentials.trim()).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(pair[colon + 1..].to_vec())
}

/// Whether the one `Host` is an address or a name of loopback.
fn names_loopback(headers: &HeaderMap) -> bool {
    let host = only(headers, header::HOST).and_then(|host| host.to_str().ok());
    let Some(authority) = host.and_then(|host| host.parse::<Authority>().ok()) else { return false };
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests;
