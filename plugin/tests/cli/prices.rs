//! Prices: the list, the rule for a pair, and bad files and places.

use crate::{Scratch, run};
use serde_json::Value;

#[track_caller]
fn refused(args: &[&str], start: &str) {
    let output = run(args);
    assert!(output.code == Some(2) && output.stdout.is_empty() && output.stderr.lines().count() == 1, "{output:?}");
    assert!(output.stderr.starts_with(start), "{output:?}");
}

#[test]
fn the_price_of_a_pair_is_explained_with_rule_day_and_source() {
    let output = run(&["prices", "explain", "us-east-1a", "us-east-1b"]);
    for part in [
        "sender    0.01 USD per GB\n",
        "receiver  0.01 USD per GB\n",
        "both      0.02 ",
        "rule      aws-zones\n",
        "as of     2026-07-20\n",
        "source    AWS price list",
    ] {
        assert!(output.stdout.contains(part), "{output:?}");
    }
    let output = run(&["prices", "explain", "aws/us-east-1", "aws/us-east-1", "--output", "json"]);
    let value: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!((&value["sender"], &value["rule"]["id"]), (&"0.01".into(), &"aws-zones".into()));
    let output = run(&["prices", "explain", "gcp/us-central1/us-central1-a", "gcp/europe-west1"]);
    assert!(output.stdout.contains("sender    0.05 USD per GiB\nreceiver  0 USD"), "{output:?}");
    let output = run(&["prices", "explain", "us-east-1a", "internet"]);
    assert!(output.stdout.contains("unpriced  ") && output.code == Some(0), "{output:?}");
}

#[test]
fn own_prices_and_zones_are_asked_first() {
    let scratch = Scratch::new("prices");
    let zones = scratch.file("zones.yaml", b"zones:\n- {name: a, region: r, provider: aws, cidrs: [10.0.0.0/24]}\n- {name: b, region: r, cidrs: [10.0.1.0/24]}\n");
    let prices = scratch.file("prices.yaml", b"rules:\n- {id: ours, from_zones: a, to_zones: b, sender: \"0.005\"}\n");
    let (zones, prices) = (zones.to_str().unwrap(), prices.to_str().unwrap());
    let output = run(&["prices", "explain", "a", "b", "--zones-file", zones]);
    assert!(output.stdout.contains("unpriced  the provider of a zone is unknown\n"), "{output:?}");
    let output = run(&["prices", "explain", "a", "b", "--zones-file", zones, "--prices", prices]);
    assert!(output.stdout.contains("both      0.005 USD per GB\nrule      ours\n"), "{output:?}");
    refused(
        &["prices", "explain", "a", "c", "--zones-file", zones],
        "meridian: c: the zones file does not name this zone; ",
    );
    let output = run(&["prices", "list", "--prices", prices]);
    assert!(output.stdout.lines().nth(1).unwrap().starts_with("ours "), "{output:?}");
    let output = run(&["prices", "list", "--provider", "aws", "--output", "json"]);
    let value: Value = serde_json::from_str(&output.stdout).unwrap();
    assert!(value["rules"].as_array().unwrap().iter().all(|rule| rule["provider"] == "aws"), "{value}");
}

#[test]
fn bad_prices_and_places_are_one_line() {
    let scratch = Scratch::new("bad-prices");
    let file = scratch.file("prices.yaml", b"rules:\n- {id: a, sender: \"0,01\"}\n");
    let file = file.to_str().unwrap();
    refused(&["prices", "list", "--prices", file], &format!("meridian: {file}:2: rule a: `0,01` is not a price like"));
    refused(
        &["prices", "explain", "here", "us-east-1a"],
        "meridian: here: the provider can't be guessed from this name; ",
    );
    refused(&["prices", "list", "--provider", "nobody"], "meridian: --provider nobody: no rule has this provider");
    refused(&["prices", "list", "--prices", "/missing.yaml"], "meridian: /missing.yaml: No such file or directory");
}
