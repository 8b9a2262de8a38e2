//! Tokens against an API server that gives the configured answers.

use super::*;
use crate::cluster::api_server::{Answer, client};
use serde_json::{Value, json};

/// An API server with this answer to a TokenReview, and this pod.
async fn tokens(user: Value, pod: Option<Value>) -> Tokens {
    let status = json!({"authenticated": true, "audiences": ["meridian"], "user": user});
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": ""}, "status": status,
    });
    let none = json!({"kind": "Status", "status": "Failure", "message": "none", "reason": "NotFound", "code": 404});
    let answer = move |path: &str| match &pod {
        _ if path.contains("tokenreviews") => Answer(201, review.clone(), false),
        Some(pod) => Answer(200, pod.clone(), false),
        None => Answer(404, none.clone(), false),
    };
    Tokens::new(client(answer).await, "meridian".into(), ["meridian:agent".to_owned()].into(), Arc::default())
}

fn user(extra: Value) -> Value {
    json!({"username": "system:serviceaccount:meridian:agent", "extra": extra})
}

fn pod(uid: &str) -> Option<Value> {
    let metadata = json!({"namespace": "meridian", "name": "agent-x", "uid": uid});
    Some(
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"nodeName": "node-b", "containers": []}}),
    )
}

#[tokio::test]
async fn a_replica_s_token_needs_no_node() {
    let tokens = tokens(user(json!({})), None).await.without_nodes();
    assert_eq!(tokens.check(Some("token".into()), None).await.map_err(|error| error.to_string()), Ok(None));
}

#[tokio::test]
async fn a_token_speaks_for_the_node_of_its_pod_and_for_no_other() {
    let bound = || json!({POD_NAME: ["agent-x"], POD_UID: ["u1"]});
    let check =
        async |tokens: Tokens| tokens.check(Some("token".into()), None).await.map_err(|error| error.to_string());
    assert_eq!(check(tokens(user(json!({NODE_NAME: ["node-a"]})), None).await).await, Ok(Some("node-a".into())));
    // Before Kubernetes 1.30 a review names the pod alone.
    assert_eq!(check(tokens(user(bound()), pod("u1")).await).await, Ok(Some("node-b".into())));
    for (extra, pod) in
        [(bound(), pod("u2")), (bound(), None), (json!({}), pod("u1")), (json!({POD_NAME: ["agent-x"]}), pod("u1"))]
    {
        let refused = check(tokens(user(extra.clone()), pod).await).await;
        assert!(refused.as_ref().is_err_and(|reason| reason.contains("node")), "{extra}: {refused:?}");
    }
}
