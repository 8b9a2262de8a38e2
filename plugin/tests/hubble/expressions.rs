//! CEL expressions: Cilium's code and ours pass the same flows and refuse the same expressions.

use super::{ours, reference};
use crate::programs::program;
use crate::random::Random;
use meridian::{
    flows::{Encoded, Parts},
    proto::{
        flow::{Emitter, Flow, FlowFilter, flow_filter::Experimental},
        observer::GetFlowsRequest,
    },
};
use prost_types::{Any, Timestamp};
use std::path::Path;

pub const EXPRESSIONS: &[&str] = &[
    "true",
    "false",
    "_flow.verdict == Verdict.FORWARDED || _flow.verdict == Verdict.TRANSLATED",
    "_flow.verdict == flow.Verdict.DROPPED",
    "_flow.verdict == 2",
    "_flow.verdict in [Verdict.DROPPED, Verdict.ERROR]",
    "_flow.drop_reason_desc == DropReason.POLICY_DENIED",
    "_flow.IP.source == '10.0.1.7' || _flow.IP.destination == '8.8.8.8'",
    "has(_flow.IP)",
    "has(_flow.IP.source)",
    "_flow.IP.encrypted",
    "!_flow.IP.encrypted",
    "has(_flow.l4.TCP)",
    "has(_flow.l4.TCP) && (_flow.l4.TCP.destination_port == uint(80) || _flow.l4.TCP.destination_port == 443u)",
    "_flow.l4.TCP.destination_port > 100u",
    "_flow.l4.TCP.destination_port > 100",
    "_flow.l4.TCP.destination_port == 80",
    "int(_flow.l4.TCP.destination_port) + 1 == 81",
    "_flow.l4.TCP.flags.SYN && !_flow.l4.TCP.flags.ACK",
    "_flow.source.pod_name == 'cart-0'",
    "_flow.source.pod_name.startsWith('cart') && _flow.destination.namespace != 'shop'",
    "_flow.source.pod_name.matches('^cart-[0-9]$')",
    "matches(_flow.source.pod_name, 'cart')",
    "_flow.source.pod_name.contains('a') ? _flow.is_reply == true : false",
    "size(_flow.source.labels) > 1",
    "_flow.source.labels.size() == 0",
    "'k8s:app=cart' in _flow.source.labels",
    "_flow.source.labels.exists(l, l.startsWith('k8s:app'))",
    "_flow.source.labels.all(l, l != 'reserved:world')",
    "_flow.source.labels.exists_one(l, l.endsWith('cart'))",
    "_flow.source.labels.filter(l, l.contains('app')).size() > 0",
    "_flow.source.labels.map(l, size(l)).exists(n, n > 12)",
    "_flow.source.labels.map(l, l.contains('app'), size(l)).exists(n, n > 12)",
    "_flow.source.labels.map(l, l == 'a')[0]",
    "_flow.source.labels[0] == 'k8s:app=cart'",
    "_flow.source.workloads.exists(w, w.name == 'cart' && w.kind == 'Deployment')",
    "_flow.source.workloads.exists(w, has(w.kind))",
    "_flow.source.workloads.size() > 0 && _flow.source.workloads[0].name == 'cart'",
    "_flow.source.workloads[0].name == 'cart'",
    "_flow.source.identity == 2u",
    "_flow.source.identity < _flow.destination.identity",
    "has(_flow.source)",
    "!has(_flow.destination)",
    "has(_flow.source.identity)",
    "_flow.is_reply == false",
    "has(_flow.is_reply)",
    "_flow.is_reply == null",
    "has(_flow.is_reply) && !_flow.is_reply",
    "_flow.is_reply || _flow.IP.encrypted",
    "_flow.node_name == 'node-a'",
    "has(_flow.emitter) && _flow.emitter.name == 'Hubble'",
    "_flow.node_labels.exists(l, l.startsWith('zone='))",
    "_flow.l7.http.code >= 400u",
    "has(_flow.l7.dns) && _flow.l7.dns.query != ''",
    "_flow.l7.http.headers.exists(h, h.key == 'a')",
    "_flow.event_type.type == 4 && _flow.event_type.sub_type == 3",
    "_flow.time > timestamp('2023-11-14T22:13:30Z')",
    "_flow.time + duration('10s') > timestamp('2023-11-14T22:13:30Z')",
    "_flow.time.getSeconds() == 20",
    "_flow.time.getFullYear() == 2023",
    "has(_flow.time)",
    "_flow.traffic_direction == TrafficDirection.EGRESS",
    "_flow.interface.index == 1u && _flow.interface.name == 'eth0'",
    "_flow.uuid == 'u1'",
    "_flow.source == _flow.destination",
    "_flow.source.namespace + '/' + _flow.source.pod_name == 'shop/cart-0'",
    "string(_flow.verdict) == '1'",
    "_flow.Summary == 'UDP'",
    "_flow.source.cluster_name in ['default', '']",
    "{'shop': true}[_flow.source.namespace]",
    "_flow.source.namespace in {'shop': 1, 'billing': 2}",
    "[1, 2, 3].exists(n, n == _flow.verdict)",
    "_flow.verdict / 0 == 1",
    "[0, 1].exists(n, 1 / n == 1 || n == 5)",
    "[0, 1].exists(n, n == 5 || (1 / n == 1 || n == 6))",
    "[1, 0].all(n, 1 / n == 1 && n == 5)",
    "_flow.verdict == 1 || _flow.verdict / 0 == 1",
    "dyn(_flow.verdict) == 1.0",
    "type(_flow.verdict) == int",
    "_flow.extensions.locality == 'cross-zone'",
    "has(_flow.extensions.locality) && _flow.extensions.bytes > 1000.0",
    "has(_flow.extensions)",
    "_flow.ip_trace_id.trace_id == 1u",
    "_flow.trace_context.parent.trace_id == 't1'",
    // Invalid expressions.
    "",
    " ",
    "something-invalid",
    "_flow",
    "_flow.verdict",
    "_flow.is_reply",
    "_flow.source.labels",
    "_flow.source",
    "_flow.time",
    "_flow.extensions",
    "_flow.extensions.locality",
    "'text'",
    "1",
    "1.5",
    "null",
    "dyn(true)",
    "[true]",
    "{'a': true}",
    "flow",
    "flow.verdict == 1",
    "Verdict.NOTHING == 1",
    "_flow.no_such_field == 1",
    "_flow.source.no_such_field == ''",
    "_flow.source.pod_name.x == ''",
    "_flow.source.pod_name == 1",
    "_flow.verdict == 'FORWARDED'",
    "_flow.source.pod_name && true",
    "!_flow.source.pod_name",
    "_flow.source.pod_name + 1 == ''",
    "_flow.source.pod_name.startsWith(1)",
    "_flow.source.pod_name.nothing()",
    "nothing(_flow)",
    "size(1) == 1",
    "_flow.source.pod_name.exists(c, c == 'a')",
    "_flow.source.labels.exists(l, l == 1)",
    "_flow.source.labels.exists(l, m == 'x')",
    "a && b",
    "_flow.uuid == 'a' && b",
    "_flow.uuid ==",
    "(_flow.uuid == 'a'",
    "_flow.uuid = 'a'",
    "_flow..uuid == 'a'",
    "true true",
    "_flow.uuid == 'a' &&\n  _flow.verdict == 'x'",
    "has(_flow)",
    "_flow.source.labels.exists(1, true)",
    "_flow.source.labels['a'] == ''",
    "_flow.source['pod_name'] == ''",
    "1 in _flow.source.labels",
    "true ? 1 : 'a'",
    "true ? true : 1",
    "'\\q' == ''",
    "99999999999999999999 == 1",
];

