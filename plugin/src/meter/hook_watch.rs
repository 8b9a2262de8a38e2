//! Watches whether the hook sees the packets that leave the node, and replaces a blind hook by one that sees them.
//!
//! A node's configuration suggests where packets pass; the comparison shows where they do. A hook is changed once,
//! and changed back only if the other one turned out to be worse.

use super::{HookState, Meter};
use crate::{
    backoff::Backoff,
    counters::DeviceBytes,
    datapath::{Compared, Coverage, GRACE, Hook, auto, devices},
};
use std::time::{Duration, Instant};

/// The interval at which the hook and the devices are compared.
const EVERY: Duration = Duration::from_secs(5);
/// The longest time for which an interval with few bytes is extended.
const LONGEST_INTERVAL: Duration = Duration::from_secs(30);
/// The limit of changes during an agent's life: to the other hook, and back.
const MAX_CHANGES: u64 = 2;
/// The longest time until a refused step is repeated.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// The lead in percent that the other hook needs for a change back.
const CLEARLY_MORE: u64 = 10;

/// The state of the comparison.
#[derive(Debug)]
pub struct HookWatch {
    /// Whether the agent may change the hook; otherwise it only warns.
    may_change: bool,
    /// The counters at the start of the interval.
    start: Option<(Instant, Coverage)>,
    /// The time at which the counters were last read.
    read: Option<Instant>,
    /// The sums since the agent started.
    sum: DeviceBytes,
    state: HookState,
    /// Blind hooks, with the percentage that each saw.
    blind: Vec<(Hook, u64)>,
    /// The earliest time of the next step of a change.
    next_step: Option<Instant>,
    /// The waits after steps that the kernel refused.
    backoff: Backoff,
    is_warned: bool,
    foreign_filters: Vec<String>,
}

impl HookWatch {
    /// A watch without data. `reason` is the reason for the current hook.
    pub fn new(may_change: bool, reason: &str) -> Self {
        Self {
            may_change,
            start: None,
            read: None,
            sum: DeviceBytes::default(),
            state: HookState { reason: reason.into(), ..HookState::default() },
            blind: Vec::new(),
            next_step: None,
            backoff: Backoff::new(GRACE.saturating_mul(2), LONGEST_PAUSE, 1.0..=1.0),
            is_warned: false,
            foreign_filters: Vec::new(),
        }
    }

    /// The hook's state.
    pub const fn state(&self) -> &HookState {
        &self.state
    }

    /// Compares when it is time, logs the result, and continues a change in progress.
    pub fn look(&mut self, meter: &mut Meter, now: Instant) {
        if meter.datapath.is_changing() {
            return self.continue_change(meter, now);
        }
        if !meter.datapath.is_attached() || self.read.is_some_and(|read| now.duration_since(read) < EVERY) {
            return;
        }
        self.read = Some(now);
        if self.leaves_netfilter(meter, now) {
            return;
        }
        match meter.datapath.coverage() {
            Ok(coverage) => {
                let compared = self.compare(coverage, now);
                self.state.seen = Some(self.sum);
                if let Some(compared) = compared {
                    self.judge(compared, meter, now);
                }
            }
            Err(error) => tracing::debug!(%error, "the devices' counters can't be read"),
        }
        self.look_for_others(meter);
    }

    /// Moves counting from netfilter before pods that bypass it have sent much. Returns whether it began.
    fn leaves_netfilter(&mut self, meter: &mut Meter, now: Instant) -> bool {
        let is_first = self.may_change && self.state.changes == 0 && meter.datapath.hook() == Hook::Netfilter;
        let Some(uplink) = is_first.then(|| devices::shared(meter.datapath.devices()).ok().flatten()).flatten() else {
            return false;
        };
        let Some(to) = others(Hook::Netfilter).iter().copied().find(|other| other.require().is_ok()) else {
            return false;
        };
        self.begin(to, auto::children_bypass(&uplink), meter, now)
    }

