//! The demo inside this process: every output must equal the traffic on the wire.

use crate::programs::program;
use meridian::{
    api::{Client, CountersService, Target, ZonesService},
    cost::PriceTable,
    datapath::{Datapath, Device, Devices, Hook, Options},
    demo::{Demo, topology::NodeNet},
    export::{Output, PairLog},
    flows::{Ring, Sink},
    grpc::{self, Services},
    historian::Historian,
    hubble,
    metrics::{self, Families, Nodes, Page},
    proto::{
        flow::{Endpoint, Flow},
        v1::WatchRequest,
    },
    zones::{Matrix, Pair, SharedTable, Slots},
};
use meridian_abi::{Counter, stats::Stat};
use prost::Message;
use prost_types::{Struct, value::Kind};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    sync::Arc,
    thread,
    time::Duration,
};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

/// Bytes and packets by a text key.
type Sums = BTreeMap<String, (u64, u64)>;

fn add(sums: &mut Sums, key: &str, bytes: u64, packets: u64) {
    if packets > 0 {
        let sum = sums.entry(key.to_owned()).or_default();
        *sum = (sum.0 + bytes, sum.1 + packets);
    }
}

fn only(sums: &Sums, keys: &[&str]) -> Sums {
    sums.iter().filter(|(key, _)| keys.contains(&key.as_str())).map(|(key, sum)| (key.clone(), *sum)).collect()
}

/// The locality, bytes and packets in an update; zeros for the event of a single packet.
fn reported(flow: &Flow) -> (String, u64, u64) {
    let extensions = Struct::decode(flow.extensions.as_ref().unwrap().value.as_slice()).unwrap();
    let number = |key: &str| match extensions.fields.get(key).map(|value| value.kind.as_ref()) {
        Some(Some(Kind::NumberValue(number))) => *number as u64,
        None => 0,
        other => panic!("{other:?}"),
    };
    match &extensions.fields["locality"].kind {
        Some(Kind::StringValue(locality)) => (locality.clone(), number("bytes"), number("packets")),
        other => panic!("{other:?}"),
    }
}

fn history() -> Arc<Historian> {
    Arc::new(Historian::in_memory(PriceTable::default(), meridian::historian::second()))
}

#[test]
fn the_kernel_the_wire_and_every_output_have_the_same_bytes() {
    for hook in Hook::ALL {
        let sink = Sink::new(Arc::new(Ring::new(65_535)));
        let mut demo = Demo::start(hook, &sink, history()).unwrap();
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(500));
            demo.drain_events();
            demo.drain().unwrap();
        }
        let report = demo.finish().unwrap();
        assert!(report.is_exact(), "{hook}:\n{}", report.table());
        has_every_expected_case(&demo, hook);

        let json: Value = serde_json::from_str(&report.json().unwrap()).unwrap();
        assert_eq!(json["hook"], hook.name());
        let mut truth = Sums::new();
        for cell in json["sent"].as_array().unwrap() {
            let number = |key: &str| cell[key].as_u64().unwrap();
            add(&mut truth, cell["locality"].as_str().unwrap(), number("bytes"), number("packets"));
        }
        assert_eq!(json["attributed_bytes"].as_u64().unwrap(), truth.values().map(|(bytes, _)| bytes).sum::<u64>());

        check_flows(&sink.ring, hook, &truth);
        check_pair_log(&demo, &truth);
        check_servers(&demo, &sink, &truth);
        check_bpftool(&demo, &json);
    }
}

fn has_every_expected_case(demo: &Demo, hook: Hook) {
    let packets = |stat| demo.stat(stat).unwrap().packets;
    assert!(packets(Stat::SuperPacket) > 100, "{hook}: without super-packets segmentation was not tested");
    assert!(packets(Stat::LinkScoped) > 10, "{hook}: neighbour discovery and MLD must have gone on");
    // Only netfilter sees arriving packets and packets from pod to pod.
    assert_eq!(packets(Stat::Delivered) > 100, hook == Hook::Netfilter);
    for stat in [
        Stat::SameNode,
        Stat::Malformed,
        Stat::Unattributed,
        Stat::NoPorts,
        Stat::OddGso,
        Stat::Fragmented,
        Stat::EventWithheld,
        Stat::EventLost,
    ] {
        assert_eq!(packets(stat), 0, "{hook}: {}", stat.name());
    }
}

