//! Labels of zones and regions.

use super::{sources::node, *};

fn azure(name: &str, zone: &str, region: &str, cidr: &str) -> Value {
    let mut node = node(name, zone, &[cidr], "10.224.0.4");
    node["metadata"]["labels"]["topology.kubernetes.io/region"] = region.into();
    node["spec"]["providerID"] = format!("azure:///subscriptions/s/virtualMachines/{name}").into();
    node["status"] = json!({});
    node
}

#[test]
fn a_fault_domain_of_azure_is_no_zone() {
    let objects = [
        azure("set-0", "0", "westeurope", "10.244.0.0/24"),
        azure("set-1", "1", "westeurope", "10.244.1.0/24"),
        azure("set-2", "2", "", "10.244.2.0/24"),
        azure("zonal", "westeurope-1", "westeurope", "10.244.3.0/24"),
        azure("none", "westeurope-0", "westeurope", "10.244.4.0/24"),
        // Its region has no label, but its zone has one.
        azure("bare", "westeurope-2", "", "10.244.5.0/24"),
    ];
    let mut model = TestModel::of(&objects, true);
    let zones = [0, 1, 2, 3, 4, 5].map(|third| model.zone(&format!("10.244.{third}.9")));
    assert_eq!(zones, ["unknown", "unknown", "unknown", "westeurope-1", "unknown", "westeurope-2"]);
    assert_eq!((model.model.tally().conflicts, model.model.tally().nodes_without_zone), (0, 4));
}

#[test]
fn a_number_is_a_zone_outside_azure() {
    let mut own = azure("own", "1", "dc", "10.244.0.0/24");
    own["spec"]["providerID"] = "vsphere://4212".into();
    let mut none = azure("none", "2", "dc", "10.244.1.0/24");
    none["spec"] = json!({"podCIDRs": ["10.244.1.0/24"]});
    let [mut zero, mut first] =
        [azure("zero", "0", "dc", "10.244.3.0/24"), azure("first", "dc-0", "dc", "10.244.4.0/24")];
    // Other clouds and machines of one's own have zones that look like Azure's fault domains.
    zero["spec"]["providerID"] = "openstack:///7".into();
    first["spec"]["providerID"] = "azurestack-like://7".into();
    let objects = [own, none, azure("named", "azure-fd", "dc", "10.244.2.0/24"), zero, first];
    let mut model = TestModel::of(&objects, true);
    let zones = [0, 1, 2, 3, 4].map(|third| model.zone(&format!("10.244.{third}.9")));
    assert_eq!(zones, ["1", "2", "azure-fd", "0", "dc-0"]);
    // Azure's scheme in other spellings.
    let mut upper = azure("upper", "2", "dc", "10.244.5.0/24");
    upper["spec"]["providerID"] = " Azure:///subscriptions/s/virtualMachines/upper".into();
    model.read(&upper);
    assert_eq!(model.zone("10.244.5.9"), "unknown");
}

#[test]
fn a_region_that_only_some_nodes_name_is_that_of_the_zone() {
    let objects = [
        azure("n1", "eu-1a", "eu-1", "10.0.1.0/24"),
        azure("n2", "eu-1a", "", "10.0.2.0/24"),
        azure("n3", "eu-1b", "", "10.0.3.0/24"),
    ];
    for is_forwards in [true, false] {
        let mut model = TestModel::of(&objects, is_forwards);
        let regions = [1, 2, 3].map(|third| model.region(&format!("10.0.{third}.9")));
        assert_eq!(regions, ["eu-1", "eu-1", ""]);
        assert_eq!(model.notices(), []);
        // The static table also names regions.
        model.fixed("zones: [{name: eu-1b, region: eu-1, cidrs: [10.9.0.0/24]}]\n");
        assert_eq!(model.region("10.0.3.9"), "eu-1");
        // The node that named the region is deleted.
        model.model.remove(Kind::Node, &key("", "n1"));
        assert_eq!(model.region("10.0.2.9"), "");
    }
}

