//! Programs that do nothing, which test the kernel's features and measure the cost of any program.

use super::{
    Error,
    sys::{self, ProgramKind},
};
use aya_obj::generated::bpf_insn;
use std::os::fd::OwnedFd;

/// Loads a traffic control program that does nothing.
///
/// # Errors
/// The kernel refuses the program.
pub fn next() -> Result<OwnedFd, Error> {
    // r0 = -1 (TCX_NEXT); exit
    let next = [instruction(0xb7, -1), instruction(0x95, 0)];
    sys::load_program(ProgramKind::TrafficControl, "next", &next).map_err(|(source, log)| Error::Load {
        program: "next",
        source,
        log,
    })
}

/// Loads a netfilter program that does nothing.
///
/// # Errors
/// The kernel has no netfilter programs, or refuses the program.
pub fn accept_all() -> Result<OwnedFd, Error> {
    // r0 = 1 (NF_ACCEPT); exit
    let accept = [instruction(0xb7, 1), instruction(0x95, 0)];
    sys::load_program(ProgramKind::Netfilter, "accept_all", &accept).map_err(|(source, _)| {
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Error::not_permitted("loading an eBPF program", source),
            Some(libc::ENOSYS) => Error::not_permitted("the bpf system call", source),
            _ => Error::NoNetfilter { release: release(), source },
        }
    })
}

/// Loads a program that exchanges a word atomically, as ours do when they make a flow entry.
///
/// # Errors
/// The kernel has no such instruction, or does not permit eBPF.
pub(super) fn atomic_exchange() -> Result<(), Error> {
    const STACK: u8 = 10;
    let on_stack = |code, imm| bpf_insn { off: -8, ..with_registers(code, imm, STACK, 1) };
    // r1 = 0; *(u64 *)(r10 - 8) = r1; r1 = xchg_64(r10 - 8, r1); r0 = -1; exit
    let exchange = [
        with_registers(0xb7, 0, 1, 0),
        on_stack(0x7b, 0),
        on_stack(0xdb, 0xe1),
        instruction(0xb7, -1),
        instruction(0x95, 0),
    ];
    match sys::load_program(ProgramKind::TrafficControl, "exchange", &exchange) {
        Ok(_) => Ok(()),
        Err((source, log)) => Err(match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Error::not_permitted("loading an eBPF program", source),
            Some(libc::ENOSYS) => Error::not_permitted("the bpf system call", source),
            Some(libc::EINVAL) => Error::NoAtomicExchange { release: release(), source },
            _ => Error::Load { program: "exchange", source, log },
        }),
    }
}

fn instruction(code: u8, imm: i32) -> bpf_insn {
    with_registers(code, imm, 0, 0)
}

fn with_registers(code: u8, imm: i32, to: u8, from: u8) -> bpf_insn {
    bpf_insn { code, _bitfield_align_1: [], _bitfield_1: bpf_insn::new_bitfield_1(to, from), off: 0, imm }
}

pub(super) fn release() -> String {
    nix::sys::utsname::uname().map_or_else(|_| "?".to_owned(), |name| name.release().to_string_lossy().into_owned())
}
