//! Random flows and filters, the same for each seed. Small vocabularies make filters match often.

use meridian::proto::{
    flow::{
        CiliumEventType, Dns, Endpoint, EventTypeFilter, Flow, FlowFilter, Http, HttpHeader, IcmPv4, IcmPv6, Igmp, Ip,
        IpTraceId, Layer4, Layer7, NetworkInterface, Sctp, Service, Tcp, TcpFlags, TraceContext, TraceParent, Udp,
        Vrrp, Workload, layer4::Protocol, layer7::Record,
    },
    observer::GetFlowsRequest,
};

/// A random number generator (splitmix64).
pub struct Random(u64);

const IPS: [&str; 8] =
    ["10.0.1.7", "10.0.2.9", "192.168.0.1", "fd00::1", "fd00:0::1", "::ffff:10.0.1.7", "8.8.8.8", "not an ip"];
const IP_FILTERS: [&str; 22] = [
    "10.0.1.7",
    "10.0.2.9",
    "fd00::1",
    "fd00:0::1",
    "::ffff:10.0.1.7",
    "10.0.0.0/8",
    "10.0.1.7/24",
    "0.0.0.0/0",
    "::/0",
    "fd00::/16",
    "10.0.1.0/33",
    "10.0.1.0/x",
    "10.0.1.0/",
    "10.0.1.0/08",
    "10.0.1",
    "10.0.1.256",
    "10.0.01.7",
    "10.0.1.7.8",
    "fe80::1%eth0",
    "fe80::1%eth0/64",
    "host",
    "10.0.1.a",
];
const NAMESPACES: [&str; 4] = ["", "default", "shop", "billing"];
const PODS: [&str; 5] = ["", "cart-0", "cart-1", "web-6d8f", "payments"];
const POD_FILTERS: [&str; 12] = [
    "cart",
    "cart-0",
    "shop/",
    "shop/cart",
    "/cart",
    "/",
    "default/web",
    "billing/p",
    "web",
    "shop/cart/x",
    "",
    "default/",
];
const LABELS: [&str; 16] = [
    "k8s:app=cart",
    "k8s:app=web",
    "app=cart",
    "any:app=x",
    "reserved:world",
    "reserved:host",
    "k8s:topology.kubernetes.io/zone=eu-1a",
    "k8s:topology.kubernetes.io/zone=eu-1b",
    "k8s:meridian.io/locality=cross-zone",
    "k8s:weight=7",
    "k8s:empty=",
    "k8s:noval",
    "cidr:10.0.0.0/8",
    "cidr:10.0.1.0/24",
    "$host",
    "k8s:a:b=c:d",
];
const SELECTORS: [&str; 40] = [
    "app=cart",
    "k8s:app=cart",
    "app==web",
    "app!=cart",
    "k8s:app!=web",
    "app in (cart, web)",
    "app notin (cart)",
    "app",
    "!app",
    "reserved:world",
    "!reserved:world",
    "topology.kubernetes.io/zone=eu-1a",
    "k8s:topology.kubernetes.io/zone in (eu-1a,eu-1b)",
    "topology.kubernetes.io/zone!=eu-1a,topology.kubernetes.io/zone",
    "k8s:meridian.io/locality=cross-zone",
    "weight>5",
    "weight<5",
    "weight>x",
    "app=cart,weight",
    " app = cart , !noval",
    "empty=",
    "empty",
    "app in ()",
    "app in (,cart)",
    "app in (cart",
    "app=",
    "app in cart",
    "=cart",
    "app cart",
    "app=cart,",
    ",app",
    "a b c",
    "app=ca rt",
    "app=-x",
    "-app=x",
    "a/b/c=d",
    "/app=x",
    "Upper.Case/app=x",
    "app!!=x",
    "app=a=b",
];
const NAMES: [&str; 7] =
    ["node-a", "node-b", "cluster-1/node-a", "default/node-a", "", "x.example.com", "cluster-1/x.y"];
const NODE_FILTERS: [&str; 14] = [
    "node-a",
    "node-*",
    "cluster-1/",
    "cluster-1/node-a",
    "/node-a",
    "*/node-a",
    "default/",
    "*",
    "a/b/c",
    "",
    "node a",
    "NODE-A",
    "x.example.com.",
    "x..",
];
const FQDNS: [&str; 6] = ["a.example.com", "b.example.com", "example.com", "x_y.org", "A.example.com", "orders-db"];
const FQDN_FILTERS: [&str; 11] =
    ["*.example.com", "a.example.com", "A.EXAMPLE.com.", "*", "x_y.org", "a..", "", " ", "a b", "é", "example.*"];
const REGEXPS: [&str; 9] = ["exam", "^a", "com$", "a.b", "[", "(x|y)", "/x/\\d+", "", "a{2,1}"];
const URLS: [&str; 8] =
    ["http://a.example.com/x/17?q=1", "/x/y", "", "x", "https://b?x", "/a%20b", "/bad%2", "http://a b/"];
