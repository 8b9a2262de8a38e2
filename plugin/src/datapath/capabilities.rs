//! The capabilities that an agent needs.

use std::fs;

/// A capability, its number, and its purpose.
const NEEDED: [(&str, u32, &str); 3] = [
    ("BPF", 39, "load programs and make maps"),
    ("NET_ADMIN", 12, "attach programs to devices and to netfilter"),
    ("PERFMON", 38, "read packets by pointers, which the verifier allows only with it"),
];

/// The names of all needed capabilities.
pub fn names() -> String {
    NEEDED.map(|(name, ..)| name).join(", ")
}

/// The capabilities that this process lacks, each with its purpose; `None` if the kernel does not tell.
pub fn missing() -> Option<Vec<String>> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(effective.trim(), 16).ok()?;
    let lacks = |bit: u32| effective >> bit & 1 == 0;
    let missing = NEEDED.into_iter().filter(|(_, bit, _)| lacks(*bit));
    Some(missing.map(|(name, _, what)| format!("the capability {name} is missing, to {what}")).collect())
}
