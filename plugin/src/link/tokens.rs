//! Tokens of callers: how they are checked, and the gRPC status of a refusal.

use futures_util::future::BoxFuture;
use tonic::{Request, Status};

/// The reason why a token is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The token's owner is unknown.
    #[error("{0}")]
    Unauthenticated(String),
    /// The owner lacks the permission.
    #[error("{0}")]
    PermissionDenied(String),
    /// The token can't be checked now.
    #[error("{0}")]
    Unavailable(String),
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let text = refused.to_string();
        match refused {
            Refused::Unauthenticated(_) => Self::unauthenticated(text),
            Refused::PermissionDenied(_) => Self::permission_denied(text),
            Refused::Unavailable(_) => Self::unavailable(text),
        }
    }
}

/// Checks a caller's token. Returns the node of the token's owner; `None` if the token does not name one.
pub trait Authenticate: Send + Sync {
    /// Checks a token; `None` if the caller sent none.
    fn check(&self, token: Option<String>) -> BoxFuture<'_, Result<Option<String>, Refused>>;
}

/// Checks the token of a request. Returns the node of its owner, if the token names one.
///
/// # Errors
/// The token is refused.
pub async fn check_token<T>(of: &dyn Authenticate, request: &Request<T>) -> Result<Option<String>, Status> {
    let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
    let token = token.and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
    of.check(token).await.map_err(Refused::into)
}
