//! Objects with which a tenant could make every agent of the cluster hold too much.

use super::{sources::pod, *};
use crate::identity::{LABEL_BYTES, LABELS, SERVICES};

/// A pod like [`pod`], with this in its metadata.
fn pod_with(name: &str, address: &str, metadata: &[(&str, Value)]) -> Value {
    let mut pod = pod(name, "n1", &[address]);
    for (key, value) in metadata {
        pod["metadata"][*key] = value.clone();
    }
    pod
}

fn endpoint(model: &mut TestModel, address: &str) -> Arc<Endpoint> {
    model.apply_changes();
    Arc::clone(&model.identities[&address.parse().unwrap()])
}

#[test]
fn of_twelve_thousand_labels_a_bounded_number_is_kept_and_the_rest_is_reported() {
    let labels: BTreeMap<String, String> =
        (0..12_000).map(|n| (format!("app.kubernetes.io/{n:05}"), "v".repeat(63))).collect();
    let mut model = TestModel::of(&[pod_with("a", "10.0.0.1", &[("labels", json!(labels))])], true);
    let kept = endpoint(&mut model, "10.0.0.1");
    let bytes: usize = kept.labels.iter().map(|(key, value)| key.len() + value.len()).sum();
    assert!(kept.labels.len() <= LABELS && bytes <= LABEL_BYTES && !kept.labels.is_empty(), "{bytes}");
    let [(reason, message)] = &model.notices()[..] else { panic!("one notice") };
    assert_eq!(*reason, "Unreadable");
    assert!(message.contains("labels") && message.len() < 400, "{message}");
    assert_eq!(model.model.count(Kind::Pod), (1, 1));
}

#[test]
fn an_owner_name_of_megabytes_is_left_out_and_reported_in_a_short_text() {
    let long = "a".repeat(1_400_000);
    let owner = |kind: &str, name: &str, uid: &str| json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": true}]);
    let forms = [owner("Deployment", &long, "u"), owner(&long, "web", "u"), owner("Deployment", "web", &long)];
    for (n, references) in forms.into_iter().enumerate() {
        let mut model = TestModel::of(&[pod_with("a", "10.0.0.1", &[("ownerReferences", references)])], true);
        assert_eq!(endpoint(&mut model, "10.0.0.1").workload, None, "form {n}");
        let notices = model.notices();
        assert!(notices.len() == 1 && notices[0].1.len() < 400, "form {n}: {notices:?}");
    }
}

#[test]
fn of_ten_thousand_services_of_a_pod_a_bounded_number_is_kept_and_counted() {
    let mut model = TestModel::of(&[pod("a", "n1", &["10.0.0.1"])], true);
    for n in 0..10_000 {
        let name = format!("s{n}");
        model.read(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": name},
            "spec": {"clusterIP": "10.1.0.1"},
        }));
        model.read(&json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"namespace": "shop", "name": name, "labels": {"kubernetes.io/service-name": name}},
            "endpoints": [{"addresses": ["10.0.0.1"]}],
        }));
    }
    assert_eq!(endpoint(&mut model, "10.0.0.1").services.len(), SERVICES);
    assert_eq!(model.model.tally().cut_endpoints, 1);
    let pod = key("shop", "a");
    model.model.remove(Kind::Pod, &pod);
    model.apply_changes();
    assert_eq!(model.model.tally().cut_endpoints, 0, "an address that is gone is not cut");
}
