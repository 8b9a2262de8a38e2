//! An agent whose hook is bypassed warns and changes the hook.

use crate::{
    Scratch,
    machine::{Machine, alone},
    meridian,
    network::{
        Mtus, NODE, Network, PEER, POD,
        programs::{redirect, redirect_neigh},
        traffic::{datagrams, sink},
    },
    running::{Running, until},
};
use meridian::{
    datapath::Options,
    netlab::{links::configure, namespace::Namespace},
};
use meridian_abi::IpVersion;
use rtnetlink::{LinkUnspec, RouteMessageBuilder};
use std::{
    io::BufReader,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd,
    process::{ChildStderr, Command},
    sync::atomic::{AtomicBool, Ordering},
};

const PORT: u16 = 9000;

#[test]
fn bypassing_traffic_is_reported_and_the_hook_is_changed() {
    let _alone = alone();
    let before = Machine::now();
    let scratch = Scratch::new("bypass");
    let zones = "zones:\n- {name: a, region: r, cidrs: [10.0.1.0/24, 10.0.2.1/32]}\n";
    let zones = scratch.file("zones.yaml", zones.as_bytes());
    let network = Network::unattached(Options { flow_slots: 64, ..Options::default() }, Mtus(1500, 1500));
    let redirects = redirect_neigh(&network);
    let args = [
        "agent",
        "--zones-file",
        zones.to_str().unwrap(),
        "--hubble-socket",
        "off",
        "--pair-log",
        "off",
        "--pin-dir",
        "off",
    ];
    let start = |hook: &str| network.node.run(|| Running::spawn(meridian(&args).args(["--hook", hook]))).unwrap();
    // With `auto` the agent chooses the hook that sees the packets.
    let mut agent = start("auto");
    let (output, _rest) = agent.stderr_until("counting");
    assert!(
        output.contains("hook=tcx") && output.contains("an eBPF program on pod0 may forward past netfilter"),
        "{output}"
    );
    drop((agent, _rest));
    // With `netfilter` the agent detects the bypass and keeps the configured hook.
    let mut agent = start("netfilter");
    let (output, rest) = while_sending(&network, || agent.stderr_until("of what leaves this node"));
    assert!(output.contains("the hook sees 0 %") && output.contains("hook=netfilter"), "{output}");
    drop((agent, rest));
    let output = network.node.run(|| meridian(&["check", "--hook", "netfilter"]).output()).unwrap().unwrap();
    assert!(output.status.success(), "nothing was sent: {}", String::from_utf8_lossy(&output.stdout));
    let check = || network.node.run(|| meridian(&["check", "--hook", "netfilter"]).output()).unwrap().unwrap();
    let output = while_sending(&network, check);
    let found = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{found}");
    assert!(found.contains("BAD      seen          netfilter: 0 of "), "{found}");
    assert!(found.contains("packets bypass it: use --hook tcx"), "{found}");
    assert!(found.contains("ok       seen          tcx: "), "{found}");
    drop(redirects);

    // The agent detects a bypass that starts later, and changes the hook.
    let mut agent = start("auto");
    let (output, mut rest) = agent.stderr_until("counting");
    assert!(output.contains("hook=netfilter"), "{output}");
    let redirects = redirect_neigh(&network);
    let output = while_sending(&network, || until(&mut rest, "packets are counted here now"));
    assert!(output.contains("the hook sees 0 %"), "{output}");
    assert!(output.contains("hook=tcx why=netfilter saw 0 % of what the devices sent"), "{output}");
    drop((agent, rest, redirects, network));
    before.is_restored();
}

/// Sends from the pod through the node while `work` runs.
fn while_sending<T>(network: &Network, work: impl FnOnce() -> T) -> T {
    let pod = &network.pod;
    let ports = || std::iter::repeat_n((0, PORT), 100);
    let send = || datagrams(pod, POD.of(IpVersion::V4), PEER.of(IpVersion::V4), 1400, ports());
    meanwhile(network, send, work)
}

/// Repeats `send` while `work` runs.
fn meanwhile<T>(network: &Network, send: impl Fn() + Sync, work: impl FnOnce() -> T) -> T {
    /// Stops the sender also when the test fails: reading from an agent ends with the test.
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let _sink = sink(&network.peer, PEER.of(IpVersion::V4), PORT);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                send();
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        });
        let _done = Done(&done);
        work()
    })
}

