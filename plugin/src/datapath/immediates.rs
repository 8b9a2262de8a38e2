//! Fills the settings into the instructions of the programs. The programs are built with placeholders, see
//! [`meridian_abi::settings`].

use super::Error;
use aya_obj::generated::{BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE, bpf_insn};
use meridian_abi::settings::{FIELD, FIELD_STEP, HASH_KEYS, Settings, VALUE};
use std::os::fd::RawFd;
use zerocopy::IntoBytes;

/// A 64-bit immediate takes two instructions, of which the second one is data.
const LOAD_64: u8 = 0x18;
/// Moves an immediate into a register.
const MOVE: [u8; 2] = [0xb7, 0xb4];
/// Adds an immediate to a register: the compiler would have folded a field's placeholder into an address.
const ADD: [u8; 2] = [0x07, 0x04];
/// The lowest bits of an instruction that loads from memory.
const LOAD: u8 = 0x01;
const CLASS: u8 = 0x07;

/// Makes addresses of a map with one value addresses of that value (Linux 5.2): a program needs no look-up.
pub(super) fn address_value(instructions: &mut [bpf_insn], map: RawFd) {
    let mut at = 0;
    while let [instruction, rest, ..] = &mut instructions[at..] {
        if instruction.code != LOAD_64 {
            at += 1;
            continue;
        }
        if u32::from(instruction.src_reg()) == BPF_PSEUDO_MAP_FD && instruction.imm == map {
            instruction.set_src_reg(BPF_PSEUDO_MAP_VALUE as u8);
            // The offset in the value.
            rest.imm = 0;
        }
        at += 2;
    }
}

/// Replaces every placeholder by its setting.
///
/// # Errors
/// A placeholder is in an instruction of another kind, or a field's offset does not fit an instruction.
pub(super) fn fill(instructions: &mut [bpf_insn], settings: &Settings) -> Result<(), Error> {
    let mut all = instructions.iter_mut();
    while let Some(instruction) = all.next() {
        if instruction.code == LOAD_64 {
            all.next();
            continue;
        }
        if let Some(value) = setting(settings, instruction.imm.wrapping_sub(VALUE)) {
            require(MOVE.contains(&instruction.code), instruction)?;
            instruction.imm = value.cast_signed();
        } else if ADD.contains(&instruction.code) {
            require(field(settings, instruction.imm).is_none(), instruction)?;
        }
        if instruction.code & CLASS == LOAD
            && let Some(offset) = field(settings, instruction.off.into())
        {
            let what = || Error::Object { what: format!("a field at {offset} is out of an instruction's reach") };
            instruction.off = offset.try_into().map_err(|_| what())?;
        }
    }
    Ok(())
}

/// The setting at an offset; `None` if the offset is not one of a setting.
fn setting(settings: &Settings, at: i32) -> Option<u32> {
    let at = usize::try_from(at).ok().filter(|at| at % 4 == 0)?;
    let bytes = settings.as_bytes().get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// The field's offset that a placeholder stands for.
fn field(settings: &Settings, placeholder: i32) -> Option<u32> {
    let at = placeholder.checked_sub(FIELD.into())?;
    let step = i32::from(FIELD_STEP);
    setting(settings, at / step).filter(|_| at % step == 0)
}

fn require(is_known: bool, instruction: &bpf_insn) -> Result<(), Error> {
    let what = || format!("a setting in an instruction of the kind {:#04x}", instruction.code);
    if is_known { Ok(()) } else { Err(Error::Object { what: what() }) }
}

/// The key of the flow entries' hashes that belongs to a seed: words that look independent to everybody who does not
/// know the seed (SplitMix64).
pub(super) fn hash_keys(seed: u64) -> [u32; HASH_KEYS] {
    let mut state = seed;
    std::array::from_fn(|_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        // A multiplier must not be zero.
        (word >> 32) as u32 | 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    fn instruction(code: u8, off: i16, imm: i32) -> bpf_insn {
        bpf_insn { code, _bitfield_align_1: [], _bitfield_1: bpf_insn::new_bitfield_1(1, 2), off, imm }
    }

    fn settings() -> Settings {
        Settings { flow_slots: 0x8000_0001, device_mtu: 56, ..Settings::default() }
    }

    const SLOTS: i32 = VALUE + offset_of!(Settings, flow_slots) as i32;
    const MTU: i16 = FIELD + FIELD_STEP * offset_of!(Settings, device_mtu) as i16;

    #[test]
    fn values_and_offsets_are_filled_in_and_nothing_else_changes() {
        let mut program = [
            instruction(0xb7, 0, SLOTS),
            instruction(0x61, MTU, 0),
            instruction(LOAD_64, 0, SLOTS),
            instruction(0, 0, SLOTS),
            instruction(0xb7, MTU, 7),
            instruction(0x07, 0, 16),
            instruction(0x61, 16, 0),
        ];
        fill(&mut program, &settings()).unwrap();
        let filled: Vec<_> = program.iter().map(|instruction| (instruction.off, instruction.imm)).collect();
        let value = 0x8000_0001_u32.cast_signed();
        assert_eq!(filled, [(0, value), (56, 0), (0, SLOTS), (0, SLOTS), (MTU, 7), (0, 16), (16, 0)]);
    }

    #[test]
    fn a_placeholder_that_the_compiler_moved_elsewhere_is_refused() {
        for folded in [instruction(0x15, 0, SLOTS), instruction(0x47, 0, SLOTS), instruction(0x07, 0, MTU.into())] {
            assert!(fill(&mut [folded], &settings()).is_err(), "{:#x}", folded.code);
        }
        let far = Settings { device_mtu: 40_000, ..settings() };
        assert!(fill(&mut [instruction(0x61, MTU, 0)], &far).is_err());
    }

    #[test]
    fn the_address_of_one_map_becomes_that_of_its_value() {
        let load = |map, source| {
            let mut load = instruction(LOAD_64, 0, map);
            load.set_src_reg(source);
            load
        };
        let data = instruction(0, 0, LOAD_64.into());
        let mut program = [load(7, 1), data, load(8, 1), data, load(7, 0), data, instruction(0xb7, 0, 7), load(7, 1)];
        address_value(&mut program, 7);
        let sources: Vec<_> = program.iter().map(|instruction| (instruction.src_reg(), instruction.imm)).collect();
        let (kept, value) = ((2, LOAD_64.into()), (2, 0));
        assert_eq!(sources, [(2, 7), value, (1, 8), kept, (0, 7), kept, (2, 7), (1, 7)]);
    }

    #[test]
    fn keys_differ_by_seed_and_by_place() {
        let (one, other) = (hash_keys(1), hash_keys(2));
        let mut all: Vec<u32> = one.into_iter().chain(other).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 2 * HASH_KEYS);
    }
}
