//! The demo, in this process.

use meridian::{
    agent::Sink,
    datapath::Hook,
    demo::Demo,
    flows::{Namespaces, Ring},
    proto::flow::{Endpoint, Flow},
};
use meridian_abi::stats::Stat;
use prost::Message;
use prost_types::{Struct, value::Kind};
use std::{sync::Arc, thread, time::Duration};

/// What an update tells; the event of a single packet tells none.
fn bytes(flow: &Flow) -> u64 {
    let extensions = Struct::decode(flow.extensions.as_ref().unwrap().value.as_slice()).unwrap();
    match extensions.fields.get("bytes").map(|value| value.kind.as_ref()) {
        Some(Some(Kind::NumberValue(bytes))) => *bytes as u64,
        None => 0,
        other => panic!("{other:?}"),
    }
}

#[test]
#[expect(deprecated, reason = "Summary is what clients show")]
fn what_the_kernel_counts_is_what_the_wire_carries_and_what_the_flows_tell() {
    for hook in Hook::ALL {
        let sink = Sink { ring: Arc::new(Ring::new(65_535)), namespaces: Arc::new(Namespaces::default()) };
        let mut demo = Demo::start(hook, &sink).unwrap();
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(500));
            demo.drain_events();
            demo.drain().unwrap();
        }
        let report = demo.finish().unwrap();
        assert!(report.is_exact(), "{hook}:\n{}", report.table());

        let packets = |stat| demo.stat(stat).unwrap().packets;
        assert!(packets(Stat::SuperPacket) > 100, "{hook}: without super-packets segmentation was not tested");
        assert!(packets(Stat::LinkScoped) > 10, "{hook}: neighbour discovery and MLD must have gone on");
        // Only netfilter sees what arrives, and what goes from pod to pod.
        assert_eq!(packets(Stat::Delivered) > 100, hook == Hook::Netfilter);
        for stat in [Stat::SameNode, Stat::Malformed, Stat::Unattributed, Stat::NoPorts, Stat::OddGso, Stat::Fragmented]
        {
            assert_eq!(packets(stat), 0, "{hook}: {}", stat.name());
        }

        for stat in [Stat::EventWithheld, Stat::EventLost] {
            assert_eq!(packets(stat), 0, "{hook}: {}", stat.name());
        }
        let flows = sink.ring.read(0, usize::MAX);
        assert_eq!(flows.lost, 0);
        // Every connection between pods is announced: its opening, the answer, and the end in both
        // directions. Nobody watches the outsider's side of its own.
        let pod = |end: &Option<Endpoint>| end.as_ref().is_some_and(|end| !end.pod_name.is_empty());
        let between_pods = || flows.flows.iter().filter(|flow| pod(&flow.source) && pod(&flow.destination));
        let announced =
            |flags: &str| between_pods().filter(|flow| flow.summary == format!("TCP Flags: {flags}")).count();
        let opened = announced("SYN");
        assert!(opened > 50);
        assert_eq!(announced("SYN, ACK"), opened, "{hook}");
        let ends = between_pods().filter(|flow| flow.summary.contains("FIN")).count();
        assert!(ends >= 2 * opened, "{hook}: {opened} connections, {ends} ends");
        assert!(flows.flows.is_sorted_by_key(|flow| flow.time.map(|time| (time.seconds, time.nanos))));
        let told: u64 = flows.flows.iter().map(|flow| bytes(flow)).sum();
        let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
        assert_eq!(json["hook"], hook.name());
        assert_eq!(told, json["attributed_bytes"].as_u64().unwrap());
        let counted: u64 = json["matrix"].as_array().unwrap().iter().map(|cell| cell["bytes"].as_u64().unwrap()).sum();
        assert_eq!(told, counted);
    }
}
