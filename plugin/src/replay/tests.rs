//! The results of reading recorded flows: every common format of a log, and texts that are not flows.

use super::*;
use crate::proto::flow::{AgentEventType, Verdict};

fn lines_of(reader: &mut Reader, text: &[u8]) -> Vec<(u64, Line)> {
    let mut lines = Vec::new();
    reader.read(text, |number, line| lines.push((number, line))).unwrap();
    lines
}

fn lines(text: &[u8]) -> Vec<(u64, Line)> {
    lines_of(&mut Reader::new(), text)
}

/// The names of the flows, and the entries left out, in short form.
fn short(text: &str) -> Vec<String> {
    let short = |(_, line)| match line {
        Line::Record(Record::Flow(flow)) => flow.decode().uuid,
        Line::Record(Record::Lost(lost)) => format!("lost {}", lost.count),
        Line::Agent(event) => event.agent_event.unwrap().r#type().as_str_name().to_owned(),
        Line::Debug(_) => "debug".to_owned(),
        Line::Left(reason, _) => format!("{reason:?}"),
    };
    lines(text.as_bytes()).into_iter().map(short).collect()
}

fn flow(line: &(u64, Line)) -> Flow {
    match line {
        (_, Line::Record(Record::Flow(flow))) => flow.decode(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn lines_are_flows_losses_or_named_as_left_out() {
    let text = br#"{"flow":{"time":"2026-11-23T10:00:00.123456789Z","verdict":"FORWARDED","IP":{"source":"10.0.0.1","ipVersion":"IPv4"},"is_reply":false,"Summary":"UDP","extensions":{"@type":"type.googleapis.com/google.protobuf.Struct","value":{"bytes":1500}}},"node_name":"node-a","time":"2026-11-23T10:00:00.123456789Z"}

{"uuid":"old","node_name":"n","verdict":"DROPPED"}
{"lost_events":{"source":"HUBBLE_RING_BUFFER","num_events_lost":"7"},"node_name":"node-a","time":"2026-11-23T10:00:01Z"}
{"node_status":{"state_change":"NODE_CONNECTED"}}
{"flow":{"verdict":[]}}
[1]
{"flow":
"#;
    let lines = lines(text);
    let first = flow(&lines[0]);
    assert_eq!((lines[0].0, first.verdict, first.is_reply), (1, Verdict::Forwarded as i32, Some(false)));
    assert_eq!(first.time.unwrap().nanos, 123_456_789);
    assert_eq!(first.ip.as_ref().unwrap().source, "10.0.0.1");
    assert_eq!(first.extensions.as_ref().unwrap().type_url, "type.googleapis.com/google.protobuf.Struct");
    assert_eq!((lines[1].0, flow(&lines[1]).uuid.as_str()), (3, "old"));
    assert!(matches!(
        &lines[2],
        (4, Line::Record(Record::Lost(lost))) if (lost.count, lost.source) == (7, LostEventSource::HubbleRingBuffer)
    ));
    let left = |line: &(u64, Line)| match line {
        (number, Line::Left(reason, _)) => (*number, *reason),
        other => panic!("{other:?}"),
    };
    let left: Vec<_> = lines[3..].iter().map(left).collect();
    let expected = [(5, Reason::NodeStatus), (6, Reason::Malformed), (7, Reason::NotJson), (8, Reason::NotJson)];
    assert_eq!(left, expected);
}

#[test]
fn an_object_without_a_flow_is_no_flow() {
    let others = [
        // An agent's own log, an empty object, our pair log, a firewall's flow state.
        r#"{"time":"2026-01-02T03:04:05.1Z","level":"info","msg":"Regenerated endpoint","subsys":"endpoint","endpointID":12}"#,
        "{}",
        r#"{"start":"2026-01-02T03:04:05Z","end":"2026-01-02T03:05:05Z","node":"n","source":{"namespace":"shop","pod":"a","zone":"z"},"destination":{"namespace":"shop","pod":"b","zone":"y"},"locality":"cross-zone","bytes":1,"packets":1}"#,
        r#"{"timestamp":"2026-01-02T03:04:05Z","event_type":"flow","proto":"TCP","flow":{"pkts_toserver":4,"state":"closed","alerted":false}}"#,
        // Tetragon's event; a document of a packet capture; a message about a flow; a job with an id.
        r#"{"process_exec":{"process":{"pid":1}},"node_name":"n","time":"2026-01-02T03:04:05Z"}"#,
        r#"{"@timestamp":"2026-01-02T03:04:05Z","source":{"ip":"10.0.0.1"},"destination":{"ip":"10.0.0.2"},"network":{"transport":"tcp"}}"#,
        r#"{"level":"debug","msg":"flow","flow":"10.0.0.1 -> 10.0.0.2","verdict":"ok"}"#,
        r#"{"uuid":"a7","time":"2026-01-02T03:04:05Z","msg":"{done}"}"#,
        r#"{"lost_events":{"dropped":3}}"#,
        r#"{"agent_event":"started"}"#,
        r#"{"flow":{}}"#,
        // A firewall's verdict, with names of its own; an audit's; a flow record of a router; a queue's message.
        r#"{"time":"2026-01-02T03:04:05Z","verdict":"ALLOWED","uuid":"a7"}"#,
        r#"{"verdict":"deny","Type":"webhook"}"#,
        r#"{"flow":{"uuid":"a7","in_pkts":4,"out_pkts":5,"state":"closed"}}"#,
        r#"{"Type":"Notification","Summary":{"text":"x"},"uuid":"a7"}"#,
        r#"{"IP":"10.0.0.1","time":"2026-01-02T03:04:05Z"}"#,
        r#"{"is_reply":"no","l4":"tcp","time":"2026-01-02T03:04:05Z"}"#,
    ];
    for other in others {
        assert_eq!(short(other), ["NoFlow"], "{other}");
    }
    assert_eq!(short(&others.join("\n")), ["NoFlow"; 17]);
}

#[test]
fn the_flow_in_a_collectors_object_is_read() {
    let flow = r#"{"flow":{"uuid":"u","verdict":"DROPPED"},"node_name":"n"}"#;
    let text = serde_json::to_string(flow).unwrap();
    let wrapped = [
        format!(r#"{{"log":{text},"stream":"stdout","time":"2026-01-02T03:04:07.5Z"}}"#),
        format!(r#"{{"@timestamp":"2026-01-02T03:04:08Z","message":{text},"host":"n"}}"#),
        format!(r#"{{"_index":"a","_source":{flow}}}"#),
        format!(r#"{{"_source":{{"message":{text},"kubernetes":{{"labels":{{"app":"cilium"}}}}}}}}"#),
        format!(r#"{{"hits":{{"total":1,"hits":[{{"_source":{flow}}}]}}}}"#),
        format!(r#"{{"date":1767322447.5,"log":"2026-01-02T03:04:05Z stdout F {}"}}"#, &text[1..text.len() - 1]),
        format!(r#"{{"labels":{{"app":"cilium"}},"line":{text},"timestamp":"2026-01-02T03:04:05Z"}}"#),
        format!(r#"{{"insertId":"x","jsonPayload":{flow}}}"#),
        r#"{"insertId":"x","jsonPayload":{"uuid":"u","verdict":"DROPPED","Summary":"UDP"}}"#.to_owned(),
        format!(r#"{{"data":{{"result":[{{"stream":{{}},"values":[["1",{text}]]}}]}}}}"#),
        r#"{"flow":{"uuid":"u"},"nodeName":"n"}"#.to_owned(),
    ];
    for line in &wrapped {
        assert_eq!(short(line), ["u"], "{line}");
    }
    // The journal's export, a search's answer of OpenSearch, a queue's record, Datadog's and Splunk's forms, an array
    // of a collector that sends over HTTP, a stream of server-sent events, and a gateway's answer.
    let wrapped = [
        format!(r#"{{"__REALTIME_TIMESTAMP":"1767322447500000","_SYSTEMD_UNIT":"cilium.service","MESSAGE":{text}}}"#),
        format!(r#"{{"took":3,"hits":{{"hits":[{{"_id":"1","_source":{{"log":{text}}},"sort":[1]}}]}}}}"#),
        format!(r#"{{"topic":"flows","partition":0,"offset":7,"key":null,"value":{flow}}}"#),
        format!(r#"{{"ddsource":"cilium","ddtags":"env:x","hostname":"n","message":{text},"service":"cilium"}}"#),
        format!(r#"{{"time":1767322447.5,"host":"n","sourcetype":"cilium","event":{flow}}}"#),
        format!(r#"[{{"date":1767322447.5,"log":{text}}}]"#),
        format!("data: {flow}\n\n"),
        format!(r#"{{"result":{flow}}}"#),
        format!(r#"{{"preview":false,"result":{{"_raw":{text}}}}}"#),
        format!(r#"{{"log":{{"offset":12,"file":{{"path":"/x"}}}},"message":{text}}}"#),
        format!("2026-01-02T03:04:05Z {{app=\"cilium\", node_name=\"n\"}} {flow}"),
    ];
    for line in &wrapped {
        assert_eq!(short(line), ["u"], "{line}");
    }
    // The journal's form of a text that is not printable; a line as a text of logfmt, once and twice; the values of a
    // spreadsheet, of a search and of a collector's object.
    let doubled = flow.replace('"', "\"\"");
    let inner = serde_json::to_string(&format!(r#"{{"log":{text}}}"#)).unwrap();
    let wrapped = [
        format!(r#"{{"MESSAGE":{:?},"PRIORITY":"6"}}"#, format!("\u{1b}[0m{flow}").as_bytes()),
        format!("time=\"2026-01-02T03:04:05Z\" level=info msg={text} subsys=hubble"),
        format!("level=info msg={inner} count=1"),
        format!("2026-01-02 03:04:05.000,\"{doubled}\",stdout"),
        format!(
            "\"Jan 2, 2026 @ 03:04:05.000\",cilium,\"{}\",\"-\"",
            format!(r#"{{"log":{text}}}"#).replace('"', "\"\"")
        ),
    ];
    for line in &wrapped {
        assert_eq!(short(line), ["u"], "{line}");
    }
    // Numbers that are no bytes, and texts without a flow.
    let others = [
        format!(r#"{{"MESSAGE":{:?}}}"#, flow.bytes().map(u32::from).chain([256]).collect::<Vec<_>>()),
        r#"{"values":[1,2,3]}"#.to_owned(),
        r#"level=info msg="{\"level\":\"info\"}""#.to_owned(),
    ];
    for line in &others {
        assert_eq!(short(line), ["NoFlow"], "{line}");
    }
    let two = format!("{{\"log\":{}}}", serde_json::to_string(&format!("{flow}\n{flow}\n")).unwrap());
    assert_eq!(short(&two), ["u", "u"]);
    let deep = (0..5).fold(flow.to_owned(), |text, _| serde_json::json!({ "log": text }).to_string());
    assert_eq!(short(&deep), ["NoFlow"]);
}

#[test]
fn a_flow_that_a_collector_keeps_twice_in_one_object_is_one() {
    let flow = r#"{"flow":{"uuid":"u","verdict":"DROPPED","time":"2026-01-02T03:04:05Z"},"node_name":"n"}"#;
    let bare = r#"{"flow":{"verdict":"DROPPED","l4":{"UDP":{"source_port":1}}},"node_name":"n"}"#;
    for flow in [flow, bare] {
        let text = serde_json::to_string(flow).unwrap();
        let twice = [
            // Fluent Bit with Merge_Log_Key and Keep_Log, Elastic Agent, and a pipeline that keeps the original.
            format!(r#"{{"log":{text},"log_processed":{flow},"stream":"stdout"}}"#),
            format!(r#"{{"message":{text},"event":{{"original":{text}}},"agent":{{"type":"filebeat"}}}}"#),
            format!(r#"{{"_source":{{"hubble":{flow},"event":{{"original":{text}}}}},"fields":{{"all":[{text}]}}}}"#),
        ];
        for line in &twice {
            assert_eq!(short(line).len(), 1, "{line}");
        }
        // The next object may have the same flow.
        assert_eq!(short(&twice.join("\n")).len(), 3);
        // Equal lines of one array are as many flows.
        assert_eq!(short(&format!(r#"{{"lines":[{text},{text}]}}"#)).len(), 2);
        let events = format!(r#"{{"logEvents":[{{"id":"1","message":{text}}},{{"id":"2","message":{text}}}]}}"#);
        assert_eq!(short(&events).len(), 2);
    }
    let others = r#"{"a":{"flow":{"uuid":"x","verdict":"DROPPED"}},"b":{"flow":{"uuid":"y","verdict":"DROPPED"}}}"#;
    assert_eq!(short(others), ["x", "y"]);
}

/// A line as docker's json-file driver writes it.
fn docker(text: &str, stream: &str) -> String {
    serde_json::json!({"log": text, "stream": stream, "time": "2026-01-02T03:04:07.5Z"}).to_string()
}

#[test]
fn a_line_that_docker_has_cut_is_whole_again() {
    let labels: Vec<String> = (0..3000).map(|n| format!("k8s:label-{n}=value")).collect();
    let flow = serde_json::json!({"flow": {"uuid": "long", "verdict": "FORWARDED", "source": {"labels": labels}}});
    let text = format!("{flow}\n");
    assert!(text.len() > 3 << 14);
    let mut lines: Vec<String> = Vec::new();
    let chunks: Vec<&str> = text.as_bytes().chunks(1 << 14).map(|chunk| std::str::from_utf8(chunk).unwrap()).collect();
    for (n, chunk) in chunks.iter().enumerate() {
        lines.push(docker(chunk, "stdout"));
        // Another stream's lines come in between.
        lines.push(docker(&format!("{{\"flow\":{{\"uuid\":\"{n}\",\"verdict\":\"DROPPED\"}}}}\n"), "stderr"));
    }
    let mut expected: Vec<String> = (0..chunks.len() - 1).map(|n| n.to_string()).collect();
    expected.extend(["long".to_owned(), (chunks.len() - 1).to_string()]);
    assert_eq!(short(&lines.join("\n")), expected);
}

#[test]
fn a_line_that_a_collector_has_not_joined_is_whole_again() {
    let part = |text: &str, flag: &str, key: &str| {
        serde_json::json!({"stream": "stdout", "logtag": flag, key: text, "kubernetes": {"host": "n"}}).to_string()
    };
    for key in ["log", "message"] {
        let log = [part("{\"flow\":{\"uuid\":\"a", "P", key), part("b\",\"verdict\":\"DROPPED\"}}", "F", key)];
        assert_eq!(short(&log.join("\n")), ["ab"], "{key}");
        // A whole line that is cut for another reason has no continuation.
        let log = [part("{\"flow\":{\"uuid\":\"a", "F", key), part("{\"flow\":{\"uuid\":\"b\"}}", "F", key)];
        assert_eq!(short(&log.join("\n")), ["NoFlow", "b"], "{key}");
    }
}

#[test]
fn a_line_that_resembles_a_cut_one_is_read_whole() {
    let flow = |uuid: &str| format!("{{\"flow\":{{\"uuid\":\"{uuid}\",\"verdict\":\"DROPPED\"}}}}");
    // A collector that leaves out the line's end.
    let whole = [docker(&flow("a"), "stdout"), docker(&flow("b"), "stdout")].join("\n");
    assert_eq!(short(&whole), ["a", "b"]);
    // The rest was lost: the next line is not taken for it.
    let torn = [docker("{\"flow\":{\"uuid\":\"x", "stdout"), docker(&format!("{}\n", flow("c")), "stdout")].join("\n");
    assert_eq!(short(&torn), ["c"]);
    // No end at all: reported once, with its line.
    let endless = [docker(&flow("d"), "stdout"), docker("{\"flow\":{\"uuid\":\"x", "stdout")].join("\n");
    assert_eq!(short(&endless), ["d", "NotJson"]);
    assert_eq!(lines(endless.as_bytes())[1].0, 2);
    // One that never ends does not fill the memory.
    let part = docker(&format!("{{\"flow\":\"{}", "x".repeat(1 << 14)), "stdout");
    let rest = docker(&"y".repeat(1 << 14), "stdout");
    let mut endless: Vec<&str> = vec![&part];
    endless.extend(std::iter::repeat_n(rest.as_str(), 200));
    assert!(short(&endless.join("\n")).iter().all(|line| line == "NoFlow" || line == "NotJson"));
}

#[test]
fn a_log_is_read_in_any_form() {
    let flows =
        |n: u8| format!(r#"{{"flow":{{"uuid":"u{n}","l4":{{"TCP":{{"flags":{{"SYN":true}}}}}}}},"node_name":"n"}}"#);
    let expected = ["u0", "u1", "u2"];
    let all: Vec<String> = (0..3).map(flows).collect();
    let indented: Vec<String> = all
        .iter()
        .map(|flow| serde_json::to_string_pretty(&serde_json::from_str::<Value>(flow).unwrap()).unwrap())
        .collect();
    let forms = [
        all.join("\n"),
        all.join("\r\n"),
        all.concat(),
        format!("[{}]", all.join(",")),
        format!("[\n{}\n]\n", all.join(",\n")),
        indented.join("\n"),
        format!("[\n{}\n]", indented.join(",\n")),
        format!("\u{feff}{}", all.join("\n\u{feff}")),
        all.iter().map(|flow| format!("2026-01-02T03:04:05.1Z stdout F {flow}\n")).collect(),
        all.iter().map(|flow| format!("[pod/cilium-7/cilium-agent] {flow}\n")).collect(),
    ];
    for form in &forms {
        assert_eq!(short(form), expected, "{form}");
    }
    let utf_16: Vec<u8> = format!("\u{feff}{}", forms[1]).encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(lines(&utf_16).iter().map(|line| flow(line).uuid).collect::<Vec<_>>(), expected);
}

#[test]
fn fields_of_a_newer_cilium_are_left_out_and_named() {
    let text = br#"{"flow":{"uuid":"newer","verdict":"FORWARDED","l4":{"SCTP":{"source_port":1,"destination_port":2,"chunk_type":"INIT"}},"source_node_labels":["a=b"],"drop_reason_desc":"A_REASON_OF_TOMORROW","source":{"workloads":[{"name":"w","owner":"x"}]}},"node_name":"node-a","cluster":"c","_id":"1"}
{"flow":{"uuid":"newer","verdict":"TOMORROW"}}
{"flow":{"uuid":"known","verdict":"DROPPED"}}"#;
    let mut reader = Reader::new();
    let lines = lines_of(&mut reader, text);
    let first = flow(&lines[0]);
    assert_eq!(
        (first.uuid.as_str(), first.verdict, first.source.unwrap().workloads[0].name.as_str()),
        ("newer", 1, "w")
    );
    assert!(first.l4.is_some());
    assert_eq!((flow(&lines[1]).verdict, flow(&lines[2]).verdict), (0, 2));
    let named = "cluster, flow.drop_reason_desc A_REASON_OF_TOMORROW, flow.l4.SCTP.chunk_type, \
                 flow.source.workloads.owner, flow.source_node_labels, flow.verdict TOMORROW";
    assert_eq!(reader.unknown().to_string(), named);
    let many: String = (0..99).map(|n| format!("{{\"flow\":{{\"uuid\":\"u\",\"new_{n}\":1}}}}")).collect();
    let mut reader = Reader::new();
    assert_eq!(lines_of(&mut reader, many.as_bytes()).len(), 99);
    assert!(reader.unknown().to_string().ends_with(" and others"), "{}", reader.unknown());
}

#[test]
fn an_unknown_extension_is_left_out_alone() {
    let read = |extensions: &str| {
        let mut reader = Reader::new();
        let lines = lines_of(&mut reader, format!(r#"{{"flow":{{"uuid":"u","extensions":{extensions}}}}}"#).as_bytes());
        (flow(&lines[0]).extensions, reader.unknown().to_string())
    };
    let retina = r#"{"@type":"type.googleapis.com/utils.RetinaMetadata","bytes":74}"#;
    assert_eq!(read(retina), (None, "flow.extensions of the type utils.RetinaMetadata".into()));
    assert_eq!(read("{}"), (Some(Any::default()), String::new()));
    let torn = r#"{"@type":"type.googleapis.com/google.protobuf.Struct","value":5}"#;
    assert_eq!(read(torn), (None, "flow.extensions".into()));
    let known = r#"{"@type":"type.googleapis.com/google.protobuf.Struct","value":{"bytes":5}}"#;
    let (extension, unknown) = read(known);
    assert!(extension.unwrap().type_url.ends_with("Struct") && unknown.is_empty());
}

#[test]
fn a_loss_keeps_its_fields_and_gets_no_others() {
    let text = br#"{"lost_events":{"source":"PERF_EVENT_RING_BUFFER","num_events_lost":"3","cpu":5},"node_name":"node-a","time":"2026-01-02T03:04:07Z"}
{"lostEvents":{"numEventsLost":"1","first":"2026-01-02T03:04:07Z"}}"#;
    let lost: Vec<_> = lines(text)
        .into_iter()
        .map(|(_, line)| match line {
            Line::Record(Record::Lost(lost)) => {
                (lost.count, lost.cpu, lost.first.is_some(), lost.last, lost.time.is_some())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lost, [(3, Some(5), false, None, true), (1, None, true, None, false)]);
}

#[test]
fn events_of_an_agent_are_read() {
    let text = br#"{"agent_event":{"type":"POLICY_UPDATED","policy_update":{"labels":["a=b"],"revision":"7","rule_count":"1"}},"node_name":"node-a","time":"2026-01-02T03:04:05Z"}
{"debug_event":{"type":"DBG_CT_VERDICT","cpu":3},"node_name":"node-a","time":"2026-01-02T03:04:05Z"}"#;
    let lines = lines(text);
    let (1, Line::Agent(event)) = &lines[0] else { panic!("{lines:?}") };
    assert_eq!((event.node_name.as_str(), event.time.unwrap().seconds), ("node-a", 1_767_323_045));
    assert_eq!(event.agent_event.as_ref().unwrap().r#type(), AgentEventType::PolicyUpdated);
    assert!(
        matches!(&lines[1], (2, Line::Debug(event)) if event.debug_event.as_ref().unwrap().cpu == Some(3)),
        "{lines:?}"
    );
}

#[test]
fn events_without_an_object_around_them_are_read() {
    let text = r#"{"source":"HUBBLE_RING_BUFFER","num_events_lost":"7"}
{"source":"HUBBLE_RING_BUFFER","numEventsLost":3,"cpu":1}
{"type":"POLICY_UPDATED","policy_update":{"labels":["a=b"],"revision":"7"}}
{"type":"DBG_CT_VERDICT","source":{"ID":7},"hash":1,"arg1":2,"message":"x","cpu":3}
{"type":"POLICY_UPDATED","user":"x"}
{"type":"NORMAL","message":"x"}
{"type":3}
{"source":"HUBBLE_RING_BUFFER"}
{"source":"elsewhere","num_events_lost":"7"}"#;
    let expected = ["lost 7", "lost 3", "POLICY_UPDATED", "debug"];
    let read = short(text);
    assert_eq!((&read[..4], &read[4..]), (&expected.map(str::to_owned)[..], &["NoFlow"; 5].map(str::to_owned)[..]));
}

#[test]
fn numbers_that_a_collector_has_made_fractions_are_read() {
    let text = br#"{"flow":{"uuid":"u","verdict":1.0,"event_type":{"type":4.0,"sub_type":"3.0"},"source":{"identity":1.6777217e7,"cluster_name":"1.0"},"l4":{"TCP":{"source_port":"8.08e3","destination_port":443.0},"UDP":null}}}
{"flow":{"uuid":"v","verdict":1.5}}
{"flow":{"uuid":"w","l4":{"TCP":{"source_port":80.5}}}}"#;
    let lines = lines(text);
    let read = flow(&lines[0]);
    let source = read.source.unwrap();
    assert_eq!((read.verdict, source.identity, &*source.cluster_name), (1, 16_777_217, "1.0"));
    assert_eq!(read.event_type.map(|event| (event.r#type, event.sub_type)), Some((4, 3)));
    let Some(crate::proto::flow::layer4::Protocol::Tcp(tcp)) = read.l4.unwrap().protocol else { panic!("TCP") };
    assert_eq!((tcp.source_port, tcp.destination_port), (8080, 443));
    assert!(lines[1..].iter().all(|(_, line)| matches!(line, Line::Left(Reason::Malformed, _))), "{lines:?}");
}

#[test]
fn fields_beside_a_flow_are_kept() {
    let text = r#"{"flow":{"uuid":"u"},"node_name":"east/node-a","time":"2026-01-02T03:04:05.25+01:00"}
{"flow":{},"node_name":"node-b","time":"1969-12-31T23:59:59.5Z"}
{"flow":{"uuid":"v","time":"2026-01-02T03:04:05Z"},"time":1767322447.5,"node_name":7}"#;
    let lines = lines(text.as_bytes());
    let beside = |line: &(u64, Line)| match line {
        (_, Line::Record(Record::Flow(flow))) => (flow.node_name().to_owned(), flow.time().unwrap()),
        other => panic!("{other:?}"),
    };
    assert_eq!(beside(&lines[0]), ("east/node-a".into(), Timestamp { seconds: 1_767_319_445, nanos: 250_000_000 }));
    assert_eq!(beside(&lines[1]), ("node-b".into(), Timestamp { seconds: -1, nanos: 500_000_000 }));
    assert_eq!(beside(&lines[2]), (String::new(), Timestamp { seconds: 1_767_323_045, nanos: 0 }));
    assert_eq!((flow(&lines[0]).time, flow(&lines[0]).node_name.as_str()), (None, ""));
}

#[test]
fn a_broken_archive_costs_its_rest() {
    use std::io::Write;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    let log: String = (0..20_000).map(|n| format!("{{\"flow\":{{\"uuid\":\"{n}\"}}}}\n")).collect();
    packed.write_all(log.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    let lines = lines(&packed[..packed.len() / 2]);
    assert!(lines.len() > 5000, "{}", lines.len());
    assert!(matches!(lines.last(), Some((_, Line::Left(Reason::Broken, _)))), "{:?}", lines.last());
    assert!(matches!(&super::tests::lines(b"BZh91AY")[..], [(1, Line::Left(Reason::Packed, _))]));
}

#[test]
fn a_line_without_end_does_not_fill_the_memory() {
    let mut text = b"{\"uuid\":\"".to_vec();
    text.resize(3 << 20, b'x');
    text.extend(b"\"}\n{\"flow\":{\"uuid\":\"after\"}}\n");
    let lines = lines(&text);
    assert!(matches!(&lines[0], (1, Line::Left(Reason::TooLong, why)) if why.contains("longer than")));
    assert_eq!((lines.last().unwrap().0, flow(lines.last().unwrap()).uuid.as_str()), (2, "after"));
}
