//! Context labels: names for the ends of a flow.

use super::{
    config::{ContextOption, MetricError},
    flow_view::FlowView,
};
use crate::proto::{
    flow::TrafficDirection,
    number::{self, endpoint as field},
    wire::Message,
};

/// A way to name an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identifier {
    Identity,
    Namespace,
    Pod,
    PodName,
    Dns,
    Ip,
    ReservedIdentity,
    Workload,
    WorkloadName,
    App,
    /// Our own; Hubble has none.
    Zone,
}

/// Labels of `labelsContext`, in Hubble's order of labels; ours follow.
const LABELS: [&str; 18] = [
    "source_ip",
    "source_pod",
    "source_namespace",
    "source_workload",
    "source_workload_kind",
    "source_app",
    "destination_ip",
    "destination_pod",
    "destination_namespace",
    "destination_workload",
    "destination_workload_kind",
    "destination_app",
    "traffic_direction",
    "source_zone",
    "source_region",
    "destination_zone",
    "destination_region",
    "locality",
];

/// Pod labels that name the app; the first one that is set counts.
const APP: [&str; 3] = ["k8s:app.kubernetes.io/name=", "k8s:k8s-app=", "k8s:app="];
const ZONE: &str = "k8s:topology.kubernetes.io/zone=";
const REGION: &str = "k8s:topology.kubernetes.io/region=";
const LOCALITY: &str = "k8s:meridian.io/locality=";

/// The names of one end: the first identifier with a value counts.
#[derive(Clone, Debug, Default)]
struct EndLabels {
    any: Vec<Identifier>,
    /// Other identifiers for traffic in that direction.
    egress: Option<Vec<Identifier>>,
    ingress: Option<Vec<Identifier>>,
}

impl EndLabels {
    /// Whether the end has a label.
    fn is_there(&self) -> bool {
        let has = |of: &Option<Vec<Identifier>>| of.as_ref().is_some_and(|of| !of.is_empty());
        !self.any.is_empty() || has(&self.egress) || has(&self.ingress)
    }

    fn identifiers(&self, direction: i32) -> &[Identifier] {
        let own = match TrafficDirection::try_from(direction) {
            Ok(TrafficDirection::Ingress) => self.ingress.as_ref(),
            Ok(TrafficDirection::Egress) => self.egress.as_ref(),
            _ => None,
        };
        own.unwrap_or(&self.any)
    }

    fn has_pods(&self) -> bool {
        let all = [Some(&self.any), self.egress.as_ref(), self.ingress.as_ref()];
        all.into_iter().flatten().any(|of| of.contains(&Identifier::Pod))
    }
}

/// The labels of a family beyond its handler's own.
#[derive(Clone, Debug, Default)]
pub(super) struct Context {
    source: EndLabels,
    destination: EndLabels,
    labels: Vec<&'static str>,
}

impl Context {
    /// Splits the options into the context's and the handler's own.
    pub(super) fn new(options: &[ContextOption]) -> Result<(Self, Vec<&ContextOption>), MetricError> {
        let (mut context, mut rest) = (Self::default(), Vec::new());
        for option in options {
            let values = || option.values.iter().map(|value| identifier(value)).collect::<Result<Vec<_>, _>>();
            match &*option.name.to_lowercase() {
                "sourcecontext" => context.source.any = values()?,
                "sourceegresscontext" => context.source.egress = Some(values()?),
                "sourceingresscontext" => context.source.ingress = Some(values()?),
                "destinationcontext" => context.destination.any = values()?,
                "destinationegresscontext" => context.destination.egress = Some(values()?),
                "destinationingresscontext" => context.destination.ingress = Some(values()?),
                "labelscontext" => {
                    if let Some(bad) = option.values.iter().find(|value| !LABELS.contains(&value.as_str())) {
                        return Err(MetricError::Label(bad.clone()));
                    }
                    context.labels =
                        LABELS.into_iter().filter(|label| option.values.iter().any(|value| value == label)).collect();
                }
                _ => rest.push(option),
            }
        }
        Ok((context, rest))
    }

    /// The names of the labels.
    pub(super) fn labels(&self) -> impl Iterator<Item = &'static str> {
        let end = |end: &EndLabels, name| end.is_there().then_some(name);
        let ends = [end(&self.source, "source"), end(&self.destination, "destination")];
        self.labels.iter().copied().chain(ends.into_iter().flatten())
    }

    /// The values of the labels.
    pub(super) fn values(&self, view: &FlowView<'_>, put: &mut impl FnMut(&str)) {
        for label in &self.labels {
            label_value(label, view, put);
        }
        for (end, is_source) in [(&self.source, true), (&self.destination, false)] {
            if !end.is_there() {
                continue;
            }
            let mut name = String::new();
            for identifier in end.identifiers(view.direction) {
                identify(*identifier, view, is_source, &mut name);
                if !name.is_empty() {
                    break;
                }
            }
            put(&name);
        }
    }

    /// Whether a label names pods.
    pub(super) fn has_pods(&self) -> bool {
        let has = |label| self.labels.contains(&label);
        self.source.has_pods()
            || self.destination.has_pods()
            || has("source_pod") && has("source_namespace")
            || has("destination_pod") && has("destination_namespace")
    }

    /// The pods in a series, by the values of its labels.
    pub(super) fn pods<'v>(&self, value: impl Fn(&str) -> Option<&'v str>) -> [Option<(&'v str, &'v str)>; 4] {
        let end = |end: &EndLabels, label| value(label).filter(|_| end.has_pods())?.split_once('/');
        let labels = |namespace, pod| value(namespace).zip(value(pod)).filter(|(_, pod)| !pod.is_empty());
        [
            end(&self.source, "source"),
            end(&self.destination, "destination"),
            labels("source_namespace", "source_pod"),
            labels("destination_namespace", "destination_pod"),
        ]
    }
}

