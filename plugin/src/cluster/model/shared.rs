//! What repeats in objects: there are many objects, and one copy of equal parts is enough.

use super::super::facts::{Fact, Owner, Pod, Slice};
use crate::{
    catalogue::Endpoints,
    identity::{Interner, Pool},
};
use std::sync::Arc;

/// The parts of facts that several objects have.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) texts: Pool,
    owners: Interner<Owner>,
    ready: Interner<Endpoints>,
}

impl Shared {
    /// The same fact, with its parts shared.
    pub(super) fn fact(&mut self, fact: Fact) -> Fact {
        match fact {
            Fact::Pod(pod) => {
                let pod = Arc::unwrap_or_clone(pod);
                let (node, labels) = (self.texts.text(pod.node), self.texts.labels(pod.labels));
                let owner = pod.owner.map(|owner| self.owners.keep(owner));
                Fact::Pod(Arc::new(Pod { node, labels, owner, ..pod }))
            }
            Fact::Owner { uid, owner } => Fact::Owner { uid, owner: owner.map(|owner| self.owners.keep(owner)) },
            Fact::Slice(slice) => {
                let slice = Arc::unwrap_or_clone(slice);
                let (service, ready) = (self.texts.text(slice.service), self.ready.keep(slice.ready));
                Fact::Slice(Arc::new(Slice { service, ready, ..slice }))
            }
            fact @ (Fact::Node(_) | Fact::Service(_) | Fact::Namespace(_) | Fact::Ranges(_)) => fact,
        }
    }
}
