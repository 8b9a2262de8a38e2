//! Real packets between network namespaces: a pod, its node and the wire.

use meridian::{
    accounting::Accounting,
    datapath::{Datapath, Device, Devices, Hook, Options},
    flows::{Node, Ring, Sink},
    identity::Index,
    meter::{HookState, Meter},
    netlab::{
        links::{configure, sysctl},
        namespace::Namespace,
    },
    zones::{Place, Slots, StaticTable, Table},
};
use meridian_abi::{Counter, stats::Stat};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, CpuSet, sched_setaffinity, unshare},
    unistd::Pid,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    os::fd::AsRawFd,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Instant, SystemTime},
};

const POD: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// pod ── pod0 [node] up0 ── peer
struct Lab {
    datapath: Datapath,
    pod: Namespace,
    node: Namespace,
    peer: Namespace,
}

impl Lab {
    fn new(options: Options, mtu: u32) -> Self {
        let [pod, node, peer] = ["pod", "node", "peer"].map(|name| Namespace::new(name).unwrap());
        for namespace in [&pod, &node, &peer] {
            // The kernel's own IPv6 packets must not change the sums.
            sysctl(namespace, "ipv6/conf/all/disable_ipv6", "1").unwrap();
            sysctl(namespace, "ipv6/conf/default/disable_ipv6", "1").unwrap();
        }
        sysctl(&node, "ipv4/ip_forward", "1").unwrap();
        // The transport header then stays where the sender put it.
        sysctl(&node, "ipv4/ip_early_demux", "0").unwrap();
        let uplink = configure(&node, "setting up", async |links| {
            links.veth("pod0", "eth0", pod.as_raw_fd()).await?;
            links.veth("up0", "eth0", peer.as_raw_fd()).await?;
            for (device, address) in [("pod0", GATEWAY), ("up0", NODE)] {
                links.mtu(device, mtu).await?;
                links.up(device, None).await?;
                links.address(device, address.into(), 24).await?;
            }
            links.index("up0").await
        })
        .unwrap();
        for (namespace, address, gateway) in [(&pod, POD, GATEWAY), (&peer, PEER, NODE)] {
            configure(namespace, "setting up", async |links| {
                links.mtu("eth0", mtu).await?;
                links.up("lo", None).await?;
                links.up("eth0", None).await?;
                links.address("eth0", address.into(), 24).await?;
                links.route("0.0.0.0/0".parse().unwrap(), IpAddr::V4(gateway)).await
            })
            .unwrap();
        }
        let mut datapath = Datapath::load(options).unwrap();
        datapath.set_devices(Devices { devices: vec![Device::uplink(uplink)], ..Devices::default() }).unwrap();
        datapath.apply_zones(&Table::new(), Table::new().networks(), &Slots::default()).unwrap();
        node.run(|| datapath.attach()).unwrap().unwrap();
        Self { datapath, pod, node, peer }
    }

    fn counted(&self) -> Counter {
        self.datapath.matrix().unwrap().iter().map(|cell| cell.counter).sum()
    }

    /// The hardware address of the node's end of the pod's link.
    fn gateway_mac(&self) -> [u8; 6] {
        // The pod learns the address by ARP.
        self.pod
            .run(|| {
                let socket = UdpSocket::bind((POD, 0)).unwrap();
                socket.send_to(b"?", (GATEWAY, 9)).unwrap();
                for _ in 0..100 {
                    let table = std::fs::read_to_string("/proc/thread-self/net/arp").unwrap();
                    let line = table.lines().find(|line| line.starts_with("10.0.1.1 "));
                    let mac = line.and_then(|line| line.split_whitespace().nth(3));
                    if let Some(mac) = mac.filter(|mac| *mac != "00:00:00:00:00:00") {
                        let mut bytes = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap());
                        return std::array::from_fn(|_| bytes.next().unwrap());
                    }
                    thread::sleep(std::time::Duration::from_millis(20));
                }
                panic!("the gateway does not answer");
            })
            .unwrap()
    }
}

