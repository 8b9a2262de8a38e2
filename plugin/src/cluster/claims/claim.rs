//! An object's claim about the zone of a prefix, and the claims about one prefix; the prefixes of a node.

use super::super::{
    facts::{Kind, NamedPod, ObjectRef},
    source::Rank,
};
use ipnetwork::IpNetwork;
use std::{slice, sync::Arc, time::SystemTime};

/// An object's claim about a prefix: the prefix is of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Claim {
    /// Of a pod about its address. Most claims are.
    Pod(Arc<NamedPod>),
    /// Of another object.
    Object(Arc<ObjectClaim>),
}

/// A claim of an object that is no pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct ObjectClaim {
    /// The object.
    pub(in super::super) object: ObjectRef,
    /// The node of the addresses.
    pub(in super::super) node: Arc<str>,
    /// The rank of the claim.
    pub(in super::super) rank: Rank,
    /// Whether the claim is about a single address: its prefix is left out if a wider one has the same zone.
    pub(in super::super) is_address: bool,
}

impl Claim {
    pub(super) fn object(&self) -> ObjectRef {
        match self {
            Self::Pod(pod) => ObjectRef::new(Kind::Pod, pod.key.clone()),
            Self::Object(claim) => claim.object.clone(),
        }
    }

    pub(super) fn is_of(&self, object: &ObjectRef) -> bool {
        match self {
            Self::Pod(pod) => object.kind == Some(Kind::Pod) && object.key == pod.key,
            Self::Object(claim) => claim.object == *object,
        }
    }

    /// Whether the claims are of the same object.
    pub(super) fn is_of_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pod(pod), Self::Pod(other)) => pod.key == other.key,
            (Self::Object(claim), Self::Object(other)) => claim.object == other.object,
            (Self::Pod(_), Self::Object(_)) | (Self::Object(_), Self::Pod(_)) => false,
        }
    }

    pub(super) fn node(&self) -> &Arc<str> {
        match self {
            Self::Pod(pod) => &pod.pod.node,
            Self::Object(claim) => &claim.node,
        }
    }

    pub(super) fn rank(&self) -> Rank {
        match self {
            Self::Pod(pod) if pod.pod.is_ending => Rank::EndingPod,
            Self::Pod(_) => Rank::Pod,
            Self::Object(claim) => claim.rank,
        }
    }

    pub(super) fn is_address(&self) -> bool {
        match self {
            Self::Pod(_) => true,
            Self::Object(claim) => claim.is_address,
        }
    }

    /// The start of the claim: among pods with the same address the newest counts.
    pub(super) fn since(&self) -> Option<SystemTime> {
        match self {
            Self::Pod(pod) => pod.pod.created,
            Self::Object(_) => None,
        }
    }
}

/// The claims about a prefix. Most prefixes have one, and there are many prefixes.
#[derive(Debug, Default)]
pub(super) enum Few {
    #[default]
    None,
    One(Claim),
    #[expect(clippy::box_collection, reason = "three words would make each of the others as large")]
    More(Box<Vec<Claim>>),
}

impl Few {
    pub(super) fn as_slice(&self) -> &[Claim] {
        match self {
            Self::None => &[],
            Self::One(claim) => slice::from_ref(claim),
            Self::More(claims) => claims,
        }
    }

    pub(super) fn iter(&self) -> slice::Iter<'_, Claim> {
        self.as_slice().iter()
    }

    pub(super) fn iter_mut(&mut self) -> slice::IterMut<'_, Claim> {
        match self {
            Self::None => [].iter_mut(),
            Self::One(claim) => slice::from_mut(claim).iter_mut(),
            Self::More(claims) => claims.iter_mut(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    pub(super) fn push(&mut self, claim: Claim) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(claim),
            Self::One(first) => Self::More(Box::new(vec![first, claim])),
            Self::More(mut claims) => {
                claims.push(claim);
                Self::More(claims)
            }
        };
    }

    /// Removes the claim of which this holds.
    pub(super) fn take(&mut self, is_it: impl Fn(&Claim) -> bool) -> Option<Claim> {
        let index = self.iter().position(is_it)?;
        match self {
            Self::More(claims) => {
                let taken = claims.swap_remove(index);
                if claims.len() < 2 {
                    *self = claims.pop().map_or(Self::None, Self::One);
                }
                Some(taken)
            }
            Self::None | Self::One(_) => match std::mem::take(self) {
                Self::One(claim) => Some(claim),
                Self::None | Self::More(_) => None,
            },
        }
    }
}

/// The prefixes of a node, in order: a sorted list takes a third of a tree's memory, and a node has few.
#[derive(Debug, Default)]
pub(super) struct Prefixes(Vec<IpNetwork>);

impl Prefixes {
    pub(super) fn iter(&self) -> slice::Iter<'_, IpNetwork> {
        self.0.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn insert(&mut self, prefix: IpNetwork) {
        if let Err(index) = self.0.binary_search(&prefix) {
            self.0.insert(index, prefix);
        }
    }

    pub(super) fn remove(&mut self, prefix: &IpNetwork) {
        if let Ok(index) = self.0.binary_search(prefix) {
            self.0.remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_of_which_there_are_few_take_two_words() {
        assert_eq!(size_of::<Few>(), 2 * size_of::<usize>());
    }
}
