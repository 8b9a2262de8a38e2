//! Children of an uplink in other network namespaces: macvlan, ipvlan and VLAN devices of pods. Their packets pass the
//! uplink's traffic control, but no netfilter of the node.
//!
//! The kernel lists no devices of other namespaces. But each child that is up joins the group of all hosts at the
//! device below it, so the uplink has more members than this namespace has devices for.

use crate::bounded_file;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use std::{collections::BTreeMap, path::Path};

/// The multicast groups of all devices of the calling thread's namespace.
const GROUPS: &str = "/proc/thread-self/net/dev_mcast";
/// The largest list of groups that is read: a device has a few lines of 50 bytes.
const LARGEST: u64 = 16 << 20;
/// The Ethernet address of the group of all hosts (224.0.0.1), which every device joins.
const ALL_HOSTS: &str = "01005e000001";

/// The number of members of the group of all hosts, by device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Members(BTreeMap<u32, u64>);

impl Members {
    /// Reads the members; none if the kernel does not list them.
    pub(super) fn read() -> Self {
        bounded_file::read_text(Path::new(GROUPS), LARGEST).map(|text| Self::parse(&text)).unwrap_or_default()
    }

    /// Each line has the device's index and name, the number of members, the number of static ones, and the address.
    fn parse(text: &str) -> Self {
        let member = |line: &str| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let [ifindex, _, members, _, ALL_HOSTS] = words[..] else { return None };
            Some((ifindex.parse().ok()?, members.parse().ok()?))
        };
        Self(text.lines().filter_map(member).collect())
    }

    /// Whether the device has members beside itself.
    pub(super) fn has_others(&self, ifindex: u32) -> bool {
        self.0.get(&ifindex).is_some_and(|members| *members > 1)
    }

    /// Whether the device has more members than this namespace has devices for.
    pub(super) fn has_hidden(&self, ifindex: u32, links: &[LinkMessage]) -> bool {
        self.has_others(ifindex) && self.0.get(&ifindex).is_some_and(|members| *members > expected(ifindex, links))
    }
}

/// The number of members that a device has by this namespace's devices: itself, its children, and one for each device
/// to which it passes its groups on, below it or enslaved to it.
fn expected(ifindex: u32, links: &[LinkMessage]) -> u64 {
    let mut expected = 1;
    for message in links {
        let link = Place::of(message);
        let is_it = message.header.index == ifindex;
        let is_up = message.header.flags.contains(LinkFlags::Up);
        let is_below = link.is_child && link.lower == Some(ifindex) && is_up;
        expected += u64::from(is_it && link.is_child) + u64::from(is_below) + u64::from(link.master == Some(ifindex));
    }
    expected
}

/// The place of a device among others.
#[derive(Default)]
struct Place {
    /// Whether the device is of a kind that passes its groups on to the device below it.
    is_child: bool,
    /// The device below it, if that is in this namespace.
    lower: Option<u32>,
    /// The device that it is enslaved to, if that passes its groups on to it.
    master: Option<u32>,
}

impl Place {
    fn of(message: &LinkMessage) -> Self {
        let (mut place, mut is_elsewhere) = (Self::default(), false);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::Link(lower) => place.lower = Some(*lower),
                LinkAttribute::LinkNetNsId(_) => is_elsewhere = true,
                LinkAttribute::Controller(master) => place.master = Some(*master),
                LinkAttribute::LinkInfo(infos) => place.is_child = infos.iter().any(is_child),
                _ => {}
            }
        }
        place.lower = place.lower.filter(|_| !is_elsewhere);
        place
    }
}

const fn is_child(info: &LinkInfo) -> bool {
    matches!(
        info,
        LinkInfo::Kind(InfoKind::Vlan | InfoKind::MacVlan | InfoKind::MacVtap | InfoKind::IpVlan | InfoKind::IpVtap)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device of this namespace that is up.
    fn link(ifindex: u32, kind: Option<InfoKind>, attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        message.header.flags = LinkFlags::Up;
        message.attributes = attributes;
        message.attributes.extend(kind.map(|kind| LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])));
        message
    }

    fn members(members: u64) -> Members {
        Members(BTreeMap::from([(2, members)]))
    }

    #[test]
    fn members_are_those_of_the_group_of_all_hosts() {
        let text = "2    eth0            1     0     333300000001\n\
                    2    eth0            3     0     01005e000001\n\
                    7    a-name-of-15-by 12    1     01005e000001\n\
                    8    eth1            x     0     01005e000001\nnonsense\n\n";
        assert_eq!(Members::parse(text).0, BTreeMap::from([(2, 3), (7, 12)]));
        assert_eq!(Members::parse(""), Members::default());
        assert!(!Members::default().has_hidden(2, &[]), "a kernel that does not say");
    }

    #[test]
    fn more_members_than_devices_are_children_in_other_namespaces() {
        use LinkAttribute::{Controller, Link, LinkNetNsId};
        let uplink = || link(2, None, vec![]);
        assert!(!members(1).has_hidden(2, &[uplink()]));
        assert!(members(2).has_hidden(2, &[uplink()]));
        // A VLAN and a macvlan device of the node itself.
        let own =
            [uplink(), link(3, Some(InfoKind::Vlan), vec![Link(2)]), link(4, Some(InfoKind::MacVlan), vec![Link(2)])];
        assert!(!members(3).has_hidden(2, &own) && members(4).has_hidden(2, &own));
        // Devices that are no children, though they name the uplink: a tunnel, and a veth pair's end elsewhere.
        let others = [
            uplink(),
            link(3, Some(InfoKind::Vxlan), vec![Link(2)]),
            link(4, Some(InfoKind::Veth), vec![Link(2), LinkNetNsId(1)]),
            link(5, Some(InfoKind::MacVlan), vec![Link(2), LinkNetNsId(1)]),
        ];
        assert!(members(2).has_hidden(2, &others));
        // A child that is down is no member.
        let mut down = link(3, Some(InfoKind::MacVlan), vec![Link(2)]);
        down.header.flags = LinkFlags::empty();
        assert!(members(2).has_hidden(2, &[uplink(), down]));
        // A bond, or a network device of Azure's with its virtual function: the lower devices get its groups.
        let bond = [link(2, Some(InfoKind::Bond), vec![]), link(3, None, vec![Controller(2)])];
        assert!(!members(2).has_hidden(2, &bond) && members(3).has_hidden(2, &bond));
        // An uplink that is a child itself.
        let vlan = [link(9, None, vec![]), link(2, Some(InfoKind::Vlan), vec![Link(9)])];
        assert!(!members(2).has_hidden(2, &vlan) && members(3).has_hidden(2, &vlan));
    }
}
