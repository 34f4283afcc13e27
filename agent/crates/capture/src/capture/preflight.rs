//! Inspects an interface before a program is attached: the owners of its hooks, the devices around
//! it, and the hooks that are left.

use tap53_ebpf::settings::Direction;

use super::{
    Error, HookOwners,
    hook::{Hook, Plan},
};
use crate::{
    capture::config::{CaptureConfig, TcChoice},
    interfaces::{Device, Interface},
};

/// Maximum length of a packet that fits a page together with the driver's overhead. XDP accepts
/// longer ones only with a program that supports frags (kernel 5.18), and not in every driver.
const ONE_PAGE_MTU: u32 = 3_498;

/// The result of the inspection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preflight {
    /// The current owners of the hooks.
    pub owners: HookOwners,
    /// The device of the interface.
    pub device: Device,
    /// Hooks for arriving and for departing packets that may be tried, best first, without those
    /// that are known to be occupied. Empty if packets have no Ethernet header.
    pub candidates: [Vec<Hook>; 2],
    /// The owner of XDP, if it prevented our use of it.
    pub xdp_taken: Option<String>,
    /// Reasons for these hooks, and facts about the interface that an operator should know.
    pub why: Vec<String>,
}

impl Preflight {
    /// Queries the kernel; attaches nothing.
    ///
    /// # Errors
    ///
    /// The same as [`HookOwners::of`].
    pub fn of(interface: &Interface, config: &CaptureConfig) -> Result<Self, Error> {
        let owners = HookOwners::of(interface)?;
        let device = Device::of(interface)
            .map_err(|error| Error::netlink(&interface.name, "looking at the device", error))?;
        let mut why = Vec::new();
        let mut xdp_taken = None;
        let candidates = if interface.ethernet {
            let plan = Plan::new(config, &interface.kind, device.part_of.as_ref());
            why.extend(plan.why);
            let xdp = match owners.describe_xdp() {
                Some(owner) if !plan.xdp.is_empty() => {
                    why.push(format!("XDP is occupied by {owner}"));
                    xdp_taken = Some(owner);
                    &[]
                }
                _ => plan.xdp,
            };
            if !xdp.is_empty() && interface.mtu > ONE_PAGE_MTU {
                why.push(format!("MTU {} takes a driver with frags for XDP", interface.mtu));
            }
            let tc = tc_hooks(config, &owners);
            if tc.len() > 1 {
                why.push(
                    "without CAP_NET_ADMIN it is unknown whether the kernel has TCX".to_owned(),
                );
            }
            [[xdp, tc].concat(), tc.to_vec()]
        } else {
            why.push("packets have no Ethernet header".to_owned());
            [Vec::new(), Vec::new()]
        };
        why.extend(circumstances(&device));
        Ok(Self { owners, device, candidates, xdp_taken, why })
    }

    /// Describes the hooks of a direction, best first.
    #[must_use]
    pub fn describe(&self, direction: Direction) -> String {
        let hooks = &self.candidates[direction as usize];
        if hooks.is_empty() {
            return "none".to_owned();
        }
        hooks.iter().map(Hook::to_string).collect::<Vec<_>>().join(" > ")
    }
}

/// Describes the properties of the device that affect what is captured there.
pub(super) fn circumstances(device: &Device) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(device.part_of.as_ref().map(ToString::to_string));
    notes.extend(device.part_from.as_ref().map(|lower| format!("part of {lower}")));
    if !device.running {
        notes.push("link is down".to_owned());
    }
    notes
}

/// Returns the hooks to try at TC; both if the kernel denies the query.
const fn tc_hooks(config: &CaptureConfig, owners: &HookOwners) -> &'static [Hook] {
    match (config.tc, owners.tcx.is_some()) {
        (TcChoice::Tcx, _) | (TcChoice::Auto, true) => &[Hook::Tcx],
        (TcChoice::Auto, false) if owners.tcx_hidden => &[Hook::Tcx, Hook::Clsact],
        (TcChoice::Clsact, _) | (TcChoice::Auto, false) => &[Hook::Clsact],
    }
}
