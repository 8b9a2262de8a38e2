//! Flow logs: for the same flows our lines equal those of Cilium's own exporter byte for byte, and the stock command
//! and `meridian replay` read them.

use crate::{cli::serve, ports::free_address, programs::program, recorded::flows};
use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::Command,
};

const FLOWS: usize = 3000;

/// Outputs in the format of cilium-agent's `--hubble-flowlogs-config-path`; FOLDER stands for the test's folder.
const CONFIG: &str = r#"
flowLogs:
- name: all
  filePath: FOLDER/all.log
- name: masked
  filePath: FOLDER/masked.log
  fieldMask: [time, node_name, source.namespace, source.pod_name, destination.namespace, destination.pod_name, verdict, l4.TCP, is_reply]
- name: part-of-a-choice
  filePath: FOLDER/part-of-a-choice.log
  fieldMask: [verdict, l4.TCP.flags]
- name: without-time
  filePath: FOLDER/without-time.log
  fieldMask: [uuid, IP, l4.UDP, extensions, source.workloads]
- name: allowed
  filePath: FOLDER/allowed.log
  includeFilters:
  - source_pod: ["shop/"]
    verdict: [FORWARDED]
  - protocol: [icmp]
- name: denied
  filePath: FOLDER/denied.log
  excludeFilters:
  - verdict: [FORWARDED]
  - ip_version: [IPv6]
- name: rotated
  filePath: FOLDER/rotated.log
  fileMaxSizeMb: 1
  fileMaxBackups: 2
- name: compressed
  filePath: FOLDER/sub/compressed
  fileMaxSizeMb: 1
  fileMaxBackups: 1
  fileCompress: true
- name: over
  filePath: FOLDER/over.log
  end: "2023-10-09T23:59:59-07:00"
"#;

/// The files of a folder by name; rotated files are named by their order instead of their time.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let time = regex::Regex::new(r"-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}").unwrap();
    let (mut found, mut files) = (Vec::new(), BTreeMap::new());
    for at in [folder.to_owned(), folder.join("sub")] {
        found.extend(fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()));
    }
    found.sort();
    for path in found {
        let name = path.strip_prefix(folder).unwrap().display().to_string();
        let mut content = fs::read(&path).unwrap();
        if name.ends_with(".gz") {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(content.as_slice()).read_to_end(&mut plain).unwrap();
            content = plain;
        }
        let mut n = 0;
        while files.contains_key(&time.replace(&name, format!("-{n}")).into_owned()) {
            n += 1;
        }
        files.insert(time.replace(&name, format!("-{n}")).into_owned(), content);
    }
    files
}

fn exported(folder: &Path, name: &str, program: impl FnOnce(&Path)) -> BTreeMap<String, Vec<u8>> {
    let into = folder.join(name);
    fs::create_dir_all(into.join("sub")).unwrap();
    let config = into.with_extension("yaml");
    fs::write(&config, CONFIG.replace("FOLDER", &into.display().to_string())).unwrap();
    program(&config);
    files(&into)
}

