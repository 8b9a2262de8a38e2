//! The processes of Meridian's pods, as the kernel has them: rights, memory, and what is left on the nodes.

use crate::nodes::cluster::{Cluster, NODES, until};
use std::{collections::BTreeMap, fs, path::PathBuf};

/// The capabilities that the chart adds: BPF, NET_ADMIN and PERFMON.
const CAPABILITIES: u64 = 1 << 39 | 1 << 12 | 1 << 38;

/// A process of one of Meridian's pods.
#[derive(Debug)]
pub struct Process {
    folder: PathBuf,
    /// The first word behind the program: `agent` or `controller`.
    pub part: String,
}

impl Process {
    /// All of a cluster.
    pub fn all(cluster: &Cluster) -> Vec<Self> {
        let group = format!("/{}-node-", cluster.name);
        let mut all = Vec::new();
        for folder in fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()) {
            let command = fs::read_to_string(folder.join("cmdline")).unwrap_or_default();
            let mut words = command.split('\0');
            let groups = fs::read_to_string(folder.join("cgroup")).unwrap_or_default();
            if words.next() == Some("/meridian") && groups.contains(&group) {
                all.push(Self { folder, part: words.next().unwrap_or_default().to_owned() });
            }
        }
        all
    }

    /// The node that it is on.
    pub fn node(&self) -> String {
        let groups = fs::read_to_string(self.folder.join("cgroup")).unwrap();
        let (_, rest) = groups.split_once("-node-").unwrap();
        format!("node-{}", &rest[..1])
    }

    /// Its fields in /proc.
    fn status(&self) -> BTreeMap<String, String> {
        let status = fs::read_to_string(self.folder.join("status")).unwrap();
        let fields = status.lines().filter_map(|line| line.split_once(":\t"));
        fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
    }

    /// It has exactly the rights in docs/install.md.
    pub fn must_have_its_rights(&self) {
        let status = self.status();
        let (capabilities, user) = if self.part == "agent" { (CAPABILITIES, "0") } else { (0, "65532") };
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            let has = u64::from_str_radix(&status[set], 16).unwrap();
            // Of a user who isn't root the bounds say nothing but what the runtime left.
            assert_eq!(has, capabilities, "{set} of {self:?}");
        }
        assert_eq!(status["Uid"].split('\t').next(), Some(user), "{self:?}");
        assert_eq!((&*status["NoNewPrivs"], &*status["Seccomp"]), ("1", "2"), "{self:?}");
        let mounts = fs::read_to_string(self.folder.join("mountinfo")).unwrap();
        let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
        assert!(root.split(' ').nth(5).unwrap().split(',').any(|option| option == "ro"), "{root}");
        let own = |kind: &str| fs::read_link(self.folder.join("ns").join(kind)).unwrap();
        assert_ne!(own("pid"), fs::read_link("/proc/self/ns/pid").unwrap(), "{self:?}");
        let token = self.folder.join("root/var/run/secrets/kubernetes.io/serviceaccount/token");
        assert_eq!(token.exists(), self.part == "controller", "a token of the API server: {self:?}");
    }

    /// The most memory that its container has had, and its limit.
    pub fn memory(&self) -> (u64, u64) {
        let groups = fs::read_to_string(self.folder.join("cgroup")).unwrap();
        let group = groups.lines().find_map(|line| line.split_once(":memory:")).unwrap().1;
        let read = |file: &str| -> u64 {
            let path = format!("/sys/fs/cgroup/memory{group}/{file}");
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}")).trim().parse().unwrap()
        };
        (read("memory.max_usage_in_bytes"), read("memory.limit_in_bytes"))
    }

    /// Its number on this machine.
    pub fn id(&self) -> i32 {
        self.folder.file_name().unwrap().to_str().unwrap().parse().unwrap()
    }

    /// Where it has a path.
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.join("root").join(path.trim_start_matches('/'))
    }
}

/// Fails if a node has anything of Meridian but two empty folders.
pub fn must_have_left_nothing(cluster: &Cluster) {
    // helm does not wait for pods.
    until("no process", || Process::all(cluster).is_empty().then_some(()));
    for (node, _) in NODES {
        let find =
            "find /sys/fs/bpf -name 'meridian*'; find /var/lib/meridian /run/meridian -mindepth 1 2>/dev/null || true";
        let left = ["on", node, "sh", "-c", find];
        assert_eq!(cluster.script(&left), "", "{node}");
        let filters = cluster.script(&["on", node, "sh", "-c", "tc qdisc show; tc filter show dev eth0 egress"]);
        assert!(!filters.contains("meridian"), "{node}: {filters}");
    }
}
