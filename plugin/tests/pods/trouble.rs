//! Obstacles to install and uninstall: a namespace that forbids agents, and a dead node.

use crate::{
    life::{NEXT, UNINSTALL, install},
    nodes::cluster::{Cluster, until},
    processes::must_have_left_nothing,
    typist::Typist,
};

/// As README.md has it.
const LABEL: &str = "kubectl label --overwrite namespace meridian pod-security.kubernetes.io/enforce=privileged";

/// In a namespace that enforces the Pod Security standard `baseline` the chart names what is missing, and can be uninstalled
/// without waiting for agents that never ran.
pub fn pod_security(cluster: &Cluster, typist: &mut Typist) {
    cluster.kubectl(&["create", "namespace", "meridian"]);
    cluster.kubectl(&["label", "namespace", "meridian", "pod-security.kubernetes.io/enforce=baseline"]);
    let output = typist.types(crate::life::INSTALL, &[]);
    assert!(output.contains("baseline") && output.contains(LABEL), "{output}");
    until("the DaemonSet's Event", || {
        let events = cluster.get(&["events", "--namespace=meridian", "--field-selector=reason=FailedCreate"]);
        let found = events.iter().any(|event| event["message"].as_str().unwrap_or_default().contains("PodSecurity"));
        found.then_some(())
    });
    typist.types(UNINSTALL, &[]);
    must_have_left_nothing(cluster);
    typist.types(LABEL, &[]);
}

/// A dead node: the Job fails before helm gives up, and names the node; the command in the docs continues.
pub fn dead_node(cluster: &Cluster, typist: &mut Typist) {
    install(cluster, typist, &["--set", "uninstall.timeout=30s", "--set", NEXT]);
    cluster.lose("node-3");
    until("the node is not ready", || (!cluster.is_ready("node-3")).then_some(()));
    let output = typist.output(UNINSTALL, &[]);
    assert!(!output.status.success());
    let output = String::from_utf8_lossy(&output.stderr);
    assert!(output.contains("meridian-uninstall"), "{output}");
    let output = typist.types("kubectl -n meridian logs job/meridian-uninstall", &[]);
    assert!(output.contains("1 of 3 nodes") && output.contains("node-3"), "{output}");
    // It can be tried again, or be done without the node.
    typist.types("helm uninstall meridian --namespace meridian --no-hooks", &[]);
    typist.types("kubectl -n meridian delete job,serviceaccount,role,rolebinding meridian-uninstall", &[]);
    cluster.boot("node-3");
    must_have_left_nothing(cluster);
}
