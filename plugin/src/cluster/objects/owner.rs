//! ReplicaSet and Job, of which only the owner is needed.

use super::{
    super::facts::{Fact, Owner},
    seen::ReadObject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::{DynamicObject, PartialObjectMeta};
use std::sync::Arc;

/// The controlling owner among the references.
pub(super) fn owner(references: Option<&[OwnerReference]>) -> Option<Arc<Owner>> {
    let controller = references?.iter().find(|reference| reference.controller == Some(true))?;
    let OwnerReference { kind, name, uid, .. } = controller;
    Some(Arc::new(Owner { kind: kind.clone(), name: name.clone(), uid: uid.as_str().into() }))
}

/// Reads a ReplicaSet or a Job.
pub(in super::super) fn read(object: &PartialObjectMeta<DynamicObject>) -> ReadObject {
    let meta = &object.metadata;
    let uid = meta.uid.as_deref().unwrap_or_default().into();
    ReadObject::new(meta, Fact::Owner { uid, owner: owner(meta.owner_references.as_deref()) }, Vec::new())
}
