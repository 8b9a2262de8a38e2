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
    object::{Options, Programs},
    sys::Side,
};
use meridian_abi::settings;
use std::time::Duration;

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
        let noting = self.loaded.programs_for(&at(Hook::Netfilter), settings::NOTE)?;
        let rest = self.loaded.programs_for(&at(traffic_control), settings::COUNT_THE_REST)?;
        let after = self.loaded.programs_for(&at(to), settings::COUNT)?;
        let step = if to == Hook::Netfilter {
            self.set_egress(traffic_control, rest)?;
            self.attach_netfilter(noting.at_netfilter()?)?;
            Step::LeaveTrafficControl(Box::new(Later { meanwhile: noting, after }))
        } else {
            let before = self.loaded.programs.netfilter.take();
            let begun = noting
                .at_netfilter()
                .and_then(|noting| self.set_cores(noting))
                .and_then(|()| self.set_egress(traffic_control, noting))
                .and_then(|()| self.forget_passing());
            self.loaded.programs.netfilter = before;
            if let Err(error) = begun {
                self.set_cores(self.loaded.programs.at_netfilter()?)?;
                self.leave_egress()?;
                return Err(error);
            }
            Step::CountTheRest(Box::new(Later { meanwhile: rest, after }))
        };
        self.changing = Some(HookChange { to, step });
        Ok(())
    }

    /// Continues a change, at least [`GRACE`] after the last step. Returns the new hook when the change is complete.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn continue_hook_change(&mut self) -> Result<Option<Hook>, Error> {
        let Some(HookChange { to, step }) = self.changing.take() else { return Ok(None) };
        match step {
            Step::CountTheRest(later) => {
                let Later { meanwhile, after } = *later;
                self.set_egress(to, meanwhile)?;
                self.clear_cores()?;
                self.changing = Some(HookChange { to, step: Step::LeaveNetfilter(after) });
                return Ok(None);
            }
            Step::LeaveNetfilter(after) => {
                self.set_egress(to, after)?;
                self.attached.leave_netfilter(self.pins.as_ref())?;
                self.loaded.programs.netfilter = None;
            }
            Step::LeaveTrafficControl(later) => {
                let Later { meanwhile, after } = *later;
                self.set_egress(self.options.hook, meanwhile)?;
                self.set_cores(after.at_netfilter()?)?;
                self.leave_egress()?;
                self.loaded.programs.netfilter = after.netfilter;
            }
        }
        self.options.hook = to;
        Ok(Some(to))
    }

    /// Whether the hook is changing.
    pub const fn is_changing(&self) -> bool {
        self.changing.is_some()
    }

    /// Attaches these programs to the egress of every device, present and future.
    fn set_egress(&mut self, hook: Hook, programs: Programs) -> Result<(), Error> {
        self.device_hooks.egress = Some(hook);
        self.loaded.programs.egress = programs.egress;
        if programs.egress_cores.is_some() {
            self.loaded.programs.egress_cores = programs.egress_cores;
            self.set_egress_cores()?;
        }
        let Self { attached, loaded, pins, devices, .. } = self;
        for device in &devices.devices {
            let program = &loaded.programs.egress[usize::from(!device.ethernet)];
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
