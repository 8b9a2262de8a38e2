//! Fills the settings into the instructions of the programs. The programs are built with placeholders, see
//! [`meridian_abi::settings`].

use super::Error;
use aya_obj::generated::bpf_insn;
use meridian_abi::settings::{FIELD, FIELD_STEP, HASH_KEYS, Settings, VALUE};
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
    fn keys_differ_by_seed_and_by_place() {
        let (one, other) = (hash_keys(1), hash_keys(2));
        let mut all: Vec<u32> = one.into_iter().chain(other).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 2 * HASH_KEYS);
    }
}
