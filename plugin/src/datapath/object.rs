//! Loads the eBPF object: maps, relocations, settings from the kernel's BTF, programs.
//!
//! aya has no netfilter program type, so this module parses the object with aya-obj and loads the programs with
//! bpf(2).

use super::{
    Error, Hook,
    btf::Btf,
    functions, immediates,
    maps::{Map, Named},
    names,
    pins::{self, Pins},
    sys::{self, ProgramKind},
};
use aya::{include_bytes_aligned, maps::MapData};
use aya_obj::{Object, generated::bpf_insn};
use meridian_abi::{
    index, matrix,
    settings::{self, CALL_DYNPTR_FROM_SKB, CALL_RDONLY_CAST, Settings},
};
use std::{
    collections::{HashMap, HashSet},
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    sync::Arc,
};

/// The programs that build.rs embeds.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/meridian.bpf.o"));

/// The opcode of a call.
const CALL: u8 = 0x85;
/// `BPF_PSEUDO_KFUNC_CALL`, in the source register of a call: the immediate is a kernel function.
const KERNEL_FUNCTION: u8 = 2;

/// The options for loading the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The hook that counts packets.
    pub hook: Hook,
    /// The side of ZONE_MATRIX, at least `matrix::MIN_SLOTS`.
    pub matrix_slots: u32,
    /// Slots of each flow map, a power of two, at most [`index::MAX_ENTRIES`].
    pub flow_slots: u32,
    /// Bytes that an overlay puts before each packet, if they count; otherwise 0.
    pub overlay_header_len: u32,
    /// Counts in the map REENTRIES how often a run interrupts another one. For tests.
    pub count_reentries: bool,
    /// Takes no straight path: the core counts every packet. For tests, which compare the two.
    pub core_alone: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hook: Hook::default(),
            matrix_slots: matrix::MIN_SLOTS,
            flow_slots: index::MAX_ENTRIES,
            overlay_header_len: 0,
            count_reentries: false,
            core_alone: false,
        }
    }
}

/// Programs and maps in the kernel.
pub(super) struct Loaded {
    pub(super) programs: Programs,
    /// The maps by name, for programs that are loaded later.
    pub(super) maps: Named,
    /// The seed of the flow entries' hashes.
    seed: u64,
}

/// The programs of a hook.
pub(super) struct Programs {
    /// The programs at netfilter.
    pub(super) netfilter: Option<Netfilter>,
    /// The programs at the egress of traffic control.
    pub(super) egress: Option<Egress>,
    /// The programs at the ingress, with and without an Ethernet header.
    pub(super) ingress: Option<[OwnedFd; 2]>,
}

/// The programs to load: the verifier takes its time for each.
#[derive(Clone, Copy)]
pub(super) struct Parts {
    /// Those at netfilter.
    pub(super) netfilter: bool,
    /// Those at the egress of traffic control.
    pub(super) egress: bool,
    /// Those at the ingress.
    pub(super) ingress: bool,
}

impl Parts {
    /// Those that count what leaves at a hook.
    pub(super) const fn leaving(hook: Hook) -> Self {
        let netfilter = matches!(hook, Hook::Netfilter);
        Self { netfilter, egress: !netfilter, ingress: false }
    }
}

impl Programs {
    /// The programs at netfilter.
    pub(super) fn at_netfilter(&self) -> Result<&Netfilter, Error> {
        self.netfilter.as_ref().ok_or_else(|| not_loaded("netfilter"))
    }

    /// The programs at the egress.
    pub(super) fn at_egress(&self) -> Result<&Egress, Error> {
        self.egress.as_ref().ok_or_else(|| not_loaded("the egress"))
    }

    /// The programs at the ingress.
    pub(super) fn at_ingress(&self) -> Result<&[OwnedFd; 2], Error> {
        self.ingress.as_ref().ok_or_else(|| not_loaded("the ingress"))
    }
}

fn not_loaded(place: &str) -> Error {
    Error::Object { what: format!("no programs for {place} were loaded") }
}

/// The programs at the egress of traffic control. A clone is of the same programs.
#[derive(Clone)]
pub(super) struct Egress {
    /// The programs to attach, with and without an Ethernet header.
    pub(super) attached: Arc<[OwnedFd; 2]>,
    /// The programs that those leave unusual packets to; `None`: they count every packet themselves.
    pub(super) cores: Option<Arc<[OwnedFd; 2]>>,
}

/// The programs at netfilter, for IPv4 and IPv6.
pub(super) struct Netfilter {
    /// The attached programs.
    pub(super) entries: [OwnedFd; 2],
    /// The programs that the attached ones continue with.
    pub(super) cores: [OwnedFd; 2],
    /// The programs that those leave unusual packets to; `None`: they count every packet themselves.
    pub(super) unusual: Option<[OwnedFd; 2]>,
}

