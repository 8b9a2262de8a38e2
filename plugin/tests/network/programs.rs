//! eBPF programs as other projects attach them.

use super::Network;
use aya_obj::generated::bpf_insn;
use meridian::{
    datapath::sys::{self, ProgramKind, Side},
    netlab::links::configure,
};
use std::os::fd::{AsFd, OwnedFd};

/// An instruction of eBPF.
pub fn instruction(code: u8, register: u8, imm: i32) -> bpf_insn {
    let bits = bpf_insn::new_bitfield_1(register, 0);
    bpf_insn { code, _bitfield_align_1: [], _bitfield_1: bits, off: 0, imm }
}

/// Another project's program at tcx ingress of the pod's device, which forwards past netfilter.
pub fn redirect_neigh(network: &Network) -> OwnedFd {
    redirect(network, "pod0", "up0")
}

/// Another project's program at tcx ingress of a device of the node, which redirects every packet to another device,
/// past netfilter.
pub fn redirect(network: &Network, from: &str, to: &str) -> OwnedFd {
    let index = |name| configure(&network.node, "finding it", async |links| links.index(name).await).unwrap();
    let (from, to) = (index(from), index(to));
    // bpf_redirect_neigh(to, NULL, 0, 0), the helper 152.
    let [set, call, exit] = [0xb7, 0x85, 0x95];
    let program = [
        instruction(set, 1, to as i32),
        instruction(set, 2, 0),
        instruction(set, 3, 0),
        instruction(set, 4, 0),
        instruction(call, 0, 152),
        instruction(exit, 0, 0),
    ];
    let program = sys::load_program(ProgramKind::TrafficControl, "redirect", &program).unwrap();
    network.node.run(|| sys::attach_tcx(program.as_fd(), from, Side::Ingress)).unwrap().unwrap()
}
