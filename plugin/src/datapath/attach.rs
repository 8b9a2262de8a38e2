//! Attaches programs to netfilter and to devices, and takes over the links of an earlier agent so that no packet
//! passes uncounted.

use super::{
    Device, Error, Hook,
    clsact::{self, Filter},
    maps::Map,
    object::{Netfilter, Programs},
    pins::Pins,
    sys::{self, Side},
};
use meridian_abi::{IpVersion, control};
use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

/// Below source NAT (100), so that the pod is still the source, and after routing has decided the packet's way.
const HIGHEST_PRIORITY: i32 = 99;
/// The number of priorities to try while others are in use.
const PRIORITIES_TRIED: i32 = 64;

/// The address families of netfilter's two programs, with their names for pins and for people.
const FAMILIES: [(i32, &str, &str); 2] =
    [(libc::AF_INET, "netfilter_v4", "IPv4"), (libc::AF_INET6, "netfilter_v6", "IPv6")];

/// The attached programs. When dropped, those that are not pinned are detached.
#[derive(Default)]
pub(super) struct Attached {
    netfilter: Vec<OwnedFd>,
    devices: BTreeMap<u32, Vec<Held>>,
    /// Whether programs follow changes of the devices.
    pub(super) active: bool,
}

/// Puts the programs into the map through which netfilter's entries continue; `None` empties it.
pub(super) fn set_cores(map: &Map<u32, u32>, programs: Option<&Netfilter>) -> Result<(), Error> {
    // Those that others continue with come first.
    if let Some(unusual) = programs.and_then(|programs| programs.unusual.as_ref()) {
        set_programs(map, [IpVersion::V4, IpVersion::V6].map(control::core), unusual)?;
    }
    let straight = [IpVersion::V4, IpVersion::V6].map(control::straight);
    match programs {
        Some(programs) => set_programs(map, straight, &programs.cores),
        None => straight.iter().try_for_each(|slot| map.delete(slot).map(drop)).map_err(|source| map.failed(source)),
    }
}

/// Puts programs into a map of programs.
pub(super) fn set_programs(map: &Map<u32, u32>, slots: [u32; 2], programs: &[OwnedFd; 2]) -> Result<(), Error> {
    slots.iter().zip(programs).try_for_each(|(slot, program)| {
        map.update(slot, &program.as_raw_fd().cast_unsigned()).map_err(|source| map.failed(source))
    })
}

/// The handle of a program attached to a device.
enum Held {
    Link(OwnedFd, Side),
    /// Removed when it is dropped.
    Filter(Filter),
}

impl Held {
    fn side(&self) -> Side {
        match self {
            Self::Link(_, side) => *side,
            Self::Filter(filter) => filter.side(),
        }
    }

    /// Forgets a filter that another program has replaced.
    fn replaced(self) {
        if let Self::Filter(filter) = self {
            filter.replaced();
        }
    }
}

impl Attached {
    /// Attaches netfilter's programs, or makes the links of an earlier agent continue with these programs. `is_alive`
    /// sends a packet of a family, and returns whether the programs saw it.
    pub(super) fn netfilter(
        &mut self,
        programs: &Netfilter,
        cores: &Map<u32, u32>,
        pins: Option<&Pins>,
        is_alive: impl Fn(i32) -> bool,
    ) -> Result<Vec<String>, Error> {
        let mut places = Vec::new();
        set_cores(cores, Some(programs))?;
        for (slot, (family, name, people)) in (0u32..).zip(FAMILIES) {
            let to = format!("netfilter POSTROUTING for {people}");
            if let Some(link) = pins.and_then(|pins| pins.link(name)) {
                if is_alive(family) {
                    places.push(format!("{to}, where it was"));
                    self.netfilter.push(link);
                    continue;
                }
                pins.map(|pins| pins.remove_link(name)).transpose()?;
            }
            let (link, priority) = postrouting(programs.entries[slot as usize].as_fd(), family)
                .map_err(|source| Error::Attach { to: to.clone(), source })?;
            pins.map(|pins| pins.pin_link(name, link.as_fd())).transpose()?;
            self.netfilter.push(link);
            places.push(format!("{to}, priority {priority}"));
        }
        Ok(places)
    }

    /// Detaches the programs from netfilter.
    pub(super) fn leave_netfilter(&mut self, pins: Option<&Pins>) -> Result<(), Error> {
        if let Some(pins) = pins {
            for (_, name, _) in FAMILIES {
                pins.remove_link(name)?;
            }
        }
        self.netfilter.clear();
        Ok(())
    }

