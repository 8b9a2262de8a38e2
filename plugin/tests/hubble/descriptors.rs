//! Every message, field, enum and method of Hubble's API equals that of Cilium's module.

use crate::programs::program;
use meridian::proto::DESCRIPTORS;
use prost::Message;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};
use std::{collections::BTreeSet, process::Command};

/// A line for each declaration on the wire: its name, number and type; for a field also its position, which decides
/// the order in JSON.
fn lines(set: &FileDescriptorSet) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let ours = ["flow", "observer", "peer", "relay"];
    for file in set.file.iter().filter(|file| ours.contains(&file.package())) {
        let package = file.package();
        file.message_type.iter().for_each(|message| of_message(&mut lines, package, message));
        file.enum_type.iter().for_each(|of| of_enum(&mut lines, package, of));
        for service in &file.service {
            for method in &service.method {
                lines.insert(format!(
                    "{package}.{}.{}: {} ({}) -> {} ({})",
                    service.name(),
                    method.name(),
                    method.input_type(),
                    method.client_streaming(),
                    method.output_type(),
                    method.server_streaming(),
                ));
            }
        }
    }
    lines
}

fn of_message(lines: &mut BTreeSet<String>, scope: &str, message: &DescriptorProto) {
    let name = format!("{scope}.{}", message.name());
    lines.insert(format!("{name}: message"));
    for (place, field) in message.field.iter().enumerate() {
        let oneof = field.oneof_index.map_or("", |index| message.oneof_decl[index as usize].name());
        lines.insert(format!(
            "{name}.{} = {}, at {place}: {:?} {:?} {} in {oneof:?}",
            field.name(),
            field.number(),
            field.label(),
            field.r#type(),
            field.type_name(),
        ));
    }
    message.nested_type.iter().for_each(|nested| of_message(lines, &name, nested));
    message.enum_type.iter().for_each(|of| of_enum(lines, &name, of));
}

fn of_enum(lines: &mut BTreeSet<String>, scope: &str, of: &EnumDescriptorProto) {
    for value in &of.value {
        lines.insert(format!("{scope}.{}: {} = {}", of.name(), value.name(), value.number()));
    }
}

#[test]
#[ignore = "needs the programs of conformance/hubble: scripts/test.sh hubble"]
fn every_message_of_hubble_is_on_the_wire_as_cilium_has_it() {
    let program = program("MERIDIAN_HUBBLE_DESCRIPTORS");
    let output = Command::new(program).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let theirs = lines(&FileDescriptorSet::decode(output.stdout.as_slice()).unwrap());
    let ours = lines(&FileDescriptorSet::decode(DESCRIPTORS).unwrap());
    assert!(theirs.len() > 500, "{}", theirs.len());
    let differ: Vec<String> = theirs
        .symmetric_difference(&ours)
        .map(|line| format!("only {}: {line}\n", if ours.contains(line) { "ours" } else { "theirs" }))
        .collect();
    assert!(differ.is_empty(), "{}", differ.concat());
}