const CODES: [&str; 9] = ["200", "404", "2+", "50+", "+", "999", "20", "5xx", "500+"];
const PROTOCOLS: [&str; 14] =
    ["tcp", "TCP", "udp", "icmp", "ICMPv4", "icmpv6", "sctp", "vrrp", "igmp", "dns", "http", "kafka", "quic", ""];
const PORTS: [&str; 10] = ["80", "443", "8080", "0", "65535", "65536", "-1", "http", "", "0080"];
const KINDS: [&str; 3] = ["", "Deployment", "StatefulSet"];
const WORKLOADS: [&str; 3] = ["", "cart", "web"];
const CLUSTERS: [&str; 3] = ["default", "cluster-1", ""];
const METHODS: [&str; 4] = ["GET", "get", "POST", ""];

impl Random {
    /// The number of filter fields that [`Self::set_field`] can set.
    pub const FIELDS: usize = 40;

    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn chance(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    fn pick(&mut self, of: &[&str]) -> String {
        of[self.below(of.len())].to_owned()
    }

    fn some(&mut self, of: &[&str], most: usize) -> Vec<String> {
        (0..=self.below(most)).map(|_| self.pick(of)).collect()
    }

    fn flags(&mut self) -> TcpFlags {
        let mut flag = || self.chance(3);
        TcpFlags {
            fin: flag(),
            syn: flag(),
            rst: flag(),
            psh: flag(),
            ack: flag(),
            urg: flag(),
            ece: flag(),
            cwr: flag(),
            ns: flag(),
        }
    }

    fn workload(&mut self) -> Workload {
        Workload { name: self.pick(&WORKLOADS), kind: self.pick(&KINDS) }
    }

    fn endpoint(&mut self) -> Option<Endpoint> {
        if self.chance(8) {
            return None;
        }
        let labels = self.below(5);
        Some(Endpoint {
            identity: self.below(4) as u32,
            namespace: self.pick(&NAMESPACES),
            pod_name: self.pick(&PODS),
            labels: (0..labels).map(|_| self.pick(&LABELS)).collect(),
            workloads: (0..self.below(3)).map(|_| self.workload()).collect(),
            cluster_name: self.pick(&CLUSTERS),
            ..Endpoint::default()
        })
    }

    fn service(&mut self) -> Option<Service> {
        self.chance(2).then(|| Service { name: self.pick(&PODS), namespace: self.pick(&NAMESPACES) })
    }

    fn l4(&mut self) -> Option<Layer4> {
        let ports: Vec<u32> = [80, 443, 8080, 0, 65_535, 65_536 + 80].into();
        let (source_port, destination_port) = (ports[self.below(6)], ports[self.below(6)]);
        let protocol = match self.below(9) {
            0 => return None,
            1 => None,
            2 => Some(Protocol::Udp(Udp { source_port, destination_port })),
            3 => Some(Protocol::IcmPv4(IcmPv4 { r#type: self.below(20) as u32, code: self.below(6) as u32 })),
            4 => Some(Protocol::IcmPv6(IcmPv6 { r#type: 126 + self.below(14) as u32, code: self.below(2) as u32 })),
            5 => Some(Protocol::Sctp(Sctp { source_port, destination_port })),
            6 => Some(Protocol::Vrrp(Vrrp::default())),
            7 => Some(Protocol::Igmp(Igmp::default())),
            _ => {
                let flags = (!self.chance(4)).then(|| self.flags());
                Some(Protocol::Tcp(Tcp { source_port, destination_port, flags }))
            }
        };
        Some(Layer4 { protocol })
    }

    fn header(&mut self) -> HttpHeader {
        HttpHeader { key: self.pick(&["a", "b"]), value: self.pick(&["1", "2"]) }
    }

    fn l7(&mut self) -> Option<Layer7> {
        let record = match self.below(6) {
            0 => Some(Record::Dns(Dns { query: self.pick(&FQDNS), ..Dns::default() })),
            1 | 2 => Some(Record::Http(Http {
                code: [0, 200, 204, 404, 503, 50][self.below(6)],
                method: self.pick(&METHODS),
                url: self.pick(&URLS),
                headers: (0..self.below(3)).map(|_| self.header()).collect(),
                ..Http::default()
            })),
            _ => None,
        };
        record.map(|record| Layer7 { record: Some(record), ..Layer7::default() })
    }

    /// A flow with random contents.
    pub fn flow(&mut self) -> Flow {
        let ip = (!self.chance(8)).then(|| Ip {
            source: self.pick(&IPS),
            source_xlated: self.pick(&["", "10.0.1.7", "8.8.8.8"]),
            destination: self.pick(&IPS),
            ip_version: self.below(3) as i32,
            encrypted: self.chance(3),
        });
        let names = |random: &mut Self| (0..random.below(3)).map(|_| random.pick(&FQDNS)).collect();
        Flow {
            uuid: self.pick(&["u1", "u2", ""]),
            verdict: self.below(8) as i32,
            drop_reason_desc: [0, 133, 181][self.below(3)],
            ip,
            l4: self.l4(),
            l7: self.l7(),
            source: self.endpoint(),
            destination: self.endpoint(),
            node_name: self.pick(&NAMES),
            node_labels: (0..self.below(3)).map(|_| self.pick(&["zone=a", "zone=b", "arch=amd64"])).collect(),
            source_names: names(self),
            destination_names: names(self),
            is_reply: [None, Some(true), Some(false)][self.below(3)],
            event_type: (!self.chance(6))
                .then(|| CiliumEventType { r#type: [1, 4, 129][self.below(3)], sub_type: [0, 3, 133][self.below(3)] }),
            source_service: self.service(),
            destination_service: self.service(),
            traffic_direction: self.below(3) as i32,
            trace_context: self
                .chance(2)
                .then(|| TraceContext { parent: self.chance(2).then(|| TraceParent { trace_id: "t1".into() }) }),
            interface: self
                .chance(2)
                .then(|| NetworkInterface { index: self.below(3) as u32, name: self.pick(&["", "eth0", "lxc1"]) }),
            ip_trace_id: self.chance(2).then(|| IpTraceId { trace_id: self.below(3) as u64, ip_option_type: 1 }),
            ..Flow::default()
        }
    }

    /// Sets a field of the filter to some values, sometimes invalid ones.
    pub fn set_field(&mut self, filter: &mut FlowFilter, field: usize) {
        match field {
            0 => filter.uuid = self.some(&["u1", "u2", ""], 2),
            1 => filter.source_ip = self.some(&IP_FILTERS, 2),
            2 => filter.destination_ip = self.some(&IP_FILTERS, 2),
            3 => filter.source_ip_xlated = self.some(&IP_FILTERS, 2),
            4 => filter.source_pod = self.some(&POD_FILTERS, 2),
            5 => filter.destination_pod = self.some(&POD_FILTERS, 2),
            6 => filter.source_service = self.some(&POD_FILTERS, 2),
            7 => filter.destination_service = self.some(&POD_FILTERS, 2),
            8 => filter.source_fqdn = self.some(&FQDN_FILTERS, 2),
            9 => filter.destination_fqdn = self.some(&FQDN_FILTERS, 2),
            10 => filter.dns_query = self.some(&REGEXPS, 2),
            11 => filter.source_label = self.some(&SELECTORS, 2),
            12 => filter.destination_label = self.some(&SELECTORS, 2),
            13 => filter.node_labels = self.some(&["zone=a", "zone in (a,b)", "!zone", "arch", "zone=("], 2),
            14 => filter.source_workload = vec![self.workload()],
            15 => filter.destination_workload = vec![self.workload(), self.workload()],
            16 => filter.source_cluster_name = self.some(&CLUSTERS, 2),
            17 => filter.destination_cluster_name = self.some(&CLUSTERS, 2),
            18 => filter.source_port = self.some(&PORTS, 2),
            19 => filter.destination_port = self.some(&PORTS, 2),
            20 => filter.source_identity = vec![self.below(4) as u32],
            21 => filter.destination_identity = vec![self.below(4) as u32, 7],
            22 => filter.protocol = self.some(&PROTOCOLS, 2),
            23 => filter.tcp_flags = vec![self.flags()],
            24 => filter.verdict = vec![self.below(8) as i32],
            25 => filter.drop_reason_desc = vec![[0, 133, 181][self.below(3)]],
            26 => filter.reply = vec![self.chance(2)],
            27 => filter.encrypted = vec![self.chance(2)],
            28 => {
                filter.event_type = vec![EventTypeFilter {
                    r#type: [0, 1, 4, 129][self.below(4)],
                    match_sub_type: self.chance(2),
                    sub_type: [0, 3][self.below(2)],
                }];
            }
            29 => filter.traffic_direction = vec![self.below(3) as i32],
            30 => {
                let name = self.pick(&["", "eth0"]);
                filter.interface = vec![NetworkInterface { index: self.below(3) as u32, name }];
            }
            31 => filter.ip_version = vec![self.below(3) as i32],
            32 => filter.node_name = self.some(&NODE_FILTERS, 2),
            33 => filter.trace_id = self.some(&["t1", "t2", ""], 1),
            34 => filter.ip_trace_id = vec![self.below(3) as u64],
            35 => filter.http_status_code = self.some(&CODES, 2),
            36 => filter.http_method = self.some(&METHODS, 2),
            37 => filter.http_path = self.some(&REGEXPS, 1),
            38 => filter.http_url = self.some(&REGEXPS, 1),
            39 => filter.http_header = vec![self.header()],
            _ => unreachable!("there are {} fields", Self::FIELDS),
        }
    }

    fn filter(&mut self) -> FlowFilter {
        let mut filter = FlowFilter::default();
        for _ in 0..self.below(3) {
            let field = self.below(Self::FIELDS);
            self.set_field(&mut filter, field);
        }
        filter
    }

    /// A request with some filters.
    pub fn request(&mut self) -> GetFlowsRequest {
        let whitelist = (0..self.below(3)).map(|_| self.filter()).collect();
        let blacklist = (0..self.below(2)).map(|_| self.filter()).collect();
        GetFlowsRequest { whitelist, blacklist, ..GetFlowsRequest::default() }
    }
}
