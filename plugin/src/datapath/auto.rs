//! Chooses the hook that sees this node's packets, by examining the node.

use super::{Error, Hook, devices::Devices};
use crate::bounded_file;
use serde_json::Value;
use std::path::Path;

const CILIUM: &str = "cilium_host";

/// The file in cilium-agent's state folder that has its configuration.
const CILIUM_CONFIG: &str = "agent-runtime-config.json";
/// The largest configuration that is read: Cilium's has some tens of kilobytes.
const CILIUM_CONFIG_BYTES: u64 = 4 << 20;

/// A hook, and the reason for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The hook.
    pub hook: Hook,
    /// The reason, for people.
    pub why: String,
}

/// Whether pods' packets pass netfilter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DataPath {
    /// Pods' packets pass netfilter.
    Netfilter,
    /// Pods' packets may bypass netfilter.
    Bypass,
}

/// The configured hook, or else the one that [`choose`] finds for these devices.
///
/// # Errors
/// eBPF is not permitted to this process.
pub fn resolve(
    asked_for: Option<Hook>,
    devices: &Devices,
    cilium_state: &Path,
    pinned: Option<Hook>,
) -> Result<Choice, Error> {
    match asked_for {
        Some(hook) => Ok(Choice { hook, why: "as configured".into() }),
        None => choose(devices, cilium_state, pinned),
    }
}

/// The hook for these devices. `cilium_state` is the state folder of cilium-agent. `pinned` is the hook of an earlier
/// agent whose programs are still attached: that agent may have found it by comparing the hook with the devices.
///
/// # Errors
/// eBPF is not permitted to this process.
pub fn choose(devices: &Devices, cilium_state: &Path, pinned: Option<Hook>) -> Result<Choice, Error> {
    let (mut path, mut why) = data_path(devices, cilium_state);
    if path == DataPath::Netfilter && pinned.is_some_and(|hook| hook != Hook::Netfilter) {
        path = DataPath::Bypass;
        why = "an earlier agent used this hook, and its counters continue".into();
    }
    let order = match path {
        DataPath::Netfilter => [Hook::Netfilter, Hook::Tcx, Hook::Clsact],
        DataPath::Bypass => [Hook::Tcx, Hook::Clsact, Hook::Netfilter],
    };
    for hook in order {
        match hook.require() {
            Ok(()) => return Ok(Choice { hook, why }),
            Err(error @ (Error::NoNetfilter { .. } | Error::NoTcx { .. })) => why.push_str(&format!("; {error}")),
            Err(error) => return Err(error),
        }
    }
    Ok(Choice { hook: Hook::Clsact, why })
}

/// Whether cilium-agent runs on this node: it has its device or its state folder.
pub fn has_cilium(devices: &Devices, cilium_state: &Path) -> bool {
    devices.bypasses.contains(CILIUM) || cilium_state.exists()
}

/// The reason for traffic control on a node whose uplink has children in other network namespaces.
pub fn children_bypass(uplink: &str) -> String {
    format!("pods' devices over {uplink} (macvlan, ipvlan or VLAN) bypass netfilter")
}

fn data_path(devices: &Devices, cilium_state: &Path) -> (DataPath, String) {
    if let Some(calico) = devices.bypasses.iter().find(|name| name.starts_with("bpf")) {
        return (DataPath::Bypass, format!("Calico's eBPF data path bypasses netfilter (device {calico})"));
    }
    if let Some(netkit) = devices.bypasses.iter().find(|name| *name != CILIUM) {
        return (DataPath::Bypass, format!("netkit devices bypass netfilter ({netkit})"));
    }
    if let Some(uplink) = devices.shared.first() {
        return (DataPath::Bypass, children_bypass(uplink));
    }
    if !devices.bypasses.contains(CILIUM) {
        return match devices.programmed.first() {
            Some(device) => (DataPath::Bypass, format!("an eBPF program on {device} may forward past netfilter")),
            None => (DataPath::Netfilter, "no data path on this node bypasses netfilter".into()),
        };
    }
    let file = cilium_state.join(CILIUM_CONFIG);
    let config =
        bounded_file::read(&file, CILIUM_CONFIG_BYTES).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let (path, why) = match config {
        Some(config) => cilium(&config),
        None => {
            (DataPath::Bypass, "Cilium runs on this node and may bypass netfilter: its configuration can't be read")
        }
    };
    (path, format!("{why} ({})", file.display()))
}

