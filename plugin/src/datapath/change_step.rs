//! How far a change of the hook is.

use super::{Hook, object::Programs};

/// A change that has begun.
pub(super) struct HookChange {
    pub(super) to: Hook,
    pub(super) step: Step,
}

/// What comes next.
pub(super) enum Step {
    /// Traffic control begins to count, and netfilter ends.
    CountTheRest(Box<Later>),
    /// All that netfilter has counted has passed traffic control.
    LeaveNetfilter(Programs),
    /// All packets that come to traffic control have passed netfilter's programs: it counts them alone.
    LeaveTrafficControl(Box<Later>),
}

/// Programs that are loaded before the change begins, so that nothing can fail in the middle.
pub(super) struct Later {
    /// For while both hooks have programs.
    pub(super) meanwhile: Programs,
    /// For afterwards.
    pub(super) after: Programs,
}
