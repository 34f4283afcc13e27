//! Selects the hook: the order in which hooks are tried, and the meaning of a refusal.
//!
//! ```text
//!  arriving  xdp native ─▶ xdp generic ─▶ tcx ─▶ clsact
//!                │              │ ▲EOPNOTSUPP, ERANGE, EINVAL: the next one
//!                └──────────────┴──────────▶ EBUSY, EEXIST: the slot is occupied, straight to TC
//!  leaving                                tcx ─▶ clsact
//! ```
//!
//! If XDP is occupied, generic XDP is never tried: it would block a CNI that restarts and reclaims
//! its native slot.

use std::{fmt, io};

use tap53_ebpf::settings::Direction;

use crate::{
    capture::config::{CaptureConfig, HookChoice, XdpMode},
    interfaces::{Interface, Kind, Whole},
};

/// The hook to which one of our programs is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// XDP in the driver, by a link.
    XdpNative,
    /// XDP in the network stack, by a link.
    XdpGeneric,
    /// TC, by a TCX link.
    Tcx,
    /// TC, by a filter of the clsact qdisc.
    Clsact,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::XdpNative => "xdp native",
            Self::XdpGeneric => "xdp generic",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        })
    }
}

/// The hooks of an interface, and the reason for their choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The interface in its current or last state.
    pub interface: Interface,
    /// Hook for arriving packets; `None` if they are not captured.
    pub ingress: Option<Hook>,
    /// Hook for departing packets; `None` if they are not captured.
    pub egress: Option<Hook>,
    /// Explains the choice of these hooks.
    pub why: String,
}

impl Attachment {
    /// Returns the hook for a direction.
    #[must_use]
    pub const fn hook(&self, direction: Direction) -> Option<Hook> {
        match direction {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        }
    }

    /// Describes the hook for a direction; `off` if there is none.
    #[must_use]
    pub fn describe(&self, direction: Direction) -> String {
        self.hook(direction).map_or_else(|| "off".to_owned(), |hook| hook.to_string())
    }
}

/// The hooks to try for arriving packets before TC, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) xdp: &'static [Hook],
    /// The reason why XDP is not tried, if so.
    pub(super) why: Option<String>,
}

impl Plan {
    /// Plans the hooks that the configuration allows on a device of this kind, which may be a part
    /// of another device.
    pub(super) fn new(config: &CaptureConfig, kind: &Kind, part_of: Option<&Whole>) -> Self {
        let bonded = part_of.is_some_and(|whole| whole.kind == Kind::Bond);
        let why = match (config.hook, kind) {
            (HookChoice::Tc, _) => Some("tc is configured".to_owned()),
            (HookChoice::Xdp, _) => None,
            // A bond refuses XDP while one of its members has its own program (bond_xdp_set): a CNI
            // could no longer attach to the bond.
            (HookChoice::Auto, Kind::Physical) if bonded => {
                Some("tc is the default for members of a bond".to_owned())
            }
            (HookChoice::Auto, Kind::Physical) => None,
            // Native XDP disables GRO on a veth, and its packets have no socket any more; on bonds, VLANs and tunnels it is refused or sees
            // the packets of the lower device.
            (HookChoice::Auto, _) => Some(format!("tc is the default for {kind} devices")),
        };
        let xdp: &[Hook] = match (&why, config.xdp_mode) {
            (Some(_), _) => &[],
            (None, XdpMode::Auto) => &[Hook::XdpNative, Hook::XdpGeneric],
            (None, XdpMode::Native) => &[Hook::XdpNative],
            (None, XdpMode::Generic) => &[Hook::XdpGeneric],
        };
        Self { xdp, why }
    }
}

/// The meaning of an error when attaching XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The device does not support this mode: try the next one.
    Unsupported,
    /// Another program occupies the slot: use TC.
    Taken,
    /// Any other error: report it, since another attempt might hide the cause.
    Failure,
}

