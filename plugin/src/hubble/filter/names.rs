//! Filters by identity and name: of pods, services, workloads and clusters.

use super::{
    field::{EndCheck, FlowCheck},
    invalid::InvalidFilter,
};
use crate::proto::{
    flow::Workload,
    number::{self, endpoint},
};

/// By security identity.
pub(super) fn identity(ids: &[u32]) -> Result<EndCheck, InvalidFilter> {
    let ids = ids.to_vec();
    Ok(Box::new(move |end| end.is_some_and(|end| ids.contains(&(end.varint(endpoint::IDENTITY) as u32)))))
}

/// `namespace/prefix`, where both may be empty; a prefix alone is in the namespace `default`.
fn named(names: &[String]) -> Result<impl Fn(&str, &str) -> bool + Send + Sync + use<>, InvalidFilter> {
    let mut wanted = Vec::new();
    for name in names {
        if name.is_empty() {
            return Err(InvalidFilter::EmptyName);
        }
        let mut parts = name.split('/');
        let first = parts.next().unwrap_or_default();
        let (namespace, prefix) = parts.next().map_or(("default", first), |prefix| (first, prefix));
        wanted.push((namespace.to_owned(), prefix.to_owned()));
    }
    Ok(move |namespace: &str, name: &str| {
        (!namespace.is_empty() || !name.is_empty())
            && wanted
                .iter()
                .any(|(wanted, prefix)| name.starts_with(prefix) && (wanted.is_empty() || wanted == namespace))
    })
}

/// By namespace and name of a pod.
pub(super) fn pod(names: &[String]) -> Result<EndCheck, InvalidFilter> {
    let named = named(names)?;
    Ok(Box::new(move |end| {
        end.is_some_and(|end| named(end.string(endpoint::NAMESPACE), end.string(endpoint::POD_NAME)))
    }))
}

/// By namespace and name of a service, which is the field of this number in the flow.
pub(super) fn service(names: &[String], number: u64) -> Result<FlowCheck, InvalidFilter> {
    use number::service::{NAME, NAMESPACE};
    let named = named(names)?;
    Ok(Box::new(move |flow| {
        let service = flow.own().message(number);
        service.is_some_and(|service| named(service.string(NAMESPACE), service.string(NAME)))
    }))
}

/// By kind and name of a workload.
pub(super) fn workload(wanted: &[Workload]) -> Result<EndCheck, InvalidFilter> {
    use number::workload::{KIND, NAME};
    let wanted = wanted.to_vec();
    Ok(Box::new(move |end| {
        let is = |wanted: &str, has: &str| wanted.is_empty() || wanted == has;
        end.is_some_and(|end| {
            end.messages(endpoint::WORKLOADS).any(|has| {
                wanted.iter().any(|wanted| is(&wanted.name, has.string(NAME)) && is(&wanted.kind, has.string(KIND)))
            })
        })
    }))
}

/// By cluster.
pub(super) fn cluster(names: &[String]) -> Result<EndCheck, InvalidFilter> {
    if names.iter().any(String::is_empty) {
        return Err(InvalidFilter::EmptyName);
    }
    let names = names.to_vec();
    Ok(Box::new(move |end| {
        let has = end.map_or("", |end| end.string(endpoint::CLUSTER_NAME));
        names.iter().any(|name| name == has)
    }))
}
