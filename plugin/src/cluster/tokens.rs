//! Checks tokens: the API server names their owners.

use crate::link::{Authenticate, RefusedToken as Refused};
use futures_util::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{Api, Client, api::PostParams};
use std::collections::BTreeSet;

/// The extra attribute of a token with its pod's node.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// Checks tokens by asking the API server.
pub struct Tokens {
    /// The API server.
    pub client: Client,
    /// The audience that a token must have; empty for the API server's own.
    pub audience: String,
    /// The service accounts of agents: `NAMESPACE:NAME`.
    pub accounts: BTreeSet<String>,
}

impl Authenticate for Tokens {
    fn check(&self, token: Option<String>) -> BoxFuture<'_, Result<Option<String>, Refused>> {
        Box::pin(async move {
            let token = token.ok_or_else(|| Refused::Unauthenticated("the request has no token".into()))?;
            let audiences = (!self.audience.is_empty()).then(|| vec![self.audience.clone()]);
            let spec = TokenReviewSpec { token, audiences };
            let review = TokenReview { spec, ..TokenReview::default() };
            let answer = Api::all(self.client.clone()).create(&PostParams::default(), &review).await;
            let unavailable = |error: kube::Error| Refused::Unavailable(format!("the token can't be checked: {error}"));
            let status = answer.map_err(unavailable)?.status.unwrap_or_default();
            if status.authenticated != Some(true) {
                let reason = status.error.unwrap_or_else(|| "it is not valid".into());
                return Err(Refused::Unauthenticated(format!("the token is refused: {reason}")));
            }
            // An API server without support for audiences returns none.
            if !self.audience.is_empty() && !status.audiences.unwrap_or_default().contains(&self.audience) {
                let reason = format!("the token is refused: its audience is not {}", self.audience);
                return Err(Refused::Unauthenticated(reason));
            }
            let user = status.user.unwrap_or_default();
            let name = user.username.unwrap_or_default();
            let account = name.strip_prefix("system:serviceaccount:").unwrap_or_default();
            if !self.accounts.contains(account) {
                return Err(Refused::PermissionDenied(format!("the token belongs to {name}, which is not an agent")));
            }
            let extra = user.extra.unwrap_or_default();
            Ok(extra.get(NODE_NAME).and_then(|names| names.first().cloned()))
        })
    }
}

/// Accepts every caller: for a controller that only this machine can reach.
pub struct Anybody;

impl Authenticate for Anybody {
    fn check(&self, _: Option<String>) -> BoxFuture<'_, Result<Option<String>, Refused>> {
        Box::pin(async { Ok(None) })
    }
}
