//! An agent whose hook packets bypass says so.

use crate::{
    Scratch,
    machine::{Machine, alone},
    meridian,
    network::{
        Mtus, Network, PEER, POD,
        programs::redirect_neigh,
        traffic::{datagrams, sink},
    },
    running::Running,
};
use meridian::datapath::Options;
use meridian_abi::IpVersion;
use std::sync::atomic::{AtomicBool, Ordering};

const PORT: u16 = 9000;

#[test]
fn what_bypasses_the_hook_is_said() {
    let _alone = alone();
    let before = Machine::now();
    let scratch = Scratch::new("bypass");
    let zones = "zones:\n- {name: a, region: r, cidrs: [10.0.1.0/24, 10.0.2.1/32]}\n";
    let zones = scratch.file("zones.yaml", zones.as_bytes());
    let network = Network::unattached(Options { flow_slots: 64, ..Options::default() }, Mtus(1500, 1500));
    let redirects = redirect_neigh(&network);
    let args = ["agent", "--zones-file", zones.to_str().unwrap(), "--hubble-socket", "off", "--pair-log", "off"];
    let start = |hook: &str| network.node.run(|| Running::spawn(meridian(&args).args(["--hook", hook]))).unwrap();
    // Left alone it takes the hook that sees them.
    let mut agent = start("auto");
    let (said, _rest) = agent.stderr_until("counting");
    assert!(said.contains("hook=tcx") && said.contains("an eBPF program on pod0 may forward past netfilter"), "{said}");
    drop((agent, _rest));
    // Told otherwise it finds out.
    let mut agent = start("netfilter");
    let _sink = sink(&network.peer, PEER.of(IpVersion::V4), PORT);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Also where the test fails the agent ends, and with it what is read from it.
            while !done.load(Ordering::Relaxed) {
                let ports = std::iter::repeat_n((0, PORT), 100);
                datagrams(&network.pod, POD.of(IpVersion::V4), PEER.of(IpVersion::V4), 1400, ports);
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        });
        let (said, _rest) = agent.stderr_until("of what leaves this node");
        done.store(true, Ordering::Relaxed);
        assert!(said.contains("the hook sees 0 %") && said.contains("hook=netfilter"), "{said}");
    });
    drop((agent, redirects, network));
    before.is_restored();
}
