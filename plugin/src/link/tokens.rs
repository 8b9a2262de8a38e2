//! Tokens that a caller shows: who checks them, and what a refusal is over gRPC.

use futures_util::future::BoxFuture;
use tonic::{Request, Status};

/// Why a token is not good enough.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Whose it is can't be found out, or it is nobody's.
    #[error("{0}")]
    Unauthenticated(String),
    /// Somebody else's.
    #[error("{0}")]
    PermissionDenied(String),
    /// It can't be looked at now.
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

/// Looks at the token that an agent shows, and says on which node it is; `None` if the token does not say
/// that.
pub trait Authenticate: Send + Sync {
    /// Looks at a token; `None` is none.
    fn check(&self, token: Option<String>) -> BoxFuture<'_, Result<Option<String>, Refused>>;
}

/// Looks at the token of a request, and says on which node its owner is, if the token says that.
///
/// # Errors
/// It is not good enough.
pub async fn check_token<T>(of: &dyn Authenticate, request: &Request<T>) -> Result<Option<String>, Status> {
    let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
    let token = token.and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
    of.check(token).await.map_err(Refused::into)
}
