//! The ends of a transfer, and the keys of the sums. Keys compare only the names of an endpoint, not its labels.

use crate::{
    identity::{self, Endpoint},
    zones::Place,
};
use meridian_abi::flow::ServiceSide;
use std::{
    hash::{Hash, Hasher},
    net::IpAddr,
    sync::Arc,
};

/// One end of a transfer.
#[derive(Clone, Debug)]
pub struct TransferEnd {
    /// Its address, if the end is a single address.
    pub address: Option<IpAddr>,
    /// The endpoint behind the address, if it is known.
    pub endpoint: Option<Arc<Endpoint>>,
    /// Its place.
    pub place: Place,
    /// The external prefix that holds the address, where no endpoint is known. Only transfers by service and the history
    /// name it.
    pub external: Option<Arc<Endpoint>>,
}

impl TransferEnd {
    /// The endpoint, or else the external prefix.
    pub fn named(&self) -> Option<&Arc<Endpoint>> {
        self.endpoint.as_ref().or(self.external.as_ref())
    }
}

/// The service that is used in a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    /// The port; 0 where it is not known.
    pub port: u16,
    /// The IP protocol number; 0 where it is not known.
    pub protocol: u8,
    /// The end that serves.
    pub side: ServiceSide,
}

impl Default for Service {
    /// It is not known.
    fn default() -> Self {
        Self { port: 0, protocol: 0, side: ServiceSide::None }
    }
}

impl Service {
    /// The service of a flow entry. If neither end is known to serve, the entry's port is not a service port.
    pub fn new(port: u16, protocol: u8, side: ServiceSide) -> Self {
        Self { port: if side == ServiceSide::None { 0 } else { port }, protocol, side }
    }
}

/// Traffic from one end to another.
#[derive(Clone, Copy, Debug)]
pub struct Transfer<'a> {
    /// The sender.
    pub source: &'a TransferEnd,
    /// The receiver.
    pub destination: &'a TransferEnd,
    /// The service.
    pub service: Service,
}

/// An endpoint: two are the same one if namespace and pod are, and where there is no pod, the workload.
#[derive(Clone, Debug)]
pub struct EndpointKey(pub Arc<Endpoint>);

impl EndpointKey {
    fn id(&self) -> (&str, &str, Option<&identity::Workload>) {
        let workload = self.0.workload.as_deref().filter(|_| self.0.pod.is_empty());
        (&self.0.namespace, &self.0.pod, workload)
    }
}

impl PartialEq for EndpointKey {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.id() == other.id()
    }
}

impl Eq for EndpointKey {}

impl Hash for EndpointKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

/// Two endpoints that use a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TransferKey {
    /// Between whom, and where.
    pub ends: Directed<(Option<EndpointKey>, Place)>,
    /// The service.
    pub service: Service,
}

/// The two sides of a sum.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Directed<T> {
    /// The source.
    pub source: T,
    /// The destination.
    pub destination: T,
}

/// A pod, if it is known, and its place.
pub type LocatedPod = (Option<Pod>, Place);

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
