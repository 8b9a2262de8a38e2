//! Watches whether the hook sees what leaves the node, and changes a hook that is blind for one that sees.
//!
//! What is configured on a node says where packets should pass; this says where they do. A hook is changed
//! once, and back only where the other one has been seen to be worse.

use super::{HookState, Meter};
use crate::{
    counters::DeviceBytes,
    datapath::{Compared, Coverage, GRACE, Hook},
};
use std::time::{Duration, Instant};

/// How often hook and devices are compared.
const EVERY: Duration = Duration::from_secs(5);
/// For how long the bytes of an interval that has few of them are added to the next one.
const LONGEST_INTERVAL: Duration = Duration::from_secs(30);
/// Changes of the hook in an agent's life: there, and back.
const MAX_CHANGES: usize = 2;
/// By how much more the other hook must have seen, in percent, for it to be taken again.
const CLEARLY_MORE: u64 = 10;

/// The state of the comparison.
#[derive(Debug, Default)]
pub struct HookWatch {
    /// Whether the hook may be changed; otherwise it is only said that it is blind.
    may_change: bool,
    /// The counters at the beginning of the interval.
    start: Option<(Instant, Coverage)>,
    /// When the counters were read last.
    read: Option<Instant>,
    /// Since this agent runs.
    sum: DeviceBytes,
    state: HookState,
    /// Hooks that were blind, with the share that each saw.
    blind: Vec<(Hook, u64)>,
    changes: usize,
    /// When a change goes on that has begun.
    next_step: Option<Instant>,
    is_warned: bool,
    foreign_filters: Vec<String>,
}

impl HookWatch {
    /// A watch that has seen nothing yet. `reason` says why packets are counted where they are.
    pub fn new(may_change: bool, reason: &str) -> Self {
        Self { may_change, state: HookState { reason: reason.into(), ..HookState::default() }, ..Self::default() }
    }

    /// The hook's state.
    pub const fn state(&self) -> &HookState {
        &self.state
    }

    /// Compares if it is time, says what it finds, and goes on with a change that has begun.
    pub fn look(&mut self, meter: &mut Meter, now: Instant) {
        if meter.datapath.is_changing() {
            return self.continue_change(meter, now);
        }
        if !meter.datapath.is_attached() || self.read.is_some_and(|read| now.duration_since(read) < EVERY) {
            return;
        }
        self.read = Some(now);
        match meter.datapath.coverage() {
            Ok(coverage) => {
                let compared = self.compare(coverage, now);
                self.state.seen = Some(self.sum);
                if let Some(compared) = compared {
                    self.judge(compared, meter, now);
                }
            }
            Err(error) => tracing::debug!(%error, "what the devices sent can't be read"),
        }
        self.look_for_others(meter);
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
        // Devices that come or go make the sums jump: such an interval tells nothing.
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
            self.begin(to, percent, meter, now);
        }
    }

    /// The hook to take instead of one that saw this share.
    fn better(&mut self, hook: Hook, percent: u64, others: &[Hook]) -> Option<Hook> {
        match self.blind.iter_mut().find(|(blind, _)| *blind == hook) {
            Some((_, share)) => *share = percent,
            None => self.blind.push((hook, percent)),
        }
        if !self.may_change || self.changes >= MAX_CHANGES {
            return None;
        }
        let share = |hook: &Hook| self.blind.iter().find(|(blind, _)| blind == hook).map(|(_, share)| *share);
        let other = others.first()?;
        match share(other) {
            Some(share) if share < percent + CLEARLY_MORE => None,
            _ => Some(*other),
        }
    }

    fn begin(&mut self, to: Hook, percent: u64, meter: &mut Meter, now: Instant) {
        let from = meter.datapath.hook();
        self.changes += 1;
        match meter.datapath.begin_hook_change(to) {
            Ok(()) => {
                tracing::info!(%from, %to, "counting moves to the other hook");
                self.state.reason = format!("{from} saw {percent} % of what the devices sent").into();
                self.next_step = Some(now + GRACE);
            }
            Err(error) => tracing::error!(%from, %to, %error, "counting can't move to the other hook"),
        }
    }

    fn continue_change(&mut self, meter: &mut Meter, now: Instant) {
        if self.next_step.is_some_and(|next| now < next) {
            return;
        }
        self.next_step = Some(now + GRACE);
        match meter.datapath.continue_hook_change() {
            Ok(None) => {}
            Ok(Some(hook)) => {
                tracing::info!(%hook, why = %self.state.reason, "packets are counted here now");
                self.state.changes += 1;
                // What was sent meanwhile was seen by both hooks in parts.
                (self.start, self.is_warned) = (None, false);
            }
            Err(error) => tracing::error!(%error, "the change of the hook can't go on"),
        }
    }

    /// Says when somebody's filter has come before ours.
    fn look_for_others(&mut self, meter: &Meter) {
        match meter.datapath.foreign_filters() {
            Ok(foreign_filters) => {
                if foreign_filters != self.foreign_filters && !foreign_filters.is_empty() {
                    tracing::warn!(
                        ?foreign_filters,
                        "filters of others run first, and packets that they keep are not counted: give them a priority above 1 (Cilium: bpf-filter-priority: 2) and start the agent again"
                    );
                }
                self.state.foreign_filters = foreign_filters.len() as u64;
                self.foreign_filters = foreign_filters;
            }
            Err(error) => tracing::debug!(%error, "filters can't be listed"),
        }
    }
}

/// The hooks that see what this one does not, the best one first.
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
    fn an_interval_says_what_was_seen_in_it() {
        let mut watch = HookWatch::default();
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
        let mut watch = HookWatch::default();
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
        watch.changes = 1;
        assert_eq!(watch.better(Hook::Tcx, 60, &[Hook::Netfilter]), None, "it saw less");
        let mut watch = HookWatch::new(true, "");
        assert_eq!(watch.better(Hook::Netfilter, 60, &[Hook::Tcx]), Some(Hook::Tcx));
        watch.changes = 1;
        assert_eq!(watch.better(Hook::Tcx, 3, &[Hook::Netfilter]), Some(Hook::Netfilter));
        watch.changes = 2;
        assert_eq!(watch.better(Hook::Netfilter, 60, &[Hook::Tcx]), None, "for good");
        assert_eq!(HookWatch::new(false, "").better(Hook::Netfilter, 0, &[Hook::Tcx]), None, "it was asked for");
        assert_eq!(HookWatch::new(true, "").better(Hook::Netfilter, 0, &[]), None, "there is no other one");
    }
}
