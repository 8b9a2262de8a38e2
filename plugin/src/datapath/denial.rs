//! The likely reason why the kernel denies bpf(2): missing capabilities, or else seccomp, a security module or lockdown.

use super::capabilities;
use std::{fmt, fs};

/// The likely reason why eBPF is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// Capabilities are missing, or unknown.
    Capabilities,
    /// The capabilities are present.
    Other {
        /// Whether a seccomp profile filters this process's system calls.
        is_filtered: bool,
        /// The profile or context of a security module that this process runs in.
        module: Option<String>,
        /// The kernel's lockdown, if there is one.
        lockdown: Option<String>,
    },
}

impl Denial {
    /// The reason for this process.
    pub fn here() -> Self {
        if capabilities::missing().is_none_or(|missing| !missing.is_empty()) {
            return Self::Capabilities;
        }
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self::found(
            &read("/proc/self/status"),
            &read("/proc/self/attr/current"),
            &read("/sys/kernel/security/lockdown"),
        )
    }

    /// The reason by the content of /proc/self/status, /proc/self/attr/current and the lockdown file.
    fn found(status: &str, context: &str, lockdown: &str) -> Self {
        let filter = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
        let context = context.trim_matches(['\0', '\n', ' ']);
        let locked = lockdown.split(['[', ']']).nth(1).filter(|state| *state != "none");
        Self::Other {
            is_filtered: filter.is_some_and(|mode| mode.trim() == "2"),
            module: Some(context).filter(|it| !it.is_empty() && !it.contains("unconfined")).map(str::to_owned),
            lockdown: locked.map(str::to_owned),
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Other { is_filtered, module, lockdown } = self else {
            return f.write_str("run as root, or with the capabilities BPF, NET_ADMIN and PERFMON");
        };
        let mut found = Vec::new();
        if *is_filtered {
            found
                .push("the seccomp profile of this process (that of containerd before 1.6.9 denies bpf(2))".to_owned());
        }
        found.extend(module.iter().map(|module| format!("the security module that confines it as {module}")));
        found.extend(lockdown.iter().map(|state| format!("the kernel's lockdown ({state})")));
        if found.is_empty() {
            found.push("a seccomp profile, a security module, or the kernel's lockdown".to_owned());
        }
        write!(f, "the capabilities are present, so it is denied by {}; see docs/install.md", found.join(" or "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likely_reason_is_named() {
        let denial = |status, context, lockdown| Denial::found(status, context, lockdown).to_string();
        let text = denial("Name:\tx\nSeccomp:\t2\n", "unconfined\n", "[none] integrity confidentiality\n");
        assert!(text.contains("by the seccomp profile of this process (that of containerd before 1.6.9"), "{text}");
        assert!(!text.contains("module") && !text.contains("lockdown"), "{text}");
        let text = denial("Seccomp:\t0\n", "cri-containerd.apparmor.d (enforce)\n", "none integrity [confidentiality]");
        assert!(
            text.contains("cri-containerd.apparmor.d (enforce) or the kernel's lockdown (confidentiality)"),
            "{text}"
        );
        let text = denial("Seccomp:\t0\n", "", "");
        assert!(text.contains("a seccomp profile, a security module, or the kernel's lockdown"), "{text}");
        assert_eq!(
            Denial::Capabilities.to_string(),
            "run as root, or with the capabilities BPF, NET_ADMIN and PERFMON"
        );
    }
}
