//! Tokens of callers: how they are checked, and the gRPC status of a refusal.

use futures_util::future::BoxFuture;
use std::net::IpAddr;
use tokio::sync::watch;
use tonic::{Request, Status};

/// Why a token is not good enough.
#[derive(Clone, Debug, thiserror::Error)]
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

/// Checks an agent's token, and returns its node; `None` if tokens are not required.
pub trait Authenticate: Send + Sync {
    /// Looks at a token, shown by a client at an address; `None` is none.
    fn check(&self, token: Option<String>, from: Option<IpAddr>) -> BoxFuture<'_, Result<Option<String>, Refused>>;
}

/// Notes of a connection that its client has shown a token that is good enough.
#[derive(Clone, Debug)]
pub struct Authenticated(watch::Sender<Option<Option<String>>>);

impl Default for Authenticated {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Authenticated {
    /// Waits until it has, and returns the node of its owner; `None` where everybody is let in.
    pub async fn node(&self) -> Option<String> {
        let mut noted = self.0.subscribe();
        // The sender is here.
        let noted = noted.wait_for(Option::is_some).await.ok();
        noted.and_then(|noted| noted.clone()).flatten()
    }
}

/// Checks the token of a request, and returns its owner's node; `None` if tokens are not required.
///
/// # Errors
/// The token is refused.
pub async fn check_token<T>(of: &dyn Authenticate, request: &Request<T>) -> Result<Option<String>, Status> {
    let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
    let token = token.and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
    let from = request.remote_addr().map(|from| from.ip().to_canonical());
    let node = of.check(token, from).await?;
    if let Some(Authenticated(noted)) = request.extensions().get() {
        noted.send_replace(Some(node.clone()));
    }
    Ok(node)
}
