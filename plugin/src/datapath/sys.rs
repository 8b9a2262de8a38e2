//! The bpf(2) commands that aya does not offer, or not for these programs: netfilter programs, links, batches,
//! frozen maps, pins, test runs.
//!
//! Every function is safe: sizes come from types, and a file descriptor of the wrong kind gives an error from the
//! kernel.

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_func_info, bpf_insn, bpf_prog_info, bpf_prog_type};
use std::{
    ffi::CString,
    io, mem,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    time::Duration,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// `BPF_NETFILTER`, the attach type.
const ATTACH_NETFILTER: u32 = 45;
/// `BPF_F_BEFORE`: without a relative, before all others.
const BEFORE: u32 = 1 << 3;
/// `NF_INET_POST_ROUTING`.
const POSTROUTING: u32 = 4;
/// The verifier's log is kept when a load fails, up to this many bytes.
const LOG_BYTES: usize = 1 << 20;

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: `attr` is a complete bpf_attr; its pointers come from the callers' slices, which live until this call
    // returns.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<bpf_attr>()) };
    i32::try_from(result).ok().filter(|result| *result >= 0).ok_or_else(io::Error::last_os_error)
}

fn empty_attr() -> bpf_attr {
    // SAFETY: bpf_attr is a union of plain data, for which all zeros is a value.
    unsafe { mem::zeroed() }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just returned this descriptor and nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The type of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramKind {
    /// `BPF_PROG_TYPE_NETFILTER` (Linux 6.4).
    Netfilter,
    /// `BPF_PROG_TYPE_SCHED_CLS`, for tcx and clsact.
    TrafficControl,
}

/// Loads types (BTF).
///
/// # Errors
/// The error of the system call.
pub fn load_types(types: &[u8]) -> io::Result<OwnedFd> {
    let mut attr = empty_attr();
    // SAFETY: the union member of BPF_BTF_LOAD.
    let load = unsafe { &mut attr.__bindgen_anon_7 };
    load.btf = types.as_ptr() as u64;
    load.btf_size = types.len() as u32;
    bpf(bpf_cmd::BPF_BTF_LOAD, &mut attr).map(owned)
}

/// Loads a program under a GPL-compatible licence.
///
/// # Errors
/// The kernel's error and the end of the verifier's log, empty where it wrote none.
pub fn load_program(kind: ProgramKind, name: &str, instructions: &[bpf_insn]) -> Result<OwnedFd, (io::Error, String)> {
    load_typed_program(kind, name, instructions, None)
}

/// The types of a program's functions.
#[derive(Clone, Copy)]
pub struct FunctionTypes<'a> {
    /// What [`load_types`] gave.
    pub types: BorrowedFd<'a>,
    /// The type of each function, by its first instruction.
    pub functions: &'a [bpf_func_info],
}

/// The same, with types for all of the program's functions.
///
/// # Errors
/// As above.
pub fn load_typed_program(
    kind: ProgramKind,
    name: &str,
    instructions: &[bpf_insn],
    types: Option<FunctionTypes<'_>>,
) -> Result<OwnedFd, (io::Error, String)> {
    let (program_type, attach_type) = match kind {
        ProgramKind::Netfilter => (32, ATTACH_NETFILTER),
        // The attach type is given when the program is attached.
        ProgramKind::TrafficControl => (bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS as u32, 0),
    };
    let load = |log: &mut [u8]| {
        let mut attr = empty_attr();
        // SAFETY: the union member of BPF_PROG_LOAD.
        let load = unsafe { &mut attr.__bindgen_anon_3 };
        load.prog_type = program_type;
        load.expected_attach_type = attach_type;
        load.insns = instructions.as_ptr() as u64;
        load.insn_cnt = instructions.len() as u32;
        load.license = c"Dual MIT/GPL".as_ptr() as u64;
        // The last byte stays zero.
        for (to, from) in load.prog_name.iter_mut().take(15).zip(name.bytes()) {
            *to = from as _;
        }
        if let Some(FunctionTypes { types, functions }) = types {
            load.prog_btf_fd = types.as_raw_fd() as u32;
            load.func_info_rec_size = size_of::<bpf_func_info>() as u32;
            load.func_info = functions.as_ptr() as u64;
            load.func_info_cnt = functions.len() as u32;
        }
        if !log.is_empty() {
            load.log_buf = log.as_mut_ptr() as u64;
            load.log_size = log.len() as u32;
            load.log_level = 1;
        }
        bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr).map(owned)
    };
    load(&mut []).or_else(|error| {
        let mut log = vec![0; LOG_BYTES];
        match load(&mut log) {
            Ok(program) => Ok(program),
            Err(_) => {
                // The kernel overwrites earlier output, so the text ends at the first zero.
                let text = log.split(|byte| *byte == 0).next().unwrap_or_default();
                let text = String::from_utf8_lossy(text);
                let last: Vec<&str> = text.lines().rev().take(12).collect();
                Err((error, last.into_iter().rev().collect::<Vec<_>>().join("\n")))
            }
        }
    })
}

