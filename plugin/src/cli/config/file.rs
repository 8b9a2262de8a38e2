//! A file of settings. Each setting is an argument of a program: its id is the key, and a value of the file stands
//! for the flag with that value.
//!
//! So types, defaults and errors are the flag's. Keys that a flag or a variable sets are left out, which makes
//! the order of precedence: flag, variable, file, default.

use super::super::{Failure, named_file::NamedFile, usage};
use crate::yaml;
use clap::{
    Arg, ArgAction, ArgMatches, Command,
    error::{ContextKind, ContextValue},
    parser::ValueSource,
};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_saphyr::Spanned;
use std::{any::TypeId, error::Error as _, ffi::OsString, path::Path};

/// The argument that names the file.
pub(super) const CONFIG: &str = "config";

/// The settings of a program: its arguments that have a variable, but for the name of the file.
pub(super) fn settings(program: &Command) -> impl Iterator<Item = &Arg> {
    program.get_arguments().filter(|argument| argument.get_env().is_some() && argument.get_id() != CONFIG)
}

/// Whether a setting has any number of values.
pub(super) fn is_list(setting: &Arg) -> bool {
    matches!(setting.get_action(), ArgAction::Append)
}

/// Whether a setting names a file that counts from the folder of the file of settings.
pub(super) fn is_relative(setting: &Arg) -> bool {
    setting.get_value_parser().type_id() == TypeId::of::<NamedFile>()
}

/// The reason for which a line of a configuration file is refused.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum InvalidKey {
    /// The text is not YAML of this form.
    #[error(transparent)]
    Yaml(#[from] yaml::Invalid),
    /// No setting has this key.
    #[error("unknown key `{key}`: there are {neighbours}")]
    Unknown { key: String, neighbours: String },
    /// The setting refuses the value.
    #[error("{key}: {reason}")]
    Value { key: String, reason: String },
}

type Refusal = yaml::Refusal<InvalidKey>;

/// A key of a file, with its values.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) setting: &'a Arg,
    values: Vec<Spanned<String>>,
}

/// The flags that the file stands for, but for those that are given already.
pub(in super::super) fn flags(path: &Path, program: &Command, given: &ArgMatches) -> Result<Vec<OsString>, Failure> {
    let refused = |refusal: Refusal| usage(refusal.of_file(path));
    let text = yaml::read::<InvalidKey>(path).map_err(usage)?;
    let mut flags = Vec::new();
    for Entry { setting, values } in entries(&text, program).map_err(refused)? {
        let id = setting.get_id().as_str();
        for Spanned { value, referenced, .. } in values {
            let flag = flag(setting, &value, path);
            if let Some(reason) = refusal(program, &flag) {
                let key = id.to_owned();
                return Err(refused(Refusal::new(referenced.line(), InvalidKey::Value { key, reason })));
            }
            if !matches!(given.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
                flags.push(flag);
            }
        }
    }
    Ok(flags)
}

/// A file that a file names is relative to its folder.
fn flag(setting: &Arg, value: &str, file: &Path) -> OsString {
    let mut flag = OsString::from(format!("--{}=", setting.get_long().unwrap_or_default()));
    match file.parent() {
        Some(folder) if is_relative(setting) && !value.is_empty() => flag.push(folder.join(value)),
        _ => flag.push(value),
    }
    flag
}

/// Why a flag can't be, if it can't.
fn refusal(program: &Command, flag: &OsString) -> Option<String> {
    // Others may need each other; here each is looked at alone.
    let alone =
        program.clone().no_binary_name(true).mut_args(|argument| argument.env(clap::builder::Resettable::Reset));
    let error = alone.try_get_matches_from([flag]).err()?;
    let reason = error.source().map(ToString::to_string);
    Some(reason.unwrap_or_else(|| match (error.get(ContextKind::InvalidValue), error.get(ContextKind::ValidValue)) {
        (Some(ContextValue::String(value)), Some(ContextValue::Strings(valid))) => {
            format!("`{value}` is not one of {}", valid.join(", "))
        }
        _ => one_line(&error),
    }))
}

/// The reason in an error of the command line, without advice.
pub(in super::super) fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let reason = text.split("\n\n").next().unwrap_or_default();
    reason.trim_start_matches("error: ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The entries of a text, in its order.
pub(super) fn entries<'a>(text: &[u8], program: &'a Command) -> Result<Vec<Entry<'a>>, Refusal> {
    let mut file = File { program, entries: Vec::new(), unknown: None };
    let keys = Group { file: &mut file, prefix: String::new() };
    yaml::parse_with(text, "keys of `meridian config reference`", keys).map_err(yaml::Refusal::widen)?;
    match file.unknown {
        None => Ok(file.entries),
        Some((line, key)) => {
            let neighbours = neighbours(program, &key).join(", ");
            Err(Refusal::new(line, InvalidKey::Unknown { key, neighbours }))
        }
    }
}

/// The keys of the group in which a key would be.
fn neighbours<'a>(program: &'a Command, key: &str) -> Vec<&'a str> {
    let group = key.rsplit_once('.').map_or("", |(group, _)| group);
    let mut names: Vec<&str> = Vec::new();
    for setting in settings(program) {
        let within = setting.get_id().as_str().strip_prefix(group).map(|name| name.trim_start_matches('.'));
        let name = within.and_then(|name| name.split('.').next()).unwrap_or_default();
        if setting.get_id().as_str().starts_with(group) && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The entries read so far.
struct File<'a> {
    program: &'a Command,
    entries: Vec<Entry<'a>>,
    /// The first key that is no setting.
    unknown: Option<(u64, String)>,
}

