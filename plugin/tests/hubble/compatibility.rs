//! The comparisons with Hubble, and the page with their results.

use crate::{expressions, recorded::START};
use meridian::proto::DESCRIPTORS;
use prost::Message;
use prost_types::FileDescriptorSet;
use std::{collections::BTreeSet, fmt::Write, fs, path::Path};

/// A command line of `hubble`.
pub struct Case {
    pub line: String,
    /// The reason why our output differs; `None` if it is the same.
    pub differs: Option<&'static str>,
}

const DIFFERENT: &[(&str, &str)] = &[
    ("status", "it counts the nodes of its flows as connected; Cilium's agent leaves the count out"),
    ("list nodes", "it lists the nodes of its flows; Cilium answers this only through hubble-relay"),
];

/// Flags of `hubble observe` that no case has, and the reason.
const NOT_COMPARED: &[(&str, &str)] = &[
    ("basic-auth-password", "for servers with TLS and passwords; Meridian's take client certificates"),
    ("basic-auth-username", "for servers with TLS and passwords; Meridian's take client certificates"),
    ("config", "only the client reads it"),
    ("debug", "prints the client's own steps, with times"),
    ("input-file", "needs no server"),
    ("kube-context", "locates hubble-relay in a cluster"),
    ("kube-namespace", "locates hubble-relay in a cluster"),
    ("kubeconfig", "locates hubble-relay in a cluster"),
    ("port-forward", "locates hubble-relay in a cluster"),
    ("port-forward-port", "locates hubble-relay in a cluster"),
    ("server", "every command line has it"),
    ("tls-allow-insecure", "disables a check of the client"),
    ("tls-ca-cert-files", "a separate test, against a server with certificates"),
    ("tls-client-cert-file", "a separate test, against a server with certificates"),
    ("tls-client-key-file", "a separate test, against a server with certificates"),
    ("tls-server-name", "a separate test, against a server with certificates"),
    ("help", "needs no server"),
];

/// The command that covers each RPC.
const RPCS: &[(&str, &str)] = &[
    ("observer.Observer/GetFlows", "observe --all"),
    ("observer.Observer/GetAgentEvents", "observe agent-events"),
    ("observer.Observer/GetDebugEvents", "observe debug-events"),
    ("observer.Observer/GetNodes", "list nodes"),
    ("observer.Observer/GetNamespaces", "list namespaces"),
    ("observer.Observer/ServerStatus", "status"),
];

/// Differences that the command does not show.
const OTHER: &[(&str, &str)] = &[
    ("clients get the newest flow at once", "Hubble's ring releases a flow when the next one arrives"),
    ("reading a full ring from its start reports no loss", "Hubble reports one lost flow, though none is lost"),
    ("a follower that requests no past flows gets none", "Hubble sends the newest flow of the ring"),
    (
        "a mask of fields within `l4`, `l7` or another oneof returns those of this flow",
        "Hubble also returns the previous flow's fields, if that flow had another member of the oneof",
    ),
    (
        "limits of a request: 1,000 filter values; 64 regular expressions of 1 MiB each; 16 CEL expressions, each of 4 \
         KiB, 32 levels, 4 patterns, 20,000 steps and values of 65,536 elements",
        "Hubble has no limits: a request can keep a CPU busy for minutes",
    ),
    ("at most 2,048 streams of flows at once; further requests get ResourceExhausted", "Hubble has no bound"),
    (
        "the text of an error in a regular expression is another library's",
        "the status code and the text before it are the same",
    ),
    ("a request of more than 256 KiB gets OutOfRange", "Go's library returns ResourceExhausted, beyond 4 MiB"),
    (
        "a health check of an unknown service gets NotFound, `service not registered`",
        "Go's library returns `unknown service`",
    ),
    (
        "the error for a time out of range has one space in `(seconds:1 nanos:-5)`",
        "Go's library prints one or two there, depending on the build",
    ),
    (
        "reflection also lists `peer.Peer` and Meridian's services, and answers a symbol with its file only",
        "Go's library adds the imported files; clients request them",
    ),
    ("`--last` reports a loss after the newest flow", "Hubble's stream ends with the newest flow"),
    (
        "a replay joins consecutive losses of one node, cause and CPU, from the first time to the last",
        "Hubble joins them in its ring, from 1.19 on",
    ),
];