#[test]
fn a_zone_in_two_regions_is_reported_and_a_missing_region_is_not() {
    let mut model = TestModel::of(&[azure("n1", "eu-1a", "eu-1", "10.0.1.0/24")], true);
    model.read(&azure("n2", "eu-1a", "", "10.0.2.0/24"));
    assert_eq!(model.notices(), []);
    model.read(&azure("n3", "eu-1a", "eu-2", "10.0.3.0/24"));
    assert_eq!(model.region("10.0.2.9"), "", "it is not known which of the two");
    let notices = model.notices();
    assert_eq!((notices.len(), notices[0].0), (1, "ZoneInTwoRegions"));
    assert!(notices[0].1.contains("eu-2 here and in eu-1 at other nodes"), "{}", notices[0].1);
}

#[test]
fn a_node_that_the_cloud_may_still_label_is_no_matter() {
    let now = SystemTime::now();
    let unlabelled = |name: &str, changes: Value| {
        let mut node =
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {}, "status": {}});
        let object = node.as_object_mut().unwrap();
        object.extend(changes.as_object().unwrap().clone());
        node
    };
    let taint = |key: &str| json!({"spec": {"taints": [{"key": key, "effect": "NoSchedule"}]}});
    let mut model = TestModel::default();
    model.read(&unlabelled("waits", taint("node.cloudprovider.kubernetes.io/uninitialized")));
    model.read(&unlabelled("new", json!({})));
    model.read(&unlabelled("virtual", taint("virtual-kubelet.io/provider")));
    let old = json!({"metadata": {"name": "old", "creationTimestamp": "2026-01-01T00:00:00Z"}});
    model.read(&unlabelled("old", old));
    model.read(&azure("fault", "1", "westeurope", "10.0.1.0/24"));
    model.read(&node("lost", "eu-1a", &[], "10.0.0.7"));
    model.read(&node("lost", "", &[], "10.0.0.7"));
    let notices = |model: &mut TestModel, after: u64| -> Vec<String> {
        let notices = model.model.take_notices(now + Duration::from_secs(after));
        notices.iter().map(|notice| notice.object.to_string()).collect()
    };
    assert_eq!(notices(&mut model, 0), ["Node fault", "Node lost", "Node old"]);
    assert_eq!((model.model.tally().conflicts, model.model.tally().nodes_without_zone), (0, 6));
    assert!(notices(&mut model, 60).is_empty());
    assert_eq!(notices(&mut model, 180), ["Node new"]);
    assert!(notices(&mut model, 7200).is_empty());
    // The cloud provider has initialized the node, with a zone.
    model.read(&node("waits", "eu-1b", &[], "10.0.0.8"));
    assert!(notices(&mut model, 7300).is_empty());
    assert_eq!((model.model.tally().conflicts, model.model.tally().nodes_without_zone), (0, 5));
}

#[test]
fn a_node_with_only_the_former_labels_is_where_those_say() {
    let labelled = |name: &str, third: u8, labels: Value| {
        let mut node = node(name, "", &[&format!("10.244.{third}.0/24")], "");
        node["metadata"]["labels"] = labels;
        node
    };
    let (zone, region) = ("failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region");
    let objects = [
        labelled("old", 0, json!({zone: "eu-1a", region: "eu-1"})),
        labelled("empty", 1, json!({zone: "eu-1b", "topology.kubernetes.io/zone": ""})),
        labelled("both", 2, json!({zone: "eu-1a", "topology.kubernetes.io/zone": "eu-1c"})),
        labelled("other", 3, json!({"failure-domain.kubernetes.io/zone": "eu-1d"})),
    ];
    let mut model = TestModel::of(&objects, true);
    let zones = [0, 1, 2, 3].map(|third| model.zone(&format!("10.244.{third}.9")));
    assert_eq!(zones, ["eu-1a", "eu-1b", "eu-1c", "unknown"]);
    let place = model.table[&"10.244.0.0/24".parse().unwrap()].place.clone();
    assert_eq!(place.zone().unwrap().region, "eu-1");
    assert_eq!(model.model.tally().nodes_without_zone, 1);
}