impl Loaded {
    /// Loads programs of a hook again, with the same maps, in the role `handover` while counting moves from one
    /// hook to another; see [`Settings::handover`].
    ///
    /// # Errors
    /// The kernel is too old, or refuses.
    pub(super) fn programs_for(&self, options: &Options, parts: Parts, handover: u32) -> Result<Programs, Error> {
        let kernel = kernel(options.hook)?;
        // Only the core writes notes and crosses them out.
        let options = &Options { core_alone: options.core_alone || handover != settings::COUNT, ..*options };
        let settings = Settings { handover, ..settings(kernel.as_ref(), options, self.seed)? };
        let mut object = parse()?;
        let shapes: HashMap<String, aya_obj::Map> = object.maps.drain().collect();
        let places = self.maps.iter();
        let places =
            places.filter_map(|(name, map)| Some((name.as_str(), map.fd().as_fd().as_raw_fd(), shapes.get(name)?)));
        let places: Vec<_> = places.collect();
        load_programs(&mut object, places, (options, parts), &settings, kernel.as_ref())
    }
}

/// Loads the object into the kernel; pinned maps are reused.
pub(super) fn load(options: &Options, pins: Option<&Pins>) -> Result<Loaded, Error> {
    let kernel = kernel(options.hook)?;
    let mut object = parse()?;
    let created = create_maps(&mut object, options, pins)?;
    let (maps, shapes): (Named, HashMap<_, _>) =
        created.into_iter().map(|(name, (data, shape))| ((name.clone(), Arc::new(data)), (name, shape))).unzip();
    let seed = names::begin(&Map::find(&maps, "PINNED_STATE")?)?;
    let places = maps.iter();
    let places =
        places.filter_map(|(name, map)| Some((name.as_str(), map.fd().as_fd().as_raw_fd(), shapes.get(name)?)));
    let settings = settings(kernel.as_ref(), options, seed)?;
    let parts = Parts { ingress: true, ..Parts::leaving(options.hook) };
    let programs =
        load_programs(&mut object, places.collect::<Vec<_>>(), (options, parts), &settings, kernel.as_ref())?;
    Ok(Loaded { programs, maps, seed })
}

/// The running kernel's type information, where the programs of a hook need it.
fn kernel(hook: Hook) -> Result<Option<Btf>, Error> {
    // First, to tell a kernel that is too old from an object that is wrong.
    hook.require()?;
    match hook {
        Hook::Netfilter => Ok(Some(Btf::of_kernel()?)),
        // The context of traffic control is the same on every kernel.
        Hook::Tcx | Hook::Clsact => Ok(None),
    }
}

fn malformed(error: &dyn std::error::Error) -> Error {
    Error::Object { what: error.to_string() }
}

/// The object, with its placeholders.
pub(super) fn parse() -> Result<Object, Error> {
    Object::parse(OBJECT).map_err(|error| malformed(&error))
}

/// Loads the programs of a hook with existing maps.
fn load_programs<'a>(
    object: &mut Object,
    maps: impl IntoIterator<Item = (&'a str, RawFd, &'a aya_obj::Map)>,
    (options, parts): (&Options, Parts),
    settings: &Settings,
    kernel: Option<&Btf>,
) -> Result<Programs, Error> {
    let types = functions::load_types(object)?;
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    let maps: Vec<_> = maps.into_iter().collect();
    let control = maps.iter().find(|(name, ..)| *name == "CONTROL").map(|(_, fd, _)| *fd);
    let control = control.ok_or_else(|| Error::Object { what: "no map CONTROL".into() })?;
    object.relocate_maps(maps.into_iter(), &text).map_err(|error| malformed(&error))?;
    object.relocate_calls(&text).map_err(|error| malformed(&error))?;

    let functions = match kernel {
        Some(kernel) => vec![
            (CALL_RDONLY_CAST, kernel.function("bpf_rdonly_cast")?),
            (CALL_DYNPTR_FROM_SKB, kernel.function("bpf_dynptr_from_skb")?),
        ],
        None => Vec::new(),
    };
    let program = |kind, name: &'static str| {
        let function = object
            .programs
            .get(name)
            .and_then(|program| object.functions.get(&program.function_key()))
            .ok_or_else(|| Error::Object { what: format!("no program {name}") })?;
        let mut instructions = function.instructions.clone();
        let types = sys::FunctionTypes { types: types.as_fd(), functions: &function.func_info.func_info };
        call_kernel_functions(&mut instructions, &functions);
        immediates::address_value(&mut instructions, control);
        immediates::fill(&mut instructions, settings)?;
        sys::load_typed_program(kind, name, &instructions, Some(types)).map_err(|(source, log)| {
            match source.raw_os_error() {
                Some(libc::EPERM) => Error::not_permitted("loading an eBPF program", source),
                _ => Error::Load { program: name, source, log },
            }
        })
    };
    let pair = |kind, names: [&'static str; 2]| Ok::<_, Error>([program(kind, names[0])?, program(kind, names[1])?]);
    // At clsact a program outlives this process without pins, and an array of programs does not.
    let is_straight = !options.core_alone && options.hook != Hook::Clsact;
    let at_netfilter = || -> Result<Netfilter, Error> {
        let [entries, cores] = [["postrouting_v4", "postrouting_v6"], ["core_v4", "core_v6"]];
        let (entries, cores) = (pair(ProgramKind::Netfilter, entries)?, pair(ProgramKind::Netfilter, cores)?);
        if !is_straight {
            return Ok(Netfilter { entries, cores, unusual: None });
        }
        let straight = pair(ProgramKind::Netfilter, ["straight_v4", "straight_v6"])?;
        Ok(Netfilter { entries, cores: straight, unusual: Some(cores) })
    };
    let at_egress = || -> Result<Egress, Error> {
        let egress = pair(ProgramKind::TrafficControl, ["tc_egress", "tc_egress_l3"])?;
        if !is_straight {
            return Ok(Egress { attached: egress.into(), cores: None });
        }
        let straight = pair(ProgramKind::TrafficControl, ["tc_straight", "tc_straight_l3"])?;
        Ok(Egress { attached: straight.into(), cores: Some(egress.into()) })
    };
    let at_ingress = || pair(ProgramKind::TrafficControl, ["tc_ingress", "tc_ingress_l3"]);
    Ok(Programs {
        netfilter: parts.netfilter.then(at_netfilter).transpose()?,
        egress: parts.egress.then(at_egress).transpose()?,
        ingress: parts.ingress.then(at_ingress).transpose()?,
    })
}

