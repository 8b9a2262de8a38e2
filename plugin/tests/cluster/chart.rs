//! The chart: installed, upgraded and uninstalled by real helm versions, with a real API server. The test itself acts
//! as kubelet and as the controllers of DaemonSets and Jobs, which are missing.

use crate::{
    common::programs::program,
    common::{CommandOutput, meridian},
    lab::{CONTROLLER, Lab, inside, until},
    objects::Object,
};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    batch::v1::Job,
    coordination::v1::Lease,
    core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    scheduling::v1::PriorityClass,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    thread::{self, JoinHandle},
    time::SystemTime,
};

const NAMESPACE: &str = "zones";
const AGENTS: &str = "meridian-agent";
const UNINSTALL: &str = "meridian-uninstall";

/// The helm programs that MERIDIAN_HELM names.
fn helms() -> Vec<PathBuf> {
    env::split_paths(&program("MERIDIAN_HELM")).collect()
}

/// Runs a helm command on its own thread.
fn helm(helm: &Path, lab: &Lab, args: &[&str]) -> JoinHandle<CommandOutput> {
    let mut command = Command::new(helm);
    command.args(args).args(["--namespace", NAMESPACE]).env("KUBECONFIG", &lab.kubeconfig);
    command.env("HOME", lab.folder.as_ref());
    thread::spawn(move || command.output().unwrap().into())
}

async fn done(helm: JoinHandle<CommandOutput>) -> CommandOutput {
    until("helm", async || helm.is_finished().then_some(())).await;
    let output = helm.join().unwrap();
    assert_eq!(output.code, Some(0), "{output:?}");
    output
}

fn here<K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>>(client: &Client) -> Api<K> {
    Api::namespaced(client.clone(), NAMESPACE)
}

/// The names of all objects that the chart has made.
async fn made(client: &Client) -> Vec<String> {
    let of_chart = ListParams::default().labels("app.kubernetes.io/name=meridian");
    let mut names = Vec::new();
    macro_rules! list {
        ($($api:expr => $kind:ty),*) => {
            $(
                let found: Api<$kind> = $api;
                let found = found.list(&of_chart).await.unwrap();
                let kind = stringify!($kind);
                names.extend(found.items.into_iter().map(|it| format!("{kind} {}", it.metadata.name.unwrap())));
            )*
        };
    }
    list!(
        here(client) => ConfigMap, here(client) => DaemonSet, here(client) => Deployment, here(client) => Job,
        here(client) => Lease, here(client) => NetworkPolicy, here(client) => PodDisruptionBudget, here(client) => Role, here(client) => RoleBinding,
        here(client) => Secret, here(client) => Service, here(client) => ServiceAccount,
        Api::all(client.clone()) => ClusterRole, Api::all(client.clone()) => ClusterRoleBinding,
        Api::all(client.clone()) => PriorityClass
    );
    names.sort();
    names
}

const MADE: [&str; 22] = [
    "ClusterRole meridian-controller",
    "ClusterRoleBinding meridian-controller",
    "ConfigMap meridian-agent",
    "ConfigMap meridian-relay",
    "ConfigMap meridian-zones",
    "DaemonSet meridian-agent",
    "Deployment meridian-controller",
    "Deployment meridian-relay",
    "Lease meridian-controller",
    "NetworkPolicy meridian-controller",
    "NetworkPolicy meridian-relay",
    "PodDisruptionBudget meridian-controller",
    "PriorityClass meridian-agent",
    "Role meridian-controller",
    "RoleBinding meridian-controller",
    "Secret meridian-controller-tls",
    "Secret meridian-hubble-tls",
    "Secret meridian-relay-tls",
    "Service meridian-controller",
    "Service meridian-relay",
    "ServiceAccount meridian-agent",
    "ServiceAccount meridian-controller",
];

