//! The one build script of the userspace crate: the bindings from proto/, and the eBPF object
//! where the crate can embed it.

use prost::Message;
use std::{env, error::Error, fs, path::PathBuf};

/// The object in the repository. `MERIDIAN_EBPF_OBJECT` names another one, such as a fresh build.
const OBJECT: &str = "ebpf/meridian.bpf.o";
/// Struct is what `extensions` of our flows hold: who reads JSON must know it.
const PROTOS: [&str; 5] = [
    "observer/observer.proto",
    "peer/peer.proto",
    "meridian/v1/counters.proto",
    "meridian/v1/zones.proto",
    "google/protobuf/struct.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);

    println!("cargo::rerun-if-env-changed=MERIDIAN_EBPF_OBJECT");
    let object = env::var_os("MERIDIAN_EBPF_OBJECT").map_or_else(|| PathBuf::from(OBJECT), PathBuf::from);
    println!("cargo::rerun-if-changed={}", object.display());
    fs::copy(&object, out.join("meridian.bpf.o"))
        .map_err(|error| format!("{}: {error} (`make ebpf` builds it)", object.display()))?;

    println!("cargo::rerun-if-changed=../proto");
    let descriptors = protox::compile(PROTOS, ["../proto"])?;
    // Names, numbers and types, for masks, reflection and JSON; without the comments.
    let mut bare = descriptors.clone();
    bare.file.iter_mut().for_each(|file| file.source_code_info = None);
    fs::write(out.join("descriptors.bin"), bare.encode_to_vec())?;
    tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
