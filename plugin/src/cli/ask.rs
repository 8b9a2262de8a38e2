//! Asks a process over HTTP, with texts by name.

use super::{Failure, usage};
use crate::metrics::{AskError, ask};
use std::collections::BTreeMap;

/// The answer of a server at HOST:PORT to a question at a path. A question that makes no sense there is bad usage.
pub(super) fn answer(
    server: &str,
    token: Option<&str>,
    path: &str,
    texts: &BTreeMap<String, String>,
) -> Result<String, Failure> {
    let server = server.strip_prefix("http://").unwrap_or(server).trim_end_matches('/');
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(texts).finish();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
    let answer = runtime.block_on(ask(server, token, &format!("{path}?{query}")));
    answer.map_err(|error| match error {
        AskError::Refused { is_bad: true, .. } => usage(error),
        error => Failure::failed(error),
    })
}
