//! A netfilter program of the simplest shape that measures connections: it copies the five parts of a connection's
//! name out of the packet through the kernel's dynptrs, and adds to an entry of a hash map. What Meridian costs is
//! compared with it. IPv4 over UDP and TCP only; no zones, no fragments, no tunnels.

use aya::maps::{HashMap, Map, MapData};
use aya_obj::{
    EbpfSectionKind,
    generated::bpf_insn,
    maps::{LegacyMap, bpf_map_def},
};
use meridian::datapath::{
    btf::Btf,
    sys::{self, ProgramKind},
};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

const HASH: u32 = 1;

/// Source, destination, ports, protocol.
type Key = [u32; 4];
/// Bytes and packets.
type Value = [u64; 2];

/// The program and its map.
pub struct StandIn {
    /// The loaded program.
    pub program: OwnedFd,
    connections: HashMap<MapData, Key, Value>,
}

impl StandIn {
    /// Loads it with room for `connections`.
    pub fn load(connections: u32) -> Self {
        let def = bpf_map_def {
            map_type: HASH,
            key_size: size_of::<Key>() as u32,
            value_size: size_of::<Value>() as u32,
            max_entries: connections,
            ..bpf_map_def::default()
        };
        let map = LegacyMap {
            def,
            inner_def: None,
            section_index: 0,
            section_kind: EbpfSectionKind::Maps,
            symbol_index: None,
            data: Vec::new(),
        };
        let map = MapData::create(aya_obj::Map::Legacy(map), "connections", None).unwrap();
        let instructions = instructions(map.fd().as_fd().as_raw_fd());
        let program = sys::load_program(ProgramKind::Netfilter, "stand_in", &instructions).unwrap();
        Self { program, connections: HashMap::try_from(Map::HashMap(map)).unwrap() }
    }

    /// The packets in the map.
    pub fn packets(&self) -> u64 {
        self.connections.iter().map(|entry| entry.unwrap().1[1]).sum()
    }
}

/// Offsets on the stack.
const DYNPTR: i16 = -16;
const HEADER: i16 = -40;
const PORTS: i16 = -48;
const KEY: i16 = -64;
const VALUE: i16 = -80;

const SKB: u8 = 6;
const IP: u8 = 7;
const BYTES: u8 = 8;
const STACK: u8 = 10;

/// A jump out of the program, whose distance is filled in when its end is known.
const OUT: i16 = i16::MAX;
/// A jump to where a new entry is made, likewise.
const MAKE: i16 = i16::MAX - 1;

fn instructions(map: i32) -> Vec<bpf_insn> {
    let kernel = Btf::of_kernel().unwrap();
    let function = |name| {
        let id = kernel.function(name).unwrap() as i32;
        // A call of a kernel function by its id.
        op(0x85, 0, 2, 0, id)
    };
    let helper = |number| op(0x85, 0, 0, 0, number);
    let address = |to, at: i16| [copy(to, STACK), add(to, i32::from(at))];
    let map = |to| [op(0x18, to, 1, 0, map), op(0, 0, 0, 0, 0)];
    let slice = |buffer: i16, len: i32| {
        [&address(1, DYNPTR)[..], &address(3, buffer), &[set(4, len), function("bpf_dynptr_slice")]].concat()
    };
    let mut code = vec![load(U64, SKB, 1, 8), copy(1, SKB), set(2, 0)];
    code.extend(address(3, DYNPTR));
    code.extend([function("bpf_dynptr_from_skb"), op(0x55, 0, 0, OUT, 0)]);
    code.extend([HEADER, HEADER + 8, HEADER + 16, PORTS].map(|at| op(0x7a, STACK, 0, at, 0)));
    // The IP header.
    code.push(set(2, 0));
    code.extend(slice(HEADER, 20));
    code.extend([op(0x15, 0, 0, OUT, 0), copy(IP, 0)]);
    for (width, from, to) in [(U32, 12, KEY), (U32, 16, KEY + 4), (U8, 9, KEY + 12)] {
        code.extend([load(width, 1, IP, from), store(U32, STACK, to, 1)]);
    }
    // The length, in network order; then the ports, behind the header's words of four bytes.
    code.extend([load(U16, BYTES, IP, 2), op(0xdc, BYTES, 0, 0, 16)]);
    code.extend([load(U8, 2, IP, 0), op(0x57, 2, 0, 0, 15), op(0x67, 2, 0, 0, 2)]);
    code.extend(slice(PORTS, 4));
    code.extend([op(0x15, 0, 0, OUT, 0), load(U32, 1, 0, 0), store(U32, STACK, KEY + 8, 1)]);
    // The entry.
    code.extend(map(1));
    code.extend(address(2, KEY));
    code.extend([helper(1), op(0x15, 0, 0, MAKE, 0)]);
    code.extend([copy(1, BYTES), op(0xdb, 0, 1, 0, 0), set(1, 1), op(0xdb, 0, 1, 8, 0), op(0x05, 0, 0, OUT, 0)]);
    let make = code.len();
    code.extend([store(U64, STACK, VALUE, BYTES), op(0x7a, STACK, 0, VALUE + 8, 1)]);
    code.extend(map(1));
    code.extend(address(2, KEY));
    code.extend(address(3, VALUE));
    code.extend([set(4, 0), helper(2)]);
    let out = code.len();
    // NF_ACCEPT
    code.extend([set(0, 1), op(0x95, 0, 0, 0, 0)]);
    for (at, instruction) in code.iter_mut().enumerate() {
        let to = match instruction.off {
            OUT => out,
            MAKE => make,
            _ => continue,
        };
        instruction.off = (to - at - 1) as i16;
    }
    code
}

const U8: u8 = 0x10;
const U16: u8 = 0x08;
const U32: u8 = 0x00;
const U64: u8 = 0x18;

fn load(width: u8, to: u8, from: u8, at: i16) -> bpf_insn {
    op(0x61 | width, to, from, at, 0)
}

fn store(width: u8, to: u8, at: i16, from: u8) -> bpf_insn {
    op(0x63 | width, to, from, at, 0)
}

fn copy(to: u8, from: u8) -> bpf_insn {
    op(0xbf, to, from, 0, 0)
}

fn set(to: u8, value: i32) -> bpf_insn {
    op(0xb7, to, 0, 0, value)
}

fn add(to: u8, value: i32) -> bpf_insn {
    op(0x07, to, 0, 0, value)
}

fn op(code: u8, to: u8, from: u8, off: i16, imm: i32) -> bpf_insn {
    bpf_insn { code, _bitfield_align_1: [], _bitfield_1: bpf_insn::new_bitfield_1(to, from), off, imm }
}
