//! ReplicaSet and Job, of which only the owner is needed.

use super::{
    super::facts::{Fact, Owner},
    read_object::ReadObject,
    reading::Reading,
};
use crate::identity::{KIND_BYTES, NAME_BYTES};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::{DynamicObject, PartialObjectMeta};
use std::sync::Arc;

/// The controlling owner among these. The API server takes texts of any length here.
pub(super) fn owner(references: Option<&[OwnerReference]>, reading: &mut Reading) -> Option<Arc<Owner>> {
    let controller = references?.iter().find(|reference| reference.controller == Some(true))?;
    let OwnerReference { kind, name, uid, .. } = controller;
    if kind.len() > KIND_BYTES || name.len() > NAME_BYTES || uid.len() > NAME_BYTES {
        reading.problem(format_args!("metadata.ownerReferences: a kind, name or uid is too long: {kind} {name} {uid}"));
        return None;
    }
    Some(Arc::new(Owner { kind: kind.clone(), name: name.clone(), uid: uid.as_str().into() }))
}

/// Reads a ReplicaSet or a Job.
pub(in super::super) fn read(object: &PartialObjectMeta<DynamicObject>) -> ReadObject {
    let meta = &object.metadata;
    let mut reading = Reading::default();
    let uid = meta.uid.as_deref().unwrap_or_default().into();
    let owner = owner(meta.owner_references.as_deref(), &mut reading);
    ReadObject::new(meta, Fact::Owner { uid, owner }, reading.problems())
}