#[test]
#[ignore = "needs the program of conformance/cluster: scripts/test.sh cluster"]
fn the_chart_is_installed_upgraded_and_leaves_nothing() {
    let helms = helms();
    inside("chart", async |lab: &mut Lab| {
        // The lab's own objects would conflict.
        lab.forget(&Object::role(CONTROLLER, json!([]))).await;
        lab.forget(&Object::role_binding(CONTROLLER, json!([]))).await;
        for helm in helms {
            comes_and_goes(lab, &helm).await;
        }
    });
}

async fn comes_and_goes(lab: &Lab, program: &Path) {
    let client = &lab.client;
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../helm/meridian");
    let values = [
        ["--set", "image.repository=registry.example.com/meridian"],
        ["--set", "relay.enabled=true"],
        ["--set-json", r#"hubble.flowLogs=[{"name":"all","filePath":"stdout"}]"#],
        [
            "--set-json",
            r#"staticTable={"zones":[{"name":"a","region":"r"}],"external":[{"name":"db","cidr":"10.9.8.0/24","zone":"a","class":"database"}]}"#,
        ],
    ];
    let mut args = vec!["install", "meridian", chart, "--create-namespace"];
    args.extend(values.concat());
    let output = done(helm(program, lab, &args)).await;
    assert!(output.stdout.contains("rollout status daemonset/meridian-agent"), "{output:?}");
    assert_eq!(made(client).await, MADE);
    is_good(client).await;

    // An upgrade changes the requested values, and keeps the certificate.
    let agents: Api<DaemonSet> = here(client);
    let secrets: Api<Secret> = here(client);
    let before = (agents.get(AGENTS).await.unwrap(), secrets.get("meridian-controller-tls").await.unwrap().data);
    args[0] = "upgrade";
    args[3] = "--reuse-values";
    args.extend(["--set", "agent.hook=tcx"]);
    done(helm(program, lab, &args)).await;
    let after = (agents.get(AGENTS).await.unwrap(), secrets.get("meridian-controller-tls").await.unwrap().data);
    assert_eq!(before.1, after.1, "the certificate stays");
    assert_ne!(before.0.spec.template, after.0.spec.template, "agents take the new configuration");
    is_good(client).await;

    // Before an uninstall, the chart's Job removes the agents' remains from the nodes.
    let going = helm(program, lab, &["uninstall", "meridian"]);
    let jobs: Api<Job> = here(client);
    let job = until("the Job", async || jobs.get_opt(UNINSTALL).await.unwrap()).await;
    status(
        &agents,
        json!({"observedGeneration": after.0.metadata.generation, "desiredNumberScheduled": 3,
        "currentNumberScheduled": 3, "updatedNumberScheduled": 3, "numberReady": 3, "numberMisscheduled": 0}),
    )
    .await;
    let nodes = ["node-a", "node-b", "node-c"];
    for node in nodes {
        pod(client, &after.0, node).await;
    }
    let job = job.spec.unwrap();
    // helm waits for five minutes, and gets the reason of the failure before that.
    assert_eq!(job.active_deadline_seconds, Some(270));
    let spec = job.template.spec.unwrap();
    let mut command = meridian(&[]);
    command.args(spec.containers[0].args.clone().unwrap());
    command.env("MERIDIAN_KUBECONFIG", lab.kubeconfig_in(NAMESPACE, &spec.service_account_name.unwrap()).await);
    let unloads = thread::spawn(move || CommandOutput::from(command.output().unwrap()));
    let args = |set: &DaemonSet| set.spec.template.spec.as_ref().unwrap().containers[0].args.clone().unwrap();
    let changed = until("the agents' new task", async || {
        let set = agents.get(AGENTS).await.unwrap();
        args(&set).ends_with(&["--unload".into(), "--stay".into()]).then_some(set)
    })
    .await;
    assert_eq!(args(&changed)[..3], ["agent", "--config", "/etc/meridian/agent.yaml"]);
    assert!(!unloads.is_finished());
    // As their controller does it: one node after another has the new pod.
    status(&agents, json!({"observedGeneration": changed.metadata.generation, "updatedNumberScheduled": 3})).await;
    for node in nodes {
        assert!(!unloads.is_finished());
        pod(client, &changed, node).await;
    }
    until("its end", async || unloads.is_finished().then_some(())).await;
    let output = unloads.join().unwrap();
    assert_eq!((output.code, output.stdout.as_str()), (Some(0), "nothing is left on 3 nodes\n"), "{output:?}");
    let now = jiff::Timestamp::try_from(SystemTime::now()).unwrap().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition =
        |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now, "lastProbeTime": now});
    let finished = |conditions: Value| {
        json!({"startTime": now, "completionTime": now, "succeeded": 1, "ready": 0, "terminating": 0,
            "uncountedTerminatedPods": {}, "conditions": conditions})
    };
    status(&jobs, finished(json!([condition("SuccessCriteriaMet"), condition("Complete")]))).await;
    done(going).await;
    assert_eq!(made(client).await, Vec::<String>::new());
    // As the collector of garbage does it.
    let pods: Api<Pod> = here(client);
    let now_gone = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    pods.delete_collection(&now_gone, &ListParams::default()).await.unwrap();
}

