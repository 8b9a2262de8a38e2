//! No text for a person grows with the number of nodes.

use super::{
    sources::{node, pod},
    *,
};

/// A cluster of this many nodes with every trouble that notices report.
fn troubled(nodes: usize) -> Vec<Value> {
    let zones = ["eu-1a", "eu-1b", "eu-1c"];
    let mut objects = Vec::new();
    for index in 0..nodes {
        let name = format!("n-{index:05}");
        // One address and one prefix of them all, and a prefix that can't be read.
        let mut node = node(&name, zones[index % 3], &["10.244.0.0/24", "nonsense"], "10.0.2.15");
        node["metadata"]["labels"]["topology.kubernetes.io/region"] = format!("eu-{}", index % 50).into();
        if index % 7 == 0 {
            node["metadata"]["labels"] = json!({});
        }
        if index % 11 == 0 {
            node["metadata"]["labels"]["type"] = "virtual-kubelet".into();
        }
        objects.push(node);
        objects.push(pod(&format!("p-{index:05}"), &name, &["10.0.9.9"]));
    }
    objects
}

/// The longest message and the longest origin in the table, each with its length.
fn longest(nodes: usize) -> [(usize, String); 2] {
    let mut model = TestModel::default();
    model.fixed("zones: [{name: eu-1z, region: eu-9, cidrs: [10.0.0.0/16]}]\n");
    // In the order of arrival: each may add a notice.
    let mut messages: Vec<String> = Vec::new();
    for object in troubled(nodes) {
        model.read(&object);
        messages.extend(model.notices().into_iter().map(|(_, message)| message));
    }
    for reason in ["different zones", "static table", "can't be", "has no zone", "in region"] {
        assert!(messages.iter().any(|message| message.contains(reason)), "no message with `{reason}`");
    }
    let origins = model.table.values().map(|placement| placement.origin.to_string());
    let longest = |texts: Vec<String>| texts.into_iter().map(|text| (text.len(), text)).max().unwrap();
    [longest(messages), longest(origins.collect())]
}

#[test]
fn messages_and_origins_do_not_grow_with_the_number_of_nodes() {
    // Twice the digits of a number are all that may come with ten times the nodes.
    const NUMBERS: usize = 8;
    for ((few, _), (many, text)) in longest(60).into_iter().zip(longest(600)) {
        assert!(many <= few + NUMBERS && many < 400, "{few} characters for 60 nodes, {many} for 600: {text}");
    }
}
