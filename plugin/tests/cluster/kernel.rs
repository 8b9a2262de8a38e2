//! The zone table in the kernel.

use aya::maps::{Map, MapData, MapInfo, lpm_trie::LpmTrie};
use ipnetwork::IpNetwork;
use meridian_abi::control::Control;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The kind of default prefixes, which no table names.
const DEFAULT: u8 = 0;

/// The contents of an agent's kernel maps: the slot of each prefix, without default prefixes.
pub fn table(agent: u32) -> BTreeMap<IpNetwork, u16> {
    let maps = maps(agent);
    let epoch: u32 = {
        let control = MapData::from_id(maps["CONTROL"]).unwrap();
        let control = aya::maps::Array::<_, [u32; size_of::<Control>() / 4]>::try_from(Map::Array(control)).unwrap();
        control.get(&0, 0).unwrap()[0]
    };
    let name = if epoch & 1 == 1 { "ZONES_1" } else { "ZONES_0" };
    let zones = MapData::from_id(maps[name]).unwrap();
    let zones = LpmTrie::<_, [u8; 20], u32>::try_from(Map::LpmTrie(zones)).unwrap();
    let entries = zones.iter().map(|entry| {
        let (key, entry) = entry.unwrap();
        let (data, [slot_low, slot_high, kind, _]) = (key.data(), entry.to_ne_bytes());
        let length = (key.prefix_len() - 32) as u8;
        let address = match u32::from_ne_bytes(data[..4].try_into().unwrap()) {
            4 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(&data[4..8]).unwrap())),
            6 => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(&data[4..20]).unwrap())),
            version => panic!("IP version {version}"),
        };
        (IpNetwork::new(address, length).unwrap(), (u16::from_ne_bytes([slot_low, slot_high]), kind))
    });
    entries.filter(|(_, (_, kind))| *kind != DEFAULT).map(|(prefix, (slot, _))| (prefix, slot)).collect()
}

/// The maps of a process, by name.
fn maps(process: u32) -> BTreeMap<String, u32> {
    let of_descriptor = |entry: fs::DirEntry| -> Option<u32> {
        let text = fs::read_to_string(entry.path()).ok()?;
        text.lines().find_map(|line| line.strip_prefix("map_id:"))?.trim().parse().ok()
    };
    let descriptors = fs::read_dir(format!("/proc/{process}/fdinfo")).unwrap();
    let ids: BTreeSet<u32> = descriptors.flatten().filter_map(of_descriptor).collect();
    let name = |id: u32| (MapInfo::from_id(id).unwrap().name_as_str().unwrap_or_default().to_owned(), id);
    ids.into_iter().map(name).collect()
}