/// A pod of the agents on a node, ready, in place of the one that is there.
async fn pod(client: &Client, set: &DaemonSet, node: &str) {
    let pods: Api<Pod> = here(client);
    let name = format!("{AGENTS}-{node}");
    let now_gone = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    let _ = pods.delete(&name, &now_gone).await;
    let template = serde_json::to_value(&set.spec.template).unwrap();
    let mut spec = template["spec"].clone();
    spec["nodeName"] = node.into();
    // There is no admission that makes a class a number.
    let owner = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": AGENTS, "uid": set.metadata.uid});
    let metadata = json!({"name": name, "labels": template["metadata"]["labels"], "ownerReferences": [owner]});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(&ready)).await.unwrap();
}

async fn status<K>(api: &Api<K>, status: Value)
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let name = if std::any::type_name::<K>().ends_with("Job") { UNINSTALL } else { AGENTS };
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&json!({ "status": status }))).await.unwrap();
}

/// The agents' configuration in the chart is valid.
async fn is_good(client: &Client) {
    let maps: Api<ConfigMap> = here(client);
    let data = maps.get("meridian-agent").await.unwrap().data.unwrap();
    let folder = crate::common::Scratch::new("chart-config");
    for (name, text) in &data {
        folder.file(name, text.as_bytes());
    }
    let file = folder.as_ref().join("agent.yaml");
    let output = crate::common::run(&["config", "check", file.to_str().unwrap()]);
    assert!(output.code == Some(0) && output.stdout.contains("flow-logs.yaml: good, 1 flow logs"), "{output:?}");
    let data = maps.get("meridian-zones").await.unwrap().data.unwrap();
    let zones = folder.file("zones.yaml", data["zones.yaml"].as_bytes());
    let output = crate::common::run(&["zones", "list", "--zones-file", zones.to_str().unwrap()]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stdout.contains("10.9.8.0/24"), "{output:?}");
    // The chart uses only existing flags of the controller.
    let deployments: Api<Deployment> = here(client);
    let deployment = deployments.get("meridian-controller").await.unwrap();
    let spec = serde_json::to_value(&deployment.spec).unwrap();
    let args: Vec<String> = serde_json::from_value(spec["template"]["spec"]["containers"][0]["args"].clone()).unwrap();
    let mut command = meridian(&[]);
    // The controller gets as far as the certificate, which is missing here.
    command.args(
        args.iter().map(|arg| {
            arg.replace("$(POD_IP)", "10.0.0.1").replace("/etc/meridian/zones.yaml", zones.to_str().unwrap())
        }),
    );
    let output = CommandOutput::from(command.output().unwrap());
    assert!(output.code == Some(2) && output.stderr.contains("/tls/tls.crt"), "{output:?}");
}
