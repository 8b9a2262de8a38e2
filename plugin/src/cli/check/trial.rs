//! Tries the hooks on this node's own packets for a few seconds: counts at each hook, and compares with the bytes that
//! the devices sent. Nothing is pinned, and a running agent is not disturbed.

use super::finding::{Finding, Findings};
use crate::datapath::{Compared, Coverage, Datapath, Devices, Error, Hook, Options};
use std::{thread, time::Duration};

/// Few slots, because the trial does not read the flows.
const FLOW_SLOTS: u32 = 1024;

/// A hook that counts.
struct Trial {
    hook: Hook,
    datapath: Datapath,
    start: Coverage,
}

impl Trial {
    fn start(hook: Hook, devices: &Devices) -> Result<Self, Error> {
        let mut datapath = Datapath::load(Options { hook, flow_slots: FLOW_SLOTS, ..Options::default() })?;
        datapath.set_devices(devices.clone())?;
        datapath.attach()?;
        let start = datapath.coverage()?;
        Ok(Self { hook, datapath, start })
    }

    /// The comparison of the devices and the hook; `None` if the devices sent too little.
    fn end(&self) -> Result<Option<Compared>, Error> {
        let added = self.datapath.coverage()?.since(&self.start);
        Ok(added.filter(Coverage::is_enough).map(|added| added.compare()))
    }
}

/// The hooks to try, and the devices.
pub(super) struct Trials<'a> {
    /// The hook that an agent would choose.
    pub(super) chosen: Hook,
    /// Whether an agent would change a blind hook.
    pub(super) is_auto: bool,
    /// The hooks that the kernel has.
    pub(super) there: &'a [Hook],
    pub(super) devices: &'a Devices,
}

impl Trials<'_> {
    /// Compares the chosen hook, and, if it is blind, names another hook that sees more.
    pub(super) fn compare(&self, duration: Duration, findings: &mut Findings) {
        let others = self.there.iter().copied().filter(|hook| *hook != self.chosen);
        let mut trials = Vec::new();
        for hook in [self.chosen].into_iter().chain(others) {
            match Trial::start(hook, self.devices) {
                Ok(trial) => trials.push(trial),
                Err(error) => findings.add(Finding::Note, "seen", format!("{hook} can't be tried: {error}")),
            }
        }
        thread::sleep(duration);
        let ends: Vec<(Hook, Result<Option<Compared>, Error>)> =
            trials.iter().map(|trial| (trial.hook, trial.end())).collect();
        let sees_more = ends.iter().find_map(|(hook, end)| match end {
            Ok(Some(compared)) if !compared.is_blind => Some(*hook),
            _ => None,
        });
        let seconds = duration.as_secs_f64();
        for (hook, end) in ends {
            match end {
                Ok(Some(compared)) => {
                    let Compared { sent, seen, .. } = compared;
                    let percent = compared.percent();
                    let (finding, remedy) = self.judge(hook, compared.is_blind, sees_more);
                    let found =
                        format!("{hook}: {seen} of {sent} B that the devices sent in {seconds} s ({percent} %)");
                    findings.add(finding, "seen", format!("{found}{remedy}"));
                }
                Ok(None) if hook == self.chosen => {
                    let little = format!("{hook}: the devices sent too little in {seconds} s to compare");
                    findings.add(Finding::Note, "seen", format!("{little}; try --duration 30s"));
                }
                Ok(None) => {}
                Err(error) => findings.add(Finding::Note, "seen", format!("{hook}: {error}")),
            }
        }
    }

    fn judge(&self, hook: Hook, is_blind: bool, sees_more: Option<Hook>) -> (Finding, String) {
        match (is_blind, sees_more) {
            (false, _) => (Finding::Good, String::new()),
            (true, _) if hook != self.chosen => (Finding::Note, String::new()),
            (true, Some(other)) if self.is_auto => (
                Finding::Bad,
                format!("; packets bypass it: an agent changes to {other} by itself, or use --hook {other}"),
            ),
            (true, Some(other)) => (Finding::Bad, format!("; packets bypass it: use --hook {other}")),
            (true, None) => (Finding::Bad, "; packets bypass it, and no other hook sees more".into()),
        }
    }
}