/// Expressions that are refused with another text, or by one side only, and the reason.
pub const DIFFER: &[(&str, &str)] = &[
    (
        "_flow.source == Endpoint{}",
        "Meridian constructs no messages: an expression could compare them only with parts of a flow",
    ),
    ("_flow.uuid.matches(_flow.uuid)", "Meridian compiles a pattern once, not for each flow, so it must be a constant"),
    ("_flow.uuid.matches('(')", "Meridian returns the error; Hubble returns no flow and no error"),
];

fn request(expression: &str) -> GetFlowsRequest {
    let experimental = Some(Experimental { cel_expression: vec![expression.to_owned()] });
    let whitelist = vec![FlowFilter { experimental, ..FlowFilter::default() }];
    GetFlowsRequest { whitelist, ..GetFlowsRequest::default() }
}

#[test]
#[ignore = "needs the programs of conformance/hubble: scripts/test.sh hubble"]
fn expressions_select_the_same_flows_as_in_hubble() {
    let program = program("MERIDIAN_HUBBLE_FILTERS");
    let mut random = Random::new(13);
    let flows: Vec<Flow> = (0..1000)
        .map(|n| {
            let mut flow = random.flow();
            flow.time = (n % 5 != 0).then_some(Timestamp { seconds: 1_700_000_000 + n, nanos: 0 });
            let emitter = Emitter { name: "Hubble".into(), version: "1".into() };
            flow.emitter = (n % 3 == 0).then_some(emitter);
            flow.extensions = match n % 4 {
                0 => Some(extensions("cross-zone", 1500.0)),
                1 => Some(extensions("same-zone", 10.0)),
                _ => None,
            };
            flow
        })
        .collect();
    let mut parts = Parts::default();
    let encoded: Vec<Encoded> = flows.iter().map(|flow| Encoded::new(flow.clone(), &mut parts)).collect();
    let expressions: Vec<&str> = EXPRESSIONS.iter().copied().chain(DIFFER.iter().map(|(known, _)| *known)).collect();
    let requests: Vec<GetFlowsRequest> = expressions.iter().map(|expression| request(expression)).collect();
    let expected = reference(Path::new(&program), &flows, &requests);
    let mut differences = Vec::new();
    for ((expression, request), expected) in expressions.iter().zip(&requests).zip(&expected) {
        let theirs = match expected.strip_prefix('!') {
            None => Ok(expected.clone()),
            Some(error) => Err(serde_json::from_str(error).unwrap_or_else(|_| error.to_owned())),
        };
        let ours = ours(&encoded, request);
        let may_differ = DIFFER.iter().any(|(known, _)| known == expression);
        if (ours == theirs) == may_differ {
            let at = |verdicts: &str| verdicts.chars().filter(|verdict| *verdict == '1').count().to_string();
            let shown = |verdicts: Result<String, String>| match verdicts {
                Ok(verdicts) => format!("lets {} through", at(&verdicts)),
                Err(error) => format!("refuses: {error}"),
            };
            differences.push(format!("{expression}\n  Cilium {}\n  ours   {}\n", shown(theirs), shown(ours)));
        }
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.concat());
}

fn extensions(locality: &str, bytes: f64) -> Any {
    use prost::Message;
    use prost_types::{Struct, Value, value::Kind};
    let value = |kind| Value { kind: Some(kind) };
    let fields = [
        ("locality".to_owned(), value(Kind::StringValue(locality.into()))),
        ("bytes".to_owned(), value(Kind::NumberValue(bytes))),
    ];
    let value = Struct { fields: fields.into() }.encode_to_vec();
    Any { type_url: "type.googleapis.com/google.protobuf.Struct".into(), value }
}
