//! The pods and the slices of services at each address. Most addresses have one of each, and there are many addresses.

use super::super::facts::{Key, NamedPod};
use std::{collections::HashMap, net::IpAddr, sync::Arc};

/// Pods and slices by address.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    first: HashMap<IpAddr, First>,
    /// Further ones, of addresses that have a first one.
    more: HashMap<IpAddr, More>,
}

/// The first pod and the first slice of an address.
#[derive(Debug, Default)]
struct First {
    pod: Option<Arc<NamedPod>>,
    slice: Option<Arc<Key>>,
}

/// Further pods and slices of an address.
#[derive(Debug, Default)]
struct More {
    pods: Vec<Arc<NamedPod>>,
    slices: Vec<Arc<Key>>,
}

impl Addresses {
    /// Adds a pod with an address, or an ending pod that had it; replaces its earlier state.
    pub(super) fn put_pod(&mut self, address: IpAddr, pod: &Arc<NamedPod>) {
        let first = &mut self.first.entry(address).or_default().pod;
        let is_it = |known: &Arc<NamedPod>| known.key == pod.key;
        match first {
            Some(known) if !is_it(known) => put(&mut self.more.entry(address).or_default().pods, pod, is_it),
            _ => *first = Some(Arc::clone(pod)),
        }
    }

    /// Removes a pod.
    pub(super) fn drop_pod(&mut self, address: &IpAddr, key: &Key) {
        if let Some(first) = self.first.get_mut(address) {
            let more = self.more.get_mut(address).map(|more| &mut more.pods);
            take(&mut first.pod, more, |known| known.key == *key);
            self.tidy(address);
        }
    }

    /// Adds a slice with an address.
    pub(super) fn put_slice(&mut self, address: IpAddr, slice: &Arc<Key>) {
        let first = &mut self.first.entry(address).or_default().slice;
        match first {
            Some(known) if known != slice => {
                put(&mut self.more.entry(address).or_default().slices, slice, |known| known == slice);
            }
            _ => *first = Some(Arc::clone(slice)),
        }
    }

    /// Removes a slice.
    pub(super) fn drop_slice(&mut self, address: &IpAddr, slice: &Key) {
        if let Some(first) = self.first.get_mut(address) {
            let more = self.more.get_mut(address).map(|more| &mut more.slices);
            take(&mut first.slice, more, |known| **known == *slice);
            self.tidy(address);
        }
    }

    /// The pods of an address.
    pub(super) fn pods(&self, address: &IpAddr) -> impl Iterator<Item = &Arc<NamedPod>> {
        let first = self.first.get(address).into_iter().flat_map(|first| &first.pod);
        first.chain(self.more.get(address).into_iter().flat_map(|more| &more.pods))
    }

    /// The slices of an address.
    pub(super) fn slices(&self, address: &IpAddr) -> impl Iterator<Item = &Arc<Key>> {
        let first = self.first.get(address).into_iter().flat_map(|first| &first.slice);
        first.chain(self.more.get(address).into_iter().flat_map(|more| &more.slices))
    }

    /// Frees what has become empty.
    fn tidy(&mut self, address: &IpAddr) {
        if self.more.get(address).is_some_and(|more| more.pods.is_empty() && more.slices.is_empty()) {
            self.more.remove(address);
        }
        if self.first.get(address).is_some_and(|first| first.pod.is_none() && first.slice.is_none()) {
            self.first.remove(address);
        }
    }
}

fn put<T>(into: &mut Vec<Arc<T>>, value: &Arc<T>, is_it: impl Fn(&Arc<T>) -> bool) {
    match into.iter_mut().find(|known| is_it(known)) {
        Some(known) => *known = Arc::clone(value),
        None => into.push(Arc::clone(value)),
    }
}

/// Removes a value; where it was the first one, another one becomes that.
fn take<T>(first: &mut Option<T>, more: Option<&mut Vec<T>>, is_it: impl Fn(&T) -> bool) {
    if first.as_ref().is_some_and(&is_it) {
        *first = more.and_then(Vec::pop);
    } else if let Some(more) = more {
        more.retain(|known| !is_it(known));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn an_address_has_what_was_put_and_not_dropped_and_an_empty_one_takes_nothing() {
        let (mut addresses, mut expected) = (Addresses::default(), BTreeSet::new());
        let at = |n: u64| IpAddr::from([10, 0, 0, n as u8]);
        let key = |n: u64| Arc::new(Key { namespace: "s".into(), name: format!("n{n}").into() });
        let mut random = 1u64;
        for _ in 0..10_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (address, slice, is_new) = (random >> 60, (random >> 50) % 5, (random >> 40).is_multiple_of(2));
            if is_new {
                addresses.put_slice(at(address), &key(slice));
                expected.insert((at(address), key(slice)));
            } else {
                addresses.drop_slice(&at(address), &key(slice));
                expected.remove(&(at(address), key(slice)));
            }
            let known: BTreeSet<_> = addresses.slices(&at(address)).cloned().collect();
            let of_it = expected.iter().filter(|(of, _)| *of == at(address)).map(|(_, slice)| Arc::clone(slice));
            assert_eq!(known, of_it.collect());
        }
        expected.iter().for_each(|(address, slice)| addresses.drop_slice(address, slice));
        assert!(addresses.first.is_empty() && addresses.more.is_empty());
    }
}
