//! The token for the page and its API: a server's, and a client's.

use super::{Failure, named_file::NamedFile, usage};
use crate::{bounded_file, metrics::Access};
use std::path::PathBuf;

/// The largest file with a token.
const TOKEN_BYTES: u64 = 64 << 10;

/// The token that a server asks for.
#[derive(Debug, clap::Args)]
pub(super) struct TokenFileArgs {
    /// File with the token that the page and its API need beyond this machine, read again for every request. Without it,
    /// they answer this machine alone.
    #[arg(
        id = "http.token_file",
        long = "http-token-file",
        env = "MERIDIAN_HTTP_TOKEN_FILE",
        value_name = "FILE",
        value_hint = clap::ValueHint::FilePath
    )]
    http_token_file: Option<NamedFile>,
}

impl TokenFileArgs {
    pub(super) fn access(&self) -> Result<Access, Failure> {
        match &self.http_token_file {
            Some(NamedFile(path)) => Access::with_token(path).map_err(usage),
            None => Ok(Access::default()),
        }
    }
}

/// The token that a client shows.
#[derive(Debug, clap::Args)]
pub(super) struct TokenArgs {
    /// File with the token of a server on another machine.
    #[arg(long, env = "MERIDIAN_TOKEN_FILE", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    token_file: Option<PathBuf>,
}

impl TokenArgs {
    /// The token, if there is one.
    pub(super) fn token(&self) -> Result<Option<String>, Failure> {
        let read = |path: &PathBuf| {
            let text = bounded_file::read_text(path, TOKEN_BYTES);
            let text = text.map_err(|error| Failure::failed(format!("--token-file {}: {error}", path.display())))?;
            Ok(text.trim().to_owned())
        };
        self.token_file.as_ref().map(read).transpose()
    }
}