/// An agent with `auto`, which chooses netfilter on a node where nothing indicates a bypass.
fn agent(network: &Network, scratch: &Scratch) -> (Running, BufReader<ChildStderr>) {
    let (agent, output, rest) = started(network, scratch);
    assert!(output.contains("hook=netfilter"), "{output}");
    (agent, rest)
}

/// An agent with `auto`, and its log up to the start.
fn started(network: &Network, scratch: &Scratch) -> (Running, String, BufReader<ChildStderr>) {
    let zones = "zones:\n- {name: a, region: r, cidrs: [10.0.1.0/24, 10.0.2.0/24]}\n";
    let zones = scratch.file("zones.yaml", zones.as_bytes());
    let args = ["agent", "--zones-file", zones.to_str().unwrap(), "--hubble-socket", "off"];
    let quiet = ["--pair-log", "off", "--pin-dir", "off", "--hook", "auto"];
    let mut agent = network.node.run(|| Running::spawn(meridian(&args).args(quiet))).unwrap();
    let (output, rest) = agent.stderr_until("counting");
    (agent, output, rest)
}

/// The percentage that netfilter saw when the hook was changed to tcx.
fn share(output: &str) -> u64 {
    let (_, rest) = output.split_once("hook=tcx why=netfilter saw ").unwrap_or_else(|| panic!("{output}"));
    rest.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn half_of_the_traffic_past_the_hook_is_reported_as_half() {
    let _alone = alone();
    let scratch = Scratch::new("half");
    let network = Network::unattached(Options { flow_slots: 64, ..Options::default() }, Mtus(1500, 1500));
    let (agent, mut rest) = agent(&network, &scratch);
    let redirects = redirect_neigh(&network);
    let (pod, node) = (&network.pod, &network.node);
    let send = || {
        let ports = || std::iter::repeat_n((0, PORT), 50);
        datagrams(pod, POD.of(IpVersion::V4), PEER.of(IpVersion::V4), 1400, ports());
        datagrams(node, NODE.of(IpVersion::V4), PEER.of(IpVersion::V4), 1400, ports());
    };
    let output = meanwhile(&network, send, || until(&mut rest, "packets are counted here now"));
    assert!((45..=60).contains(&share(&output)), "{output}");
    drop((agent, rest, redirects));
}

#[test]
fn a_redirect_where_packets_arrive_is_noticed() {
    let _alone = alone();
    let scratch = Scratch::new("arrive");
    let network = Network::unattached(Options { flow_slots: 64, ..Options::default() }, Mtus(1500, 1500));
    let (agent, mut rest) = agent(&network, &scratch);
    // Like a load balancer that sends to a backend on another node.
    let redirects = redirect(&network, "up0", "up0");
    let peer = &network.peer;
    let send = || {
        // The TTL ends the packets after they come back once.
        let socket = peer.run(|| UdpSocket::bind((PEER.of(IpVersion::V4), 0))).unwrap().unwrap();
        socket.set_ttl(2).unwrap();
        (0..100).for_each(|_| drop(socket.send_to(&[0; 1400], ("10.1.0.5", PORT))));
    };
    let output = meanwhile(&network, send, || until(&mut rest, "packets are counted here now"));
    assert!(share(&output) <= 5, "{output}");
    drop((agent, rest, redirects));
}

#[test]
fn a_redirect_to_a_second_uplink_is_noticed() {
    let _alone = alone();
    let scratch = Scratch::new("second");
    let network = Network::unattached(Options { flow_slots: 64, ..Options::default() }, Mtus(1500, 1500));
    let other = Namespace::new("other").unwrap();
    configure(&network.node, "adding an uplink", async |links| {
        links.veth("up1", "eth0", other.as_raw_fd()).await?;
        links.up("up1", None).await?;
        links.address("up1", "10.0.3.1".parse().unwrap(), 24).await?;
        let index = links.index("up1").await?;
        // Like the second interface of a cloud machine.
        let route = RouteMessageBuilder::<Ipv4Addr>::new().output_interface(index).table_id(1000);
        links.handle().route().add(route.build()).execute().await
    })
    .unwrap();
    configure(&other, "setting up", async |links| {
        links.up("eth0", None).await?;
        links.address("eth0", "10.0.3.2".parse().unwrap(), 24).await
    })
    .unwrap();
    let (agent, mut rest) = agent(&network, &scratch);
    let redirects = redirect(&network, "pod0", "up1");
    let pod = &network.pod;
    let ports = || std::iter::repeat_n((0, PORT), 100);
    let send = || datagrams(pod, POD.of(IpVersion::V4), "10.0.3.2".parse().unwrap(), 1400, ports());
    let output = meanwhile(&network, send, || until(&mut rest, "packets are counted here now"));
    assert!(share(&output) <= 5, "{output}");
    drop((agent, rest, redirects));
}

/// A pod on a macvlan child of the uplink; `None` if the kernel has none.
fn macvlan_pod(network: &Network) -> Option<()> {
    let added = network.node.run(|| {
        let add = ["link", "add", "link", "up0", "name", "mv0", "type", "macvlan", "mode", "bridge"];
        Command::new("ip").args(add).output().unwrap()
    });
    let added = added.unwrap();
    if !added.status.success() {
        println!("skipped: this kernel has no macvlan: {}", String::from_utf8_lossy(&added.stderr));
        return None;
    }
    let pod = &network.pod;
    configure(&network.node, "moving it", async |links| {
        let moved = LinkUnspec::new_with_name("mv0").setns_by_fd(pod.as_raw_fd());
        links.handle().link().set(moved.build()).execute().await
    })
    .unwrap();
    configure(&network.pod, "setting up", async |links| {
        links.up("mv0", None).await?;
        links.address("mv0", "10.0.2.9".parse().unwrap(), 24).await
    })
    .unwrap();
    Some(())
}

#[test]
fn pods_on_macvlan_children_of_the_uplink_are_noticed_before_they_send() {
    let _alone = alone();
    let scratch = Scratch::new("macvlan");
    let network = Network::unattached(Options { flow_slots: 64, ..Options::default() }, Mtus(1500, 1500));
    // The first such pod comes while the agent runs.
    let (later, mut rest) = agent(&network, &scratch);
    if macvlan_pod(&network).is_none() {
        return;
    }
    let output = until(&mut rest, "packets are counted here now");
    let why = "pods' devices over up0 (macvlan, ipvlan or VLAN) bypass netfilter";
    assert!(output.contains("hook=tcx") && output.contains(why) && !output.contains("the hook sees"), "{output}");
    drop((later, rest));
    // The pod was there before the agent.
    let (_agent, output, _rest) = started(&network, &scratch);
    assert!(output.contains("hook=tcx") && output.contains(why), "{output}");
    let check = network.node.run(|| meridian(&["check", "--duration", "1s"]).output()).unwrap().unwrap();
    let found = String::from_utf8(check.stdout).unwrap();
    assert!(found.contains(&format!("hook          tcx: {why}")), "{found}");
    // A pod's bytes are whole from the first one on.
    let _sink = sink(&network.peer, PEER.of(IpVersion::V4), PORT);
    let ports = std::iter::repeat_n((0, PORT), 100);
    datagrams(&network.pod, "10.0.2.9".parse().unwrap(), PEER.of(IpVersion::V4), 1400, ports);
    let counted = format!("}} {}\n", 100 * (20 + 8 + 1400));
    let bytes = || {
        let page = network.node.run(|| crate::agent::get("/metrics").unwrap_or_default()).unwrap();
        page.lines()
            .filter(|line| line.starts_with("meridian_zone_bytes_total"))
            .fold(String::new(), |all, line| all + line + "\n")
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !bytes().contains(&counted) {
        assert!(std::time::Instant::now() < deadline, "{}", bytes());
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

#[test]
fn an_uplink_with_devices_of_the_node_itself_keeps_netfilter() {
    let _alone = alone();
    let scratch = Scratch::new("own-children");
    let network = Network::unattached(Options { flow_slots: 64, ..Options::default() }, Mtus(1500, 1500));
    let added = network.node.run(|| {
        let add = ["link", "add", "link", "up0", "name", "shim0", "up", "type", "macvlan", "mode", "bridge"];
        Command::new("ip").args(add).output().unwrap()
    });
    let added = added.unwrap();
    if !added.status.success() {
        println!("skipped: this kernel has no macvlan: {}", String::from_utf8_lossy(&added.stderr));
        return;
    }
    drop(agent(&network, &scratch));
}
