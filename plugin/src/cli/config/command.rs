//! `meridian config`: looks at a configuration, and says what one can hold.

use super::{
    super::{Failure, controller, print, usage},
    Args, CILIUM_STATE_DIR, HTTP_LISTEN, HUBBLE_LISTEN, KEYS, PIN_DIR, RING_CAPACITY, SERIES, SOCKET, STATE_DIR,
};
use crate::{
    agent::ZoneSource,
    outputs::Checked,
    zones::{StaticTable, Table},
};
use clap::Args as _;
use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

/// Questions about the configuration.
#[derive(Debug, clap::Subcommand)]
pub(in super::super) enum Config {
    /// Reads an agent's configuration and its zone table; exit code 2 if there is an error.
    Check {
        /// The configuration file.
        #[arg(value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Prints what can be configured: every key, its flag and its variable, as Markdown.
    Reference,
}

/// `meridian config`.
pub(in super::super) fn run(command: &Config) -> Result<(), Failure> {
    match command {
        Config::Check { file } => check(file),
        Config::Reference => print(&reference()),
    }
}

fn check(file: &Path) -> Result<(), Failure> {
    let settings = Args { config: Some(file.to_owned()), ..Args::default() }.settings()?;
    let mut text = format!("{}: good\n", file.display());
    if let ZoneSource::File(zones) = &settings.zones {
        let table = StaticTable::read(zones).map_err(usage)?;
        let (prefixes, endpoints) = (table.zones.len() - Table::new().len(), table.endpoints.len());
        // Writing to a string can't fail.
        let _ = writeln!(text, "{}: good, {prefixes} prefixes, {endpoints} endpoints", zones.display());
    }
    for Checked { path, count, what } in settings.outputs.check().map_err(usage)? {
        let _ = writeln!(text, "{}: good, {count} {what}", path.display());
    }
    print(&text)
}

/// docs/configuration.md.
fn reference() -> String {
    let mut text = String::from(
        "# Configuration\n\n\
         `meridian config reference` prints this page.\n\n\
         ## The agent\n\n\
         A flag counts before a variable, a variable before the file that `--config` or `MERIDIAN_CONFIG` names. \
         `meridian config check FILE` reads a file without starting anything; a key that is not below is an error.\n\n\
         | key | flag | variable | what |\n|---|---|---|---|\n",
    );
    let command = Args::augment_args(clap::Command::new("agent"));
    for argument in command.get_arguments() {
        let Some((_, key)) = KEYS.iter().find(|(id, _)| argument.get_id() == id) else { continue };
        let values: Vec<String> = argument
            .get_value_parser()
            .possible_values()
            .map(|values| values.map(|value| format!("`{}`", value.get_name())).collect())
            .unwrap_or_default();
        let values = if values.is_empty() { String::new() } else { format!(" ({})", values.join(", ")) };
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "| `{key}` | `--{}` | `{}` | {}{values} |",
            argument.get_long().unwrap_or_default(),
            argument.get_env().unwrap_or_default().to_string_lossy(),
            argument.get_help().map(ToString::to_string).unwrap_or_default(),
        );
    }
    let _ = write!(
        text,
        "\n`zones_file`, `prices`, `hubble.metrics_file` and `hubble.flow_logs_file` in a file are relative to the file's folder. In a file, what a flag takes with commas is a list. A complete file:\n\n\
         ```yaml\nnode: node-a\ncluster_name: default\nzones_file: zones.yaml   # or, in a cluster, controller:\n\
         controller: {{address: \"meridian-controller.meridian:4345\", ca_file: /tls/ca.crt, \
         server_name: meridian-controller, token_file: /token, report_interval: 10s}}\nhook: auto\nuplinks: [eth0]\nservice_ports: [50051]\n\
         overlay_header_bytes: 0\ncilium_state_dir: {CILIUM_STATE_DIR}\npin_dir: {PIN_DIR}\n\
         hubble:\n  listen: \"{HUBBLE_LISTEN}\"   # beyond loopback with TLS\n  socket: {SOCKET}\n  node_name: node-a\n  \
         peers: [node-b=10.0.0.2:4344]\n  zones_in_summary: false\n  capacity: {RING_CAPACITY}\n  tls: {{cert_file: /tls/server.crt, key_file: \
         /tls/server.key, client_ca_files: [/tls/client-ca.crt], disable: false}}\n  metrics: auto   # or, read again \
         when it changes:\n  metrics_file: metrics.yaml\n  export: {{file: /var/log/meridian/flows.log, max_size_mb: \
         10, max_backups: 5, compress: false, allow: '{{\"source_pod\":[\"shop/\"]}}', deny: '', fields: \
         [source.pod_name]}}\n  flow_logs_file: flow-logs.yaml\nhttp: {{listen: \"{HTTP_LISTEN}\"}}\n\
         pair_log: {{output: stdout, interval: 10s}}\n\
         metrics: {{namespaces: true, workloads: true, pods: false, kubezonnet: true, opencost: true, series: {SERIES}}}\n\
         state_dir: {STATE_DIR}\nhistory_dir: /var/lib/meridian/history\nprices: prices.yaml\n```\n\n\
         ## The zone table\n\n\
         ```yaml\n\
         zones:     [{{name: eu-1a, region: eu-1, cidrs: [10.0.1.0/24, \"fd00:1::/64\"]}}]\n\
         endpoints: [{{ip: 10.0.1.7, namespace: shop, pod: cart-0, workload: {{kind: StatefulSet, name: cart}}, labels: {{app: cart}}}}]\n\
         external:  [{{name: orders-db, cidr: 10.9.8.0/24, zone: eu-1a, class: database}}]   # database, loadbalancer, nat or vm\n\
         ```\n\n\
         A zone belongs to one region, a prefix to one zone; the most specific prefix wins. The zone `unknown` \
         needs no region and says that addresses are ours without saying where: public ranges that are used \
         privately are not the internet then. An `external` prefix may leave out `zone`. A public address in no \
         prefix is the internet, a private one is unknown. The file is read again when it changes and on SIGHUP; one \
         with an error is refused with file, line and reason, and the old one stays in force.\n\n\
         ## The controller\n\n\
         | flag | variable | what |\n|---|---|---|\n"
    );
    for argument in controller::Args::augment_args(clap::Command::new("controller")).get_arguments() {
        let defaults = argument.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy()));
        let defaults: Vec<String> = defaults.collect();
        let default = if defaults.is_empty() { String::new() } else { format!("; by default {}", defaults.join(", ")) };
        let _ = writeln!(
            text,
            "| `--{}` | `{}` | {}{default} |",
            argument.get_long().unwrap_or_default(),
            argument.get_env().unwrap_or_default().to_string_lossy(),
            argument.get_help().map(ToString::to_string).unwrap_or_default(),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{super::File, *};
    use crate::yaml;
    use std::fs;

    #[test]
    fn every_flag_has_a_key_and_a_variable_and_every_key_a_flag() {
        let command = Args::augment_args(clap::Command::new("agent"));
        // What is done instead of running is no configuration.
        let is_key = |argument: &&clap::Arg| !["unload", "stay"].contains(&argument.get_id().as_str());
        let arguments: Vec<&clap::Arg> = command.get_arguments().filter(is_key).collect();
        let ids: Vec<&str> = arguments.iter().map(|argument| argument.get_id().as_str()).collect();
        let keys: Vec<&str> = std::iter::once("config").chain(KEYS.iter().map(|(id, _)| *id)).collect();
        assert_eq!(ids, keys);
        for argument in arguments {
            assert!(argument.get_env().is_some(), "{}", argument.get_id());
        }
        // The complete file of the reference names each key, and is a good one.
        let reference = reference();
        let yaml = reference.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let file: File = yaml::parse(yaml.as_bytes(), "").unwrap();
        assert_eq!((file.hubble.socket, file.metrics.series), (Some(SOCKET.into()), Some(SERIES)));
        let value: serde_json::Value = yaml::parse(yaml.as_bytes(), "").unwrap();
        for (_, key) in KEYS {
            assert!(key.split('.').try_fold(&value, |value, part| value.get(part)).is_some(), "{key}");
        }
    }

    #[test]
    fn the_page_in_the_docs_is_what_the_code_says() {
        let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md")).unwrap();
        assert!(page == reference(), "`meridian config reference > docs/configuration.md` renews it");
    }
}
