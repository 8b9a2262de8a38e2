//! The namespaces that flows named in the last hour.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a namespace is remembered after its last flow; the same as Hubble's.
const TTL: Duration = Duration::from_secs(3600);
/// The limit of remembered namespaces; a cluster has far fewer.
const CAPACITY: usize = 65_536;

/// Namespaces with the time of their last flow.
#[derive(Debug, Default)]
pub struct Namespaces {
    last_flow: Mutex<BTreeMap<String, Instant>>,
}

impl Namespaces {
    /// Remembers a namespace. The empty name is ignored.
    pub fn record(&self, namespace: &str, now: Instant) {
        if namespace.is_empty() {
            return;
        }
        let mut last_flow = self.last_flow.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = last_flow.get_mut(namespace) {
            *at = now;
        } else if last_flow.len() < CAPACITY {
            last_flow.insert(namespace.to_owned(), now);
        }
    }

    /// The namespaces of the last hour, sorted.
    pub fn list(&self, now: Instant) -> Vec<String> {
        let mut last_flow = self.last_flow.lock().unwrap_or_else(PoisonError::into_inner);
        last_flow.retain(|_, at| now.duration_since(*at) <= TTL);
        last_flow.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_forgotten_an_hour_after_its_last_flow() {
        let (namespaces, start) = (Namespaces::default(), Instant::now());
        let at = |minutes: u64| start + Duration::from_secs(60 * minutes);
        namespaces.record("shop", at(0));
        namespaces.record("billing", at(0));
        namespaces.record("", at(0));
        namespaces.record("shop", at(30));
        assert_eq!(namespaces.list(at(60)), ["billing", "shop"]);
        assert_eq!(namespaces.list(at(61)), ["shop"]);
        assert!(namespaces.list(at(91)).is_empty());
    }
}
