//! The kernel programs: a thin entry for each hook over one shared core.
//!
//! Built for bpfel-unknown-none; on the host this binary is empty.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    allow(internal_features, reason = "core has no atomic addition for this target; see maps::add"),
    feature(core_intrinsics, asm_experimental_arch)
)]

#[cfg(target_arch = "bpf")]
mod count;
#[cfg(target_arch = "bpf")]
mod entries;
#[cfg(target_arch = "bpf")]
mod events;
#[cfg(target_arch = "bpf")]
mod fast;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod netfilter;
mod room;
#[cfg(target_arch = "bpf")]
mod shares;
#[cfg(target_arch = "bpf")]
mod tc;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Nothing here panics: the verifier would refuse this loop.
    loop {}
}

/// The kernel lends `bpf_rdonly_cast` and the helpers used here to GPL-compatible programs only.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}