#[test]
fn ports_outside_the_linear_part_of_the_buffer_are_read() {
    for hook in Hook::ALL {
        let lab = Lab::new(Options { hook, ..Options::default() }, 9000);
        let mac = lab.gateway_mac();
        let before = lab.counted();
        // For a frame of more than a page from a packet socket, only the Ethernet header is linear: the kernel pulls
        // the IP header up and leaves the UDP header in a fragment of the buffer.
        let payload = 5000u16;
        let mut frame = [&mac[..], &[2, 0, 0, 0, 0, 1], &[0x08, 0x00, 0x45, 0]].concat();
        frame.extend((28 + payload).to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend(POD.octets());
        frame.extend(PEER.octets());
        let sum: u32 = frame[14..34].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        frame.extend([50_001u16.to_be_bytes(), 9200u16.to_be_bytes(), (8 + payload).to_be_bytes(), [0, 0]].concat());
        frame.resize(14 + 28 + usize::from(payload), b'x');
        lab.pod.run(|| send_frame(&frame)).unwrap();

        let after = wait_for(|| lab.counted(), |counted| counted.packets > before.packets);
        assert_eq!(after.bytes - before.bytes, 28 + u64::from(payload));
        let mut flows = Vec::new();
        lab.datapath.flows(|flow| flows.push(flow));
        let flow = flows.iter().find(|flow| flow.service_port == 9200).expect("the ports were read");
        assert_eq!(flow.client_port, 50_001);
        assert_eq!(lab.datapath.stat(Stat::NoPorts).unwrap().packets, 0);
    }
}

fn send_frame(frame: &[u8]) {
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0))).unwrap();
    // SAFETY: plain data, for which all zeros is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_halen = 6;
    address.sll_addr[..6].copy_from_slice(&frame[..6]);
    // SAFETY: a C string.
    address.sll_ifindex = unsafe { libc::if_nametoindex(c"eth0".as_ptr()) } as i32;
    // SAFETY: the buffer and the address with their sizes.
    let sent = unsafe {
        let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        libc::sendto(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, (&raw const address).cast(), size)
    };
    assert_eq!(sent, frame.len() as isize, "{}", std::io::Error::last_os_error());
}

/// Repeats `ask` until its answer is wanted, or fails with the last answer.
fn wait_for<T: std::fmt::Debug>(ask: impl Fn() -> T, wanted: impl Fn(&T) -> bool) -> T {
    for _ in 0..500 {
        let answer = ask();
        if wanted(&answer) {
            return answer;
        }
        thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("still {:?}", ask());
}

#[test]
fn a_busy_priority_moves_to_the_next_one() {
    let lab = Lab::new(Options::default(), 1500);
    let mut others: Vec<Datapath> = (0..3).map(|_| Datapath::load(Options::default()).unwrap()).collect();
    let attach = |datapath: &mut Datapath| lab.node.run(|| datapath.attach()).unwrap().unwrap().join("; ");
    let priorities: Vec<_> = others.iter_mut().map(attach).collect();
    assert_eq!(priorities, [98, 97, 96].map(at));
    others.remove(0);
    // A link leaves netfilter a moment after its descriptor is closed.
    wait_for(|| attach(&mut Datapath::load(Options::default()).unwrap()), |place| *place == at(98));
}

/// The description of a place of programs.
fn at(priority: i32) -> String {
    format!("netfilter POSTROUTING for IPv4, priority {priority}; netfilter POSTROUTING for IPv6, priority {priority}")
}

/// Makes the CPUs of `mask` handle the pod's packets (receive packet steering): packets interrupt them at any time.
fn steer_pod_to(node: &Namespace, mask: &str) {
    let steer = || {
        // The files under /sys belong to the namespace that mounted it.
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>).unwrap();
        std::fs::write("/sys/class/net/pod0/queues/rx-0/rps_cpus", mask).unwrap();
    };
    node.run(steer).unwrap();
}

