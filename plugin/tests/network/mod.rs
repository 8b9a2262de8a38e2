//! A pod, its node and a peer at the other end of the wire, with both address families; and the traffic on the wire.
#![allow(dead_code, reason = "not every test binary needs all of it")]

mod bpf_fs;
pub mod ethtool;
mod link_scoped;
pub mod programs;
pub mod traffic;

pub use bpf_fs::BpfFs;
use ipnetwork::IpNetwork;
use link_scoped::LinkScoped;
use meridian::{
    datapath::{Datapath, Device, Devices, Hook, Options, devices},
    netlab::{
        links::{Links, configure, sysctl},
        namespace::Namespace,
    },
    zones::{Place, Placement, Slots, Table, Zone},
};
use meridian_abi::{Counter, IpVersion, matrix::Direction, stats::Stat, zone::PrefixKind};
use rtnetlink::packet_route::{
    link::{LinkAttribute, Stats64},
    neighbour::NeighbourState,
};
use std::{
    collections::BTreeMap,
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
    process::{Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// The reason to skip a comparison after the wire lost packets.
pub const NO_TRUTH: &str = "the wire lost packets: there is no truth";

pub const VERSIONS: [IpVersion; 2] = [IpVersion::V4, IpVersion::V6];

/// An address in each family.
#[derive(Clone, Copy)]
pub struct Both(Ipv4Addr, Ipv6Addr);

impl Both {
    pub const fn new(v4: [u8; 4], v6: [u16; 8]) -> Self {
        let [a, b, c, d, e, f, g, h] = v6;
        Self(Ipv4Addr::new(v4[0], v4[1], v4[2], v4[3]), Ipv6Addr::new(a, b, c, d, e, f, g, h))
    }

    pub fn of(self, version: IpVersion) -> IpAddr {
        match version {
            IpVersion::V4 => self.0.into(),
            IpVersion::V6 => self.1.into(),
        }
    }
}

pub const POD: Both = Both::new([10, 0, 1, 2], [0xfd00, 1, 0, 0, 0, 0, 0, 2]);
pub const GATEWAY: Both = Both::new([10, 0, 1, 1], [0xfd00, 1, 0, 0, 0, 0, 0, 1]);
pub const NODE: Both = Both::new([10, 0, 2, 1], [0xfd00, 2, 0, 0, 0, 0, 0, 1]);
pub const PEER: Both = Both::new([10, 0, 2, 2], [0xfd00, 2, 0, 0, 0, 0, 0, 2]);
/// More addresses of the peer: a database outside the cluster, and a client on the internet.
pub const DATABASE: Both = Both::new([10, 9, 8, 7], [0xfd00, 9, 0, 0, 0, 0, 0, 7]);
pub const CLIENT: Both = Both::new([9, 9, 9, 9], [0x2620, 0xfe, 0, 0, 0, 0, 0, 9]);

/// The zones with their prefixes. The node and its pod are in `a`.
const ZONES: [(&str, &str, PrefixKind); 10] = [
    ("10.0.1.0/24", "a", PrefixKind::Cluster),
    ("10.0.2.1/32", "a", PrefixKind::Cluster),
    ("fd00:1::/64", "a", PrefixKind::Cluster),
    ("fd00:2::1/128", "a", PrefixKind::Cluster),
    ("10.0.2.2/32", "b", PrefixKind::Cluster),
    ("fd00:2::2/128", "b", PrefixKind::Cluster),
    ("10.1.0.0/24", "b", PrefixKind::Cluster),
    ("fd00:a::/64", "b", PrefixKind::Cluster),
    ("10.9.8.0/24", "c", PrefixKind::External),
    ("fd00:9::/64", "c", PrefixKind::External),
];

/// Source zone, destination zone, family, direction.
pub type Cell = (String, String, u8, Direction);
/// The non-zero cells of the matrix.
pub type Cells = BTreeMap<Cell, Counter>;

/// pod ── pod0 [node] up0 ── eth0 [peer]
pub struct Network {
    pub counting: Counting,
    pub pod: Namespace,
    pub node: Namespace,
    pub peer: Namespace,
    link_scoped: LinkScoped,
    /// The packets that were lost before the other end was up.
    lost: u64,
    /// One network at a time: packets that wait for a CPU may get lost on the wire.
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

/// The datapath that counts on the node.
pub struct Counting {
    pub datapath: Datapath,
    slots: Slots,
    table: Table,
}

/// MTUs of the pod's link and of the wire.
#[derive(Clone, Copy)]
pub struct Mtus(pub u32, pub u32);

impl Network {
    pub fn new(hook: Hook) -> Self {
        Self::with(Options { hook, ..Options::default() }, Mtus(1500, 1500))
    }

    pub fn with(options: Options, mtus: Mtus) -> Self {
        let mut network = Self::unattached(options, mtus);
        network.attach();
        network
    }

    /// The devices are set as discovery would find them; the programs are not attached.
    pub fn unattached(options: Options, Mtus(pod_mtu, mtu): Mtus) -> Self {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let [pod, node, peer] = ["pod", "node", "peer"].map(|name| Namespace::new(name).unwrap());
        for namespace in [&pod, &node, &peer] {
            for name in ["all", "default"] {
                sysctl(namespace, &format!("ipv6/conf/{name}/accept_dad"), "0").unwrap();
                sysctl(namespace, &format!("ipv6/conf/{name}/forwarding"), "1").unwrap();
                sysctl(namespace, &format!("ipv4/conf/{name}/rp_filter"), "0").unwrap();
            }
            sysctl(namespace, "ipv4/ip_forward", "1").unwrap();
            configure(namespace, "setting up", async |links| links.up("lo", None).await).unwrap();
        }
        configure(&node, "setting up", async |links| {
            links.veth("pod0", "eth0", pod.as_raw_fd()).await?;
            links.veth("up0", "eth0", peer.as_raw_fd()).await?;
            links.mtu("pod0", pod_mtu).await?;
            links.mtu("up0", mtu).await
        })
        .unwrap();
        // Started before the first packet passes.
        let link_scoped = peer.run(|| LinkScoped::new("eth0")).unwrap();
        let both = async |links: &Links, device: &str, address: Both, len: [u8; 2]| {
            links.address(device, address.0.into(), len[0]).await?;
            links.address(device, address.1.into(), len[1]).await
        };
        configure(&node, "setting up", async |links| {
            for (device, address) in [("pod0", GATEWAY), ("up0", NODE)] {
                links.up(device, None).await?;
                both(links, device, address, [24, 64]).await?;
            }
            for version in VERSIONS {
                let all = if version == IpVersion::V4 { "0.0.0.0/0" } else { "::/0" };
                links.route(all.parse().unwrap(), PEER.of(version)).await?;
            }
            Ok(())
        })
        .unwrap();
        for (namespace, address, gateway, mtu) in [(&pod, POD, GATEWAY, pod_mtu), (&peer, PEER, NODE, mtu)] {
            configure(namespace, "setting up", async |links| {
                links.mtu("eth0", mtu).await?;
                links.up("eth0", None).await?;
                both(links, "eth0", address, [24, 64]).await?;
                for version in VERSIONS {
                    let all = if version == IpVersion::V4 { "0.0.0.0/0" } else { "::/0" };
                    links.route(all.parse().unwrap(), gateway.of(version)).await?;
                }
                Ok(())
            })
            .unwrap();
        }
        configure(&peer, "setting up", async |links| {
            both(links, "lo", DATABASE, [32, 128]).await?;
            both(links, "lo", CLIENT, [32, 128]).await
        })
        .unwrap();
        neighbours(&[(&pod, "eth0", POD), (&node, "pod0", GATEWAY)]);
        neighbours(&[(&node, "up0", NODE), (&peer, "eth0", PEER)]);
        // Packets that the hooks see whole are segments on the wire.
        node.run(|| ethtool::without_segmentation("up0")).unwrap();
        let datapath = Datapath::load(options).unwrap();
        let mut counting = Counting { datapath, slots: Slots::default(), table: Table::new() };
        counting.apply(&ZONES);
        let lost = counters(&node, "up0").tx_dropped + counters(&peer, "eth0").rx_dropped;
        Self { counting, pod, node, peer, link_scoped, lost, _alone }
    }

    /// Finds the devices, as an agent does, and attaches the programs.
    pub fn attach(&mut self) {
        let Self { node, counting: Counting { datapath, .. }, .. } = self;
        let devices = node.run(|| devices::find(&[])).unwrap().unwrap();
        let attach = || {
            datapath.set_devices(devices)?;
            datapath.attach()
        };
        node.run(attach).unwrap().unwrap();
    }

    /// Whether the wire lost packets since the last call: a measurement in between is void. Later calls ignore these
    /// losses.
    pub fn has_lost(&mut self) -> bool {
        let lost = counters(&self.node, "up0").tx_dropped + counters(&self.peer, "eth0").rx_dropped;
        std::mem::replace(&mut self.lost, lost) != lost
    }

    /// The traffic of the node on the wire, without link-scoped packets.
    pub fn wire(&self) -> Counter {
        // Read until both counters belong to one moment, because neighbour discovery runs at any time.
        let (sent, arrived, of_link) = loop {
            let before = self.link_scoped.seen();
            let (sent, arrived) = (counters(&self.node, "up0"), counters(&self.peer, "eth0"));
            if self.link_scoped.seen() == before {
                break (sent, arrived, before);
            }
        };
        assert_eq!(sent.tx_dropped + arrived.rx_dropped, self.lost, "{NO_TRUTH}");
        let packets = arrived.rx_packets - of_link.packets;
        Counter { bytes: arrived.rx_bytes - of_link.bytes - 14 * packets, packets }
    }

    /// The traffic that `work` makes the node send: by the wire, and by the matrix. Waits until both agree, or until
    /// no more packets come.
    pub fn measure(&self, work: impl FnOnce()) -> Measured {
        let (wire, cells) = (self.wire(), self.counting.cells());
        work();
        let mut last = Measured::default();
        let mut same = 0;
        for _ in 0..100 {
            let now = Measured { wire: less(self.wire(), wire), cells: difference(self.counting.cells(), &cells) };
            let settled = now.wire == now.sent() && now.wire.packets > 0;
            same = if now == last { same + 1 } else { 0 };
            last = now;
            if settled && same >= 2 || same >= 40 {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        last
    }

    /// Finds the devices again, and counts on them.
    pub fn look_again(&mut self) {
        let Self { node, counting: Counting { datapath, .. }, .. } = self;
        let devices: Devices = node.run(|| devices::find(&[])).unwrap().unwrap();
        node.run(|| datapath.set_devices(devices)).unwrap().unwrap();
    }

    /// The devices that count.
    pub fn counting(&self) -> Vec<&str> {
        self.counting.datapath.devices().devices.iter().map(|device: &Device| device.name.as_str()).collect()
    }
}

impl Counting {
    /// Puts a table in force with the node in zone `a`.
    pub fn apply(&mut self, zones: &[(&str, &str, PrefixKind)]) {
        let mut table = Table::new();
        for (prefix, zone, kind) in zones {
            let place = Place::Zone(Arc::new(Zone { name: (*zone).into(), region: "r".into() }));
            let prefix: IpNetwork = prefix.parse().unwrap();
            table.insert(prefix, Placement { place, kind: *kind, origin: "test".into() });
        }
        self.slots.assign(table.placements());
        let before = std::mem::replace(&mut self.table, table);
        let changed: Vec<_> = before.networks().chain(self.table.networks()).collect();
        self.datapath.apply_zones(&self.table, changed, &self.slots).unwrap();
        let a = Place::Zone(Arc::new(Zone { name: "a".into(), region: "r".into() }));
        let slot = self.slots.of(&a, self.datapath.matrix_slots());
        self.datapath.set_node(slot, &self.table, &self.slots).unwrap();
    }

    /// Puts the zones in force again, in newly loaded programs.
    pub fn apply_again(&mut self) {
        (self.slots, self.table) = (Slots::restore(self.datapath.named_zones().to_vec()), Table::new());
        self.apply(&ZONES);
    }

    /// The non-zero cells of the matrix.
    pub fn cells(&self) -> Cells {
        let name = |slot| self.slots.place(slot).to_string();
        let cells = self.datapath.matrix().unwrap().into_iter();
        cells
            .map(|cell| ((name(cell.source), name(cell.destination), cell.version as u8, cell.direction), cell.counter))
            .collect()
    }

    pub fn stat(&self, stat: Stat) -> Counter {
        self.datapath.stat(stat).unwrap()
    }

    /// The sum of the matrix.
    pub fn all(&self) -> Counter {
        self.cells().into_values().sum()
    }

    /// The traffic to a zone.
    pub fn to(&self, zone: &str) -> Counter {
        let cells = self.cells().into_iter();
        cells.filter(|((_, destination, ..), _)| destination == zone).map(|(_, counter)| counter).sum()
    }
}

/// The traffic that the node sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    pub wire: Counter,
    pub cells: Cells,
}

impl Measured {
    /// The sum of all cells of sent traffic.
    pub fn sent(&self) -> Counter {
        let sent = self.cells.iter().filter(|((.., direction), _)| *direction == Direction::Egress);
        sent.map(|(_, counter)| *counter).sum()
    }

    /// Checks that the matrix equals the wire, in this one cell.
    #[track_caller]
    pub fn is_all_in(&self, source: &str, destination: &str, version: IpVersion) {
        let cell = (source.to_owned(), destination.to_owned(), version as u8, Direction::Egress);
        assert_eq!(self.cells, BTreeMap::from([(cell, self.wire)]), "the matrix (left) and the wire (right)");
        assert!(self.wire.packets > 0);
    }
}

fn counters(namespace: &Namespace, device: &str) -> Stats64 {
    configure(namespace, "reading the counters", async |links| links.counters(device).await).unwrap()
}

fn less(after: Counter, before: Counter) -> Counter {
    Counter { bytes: after.bytes - before.bytes, packets: after.packets - before.packets }
}

fn difference(after: Cells, before: &Cells) -> Cells {
    let less = |(cell, counter)| {
        let before = before.get(&cell).copied().unwrap_or_default();
        (cell, less(counter, before))
    };
    after.into_iter().map(less).filter(|(_, counter)| *counter != Counter::default()).collect()
}

/// Adds permanent neighbour entries at both ends of a link, so that no neighbour discovery is needed.
fn neighbours(ends: &[(&Namespace, &str, Both); 2]) {
    let hardware = ends.map(|(namespace, device, _)| {
        configure(namespace, "reading a hardware address", async |links| {
            use futures_util::TryStreamExt;
            let mut found = links.handle().link().get().match_name(device.to_owned()).execute();
            let link = found.try_next().await?.unwrap();
            let address = link.attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::Address(address) => Some(address),
                _ => None,
            });
            Ok((link.header.index, address.unwrap()))
        })
        .unwrap()
    });
    for (here, there) in [(0, 1), (1, 0)] {
        let ((namespace, ..), (index, _)) = (&ends[here], &hardware[here]);
        configure(namespace, "naming a neighbour", async |links| {
            for version in VERSIONS {
                let add = links.handle().neighbours().add(*index, ends[there].2.of(version));
                let add = add.state(NeighbourState::Permanent).replace();
                add.link_layer_address(&hardware[there].1).execute().await?;
            }
            Ok(())
        })
        .unwrap();
    }
}

/// Loads nftables rules in a namespace. Returns false if nft is not installed.
pub fn nft(namespace: &Namespace, rules: &str) -> bool {
    let load = || {
        let spawned = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let Ok(mut nft) = spawned else { return false };
        nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        let output = nft.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        true
    };
    namespace.run(load).unwrap()
}
