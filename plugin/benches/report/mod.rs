//! Writes the results of a bench into docs/performance.md.

#![allow(clippy::unwrap_used, reason = "a bench that can't run says where and ends")]

use nix::time::{ClockId, clock_gettime};
use std::{fs, path::Path, process::Command, time::Duration};

/// The kernel's series.
pub fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", release.split('.').take(2).collect::<Vec<_>>().join("."))
}

/// The machine and the date.
pub fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |(_, model)| model);
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let date =
        Command::new("date").arg("+%F").output().map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
    format!("{cpus} CPUs ({model}), {}, {}", kernel(), date.unwrap_or_default())
}

/// The CPU time of this thread.
#[allow(dead_code, reason = "some benches measure other processes")]
pub fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

#[allow(dead_code, reason = "not every bench compares itself with before")]
/// The text between the marks of a bench.
pub fn read(bench: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md");
    let page = fs::read_to_string(path).unwrap();
    let rest = page.split_once(&format!("<!-- begin: {bench} -->")).map_or("", |(_, rest)| rest);
    rest.split_once("<!-- end").map_or("", |(text, _)| text).to_owned()
}

/// Replaces the text between the marks of a bench.
pub fn write(bench: &str, text: &str) {
    let (begin, end) = (format!("<!-- begin: {bench} -->"), format!("<!-- end: {bench} -->"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(&begin).expect("the begin mark");
    let (_, after) = rest.split_once(&end).expect("the end mark");
    fs::write(&path, format!("{before}{begin}\n{text}{end}{after}")).unwrap();
}
