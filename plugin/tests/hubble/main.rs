//! Our code against Cilium's own: filters, messages, command line, relay, metrics, exporter.
//!
//! Needs the programs of conformance/hubble, named by MERIDIAN_HUBBLE_…; `make test` builds them.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails here")]

#[path = "../certificates/mod.rs"]
mod certificates;
mod cli;
mod compatibility;
mod descriptors;
mod export;
mod expressions;
mod live;
mod metrics;
#[path = "../common/ports.rs"]
mod ports;
#[path = "../common/programs.rs"]
mod programs;
mod random;
mod recorded;
mod relay;
mod tls;

use meridian::{
    flows::{Encoded, Parts},
    hubble::Filters,
    proto::{
        flow::{Flow, FlowFilter},
        observer::GetFlowsRequest,
    },
};
use programs::program;
use prost::Message;
use random::Random;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

/// The answer of Cilium's code to each request, one line each: see conformance/hubble/filters.
fn reference(program: &Path, flows: &[Flow], requests: &[GetFlowsRequest]) -> Vec<String> {
    // Tests of one process run at the same time.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("meridian-filters-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, messages: Vec<Vec<u8>>| -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, messages.concat()).unwrap();
        path
    };
    let flows = write("flows", flows.iter().map(Message::encode_length_delimited_to_vec).collect());
    let requests = write("requests", requests.iter().map(Message::encode_length_delimited_to_vec).collect());
    let output = Command::new(program).arg(flows).arg(requests).output().unwrap();
    std::fs::remove_dir_all(folder).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// The error without the text about a regular expression, which comes from Go's own library.
fn comparable(error: &str) -> &str {
    error.split("error parsing regexp").next().unwrap_or(error)
}

/// The debug text without unset fields.
fn without_empty(text: &str) -> String {
    regex::Regex::new(r#"[\w#]+: (\[\]|None|""|0|false)(, )?"#).unwrap().replace_all(text, "").into_owned()
}

fn ours(flows: &[Encoded], request: &GetFlowsRequest) -> Result<String, String> {
    let mut filters = Filters::new(&request.whitelist, &request.blacklist).map_err(|error| error.to_string())?;
    Ok(flows.iter().map(|flow| if filters.match_flow(flow) { '1' } else { '0' }).collect())
}

#[test]
#[ignore = "needs the programs of conformance/hubble: scripts/test.sh hubble"]
fn ten_thousand_flows_through_a_thousand_filters_are_those_that_cilium_lets_through() {
    let program = program("MERIDIAN_HUBBLE_FILTERS");
    let mut random = Random::new(7);
    let flows: Vec<Flow> = (0..10_000).map(|_| random.flow()).collect();
    // First each field alone, then several together.
    let mut requests: Vec<GetFlowsRequest> = Vec::new();
    for field in 0..Random::FIELDS {
        for _ in 0..8 {
            let mut filter = FlowFilter::default();
            random.set_field(&mut filter, field);
            requests.push(GetFlowsRequest { whitelist: vec![filter], ..GetFlowsRequest::default() });
        }
    }
    while requests.len() < 1000 {
        requests.push(random.request());
    }
    let expected = reference(Path::new(&program), &flows, &requests);
    assert_eq!(expected.len(), requests.len());

    let mut parts = Parts::default();
    let encoded: Vec<Encoded> = flows.iter().map(|flow| Encoded::new(flow.clone(), &mut parts)).collect();
    let (mut errors, mut some, mut differences) = (0, 0, BTreeMap::new());
    for (request, expected) in requests.iter().zip(&expected) {
        let shown = without_empty(&format!("{:?} not {:?}", request.whitelist, request.blacklist));
        match (ours(&encoded, request), expected.strip_prefix('!')) {
            (Ok(ours), None) => {
                some += usize::from(ours.contains('1') && ours.contains('0'));
                let differs = ours.chars().zip(expected.chars()).position(|(a, b)| a != b);
                if let Some(at) = differs {
                    differences.insert(
                        shown,
                        format!("ours {}: {}", &ours[at..=at], without_empty(&format!("{:?}", flows[at]))),
                    );
                }
            }
            (Err(ours), Some(theirs)) => {
                errors += 1;
                let theirs: String = serde_json::from_str(theirs).unwrap_or_else(|_| theirs.to_owned());
                if comparable(&ours) != comparable(&theirs) {
                    differences.insert(shown, format!("ours:   {ours}\n theirs: {theirs}"));
                }
            }
            (Ok(_), Some(theirs)) => {
                differences.insert(shown, format!("only they refuse: {theirs}"));
            }
            (Err(ours), None) => {
                differences.insert(shown, format!("only we refuse: {ours}"));
            }
        }
    }
    let shown: Vec<String> =
        differences.iter().take(10).map(|(request, what)| format!("{request}\n {what}\n")).collect();
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), shown.concat());
    assert!(errors > 50 && some > 200, "{errors} errors, {some} filters that tell flows apart: this proves little");
}
