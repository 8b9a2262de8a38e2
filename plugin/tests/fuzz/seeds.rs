//! The inputs with which a corpus begins: what our own processes write, and what users write.

use meridian::{
    history::{Builder, Ends, Server, Span, TransferService, Workload},
    proto::{
        flow::{FlowFilter, HttpHeader, flow_filter::Experimental},
        observer::GetFlowsRequest,
        v1::{
            Counter, End, Endpoint, EndpointName, Line, MirrorResponse, Names, Place, Prefix, ReportRequest,
            SavedCounters, SavedTable, Series, Sums, Update, Zone, ZonePair, mirror_response::Response,
        },
    },
    zones::{self, Location, Provider},
};
use prost::Message;
use std::{io::Read, sync::Arc};

/// The first inputs of a target.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    match target {
        "filters" => filters().iter().map(Message::encode_to_vec).collect(),
        "cel" => texts(&[
            "_flow.uuid == 'u' && _flow.source.namespace.matches('^sh')",
            "_flow.source.labels.exists(l, l == 'k8s:app=cart') || size(_flow.destination.labels) > 3",
            "has(_flow.IP) && _flow.IP.source.startsWith('10.') && _flow.verdict == 1",
            "[1, 2, 3].all(a, a < 4) ? _flow.node_name in ['node-a'] : timestamp('2026-01-01T00:00:00Z') < _flow.time",
        ]),
        "mask" => texts(&["time, source.namespace destination.labels", "l4.TCP.destination_port", "source,,\t"]),
        "zones" => texts(&[
            "zones:\n- {name: eu-1a, region: eu-1, provider: aws, cidrs: [10.0.1.0/24, \"fd00:1::/64\"]}\n\
             endpoints:\n- {ip: 10.0.1.2, namespace: shop, pod: cart-0, workload: {kind: StatefulSet, name: cart}}\n",
            "external:\n- {name: db, zone: eu-1a, region: eu-1, cidrs: [10.9.0.0/16]}\n",
        ]),
        "prices" => vec![include_bytes!("../../src/cost/prices.yaml")[..3000].to_vec(), PRICES.as_bytes().to_vec()],
        "budgets" => texts(&[
            "budgets:\n- {namespace: shop, usd_per_month: \"500\"}\n- {label: team=a, name: a, usd_per_month: \"0.5\"}\n",
        ]),
        "headers" => texts(&["# a tenant\nX-Scope-OrgID: shop\n\nx-other: a b\n", "Authorization: Bearer secret\n"]),
        "settings" => texts(&[
            "node: node-a\nzones_file: zones.yaml\nhook: auto\nhubble: {listen: \":4344\"}\nhttp: {listen: \":9980\"}\n",
            "node: node-a\nstate_dir: /x\nhok: auto\n",
        ]),
        "metrics-file" => texts(&[METRICS]),
        "logs-file" => texts(&[LOGS]),
        "cloud-output" => texts(&[SUBNETS, INSTANCES, MACHINES]),
        "bill" => texts(&[CUR, GCP, "usage_start_time,sku_description\n"]),
        "flow-log" => texts(&[FLOWS, CRI]),
        "history" => vec![body()],
        "feed" => vec![update().encode_to_vec()],
        "report" => vec![report().encode_to_vec()],
        "mirror" => {
            let responses = [Response::Report(report()), Response::Whole(true), Response::IntervalTaken(true)];
            responses.map(|response| MirrorResponse { response: Some(response) }.encode_to_vec()).into()
        }
        "saved-table" => vec![SavedTable { updates: vec![update()], ..SavedTable::default() }.encode_to_vec()],
        "saved-sums" => {
            let series = Series { lines: vec![line()], ..Series::default() };
            let sums = Sums { names: Some(names()), pods: Some(series), ..Sums::default() };
            vec![SavedCounters { sums: Some(sums), ..SavedCounters::default() }.encode_to_vec()]
        }
        other => panic!("{other} has no seeds"),
    }
}

const PRICES: &str = "prices:\n- {provider: aws, from: {region: us-east-1}, to: other-zone, usd_per_gb: \"0.01\"}\n";
const FLOWS: &str = concat!(
    r#"{"flow":{"time":"2026-11-23T10:00:00.123456789Z","verdict":"FORWARDED","IP":{"source":"10.0.0.1"},"#,
    r#""l4":{"TCP":{"source_port":1,"destination_port":80,"flags":{"SYN":true}}},"is_reply":false,"#,
    r#""source":{"namespace":"shop","labels":["a=b"]},"Summary":"TCP Flags: SYN"},"node_name":"n"}"#,
    "\n{\"lost_events\":{\"source\":\"HUBBLE_RING_BUFFER\",\"num_events_lost\":\"7\"}}\n",
);
/// A line that a runtime has cut, a wrapper of a collector, and an object that is no flow.
const CRI: &str = concat!(
    "2026-01-02T03:04:05.1Z stdout P {\"flow\":{\"uuid\":\"a\",\n",
    "2026-01-02T03:04:05.1Z stdout F \"verdict\":\"DROPPED\"}}\n",
    "{\"log\":\"{\\\"flow\\\":{\\\"uuid\\\":\\\"b\\\"}}\\n\",\"stream\":\"stdout\"}\n{\"level\":\"info\"}\n",
);
const METRICS: &str = "metrics:\n- name: drop\n  contextOptions: [{name: labelsContext, values: [source_namespace]}]\n  \
                       includeFilters: [{source_pod: [shop/cart]}, {verdict: [DROPPED]}]\n- name: flow\n";