/// Cilium's data path. In tunnel mode its program at the pod's device encapsulates packets itself and passes them to
/// the tunnel's device, with any kind of host routing. With kube-proxy replacement, packets of a NodePort are
/// forwarded where they arrive. Only plain routing through the host's stack passes netfilter.
fn cilium(config: &Value) -> (DataPath, &'static str) {
    match option(config, "RoutingMode").and_then(Value::as_str) {
        Some("native") => {}
        Some("tunnel") => return (DataPath::Bypass, "Cilium's tunnel bypasses netfilter"),
        _ => {
            return (
                DataPath::Bypass,
                "Cilium runs on this node and may bypass netfilter: its routing mode is unknown",
            );
        }
    }
    match option(config, "EnableHostLegacyRouting").and_then(Value::as_bool) {
        Some(true) => {}
        Some(false) => return (DataPath::Bypass, "Cilium's eBPF host routing bypasses netfilter"),
        None => {
            return (
                DataPath::Bypass,
                "Cilium runs on this node and may bypass netfilter: its host routing is unknown",
            );
        }
    }
    // The option has moved between versions, and was a string before it was a boolean.
    let replaces = ["KubeProxyReplacement", "EnableKubeProxyReplacement"].iter().find_map(|key| option(config, key));
    match replaces {
        Some(Value::Bool(false)) => {}
        Some(Value::String(word)) if matches!(word.as_str(), "false" | "disabled") => {}
        Some(_) => return (DataPath::Bypass, "Cilium's kube-proxy replacement bypasses netfilter"),
        None => {
            return (DataPath::Bypass, "Cilium runs on this node and may bypass netfilter: it may replace kube-proxy");
        }
    }
    (DataPath::Netfilter, "Cilium routes through the host's stack")
}

/// An option at any depth, because options have moved between versions.
fn option<'a>(config: &'a Value, key: &str) -> Option<&'a Value> {
    match config {
        Value::Object(fields) => fields.get(key).or_else(|| fields.values().find_map(|value| option(value, key))),
        Value::Array(items) => items.iter().find_map(|item| option(item, key)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, fs};

    fn with(names: &[&str]) -> Devices {
        Devices { bypasses: names.iter().map(|name| (*name).to_owned()).collect(), ..Devices::default() }
    }

    #[test]
    fn devices_and_ciliums_configuration_show_the_data_path() {
        let folder = std::env::temp_dir().join(format!("meridian-cilium-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = |names: &[&str]| data_path(&with(names), &folder).0;
        assert_eq!(path(&[]), DataPath::Netfilter);
        assert_eq!(path(&["bpfin.cali"]), DataPath::Bypass);
        assert_eq!(path(&["lxc1234"]), DataPath::Bypass, "a netkit device");
        assert_eq!(path(&["cilium_host"]), DataPath::Bypass, "it is not said");
        let nowhere = Path::new("/nonexistent");
        assert!(has_cilium(&with(&["cilium_host"]), nowhere) && !has_cilium(&with(&["eth0"]), nowhere));
        assert!(has_cilium(&with(&[]), &std::env::temp_dir()));
        let programmed = BTreeSet::from(["veth1".to_owned()]);
        assert_eq!(data_path(&Devices { programmed, ..with(&[]) }, &folder).0, DataPath::Bypass);
        let shared = BTreeSet::from(["eth0".to_owned()]);
        let (path_of_children, why) = data_path(&Devices { shared, ..with(&[]) }, &folder);
        assert_eq!((path_of_children, &*why), (DataPath::Bypass, &*children_bypass("eth0")));
        let config = folder.join(CILIUM_CONFIG);
        for (text, expected) in [
            // Cilium's default.
            (
                r#"{"RoutingMode": "tunnel", "EnableHostLegacyRouting": true, "KubeProxyReplacement": false}"#,
                DataPath::Bypass,
            ),
            (
                r#"{"RoutingMode": "native", "EnableHostLegacyRouting": true, "KubeProxyReplacement": false}"#,
                DataPath::Netfilter,
            ),
            (
                r#"{"RoutingMode": "native", "EnableHostLegacyRouting": true, "KubeProxyReplacement": "disabled"}"#,
                DataPath::Netfilter,
            ),
            (
                r#"{"RoutingMode": "native", "EnableHostLegacyRouting": true, "KubeProxyReplacement": "partial"}"#,
                DataPath::Bypass,
            ),
            (
                r#"{"RoutingMode": "native", "EnableHostLegacyRouting": true, "EnableKubeProxyReplacement": true}"#,
                DataPath::Bypass,
            ),
            (
                r#"{"RoutingMode": "native", "A": {"EnableHostLegacyRouting": false}, "KubeProxyReplacement": false}"#,
                DataPath::Bypass,
            ),
            (r#"{"RoutingMode": "native", "KubeProxyReplacement": false}"#, DataPath::Bypass),
            (r#"{"RoutingMode": "native", "EnableHostLegacyRouting": true}"#, DataPath::Bypass),
            (r#"{"EnableHostLegacyRouting": true, "KubeProxyReplacement": false}"#, DataPath::Bypass),
            ("{", DataPath::Bypass),
        ] {
            fs::write(&config, text).unwrap();
            assert_eq!(path(&["cilium_host"]), expected, "{text}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
