//! What is known of an interface before a program goes there: who holds its hooks, what it is a
//! part of, and which hooks are left.

use tap53_ebpf::settings::Direction;

use super::{
    Error, Holders,
    hook::{Hook, Plan},
};
use crate::{
    capture::config::{CaptureConfig, TcChoice},
    interfaces::{Device, Interface},
};

/// Largest packet that fits a page beside what drivers put around it; XDP takes longer ones only
/// with a program that is ready for frags (kernel 5.18), and not in every driver.
const ONE_PAGE_MTU: u32 = 3_498;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preflight {
    /// Who holds hooks now.
    pub holders: Holders,
    /// What surrounds the interface.
    pub device: Device,
    /// Hooks for what arrives and for what leaves, best first: all that may be tried, without those
    /// that are known to be taken. None where packets have no Ethernet header.
    pub candidates: [Vec<Hook>; 2],
    /// Who has XDP, where we would have taken it.
    pub xdp_taken: Option<String>,
    /// Why these hooks, and what an operator should know of the interface.
    pub why: Vec<String>,
}

impl Preflight {
    /// Asks the kernel; attaches nothing.
    ///
    /// # Errors
    ///
    /// As [`Holders::of`].
    pub fn of(interface: &Interface, config: &CaptureConfig) -> Result<Self, Error> {
        let holders = Holders::of(interface)?;
        let device = Device::of(interface)
            .map_err(|error| Error::netlink(&interface.name, "looking at the device", error))?;
        let mut why = Vec::new();
        let mut xdp_taken = None;
        let candidates = if interface.ethernet {
            let plan = Plan::new(config, &interface.kind, device.part_of.as_ref());
            why.extend(plan.why);
            let xdp = match holders.describe_xdp() {
                Some(holder) if !plan.xdp.is_empty() => {
                    why.push(format!("XDP held by {holder}"));
                    xdp_taken = Some(holder);
                    &[]
                }
                _ => plan.xdp,
            };
            if !xdp.is_empty() && interface.mtu > ONE_PAGE_MTU {
                why.push(format!("MTU {} takes a driver with frags for XDP", interface.mtu));
            }
            let tc = tc_hooks(config, &holders);
            if tc.len() > 1 {
                why.push("without CAP_NET_ADMIN it cannot be told whether TCX is there".to_owned());
            }
            [[xdp, tc].concat(), tc.to_vec()]
        } else {
            why.push("packets have no Ethernet header".to_owned());
            [Vec::new(), Vec::new()]
        };
        why.extend(circumstances(&device));
        Ok(Self { holders, device, candidates, xdp_taken, why })
    }

    /// The hooks of a direction in words, best first.
    #[must_use]
    pub fn describe(&self, direction: Direction) -> String {
        let hooks = &self.candidates[direction as usize];
        if hooks.is_empty() {
            return "none".to_owned();
        }
        hooks.iter().map(Hook::to_string).collect::<Vec<_>>().join(" > ")
    }
}

/// What of an interface's surroundings bears on what is captured there.
pub(super) fn circumstances(device: &Device) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(device.part_of.as_ref().map(ToString::to_string));
    notes.extend(device.part_from.as_ref().map(|lower| format!("part of {lower}")));
    if !device.running {
        notes.push("link is down".to_owned());
    }
    notes
}

/// Both where the kernel does not let us ask.
const fn tc_hooks(config: &CaptureConfig, holders: &Holders) -> &'static [Hook] {
    match (config.tc, holders.tcx.is_some()) {
        (TcChoice::Tcx, _) | (TcChoice::Auto, true) => &[Hook::Tcx],
        (TcChoice::Auto, false) if holders.tcx_hidden => &[Hook::Tcx, Hook::Clsact],
        (TcChoice::Clsact, _) | (TcChoice::Auto, false) => &[Hook::Clsact],
    }
}