impl Refusal {
    pub(super) fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EOPNOTSUPP | libc::ERANGE | libc::EINVAL) => Self::Unsupported,
            Some(libc::EBUSY | libc::EEXIST) => Self::Taken,
            _ => Self::Failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::config::TcChoice;

    fn plan(hook: HookChoice, xdp_mode: XdpMode, kind: &Kind) -> Plan {
        Plan::new(&config(hook, xdp_mode), kind, None)
    }

    fn config(hook: HookChoice, xdp_mode: XdpMode) -> CaptureConfig {
        CaptureConfig {
            hook,
            xdp_mode,
            tc: TcChoice::Auto,
            ports: vec![53],
            fragments: true,
            tunnels: Vec::new(),
            vxlan_ports: vec![4789],
            geneve_ports: vec![6081],
            snap_length: 1_500,
            max_interfaces: 1,
            workers: 1,
            ring_bytes: 1 << 20,
            kernel_log: false,
        }
    }

    #[test]
    fn xdp_is_the_default_on_physical_devices_alone() {
        let auto = |kind| plan(HookChoice::Auto, XdpMode::Auto, &kind);
        assert_eq!(auto(Kind::Physical).xdp, [Hook::XdpNative, Hook::XdpGeneric]);
        for kind in [
            Kind::Loopback,
            Kind::Veth,
            Kind::NetkitPrimary,
            Kind::Bridge,
            Kind::Bond,
            Kind::Vlan,
            Kind::Tunnel("vxlan".to_owned()),
            Kind::Other("ifb".to_owned()),
        ] {
            assert_eq!(auto(kind.clone()).xdp, [], "{kind}");
        }
        assert_eq!(auto(Kind::Veth).why.unwrap(), "tc is the default for veth devices");
    }

    #[test]
    fn a_member_of_a_bond_leaves_xdp_to_the_bond() {
        let whole = |kind| Whole { name: "up0".to_owned(), kind };
        let auto = config(HookChoice::Auto, XdpMode::Auto);
        let member = Plan::new(&auto, &Kind::Physical, Some(&whole(Kind::Bond)));
        assert_eq!(member.xdp, []);
        assert_eq!(member.why.unwrap(), "tc is the default for members of a bond");
        let port = Plan::new(&auto, &Kind::Physical, Some(&whole(Kind::Bridge)));
        assert_eq!(port.xdp, [Hook::XdpNative, Hook::XdpGeneric], "a bridge has no XDP to take");
        let xdp = config(HookChoice::Xdp, XdpMode::Auto);
        let explicit = Plan::new(&xdp, &Kind::Physical, Some(&whole(Kind::Bond)));
        assert_eq!(explicit.xdp, [Hook::XdpNative, Hook::XdpGeneric]);
    }

    #[test]
    fn the_configuration_decides_over_the_default() {
        let xdp = plan(HookChoice::Xdp, XdpMode::Generic, &Kind::Veth);
        assert_eq!((xdp.xdp, xdp.why), (&[Hook::XdpGeneric][..], None));
        let tc = plan(HookChoice::Tc, XdpMode::Native, &Kind::Physical);
        assert_eq!((tc.xdp, tc.why.as_deref()), (&[][..], Some("tc is configured")));
    }

    #[test]
    fn refusals_occupied_slots_and_failures_are_distinguished() {
        let refusal = |errno| Refusal::of(&io::Error::from_raw_os_error(errno));
        for errno in [libc::EOPNOTSUPP, libc::ERANGE, libc::EINVAL] {
            assert_eq!(refusal(errno), Refusal::Unsupported);
        }
        for errno in [libc::EBUSY, libc::EEXIST] {
            assert_eq!(refusal(errno), Refusal::Taken);
        }
        for errno in [libc::EPERM, libc::ENODEV, libc::ENOMEM] {
            assert_eq!(refusal(errno), Refusal::Failure);
        }
    }
}
