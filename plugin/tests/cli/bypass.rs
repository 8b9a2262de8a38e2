//! An agent whose hook packets bypass says so, and takes another one.

use crate::{
    Scratch,
    machine::{Machine, alone},
    meridian,
    network::{
        Mtus, Network, PEER, POD,
        programs::redirect_neigh,
        traffic::{datagrams, sink},
    },
    running::{Running, until},
};
use meridian::datapath::Options;
use meridian_abi::IpVersion;
use std::sync::atomic::{AtomicBool, Ordering};

const PORT: u16 = 9000;

#[test]
fn what_bypasses_the_hook_is_said_and_the_hook_is_changed() {
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
    // Left alone it takes the hook that sees them.
    let mut agent = start("auto");
    let (said, _rest) = agent.stderr_until("counting");
    assert!(said.contains("hook=tcx") && said.contains("an eBPF program on pod0 may forward past netfilter"), "{said}");
    drop((agent, _rest));
    // Told otherwise it finds out, and does as it was told.
    let mut agent = start("netfilter");
    let (said, rest) = while_sending(&network, || agent.stderr_until("of what leaves this node"));
    assert!(said.contains("the hook sees 0 %") && said.contains("hook=netfilter"), "{said}");
    drop((agent, rest));
    let said = network.node.run(|| meridian(&["check", "--hook", "netfilter"]).output()).unwrap().unwrap();
    assert!(said.status.success(), "nothing was sent: {}", String::from_utf8_lossy(&said.stdout));
    let check = || network.node.run(|| meridian(&["check", "--hook", "netfilter"]).output()).unwrap().unwrap();
    let said = while_sending(&network, check);
    let found = String::from_utf8(said.stdout).unwrap();
    assert_eq!(said.status.code(), Some(1), "{found}");
    assert!(found.contains("BAD      seen          netfilter: 0 of "), "{found}");
    assert!(found.contains("packets bypass it: use --hook tcx"), "{found}");
    assert!(found.contains("ok       seen          tcx: "), "{found}");
    drop(redirects);

    // What comes later it finds out, too, and changes the hook.
    let mut agent = start("auto");
    let (said, mut rest) = agent.stderr_until("counting");
    assert!(said.contains("hook=netfilter"), "{said}");
    let redirects = redirect_neigh(&network);
    let said = while_sending(&network, || until(&mut rest, "packets are counted here now"));
    assert!(said.contains("the hook sees 0 %"), "{said}");
    assert!(said.contains("hook=tcx why=netfilter saw 0 % of what the devices sent"), "{said}");
    drop((agent, rest, redirects, network));
    before.is_restored();
}

/// Sends through the node meanwhile.
fn while_sending<T>(network: &Network, work: impl FnOnce() -> T) -> T {
    /// Ends the sender also where the test fails: what is read from an agent ends with the test.
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let _sink = sink(&network.peer, PEER.of(IpVersion::V4), PORT);
    let (done, pod) = (AtomicBool::new(false), &network.pod);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let ports = std::iter::repeat_n((0, PORT), 100);
                datagrams(pod, POD.of(IpVersion::V4), PEER.of(IpVersion::V4), 1400, ports);
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        });
        let _done = Done(&done);
        work()
    })
}
