//! Hubble's metrics: for the same flows and options our series equal those of Cilium's own handlers.

use crate::programs::program;
use crate::recorded::flows;
use meridian::{
    flows::Record,
    hubble::metrics::{Config, FlowMetrics},
    replay::{Line, Reader},
    yaml,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

/// By name and sorted labels.
type Series = BTreeMap<String, u64>;

const FLOWS: usize = 3000;

/// Lists in the syntax of cilium-agent's flag.
const LISTS: [&str; 16] = [
    "flow drop tcp icmp port-distribution flows-to-world",
    "flow:sourceContext=namespace;destinationContext=namespace",
    "flow:sourceContext=workload-name|reserved-identity;destinationContext=workload-name|reserved-identity;labelsContext=source_namespace,destination_namespace",
    "flow:labelsContext=source_ip,source_pod,source_namespace,source_workload,source_workload_kind,source_app,destination_ip,destination_pod,destination_namespace,destination_workload,destination_workload_kind,destination_app,traffic_direction",
    "drop:sourceContext=pod;destinationContext=pod|ip",
    "drop:sourceEgressContext=pod-name;sourceIngressContext=identity;destinationEgressContext=dns|ip;destinationIngressContext=workload",
    "drop:sourceContext=app|pod;destinationContext=app|dns",
    "tcp:sourceContext=ip;destinationContext=ip",
    "tcp:labelsContext=traffic_direction",
    "icmp:sourceContext=identity;destinationContext=reserved-identity",
    "port-distribution:sourceContext=workload;destinationContext=workload",
    "port-distribution:sourceContext=pod|namespace|ip",
    "flows-to-world:any-drop;port;labelsContext=source_namespace,source_pod",
    "flows-to-world:syn-only;sourceContext=namespace",
    "flows-to-world:port;syn-only;any-drop",
    "flow:sourceContext=POD|Ip;DestinationContext=namespace",
];

/// Files in the format of cilium-agent's `--hubble-dynamic-metrics-config-path`.
const FILES: [&str; 2] = [
    r#"
metrics:
- name: flow
  contextOptions:
  - name: sourceContext
    values: [workload-name, reserved-identity]
  includeFilters:
  - verdict: [DROPPED]
    source_pod: ["/"]
  - protocol: [udp]
  excludeFilters:
  - reply: [true]
- name: drop
  excludeFilters:
  - source_label: ["reserved:world"]
"#,
    r#"
metrics:
- name: port-distribution
  includeFilters:
  - destination_port: ["80", "443", "53"]
- name: tcp
  includeFilters:
  - tcp_flags: [{SYN: true}]
    event_type: [{type: 4}]
- name: flows-to-world
  contextOptions:
  - name: any-drop
  - name: labelsContext
    values: [destination_ip]
  excludeFilters:
  - ip_version: [IPv6]
"#,
];

/// The counts of Cilium's handlers.
fn theirs(program: &Path, flows: &Path, wanted: &str) -> Series {
    let output = Command::new(program).arg(flows).arg(wanted).output().unwrap();
    assert!(output.status.success(), "{wanted}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(parsed).collect()
}

/// Parses a line of Prometheus' text format.
fn parsed(line: &str) -> (String, u64) {
    let (series, count) = line.rsplit_once(' ').unwrap();
    (series.to_owned(), count.parse::<f64>().unwrap() as u64)
}

/// A series as Prometheus writes it, with labels sorted by name.
fn named(name: &str, labels: &[(&str, String)]) -> String {
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let labels: BTreeSet<String> =
        labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!("{name}_total{{{}}}", labels.into_iter().collect::<Vec<_>>().join(","))
}

fn ours(flows: &str, config: &Config) -> Series {
    let metrics = FlowMetrics::new(config).unwrap();
    let count = |_, line| match line {
        Line::Record(Record::Flow(flow)) => metrics.count(&flow),
        other => panic!("{other:?}"),
    };
    Reader::new().read(flows.as_bytes(), count).unwrap();
    let shown = metrics.shown();
    assert_eq!(shown.refused, 0);
    let families = shown.families.into_iter();
    families
        .flat_map(|family| family.series.into_iter().map(move |(labels, count)| (named(family.name, &labels), count)))
        .collect()
}

#[test]
#[ignore = "needs the programs of conformance/hubble: scripts/test.sh hubble"]
fn metrics_are_ciliums_series_by_series() {
    let program = program("MERIDIAN_HUBBLE_REFERENCE_METRICS");
    let folder = std::env::temp_dir().join(format!("meridian-hubble-metrics-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let text = flows(23, FLOWS);
    let file = folder.join("flows.json");
    std::fs::write(&file, &text).unwrap();
    let mut cases: Vec<(String, Config)> =
        LISTS.iter().map(|list| ((*list).to_owned(), list.parse().unwrap())).collect();
    for (n, config) in FILES.iter().enumerate() {
        let path = folder.join(format!("metrics-{n}.yaml"));
        std::fs::write(&path, config).unwrap();
        cases.push((path.display().to_string(), yaml::parse(config.as_bytes(), "").unwrap()));
    }
    let mut families = BTreeMap::<String, usize>::new();
    for (wanted, config) in &cases {
        let (theirs, ours) = (theirs(&program, &file, wanted), ours(&text, config));
        let differ: Vec<String> = theirs
            .keys()
            .chain(ours.keys())
            .filter(|series| theirs.get(*series) != ours.get(*series))
            .map(|series| format!("{series}\n  Cilium's {:?}, ours {:?}\n", theirs.get(series), ours.get(series)))
            .take(10)
            .collect();
        assert!(differ.is_empty(), "{wanted}:\n{}", differ.concat());
        for series in ours.keys() {
            *families.entry(series.split('{').next().unwrap().to_owned()).or_default() += 1;
        }
    }
    std::fs::remove_dir_all(folder).unwrap();
    let families: Vec<(String, bool)> = families.into_iter().map(|(name, count)| (name, count > 30)).collect();
    let all = ["drop", "flows_processed", "flows_to_world", "icmp", "port_distribution", "tcp_flags"];
    assert_eq!(families, all.map(|name| (format!("hubble_{name}_total"), true)), "few series prove little");
}
