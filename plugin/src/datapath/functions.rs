//! Types of the programs' functions. The object has none: the loader makes the few that the kernel wants.
//!
//! The verifier walks a function without a type along every path that calls it, and a global one once, with any
//! arguments. Loops that many paths lead to are in global functions.

use super::{Error, sys};
use aya_obj::{
    Function, Object,
    btf::{Btf, BtfParam, BtfType, Func, FuncLinkage, FuncProto, Int, IntEncoding},
    generated::bpf_func_info,
};
use std::os::fd::OwnedFd;

/// The global functions and the number of their arguments, all of which are numbers, as is their result.
const GLOBAL: [(&str, usize); 10] = [
    ("search_v4", 2),
    ("search_v6", 5),
    ("reserve_v4", 1),
    ("reserve_v6", 1),
    ("number_v4", 0),
    ("number_v6", 0),
    ("level_of_entries", 3),
    ("level_of_events", 2),
    ("tunnel_end", 2),
    ("pieces_from", 1),
];

/// Loads types for every function of the object. Called before the functions are linked into programs, which notes where
/// each of them begins.
///
/// # Errors
/// A global function is not there, or the kernel refuses.
pub(super) fn load_types(object: &mut Object) -> Result<OwnedFd, Error> {
    sys::load_types(&describe(object)?).map_err(|source| match source.raw_os_error() {
        Some(libc::EPERM) => Error::not_permitted("loading the types of eBPF functions", source),
        _ => Error::Load { program: "the types of functions", source, log: String::new() },
    })
}

/// Gives every function of the object a type; returns the types.
fn describe(object: &mut Object) -> Result<Vec<u8>, Error> {
    if let Some((missing, _)) = GLOBAL.iter().find(|(name, _)| !object.functions.values().any(|has| has.name == *name))
    {
        return Err(Error::Object { what: format!("no function {missing}") });
    }
    let mut types = Btf::new();
    let name = types.add_string("u64");
    let number = types.add_type(BtfType::Int(Int::new(name, 8, IntEncoding::None, 0)));
    let name = types.add_string("argument");
    let prototypes = [0, 1, 2, 3, 4, 5].map(|arguments| {
        let argument = BtfParam { name_offset: name, btf_type: number };
        types.add_type(BtfType::FuncProto(FuncProto::new(vec![argument; arguments], number)))
    });
    for function in object.functions.values_mut() {
        let global = GLOBAL.iter().find(|(name, _)| *name == function.name);
        let (linkage, arguments) =
            global.map_or((FuncLinkage::Static, 0), |(_, arguments)| (FuncLinkage::Global, *arguments));
        let name = types.add_string(&identifier(&function.name));
        let id = types.add_type(BtfType::Func(Func::new(name, prototypes[arguments], linkage)));
        set_type(function, id);
    }
    Ok(types.to_bytes())
}

/// The name as the kernel allows it.
fn identifier(symbol: &str) -> String {
    let allowed = |byte: char| if byte.is_ascii_alphanumeric() { byte } else { '_' };
    symbol.chars().take(MAX_NAME).map(allowed).collect()
}

/// The longest name, in bytes.
const MAX_NAME: usize = 127;

fn set_type(function: &mut Function, type_id: u32) {
    function.func_info.func_info = vec![bpf_func_info { insn_off: 0, type_id }];
    function.func_info.num_info = 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::{btf, object};

    #[test]
    fn every_function_has_a_type_and_those_with_loops_are_global() {
        let mut object = object::parse().unwrap();
        let types = btf::Btf::parse(describe(&mut object).unwrap()).unwrap();
        for (name, _) in GLOBAL {
            let id = types.function(name).unwrap();
            let function = object.functions.values().find(|function| function.name == name).unwrap();
            assert_eq!(function.func_info.func_info.iter().map(|info| info.type_id).collect::<Vec<_>>(), [id]);
        }
        assert!(object.functions.values().all(|function| function.func_info.num_info == 1));
    }

    #[test]
    fn a_global_function_that_is_missing_has_its_name_in_the_error() {
        let mut object = object::parse().unwrap();
        object.functions.retain(|_, function| function.name != "number_v6");
        let error = describe(&mut object).unwrap_err();
        assert!(error.to_string().contains("number_v6"), "{error}");
    }

    #[test]
    fn a_name_has_letters_of_c_and_an_end() {
        assert_eq!(identifier("_ZN4core3ptr17h.llvm.1$E"), "_ZN4core3ptr17h_llvm_1_E");
        assert_eq!(identifier(&"a".repeat(300)).len(), MAX_NAME);
    }
}