const LOGS: &str = "flowLogs:\n- {name: all, filePath: stdout, fieldMask: [source.namespace, verdict]}\n- name: drops\n  \
                    filePath: /var/log/drops.log\n  excludeFilters: [{destination_pod: [ingress/]}]\n  \
                    end: \"2026-10-09T23:59:59-07:00\"\n";
const SUBNETS: &str =
    r#"{"Subnets": [{"AvailabilityZone": "us-east-1a", "CidrBlock": "10.0.0.0/20", "SubnetId": "s-1"}]}"#;
const INSTANCES: &str = concat!(
    r#"{"Reservations": [{"Instances": [{"InstanceId": "i-1", "PrivateIpAddress": "10.0.0.7","#,
    r#""Placement": {"AvailabilityZone": "us-east-1a"}, "NetworkInterfaces": [], "State": {"Name": "running"}}]}]}"#,
);
const MACHINES: &str = concat!(
    r#"[{"name": "vm-1", "zone": "https://x/projects/p/zones/us-central1-a", "status": "RUNNING","#,
    r#""networkInterfaces": [{"networkIP": "10.0.0.8"}]}]"#,
);
const CUR: &str = "line_item_usage_start_date,line_item_usage_type,line_item_resource_id,line_item_usage_amount\n\
                   2026-11-01T00:00:00Z,USE1-DataTransfer-Regional-Bytes,i-1,1.5\n";
const GCP: &str = concat!(
    r#"{"sku":{"description":"Network Inter Zone Data Transfer Out"},"usage_start_time":"2026-11-01T00:00:00Z","#,
    r#""usage":{"amount":"1e9","unit":"bytes"},"project":{"id":"p"},"cost_type":"regular"}"#,
    "\n",
);

fn filters() -> Vec<GetFlowsRequest> {
    let filter = FlowFilter {
        source_ip: vec!["10.0.0.0/8".into()],
        source_pod: vec!["shop/cart".into()],
        destination_fqdn: vec!["*.example.com".into()],
        destination_label: vec!["app in (cart, db),zone!=eu".into()],
        source_port: vec!["80".into()],
        verdict: vec![1],
        reply: vec![false],
        node_name: vec!["node-*".into()],
        ..FlowFilter::default()
    };
    let http = FlowFilter {
        http_status_code: vec!["5+".into()],
        http_path: vec!["^/a.*".into()],
        http_header: vec![HttpHeader { key: "k".into(), value: "v".into() }],
        dns_query: vec!["a|b".into()],
        experimental: Some(Experimental { cel_expression: vec!["_flow.uuid == 'u'".into()] }),
        ..FlowFilter::default()
    };
    let one = |filter: &FlowFilter| GetFlowsRequest { whitelist: vec![filter.clone()], ..GetFlowsRequest::default() };
    vec![one(&filter), one(&http), GetFlowsRequest { blacklist: vec![http, filter], ..GetFlowsRequest::default() }]
}

/// The body of a block of the history, without its envelope.
fn body() -> Vec<u8> {
    let location = |zone: &str| {
        let place = zones::Place::Zone(Arc::new(zones::Zone { name: zone.into(), region: "r".into() }));
        Location { provider: Provider::new("aws"), place, class: None }
    };
    let workload =
        Workload { namespace: "shop".into(), kind: "Deployment".into(), name: "web".into(), ..Workload::default() };
    let (a, b) = (location("a"), location("b"));
    let mut builder = Builder::new(Span::hour_of(1_764_000_000), 100);
    let counter = meridian_abi::Counter { bytes: 1000, packets: 10 };
    let serving = TransferService { service: "shop/cart", port: 80, protocol: 6, server: Server::Destination };
    builder.add(Ends { workloads: [&workload, &workload], sites: [&a, &b] }, serving, counter);
    builder.add_nodes(["n1", "n2"], [&a, &b], counter);
    builder.add_recorded(3600);
    // The magic word, the checksum, the version and the length come before the compressed body.
    let (sealed, mut body) = (builder.block().encode(), Vec::new());
    flate2::read::DeflateDecoder::new(&sealed[8 + 32 + 1 + 4..]).read_to_end(&mut body).unwrap();
    body
}

fn update() -> Update {
    let prefix = Prefix { cidr: "10.0.0.0/24".into(), ..Prefix::default() };
    let endpoint = Endpoint { address: "10.0.0.1".into(), ..Endpoint::default() };
    Update {
        bucket: Some(1),
        prefixes: vec![prefix],
        endpoints: vec![endpoint],
        removed_prefixes: vec!["10.1.0.0/24".into()],
        removed_addresses: vec!["fd00::1".into()],
    }
}

fn names() -> Names {
    let name = EndpointName { namespace: "shop".into(), pod: "cart-0".into(), ..EndpointName::default() };
    Names { endpoints: vec![name], zones: vec![Zone { name: "a".into(), region: "r".into() }] }
}

fn line() -> Line {
    let end = End { endpoint: 1, zone: 2, ..End::default() };
    let counters = vec![Counter { bytes: 1000, packets: 10 }];
    Line { source: Some(end.clone()), destination: Some(end), counters, ..Line::default() }
}

fn report() -> ReportRequest {
    let place = |zone: &str| Some(Place { zone: zone.into(), region: "r".into() });
    let counter = Some(Counter { bytes: 1000, packets: 10 });
    let pair = ZonePair { source: place("a"), destination: place("b"), counter, ..ZonePair::default() };
    ReportRequest {
        node: "node-a".into(),
        boot_id: vec![1; 16],
        zones: vec![pair],
        names: Some(names()),
        pods: vec![line()],
        whole: true,
        ..ReportRequest::default()
    }
}
