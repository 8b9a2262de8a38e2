//! The facts of an object that was read.

use super::super::facts::{Fact, Key};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use std::time::{Duration, SystemTime};

/// The labels that are read.
#[derive(Clone, Debug)]
pub struct LabelKeys {
    /// The node label with the zone's name.
    pub zone: String,
    /// The node label with the region's name.
    pub region: String,
    /// Labels of pods to include in their flows; a label that ends in `*` stands for all with this prefix.
    pub pod: Vec<String>,
}

impl Default for LabelKeys {
    fn default() -> Self {
        Self {
            zone: "topology.kubernetes.io/zone".into(),
            region: "topology.kubernetes.io/region".into(),
            pod: ["app", "k8s-app", "name", "app.kubernetes.io/*"].map(str::to_owned).into(),
        }
    }
}

/// An object after reading.
#[derive(Clone, Debug)]
pub struct ReadObject {
    pub(in super::super) key: Key,
    pub(in super::super) resource_version: String,
    pub(in super::super) fact: Fact,
    /// Parts that could not be read.
    pub(in super::super) problems: Vec<String>,
}

impl ReadObject {
    /// The object's name.
    pub const fn key(&self) -> &Key {
        &self.key
    }

    pub(super) fn new(meta: &ObjectMeta, fact: Fact, problems: Vec<String>) -> Self {
        Self { key: key(meta), resource_version: meta.resource_version.clone().unwrap_or_default(), fact, problems }
    }
}

/// Converts a time of an object.
pub(super) fn time(time: &Time) -> Option<SystemTime> {
    let seconds = u64::try_from(time.0.as_second()).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

fn key(meta: &ObjectMeta) -> Key {
    let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
    Key { namespace: text(&meta.namespace), name: text(&meta.name) }
}
