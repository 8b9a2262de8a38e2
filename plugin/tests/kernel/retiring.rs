//! Numbers of flow entries go round: no byte is lost, and no number, while every CPU makes more entries than there are
//! slots, the same ones at once, and an agent that retires them all is killed again and again.
//!
//! `make test-kernel-long` runs twenty times as long.

use crate::{before_others, load::find, network::BpfFs, packets::LOOPBACK, times};
use meridian::{
    datapath::{Datapath, Device, Devices, Hook, Options, Pins, sys},
    zones::{Slots, Table},
};
use meridian_abi::{Counter, IpVersion, control, stats::Stat};
use std::{
    collections::BTreeSet,
    env,
    io::{BufRead, BufReader},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, SystemTime},
};

/// Slots of each flow map, for [`KEYS`] keys.
const SLOTS: u32 = 256;
/// So many that the source of a key makes fewer entries than its share allows, however long the test runs.
const KEYS: u32 = 4000;
/// The folder of the pins, for the agent that is killed.
const PINS: &str = "MERIDIAN_TEST_PINS";

const fn options(hook: Hook) -> Options {
    Options {
        hook,
        matrix_slots: 32,
        flow_slots: SLOTS,
        overlay_header_len: 0,
        count_reentries: false,
        core_alone: false,
    }
}

fn load(hook: Hook, pins: Option<Pins>) -> Datapath {
    let mut datapath = Datapath::load_pinned(options(hook), pins).unwrap();
    datapath.set_devices(Devices { devices: vec![Device::uplink(LOOPBACK)], ..Devices::default() }).unwrap();
    datapath.apply_zones(&Table::new(), Table::new().networks(), &Slots::default()).unwrap();
    datapath
}

/// A UDP datagram of 28 bytes over IPv4, or of 48 over IPv6. Each key has a source of its own.
fn frame(key: u32, v6: bool) -> Vec<u8> {
    let mut frame = vec![0; 12];
    let host = key.to_be_bytes();
    if v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 17, 64]);
        for net in [1, 2] {
            frame.extend([0xfd, 0, 0, 0, 0, 0, 0, net, 0, 0, 0, 0]);
            frame.extend(host);
        }
    } else {
        frame.extend([0x08, 0x00, 0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17, 0, 0]);
        frame.extend([10, 1, host[2], host[3], 10, 2, host[2], host[3]]);
    }
    frame.extend([0xc3, 0x50, 0x1f, 0x90, 0, 8, 0, 0]);
    frame
}

fn send(program: &OwnedFd, hook: Hook, key: u32, v6: bool) {
    let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    sys::test_run(program.as_fd(), &frame(key, v6), (hook == Hook::Netfilter).then_some(family), 1).unwrap();
}

fn programs(datapath: &Datapath) -> [OwnedFd; 2] {
    datapath.programs().map(|program| program.try_clone_to_owned().unwrap())
}

/// Every CPU sends packets with the same keys, in the same order, until `work` has ended, with a pause after each round.
/// Returns the traffic sent.
fn flooded(datapath: &Datapath, pause: Duration, work: impl FnOnce(&AtomicU64)) -> Counter {
    let (hook, programs) = (datapath.hook(), programs(datapath));
    let (done, sent, bytes) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().unwrap().get() {
            scope.spawn(|| {
                let mut key = 0;
                while !done.load(Ordering::Relaxed) {
                    for v6 in [false, true] {
                        send(&programs[usize::from(v6 && hook == Hook::Netfilter)], hook, key, v6);
                    }
                    bytes.fetch_add(28 + 48, Ordering::Relaxed);
                    sent.fetch_add(2, Ordering::Relaxed);
                    key = (key + 1) % KEYS;
                    if key == 0 && !pause.is_zero() {
                        thread::sleep(pause);
                    }
                }
            });
        }
        before_others(|| work(&sent));
        done.store(true, Ordering::Relaxed);
    });
    Counter { bytes: bytes.into_inner(), packets: sent.into_inner() }
}

/// Retires every entry, as an agent does. Returns how many were out of use.
fn retire_all(datapath: &Datapath) -> usize {
    let mut entries = Vec::new();
    datapath.flows(|entry| entries.push(entry));
    let last = datapath.retired(entries.iter().filter_map(|entry| datapath.retire(entry)).collect());
    let count = last.len();
    datapath.empty(last.into_iter().map(|entry| entry.slot));
    count
}

