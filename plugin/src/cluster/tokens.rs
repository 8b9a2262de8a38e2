//! Checks tokens: the API server names their owners.

mod reviews;

pub use reviews::ReviewTally;

use crate::link::{Authenticate, RefusedToken as Refused};
use futures_util::future::BoxFuture;
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    core::v1::Pod,
};
use kube::{Api, Client, api::PostParams};
use reviews::{Ask, Reviews};
use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Instant};

/// The extra attribute of a token with its pod's node.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Checks tokens by asking the API server.
pub struct Tokens {
    client: Client,
    /// For whom the token must have been made; empty for the API server's own audience.
    audience: String,
    /// The service accounts of agents: `NAMESPACE:NAME`.
    accounts: BTreeSet<String>,
    /// Whether a token speaks for a node: an agent's does, a replica's does not.
    of_nodes: bool,
    reviews: Reviews,
}

impl Tokens {
    /// Lets these service accounts in (`NAMESPACE:NAME`), by tokens that were made for an audience; if that is
    /// empty, for the API server's own.
    pub fn new(client: Client, audience: String, accounts: BTreeSet<String>, tally: Arc<ReviewTally>) -> Self {
        Self { client, audience, accounts, of_nodes: true, reviews: Reviews::new(tally) }
    }

    /// Asks for no node: the tokens are those of replicas of the controller.
    #[must_use]
    pub fn without_nodes(mut self) -> Self {
        self.of_nodes = false;
        self
    }

    async fn review(&self, token: String) -> Result<Option<String>, Refused> {
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
        // An API server that knows nothing of audiences says none.
        if !self.audience.is_empty() && !status.audiences.unwrap_or_default().contains(&self.audience) {
            let reason = format!("the token is refused: its audience is not {}", self.audience);
            return Err(Refused::Unauthenticated(reason));
        }
        let user = status.user.unwrap_or_default();
        let name = user.username.as_deref().unwrap_or_default();
        let account = name.strip_prefix("system:serviceaccount:").unwrap_or_default();
        if !self.accounts.contains(account) {
            return Err(Refused::PermissionDenied(format!("the token belongs to {name}, which is not an agent")));
        }
        if !self.of_nodes {
            return Ok(None);
        }
        let namespace = account.split_once(':').map_or("", |(namespace, _)| namespace);
        self.node(namespace, &user).await.map(Some)
    }

    /// The node of the pod that a token is bound to. A token that is bound to none could speak for any node.
    async fn node(&self, namespace: &str, user: &UserInfo) -> Result<String, Refused> {
        let extra = |key| user.extra.as_ref()?.get(key)?.first().filter(|text| !text.is_empty());
        if let Some(node) = extra(NODE_NAME) {
            return Ok(node.clone());
        }
        let unbound = || Refused::PermissionDenied("the token is bound to no pod, so its node can't be known".into());
        let (name, uid) = extra(POD_NAME).zip(extra(POD_UID)).ok_or_else(unbound)?;
        let found = Api::<Pod>::namespaced(self.client.clone(), namespace).get_opt(name).await;
        let unavailable =
            |error: kube::Error| Refused::Unavailable(format!("the token's pod can't be looked at: {error}"));
        let pod = found.map_err(unavailable)?.filter(|pod| pod.metadata.uid.as_ref() == Some(uid));
        let node = pod.and_then(|pod| pod.spec?.node_name);
        node.ok_or_else(|| Refused::PermissionDenied(format!("the token's pod {namespace}/{name} is on no node")))
    }
}

impl Authenticate for Tokens {
    fn check(&self, token: Option<String>, from: Option<IpAddr>) -> BoxFuture<'_, Result<Option<String>, Refused>> {
        Box::pin(async move {
            let token = token.ok_or_else(|| Refused::Unauthenticated("the request has no token".into()))?;
            let digest = reviews::digest_of(&token);
            match self.reviews.begin(digest, from, Instant::now()) {
                Ask::Known(answer) => answer,
                Ask::TooMany => Err(Refused::Unavailable("too many tokens of this address were refused".into())),
                Ask::Review => {
                    let answer = self.review(token).await;
                    self.reviews.end(digest, from, &answer, Instant::now());
                    answer
                }
            }
        })
    }
}

/// Accepts every caller: for a controller that only this machine can reach.
pub struct AllowAll;

impl Authenticate for AllowAll {
    fn check(&self, _: Option<String>, _: Option<IpAddr>) -> BoxFuture<'_, Result<Option<String>, Refused>> {
        Box::pin(async { Ok(None) })
    }
}

#[cfg(test)]
mod tests;