fn settings(kernel: Option<&Btf>, options: &Options, seed: u64) -> Result<Settings, Error> {
    let settings = Settings {
        matrix_slots: options.matrix_slots,
        count_reentries: options.count_reentries.into(),
        flow_slots: options.flow_slots,
        overlay_header_len: options.overlay_header_len,
        sees_ipsec_twice: (options.hook == Hook::Netfilter).into(),
        hash_keys: immediates::hash_keys(seed),
        ..Settings::default()
    };
    let Some(kernel) = kernel else { return Ok(settings) };
    Ok(Settings {
        skb_len: kernel.field_offset("sk_buff", "len")?,
        skb_data_len: kernel.field_offset("sk_buff", "data_len")?,
        skb_head: kernel.field_offset("sk_buff", "head")?,
        skb_data: kernel.field_offset("sk_buff", "data")?,
        skb_end: kernel.field_offset("sk_buff", "end")?,
        skb_network_header: kernel.field_offset("sk_buff", "network_header")?,
        skb_iif: kernel.field_offset("sk_buff", "skb_iif")?,
        shared_gso_size: kernel.field_offset("skb_shared_info", "gso_size")?,
        shared_gso_type: kernel.field_offset("skb_shared_info", "gso_type")?,
        shared_frag_list: kernel.field_offset("skb_shared_info", "frag_list")?,
        skb_next: kernel.field_offset("sk_buff", "next")?,
        state_out: kernel.field_offset("nf_hook_state", "out")?,
        device_ifindex: kernel.field_offset("net_device", "ifindex")?,
        device_flags: kernel.field_offset("net_device", "flags")?,
        device_mtu: kernel.field_offset("net_device", "mtu")?,
        // Its first member is a signed 64-bit integer.
        word_type: kernel.structure("timespec64")?,
        ..settings
    })
}

type Maps = HashMap<String, (MapData, aya_obj::Map)>;

fn create_maps(object: &mut Object, options: &Options, pins: Option<&Pins>) -> Result<Maps, Error> {
    let mut maps = HashMap::new();
    for (name, mut map) in object.maps.drain() {
        match name.as_str() {
            "ZONE_MATRIX" => map.set_max_entries(matrix::cells(options.matrix_slots)),
            "FLOWS_V4" | "FLOWS_V6" => map.set_max_entries(options.flow_slots),
            "FREE_V4" | "FREE_V6" => map.set_max_entries(options.flow_slots.div_ceil(index::CELLS)),
            _ => {}
        }
        let pins = pins.filter(|_| pins::MAPS.contains(&name.as_str()));
        let data = match pins.map(|pins| pins.map(&name)).transpose()?.flatten() {
            Some(pinned) => same_shape(&name, pinned, &map)?,
            None => {
                let data = MapData::create(map.clone(), &name, None).map_err(|error| Error::of_map(&name, error))?;
                pins.map(|pins| pins.pin_map(&name, data.fd().as_fd())).transpose()?;
                data
            }
        };
        maps.insert(name, (data, map));
    }
    Ok(maps)
}

/// Checks that a pinned map has the shape that the programs expect.
fn same_shape(name: &str, pinned: MapData, expected: &aya_obj::Map) -> Result<MapData, Error> {
    let info = pinned.info().map_err(|error| Error::of_map(name, error))?;
    let shape = (info.key_size(), info.value_size(), info.max_entries());
    if shape == (expected.key_size(), expected.value_size(), expected.max_entries()) {
        Ok(pinned)
    } else {
        Err(Error::PinnedShape { map: name.into() })
    }
}

fn call_kernel_functions(instructions: &mut [bpf_insn], functions: &[(u32, u32)]) {
    for instruction in instructions {
        let wanted = |(number, _): &&(u32, u32)| instruction.imm == *number as i32;
        if instruction.code == CALL
            && instruction.src_reg() == 0
            && let Some((_, id)) = functions.iter().find(wanted)
        {
            instruction.set_src_reg(KERNEL_FUNCTION);
            instruction.imm = *id as i32;
        }
    }
}
