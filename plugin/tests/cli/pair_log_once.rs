//! The pair log counts no byte twice, whatever becomes of the file with the sums.

use crate::{
    Scratch,
    machine::{Machine, alone},
    meridian,
    network::{BpfFs, Mtus, Network, PEER, POD, traffic::sink},
    running::Running,
};
use meridian::datapath::{Hook, Options};
use meridian_abi::IpVersion;
use nix::{
    mount::{MsFlags, mount, umount},
    sys::signal::Signal,
};
use serde_json::Value;
use std::{
    fs,
    io::{Read, Write},
    net::{TcpStream, UdpSocket},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

const PORT: u16 = 9000;
const ZONES: &str = "zones:
- {name: a, region: r, cidrs: [10.0.1.0/24, 10.0.2.1/32]}
- {name: b, region: r, cidrs: [10.0.2.2/32]}
";

/// A small disk for the state, until it is dropped.
pub(crate) struct Disk(pub(crate) PathBuf);

impl Disk {
    /// A disk of 64 KiB.
    fn new(folder: PathBuf) -> Self {
        Self::with_size(folder, "64k")
    }

    /// A disk of this size.
    pub(crate) fn with_size(folder: PathBuf, size: &str) -> Self {
        fs::create_dir_all(&folder).unwrap();
        mount(Some("tmpfs"), &folder, Some("tmpfs"), MsFlags::empty(), Some(&*format!("size={size}"))).unwrap();
        Self(folder)
    }

    fn sums(&self) -> PathBuf {
        self.0.join("counters")
    }

    /// Leaves no room.
    pub(crate) fn fill(&self) {
        let mut file = fs::File::create(self.0.join("full")).unwrap();
        while file.write_all(&[0; 512]).is_ok() {}
    }

    /// Lets no sums be saved: the name of the file that is being written is a folder's.
    fn block(&self) {
        fs::create_dir(self.sums().with_extension("new")).unwrap();
    }

    /// Flips a bit in the sums.
    fn flip(&self) {
        let mut bytes = fs::read(self.sums()).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(self.sums(), bytes).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount(&self.0);
    }
}

/// The bytes in the pair log.
pub(crate) fn logged(log: &Path) -> u64 {
    let text = fs::read_to_string(log).unwrap_or_default();
    // A killed agent may have written half of a line.
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.map(|line| line["bytes"].as_u64().unwrap()).sum()
}

fn metric(network: &Network, name: &str) -> u64 {
    let get = || {
        let mut stream = TcpStream::connect("127.0.0.1:9980").ok()?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        Some(value.parse::<f64>().unwrap() as u64)
    };
    network.node.run(get).unwrap().unwrap_or_default()
}

fn until(what: &str, is_done: impl Fn() -> bool) {
    for _ in 0..600 {
        if is_done() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("not {what}");
}

/// An agent logs, something happens to its state, it is killed, and the next one continues. Returns the bytes of which
/// that one does not know whether they were logged.
fn nothing_is_logged_twice(name: &str, happens: impl Fn(&Disk), happens_after: impl Fn(&Disk)) -> u64 {
    let _alone = alone();
    let machine = Machine::now();
    let scratch = Scratch::new(&format!("pair-log-{name}"));
    let (bpf, disk) = (BpfFs::new(scratch.as_ref().join("bpf")), Disk::new(scratch.as_ref().join("state")));
    let log = scratch.as_ref().join("pairs.json");
    scratch.file("zones.yaml", ZONES.as_bytes());
    let config = format!(
        "node: node-a\nzones_file: zones.yaml\nhook: {}\nhubble: {{listen: off, socket: off}}\nstate_dir: {}\n\
         pair_log: {{output: {}, interval: 1s}}\n",
        Hook::Netfilter,
        disk.0.display(),
        log.display()
    );
    let config = scratch.file("agent.yaml", config.as_bytes());
    let network = Network::unattached(Options { flow_slots: 64, ..Options::default() }, Mtus(1500, 1500));
    let pins = bpf.0.join("meridian");
    let agent = |args: &[&str]| {
        let mut command = meridian(&["agent", "--config", config.to_str().unwrap()]);
        command.args(args).env("MERIDIAN_PIN_DIR", &pins);
        network.node.run(|| Running::spawn(&mut command)).unwrap()
    };
    let start = || {
        let mut agent = agent(&[]);
        let (_, mut rest) = agent.stderr_until("is_pinned=true");
        thread::spawn(move || rest.read_to_end(&mut Vec::new()));
        agent
    };
    let _sink = sink(&network.peer, PEER.of(IpVersion::V4), PORT);
    let before = network.wire().bytes;
    let send = || {
        let send = || {
            let socket = UdpSocket::bind((POD.of(IpVersion::V4), 0)).unwrap();
            for _ in 0..1000 {
                socket.send_to(&[0; 100], (PEER.of(IpVersion::V4), PORT)).unwrap();
            }
        };
        network.pod.run(send).unwrap();
    };
    let first = start();
    let log_grows = || {
        let known = logged(&log);
        send();
        until("logged", || logged(&log) > known);
    };
    log_grows();
    happens(&disk);
    log_grows();
    log_grows();
    first.signal(Signal::SIGKILL);
    drop(first.output());
    happens_after(&disk);
    let second = start();
    log_grows();
    let unknown = metric(&network, "meridian_pair_log_unknown_bytes_total");
    second.signal(Signal::SIGTERM);
    assert_eq!(second.output().code, Some(0));
    let (sent, logged) = (network.wire().bytes - before, logged(&log));
    assert!(logged <= sent, "{logged} bytes were logged of {sent}");
    // Three of the four bursts were logged before the kill, or after it.
    assert!(logged >= sent / 2, "{logged} bytes were logged of {sent}");
    assert_eq!(agent(&["--unload"]).output().code, Some(0));
    drop((network, bpf, disk));
    machine.is_restored();
    unknown
}

#[test]
fn a_full_state_disk_and_a_kill_log_nothing_twice() {
    // The removal makes room for the next save, so the sums may be whole again.
    nothing_is_logged_twice("full", Disk::fill, |_| {});
}

#[test]
fn sums_that_can_t_be_saved_and_a_kill_log_nothing_twice() {
    let unknown = nothing_is_logged_twice("blocked", Disk::block, |disk| {
        assert!(!disk.sums().exists(), "sums of before the last line are gone");
    });
    assert!(unknown > 0);
}

#[test]
fn a_flipped_bit_in_the_sums_logs_nothing_twice() {
    assert!(nothing_is_logged_twice("flipped", |_| {}, Disk::flip) > 0);
}