fn identifier(text: &str) -> Result<Identifier, MetricError> {
    Ok(match &*text.to_lowercase() {
        "identity" => Identifier::Identity,
        "namespace" => Identifier::Namespace,
        "pod" => Identifier::Pod,
        "pod-name" => Identifier::PodName,
        "dns" => Identifier::Dns,
        "ip" => Identifier::Ip,
        "reserved-identity" => Identifier::ReservedIdentity,
        "workload" => Identifier::Workload,
        "workload-name" => Identifier::WorkloadName,
        "app" => Identifier::App,
        "zone" => Identifier::Zone,
        _ => return Err(MetricError::Context(text.to_owned())),
    })
}

/// Appends the name of an end; nothing if it is unknown.
fn identify(identifier: Identifier, view: &FlowView<'_>, is_source: bool, to: &mut String) {
    let end = if is_source { view.source } else { view.destination };
    let (namespace, pod) = (end.string(field::NAMESPACE), end.string(field::POD_NAME));
    let join = |values: &mut dyn Iterator<Item = &str>, to: &mut String| {
        for (n, value) in values.enumerate() {
            if n > 0 {
                to.push(',');
            }
            to.push_str(value);
        }
    };
    match identifier {
        Identifier::Identity => join(&mut end.strings(field::LABELS), to),
        Identifier::Namespace => to.push_str(namespace),
        Identifier::Pod => {
            if !namespace.is_empty() {
                to.push_str(namespace);
                to.push('/');
            }
            to.push_str(pod);
        }
        Identifier::PodName => to.push_str(pod),
        Identifier::Dns => {
            let names = if is_source { number::flow::SOURCE_NAMES } else { number::flow::DESTINATION_NAMES };
            join(&mut view.own.strings(names), to);
        }
        Identifier::Ip => to.push_str(ip(view, is_source)),
        Identifier::ReservedIdentity => {
            let api_server = "reserved:kube-apiserver";
            let mut labels = end.strings(field::LABELS);
            if end.strings(field::LABELS).any(|label| label == api_server) {
                to.push_str(api_server);
            } else {
                to.push_str(labels.find(|label| label.starts_with("reserved:")).unwrap_or_default());
            }
        }
        Identifier::Workload => {
            let name = workload(end, number::workload::NAME);
            if !name.is_empty() {
                if !namespace.is_empty() {
                    to.push_str(namespace);
                    to.push('/');
                }
                to.push_str(name);
            }
        }
        Identifier::WorkloadName => to.push_str(workload(end, number::workload::NAME)),
        Identifier::App => to.push_str(app(end)),
        Identifier::Zone => to.push_str(after(end, ZONE)),
    }
}

fn label_value(label: &str, view: &FlowView<'_>, put: &mut impl FnMut(&str)) {
    if label == "traffic_direction" {
        let direction = match TrafficDirection::try_from(view.direction) {
            Ok(TrafficDirection::Unknown) => "unknown".to_owned(),
            Ok(direction) => direction.as_str_name().to_lowercase(),
            Err(_) => view.direction.to_string(),
        };
        return put(&direction);
    }
    if label == "locality" {
        return put(after(view.source, LOCALITY));
    }
    let is_source = label.starts_with("source_");
    let end = if is_source { view.source } else { view.destination };
    put(match label.split_once('_').map_or(label, |(_, what)| what) {
        "ip" => ip(view, is_source),
        "pod" => end.string(field::POD_NAME),
        "namespace" => end.string(field::NAMESPACE),
        "workload" => workload(end, number::workload::NAME),
        "workload_kind" => workload(end, number::workload::KIND),
        "app" => app(end),
        "zone" => after(end, ZONE),
        _ => after(end, REGION),
    });
}

fn ip<'f>(view: &FlowView<'f>, is_source: bool) -> &'f str {
    view.ip.map_or("", |ip| ip.string(if is_source { number::ip::SOURCE } else { number::ip::DESTINATION }))
}

/// A string field of the first workload.
fn workload(end: Message<'_>, number: u64) -> &str {
    end.message(field::WORKLOADS).map_or("", |workload| workload.string(number))
}

fn app(end: Message<'_>) -> &str {
    let value = |label: &'_ str| -> Option<usize> {
        APP.iter().find(|prefix| label.starts_with(**prefix) && label.len() > prefix.len()).map(|prefix| prefix.len())
    };
    end.strings(field::LABELS).find_map(|label| value(label).map(|at| &label[at..])).unwrap_or_default()
}

/// The rest of the label that starts with `prefix`.
fn after<'f>(end: Message<'f>, prefix: &str) -> &'f str {
    end.strings(field::LABELS).find_map(|label| label.strip_prefix(prefix)).unwrap_or_default()
}