/// The command lines, with the reason for those that differ.
pub fn cases() -> Vec<Case> {
    let mut lines: Vec<String> = ["compact", "dict", "table", "tab", "json", "jsonpb"]
        .iter()
        .map(|output| format!("observe --all -o {output}"))
        .collect();
    let time = |second: i64| {
        let time = jiff::Timestamp::from_second(START + second).unwrap();
        time.to_string()
    };
    lines.extend(
        [
            "observe --last 5",
            "observe",
            "observe --first 5",
            "observe --last 999",
            "observe --last 3 --protocol udp",
            "observe --first 3 --protocol udp",
            "observe --first 2 --follow",
            "observe --all --print-node-name",
            "observe --all --numeric",
            "observe --all --ip-translation=false",
            "observe --all --time-format RFC3339Nano",
            "observe --all --field-mask uuid,verdict -o json",
            "observe --all --field-mask source.ID,l4.TCP -o json",
            "observe --all --field-mask no.such -o json",
            // Not parts of l4: Cilium's server leaves parts of the flow before it in the message.
            "observe --all --field-mask trace_context.parent.trace_id,IP.source -o json",
            "observe --all --field-mask time,source.labels -o jsonpb",
            "observe agent-events --all",
            "observe debug-events --all",
            "observe --all --color always",
            "observe --all --print-policy-names",
            "observe --all --use-default-field-masks=false",
            "observe --all --silent-errors --verdict DROPPED",
            "observe --all --print-raw-filters --pod shop/cart --not --port 80",
            "observe --all --timeout 3s",
            "observe --all --tls --timeout 1s",
            "list namespaces",
            "list namespaces --request-timeout 3s",
            "list namespaces -o json",
        ]
        .map(str::to_owned),
    );
    lines.extend([
        format!("observe --since {} --until {}", time(100), time(110)),
        format!("observe --since {} --last 2", time(100)),
        format!("observe --since {} --first 2", time(100)),
        format!("observe --until {} --last 2", time(100)),
        format!("observe --until {} --first 2", time(100)),
        format!("observe --since {} --protocol tcp", time(250)),
        format!("observe --since {}", time(9999)),
    ]);
    let filters = [
        "--all-namespaces",
        "--from-all-namespaces",
        "--to-all-namespaces",
        "--cel-expression _flow.verdict==Verdict.DROPPED",
        "--cel-expression has(_flow.l4.TCP)&&_flow.l4.TCP.destination_port==80u",
        "--cel-expression _flow.source.labels.exists(l,l.startsWith('k8s:app'))",
        "--cel-expression _flow.verdict",
        "--cel-expression _flow.nothing==1",
        "--cluster cluster-1",
        "--from-cluster default",
        "--to-cluster cluster-1",
        "--drop-reason-desc POLICY_DENIED",
        "--encrypted",
        "--unencrypted",
        "--fqdn *.example.com",
        "--from-fqdn a.example.com",
        "--to-fqdn x_y.org",
        "--fqdn a..",
        "--identity 2",
        "--from-identity 1",
        "--to-identity 3",
        "--identity world",
        "--ip 10.0.1.7",
        "--from-ip 10.0.0.0/8",
        "--to-ip fd00::/16",
        "--ip fd00:0::1",
        "--ip 10.0.0.0/99",
        "--from-ip nonsense",
        "--label app=cart",
        "--from-label app!=cart",
        "--to-label k8s:app",
        "--label reserved:world",
        "--label (app",
        "--from-label app=ca+rt",
        "--namespace shop",
        "--from-namespace billing",
        "--to-namespace default",
        "--pod shop/cart",
        "--from-pod cart",
        "--to-pod /web",
        "--pod shop/",
        "--port 80",
        "--from-port 443",
        "--to-port 8080",
        "--port http",
        "--port 70000",
        "--service shop/cart",
        "--from-service default/web",
        "--to-service /",
        "--workload Deployment/cart",
        "--from-workload web",
        "--to-workload StatefulSet/",
        "--http-method get",
        "--http-path /x/\\d+",
        "--http-status 2+",
        "--http-status 600",
        "--http-url example",
        "--http-header a:1",
        "--http-status 200 --type l7",
        "--http-status 200 --type trace",
        "--interface eth0",
        "--ip-trace-id 1",
        "--ip-version none",
        "--ipv4",
        "--ipv6",
        "--node-label zone=a",
        "--node-name node-a",
        "--node-name cluster-1/",
        "--node-name a/b/c",
        "--protocol tcp",
        "--protocol icmp",
        "--protocol http",
        "--protocol quic",
        "--snat-ip 8.8.8.8",
        "--tcp-flags syn",
        "--tcp-flags syn,ack",
        "--tcp-flags nonsense",
        "--trace-id t1",
        "--traffic-direction ingress",
        "--traffic-direction sideways",
        "--type trace",
        "--type drop",
        "--type trace:to-stack",
        "--type l7",
        "--uuid u1",
        "--verdict FORWARDED",
        "--verdict DROPPED --verdict ERROR",
        "--not --verdict FORWARDED",
        "--namespace shop --not --port 80",
        "--from-pod shop/cart --to-port 443",
        "--ipv4 --protocol udp --not --from-namespace shop",
    ];
    lines.extend(filters.iter().map(|filter| format!("observe --all -o jsonpb {filter}")));
    let raw = [
        r#"observe --all --allowlist {"source_pod":["shop/"]}"#,
        r#"observe --all --denylist {"verdict":["FORWARDED"]}"#,
        r#"observe --all --allowlist {"reply":[false],"event_type":[{"type":4}]}"#,
        r#"observe --all --allowlist {"no_such":1}"#,
    ];
    lines.extend(raw.map(str::to_owned));
    let same = lines.into_iter().map(|line| Case { line, differs: None });
    let differ = DIFFERENT.iter().map(|(line, why)| Case { line: (*line).to_owned(), differs: Some(why) });
    same.chain(differ).collect()
}

