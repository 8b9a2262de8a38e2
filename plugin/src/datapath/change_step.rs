//! The progress of a change of the hook.

use super::{Hook, object::Programs};

/// A change in progress.
pub(super) struct HookChange {
    pub(super) to: Hook,
    pub(super) step: Step,
}

/// The next step.
pub(super) enum Step {
    /// Traffic control starts to count, and netfilter stops.
    CountTheRest(Box<Later>),
    /// Every packet that netfilter has counted has passed traffic control.
    LeaveNetfilter(Programs),
    /// Every packet that reaches traffic control has passed netfilter's programs, which count alone.
    LeaveTrafficControl(Box<Later>),
}

/// Programs that are loaded before the change begins, so that nothing can fail during the change.
pub(super) struct Later {
    /// For the time in which both hooks have programs.
    pub(super) meanwhile: Programs,
    /// For the time after the change.
    pub(super) after: Programs,
}
