//! The pages' commands can be typed, and the pages are right about messages, metrics and options.

use crate::common::{
    documented::{commands_in, commands_of_clusters, page},
    run,
};
use std::{collections::BTreeSet, fs, path::Path};

/// README.md and docs/*.md.
fn pages() -> Vec<String> {
    let docs = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")).unwrap();
    let names = docs.flatten().map(|entry| format!("docs/{}", entry.file_name().to_string_lossy()));
    let mut pages: Vec<String> = names.filter(|name| name.ends_with(".md")).map(|name| page(&name)).collect();
    pages.push(page("README.md"));
    pages
}

/// The lines of the command blocks, without comments.
fn commands() -> BTreeSet<String> {
    pages().iter().flat_map(|page| commands_in(page)).collect()
}

#[test]
fn every_command_of_ours_in_the_pages_is_understood() {
    let mut seen = 0;
    for command in commands() {
        let Some(args) = command.strip_prefix("meridian ") else { continue };
        let words = args.split_whitespace().take_while(|word| !["|", ">", "&"].contains(word));
        // Quotes only surround words without spaces.
        let mut args: Vec<&str> = words.map(|word| word.trim_matches('\'')).collect();
        // Unknown arguments before `--help` are refused.
        args.push("--help");
        let output = run(&args);
        assert_eq!(output.code, Some(0), "{command}: {}", output.stderr);
        seen += 1;
    }
    assert!(seen > 10, "{seen}");
}

#[test]
fn every_command_that_needs_a_cluster_is_typed_by_the_suite_that_has_one() {
    let commands = commands_of_clusters();
    assert!(commands.len() > 10, "{commands:?}");
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pods");
    let files = fs::read_dir(suite).unwrap().flatten().map(|file| fs::read_to_string(file.path()).unwrap());
    let code: String = files.collect();
    let missing: Vec<_> = commands.iter().filter(|command| !code.contains(&format!("\"{command}\""))).collect();
    assert!(missing.is_empty(), "typed by nobody: {missing:#?}");
}

#[test]
fn every_alert_and_every_line_of_the_check_has_an_entry() {
    let install = page("docs/install.md");
    let alerts = page("helm/meridian/files/alerts.yaml");
    let alerts = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let missing: Vec<&str> = alerts.filter(|alert| !install.contains(&format!("| `{alert}` |"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let output = run(&["check", "--uplink", "lo"]);
    let findings = output
        .stdout
        .lines()
        .filter(|line| ["ok ", "missing ", "note ", "BAD "].into_iter().any(|word| line.starts_with(word)));
    let names: Vec<&str> = findings.filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert!(names.len() >= 6, "{output:?}");
    for name in names {
        assert!(install.contains(&format!("`{name}`")), "{name}");
    }
}