/// Compares the page with the results; writes it if MERIDIAN_UPDATE_DOCS is set.
pub fn page_is_true(cases: &[Case], help: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/hubble-compatibility.md");
    let page = page(cases, help);
    if std::env::var_os("MERIDIAN_UPDATE_DOCS").is_some() {
        fs::write(path, page).unwrap();
    } else if fs::read_to_string(path).unwrap_or_default() != page {
        panic!("docs/hubble-compatibility.md is not what came out: run the tests with MERIDIAN_UPDATE_DOCS=1");
    }
}

fn page(cases: &[Case], help: &str) -> String {
    let compared = cases.iter().filter(|case| case.differs.is_none()).count();
    let mut page = format!(
        "# Hubble compatibility\n\n\
         The tests run the stock `hubble` command and Cilium's own code, both v1.19.4, against Meridian's server, and \
         write this page. {compared} command lines print byte for byte the same for `meridian replay` as for Cilium's \
         observer with the same flows.\n\n\
         ## RPCs\n\n| RPC | compared by | |\n|---|---|---|\n"
    );
    let row = |page: &mut String, cells: [&str; 3]| writeln!(page, "| {} |", cells.join(" | ")).unwrap();
    for (rpc, line) in RPCS {
        let of_rpc = |case: &&Case| case.line.starts_with(line);
        let differs = cases.iter().filter(of_rpc).find_map(|case| case.differs);
        assert!(cases.iter().any(|case| case.line.starts_with(line)), "{rpc}");
        let output = differs.map_or("same".to_owned(), |why| format!("differs: {why}"));
        row(&mut page, [&format!("`{rpc}`"), &format!("`hubble {line}`"), &output]);
    }
    page.push_str(
        "| `grpc.health.v1.Health/Check` | `hubble status` | same for `hubble.server.Observer` |\n\
         | `peer.Peer/Notify` | hubble-relay, `hubble watch peers` | same; every server announces itself or its cluster |\n\
         | `grpc.reflection.v1` and `v1alpha` | our own test | lists every service, also health and reflection; an \
         unknown symbol gets an error in the stream |\n",
    );

    page.push_str(
        "\n## Filters\n\nA test applies 1,000 random requests to 10,000 random flows, with Cilium's filter code and with \
         Meridian's: both accept the same flows and reject the same filters.\n\n| field of `flow.FlowFilter` | \
         |\n|---|---|\n",
    );
    for field in filter_fields() {
        let output = if field == "experimental" {
            format!(
                "`cel_expression`: same on {} expressions; the table below has the differences",
                expressions::EXPRESSIONS.len()
            )
        } else {
            "same".to_owned()
        };
        writeln!(page, "| `{field}` | {output} |").unwrap();
    }
    page.push_str("\n| CEL expression that differs | why |\n|---|---|\n");
    for (expression, why) in expressions::DIFFER {
        writeln!(page, "| `{expression}` | {why} |").unwrap();
    }

    page.push_str("\n## Flags of `hubble observe`\n\n| flag | command lines | |\n|---|---:|---|\n");
    for flag in flags(help) {
        let has_flag = |case: &&Case| {
            let mut words = case.line.split([' ', '=']);
            words.any(|word| word.strip_prefix("--") == Some(&flag) || SHORT.contains(&(&flag, word)))
        };
        let with_flag = cases.iter().filter(has_flag).count();
        let not = NOT_COMPARED.iter().find(|(name, _)| *name == flag).map(|(_, why)| *why);
        let output = match (with_flag, not) {
            (0, None) => panic!("--{flag} is neither in a case nor among those with a reason"),
            (0, Some(why)) => format!("not compared: {why}"),
            (_, None) => "same".to_owned(),
            (_, Some(_)) => panic!("--{flag} is compared"),
        };
        row(&mut page, [&format!("`--{flag}`"), &with_flag.to_string(), &output]);
    }

    page.push_str("\n## What else differs\n\n| Meridian | why |\n|---|---|\n");
    for (what, why) in OTHER {
        writeln!(page, "| {what} | {why} |").unwrap();
    }
    page
}

/// Short forms of flags in the cases.
const SHORT: &[(&str, &str)] = &[("output", "-o")];

fn filter_fields() -> Vec<String> {
    let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
    let messages = files.into_iter().flat_map(|file| file.message_type);
    let filter = messages.into_iter().find(|message| message.name() == "FlowFilter").unwrap();
    filter.field.iter().map(|field| field.name().to_owned()).collect()
}

/// The flags in the command's help.
fn flags(help: &str) -> BTreeSet<String> {
    let flag = regex::Regex::new(r"(?m)^ +(?:-\w, )?--([a-z0-9-]+)").unwrap();
    flag.captures_iter(help).map(|found| found[1].to_owned()).collect()
}

#[test]
fn random_filters_have_every_field_but_expressions_which_have_a_test_of_their_own() {
    assert_eq!(crate::random::Random::FIELDS, filter_fields().len() - 1, "a field that is never tried looks the same");
}