/// Attaches a netfilter program at POSTROUTING in the calling thread's network namespace.
/// `family` is `AF_INET` or `AF_INET6`.
///
/// # Errors
/// The error of the system call; `EBUSY`: the priority is taken.
pub fn attach_postrouting(program: BorrowedFd<'_>, family: i32, priority: i32) -> io::Result<OwnedFd> {
    let mut attr = empty_attr();
    // SAFETY: the union members of BPF_LINK_CREATE for a netfilter program.
    unsafe {
        let link = &mut attr.link_create;
        link.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
        link.attach_type = ATTACH_NETFILTER;
        link.__bindgen_anon_3.netfilter.pf = family as u32;
        link.__bindgen_anon_3.netfilter.hooknum = POSTROUTING;
        link.__bindgen_anon_3.netfilter.priority = priority;
    }
    bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr).map(owned)
}

/// The direction of the packets that a traffic control program sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Packets that arrive.
    Ingress,
    /// Packets that leave.
    Egress,
}

impl Side {
    /// `BPF_TCX_INGRESS`, `BPF_TCX_EGRESS`: the attach types.
    const fn attach_type(self) -> u32 {
        match self {
            Self::Ingress => 46,
            Self::Egress => 47,
        }
    }
}

/// Attaches a traffic control program at tcx of a device, before all others.
///
/// # Errors
/// The error of the system call.
pub fn attach_tcx(program: BorrowedFd<'_>, ifindex: u32, side: Side) -> io::Result<OwnedFd> {
    let mut attr = empty_attr();
    // SAFETY: the union members of BPF_LINK_CREATE for a tcx program.
    unsafe {
        let link = &mut attr.link_create;
        link.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
        link.__bindgen_anon_2.target_ifindex = ifindex;
        link.attach_type = side.attach_type();
        link.flags = BEFORE;
    }
    bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr).map(owned)
}

/// The number of programs at tcx of a device.
///
/// # Errors
/// The error of the system call; `EINVAL`: it has no tcx.
pub fn query_tcx(ifindex: u32, side: Side) -> io::Result<u32> {
    let mut attr = empty_attr();
    attr.query.__bindgen_anon_1.target_ifindex = ifindex;
    attr.query.attach_type = side.attach_type();
    bpf(bpf_cmd::BPF_PROG_QUERY, &mut attr)?;
    // SAFETY: the kernel has written the number.
    Ok(unsafe { attr.query.__bindgen_anon_2.prog_cnt })
}

/// Replaces the program of a link.
///
/// # Errors
/// The error of the system call.
pub fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = empty_attr();
    attr.link_update.link_fd = link.as_raw_fd() as u32;
    attr.link_update.__bindgen_anon_1.new_prog_fd = program.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attr).map(drop)
}

/// Detaches a link, even if others hold it.
///
/// # Errors
/// The error of the system call.
pub fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = empty_attr();
    attr.link_detach.link_fd = link.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr).map(drop)
}

