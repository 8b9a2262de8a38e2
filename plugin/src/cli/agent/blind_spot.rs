//! Compares what the hook saw with what the devices sent: a data path that bypasses the hook would
//! otherwise look like a quiet node.

use crate::{agent::Agent, datapath::devices, metrics::Seen};
use std::time::{Duration, Instant};

/// How often it is compared.
const EVERY: Duration = Duration::from_secs(10);
/// Fewer bytes say nothing: packets are on their way.
const ENOUGH: u64 = 1 << 20;
/// A device that cuts packets itself may count fewer headers than the wire has, and none has the wire's
/// checksum; what is missed by more than this was not seen.
const TOLERATED_PERCENT: u64 = 10;

/// What was compared so far.
#[derive(Default)]
pub(super) struct BlindSpot {
    /// By the counters of devices and hook, the last time.
    last: Option<(Instant, Seen)>,
    /// Since this agent runs.
    sum: Seen,
    told: bool,
    preceded: Vec<String>,
}

impl BlindSpot {
    /// Compares if it is time, and says what it finds.
    pub(super) fn look(&mut self, agent: &mut Agent, now: Instant) {
        if self.last.is_some_and(|(last, _)| now.duration_since(last) < EVERY) {
            return;
        }
        let sent = devices::sent(agent.datapath().devices());
        let counters = sent.and_then(|sent| Ok(Seen { sent, seen: agent.seen_bytes()? }));
        match counters {
            Ok(counters) => {
                if let Some(percent) = self.compare(counters, now) {
                    let hook = agent.datapath().hook();
                    tracing::warn!(
                        %hook,
                        "the hook sees {percent} % of what leaves this node: packets bypass it; `meridian check` says which hook would see them"
                    );
                }
                agent.tell_seen(self.sum);
            }
            Err(error) => tracing::debug!(%error, "what the devices sent can't be read"),
        }
        self.look_for_others(agent);
    }

    /// Says when somebody's filter has come before ours.
    fn look_for_others(&mut self, agent: &mut Agent) {
        match agent.datapath().preceded() {
            Ok(preceded) => {
                if preceded != self.preceded && !preceded.is_empty() {
                    tracing::warn!(
                        ?preceded,
                        "filters of others run first, and packets that they keep are not counted: give them a priority above 1 (Cilium: bpf-filter-priority: 2) and start the agent again"
                    );
                }
                agent.tell_preceded(preceded.len() as u64);
                self.preceded = preceded;
            }
            Err(error) => tracing::debug!(%error, "filters can't be listed"),
        }
    }

    /// How many percent were seen, if that is to be said now.
    fn compare(&mut self, counters: Seen, now: Instant) -> Option<u64> {
        let (_, last) = self.last.replace((now, counters))?;
        // Devices that come or go make the sum jump: such an interval tells nothing.
        let sent = counters.sent.checked_sub(last.sent)?;
        let seen = counters.seen.saturating_sub(last.seen);
        self.sum = Seen { sent: self.sum.sent + sent, seen: self.sum.seen + seen };
        if sent < ENOUGH {
            return None;
        }
        let is_blind = seen * 100 < sent * (100 - TOLERATED_PERCENT);
        let is_news = is_blind && !self.told;
        self.told = is_blind;
        is_news.then(|| seen * 100 / sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missed_is_said_once() {
        let mut spot = BlindSpot::default();
        let now = Instant::now();
        let mut compare = |sent, seen| spot.compare(Seen { sent, seen }, now);
        assert_eq!(compare(5_000_000, 0), None, "from before this agent");
        assert_eq!(compare(15_000_000, 9_500_000), None);
        assert_eq!(compare(25_000_000, 10_000_000), Some(5));
        assert_eq!(compare(35_000_000, 10_000_000), None, "said");
        assert_eq!(compare(45_000_000, 20_000_000), None, "good again");
        assert_eq!(compare(45_100_000, 20_000_000), None, "too little");
        assert_eq!(compare(55_100_000, 20_000_000), Some(0));
        assert_eq!(compare(1_000, 20_000_000), None, "a device has gone");
        assert_eq!(spot.sum, Seen { sent: 50_100_000, seen: 20_000_000 });
    }
}