    /// Attaches the programs to a device; links pinned for the device continue with these programs.
    pub(super) fn device(
        &mut self,
        hooks: DeviceHooks,
        programs: &Programs,
        device: &Device,
        pins: Option<&Pins>,
    ) -> Result<Vec<String>, Error> {
        let layer = usize::from(!device.ethernet);
        let mut places = Vec::new();
        if let Some(hook) = hooks.egress {
            places.push(self.side(Side::Egress, hook, &programs.at_egress()?.attached[layer], device, pins)?);
        }
        self.side(Side::Ingress, hooks.ingress, &programs.at_ingress()?[layer], device, pins)?;
        Ok(places)
    }

    /// Attaches a program to one side of a device, and replaces a program of ours there. Returns the place, for
    /// people.
    pub(super) fn side(
        &mut self,
        side: Side,
        hook: Hook,
        program: &OwnedFd,
        device: &Device,
        pins: Option<&Pins>,
    ) -> Result<String, Error> {
        let at = match side {
            Side::Ingress => "ingress",
            Side::Egress => "egress",
        };
        let to = format!("{hook} {at} of {}", people(device));
        let failed = |source| Error::Attach { to: to.clone(), source };
        let held = self.devices.entry(device.ifindex).or_default();
        let there = held.iter().position(|held| held.side() == side);
        if let Some(Held::Link(link, _)) = there.map(|there| &held[there])
            && hook == Hook::Tcx
        {
            sys::update_link(link.as_fd(), program.as_fd()).map_err(failed)?;
            return Ok(to);
        }
        let new = if hook == Hook::Clsact {
            Held::Filter(Filter::new(program.as_fd(), device.ifindex, side, pins.is_some()).map_err(failed)?)
        } else {
            Held::Link(tcx(program.as_fd(), device.ifindex, side, pins, failed)?, side)
        };
        if let Some(there) = there {
            held.swap_remove(there).replaced();
        }
        held.push(new);
        Ok(to)
    }

    /// Attaches the programs to a device again at the sides where another program has removed our filter. Returns the
    /// places, for people.
    pub(super) fn restore_filters(
        &mut self,
        hooks: DeviceHooks,
        programs: &Programs,
        device: &Device,
        pins: Option<&Pins>,
    ) -> Result<Vec<String>, Error> {
        let failed = |source| Error::Attach { to: format!("clsact of {}", people(device)), source };
        let mut missing = Vec::new();
        for held in self.devices.get(&device.ifindex).into_iter().flatten() {
            if let Held::Filter(filter) = held
                && !filter.is_there().map_err(failed)?
            {
                missing.push(held.side());
            }
        }
        let layer = usize::from(!device.ethernet);
        let restore = |side| {
            let (hook, program) = match side {
                Side::Ingress => (hooks.ingress, &programs.at_ingress()?[layer]),
                Side::Egress => (hooks.egress.unwrap_or(hooks.ingress), &programs.at_egress()?.attached[layer]),
            };
            self.side(side, hook, program, device, pins)
        };
        missing.into_iter().map(restore).collect()
    }

    /// Detaches the programs from the egress of every device. After an error it can be called again.
    pub(super) fn leave_egress(&mut self, pins: Option<&Pins>) -> Result<(), Error> {
        for (ifindex, held) in &mut self.devices {
            leave(*ifindex, held, |held| held.side() == Side::Egress, pins)?;
        }
        Ok(())
    }

    /// The devices with attached programs.
    pub(super) fn device_indices(&self) -> Vec<u32> {
        self.devices.keys().copied().collect()
    }

    /// Detaches the programs from a device that is no longer an uplink or no longer exists.
    pub(super) fn leave(&mut self, ifindex: u32, pins: Option<&Pins>) -> Result<(), Error> {
        leave(ifindex, &mut self.devices.remove(&ifindex).unwrap_or_default(), |_| true, pins)
    }
}

/// Detaches the programs that `leaves` selects from a device.
fn leave(ifindex: u32, held: &mut Vec<Held>, leaves: impl Fn(&Held) -> bool, pins: Option<&Pins>) -> Result<(), Error> {
    while let Some(at) = held.iter().position(&leaves) {
        match &held[at] {
            Held::Link(link, side) => {
                // The device may live on in another namespace.
                if let Err(error) = sys::detach_link(link.as_fd()) {
                    tracing::debug!(ifindex, %error, "the device is gone");
                }
                pins.map(|pins| pins.remove_link(&link_name(ifindex, *side))).transpose()?;
            }
            Held::Filter(filter) => {
                clsact::remove(ifindex, filter.side())
                    .map_err(|source| Error::Attach { to: format!("clsact of device {ifindex}"), source })?;
            }
        }
        held.swap_remove(at);
    }
    Ok(())
}