/// The device of a tcx link; 0 if the device is gone.
///
/// # Errors
/// The error of the system call.
pub fn tcx_device(link: BorrowedFd<'_>) -> io::Result<u32> {
    // struct bpf_link_info: type, id and program, then fields that depend on the type.
    const DEVICE_AT: usize = 16;
    let mut info = [0u8; 64];
    let mut attr = empty_attr();
    attr.info.bpf_fd = link.as_raw_fd() as u32;
    attr.info.info_len = info.len() as u32;
    attr.info.info = info.as_mut_ptr() as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    let device = info[DEVICE_AT..].first_chunk();
    Ok(device.map_or(0, |bytes| u32::from_ne_bytes(*bytes)))
}

/// The kernel's information about a program.
fn program_info(program: BorrowedFd<'_>) -> io::Result<bpf_prog_info> {
    // SAFETY: plain data, for which all zeros is a value.
    let mut info: bpf_prog_info = unsafe { mem::zeroed() };
    let mut attr = empty_attr();
    attr.info.bpf_fd = program.as_raw_fd() as u32;
    attr.info.info_len = size_of::<bpf_prog_info>() as u32;
    attr.info.info = (&raw mut info) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}

/// The number of instructions that the verifier processed for a program, over all paths.
///
/// # Errors
/// The error of the system call.
pub fn verified_instructions(program: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(program_info(program)?.verified_insns)
}

/// Makes the kernel measure the time of each program run, until the descriptor is closed.
///
/// # Errors
/// The error of the system call.
pub fn time_runs() -> io::Result<OwnedFd> {
    // SAFETY: the enumeration's only value, BPF_STATS_RUN_TIME, is 0.
    bpf(bpf_cmd::BPF_ENABLE_STATS, &mut empty_attr()).map(owned)
}

/// The total run time and the number of runs of a program while [`time_runs`] was open.
///
/// # Errors
/// The error of the system call.
pub fn run_time(program: BorrowedFd<'_>) -> io::Result<(Duration, u64)> {
    let info = program_info(program)?;
    Ok((Duration::from_nanos(info.run_time_ns), info.run_cnt))
}

/// Pins a map or a link in a bpf file system.
///
/// # Errors
/// The error of the system call, or a path with a zero byte.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = empty_attr();
    // SAFETY: the union member of BPF_OBJ_PIN.
    let pin = unsafe { &mut attr.__bindgen_anon_4 };
    pin.pathname = path.as_ptr() as u64;
    pin.bpf_fd = object.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr).map(drop)
}

/// Opens a pin in a bpf file system.
///
/// # Errors
/// The error of the system call, or a path with a zero byte.
pub fn get_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = empty_attr();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    bpf(bpf_cmd::BPF_OBJ_GET, &mut attr).map(owned)
}

/// Writes a map's element.
///
/// # Errors
/// The error of the system call; `E2BIG` or `ENOSPC`: the map is full.
pub fn update<K: IntoBytes + Immutable, V: IntoBytes + Immutable>(
    map: BorrowedFd<'_>,
    key: &K,
    value: &V,
) -> io::Result<()> {
    update_bytes(map, key, value.as_bytes())
}

/// Writes a map's element, with the value as bytes of the map's value size.
///
/// # Errors
/// As [`update`].
pub fn update_bytes<K: IntoBytes + Immutable>(map: BorrowedFd<'_>, key: &K, value: &[u8]) -> io::Result<()> {
    let mut attr = empty_attr();
    // SAFETY: the union members of BPF_MAP_UPDATE_ELEM.
    unsafe {
        let element = &mut attr.__bindgen_anon_2;
        element.map_fd = map.as_raw_fd() as u32;
        element.key = key.as_bytes().as_ptr() as u64;
        element.__bindgen_anon_1.value = value.as_ptr() as u64;
    }
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Reads a map's element.
///
/// # Errors
/// The error of the system call; `ENOENT`: there is no such element.
pub fn lookup<K: IntoBytes + Immutable, V: FromBytes>(map: BorrowedFd<'_>, key: &K) -> io::Result<V> {
    let mut value = V::new_zeroed();
    let mut attr = empty_attr();
    // SAFETY: the union members of BPF_MAP_LOOKUP_ELEM; the map's values have V's size.
    unsafe {
        let element = &mut attr.__bindgen_anon_2;
        element.map_fd = map.as_raw_fd() as u32;
        element.key = key.as_bytes().as_ptr() as u64;
        element.__bindgen_anon_1.value = (&raw mut value) as u64;
    }
    bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr).map(|_| value)
}

