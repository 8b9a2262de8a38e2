//! Writes what a bench measured into docs/performance.md.

#![allow(clippy::unwrap_used, reason = "a bench that can't run says where and ends")]

use std::{fs, path::Path, process::Command};

/// The machine and the day.
pub fn machine() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version = release.split('.').take(2).collect::<Vec<_>>().join(".");
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |(_, model)| model);
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let date =
        Command::new("date").arg("+%F").output().map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
    format!("{cpus} CPUs ({model}), Linux {version}, {}", date.unwrap_or_default())
}

/// Replaces what stands between the marks of a bench.
pub fn write(bench: &str, text: &str) {
    let (begin, end) = (format!("<!-- begin: {bench} -->"), format!("<!-- end: {bench} -->"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(&begin).expect("the begin mark");
    let (_, after) = rest.split_once(&end).expect("the end mark");
    fs::write(&path, format!("{before}{begin}\n{text}{end}{after}")).unwrap();
}
