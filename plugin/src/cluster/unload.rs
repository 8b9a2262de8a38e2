//! Removes the agents' remains from every node: changes their DaemonSet so that its pods remove everything and stay.
//!
//! Waits for the nodes with a pod of the DaemonSet, now or since the start. A node without one has no remains.

use k8s_openapi::{
    api::{
        apps::v1::DaemonSet,
        core::v1::{Event, Pod},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use std::{cell::OnceCell, collections::BTreeSet, time::Duration};
use tokio::time::{Instant, sleep};

/// The interval at which the progress is checked.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// The time limit for errors of the API server: a new account may have no rights for a moment.
const API_TROUBLE: Duration = Duration::from_secs(30);
/// The wait for the first pod of a DaemonSet without pods.
const FIRST_PODS: Duration = Duration::from_secs(20);
/// The number of nodes that an error names.
const MAX_NAMED: usize = 10;
/// The length of an Event's message in an error, in characters.
const REASON: usize = 300;

/// The progress of the removal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Nodes with an agent, now or since the start.
    pub nodes: BTreeSet<String>,
    /// Nodes that are not done.
    pub left: BTreeSet<String>,
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
    #[error("{} of {} nodes are not done after {} s: {}{reason}. Take the rest away there with `meridian agent --unload`; a node that starts again has nothing left. To uninstall without these nodes: helm uninstall --no-hooks", .progress.left.len(), .progress.nodes.len(), .after.as_secs(), named(&.progress.left))]
    Late {
        /// The progress.
        progress: Progress,
        /// The time that has passed.
        after: Duration,
        /// The DaemonSet's last warning, in parentheses; empty if there is none.
        reason: String,
    },
}

/// Changes the DaemonSet and waits until all its nodes are done. Returns how many there are; `None` if there is
/// no DaemonSet.
///
/// # Errors
/// The API server's, or not all nodes are done in time.
pub async fn unload_nodes(
    client: Client,
    namespace: &str,
    name: &str,
    patience: Duration,
    mut report: impl FnMut(&Progress),
) -> Result<Option<usize>, UnloadError> {
    let unloading = Unloading {
        sets: Api::namespaced(client.clone(), namespace),
        pods: Api::namespaced(client.clone(), namespace),
        events: Api::namespaced(client, namespace),
        name,
        uid: OnceCell::new(),
    };
    let (start, mut progress, mut trouble) = (Instant::now(), Progress::default(), None);
    let mut is_changed = false;
    loop {
        let looked = unloading.look(&mut is_changed, &progress).await;
        match looked {
            Ok(RolloutStatus::Gone) => return Ok(None),
            Ok(RolloutStatus::At { now, is_settled }) => {
                trouble = None;
                if now != progress {
                    report(&now);
                }
                progress = now;
                let has_pods = !progress.nodes.is_empty();
                let are_none = || start.elapsed() >= FIRST_PODS;
                if is_settled && progress.left.is_empty() && (has_pods || are_none() || unloading.is_refused().await) {
                    return Ok(Some(progress.nodes.len()));
                }
            }
            Err(UnloadError::Api { name, error }) => {
                if trouble.get_or_insert_with(Instant::now).elapsed() >= API_TROUBLE {
                    return Err(UnloadError::Api { name, error });
                }
                tracing::warn!(%error, "the API server does not answer as it should: tried again");
            }
            Err(error) => return Err(error),
        }
        if start.elapsed() >= patience {
            let reason = unloading.reason().await;
            return Err(UnloadError::Late { progress, after: patience, reason });
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// The result of a check.
enum RolloutStatus {
    /// There is no DaemonSet.
    Gone,
    At {
        now: Progress,
        /// Whether the DaemonSet's controller has seen the change.
        is_settled: bool,
    },
}

struct Unloading<'a> {
    sets: Api<DaemonSet>,
    pods: Api<Pod>,
    events: Api<Event>,
    name: &'a str,
    /// The DaemonSet's: Events of an earlier one of the same name may still be there.
    uid: OnceCell<String>,
}

impl Unloading<'_> {
    /// Lists the pods, then changes the DaemonSet unless that is done: the first list has every node with an agent.
    async fn look(&self, is_changed: &mut bool, before: &Progress) -> Result<RolloutStatus, UnloadError> {
        let failed = |error| UnloadError::Api { name: self.name.to_owned(), error };
        let Some(set) = self.sets.get_opt(self.name).await.map_err(failed)? else { return Ok(RolloutStatus::Gone) };
        self.uid.get_or_init(|| set.metadata.uid.clone().unwrap_or_default());
        let labels = set.spec.selector.match_labels.clone().unwrap_or_default();
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let pods = self.pods.list(&ListParams::default().labels(&labels.join(","))).await.map_err(failed)?;
        let now = progress(&set, &pods.items, &before.nodes);
        if *is_changed {
            return Ok(RolloutStatus::At { is_settled: is_seen(&set), now });
        }
        let patch = self.patch(&set)?;
        // The patch names the container, so the rest of the pod stays.
        self.sets.patch(self.name, &PatchParams::default(), &Patch::Strategic(&patch)).await.map_err(failed)?;
        *is_changed = true;
        Ok(RolloutStatus::At { is_settled: false, now })
    }

    fn patch(&self, set: &DaemonSet) -> Result<serde_json::Value, UnloadError> {
        let mut args = agent_args(set.spec.template.spec.as_ref())
            .ok_or_else(|| UnloadError::Foreign(self.name.to_owned()))?
            .to_vec();
        for flag in ["--unload", "--stay"] {
            if !args.iter().any(|arg| arg == flag) {
                args.push(flag.to_owned());
            }
        }
        let container = json!({"name": "agent", "args": args});
        Ok(json!({"spec": {
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%", "maxSurge": 0}},
            "template": {"spec": {"containers": [container]}},
        }}))
    }

    /// Warning Events of the DaemonSet, oldest first.
    async fn warnings(&self) -> Vec<Event> {
        let Some(uid) = self.uid.get() else { return Vec::new() };
        let about = format!("involvedObject.uid={uid},type=Warning");
        let listed = self.events.list(&ListParams::default().fields(&about)).await;
        let mut events = listed.map(|list| list.items).unwrap_or_default();
        events.sort_by_key(|event| {
            let last = event.last_timestamp.as_ref().map(|time| time.0);
            last.or_else(|| event.event_time.as_ref().map(|time| time.0))
        });
        events
    }

    /// Whether pods of the DaemonSet were refused.
    async fn is_refused(&self) -> bool {
        self.warnings().await.iter().any(|event| event.reason.as_deref() == Some("FailedCreate"))
    }

    /// The DaemonSet's last warning, for people.
    async fn reason(&self) -> String {
        let last = self.warnings().await.pop().and_then(|event| event.message);
        let text = |message: String| message.chars().filter(|c| !c.is_control()).take(REASON).collect::<String>();
        last.map(|message| format!(" ({})", text(message))).unwrap_or_default()
    }
}

/// The arguments of the agents' container.
fn agent_args(pod: Option<&k8s_openapi::api::core::v1::PodSpec>) -> Option<&[String]> {
    pod?.containers.iter().find(|container| container.name == "agent")?.args.as_deref()
}

/// Whether the DaemonSet's controller has seen the newest change.
fn is_seen(set: &DaemonSet) -> bool {
    set.status.as_ref().is_some_and(|status| status.observed_generation >= set.metadata.generation)
}

fn progress(set: &DaemonSet, pods: &[Pod], before: &BTreeSet<String>) -> Progress {
    let is_own = |owner: &OwnerReference| Some(&owner.uid) == set.meta().uid.as_ref();
    let own = pods.iter().filter(|pod| pod.owner_references().iter().any(is_own));
    let placed = own.filter_map(|pod| Some((pod.spec.as_ref()?.node_name.clone()?, pod)));
    let (mut nodes, mut done) = (BTreeSet::new(), BTreeSet::new());
    for (node, pod) in placed {
        if is_done(pod) {
            done.insert(node.clone());
        }
        nodes.insert(node);
    }
    // A node without a pod gets the next one soon, unless the DaemonSet has a pod on every node: then the node is gone.
    let wanted = set.status.as_ref().map_or(0, |status| status.desired_number_scheduled);
    if !is_seen(set) || i64::from(wanted) != nodes.len() as i64 {
        nodes.extend(before.iter().cloned());
    }
    let left = nodes.difference(&done).cloned().collect();
    Progress { nodes, left }
}

/// Whether the pod has removed everything.
fn is_done(pod: &Pod) -> bool {
    let unloads = agent_args(pod.spec.as_ref()).is_some_and(|args| args.iter().any(|arg| arg == "--unload"));
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
    let is_ready = ready.next().is_some_and(|ready| ready.status == "True");
    unloads && is_ready && pod.metadata.deletion_timestamp.is_none()
}

fn named(nodes: &BTreeSet<String>) -> String {
    let names: Vec<&str> = nodes.iter().take(MAX_NAMED).map(String::as_str).collect();
    let others = nodes.len().saturating_sub(MAX_NAMED);
    let rest = if others > 0 { format!(" and {others} more") } else { String::new() };
    format!("{}{rest}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value};

    fn set(generation: i64, seen: i64, wanted: i32) -> DaemonSet {
        let counts = json!({"observedGeneration": seen, "desiredNumberScheduled": wanted,
            "currentNumberScheduled": wanted, "numberMisscheduled": 0, "numberReady": 0});
        from_value(json!({"metadata": {"uid": "u", "generation": generation}, "status": counts})).unwrap()
    }

    fn pod(node: &str, args: &[&str], ready: &str) -> Value {
        json!({
            "metadata": {"ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "a", "uid": "u"}]},
            "spec": {"nodeName": node, "containers": [{"name": "agent", "args": args}]},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        })
    }

    fn names(set: &BTreeSet<String>) -> Vec<&str> {
        set.iter().map(String::as_str).collect()
    }

    #[test]
    fn a_node_is_done_when_its_new_pod_is_ready_and_the_dead_one_is_named() {
        let pods = [
            pod("a", &["agent", "--unload", "--stay"], "True"),
            pod("b", &["agent"], "True"),
            pod("c", &["agent", "--unload", "--stay"], "False"),
        ];
        let mut pods: Vec<Pod> = pods.into_iter().map(|pod| from_value(pod).unwrap()).collect();
        let all = Progress { nodes: ["a", "b", "c"].map(str::to_owned).into(), ..Progress::default() };
        let now = progress(&set(2, 2, 3), &pods, &all.nodes);
        assert_eq!((names(&now.nodes), names(&now.left)), (vec!["a", "b", "c"], vec!["b", "c"]));
        // Between two pods a node has none.
        pods.remove(1);
        assert_eq!(names(&progress(&set(2, 2, 3), &pods, &all.nodes).left), ["b", "c"]);
        // One that is no node any more is not waited for.
        assert_eq!(names(&progress(&set(2, 2, 2), &pods, &all.nodes).left), ["c"]);
        let late = UnloadError::Late { progress: now, after: Duration::from_secs(9), reason: " (why)".into() };
        assert!(late.to_string().starts_with("2 of 3 nodes are not done after 9 s: b, c (why). "), "{late}");
    }

    #[test]
    fn pods_of_others_and_pods_that_go_are_not_done() {
        let mut going = pod("a", &["--unload"], "True");
        going["metadata"]["deletionTimestamp"] = "2026-11-01T00:00:00Z".into();
        let mut foreign = pod("b", &["--unload"], "True");
        foreign["metadata"]["ownerReferences"][0]["uid"] = "v".into();
        let pods: Vec<Pod> = [going, foreign].into_iter().map(|pod| from_value(pod).unwrap()).collect();
        let now = progress(&set(1, 1, 1), &pods, &BTreeSet::new());
        assert_eq!((names(&now.nodes), names(&now.left)), (vec!["a"], vec!["a"]));
        // Where no agent ever ran, nothing is left.
        assert_eq!(progress(&set(1, 1, 3), &[], &BTreeSet::new()), Progress::default());
    }

    #[test]
    fn an_error_names_ten_nodes() {
        let nodes = (10..25).map(|n| format!("n{n}")).collect();
        assert!(named(&nodes).ends_with("n18, n19 and 5 more"), "{}", named(&nodes));
    }
}