#[expect(deprecated, reason = "Summary is what clients show")]
fn check_flows(ring: &Ring, hook: Hook, truth: &Sums) {
    let flows: Vec<Flow> = ring
        .batches()
        .flat_map(|batch| batch.flows().map(meridian::flows::Encoded::decode).collect::<Vec<_>>())
        .collect();
    assert_eq!(flows.len() as u64, ring.flows_ever(), "none was overwritten");
    // Every connection between pods is announced: its opening, the answer, and the end in both directions. The
    // outsider's connections are left out, because no node counts the packets that it sends.
    let pod = |end: &Option<Endpoint>| end.as_ref().is_some_and(|end| !end.pod_name.is_empty());
    let between_pods = || flows.iter().filter(|flow| pod(&flow.source) && pod(&flow.destination));
    let announced = |flags: &str| between_pods().filter(|flow| flow.summary == format!("TCP Flags: {flags}")).count();
    let opened = announced("SYN");
    assert!(opened > 50);
    assert_eq!(announced("SYN, ACK"), opened, "{hook}");
    let ends = between_pods().filter(|flow| flow.summary.contains("FIN")).count();
    assert!(ends >= 2 * opened, "{hook}: {opened} connections, {ends} ends");
    assert!(flows.is_sorted_by_key(|flow| flow.time.map(|time| (time.seconds, time.nanos))));

    let mut sums = Sums::new();
    for (locality, bytes, packets) in flows.iter().map(reported) {
        add(&mut sums, &locality, bytes, packets);
    }
    assert_eq!(sums, *truth);
}

fn check_pair_log(demo: &Demo, truth: &Sums) {
    let path = std::env::temp_dir().join(format!("meridian-pairs-{}.json", std::process::id()));
    let log = PairLog::start(&Output::File(path.clone()), Duration::from_secs(3600), Arc::default()).unwrap();
    let pairs = demo.take_interval().into_iter().map(|(node, lines)| (node.to_owned(), lines)).collect();
    assert!(log.finish(pairs, Duration::from_secs(60)));
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    let mut sums = Sums::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line["node"].as_str().unwrap().starts_with("node-"));
        for end in ["source", "destination"] {
            assert!(line[end]["pod"].is_string() && line[end]["workload"]["kind"].is_string(), "{line}");
        }
        assert_ne!(line["source"]["zone"], line["destination"]["zone"]);
        let number = |key: &str| line[key].as_u64().unwrap();
        add(&mut sums, line["locality"].as_str().unwrap(), number("bytes"), number("packets"));
    }
    assert_eq!(sums, only(truth, &["cross-zone", "cross-region"]));
}