/// Sends datagrams to the peer from one CPU.
fn flood(namespace: &Namespace, address: Ipv4Addr, cpu: usize, datagrams: u64, payload: usize) {
    let send = || {
        let mut cpus = CpuSet::new();
        cpus.set(cpu).unwrap();
        sched_setaffinity(Pid::from_raw(0), &cpus).unwrap();
        let socket = UdpSocket::bind((address, 0)).unwrap();
        socket.connect((PEER, 9)).unwrap();
        let payload = vec![0; payload];
        for _ in 0..datagrams {
            socket.send(&payload).unwrap();
        }
    };
    namespace.run(send).unwrap();
}

#[test]
fn counters_are_exact_where_a_softirq_interrupts_a_run_on_its_cpu() {
    const DATAGRAMS: u64 = 100_000;
    const PAYLOAD: usize = 100;
    if thread::available_parallelism().unwrap().get() < 2 {
        // Another CPU's packets can't interrupt this one.
        println!("skipped: needs two CPUs");
        return;
    }
    let lab = Lab::new(Options { count_reentries: true, ..Options::default() }, 1500);
    steer_pod_to(&lab.node, "2");
    // A receiver that sends no answers: they would be counted, too.
    let sink = lab.peer.run(|| UdpSocket::bind((PEER, 9))).unwrap().unwrap();
    // Packets that wait for a neighbour's address may be dropped after the hook, so every neighbour is resolved before
    // the flood.
    for (namespace, address) in [(&lab.pod, POD), (&lab.node, NODE)] {
        flood(namespace, address, 0, 1, PAYLOAD);
        sink.recv(&mut [0; PAYLOAD]).unwrap();
    }
    let mut rounds = 0;
    while lab.datapath.reentries().unwrap() < 100 {
        // The node's own packets run in process context on CPU 1, forwarded packets in softirq.
        thread::scope(|scope| {
            scope.spawn(|| flood(&lab.pod, POD, 0, DATAGRAMS, PAYLOAD));
            scope.spawn(|| flood(&lab.node, NODE, 1, DATAGRAMS, PAYLOAD));
        });
        rounds += 1;
        assert!(rounds < 100, "no run interrupted another one: this proves nothing here");
    }
    // The pod's packets may be dropped before the hook. The packets that passed it are in the matrix and in the flows,
    // and left through the device, which also counts ARP.
    let flows = || {
        let mut sum = Counter::default();
        lab.datapath.flows(|flow| sum += flow.counter);
        sum
    };
    let sent = || {
        let device = configure(&lab.node, "reading the counters", async |links| links.counters("up0").await).unwrap();
        // ARP requests and replies of the uplink are 42 bytes; everything else here is 142.
        let bytes = device.tx_bytes % (14 + 28 + PAYLOAD as u64);
        (device.tx_packets + device.tx_dropped) - bytes / 42
    };
    let settled = wait_for(
        || (lab.counted(), flows(), sent()),
        |(counted, flows, sent)| counted == flows && counted.packets == *sent,
    );
    let (counted, ..) = settled;
    assert_eq!(counted.bytes, counted.packets * (28 + PAYLOAD as u64));
    assert!(counted.packets >= rounds * DATAGRAMS);
}

#[test]
fn the_hooks_count_the_same_and_let_others_run() {
    let lab = Lab::new(Options::default(), 1500);
    let uplink = configure(&lab.node, "finding the uplink", async |links| links.index("up0").await).unwrap();
    // Twice at each hook: the first program must still see the packets.
    let mut others: Vec<Datapath> = [Hook::Tcx, Hook::Clsact, Hook::Tcx]
        .into_iter()
        .map(|hook| {
            let mut other = Datapath::load(Options { hook, ..Options::default() }).unwrap();
            other.set_devices(Devices { devices: vec![Device::uplink(uplink)], ..Devices::default() }).unwrap();
            other.apply_zones(&Table::new(), Table::new().networks(), &Slots::default()).unwrap();
            lab.node.run(|| other.attach()).unwrap().unwrap();
            other
        })
        .collect();
    let sink = lab.peer.run(|| UdpSocket::bind((PEER, 9))).unwrap().unwrap();
    for (namespace, address) in [(&lab.pod, POD), (&lab.node, NODE)] {
        flood(namespace, address, 0, 1, 100);
        sink.recv(&mut [0; 100]).unwrap();
        flood(namespace, address, 0, 1000, 100);
    }
    let sum = |datapath: &Datapath| datapath.matrix().unwrap().first().map(|cell| cell.counter);
    let expected = Some(lab.counted());
    assert_eq!(lab.counted().packets, 2002);
    for other in &others {
        assert_eq!(sum(other), expected);
    }
    // A removed filter stops counting; the device's qdisc stays for other programs.
    others[1].detach();
    flood(&lab.node, NODE, 0, 10, 100);
    assert_eq!(sum(&others[1]), expected);
    assert_eq!(sum(&others[0]), Some(lab.counted()));
    assert_eq!(lab.counted().packets, 2012);
}

