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

fn instruction(code: u8, imm: i32) -> bpf_insn {
    bpf_insn { code, _bitfield_align_1: [], _bitfield_1: bpf_insn::new_bitfield_1(0, 0), off: 0, imm }
}

pub(super) fn release() -> String {
    nix::sys::utsname::uname().map_or_else(|_| "?".to_owned(), |name| name.release().to_string_lossy().into_owned())
}
