//! The version of the cluster, and the part of it that sends a connection to an endpoint.

use std::fmt;

/// A minor version of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kubernetes {
    /// 1.
    pub major: u16,
    /// The minor version.
    pub minor: u16,
}

impl Kubernetes {
    /// The first version in which `trafficDistribution` is on by default.
    pub const DISTRIBUTION: Self = Self { major: 1, minor: 31 };
    /// The first version in which its values PreferSameZone and PreferSameNode are on by default.
    pub const SAME_ZONE: Self = Self { major: 1, minor: 34 };

    /// The version in a text like `v1.33.2-eks-1234567`.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = numbers(text.strip_prefix('v').unwrap_or(text))?;
        Some(Self { major, minor })
    }
}

impl fmt::Display for Kubernetes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A version of Cilium.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CiliumVersion {
    /// The major version.
    pub major: u16,
    /// The minor version.
    pub minor: u16,
}

impl CiliumVersion {
    /// The first version with PreferSameZone and PreferSameNode.
    pub const SAME_ZONE: Self = Self { major: 1, minor: 20 };

    /// The version in the name of an image, like `quay.io/cilium/cilium:v1.19.3@sha256:…`.
    pub fn of_image(image: &str) -> Option<Self> {
        let image = image.split('@').next()?;
        let (_, tag) = image.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'))?;
        let (major, minor) = numbers(tag.strip_prefix('v').unwrap_or(tag))?;
        Some(Self { major, minor })
    }
}

impl fmt::Display for CiliumVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The two numbers at the start of a version.
fn numbers(text: &str) -> Option<(u16, u16)> {
    let mut parts = text.split('.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?;
    let digits = minor.find(|c: char| !c.is_ascii_digit()).unwrap_or(minor.len());
    Some((major, minor[..digits].parse().ok()?))
}

/// Whether Cilium follows the zone that a service prefers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceTopology {
    /// `enable-service-topology` could not be read.
    #[default]
    Unknown,
    /// It is off, as by default.
    Off,
    /// It is on.
    On,
}

/// The program that sends a connection to an endpoint of its service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataPlane {
    /// Nothing was recognized: taken for kube-proxy, which some distributions run without a pod.
    #[default]
    Unknown,
    /// kube-proxy.
    KubeProxy,
    /// Cilium in the place of kube-proxy.
    Cilium {
        /// Its version, if that is known.
        version: Option<CiliumVersion>,
        /// Whether it follows the preference.
        topology: ServiceTopology,
    },
}

impl fmt::Display for DataPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown"),
            Self::KubeProxy => f.write_str("kube-proxy"),
            Self::Cilium { version: Some(version), .. } => write!(f, "Cilium {version}"),
            Self::Cilium { version: None, .. } => f.write_str("Cilium"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_kubelets_and_images() {
        let kubernetes = |text| Kubernetes::parse(text).map(|version| (version.major, version.minor));
        assert_eq!(kubernetes("v1.33.2-eks-1234567"), Some((1, 33)));
        assert_eq!(kubernetes("v1.9+"), Some((1, 9)));
        for bad in ["", "v1", "vx.y", "1.x", "v99999999999.1", "v1.99999999999"] {
            assert_eq!(kubernetes(bad), None, "{bad}");
        }
        let cilium = |image| CiliumVersion::of_image(image).map(|version| (version.major, version.minor));
        assert_eq!(cilium("quay.io/cilium/cilium:v1.19.3@sha256:0123"), Some((1, 19)));
        assert_eq!(cilium("localhost:5000/cilium:1.20.0-rc.1"), Some((1, 20)));
        for bad in ["localhost:5000/cilium", "cilium", "cilium:latest", "cilium@sha256:01", ""] {
            assert_eq!(cilium(bad), None, "{bad}");
        }
    }
}
