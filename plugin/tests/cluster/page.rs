//! The page of a real controller in a real browser: Debian's Chromium, which prints what it shows.

use crate::{
    common::Scratch,
    lab::{Controller, until},
};
use meridian::metrics::ask;
use serde_json::Value;
use std::{collections::BTreeMap, process::Command};

/// What a browser shows of a view, after its scripts.
fn shown(folder: &Scratch, http: &str, view: &str) -> String {
    let profile = format!("--user-data-dir={}", folder.as_ref().join(view).display());
    let flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom", &profile];
    let output = Command::new("chromium").args(flags).arg(format!("http://{http}/?view={view}")).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The overview has these bytes between zones, and the API no others; Health has the nodes.
pub async fn is_true(controller: &Controller, sent: &BTreeMap<(String, String), u64>, nodes: &[&str]) {
    let http = &controller.http;
    until("the counters of the API", async || {
        let zones: Value = serde_json::from_str(&ask(http, None, "/api/v1/zones").await.ok()?).unwrap();
        let mut sums = BTreeMap::<(String, String), u64>::new();
        // Agents and controllers also talk, with addresses in no prefix.
        let between = |cell: &&Value| cell["locality"] == "cross-zone";
        for cell in zones["matrix"].as_array().unwrap().iter().filter(between) {
            let zone = |key: &str| cell[key].as_str().unwrap().to_owned();
            *sums.entry((zone("source_zone"), zone("destination_zone"))).or_default() +=
                cell["bytes"].as_u64().unwrap();
        }
        (sums == *sent).then_some(())
    })
    .await;
    let folder = Scratch::new("browser");
    let overview = shown(&folder, http, "overview");
    for (pair, bytes) in sent {
        assert!(overview.contains(&format!("data-bytes=\"{bytes}\"")), "{pair:?}: {bytes}: {overview}");
    }
    let health = shown(&folder, http, "health");
    for text in nodes.iter().chain(&["controller", "none is silent", "none is behind", "the leader"]) {
        assert!(health.contains(text), "{text}: {health}");
    }
}
