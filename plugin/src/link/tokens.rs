//! Tokens of callers: how they are checked, and the gRPC status of a refusal.

use futures_util::future::BoxFuture;
use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
};
use tokio::sync::Notify;
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

/// Notes of a connection that its client has shown a token that is good enough. There are thousands of connections.
#[derive(Clone, Debug, Default)]
pub struct Authenticated(Arc<Noted>);

#[derive(Debug, Default)]
struct Noted {
    node: OnceLock<Option<String>>,
    is_new: Notify,
}

impl Authenticated {
    /// Waits until it has, and returns the node of its owner; `None` where everybody is let in.
    pub async fn node(&self) -> Option<String> {
        loop {
            // From here on it is notified.
            let noted = self.0.is_new.notified();
            if let Some(node) = self.0.node.get() {
                return node.clone();
            }
            noted.await;
        }
    }

    /// Notes the node of the first token.
    fn note(&self, node: &Option<String>) {
        if self.0.node.set(node.clone()).is_ok() {
            self.0.is_new.notify_waiters();
        }
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
    if let Some(authenticated) = request.extensions().get::<Authenticated>() {
        authenticated.note(&node);
    }
    Ok(node)
}
