//! Which hook to take: the order in which hooks are tried, and what a refusal means.
//!
//! ```text
//!  arriving  xdp native ─▶ xdp generic ─▶ tcx ─▶ clsact
//!                │              │ ▲EOPNOTSUPP, ERANGE, EINVAL: the next one
//!                └──────────────┴──────────▶ EBUSY, EEXIST: the slot is taken, straight to TC
//!  leaving                                tcx ─▶ clsact
//! ```
//!
//! Where XDP is taken, generic XDP is never tried: it would be in the way of a CNI that restarts
//! and wants its native slot back.

use std::{fmt, io};

use tap53_ebpf::settings::Direction;

use crate::{
    capture::config::{CaptureConfig, HookChoice, XdpMode},
    interfaces::{Interface, Kind, Whole},
};

/// Where a program of ours is attached.
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

/// How an interface is attached, and why so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The interface as it is, or as it was last.
    pub interface: Interface,
    /// Hook for arriving packets; `None` where they are not captured.
    pub ingress: Option<Hook>,
    /// Hook for packets that leave; `None` where they are not captured.
    pub egress: Option<Hook>,
    /// Why these hooks and not others, in words.
    pub why: String,
}

impl Attachment {
    /// The hook for a direction.
    #[must_use]
    pub const fn hook(&self, direction: Direction) -> Option<Hook> {
        match direction {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        }
    }

    /// The hook for a direction in words, `off` where there is none.
    #[must_use]
    pub fn describe(&self, direction: Direction) -> String {
        self.hook(direction).map_or_else(|| "off".to_owned(), |hook| hook.to_string())
    }
}

/// Hooks to try for arriving packets before TC, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) xdp: &'static [Hook],
    /// Why there is no XDP, if there is none.
    pub(super) why: Option<String>,
}

impl Plan {
    /// What the configuration asks for on a device of this kind that is a part of another, or not.
    pub(super) fn new(config: &CaptureConfig, kind: &Kind, part_of: Option<&Whole>) -> Self {
        let bonded = part_of.is_some_and(|whole| whole.kind == Kind::Bond);
        let why = match (config.hook, kind) {
            (HookChoice::Tc, _) => Some("tc is configured".to_owned()),
            (HookChoice::Xdp, _) => None,
            // A bond refuses XDP while one of its members has a program of its own (bond_xdp_set):
            // a CNI could not attach to the bond any more.
            (HookChoice::Auto, Kind::Physical) if bonded => {
                Some("tc is the default for members of a bond".to_owned())
            }
            (HookChoice::Auto, Kind::Physical) => None,
            // Native XDP turns off GRO on a veth; on bonds, VLANs and tunnels it is refused or
            // sees the packets of the device below.
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

/// What a refusal of XDP means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The device does not have this mode: try the next.
    Unsupported,
    /// Somebody holds the slot: go to TC.
    Taken,
    /// Neither: report it, since trying further might hide what is wrong.
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
        let asked = Plan::new(&xdp, &Kind::Physical, Some(&whole(Kind::Bond)));
        assert_eq!(asked.xdp, [Hook::XdpNative, Hook::XdpGeneric]);
    }

    #[test]
    fn the_configuration_decides_over_the_default() {
        let xdp = plan(HookChoice::Xdp, XdpMode::Generic, &Kind::Veth);
        assert_eq!((xdp.xdp, xdp.why), (&[Hook::XdpGeneric][..], None));
        let tc = plan(HookChoice::Tc, XdpMode::Native, &Kind::Physical);
        assert_eq!((tc.xdp, tc.why.as_deref()), (&[][..], Some("tc is configured")));
    }

    #[test]
    fn a_refusal_is_told_from_a_taken_slot_and_from_a_failure() {
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