/// Deletes a map's element.
///
/// # Errors
/// The error of the system call; `ENOENT`: there is no such element.
pub fn delete<K: IntoBytes + Immutable>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    let mut attr = empty_attr();
    // SAFETY: the union member of BPF_MAP_DELETE_ELEM.
    let element = unsafe { &mut attr.__bindgen_anon_2 };
    element.map_fd = map.as_raw_fd() as u32;
    element.key = key.as_bytes().as_ptr() as u64;
    bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut attr).map(drop)
}

/// A map's first key; `None` if it is empty.
///
/// # Errors
/// The error of the system call.
pub fn first_key<K: FromBytes + IntoBytes>(map: BorrowedFd<'_>) -> io::Result<Option<K>> {
    let mut key = K::new_zeroed();
    let mut attr = empty_attr();
    // SAFETY: the union members of BPF_MAP_GET_NEXT_KEY; without a previous key the kernel writes the first one to
    // `key`, which has the size of the map's keys.
    unsafe {
        let element = &mut attr.__bindgen_anon_2;
        element.map_fd = map.as_raw_fd() as u32;
        element.key = 0;
        element.__bindgen_anon_1.next_key = key.as_mut_bytes().as_mut_ptr() as u64;
    }
    match bpf(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &mut attr) {
        Ok(_) => Ok(Some(key)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes elements in one call, as many as there are of both keys and values.
///
/// # Errors
/// The error of the system call: some of the elements may be written. The kernel has no such call for some maps (LPM
/// tries before Linux 5.13).
pub fn update_batch<K: IntoBytes + Immutable, V: IntoBytes + Immutable>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> io::Result<()> {
    let mut attr = empty_attr();
    // SAFETY: the union member of BPF_MAP_UPDATE_BATCH; both slices have at least `count` elements.
    let update = unsafe { &mut attr.batch };
    update.map_fd = map.as_raw_fd() as u32;
    update.keys = keys.as_ptr() as u64;
    update.values = values.as_ptr() as u64;
    update.count = keys.len().min(values.len()) as u32;
    bpf(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut attr).map(drop)
}

/// Makes a map read-only for userspace, so that the verifier treats its values as constants.
///
/// # Errors
/// The error of the system call.
pub fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = empty_attr();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_MAP_FREEZE, &mut attr).map(drop)
}

/// Reads a whole map, `batch` elements a call, and calls `visit` with each element. A value of a per-CPU map is given
/// as `values_per_key` values, one for each possible CPU. Where the kernel has no batch look-up for the map (per-CPU
/// arrays before Linux 5.13), elements are read one by one.
///
/// # Errors
/// The error of the system call.
pub fn read_all<K, V>(
    map: BorrowedFd<'_>,
    batch: usize,
    values_per_key: usize,
    mut visit: impl FnMut(&K, &[V]),
) -> io::Result<()>
where
    K: FromBytes + IntoBytes + Immutable + Clone,
    V: FromBytes + Clone,
{
    /// ENOTSUPP, the kernel's internal error for a map without this operation.
    const NOT_SUPPORTED: i32 = 524;
    let mut seen = false;
    let read = read_batches(map, batch, values_per_key, |key: &K, values: &[V]| {
        seen = true;
        visit(key, values);
    });
    match read {
        Err(error) if !seen && matches!(error.raw_os_error(), Some(libc::EINVAL | NOT_SUPPORTED)) => {
            read_one_by_one(map, values_per_key, visit)
        }
        read => read,
    }
}

/// Reads a whole map as [`read_all`] does, without batches.
///
/// # Errors
/// The error of the system call.
pub fn read_one_by_one<K, V>(
    map: BorrowedFd<'_>,
    values_per_key: usize,
    mut visit: impl FnMut(&K, &[V]),
) -> io::Result<()>
where
    K: FromBytes + IntoBytes + Immutable + Clone,
    V: FromBytes + Clone,
{
    let mut values = vec![V::new_zeroed(); values_per_key];
    let mut key: Option<K> = None;
    loop {
        let mut next = K::new_zeroed();
        let mut attr = empty_attr();
        // SAFETY: the union members of BPF_MAP_GET_NEXT_KEY; without a previous key the result is the first one.
        unsafe {
            let element = &mut attr.__bindgen_anon_2;
            element.map_fd = map.as_raw_fd() as u32;
            element.key = key.as_ref().map_or(0, |key| key.as_bytes().as_ptr() as u64);
            element.__bindgen_anon_1.next_key = (&raw mut next) as u64;
        }
        match bpf(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &mut attr) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
            other => other.map(drop)?,
        }
        let mut attr = empty_attr();
        // SAFETY: the union members of BPF_MAP_LOOKUP_ELEM; the buffer has room for a value of each CPU.
        unsafe {
            let element = &mut attr.__bindgen_anon_2;
            element.map_fd = map.as_raw_fd() as u32;
            element.key = next.as_bytes().as_ptr() as u64;
            element.__bindgen_anon_1.value = values.as_mut_ptr() as u64;
        }
        bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr)?;
        visit(&next, &values);
        key = Some(next);
    }
}