    /// Compares the interval that ends now; `None` while it is too short.
    fn compare(&mut self, coverage: Coverage, now: Instant) -> Option<Compared> {
        let Some((since, before)) = self.start else {
            self.start = Some((now, coverage));
            return None;
        };
        let added = coverage.since(&before);
        if added.is_some_and(|added| !added.is_enough()) && now.duration_since(since) < LONGEST_INTERVAL {
            return None;
        }
        self.start = Some((now, coverage));
        // A device that is added or removed makes the sums jump, so the interval is void.
        let added = added?;
        let compared = added.compare();
        self.sum = DeviceBytes { sent: self.sum.sent + compared.sent, seen: self.sum.seen + compared.seen };
        added.is_enough().then_some(compared)
    }

    fn judge(&mut self, compared: Compared, meter: &mut Meter, now: Instant) {
        if !compared.is_blind {
            self.is_warned = false;
            return;
        }
        let hook = meter.datapath.hook();
        let percent = compared.percent();
        if !std::mem::replace(&mut self.is_warned, true) {
            tracing::warn!(
                %hook,
                sent = compared.sent,
                seen = compared.seen,
                "the hook sees {percent} % of what leaves this node: packets bypass it"
            );
        }
        let others: Vec<Hook> = others(hook).iter().copied().filter(|other| other.require().is_ok()).collect();
        if let Some(to) = self.better(hook, percent, &others) {
            self.begin(to, format!("{hook} saw {percent} % of what the devices sent"), meter, now);
        }
    }

    /// The hook to use instead of one that saw this percentage.
    fn better(&mut self, hook: Hook, percent: u64, others: &[Hook]) -> Option<Hook> {
        match self.blind.iter_mut().find(|(blind, _)| *blind == hook) {
            Some((_, share)) => *share = percent,
            None => self.blind.push((hook, percent)),
        }
        if !self.may_change || self.state.changes >= MAX_CHANGES {
            return None;
        }
        let share = |hook: &Hook| self.blind.iter().find(|(blind, _)| blind == hook).map(|(_, share)| *share);
        let other = others.first()?;
        match share(other) {
            Some(share) if share < percent + CLEARLY_MORE => None,
            _ => Some(*other),
        }
    }

    /// Begins to move counting. Returns whether it has begun.
    fn begin(&mut self, to: Hook, reason: String, meter: &mut Meter, now: Instant) -> bool {
        if self.must_wait(now) {
            return false;
        }
        let from = meter.datapath.hook();
        let begun = meter.datapath.begin_hook_change(to);
        self.stepped(&begun, now);
        let has_begun = begun.is_ok();
        match begun {
            Ok(()) => {
                tracing::info!(%from, %to, reason, "counting moves to the other hook");
                self.state.reason = reason.into();
            }
            Err(error) => tracing::error!(%from, %to, %error, "counting can't move to the other hook"),
        }
        has_begun
    }

    fn continue_change(&mut self, meter: &mut Meter, now: Instant) {
        if self.must_wait(now) {
            return;
        }
        let step = meter.datapath.continue_hook_change();
        self.stepped(&step, now);
        match step {
            Ok(None) => {}
            Ok(Some(hook)) => {
                tracing::info!(%hook, why = %self.state.reason, "packets are counted here now");
                self.state.changes += 1;
                // During the change each hook saw a part of the traffic.
                (self.start, self.is_warned) = (None, false);
            }
            Err(error) => tracing::error!(%error, "the kernel refused a step of the hook change: it is repeated later"),
        }
    }

    fn must_wait(&self, now: Instant) -> bool {
        self.next_step.is_some_and(|next| now < next)
    }

    /// Sets the time of the next step: after a refusal it comes later.
    fn stepped<T, E>(&mut self, step: &Result<T, E>, now: Instant) {
        let pause = if step.is_ok() {
            self.backoff.succeeded();
            GRACE
        } else {
            self.state.refused += 1;
            self.backoff.failed()
        };
        self.next_step = Some(now + pause);
    }

    /// Warns when a filter of another program runs before ours.
    fn look_for_others(&mut self, meter: &Meter) {
        match meter.datapath.foreign_filters() {
            Ok(foreign_filters) => {
                if foreign_filters != self.foreign_filters && !foreign_filters.is_empty() {
                    tracing::warn!(
                        ?foreign_filters,
                        "filters of other programs run first, and packets that they keep are not counted: give them a priority above 1 (Cilium: bpf-filter-priority: 2) and restart the agent"
                    );
                }
                self.state.foreign_filters = foreign_filters.len() as u64;
                self.foreign_filters = foreign_filters;
            }
            Err(error) => tracing::debug!(%error, "filters can't be listed"),
        }
    }
}