/// Reads the metrics page over HTTP and Counters over gRPC.
fn check_servers(demo: &Demo, sink: &Sink, truth: &Sums) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let samples = watch::Sender::new(Arc::from(demo.samples().unwrap()));
    let shutdown = CancellationToken::new();
    let bind = || runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let (http, port) = (bind(), bind());
    let (http_at, port_at) = (http.local_addr().unwrap(), port.local_addr().unwrap());
    let nodes = Nodes { samples: samples.subscribe(), families: Families { pods: true, ..Families::default() } };
    let page = Page::default().with(nodes).with(Arc::clone(&sink.ring));
    let table = SharedTable::default();
    *table.write() = Demo::table().unwrap().zones;
    let services = Services {
        observer: Arc::new(hubble::Server::new(sink.clone(), Vec::new(), shutdown.clone())),
        peers: None,
        own: Some((
            Arc::new(CountersService::new(samples.subscribe(), shutdown.clone())),
            Arc::new(ZonesService { table, index: Arc::default() }),
        )),
        backlog: grpc::backlog(),
        requests: grpc::requests(),
    };
    runtime.spawn(metrics::serve(page, http, shutdown.clone()));
    runtime.spawn(grpc::serve(services, Some(port), None, None, shutdown.clone()));

    let mut stream = TcpStream::connect(http_at).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    check_page(&page, truth);

    runtime.block_on(async {
        let client = Client::connect(Target::Tcp(port_at.to_string())).await.unwrap();
        for limit in [1000, 3] {
            let mut answers = client.watch(WatchRequest { interval: None, pairs: limit }).await.unwrap();
            let answer = answers.next().await.unwrap().unwrap();
            let (mut zones, mut pairs) = (Sums::new(), Sums::new());
            for zone in &answer.zones {
                let counter = zone.counter.unwrap();
                add(&mut zones, &zone.locality, counter.bytes, counter.packets);
            }
            assert_eq!(zones, *truth);
            for pair in &answer.pairs {
                let counter = pair.counter.unwrap();
                add(&mut pairs, &pair.locality, counter.bytes, counter.packets);
            }
            assert_eq!(answer.nodes, ["node-1", "node-2", "node-3", "node-4"]);
            let other = answer.other_pairs.unwrap();
            if limit == 1000 {
                assert_eq!((pairs, other.bytes), (truth.clone(), 0));
            } else {
                assert_eq!(answer.pairs.len(), 3);
                let sum = |sums: &Sums| sums.values().fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
                let (listed, all) = (sum(&pairs), sum(truth));
                assert_eq!((listed.0 + other.bytes, listed.1 + other.packets), all);
            }
        }
        let prefix = client.lookup("10.244.3.10".into()).await.unwrap().unwrap().prefix.unwrap();
        assert_eq!((prefix.cidr.as_str(), prefix.zone.as_str()), ("10.244.3.0/24", "eu-1b"));
    });
    shutdown.cancel();
}

