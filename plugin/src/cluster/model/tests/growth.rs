//! No text for a person grows with the number of nodes, nor does the number of texts beyond a bound.

use super::{
    super::super::{health::Health, notices::Notices},
    sources::{node, pod},
    *,
};

/// A cluster of this many nodes with every trouble that notices report.
fn troubled(nodes: usize) -> Vec<Value> {
    let zones = ["eu-1a", "eu-1b", "eu-1c"];
    let mut objects = Vec::new();
    for index in 0..nodes {
        let name = format!("n-{index:05}");
        // A prefix that two nodes have, as many of them as there are pairs of nodes.
        let of_two = format!("10.{}.{}.0/24", 100 + index / 2 / 256, index / 2 % 256);
        // One address and one prefix of them all, and a prefix that can't be read.
        let mut node = node(&name, zones[index % 3], &["10.244.0.0/24", &of_two, "nonsense"], "10.0.2.15");
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

/// The number of notices that become Events, of those withheld, and the characters of all.
fn written(nodes: usize) -> (usize, u64, usize) {
    let health = Arc::new(Health::default());
    let (notices, mut queue) = Notices::new(Arc::clone(&health));
    let mut model = TestModel::default();
    for batch in troubled(nodes).chunks(50) {
        batch.iter().for_each(|object| model.read(object));
        model.apply_changes();
        notices.report(model.model.take_notices(SystemTime::now() + Duration::from_secs(3600)));
    }
    let mut lengths = Vec::new();
    while let Ok(notice) = queue.try_recv() {
        lengths.push(notice.message.len());
    }
    (lengths.len(), health.withheld().values().sum(), lengths.iter().sum())
}

#[test]
fn three_thousand_troubled_nodes_lead_to_no_more_events_than_three_hundred() {
    let (few, withheld_few, characters_few) = written(300);
    let (many, withheld_many, characters_many) = written(3000);
    assert!(few <= 6 * 33 && many <= 6 * 33, "{few} {many}");
    assert!(characters_many <= characters_few * 11 / 10, "{characters_few} {characters_many}");
    assert!(
        withheld_many > 5 * withheld_few && withheld_few > 100,
        "the rest is counted: {withheld_few} {withheld_many}"
    );
}
