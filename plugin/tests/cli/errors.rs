//! Bad input and missing rights give one line with the problem, the place and the remedy.

use crate::{
    CommandOutput, Scratch,
    confined::{CAPABILITIES, confine_further},
    machine::{Machine, alone},
    meridian, run,
};
use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::Command,
};

#[track_caller]
fn one_line(output: &CommandOutput, code: i32, start: &str) {
    assert_eq!(output.code, Some(code), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    assert!(output.stderr.starts_with(start), "{output:?}");
    assert!(output.stderr.ends_with('\n') && output.stderr.lines().count() == 1, "{output:?}");
}

#[test]
fn a_bad_zone_file_is_named_with_its_line_and_the_reason() {
    let scratch = Scratch::new("zones");
    let garbage: Vec<u8> = (0..10_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let cases: [(&str, &[u8], &str); 6] = [
        (
            "twice.yaml",
            b"zones:\n- {name: a, region: r, cidrs: [10.0.1.0/24]}\n- {name: b, region: r, cidrs: [10.0.1.0/24]}\n",
            ":3: prefix 10.0.1.0/24 is in zone b and in zone a (line 2)\n",
        ),
        (
            "cidr.yaml",
            b"zones:\n- {name: a, region: r, cidrs: [10.0.1.0/40]}\n",
            ":2: `10.0.1.0/40` is not a prefix like 10.0.1.0/24 or fd00:1::/64: ",
        ),
        ("key.yaml", b"zones:\n- {name: a, region: r}\nzonse: []\n", ":3: unknown field "),
        (
            "region.yaml",
            b"zones:\n- {name: a, region: r}\n- {name: a, region: s}\n",
            ":3: zone a is in region s and in region r (line 2)\n",
        ),
        ("empty.yaml", b"", ":1: the file is empty: it needs the key `zones`\n"),
        ("garbage.yaml", &garbage, ":1: not UTF-8 text\n"),
    ];
    for (name, content, expected) in cases {
        let file = scratch.file(name, content);
        let file = file.to_str().unwrap();
        let output = run(&["zones", "list", "--zones-file", file]);
        one_line(&output, 2, &format!("meridian: {file}{expected}"));
    }
    let missing = scratch.as_ref().join("missing.yaml");
    let output = run(&["zones", "lookup", "10.0.0.1", "--zones-file", missing.to_str().unwrap()]);
    one_line(&output, 2, &format!("meridian: {}: No such file or directory", missing.display()));
}

#[test]
fn a_lookup_prints_zone_and_prefix() {
    let scratch = Scratch::new("lookup");
    let file = scratch.file("zones.yaml", b"zones:\n- {name: eu-1a, region: eu-1, cidrs: [10.0.1.0/24]}\n");
    let words = |ip: &str| {
        let output = run(&["zones", "lookup", ip, "--zones-file", file.to_str().unwrap()]);
        assert_eq!(output.code, Some(0), "{output:?}");
        output.stdout.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(words("10.0.1.9"), ["10.0.1.9", "10.0.1.0/24", "eu-1a", "eu-1", "cluster", "zone", "eu-1a"]);
    assert_eq!(words("10.0.2.9"), ["10.0.2.9", "10.0.0.0/8", "unknown", "-", "default", "address", "registries"]);
    assert_eq!(words("8.8.8.8"), ["8.8.8.8", "0.0.0.0/0", "internet", "-", "default", "address", "registries"]);
}

#[test]
fn bad_usage_is_exit_code_2() {
    for args in [
        &["demo", "--duration", "soon"][..],
        &["demo", "--duration", "-3s"],
        &["demo", "--hook", "xdp"],
        &["dmeo"],
        &[],
    ] {
        assert_eq!(run(args).code, Some(2), "{args:?}");
    }
    let output = run(&["--log-level", "=loud=", "zones", "list", "--zones-file", "x"]);
    one_line(&output, 2, "meridian: --log-level =loud=: ");
}

#[test]
fn without_root_the_error_names_the_missing_capability() {
    let _alone = alone();
    let scratch = Scratch::new("nobody");
    fs::set_permissions(&scratch, fs::Permissions::from_mode(0o755)).unwrap();
    // In a folder that another user can read.
    let binary = scratch.as_ref().join("meridian");
    fs::copy(env!("CARGO_BIN_EXE_meridian"), &binary).unwrap();
    let before = Machine::now();
    let output: CommandOutput = Command::new(&binary).arg("demo").uid(65_534).gid(65_534).output().unwrap().into();
    one_line(
        &output,
        1,
        "meridian: loading an eBPF program is not permitted (Operation not permitted (os error 1)): run as root",
    );
    before.is_restored();
}

/// As in a pod on a node whose container runtime has an old profile.
#[test]
fn a_seccomp_profile_that_denies_bpf_is_named_and_not_the_capabilities() {
    let _alone = alone();
    let mut check = meridian(&["check", "--uplink", "lo"]);
    confine_further(&mut check, &CAPABILITIES.map(|(_, number)| number), &[], &[libc::SYS_bpf]);
    let output = CommandOutput::from(check.output().unwrap());
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stdout.contains("ok       capabilities"), "{output:?}");
    let named = output.stdout.matches("so it is denied by the seccomp profile of this process").count();
    assert!(named >= 3 && !output.stdout.contains("run as root"), "every hook says so: {output:?}");
    assert!(output.stdout.contains("clsact        loading an eBPF program is not permitted"), "{output:?}");
}
