//! The histories of two replicas of the controller, of which the leader is killed: each is whole.

use crate::{
    advice,
    bpf_fs::BpfFs,
    collector::Collector,
    lab::{Controller, Lab, inside, until},
    nodes::lay_out,
    totals::{Controllers, Truth, holds},
};
use jiff::Timestamp;
use meridian::metrics::ask;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::time::Duration;

/// A replica's report of the hours between two times.
async fn report(controller: &Controller, [from, to]: [i64; 2], locality: &str) -> Option<Value> {
    let [from, to] = [from, to].map(|second| Timestamp::from_second(second).unwrap());
    let path = format!("/api/v1/report?from={from}&to={to}&by=workload-pair&locality={locality}");
    serde_json::from_str(&ask(&controller.http, None, &path).await.ok()?).ok()
}

/// The hours of the test: that before its start, and those after it.
struct Hours {
    start: i64,
}

impl Hours {
    fn before(&self) -> [i64; 2] {
        [self.start - 3600, self.start]
    }

    fn since(&self) -> [i64; 2] {
        [self.start, self.start + 2 * 3600]
    }

    /// Waits until the history of a replica has exactly this traffic between zones.
    async fn has(&self, what: &str, controller: &Controller, bytes: u64) {
        until(&format!("{bytes} bytes in the history of {what}"), async || {
            let report = report(controller, self.since(), "cross-zone").await?;
            let recorded = report["total"]["bytes"].as_u64().unwrap();
            assert!(recorded <= bytes, "{what} has {recorded} of {bytes} bytes: {report}");
            (recorded == bytes).then_some(())
        })
        .await;
    }

    /// Waits until a replica has reports of all three nodes: traffic before the first one belongs to no hour.
    async fn hears(&self, controller: &Controller) {
        until("reports of three nodes", async || {
            (report(controller, self.since(), "all").await?["coverage"]["nodes"] == 3).then_some(())
        })
        .await;
    }

    /// Waits until a replica reports what another one does of the hour before.
    async fn agree(&self, what: &str, controller: &Controller, expected: &Value) {
        until(&format!("the hour before, from {what}"), async || {
            let report = report(controller, self.before(), "all").await?;
            (report["rows"] == expected["rows"] && report["total"] == expected["total"]).then_some(())
        })
        .await;
    }
}

#[test]
#[ignore = "needs the program of conformance/cluster: scripts/test.sh cluster"]
fn each_replica_has_the_whole_history_when_the_leader_is_killed() {
    inside("histories", async |lab: &mut Lab| tokio::task::LocalSet::new().run_until(histories(lab)).await);
}

async fn histories(lab: &mut Lab) {
    let nodes = lay_out(lab).await;
    let pins = BpfFs::temporary("histories");
    let truth = Truth::default();
    let mut controllers = Controllers::none(lab, Collector::start()).await;
    let folders = ["history-1", "history-2"].map(|name| lab.folder.as_ref().join(name));
    advice::history(&folders[0]);
    let now = Timestamp::now().as_second();
    let hours = Hours { start: now - now % 3600 };

    let first = controllers.start_with(lab, &folders[0]).await;
    holds(&first, 1.0).await;
    let before = report(&first, hours.before(), "all").await.unwrap();
    assert_eq!(before["total"]["bytes"], 5_000_000_000_u64, "{before}");
    let second = controllers.start_with(lab, &folders[1]).await;
    let _agents = controllers.agents(lab, &nodes, &pins).await;
    for replica in [&first, &second] {
        hours.hears(replica).await;
    }
    for size in 1..20 {
        truth.send(&nodes, size * 20);
    }
    hours.has("the leader", &first, truth.total()).await;
    hours.has("the standby replica", &second, truth.total()).await;
    hours.agree("the standby replica, which had no history", &second, &before).await;

    // The leader is killed during traffic, of which the other replica has everything.
    first.process.signal(Signal::SIGKILL);
    controllers.replicas.borrow_mut().remove(0);
    for size in 0..10 {
        truth.send(&nodes, 100 + size);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    holds(&second, 1.0).await;
    hours.has("the next leader", &second, truth.total()).await;
    drop(first);

    // A replica with an empty folder, and the killed one again with its own, both have the hours before.
    let killed = controllers.start_with(lab, &folders[0]).await;
    hours.agree("the replica that was killed", &killed, &before).await;
    let new = controllers.start_with(lab, &lab.folder.as_ref().join("history-3")).await;
    hours.agree("a new replica", &new, &before).await;
    truth.send(&nodes, 500);
    hours.has("the leader at last", &second, truth.total()).await;
}
