//! docs/configuration.md, from the settings themselves.

use super::{
    file::{is_list, is_relative, settings},
    program::Program,
};
use clap::{Arg, Command};
use std::fmt::Write;

/// Under the table of the agent.
const ZONE_TABLE: &str = r#"## The zone table

```yaml
zones:     [{name: eu-1a, region: eu-1, cidrs: [10.0.1.0/24, "fd00:1::/64"]}]
endpoints: [{ip: 10.0.1.7, namespace: shop, pod: cart-0, workload: {kind: StatefulSet, name: cart}, labels: {app: cart}}]
external:  [{name: orders-db, cidr: 10.9.8.0/24, zone: eu-1a, class: database}]   # database, loadbalancer, nat or vm
```

A zone belongs to one region, and a prefix to one zone; the most specific prefix wins. The zone `unknown` needs no region. It marks addresses as the cluster's without a zone, such as public ranges in private use, which would count as the internet otherwise. An `external` prefix may omit `zone`. A public address in no prefix is the internet, a private one is unknown. Meridian reads the file again when it changes and on SIGHUP. It refuses a file with an error, with file, line and reason, and keeps the old table.
"#;

/// The page.
pub(super) fn reference() -> String {
    let (agent, controller) = (Program::Agent.command(), Program::Controller.command());
    format!(
        "# Configuration\n\n\
         `meridian config reference` prints this page.\n\n\
         A flag takes precedence over a variable, a variable over the file that `--config` or `MERIDIAN_CONFIG` \
         names, and the file over the default. `meridian config check FILE` checks an agent's file, with `--program \
         controller` a controller's. An unknown key or an invalid value is an error that names file, line and key. \
         Flags with several values take them with commas; in a file they are lists.\n\n\
         ## The agent\n\n{}\nA file with every key; keys with a default have it as their value:\n\n```yaml\n{}```\n\n\
         {ZONE_TABLE}\n\
         ## The controller\n\n{}\nA file with every key:\n\n```yaml\n{}```\n",
        table(&agent),
        sample(&agent),
        table(&controller),
        sample(&controller),
    )
}

fn table(program: &Command) -> String {
    let mut text = String::from("| key | flag | variable | default | meaning |\n|---|---|---|---|---|\n");
    for setting in settings(program) {
        let default = default(setting).map(|default| format!("`{default}`")).unwrap_or_default();
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "| `{}` | `--{}` | `{}` | {default} | {}{}{} |",
            setting.get_id(),
            setting.get_long().unwrap_or_default(),
            setting.get_env().unwrap_or_default().to_string_lossy(),
            setting.get_help().map(ToString::to_string).unwrap_or_default(),
            values(setting),
            if is_relative(setting) { ". In a configuration file the path is relative to its folder" } else { "" },
        );
    }
    text
}

fn default(setting: &Arg) -> Option<String> {
    let values: Vec<_> = setting.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    (!values.is_empty()).then(|| values.join(","))
}

/// The values of a setting that has only some.
fn values(setting: &Arg) -> String {
    let values = setting.get_value_parser().possible_values().into_iter().flatten();
    let values = values.filter(|value| !value.is_hide_set()).map(|value| format!("`{}`", value.get_name()));
    let values: Vec<String> = values.collect();
    if values.is_empty() { String::new() } else { format!(" ({})", values.join(", ")) }
}

/// A file with every key. Those without a default are commented out.
fn sample(program: &Command) -> String {
    let keys = settings(program).map(|setting| (setting.get_id().as_str(), setting)).collect();
    let mut text = String::new();
    group(keys, 0, &mut text);
    text
}

/// Writes keys, those of a group together.
fn group(mut keys: Vec<(&str, &Arg)>, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    while let Some((key, setting)) = keys.first().copied() {
        // Writing to a string can't fail.
        let _ = if let Some((name, _)) = key.split_once('.') {
            let (members, others) = keys.into_iter().partition(|(key, _)| within(key, name).is_some());
            keys = others;
            let members: Vec<_> = members;
            let members = members.into_iter().filter_map(|(key, setting)| Some((within(key, name)?, setting)));
            let written = writeln!(text, "{indent}{name}:");
            group(members.collect(), depth + 1, text);
            written
        } else {
            keys.remove(0);
            let mark = if default(setting).is_some() { "" } else { "# " };
            writeln!(text, "{indent}{mark}{key}: {}", value(setting))
        };
    }
}

/// The name of a key in its group.
fn within<'k>(key: &'k str, group: &str) -> Option<&'k str> {
    key.strip_prefix(group)?.strip_prefix('.')
}