/// The hooks of a device at which programs are attached.
#[derive(Clone, Copy)]
pub(super) struct DeviceHooks {
    /// The egress hook; `None` if netfilter counts packets that leave.
    pub(super) egress: Option<Hook>,
    /// The ingress hook.
    pub(super) ingress: Hook,
}

impl DeviceHooks {
    /// The hooks on devices if packets are counted at `hook`.
    pub(super) fn of(hook: Hook) -> Self {
        Self { egress: (hook != Hook::Netfilter).then_some(hook), ingress: arrivals(hook) }
    }
}

fn people(device: &Device) -> String {
    if device.name.is_empty() { format!("device {}", device.ifindex) } else { device.name.clone() }
}

/// The hook for arrivals.
fn arrivals(hook: Hook) -> Hook {
    match hook {
        Hook::Netfilter if Hook::Tcx.require().is_err() => Hook::Clsact,
        Hook::Netfilter => Hook::Tcx,
        other => other,
    }
}

fn link_name(ifindex: u32, side: Side) -> String {
    match side {
        Side::Ingress => format!("tcx_{ifindex}_ingress"),
        Side::Egress => format!("tcx_{ifindex}_egress"),
    }
}

fn tcx(
    program: BorrowedFd<'_>,
    ifindex: u32,
    side: Side,
    pins: Option<&Pins>,
    failed: impl Fn(io::Error) -> Error,
) -> Result<OwnedFd, Error> {
    let name = link_name(ifindex, side);
    if let Some(pins) = pins
        && let Some(link) = pins.link(&name)
    {
        // The link of a removed device stays pinned, and its index may belong to another device now.
        let is_there = sys::tcx_device(link.as_fd()).is_ok_and(|device| device == ifindex);
        if is_there && sys::update_link(link.as_fd(), program).is_ok() {
            return Ok(link);
        }
        pins.remove_link(&name)?;
    }
    let link = sys::attach_tcx(program, ifindex, side).map_err(failed)?;
    pins.map(|pins| pins.pin_link(&name, link.as_fd())).transpose()?;
    Ok(link)
}

/// Removes programs of an earlier agent that this agent does not take over.
pub(super) fn clean(hook: Hook, devices: &[Device], pins: &Pins) -> Result<(), Error> {
    for name in pins.link_names() {
        let of_device = |side| devices.iter().any(|device| link_name(device.ifindex, side) == name);
        let is_continued = match hook {
            Hook::Netfilter => name.starts_with("netfilter_") || of_device(Side::Ingress),
            Hook::Tcx => of_device(Side::Ingress) || of_device(Side::Egress),
            Hook::Clsact => false,
        };
        if !is_continued {
            pins.remove_link(&name)?;
        }
    }
    for device in devices {
        for (side, hook) in [(Side::Egress, hook), (Side::Ingress, arrivals(hook))] {
            if hook != Hook::Clsact {
                let failed = |source| Error::Attach { to: format!("clsact of {}", people(device)), source };
                clsact::remove(device.ifindex, side).map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// Sends a packet of a family through the loopback device.
pub(super) fn send_probe(family: i32) -> io::Result<()> {
    // The discard port; it needs no listener.
    const DISCARD: u16 = 9;
    if family == libc::AF_INET {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.send_to(&[], (Ipv4Addr::LOCALHOST, DISCARD))
    } else {
        UdpSocket::bind((Ipv6Addr::LOCALHOST, 0))?.send_to(&[], (Ipv6Addr::LOCALHOST, DISCARD))
    }
    .map(drop)
}

fn postrouting(program: BorrowedFd<'_>, family: i32) -> io::Result<(OwnedFd, i32)> {
    let mut taken = io::Error::from_raw_os_error(libc::EBUSY);
    for priority in (HIGHEST_PRIORITY - PRIORITIES_TRIED + 1..=HIGHEST_PRIORITY).rev() {
        match sys::attach_postrouting(program, family, priority) {
            Ok(link) => return Ok((link, priority)),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => taken = error,
            Err(error) => return Err(error),
        }
    }
    Err(taken)
}