/// Checks that all that was sent is in the matrix, and there either attributed or not.
#[track_caller]
fn is_exact(datapath: &Datapath, sent: Counter) {
    let all: Counter = datapath.matrix().unwrap().iter().map(|cell| cell.counter).sum();
    assert_eq!(all, sent, "the matrix (left), sent (right)");
    let mut sum = datapath.attributed();
    sum += datapath.stat(Stat::Unattributed).unwrap();
    assert_eq!(sum, sent, "attributed and unattributed (left), sent (right)");
}

/// Checks that every slot can be used once more, and each for one entry. Few sources have the same element of the map of
/// shares, so that enough have a part of their share left.
#[track_caller]
fn no_number_is_lost(datapath: &Datapath) {
    retire_all(datapath);
    let programs = programs(datapath);
    for (key, v6) in (0..KEYS).flat_map(|key| [(key, false), (key, true)]) {
        send(&programs[usize::from(v6 && datapath.hook() == Hook::Netfilter)], datapath.hook(), key, v6);
    }
    let (mut slots, mut sources) = (BTreeSet::new(), BTreeSet::new());
    datapath.flows(|entry| {
        slots.insert(entry.slot);
        sources.insert(entry.source);
    });
    assert_eq!((slots.len(), sources.len()), (2 * SLOTS as usize, 2 * SLOTS as usize));
}

#[test]
fn numbers_go_round_while_more_entries_are_made_than_there_are_slots() {
    for hook in [Hook::Netfilter, Hook::Tcx] {
        let datapath = load(hook, None);
        let mut retired = 0;
        let sent = flooded(&datapath, Duration::ZERO, |sent| {
            for _ in 0..times(50) {
                let before = sent.load(Ordering::Relaxed);
                while sent.load(Ordering::Relaxed) < before + u64::from(KEYS) {
                    thread::sleep(Duration::from_millis(1));
                }
                retired += retire_all(&datapath);
            }
        });
        is_exact(&datapath, sent);
        assert!(retired > 10 * SLOTS as usize, "{retired} were retired");
        assert!(datapath.stat(Stat::Unattributed).unwrap().packets > 0, "never were all slots in use");
        no_number_is_lost(&datapath);
    }
}

#[test]
fn an_agent_that_is_killed_while_it_retires_loses_nothing() {
    let bpf = BpfFs::temporary("killed");
    let pins = Pins::open(&bpf.0).unwrap();
    let datapath = load(Hook::Netfilter, Some(pins.clone()));
    // No agent attaches: the straight path of the first one leaves packets to its core.
    let cores = sys::get_pinned(&find(&bpf.0, "CORES")).unwrap();
    for (version, core) in [IpVersion::V4, IpVersion::V6].into_iter().zip(datapath.cores().unwrap()) {
        sys::update(cores.as_fd(), &control::core(version), &core.as_raw_fd()).unwrap();
    }
    // Agents have to come up beside it.
    let pause = Duration::from_millis(10);
    let sent = flooded(&datapath, pause, |_| (0..times(4)).for_each(|_| kill_an_agent(&bpf.0)));
    let last = Datapath::load_pinned(options(Hook::Netfilter), Some(pins.clone())).unwrap();
    last.bring_back(&Table::new(), &Slots::default());
    is_exact(&last, sent);
    no_number_is_lost(&datapath);
    drop((datapath, last));
    pins.remove().unwrap();
}

/// Starts an agent that retires everything, and kills it at some moment.
fn kill_an_agent(pins: &Path) {
    let mut agent = Command::new(env::current_exe().unwrap());
    let name = "retiring::an_agent_that_waits_to_be_killed";
    agent.args(["--exact", name, "--ignored", "--nocapture"]).env(PINS, pins);
    let mut agent = agent.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(agent.stdout.take().unwrap()).lines();
    let ready = lines.map_while(Result::ok).any(|line| line.contains("ready"));
    assert!(ready, "the agent did not come up");
    let nanos = SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    thread::sleep(Duration::from_micros(u64::from(nanos / 1000 % 60_000)));
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[test]
#[ignore = "a process of another test"]
fn an_agent_that_waits_to_be_killed() {
    let Some(pins) = env::var_os(PINS) else { return };
    let pins = Pins::open(Path::new(&pins)).unwrap();
    // With few programs, because it runs none.
    let options = Options { core_alone: true, ..options(Hook::Tcx) };
    let datapath = Datapath::load_pinned(options, Some(pins)).unwrap();
    println!("ready");
    datapath.bring_back(&Table::new(), &Slots::default());
    loop {
        retire_all(&datapath);
    }
}