/// The keys that begin with a prefix.
struct Group<'f, 'a> {
    file: &'f mut File<'a>,
    prefix: String,
}

impl<'de> DeserializeSeed<'de> for Group<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Group<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.prefix.trim_end_matches('.') {
            "" => f.write_str("keys and values"),
            group => write!(f, "keys and values in `{group}`"),
        }
    }

    // A group without keys.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { file, prefix } = self;
        while let Some(Spanned { value, referenced, .. }) = map.next_key::<Spanned<String>>()? {
            let key = format!("{prefix}{value}");
            let group = format!("{key}.");
            if let Some(setting) = settings(file.program).find(|setting| setting.get_id() == key.as_str()) {
                let values = if is_list(setting) {
                    map.next_value::<Option<Vec<_>>>()?.unwrap_or_default()
                } else {
                    map.next_value::<Option<_>>()?.into_iter().collect()
                };
                file.entries.push(Entry { setting, values });
            } else if settings(file.program).any(|setting| setting.get_id().as_str().starts_with(&group)) {
                map.next_value_seed(Group { file: &mut *file, prefix: group })?;
            } else {
                file.unknown.get_or_insert((referenced.line(), key));
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::builder::BoolishValueParser;

    fn program() -> Command {
        // No variable of this name is there.
        let setting = |id: &'static str, long: &'static str| Arg::new(id).long(long).env("MERIDIAN_IN_NO_ENVIRONMENT");
        Command::new("agent")
            .arg(Arg::new("stay").long("stay").action(ArgAction::SetTrue))
            .arg(setting("node", "node").default_value("here"))
            .arg(setting("hook.ports", "port").action(ArgAction::Append).value_parser(clap::value_parser!(u16)))
            .arg(setting("hook.is_kept", "kept").value_parser(BoolishValueParser::new()))
            .arg(setting("table", "table").value_parser(clap::value_parser!(NamedFile)))
    }

    fn flags_of(text: &str, given: &[&str]) -> Result<Vec<OsString>, String> {
        let program = program();
        let given = program.clone().no_binary_name(true).get_matches_from(given);
        let folder = std::env::temp_dir().join(format!("meridian-file-{:?}", std::thread::current().id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("agent.yaml");
        std::fs::write(&path, text).unwrap();
        let flags = flags(&path, &program, &given);
        std::fs::remove_dir_all(&folder).unwrap();
        let at = format!("{}", folder.display());
        flags
            .map(|flags| flags.iter().map(|flag| flag.to_str().unwrap().replace(&at, "FOLDER").into()).collect())
            .map_err(|error| error.to_string().replace(&at, "FOLDER"))
    }

    #[test]
    fn a_key_stands_for_the_flag_with_the_same_id() {
        let text = "node: 007\nhook:\n  ports: [1, 2]\n  is_kept: yes\ntable: z.yaml\n";
        let flags = ["--node=007", "--port=1", "--port=2", "--kept=yes", "--table=FOLDER/z.yaml"];
        assert_eq!(flags_of(text, &[]).unwrap(), flags);
        assert_eq!(flags_of("node: ~\nhook:\ntable: /z\n", &[]).unwrap(), ["--table=/z"]);
    }

    #[test]
    fn a_flag_that_is_given_counts_before_the_file() {
        assert_eq!(flags_of("node: file\nhook: {ports: [1]}\n", &["--node=flag", "--port=7"]).unwrap(), [""; 0]);
    }

    #[test]
    fn a_key_that_is_no_setting_is_named_with_its_line_and_its_neighbours() {
        let refused = |text: &str| flags_of(text, &[]).unwrap_err();
        let all = "there are node, hook, table";
        assert_eq!(refused("node: a\nnoed: b\n"), format!("FOLDER/agent.yaml:2: unknown key `noed`: {all}"));
        assert_eq!(refused("stay: true\n"), format!("FOLDER/agent.yaml:1: unknown key `stay`: {all}"));
        let within = "FOLDER/agent.yaml:2: unknown key `hook.prots`: there are ports, is_kept";
        assert_eq!(refused("hook:\n  prots: {a: [b]}\n"), within);
        assert!(refused("node: a\nnode: b\n").starts_with("FOLDER/agent.yaml:2: duplicate"), "twice");
    }

    #[test]
    fn a_value_that_can_not_be_is_named_with_its_line_and_key() {
        let refused = |text: &str| flags_of(text, &[]).unwrap_err();
        let port = "FOLDER/agent.yaml:2: hook.ports: ";
        assert!(
            refused("hook: {ports: [1,\n  70000]}\n").starts_with(port),
            "{}",
            refused("hook: {ports: [1,\n70000]}")
        );
        assert!(refused("hook: {ports: 1}\n").starts_with("FOLDER/agent.yaml:1: "));
        assert!(refused("node: [a]\n").starts_with("FOLDER/agent.yaml:1: "));
        assert!(refused("hook: 5\n").starts_with("FOLDER/agent.yaml:1: "));
        // Also where a flag counts before it.
        assert!(flags_of("hook: {is_kept: maybe}", &["--kept=true"]).unwrap_err().contains("hook.is_kept: "));
    }
}
