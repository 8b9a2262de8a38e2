//! The labels of namespaces.

use super::{sources::pod, *};
use crate::identity::{LABEL_BYTES, LABELS};

fn namespace(name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// The pod `shop/a` with these labels.
fn labelled(labels: &Value) -> Value {
    let mut pod = pod("a", "n1", &["10.0.0.1"]);
    pod["metadata"]["labels"] = labels.clone();
    pod
}

/// A model that reads the label `team` of pods and namespaces.
fn model(objects: &[Value]) -> TestModel {
    let team = || vec!["team".to_owned()];
    let mut model = TestModel {
        labels: LabelKeys { pod: team(), namespace: team(), ..LabelKeys::default() },
        ..TestModel::default()
    };
    objects.iter().for_each(|object| model.read(object));
    model
}

fn team(model: &mut TestModel) -> Option<String> {
    model.apply_changes();
    model.identities[&"10.0.0.1".parse().unwrap()].label("team").map(str::to_owned)
}

#[test]
fn a_pod_without_a_label_has_that_of_its_namespace_in_any_order() {
    let objects =
        [namespace("shop", &json!({"team": "red"})), namespace("bank", &json!({"team": "blue"})), labelled(&json!({}))];
    let backwards: Vec<Value> = objects.iter().rev().cloned().collect();
    for objects in [&objects[..], &backwards] {
        assert_eq!(team(&mut model(objects)).as_deref(), Some("red"));
    }
    let own = labelled(&json!({"team": "green"}));
    assert_eq!(team(&mut model(&[objects[0].clone(), own])).as_deref(), Some("green"));
}

#[test]
fn a_namespaces_label_is_followed_until_the_namespace_is_gone() {
    let mut model = model(&[labelled(&json!({})), namespace("shop", &json!({"team": "red", "other": "x"}))]);
    assert_eq!(team(&mut model).as_deref(), Some("red"));
    let kept = &model.identities[&"10.0.0.1".parse().unwrap()].labels;
    assert_eq!(kept.len(), 1, "only chosen labels: {kept:?}");
    model.read(&namespace("shop", &json!({"team": "blue"})));
    assert_eq!(team(&mut model).as_deref(), Some("blue"));
    model.read(&namespace("shop", &json!({})));
    assert_eq!(team(&mut model), None);
    model.read(&namespace("shop", &json!({"team": "red"})));
    model.model.remove(Kind::Namespace, &key("", "shop"));
    assert_eq!(team(&mut model), None);
}

#[test]
fn a_pod_can_not_take_the_place_of_its_namespace() {
    let forged = labelled(&json!({"io.cilium.k8s.namespace.labels.team": "red"}));
    let labels = LabelKeys { pod: vec!["*".to_owned()], ..LabelKeys::default() };
    let mut model = TestModel { labels, ..TestModel::default() };
    model.read(&forged);
    assert_eq!(team(&mut model), None);
}

#[test]
fn labels_of_a_namespace_are_bounded() {
    let keys: Vec<String> = (0..200).map(|n| format!("team-{n}")).collect();
    let labels: BTreeMap<&String, String> = keys.iter().map(|key| (key, "v".repeat(63))).collect();
    let mut model =
        TestModel { labels: LabelKeys { namespace: keys.clone(), ..LabelKeys::default() }, ..TestModel::default() };
    model.read(&namespace("shop", &json!(labels)));
    model.read(&labelled(&json!({})));
    let [(reason, message)] = &model.notices()[..] else { panic!("one notice") };
    assert!(*reason == "Unreadable" && message.len() < 400, "{message}");
    let kept = &model.identities[&"10.0.0.1".parse().unwrap()].labels;
    let bytes: usize = kept.iter().map(|(key, value)| key.len() + value.len()).sum();
    assert!(kept.len() <= LABELS && bytes <= LABEL_BYTES && !kept.is_empty(), "{bytes}");
}
