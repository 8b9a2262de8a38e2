//! The ends of a transfer, and the keys of the sums. Keys compare only the names of an endpoint, not its labels.

use crate::{identity::Endpoint, zones::Place};
use std::{
    hash::{Hash, Hasher},
    net::IpAddr,
    sync::Arc,
};

/// One end of a transfer.
#[derive(Clone, Debug)]
pub struct End {
    /// Its address, if the end is a single address.
    pub address: Option<IpAddr>,
    /// The endpoint behind the address, if it is known.
    pub endpoint: Option<Arc<Endpoint>>,
    /// Its place.
    pub place: Place,
}

/// The two sides of a sum.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Between<T> {
    /// The source.
    pub source: T,
    /// The destination.
    pub destination: T,
}

/// A pod, if it is known, and its place.
pub type Placed = (Option<Pod>, Place);

/// A pod, compared by namespace and name.
#[derive(Clone, Debug)]
pub struct Pod(pub Arc<Endpoint>);

impl Pod {
    fn id(&self) -> (&str, &str) {
        (&self.0.namespace, &self.0.pod)
    }
}

impl PartialEq for Pod {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.id() == other.id()
    }
}

impl Eq for Pod {}

impl Hash for Pod {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

/// A workload, compared by namespace, kind and name.
#[derive(Clone, Debug)]
pub struct Workload(pub Arc<Endpoint>);

impl PartialEq for Workload {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.workload_id() == other.0.workload_id()
    }
}

impl Eq for Workload {}

impl Hash for Workload {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.workload_id().hash(state);
    }
}

/// The sender or receiver of a transfer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EndKey {
    /// A known pod.
    Pod(Pod),
    /// An address whose endpoint is unknown.
    Address(IpAddr),
    /// All ends beyond the limit together.
    Other,
}
