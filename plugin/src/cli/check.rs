//! `meridian check`: tries everything that an agent needs, and prints the findings.

mod finding;
mod trial;

use super::{
    Failure,
    hook::{HookArgs, HookChoice},
    print,
    values::Seconds,
};
use crate::datapath::{
    Datapath, Device, Devices, Hook, Options, Pins,
    auto::{self, Choice},
    capabilities, devices,
};
use finding::{Finding, Findings};
use std::fs;

/// Flags of `meridian check`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    counting: HookArgs,
    /// Time during which to compare the hooks with the devices' counters.
    #[arg(long, value_name = "TIME", default_value = "3s")]
    duration: Seconds,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let mut findings = Findings::default();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    findings.add(Finding::Good, "kernel", format!("Linux {}", release.trim()));
    capabilities(&mut findings);
    let there: Vec<Hook> =
        Hook::ALL.into_iter().filter(|hook| try_hook(*hook, args.counting.hook, &mut findings)).collect();
    let devices = look(args, &mut findings);
    let chosen = chosen(args, &there, &devices, &mut findings);
    if let Some(hook) = chosen
        && devices.uplinks().next().is_some()
    {
        print(&std::mem::take(&mut findings.lines))?;
        let is_auto = args.counting.hook.fixed().is_none();
        trial::Trials { chosen: hook, is_auto, there: &there, devices: &devices }
            .compare(args.duration.0, &mut findings);
    }
    print(&findings.lines)?;
    match findings.bad {
        None => print("an agent can run here\n"),
        Some(bad) => Err(Failure::failed(format!("an agent can't run here: {bad}"))),
    }
}

fn capabilities(findings: &mut Findings) {
    match capabilities::missing() {
        None => findings.add(Finding::Note, "capabilities", "/proc/self/status does not say which there are"),
        Some(missing) if missing.is_empty() => findings.add(Finding::Good, "capabilities", capabilities::names()),
        Some(missing) => findings.add(Finding::Bad, "capabilities", missing.join("; ")),
    }
}

/// Loads the programs of a hook, as an agent does.
fn try_hook(hook: Hook, choice: HookChoice, findings: &mut Findings) -> bool {
    let tried = hook.require().and_then(|()| Datapath::load(Options { hook, ..Options::default() }));
    match tried {
        Ok(_) => findings.add(Finding::Good, hook.name(), "the kernel takes the programs"),
        Err(error) => {
            let needed = choice.fixed() == Some(hook);
            findings.add(if needed { Finding::Bad } else { Finding::Missing }, hook.name(), error);
            return false;
        }
    }
    true
}

fn look(args: &Args, findings: &mut Findings) -> Devices {
    let devices = match devices::find(&args.counting.uplinks) {
        Ok(devices) => devices,
        Err(error) => {
            findings.add(Finding::Bad, "uplinks", error);
            return Devices::default();
        }
    };
    let list = |devices: &mut dyn Iterator<Item = &Device>| {
        let line = |Device { name, addresses, .. }: &Device| {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            format!("{name} ({})", addresses.join(", "))
        };
        devices.map(line).collect::<Vec<_>>().join("; ")
    };
    findings.add(Finding::Good, "uplinks", list(&mut devices.uplinks()));
    if devices.overlays().next().is_some() {
        findings.add(Finding::Good, "overlays", list(&mut devices.overlays()));
    }
    devices
}

fn chosen(args: &Args, there: &[Hook], devices: &Devices, findings: &mut Findings) -> Option<Hook> {
    let pinned = Pins::pinned_hook(&args.counting.pin_dir);
    match (args.counting.hook.fixed(), auto::choose(devices, &args.counting.cilium_state_dir, pinned)) {
        (Some(hook), _) => {
            findings.add(Finding::Good, "hook", format!("{hook}, as configured"));
            there.contains(&hook).then_some(hook)
        }
        (None, Ok(Choice { hook, why })) if there.contains(&hook) => {
            findings.add(Finding::Good, "hook", format!("{hook}: {why}"));
            Some(hook)
        }
        (None, Ok(Choice { hook, why })) => {
            findings.add(Finding::Bad, "hook", format!("{hook} can't be used: {why}"));
            None
        }
        (None, Err(error)) => {
            findings.add(Finding::Bad, "hook", error);
            None
        }
    }
}