fn read_batches<K, V>(
    map: BorrowedFd<'_>,
    batch: usize,
    values_per_key: usize,
    mut visit: impl FnMut(&K, &[V]),
) -> io::Result<()>
where
    K: FromBytes + Clone,
    V: FromBytes + Clone,
{
    let mut batch = batch;
    // The kernel's position: a bucket or an index, or a copy of the last key.
    let mut bookmark = vec![0u8; size_of::<K>().max(4)];
    let mut first = true;
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    loop {
        keys.resize(batch, K::new_zeroed());
        values.resize(batch * values_per_key, V::new_zeroed());
        let mut next = bookmark.clone();
        let mut attr = empty_attr();
        // SAFETY: the union member of BPF_MAP_LOOKUP_BATCH.
        let lookup = unsafe { &mut attr.batch };
        lookup.map_fd = map.as_raw_fd() as u32;
        lookup.in_batch = if first { 0 } else { bookmark.as_ptr() as u64 };
        lookup.out_batch = next.as_mut_ptr() as u64;
        lookup.keys = keys.as_mut_ptr() as u64;
        lookup.values = values.as_mut_ptr() as u64;
        lookup.count = batch as u32;
        let result = bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr);
        // SAFETY: as above; the kernel has written the number of elements.
        let given = unsafe { attr.batch.count } as usize;
        let at_end = match result {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            // A bucket of the hash is larger than the batch.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && batch < 1 << 20 => {
                batch *= 2;
                continue;
            }
            Err(error) => return Err(error),
        };
        for (key, values) in keys.iter().zip(values.chunks(values_per_key)).take(given) {
            visit(key, values);
        }
        if at_end {
            return Ok(());
        }
        (bookmark, first) = (next, false);
    }
}

/// Runs a program on an Ethernet frame, `repeat` times, as if it left through the loopback device of the calling
/// thread's network namespace, and returns the program's last result. `family`, `AF_INET` or `AF_INET6`, is required for
/// a netfilter program; a traffic control program has none.
///
/// # Errors
/// The error of the system call.
pub fn test_run(program: BorrowedFd<'_>, frame: &[u8], family: Option<i32>, repeat: u32) -> io::Result<u32> {
    // struct nf_hook_state: the hook, the protocol family, and pointers that must be null. Without
    // it the kernel would run the program at LOCAL_OUT, with no network header set.
    let mut state = [0u8; 48];
    state[0] = POSTROUTING as u8;
    let mut attr = empty_attr();
    // SAFETY: the union member of BPF_PROG_TEST_RUN.
    let test = unsafe { &mut attr.test };
    test.prog_fd = program.as_raw_fd() as u32;
    test.data_in = frame.as_ptr() as u64;
    test.data_size_in = frame.len() as u32;
    if let Some(family) = family {
        state[1] = family as u8;
        test.ctx_in = state.as_ptr() as u64;
        test.ctx_size_in = state.len() as u32;
    }
    test.repeat = repeat;
    bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr)?;
    // SAFETY: as above; the kernel has written the result.
    Ok(unsafe { attr.test }.retval)
}
