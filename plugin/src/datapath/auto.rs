//! Which hook sees this node's packets, decided by looking.

use super::{Error, Hook, devices::Devices};
use serde_json::Value;
use std::{fs, path::Path};

/// Devices that only a data path makes that may bypass netfilter: Cilium's, and Calico's with eBPF.
pub(super) const MARKS: [&str; 3] = ["cilium_host", "bpfin.cali", "bpfout.cali"];
const CILIUM: &str = "cilium_host";

/// Where cilium-agent writes its configuration down, below its state folder.
const CILIUM_CONFIG: &str = "agent-runtime-config.json";
/// The option that says that packets go through the host's network stack, and so through netfilter.
const LEGACY_ROUTING: &str = "EnableHostLegacyRouting";

/// A hook, and why it is that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The hook.
    pub hook: Hook,
    /// For people.
    pub why: String,
}

/// What the choice follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DataPath {
    /// Packets of pods go through netfilter.
    Netfilter,
    /// They may not.
    Bypass,
}

/// The hook for these devices. `cilium_state` is the state folder of Cilium's agent.
///
/// # Errors
/// eBPF is not permitted to this process.
pub fn choose(devices: &Devices, cilium_state: &Path) -> Result<Choice, Error> {
    let (path, why) = data_path(devices, cilium_state);
    let order = match path {
        DataPath::Netfilter => [Hook::Netfilter, Hook::Tcx, Hook::Clsact],
        DataPath::Bypass => [Hook::Tcx, Hook::Clsact, Hook::Netfilter],
    };
    let mut why = why;
    for hook in order {
        match hook.require() {
            Ok(()) => return Ok(Choice { hook, why }),
            Err(error @ (Error::NoNetfilter { .. } | Error::NoTcx { .. })) => why.push_str(&format!("; {error}")),
            Err(error) => return Err(error),
        }
    }
    Ok(Choice { hook: Hook::Clsact, why })
}

/// Whether a cilium-agent is on this node: its device, or the folder where it keeps its state.
pub fn has_cilium(devices: &Devices, cilium_state: &Path) -> bool {
    devices.bypasses.contains(CILIUM) || cilium_state.exists()
}

fn data_path(devices: &Devices, cilium_state: &Path) -> (DataPath, String) {
    if let Some(calico) = devices.bypasses.iter().find(|name| name.starts_with("bpf")) {
        return (DataPath::Bypass, format!("Calico's eBPF data path bypasses netfilter (device {calico})"));
    }
    if let Some(netkit) = devices.bypasses.iter().find(|name| *name != CILIUM) {
        return (DataPath::Bypass, format!("netkit devices bypass netfilter ({netkit})"));
    }
    if !devices.bypasses.contains(CILIUM) {
        return match devices.programmed.first() {
            Some(device) => (DataPath::Bypass, format!("an eBPF program on {device} may forward past netfilter")),
            None => (DataPath::Netfilter, "no data path is here that bypasses netfilter".into()),
        };
    }
    let config = cilium_state.join(CILIUM_CONFIG);
    let read = fs::read(&config).ok().and_then(|text| serde_json::from_slice(&text).ok());
    match read.as_ref().and_then(legacy_routing) {
        Some(true) => (DataPath::Netfilter, format!("Cilium routes through the host's stack ({})", config.display())),
        Some(false) => {
            (DataPath::Bypass, format!("Cilium's eBPF host routing bypasses netfilter ({})", config.display()))
        }
        None => {
            (DataPath::Bypass, format!("Cilium is here and may bypass netfilter ({} does not say)", config.display()))
        }
    }
}

/// What the option says, at whatever depth: it has moved between versions.
fn legacy_routing(config: &Value) -> Option<bool> {
    match config {
        Value::Object(fields) => {
            fields.get(LEGACY_ROUTING).and_then(Value::as_bool).or_else(|| fields.values().find_map(legacy_routing))
        }
        Value::Array(items) => items.iter().find_map(legacy_routing),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn with(names: &[&str]) -> Devices {
        Devices { bypasses: names.iter().map(|name| (*name).to_owned()).collect(), ..Devices::default() }
    }

    #[test]
    fn a_data_path_is_told_by_its_devices_and_ciliums_configuration() {
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
        let config = folder.join(CILIUM_CONFIG);
        for (text, expected) in [
            (r#"{"EnableHostLegacyRouting": true}"#, DataPath::Netfilter),
            (r#"{"UnsafeDaemonConfigOption": {"EnableHostLegacyRouting": false}}"#, DataPath::Bypass),
            ("{", DataPath::Bypass),
        ] {
            fs::write(&config, text).unwrap();
            assert_eq!(path(&["cilium_host"]), expected, "{text}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