/// The default, or the name of the value, as YAML.
fn value(setting: &Arg) -> String {
    let names = setting.get_value_names().unwrap_or_default();
    let value = default(setting).unwrap_or_else(|| names.first().map(ToString::to_string).unwrap_or_default());
    let is_plain = |text: &str| text.chars().all(|letter| letter.is_ascii_alphanumeric() || "/._-".contains(letter));
    let quoted = |text: &str| if is_plain(text) { text.to_owned() } else { format!("\"{text}\"") };
    match setting.get_value_delimiter() {
        Some(delimiter) if is_list(setting) => {
            format!("[{}]", value.split(delimiter).map(quoted).collect::<Vec<_>>().join(", "))
        }
        _ => quoted(&value),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::file::entries, *};
    use crate::yaml;
    use std::{collections::BTreeSet, fs};

    #[test]
    fn the_page_in_the_docs_matches_the_code() {
        let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md")).unwrap();
        assert!(page == reference(), "`meridian config reference > docs/configuration.md` renews it");
    }

    #[test]
    fn defaults_of_the_chart_are_those_of_the_programs() {
        let values = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../helm/meridian/values.yaml")).unwrap();
        let values: serde_json::Value = yaml::parse(&values, "").unwrap();
        let cases = [
            (Program::Agent, "/clusterName", "cluster_name"),
            (Program::Agent, "/hubble/metrics", "hubble.metrics"),
            (Program::Agent, "/hubble/zonesInSummary", "hubble.zones_in_summary"),
            (Program::Agent, "/hubble/capacity", "hubble.capacity"),
            (Program::Agent, "/agent/hook", "hook"),
            (Program::Agent, "/agent/overlayHeaderBytes", "overlay_header_bytes"),
            (Program::Agent, "/agent/stateDir", "state_dir"),
            (Program::Agent, "/agent/reportInterval", "controller.report_interval"),
            (Program::Controller, "/clusterName", "cluster_name"),
            (Program::Controller, "/zoneLabel", "zone_label"),
            (Program::Controller, "/regionLabel", "region_label"),
            (Program::Controller, "/controller/podLabelKeys", "pod_labels"),
            (Program::Controller, "/controller/maxAgents", "feed.max_agents"),
            (Program::Controller, "/otlp/interval", "otlp.interval"),
            (Program::Controller, "/pairLog/output", "pair_log.output"),
            (Program::Controller, "/pairLog/interval", "pair_log.interval"),
            (Program::Controller, "/metrics/namespaces", "metrics.namespaces"),
            (Program::Controller, "/metrics/workloads", "metrics.workloads"),
            (Program::Controller, "/metrics/pods", "metrics.pods"),
            (Program::Controller, "/metrics/kubezonnet", "metrics.kubezonnet"),
            (Program::Controller, "/metrics/opencost", "metrics.opencost"),
            (Program::Controller, "/metrics/series", "metrics.series"),
        ];
        for (program, value, key) in cases {
            let command = program.command();
            let setting = settings(&command).find(|setting| setting.get_id() == key).unwrap();
            let in_chart = match values.pointer(value).unwrap() {
                serde_json::Value::String(text) => text.clone(),
                serde_json::Value::Array(list) => {
                    list.iter().map(|value| value.as_str().unwrap()).collect::<Vec<_>>().join(",")
                }
                other => other.to_string(),
            };
            assert_eq!(Some(in_chart), default(setting), "{value}");
        }
    }

    #[test]
    fn every_argument_is_a_setting_with_a_key_of_its_own_or_is_done_instead_of_running() {
        for program in [Program::Agent, Program::Controller] {
            let command = program.command();
            let ids: BTreeSet<&str> = settings(&command).map(|setting| setting.get_id().as_str()).collect();
            let flags: BTreeSet<&str> = settings(&command).filter_map(Arg::get_long).collect();
            let variables: BTreeSet<_> = settings(&command).filter_map(Arg::get_env).collect();
            assert_eq!((ids.len(), ids.len()), (flags.len(), variables.len()));
            assert!(ids.len() > 35, "{ids:?}");
            let others = command.get_arguments().map(|argument| argument.get_id().as_str());
            let others: Vec<&str> = others.filter(|id| !ids.contains(id)).collect();
            let expected: &[&str] =
                if matches!(program, Program::Agent) { &["config", "unload", "stay"] } else { &["config"] };
            assert_eq!(others, expected);
            // A key is no group of others.
            for id in &ids {
                assert!(!ids.iter().any(|other| other.starts_with(&format!("{id}."))), "{id}");
                // As the other keys are written, by words with underscores.
                assert!(id.chars().all(|letter| letter.is_ascii_lowercase() || "._".contains(letter)), "{id}");
            }
        }
    }

    #[test]
    fn the_file_with_every_key_is_read() {
        for program in [Program::Agent, Program::Controller] {
            let command = program.command();
            let sample = sample(&command);
            let of = |text: &str| -> Vec<String> {
                let entries = entries(text.as_bytes(), &command).unwrap();
                entries.iter().map(|entry| entry.setting.get_id().to_string()).collect()
            };
            let with_default = settings(&command).filter(|setting| default(setting).is_some());
            assert_eq!(of(&sample).len(), with_default.count(), "{sample}");
            let all = of(&sample.replace("# ", ""));
            let ids = settings(&command).map(|setting| setting.get_id().to_string());
            assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), ids.collect(), "{sample}");
        }
    }
}