#[test]
#[ignore = "needs the programs of conformance/hubble: scripts/test.sh hubble"]
fn flow_logs_are_ciliums_byte_by_byte() {
    let (export, hubble) = (program("MERIDIAN_HUBBLE_REFERENCE_EXPORT"), program("MERIDIAN_HUBBLE_CLI"));
    let folder = std::env::temp_dir().join(format!("meridian-export-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let recorded = folder.join("flows.json");
    fs::write(&recorded, flows(31, FLOWS)).unwrap();
    let theirs = exported(&folder, "theirs", |config| {
        let output = Command::new(&export).arg(&recorded).arg(config).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });
    let ours = exported(&folder, "ours", |config| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meridian"));
        let at = free_address();
        command.arg("replay").arg(&recorded).args(["--listen", &at, "--hubble-flowlogs-config-path"]).arg(config);
        assert_eq!(serve(command, at, "loaded").interrupt(), Some(0));
    });
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&theirs), names(&ours));
    for (name, theirs) in &theirs {
        // If the mask has a part of a oneof and a flow has another part, Cilium's exporter leaves parts of an earlier
        // flow in the line, which is wrong; ours writes nothing.
        if name == "part-of-a-choice.log" {
            assert!(*theirs != ours[name], "it differs no more");
            continue;
        }
        let lines = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (theirs, ours) = (lines(theirs), lines(&ours[name]));
        let differs = theirs.lines().zip(ours.lines()).find(|(theirs, ours)| theirs != ours);
        if let Some((theirs, ours)) = differs {
            panic!("{name}:\n  Cilium's: {theirs}\n  ours:     {ours}");
        }
        assert_eq!((name, theirs.len()), (name, ours.len()));
    }
    let count = |name: &str| ours[name].iter().filter(|byte| **byte == b'\n').count();
    assert_eq!((count("all.log"), count("masked.log"), count("without-time.log")), (FLOWS, FLOWS, FLOWS));
    assert!((100..FLOWS - 100).contains(&count("allowed.log")) && (100..FLOWS - 100).contains(&count("denied.log")));
    assert!(ours.contains_key("rotated-0.log") && ours.contains_key("sub/compressed-0.gz"), "{:?}", names(&ours));

    // The stock command and our replay read the logs.
    let all = folder.join("ours/all.log");
    let observed = |args: &[&str]| {
        let mut command = Command::new(&hubble);
        command.arg("observe").args(args).args(["-o", "jsonpb"]).env_clear().env("HOME", &folder);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    assert!(observed(&["--input-file", &all.display().to_string(), "--all"]) == ours["all.log"]);
    let replayed = |files: &[PathBuf]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meridian"));
        let at = free_address();
        command.arg("replay").args(files).args(["--listen", &at]);
        let replay = serve(command, at, "loaded");
        // The only allowed difference is the escaping of HTML characters.
        String::from_utf8(observed(&["--server", &replay.at, "--all"])).unwrap()
    };
    assert!(replayed(&[all]).as_bytes() == ours["all.log"]);
    // Of a log whose oldest backup is gone, each line that is left comes once.
    let mut rotated: Vec<PathBuf> =
        fs::read_dir(folder.join("ours")).unwrap().map(|entry| entry.unwrap().path()).collect();
    rotated.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("rotated"));
    rotated.sort();
    fs::remove_file(rotated.remove(0)).unwrap();
    assert!(rotated.len() > 1, "{rotated:?}");
    let texts: Vec<String> = rotated.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&replayed(&rotated)), sorted(&texts.concat()));
    // Flows without a time are not left out, and keep their order.
    let timeless = folder.join("ours/without-time.log");
    let timeless = replayed(&[timeless]);
    assert!(timeless.as_bytes() == ours["without-time.log"], "{}", timeless.lines().next().unwrap_or_default());
    fs::remove_dir_all(folder).unwrap();
}

#[test]
#[ignore = "needs the programs of conformance/hubble: scripts/test.sh hubble"]
fn flags_and_stdout_are_an_output_as_any_other() {
    let hubble = program("MERIDIAN_HUBBLE_CLI");
    let folder = std::env::temp_dir().join(format!("meridian-export-flags-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let recorded = folder.join("flows.json");
    fs::write(&recorded, flows(37, 200)).unwrap();
    let deny = r#"{"verdict":["FORWARDED"]} {"protocol":["udp"]}"#;
    let mut command = Command::new(env!("CARGO_BIN_EXE_meridian"));
    command.arg("replay").arg(&recorded).args(["--listen", "127.0.0.1:0", "--hubble-export-file-path", "stdout"]);
    command.args(["--hubble-export-denylist", deny, "--hubble-export-fieldmask", "uuid,verdict"]);
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut output = String::new();
    while !output.contains("loaded") {
        let mut byte = [0];
        child.stderr.as_mut().unwrap().read_exact(&mut byte).unwrap();
        output.push(byte[0].into());
    }
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    let mut expected = Command::new(hubble);
    expected.arg("observe").arg("--input-file").arg(&recorded).args(["--all", "-o", "jsonpb"]);
    expected.args(["--denylist", deny]).env_clear().env("HOME", &folder);
    let expected = expected.output().unwrap();
    fs::remove_dir_all(folder).unwrap();
    let lines = |bytes: &[u8]| -> Vec<String> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        text.lines()
            .map(|line| {
                let event: serde_json::Value = serde_json::from_str(line).unwrap();
                format!("{} {}", event["flow"]["uuid"], event["flow"]["verdict"])
            })
            .collect()
    };
    let (ours, theirs) = (lines(&output.stdout), lines(&expected.stdout));
    assert!(ours.len() > 20 && ours.len() < 190, "{}", ours.len());
    assert_eq!(ours, theirs, "{}", String::from_utf8_lossy(&expected.stderr));
}
