//! The cloud provider that a node belongs to.

use std::{collections::BTreeMap, fmt, sync::Arc};

/// A provider's name, as in price files: `aws`, `gcp`, `azure`, or the scheme of a provider ID that is not known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Provider(Arc<str>);

/// What a cluster's API says of a node that shows its provider.
#[derive(Clone, Copy, Debug)]
pub struct NodeSigns<'a> {
    /// `spec.providerID`, or nothing.
    pub provider_id: &'a str,
    /// The labels.
    pub labels: &'a BTreeMap<String, String>,
    /// `status.nodeInfo.kubeletVersion`, or nothing.
    pub kubelet_version: &'a str,
}

/// Schemes of provider IDs whose provider has another name.
const SCHEMES: [(&str, &str); 5] = [
    ("gce", "gcp"),
    ("alicloud", "alibaba"),
    ("hcloud", "hetzner"),
    ("hrobot", "hetzner"),
    ("equinixmetal", "equinix"),
];
/// Labels that only one provider sets.
const LABELS: [(&str, &str); 3] = [
    ("topology.k8s.aws/zone-id", "aws"),
    ("cloud.google.com/gke-nodepool", "gcp"),
    ("ibm-cloud.kubernetes.io/zone", "ibm"),
];
/// Parts of kubelet versions of managed clusters.
const VERSIONS: [(&str, &str); 3] = [("-eks-", "aws"), ("-gke.", "gcp"), ("-aliyun", "alibaba")];

/// A text that is no provider's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a provider's name like aws: lower-case letters, digits, hyphens")]
pub struct InvalidProvider {
    /// The beginning of the text, without control characters.
    pub name: String,
}

impl std::str::FromStr for Provider {
    type Err = InvalidProvider;

    fn from_str(name: &str) -> Result<Self, InvalidProvider> {
        let quoted = || name.chars().filter(|c| !c.is_control()).take(40).collect();
        Self::new(name).ok_or_else(|| InvalidProvider { name: quoted() })
    }
}

impl Provider {
    /// Characters of a name.
    const MAX: usize = 32;

    /// A provider by its name: lower-case letters, digits and hyphens, at most 32.
    pub fn new(name: &str) -> Option<Self> {
        let is_good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        ((1..=Self::MAX).contains(&name.len()) && name.bytes().all(is_good)).then(|| Self(name.into()))
    }

    /// The provider of a node. The provider ID decides: a self-managed node in a managed cluster has the provider's
    /// kubelet, but not its scheme.
    pub fn of_node(node: &NodeSigns<'_>) -> Option<Self> {
        by_id(node.provider_id.trim()).unwrap_or_else(|| {
            let label = LABELS.iter().find(|(label, _)| node.labels.contains_key(*label));
            let version = || VERSIONS.iter().find(|(part, _)| node.kubelet_version.contains(part));
            label.or_else(version).and_then(|(_, name)| Self::new(name))
        })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The provider in a provider ID; the outer `None` if the ID has none.
fn by_id(id: &str) -> Option<Option<Provider>> {
    if let Some((scheme, _)) = id.split_once("://") {
        let scheme = scheme.to_ascii_lowercase();
        let known = SCHEMES.iter().find(|(of, _)| *of == scheme).map(|(_, name)| *name);
        return Some(Provider::new(known.unwrap_or(if scheme.starts_with("ocid1") { "oci" } else { &scheme })));
    }
    if id.starts_with("ocid1.") {
        return Some(Provider::new("oci"));
    }
    // Alibaba's first form: cn-hangzhou.i-bp1….
    let is_alibaba =
        id.split_once(".i-").is_some_and(|(region, _)| region.contains('-') && Provider::new(region).is_some());
    is_alibaba.then(|| Provider::new("alibaba"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(provider_id: &str, label: &str, kubelet_version: &str) -> Option<String> {
        let labels = BTreeMap::from([(label.to_owned(), "x".to_owned())]);
        Provider::of_node(&NodeSigns { provider_id, labels: &labels, kubelet_version })
            .map(|found| found.name().to_owned())
    }

    #[test]
    fn the_provider_id_names_the_provider() {
        let cases = [
            ("aws:///us-east-1a/i-0123456789abcdef0", "aws"),
            ("gce://project/us-central1-a/node", "gcp"),
            ("azure:///subscriptions/1/resourceGroups/MC/virtualMachineScaleSets/x", "azure"),
            ("Azure:///subscriptions/1", "azure"),
            ("ocid1.instance.oc1.eu-frankfurt-1.aaaa", "oci"),
            ("oci://ocid1.instance.oc1.eu-frankfurt-1.aaaa", "oci"),
            ("cn-hangzhou.i-bp1234", "alibaba"),
            ("alicloud://cn-hangzhou.i-bp1234", "alibaba"),
            ("digitalocean://123", "digitalocean"),
            ("hcloud://42", "hetzner"),
            ("hrobot://42", "hetzner"),
            ("ibm://account///cluster/worker", "ibm"),
            ("kind://docker/kind/kind-worker", "kind"),
            ("k3s://node", "k3s"),
        ];
        for (id, provider) in cases {
            assert_eq!(of(id, "l", "v1.35.0").as_deref(), Some(provider), "{id}");
        }
    }

    #[test]
    fn without_a_provider_id_labels_and_the_kubelet_name_it() {
        assert_eq!(of("", "topology.k8s.aws/zone-id", "v1.35.0").as_deref(), Some("aws"));
        assert_eq!(of("", "cloud.google.com/gke-nodepool", "v1.35.0").as_deref(), Some("gcp"));
        assert_eq!(of("", "l", "v1.33.1-eks-1a2b3c4").as_deref(), Some("aws"));
        assert_eq!(of("", "l", "v1.33.1-aliyun.1").as_deref(), Some("alibaba"));
        assert_eq!(of("", "l", "v1.33.1"), None);
    }

    #[test]
    fn a_node_of_ones_own_in_a_managed_cluster_is_not_the_providers() {
        let hybrid = of("eks-hybrid:///us-west-2/cluster/mi-0123", "l", "v1.33.1-eks-1a2b3c4");
        assert_eq!(hybrid.as_deref(), Some("eks-hybrid"));
        assert_eq!(of("a scheme of blanks://x", "l", "v1.33.1-eks-1"), None);
        assert_eq!(of(&format!("{}://x", "a".repeat(99)), "l", "v1.33.1-eks-1"), None);
    }
}