fn check_page(page: &str, truth: &Sums) {
    let series = |name: &str| -> Vec<(String, u64)> {
        let start = format!("{name}{{");
        let lines = page.lines().filter_map(|line| line.strip_prefix(&start)?.rsplit_once("} "));
        lines.map(|(labels, value)| (labels.to_owned(), value.parse().unwrap())).collect()
    };
    let label = |labels: &str, name: &str| {
        let (_, rest) = labels.split_once(&format!("{name}=\"")).unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    };
    for family in ["zone", "workload", "pod"] {
        let mut sums = Sums::new();
        for (labels, bytes) in series(&format!("meridian_{family}_bytes_total")) {
            sums.entry(label(&labels, "locality")).or_default().0 += bytes;
        }
        for (labels, packets) in series(&format!("meridian_{family}_packets_total")) {
            sums.entry(label(&labels, "locality")).or_default().1 += packets;
        }
        assert_eq!(sums, *truth, "{family}");
    }
    let bytes = |locality: &str| truth.get(locality).map_or(0, |(bytes, _)| *bytes);
    let kubezonnet: u64 = series("pod_cross_zone_network_traffic_bytes_total").iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(kubezonnet, bytes("cross-zone") + bytes("cross-region"));
    let opencost = |class: &str| -> u64 {
        let of_class = series("kubecost_pod_network_egress_bytes_total");
        of_class.iter().filter(|(labels, _)| labels.ends_with(class)).map(|(_, bytes)| bytes).sum()
    };
    assert_eq!(opencost(r#"internet="false",same_zone="true",same_region="true""#), bytes("same-zone"));
    assert_eq!(opencost(r#"internet="false",same_zone="false",same_region="true""#), bytes("cross-zone"));
    assert_eq!(opencost(r#"internet="false",same_zone="false",same_region="false""#), bytes("cross-region"));
    assert_eq!(opencost(""), bytes("same-zone") + bytes("cross-zone") + bytes("cross-region"), "unknown is in none");
}

/// ZONE_MATRIX of every node, read by bpftool as docs/maps.md describes, without our code.
fn check_bpftool(demo: &Demo, report: &Value) {
    let bpftool = program("MERIDIAN_BPFTOOL");
    let zones = ["unknown", "internet", "eu-1a", "eu-1b", "eu-2a"];
    let mut read: BTreeMap<(String, String, u64), (u64, u64)> = BTreeMap::new();
    for id in demo.matrix_ids().unwrap() {
        for (index, bytes, packets) in dump(Path::new(&bpftool), id) {
            let slots = 32;
            let (plane, source, destination) = (index / slots / slots, index / slots % slots, index % slots);
            assert!(plane < 2, "everything leaves");
            let zone = |slot: u64| zones[slot as usize].to_owned();
            let sum = read.entry((zone(source), zone(destination), [4, 6][plane as usize])).or_default();
            *sum = (sum.0 + bytes, sum.1 + packets);
        }
    }
    let cell = |cell: &Value| {
        let (text, number) =
            (|key: &str| cell[key].as_str().unwrap().to_owned(), |key: &str| cell[key].as_u64().unwrap());
        let key = (text("source_zone"), text("destination_zone"), number("ip_version"));
        (key, (number("bytes"), number("packets")))
    };
    let expected: BTreeMap<_, _> = report["sent"].as_array().unwrap().iter().map(cell).collect();
    assert_eq!(read, expected);
}

/// The non-zero cells of a map: index, bytes, packets.
fn dump(bpftool: &Path, id: u32) -> Vec<(u64, u64, u64)> {
    let output = Command::new(bpftool).args(["-j", "map", "dump", "id", &id.to_string()]).output().unwrap();
    let cells: Value = serde_json::from_slice(&output.stdout).unwrap();
    let bytes = |value: &Value| -> Vec<u8> {
        let hex = value.as_array().unwrap().iter();
        hex.map(|byte| u8::from_str_radix(byte.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()).collect()
    };
    let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().unwrap());
    let cell = |cell: &Value| {
        let index = u64::from(u32::from_ne_bytes(bytes(&cell["key"]).try_into().unwrap()));
        let cpus = cell["values"].as_array().unwrap().iter().map(|cpu| bytes(&cpu["value"]));
        let sum = cpus.fold((0, 0), |sum, cpu| (sum.0 + word(&cpu[..8]), sum.1 + word(&cpu[8..])));
        (index, sum.0, sum.1)
    };
    cells.as_array().unwrap().iter().map(cell).filter(|(_, _, packets)| *packets > 0).collect()
}

#[test]
fn the_hooks_count_the_same_of_the_same_traffic() {
    let sink = Sink::new(Arc::new(Ring::new(63)));
    let mut demo = Demo::start(Hook::Netfilter, &sink, history()).unwrap();
    demo.finish().unwrap();
    // While the traffic rests, the two other hooks are attached; they see the packets from here on.
    let table = Demo::table().unwrap().zones;
    let mut slots = Slots::default();
    slots.assign(table.placements());
    let attach = |hook: Hook, node: &NodeNet| {
        let mut datapath = Datapath::load(Options { hook, ..Options::default() }).unwrap();
        datapath.set_devices(Devices { devices: vec![Device::uplink(node.uplink)], ..Devices::default() }).unwrap();
        datapath.apply_zones(&table, table.networks(), &slots).unwrap();
        node.namespace.run(|| datapath.attach()).unwrap().unwrap();
        datapath
    };
    let others = [Hook::Tcx, Hook::Clsact].map(|hook| {
        let datapaths: Vec<Datapath> = demo.nodes().iter().map(|node| attach(hook, node)).collect();
        (hook, datapaths)
    });
    let before = cells(demo.counted().unwrap().cells());
    demo.resume().unwrap();
    thread::sleep(Duration::from_secs(1));
    assert!(demo.finish().unwrap().is_exact());
    let mut netfilter = cells(demo.counted().unwrap().cells());
    for (pair, counter) in before {
        let after = netfilter.get_mut(&pair).unwrap();
        *after = Counter { bytes: after.bytes - counter.bytes, packets: after.packets - counter.packets };
    }
    assert!(netfilter.len() > 15 && netfilter.values().all(|counter| counter.packets > 0));
    for (hook, datapaths) in others {
        let mut matrix = Matrix::default();
        for cell in datapaths.iter().flat_map(|datapath| datapath.matrix().unwrap()) {
            let (source, destination) = (slots.place(cell.source), slots.place(cell.destination));
            matrix.add(Pair { source, destination, version: cell.version, direction: cell.direction }, cell.counter);
        }
        assert_eq!(cells(matrix.cells()), netfilter, "{hook}");
    }
}

fn cells<'a>(cells: impl Iterator<Item = (&'a Pair, Counter)>) -> BTreeMap<Pair, Counter> {
    cells.map(|(pair, counter)| (pair.clone(), counter)).collect()
}