/// The hooks that see packets which this one misses, the best one first.
const fn others(hook: Hook) -> &'static [Hook] {
    match hook {
        Hook::Netfilter => &[Hook::Tcx, Hook::Clsact],
        Hook::Tcx | Hook::Clsact => &[Hook::Netfilter],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    fn coverage(sent: u64, seen: u64) -> Coverage {
        Coverage { uplinks_sent: sent, uplinks_seen: seen, ..Coverage::default() }
    }

    #[test]
    fn an_interval_has_its_own_coverage() {
        let mut watch = HookWatch::new(false, "");
        let now = Instant::now();
        let mut compare = |sent, seen| watch.compare(coverage(sent, seen), now).map(|compared| compared.percent());
        assert_eq!(compare(5 * MB, 0), None, "from before this agent");
        assert_eq!(compare(15 * MB, 10 * MB), Some(100));
        assert_eq!(compare(25 * MB, 11 * MB), Some(10));
        assert_eq!(compare(1_000, 20 * MB), None, "a device has gone");
        assert_eq!(compare(1_000 + MB, 20 * MB), Some(0));
        assert_eq!(watch.sum, DeviceBytes { sent: 21 * MB, seen: 11 * MB });
    }

    #[test]
    fn a_quiet_node_is_compared_when_it_has_sent_enough_and_forgotten_in_time() {
        let mut watch = HookWatch::new(false, "");
        let start = Instant::now();
        let mut compare = |seconds, sent| watch.compare(coverage(sent, 0), start + Duration::from_secs(seconds));
        assert_eq!(compare(0, 0), None);
        assert_eq!(compare(5, 100_000), None);
        assert!(compare(10, 300_000).unwrap().is_blind, "both intervals together");
        assert_eq!(compare(15, 400_000), None);
        assert_eq!(compare(45, 500_000), None, "ARP and the like, over a long time");
        assert_eq!(compare(50, 600_000), None);
    }

    #[test]
    fn a_blind_hook_is_changed_once_and_back_only_for_a_better_one() {
        let mut watch = HookWatch::new(true, "");
        assert_eq!(watch.better(Hook::Netfilter, 3, &[Hook::Tcx]), Some(Hook::Tcx));
        watch.state.changes = 1;
        assert_eq!(watch.better(Hook::Tcx, 60, &[Hook::Netfilter]), None, "it saw less");
        let mut watch = HookWatch::new(true, "");
        assert_eq!(watch.better(Hook::Netfilter, 60, &[Hook::Tcx]), Some(Hook::Tcx));
        watch.state.changes = 1;
        assert_eq!(watch.better(Hook::Tcx, 3, &[Hook::Netfilter]), Some(Hook::Netfilter));
        watch.state.changes = 2;
        assert_eq!(watch.better(Hook::Netfilter, 60, &[Hook::Tcx]), None, "for good");
        assert_eq!(HookWatch::new(false, "").better(Hook::Netfilter, 0, &[Hook::Tcx]), None, "it was configured");
        assert_eq!(HookWatch::new(true, "").better(Hook::Netfilter, 0, &[]), None, "there is no other one");
    }

    #[test]
    fn a_refused_step_is_repeated_after_ever_longer_pauses() {
        let (mut watch, start) = (HookWatch::new(true, ""), Instant::now());
        let mut pause = |step: Result<(), ()>| {
            watch.stepped(&step, start);
            (watch.next_step.unwrap() - start).as_secs()
        };
        assert_eq!([Ok(()), Err(()), Err(()), Err(()), Ok(())].map(&mut pause), [1, 2, 4, 8, 1]);
        let last = (0..100).map(|_| pause(Err(()))).last();
        assert_eq!(last, Some(300));
        assert_eq!(watch.state.refused, 103);
        assert!(watch.must_wait(start) && !watch.must_wait(start + LONGEST_PAUSE));
    }
}
