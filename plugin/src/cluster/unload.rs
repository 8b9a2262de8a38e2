//! Removes the agents' remains from every node: changes their DaemonSet so that its pods remove everything and stay.

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The interval at which the progress is checked.
const LOOK: Duration = Duration::from_secs(2);

/// The progress of the removal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Nodes that are done.
    pub done: i32,
    /// Nodes with an agent.
    pub nodes: i32,
}

/// The reason why the removal is incomplete.
#[derive(Debug, thiserror::Error)]
pub enum UnloadError {
    /// The API server refuses.
    #[error("the DaemonSet {name}: {error}")]
    Api {
        /// The DaemonSet.
        name: String,
        /// The API server's error.
        error: kube::Error,
    },
    /// The DaemonSet has no container to change.
    #[error("the DaemonSet {0} has no container `agent`")]
    Foreign(String),
    /// Some nodes are not done.
    #[error("{} of {} nodes are not done after {} s: end the rest there with `meridian agent --unload`, or reboot them", .progress.nodes - .progress.done, .progress.nodes, .after.as_secs())]
    Late {
        /// The progress.
        progress: Progress,
        /// The time that has passed.
        after: Duration,
    },
}

/// Changes the DaemonSet and waits until all its nodes are done. Returns their number; `None` if there is no
/// DaemonSet.
///
/// # Errors
/// The API server refuses, or not all nodes are done in time.
pub async fn unload_nodes(
    client: Client,
    namespace: &str,
    name: &str,
    patience: Duration,
    mut tell: impl FnMut(Progress),
) -> Result<Option<i32>, UnloadError> {
    let failed = |error| UnloadError::Api { name: name.to_owned(), error };
    let api: Api<DaemonSet> = Api::namespaced(client, namespace);
    let Some(known) = api.get_opt(name).await.map_err(failed)? else { return Ok(None) };
    let pod = known.spec.template.spec.unwrap_or_default();
    let agent = pod.containers.into_iter().find(|container| container.name == "agent");
    let mut args = agent.and_then(|agent| agent.args).ok_or_else(|| UnloadError::Foreign(name.to_owned()))?;
    for flag in ["--unload", "--stay"] {
        if !args.iter().any(|arg| arg == flag) {
            args.push(flag.to_owned());
        }
    }
    let container = json!({"name": "agent", "args": args});
    let patch = json!({"spec": {
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%", "maxSurge": 0}},
        "template": {"spec": {"containers": [container]}},
    }});
    // The patch names the container, so the rest of the pod stays.
    let patched = api.patch(name, &PatchParams::default(), &Patch::Strategic(&patch)).await.map_err(failed)?;
    let generation = patched.metadata.generation.unwrap_or_default();
    let (start, mut told) = (Instant::now(), None);
    loop {
        let status = api.get_opt(name).await.map_err(failed)?.and_then(|set| set.status);
        let progress = status.as_ref().map_or_else(Progress::default, |status| progress(status, generation));
        if told.replace(progress) != Some(progress) {
            tell(progress);
        }
        let is_seen = status.is_some_and(|status| status.observed_generation >= Some(generation));
        if is_seen && progress.done == progress.nodes {
            return Ok(Some(progress.nodes));
        }
        if start.elapsed() >= patience {
            return Err(UnloadError::Late { progress, after: patience });
        }
        sleep(LOOK).await;
    }
}

fn progress(status: &DaemonSetStatus, generation: i64) -> Progress {
    let nodes = status.desired_number_scheduled;
    let updated = status.updated_number_scheduled.unwrap_or_default();
    // Before the controller has seen the change, and while old pods exist, ready pods may be old ones.
    let is_seen = status.observed_generation >= Some(generation);
    let done = if !is_seen {
        0
    } else if updated < nodes {
        updated.min(status.number_ready - (nodes - updated)).max(0)
    } else {
        status.number_ready.min(nodes)
    };
    Progress { done, nodes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_done_when_its_new_pod_is_ready() {
        let status = |observed, desired, updated, ready| DaemonSetStatus {
            observed_generation: Some(observed),
            desired_number_scheduled: desired,
            updated_number_scheduled: Some(updated),
            number_ready: ready,
            ..DaemonSetStatus::default()
        };
        let done = |status| progress(&status, 2).done;
        assert_eq!(done(status(1, 3, 3, 3)), 0, "the change is not seen yet");
        assert_eq!(done(status(2, 3, 0, 3)), 0);
        assert_eq!(done(status(2, 3, 1, 2)), 0, "those that are ready may be old ones");
        assert_eq!(done(status(2, 3, 3, 2)), 2);
        assert_eq!(done(status(2, 3, 3, 3)), 3);
    }
}
