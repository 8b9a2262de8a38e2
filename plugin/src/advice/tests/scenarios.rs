//! Scenarios: a cluster with its traffic, and the expected findings. Prices are those of AWS, 0.02 dollars for a gigabyte
//! between zones, unless a scenario has others.

mod near_misses;
mod protocols;
mod services;

use super::{
    cluster::{Cluster, hinted, plain},
    *,
};
use crate::catalogue::DataPlane;

/// Rule, subject, dollars a month, and a text that the finding has.
type Expected = (&'static str, &'static str, &'static str, &'static str);

struct Scenario {
    name: &'static str,
    cluster: Cluster,
    expected: &'static [Expected],
}

const WEB: &str = "Deployment shop/web@a";
const CART_B: &str = "Deployment shop/cart@b";
const KUBE_PROXY: DataPlane = DataPlane::KubeProxy;

fn row(name: &'static str, cluster: Cluster, expected: &'static [Expected]) -> Scenario {
    Scenario { name, cluster, expected }
}

fn on(version: &str) -> Cluster {
    Cluster::new(version, KUBE_PROXY)
}

/// Two zones with an endpoint each; clients in both reach the endpoint of the other one for half of their traffic.
fn even(cluster: Cluster) -> Cluster {
    cluster
        .sent(WEB, CART_B, "shop/cart:8080", [10, 40])
        .sent("Deployment shop/web@b", "Deployment shop/cart@a", "shop/cart:8080", [10, 40])
        .sent(WEB, "Deployment shop/cart@a", "shop/cart:8080", [10, 40])
        .sent("Deployment shop/web@b", CART_B, "shop/cart:8080", [10, 40])
}

fn all() -> Vec<Scenario> {
    [
        services::preferring(),
        services::capacity(),
        services::not_honoured(),
        services::over_time(),
        protocols::stores(),
        protocols::scrapers_and_others(),
        near_misses::services(),
        near_misses::node_local(),
        near_misses::protocols(),
        near_misses::external(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[test]
fn each_scenario_has_its_findings_and_no_others() {
    let scenarios = all();
    assert!(scenarios.len() >= 40, "{}", scenarios.len());
    let mut wrong = Vec::new();
    for Scenario { name, cluster, expected } in &scenarios {
        let advice = cluster.advice(&Options::default());
        let found: Vec<_> = advice
            .findings
            .iter()
            .map(|finding| {
                (
                    finding.rule.number(),
                    finding.subject.clone(),
                    finding.saving.cost.rounded(2),
                    finding.json().to_string(),
                )
            })
            .collect();
        let is_one = |(found, expected): (&(&str, String, String, String), &Expected)| {
            (found.0, found.1.as_str(), found.2.as_str()) == (expected.0, expected.1, expected.2)
                && found.3.contains(expected.3)
        };
        if found.len() != expected.len() || !found.iter().zip(*expected).all(is_one) {
            wrong.push(format!("{name}:\n  expected {expected:?}\n  found {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), scenarios.len(), wrong.join("\n"));
}

#[test]
fn every_rule_has_a_scenario() {
    let expected: Vec<&str> = all().iter().flat_map(|row| row.expected).map(|expected| expected.0).collect();
    for rule in Rule::ALL {
        assert!(expected.contains(&rule.number()), "{rule:?}");
    }
}

#[test]
fn savings_are_exact() {
    let cluster = on("1.34")
        .service("shop/cart", &[("a", 1), ("b", 1)], hinted)
        .exact(WEB, CART_B, "shop/cart:8080", [123_456_789_012, 1])
        .own_prices(
            "rules:\n  - {id: own, provider: aws, between: zones, sender: \"0.013\", receiver: \"0.007\", unit: GB}\n",
        );
    let advice = cluster.advice(&Options::default());
    // 123.456789013 GB at 0.02; parts of a millionth of a dollar are left out.
    assert_eq!(advice.findings[0].saving.cost.exact(), "2.469135");
    assert_eq!(advice.findings[0].saving.bytes, 123_456_789_013);
}

#[test]
fn a_short_time_is_too_early_and_a_month_is_projected_from_what_was_recorded() {
    let mut cluster = even(on("1.34")).service("shop/cart", &[("a", 1), ("b", 1)], plain);
    cluster.recorded = Duration::from_secs(23 * 3600);
    let advice = cluster.advice(&Options::default());
    assert!(advice.is_too_early() && advice.findings.is_empty() && advice.table().starts_with("Too early: 23.0 h"));
    cluster.recorded = Duration::from_secs(73 * 3600);
    assert_eq!(cluster.advice(&Options::default()).findings[0].saving.cost.exact(), "20");
    cluster.recorded = Duration::ZERO;
    assert!(cluster.advice(&Options::all()).is_too_early(), "there is no rate without a time");
}

#[test]
fn the_cap_keeps_what_saves_most() {
    let cluster = (1..=9).fold(on("1.34"), |cluster, n| {
        let (name, server) = (format!("shop/s{n}"), format!("Deployment shop/s{n}@b"));
        cluster
            .service(&name, &[("a", 1), ("b", 1)], plain)
            .sent(WEB, &server, &format!("{name}:80"), [0, 100 * n])
            .sent("Deployment shop/web@b", &server, &format!("{name}:80"), [0, 100 * n])
    });
    let advice = cluster.advice(&Options { cap: 3, ..Options::default() });
    let subjects: Vec<&str> = advice.findings.iter().map(|finding| finding.subject.as_str()).collect();
    assert_eq!(subjects, ["Service shop/s9", "Service shop/s8", "Service shop/s7"]);
    assert_eq!((advice.above_cap, advice.saving.cost.exact().as_str()), (6, "90"), "the sum is that of all");
}
