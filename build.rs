//! The build script of the userspace crate: generates the bindings from `proto/`, and copies the eBPF object to where
//! the crate can embed it.

use prost::Message;
use prost_types::FileDescriptorSet;
use std::{env, error::Error, fs, path::PathBuf};

/// The object in the repository. `MERIDIAN_EBPF_OBJECT` names another one, such as a fresh build.
const OBJECT: &str = "ebpf/meridian.bpf.o";
/// The files to compile. Struct is one of them, because our flows' `extensions` hold it and readers of JSON need its
/// descriptor.
const PROTOS: [&str; 9] = [
    "observer/observer.proto",
    "peer/peer.proto",
    "meridian/v1/counters.proto",
    "meridian/v1/feed.proto",
    "meridian/v1/history.proto",
    "meridian/v1/reports.proto",
    "meridian/v1/saved.proto",
    "meridian/v1/zones.proto",
    "google/protobuf/struct.proto",
];

/// The codec that sends many small messages together.
const CODEC: Option<&str> = Some("crate::link::Codec");
/// The codec of thousands of streams that mostly wait.
const SMALL_CODEC: Option<&str> = Some("crate::link::SmallCodec");
/// Services by room: the folder for the generated code, the services, their codec. Feed and Reports serve thousands
/// of agents, so their codecs have small buffers. Hubble's and that of Reports examine what comes before they decode
/// it.
const SERVICES: [(&str, &[&str], Option<&str>); 6] = [
    ("hubble", &["Observer", "Peer"], Some("crate::hubble::Codec")),
    ("api", &["Counters", "Zones"], CODEC),
    ("controller", &["Controller"], CODEC),
    ("feed", &["Feed"], SMALL_CODEC),
    ("reports", &["Reports"], Some("crate::reports::Codec")),
    ("replication", &["History"], None),
];

/// Lints are for people's code.
const GENERATED: &str = r#"#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    reason = "generated code"
)]"#;

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);

    println!("cargo::rerun-if-env-changed=MERIDIAN_EBPF_OBJECT");
    let object = env::var_os("MERIDIAN_EBPF_OBJECT").map_or_else(|| PathBuf::from(OBJECT), PathBuf::from);
    println!("cargo::rerun-if-changed={}", object.display());
    fs::copy(&object, out.join("meridian.bpf.o"))
        .map_err(|error| format!("{}: {error} (`make ebpf` builds it)", object.display()))?;

    // A static program relocates itself two megabytes of pointers; packed they take a fiftieth (binutils 2.38, glibc 2.36).
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    if features.split(',').any(|feature| feature == "crt-static") && env::var("CARGO_CFG_TARGET_ARCH")? == "x86_64" {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }

    println!("cargo::rerun-if-changed=../proto");
    let descriptors = protox::compile(PROTOS, ["../proto"])?;
    // Names, numbers and types for masks, reflection and JSON, without comments.
    let mut bare = descriptors.clone();
    bare.file.iter_mut().for_each(|file| file.source_code_info = None);
    fs::write(out.join("descriptors.bin"), bare.encode_to_vec())?;
    fs::write(out.join("numbers.rs"), numbers(&bare))?;
    tonic_prost_build::configure()
        // One buffer is shared by all streams that send it.
        .bytes(".meridian.v1.FollowResponse.updates")
        .compile_fds(messages(&descriptors))?;
    for (folder, services, codec) in SERVICES {
        let folder = out.join(folder);
        fs::create_dir_all(&folder)?;
        let mut code = tonic_prost_build::configure()
            .build_transport(false)
            .server_mod_attribute(".", GENERATED)
            .client_mod_attribute(".", GENERATED)
            // Sent as the ring stores it, without decoding and encoding.
            .extern_path(".observer.GetFlowsResponse", "crate::hubble::Reply")
            .extern_path(".observer", "crate::proto::observer")
            .extern_path(".peer", "crate::proto::peer")
            .extern_path(".meridian.v1", "crate::proto::v1")
            .out_dir(folder);
        if let Some(codec) = codec {
            code = code.codec_path(codec);
        }
        code.compile_fds(alone(&descriptors, services))?;
    }
    Ok(())
}

/// All messages, without the services.
fn messages(all: &FileDescriptorSet) -> FileDescriptorSet {
    let mut messages = all.clone();
    for file in &mut messages.file {
        if !file.service.is_empty() {
            // Comments refer to positions in the file, which no longer match.
            file.source_code_info = None;
            file.service.clear();
        }
    }
    messages
}

/// The file with only these services.
fn alone(all: &FileDescriptorSet, services: &[&str]) -> FileDescriptorSet {
    let mut alone = all.clone();
    alone.file.retain_mut(|file| {
        file.service.retain(|of| services.contains(&of.name()));
        file.source_code_info = None;
        !file.service.is_empty()
    });
    alone
}

/// The field numbers of the messages of flows: a module for each message, a constant for each field.
fn numbers(files: &FileDescriptorSet) -> String {
    let mut text = String::new();
    for file in files.file.iter().filter(|file| ["flow", "observer"].contains(&file.package())) {
        for message in &file.message_type {
            text += &format!("/// `{}`.\npub mod {} {{\n", message.name(), message.name().to_lowercase());
            for field in &message.field {
                let (name, number) = (field.name().to_uppercase(), field.number());
                text += &format!("    /// `{}`.\n    pub const {name}: u64 = {number};\n", field.name());
            }
            text += "}\n";
        }
    }
    text
}
