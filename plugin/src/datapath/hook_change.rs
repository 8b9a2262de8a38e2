//! Moves counting from one hook to another while packets pass, so that no packet is lost or counted twice.
//!
//! A packet passes netfilter first and traffic control a moment later, or traffic control alone. During the change
//! both hooks have programs: netfilter notes each packet that it counts, and traffic control crosses the note out. It
//! counts only packets without a note ([`settings::COUNT_THE_REST`]), or none ([`settings::NOTE`]). Between two steps
//! the caller waits for [`GRACE`], so that every packet that passed the first hook has passed the second. Outside a
//! change, packets pay nothing for this.
//!
//! A datagram that is fragmented between the hooks becomes several packets: while netfilter notes, traffic control
//! counts its fragments. That switch takes one system call for each hook, and a datagram fragmented between the two
//! calls counts twice.

use super::{
    Datapath, Error, Hook,
    change_step::{HookChange, Later, Step},
    object::{Egress, Options, Parts, Programs},
    sys::Side,
};
use meridian_abi::settings;
use std::{sync::Arc, time::Duration};

/// The longest time for which a packet is between the two hooks: it may wait for a neighbour's address or for an
/// interrupted task.
pub const GRACE: Duration = Duration::from_secs(1);

impl Datapath {
    /// Starts counting at another hook with the same counters. [`Datapath::continue_hook_change`] continues the
    /// change.
    ///
    /// # Errors
    /// The kernel lacks the hook or refuses; the old hook then stays in use.
    pub fn begin_hook_change(&mut self, to: Hook) -> Result<(), Error> {
        let from = self.options.hook;
        let traffic_control = if to == Hook::Netfilter { from } else { to };
        let at = |hook| Options { hook, ..self.options };
        let notes = Parts { egress: true, ..Parts::leaving(Hook::Netfilter) };
        let noting = self.loaded.programs_for(&at(Hook::Netfilter), notes, settings::NOTE)?;
        let counting = Parts::leaving(traffic_control);
        let rest = self.loaded.programs_for(&at(traffic_control), counting, settings::COUNT_THE_REST)?;
        let after = self.loaded.programs_for(&at(to), Parts::leaving(to), settings::COUNT)?;
        let step = if to == Hook::Netfilter {
            self.enter_netfilter(from, &noting, &rest)?;
            Step::LeaveTrafficControl(Box::new(Later { meanwhile: noting, after }))
        } else {
            self.enter_traffic_control(to, &noting)?;
            Step::CountTheRest(Box::new(Later { meanwhile: rest, after }))
        };
        self.changing = Some(HookChange { to, step });
        Ok(())
    }

    /// Lets netfilter count and note, and traffic control count the rest. After an error, all is as before.
    fn enter_netfilter(&mut self, from: Hook, noting: &Programs, rest: &Programs) -> Result<(), Error> {
        let before = self.loaded.programs.at_egress()?.clone();
        let entered = rest
            .at_egress()
            .and_then(|rest| self.set_egress(from, rest))
            .and_then(|()| noting.at_netfilter())
            .and_then(|noting| self.attach_netfilter(noting));
        if entered.is_err() {
            let left = self.attached.leave_netfilter(self.pins.as_ref());
            not_undone(left.and_then(|()| self.set_egress(from, &before)));
        }
        entered.map(drop)
    }

    /// Lets netfilter note each packet that it counts, and traffic control cross it out. After an error, all is as
    /// before.
    fn enter_traffic_control(&mut self, to: Hook, noting: &Programs) -> Result<(), Error> {
        let entered = noting
            .at_netfilter()
            .and_then(|noting| self.set_cores(noting))
            .and_then(|()| self.set_egress(to, noting.at_egress()?))
            .and_then(|()| self.forget_passing());
        if entered.is_err() {
            let left = self.loaded.programs.at_netfilter().and_then(|before| self.set_cores(before));
            not_undone(left.and_then(|()| self.leave_egress()));
        }
        entered
    }

    /// Continues a change, at least [`GRACE`] after the last step. Returns the new hook when the change is complete.
    ///
    /// # Errors
    /// The kernel refuses. Each packet counts once before, after and within a step, so the caller repeats the step.
    pub fn continue_hook_change(&mut self) -> Result<Option<Hook>, Error> {
        let Some(change) = self.changing.take() else { return Ok(None) };
        if let Err(error) = self.take_step(&change) {
            self.changing = Some(change);
            return Err(error);
        }
        let HookChange { to, step } = change;
        self.loaded.programs.netfilter = match step {
            Step::CountTheRest(later) => {
                self.changing = Some(HookChange { to, step: Step::LeaveNetfilter(later.after) });
                return Ok(None);
            }
            Step::LeaveNetfilter(_) => None,
            Step::LeaveTrafficControl(later) => later.after.netfilter,
        };
        self.options.hook = to;
        Ok(Some(to))
    }

    /// Can be called again with the same step after the kernel has refused a part of it.
    fn take_step(&mut self, HookChange { to, step }: &HookChange) -> Result<(), Error> {
        match step {
            Step::CountTheRest(later) => {
                self.set_egress(*to, later.meanwhile.at_egress()?)?;
                self.clear_cores()
            }
            Step::LeaveNetfilter(after) => {
                self.set_egress(*to, after.at_egress()?)?;
                self.attached.leave_netfilter(self.pins.as_ref())
            }
            Step::LeaveTrafficControl(later) => {
                self.set_egress(self.options.hook, later.meanwhile.at_egress()?)?;
                self.set_cores(later.after.at_netfilter()?)?;
                self.leave_egress()
            }
        }
    }

    /// Whether the hook is changing.
    pub const fn is_changing(&self) -> bool {
        self.changing.is_some()
    }

    /// Attaches these programs to the egress of every device, present and future.
    fn set_egress(&mut self, hook: Hook, programs: &Egress) -> Result<(), Error> {
        self.device_hooks.egress = Some(hook);
        let before = self.loaded.programs.egress.take().and_then(|egress| egress.cores);
        let cores = programs.cores.clone().or(before);
        self.loaded.programs.egress = Some(Egress { attached: Arc::clone(&programs.attached), cores });
        if programs.cores.is_some() {
            self.set_egress_cores()?;
        }
        let Self { attached, pins, devices, .. } = self;
        for device in &devices.devices {
            let program = &programs.attached[usize::from(!device.ethernet)];
            match attached.side(Side::Egress, hook, program, device, pins.as_ref()) {
                // The device is gone.
                Err(Error::Attach { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {}
                placed => placed.map(drop)?,
            }
        }
        Ok(())
    }

    /// Forgets notes from before traffic control started to cross them out: other packets may have the same addresses
    /// by now. Packets under way are not counted again in either case, because traffic control does not count yet.
    fn forget_passing(&self) -> Result<(), Error> {
        let map = &self.maps.passing;
        // New notes keep coming, and are crossed out.
        for _ in 0..2 * settings::PASSING {
            let Some(packet) = map.first_key()? else { break };
            map.delete(&packet).map_err(|source| map.failed(source))?;
        }
        Ok(())
    }

    fn leave_egress(&mut self) -> Result<(), Error> {
        self.device_hooks.egress = None;
        self.attached.leave_egress(self.pins.as_ref())
    }
}

/// Warns that a refused change has left programs behind. Each packet still counts once.
fn not_undone(undone: Result<(), Error>) {
    if let Err(error) = undone {
        tracing::warn!(%error, "the refused change of the hook can't be undone in full");
    }
}