#[test]
fn a_hundred_new_tables_under_traffic_lose_nothing_and_invent_no_zone() {
    let Lab { datapath, node, peer, pod } = Lab::new(Options::default(), 1500);
    let sink = Sink::new(Arc::new(Ring::new(1023)));
    let identity = Node::new("node", Place::Unknown);
    let accounting = Accounting::new(100, false);
    let mut meter = Meter::new(identity, datapath, Arc::new(Index::default()), accounting, sink);
    // The node is always in zone a. The peer changes its zone with another prefix each time; the wider prefixes around
    // it name zones in which no packet may be counted.
    let table = |n: usize| {
        let (len, zone) = [(32, "b"), (31, "c"), (30, "d"), (32, "e")][n % 4];
        let peer = format!("10.0.2.{}/{len}", [2, 2, 0, 2][n % 4]);
        let yaml = format!(
            "zones:\n- {{name: a, region: r, cidrs: [10.0.2.1/32]}}\n- {{name: {zone}, region: r, cidrs: [{peer}]}}\n- {{name: wide, region: r, cidrs: [10.0.0.0/8]}}\n"
        );
        StaticTable::parse(Path::new("zones.yaml"), yaml.as_bytes()).unwrap().zones
    };
    meter.apply_zones(&table(0), SystemTime::now()).unwrap();
    let receiver = peer.run(|| UdpSocket::bind((PEER, 9))).unwrap().unwrap();
    flood(&node, NODE, 0, 1, 100);
    receiver.recv(&mut [0; 100]).unwrap();
    let before = meter.matrix().unwrap();
    let before: u64 = before.cells().map(|(_, counter)| counter.packets).sum();

    let done = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        let flooding = scope.spawn(|| {
            let mut sent = 0;
            while !done.load(Ordering::Relaxed) {
                flood(&node, NODE, 1, 1000, 100);
                sent += 1000;
            }
            sent
        });
        for n in 1..=100 {
            meter.drain(Instant::now(), SystemTime::now()).unwrap();
            meter.apply_zones(&table(n), SystemTime::now()).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        flooding.join().unwrap()
    });
    meter.flush(Instant::now(), SystemTime::now()).unwrap();

    let matrix = meter.matrix().unwrap();
    let counted: Counter = matrix.cells().map(|(_, counter)| counter).sum();
    assert_eq!(counted.packets - before, sent, "nothing is lost, nothing counted twice");
    assert_eq!(counted.bytes, counted.packets * 128);
    let zones: Vec<String> = matrix.cells().map(|(pair, _)| format!("{} {}", pair.source, pair.destination)).collect();
    assert!(zones.iter().all(|zones| ["a b", "a c", "a d", "a e"].contains(&zones.as_str())), "{zones:?}");
    assert!(zones.len() > 1, "the tables were in force under traffic: {zones:?}");
    let totals = meter.sample(&HookState::default(), None).unwrap().counted.totals;
    let attributed: u64 =
        totals.pods.series().flat_map(|(_, total)| total.iter()).map(|(_, counter)| counter.bytes).sum();
    assert_eq!(attributed, counted.bytes);
    drop((meter, pod));
}
