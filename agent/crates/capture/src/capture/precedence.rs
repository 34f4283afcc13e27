//! Detects programs that take precedence over ours and keep packets from them.
//!
//! ```text
//!  arriving   device ─▶ XDP ─▶ TCX ─▶ clsact filters, by priority ─▶ stack
//!  leaving    stack ─▶ TCX ─▶ clsact filters, by priority ─▶ device
//! ```
//!
//! Two observations are combined, since each alone would mislead:
//!
//! - **The order**: the programs that run before ours. Such a program may end the chain (TC_ACT_OK,
//!   _SHOT, _REDIRECT; XDP_DROP, _TX, _REDIRECT) or let every packet pass, which its id does not
//!   show.
//! - **The counts**: packets of the device compared with packets that our program saw, both since
//!   the last check. They are not equal: at a TC hook several segments are one packet (GRO, GSO).
//!   But one packet has at most [`SEGMENTS`] segments, so a smaller fraction is proof, whatever the
//!   cause, even if no program is known to run before ours (a program in the device, AF_XDP,
//!   XDP_TX).
//!
//! A packet that is dropped before our egress program was never sent, and is not missed.
//!
//! A program before ours in the same chain is reported without proof as well: ours was first, and
//! counts cannot reveal a program that takes only DNS away. A program at XDP, while ours is at TC,
//! is reported with proof only: tap53 itself falls back to TC if XDP is occupied.

use std::{fmt, os::fd::AsFd};

use tap53_ebpf::settings::Direction;

use super::{
    attached::Attached,
    bpf,
    error::errno_name,
    hook::Hook,
    hook_owners::Program,
    object::Programs,
    qdisc::{self, Filter},
};
use crate::interfaces::{
    device::{self, Link},
    netlink::Socket,
};

/// Maximum number of device packets that one packet at a TC hook may stand for: 64 KiB in segments
/// of 1 KiB. (BIG TCP joins more, but on devices with a longer MTU.)
const SEGMENTS: u64 = 64;

/// Minimum number of device packets for a check. Fewer are carried over to the next one.
const ENOUGH_PACKETS: u64 = 16;

/// Packet counts of one direction, from earlier checks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PacketComparison {
    /// Packets of the device, and those that our program saw, at the start of the current period.
    begin: Option<(u64, u64)>,
    /// The same counts over the last complete period.
    last: Option<(u64, u64)>,
    /// `Some` if a log line says that the program is shadowed; true if it was proven.
    logged: Option<bool>,
}

impl PacketComparison {
    /// Adds a reading; a period ends when it has enough packets.
    fn observe(&mut self, passed: u64, seen: u64) {
        match self.begin {
            // Counters that decrease belong to another device.
            Some((begin, seen_before)) if begin <= passed && seen_before <= seen => {
                if passed - begin >= ENOUGH_PACKETS {
                    self.last = Some((seen - seen_before, passed - begin));
                    self.begin = Some((passed, seen));
                }
            }
            _ => self.begin = Some((passed, seen)),
        }
    }

    /// Returns true if the counts prove that packets do not reach our program.
    fn is_proof(&self) -> bool {
        self.last.is_some_and(|(seen, passed)| seen.saturating_mul(SEGMENTS) < passed)
    }
}

/// A program or filter that runs before our program.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ahead {
    Xdp(Program),
    Tcx(Program),
    Filter(Filter),
}

impl fmt::Display for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Xdp(program) => write!(f, "{program} ahead at xdp"),
            Self::Tcx(program) => write!(f, "{program} ahead at tcx"),
            Self::Filter(filter) => {
                let Filter { kind, priority, name, .. } = filter;
                write!(f, "{kind} filter ahead, of priority {priority}")?;
                name.iter().try_for_each(|name| write!(f, " `{name}`"))
            }
        }
    }
}

/// Checks an attached interface: returns for each direction what keeps packets from our program.
pub(super) fn check(
    attached: &mut Attached,
    programs: &Programs,
    seen: [u64; 2],
) -> [Option<String>; 2] {
    let interface = attached.attachment.interface.clone();
    let Ok(mut socket) = Socket::open() else { return [None, None] };
    // The interface is gone, which others report.
    let Ok(link) = device::link(&mut socket, interface.ifindex) else { return [None, None] };
    let passed = link.packets();
    Direction::ALL.map(|direction| {
        let hook = attached.attachment.hook(direction)?;
        let index = direction as usize;
        attached.comparisons[index].observe(passed[index], seen[index]);
        let own = match own_position(attached, programs, hook, direction) {
            Ok(own) => own,
            Err(error) => {
                let error = errno_name(&error);
                tracing::debug!(
                    event = "hook_order_unknown",
                    interface = interface.name,
                    error,
                    "cannot read the order of the programs at a hook"
                );
                return None;
            }
        };
        let comparison = &mut attached.comparisons[index];
        let shadowed = match order(&mut socket, &link, interface.ifindex, direction, &own) {
            Order::Unknown => describe(&[], hook, comparison),
            Order::Absent => Some(format!("another process that detached it from {hook}")),
            Order::After(ahead) => describe(&ahead, hook, comparison),
        };
        // Log when the owner or the proof changes, not when only the counts do.
        let state = shadowed.as_ref().map(|_| comparison.is_proof());
        if state != comparison.logged {
            comparison.logged = state;
            let (interface, direction) = (&interface.name, direction.name());
            match &shadowed {
                Some(who) => tracing::warn!(
                    event = "hook_shadowed",
                    interface,
                    direction,
                    "shadowed by {who}"
                ),
                None => tracing::info!(
                    event = "hook_unshadowed",
                    interface,
                    direction,
                    "no longer shadowed"
                ),
            }
        }
        shadowed
    })
}

/// The expected position of our program for a direction.
enum Own {
    Xdp(u32),
    Tcx(u32),
    Clsact(Filter),
}

fn own_position(
    attached: &Attached,
    programs: &Programs,
    hook: Hook,
    direction: Direction,
) -> std::io::Result<Own> {
    let tc = programs.tc[direction as usize].as_fd();
    Ok(match hook {
        Hook::XdpNative | Hook::XdpGeneric => match &programs.xdp {
            Some(xdp) => Own::Xdp(bpf::program_id(xdp.as_fd())?),
            None => return Err(std::io::ErrorKind::NotFound.into()),
        },
        Hook::Tcx => Own::Tcx(bpf::program_id(tc)?),
        Hook::Clsact => match attached.filter(direction) {
            Some(filter) => Own::Clsact(filter.clone()),
            None => return Err(std::io::ErrorKind::NotFound.into()),
        },
    })
}

enum Order {
    /// The kernel does not return the order.
    Unknown,
    /// Our program is not there.
    Absent,
    /// The programs and filters that run before it.
    After(Vec<Ahead>),
}

fn order(socket: &mut Socket, link: &Link, ifindex: u32, direction: Direction, own: &Own) -> Order {
    let mut ahead = Vec::new();
    let xdp = link.xdp();
    if let Own::Xdp(own) = own {
        return if xdp.iter().any(|(_, id)| id == own) {
            let others = xdp.iter().filter(|(_, id)| id != own);
            Order::After(others.map(|(_, id)| Ahead::Xdp(Program::new(*id))).collect())
        } else {
            Order::Absent
        };
    }
    if direction == Direction::Ingress {
        ahead.extend(xdp.iter().map(|(_, id)| Ahead::Xdp(Program::new(*id))));
    }
    let tcx = bpf::tcx_programs(ifindex, direction);
    match own {
        Own::Tcx(own) => {
            let Ok(tcx) = tcx else { return Order::Unknown };
            let Some(index) = tcx.iter().position(|id| id == own) else { return Order::Absent };
            ahead.extend(tcx[..index].iter().map(|id| Ahead::Tcx(Program::new(*id))));
        }
        Own::Clsact(own) => {
            // Without TCX there are no such programs.
            ahead.extend(tcx.iter().flatten().map(|id| Ahead::Tcx(Program::new(*id))));
            let Ok(filters) = qdisc::filters(socket, ifindex) else { return Order::Unknown };
            // The kernel lists them in the order in which they run.
            let mut filters = filters.into_iter().filter(|filter| filter.direction == direction);
            loop {
                match filters.next() {
                    None => return Order::Absent,
                    Some(filter) if filter == *own => break,
                    Some(filter) => ahead.push(Ahead::Filter(filter)),
                }
            }
        }
        Own::Xdp(_) => {}
    }
    // Another tap53 lets everything pass.
    ahead.retain(|ahead| match ahead {
        Ahead::Xdp(Program { name, .. })
        | Ahead::Tcx(Program { name, .. })
        | Ahead::Filter(Filter { name, .. }) => {
            !name.as_deref().is_some_and(|name| name.starts_with("tap53_"))
        }
    });
    Order::After(ahead)
}

/// Describes what shadows our program, from the order and the counts.
fn describe(ahead: &[Ahead], hook: Hook, comparison: &PacketComparison) -> Option<String> {
    let in_our_chain = ahead.iter().any(|ahead| !matches!(ahead, Ahead::Xdp(_)));
    let mut who = ahead.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if who.is_empty() {
        who.push_str("an unknown program");
    }
    match comparison.last {
        Some((seen, passed)) if comparison.is_proof() => {
            Some(format!("{who}: {seen} of {passed} packets reached {hook}"))
        }
        Some(_) if in_our_chain => Some(format!("{who}, which lets packets pass")),
        None if in_our_chain => {
            Some(format!("{who}; no packets yet that show whether it lets them pass"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcx() -> Ahead {
        Ahead::Tcx(Program { id: 7, name: Some("cut".to_owned()) })
    }

    #[test]
    fn few_packets_are_no_proof_and_are_carried_over() {
        let mut comparison = PacketComparison::default();
        comparison.observe(100, 100);
        comparison.observe(110, 100);
        assert!(!comparison.is_proof());
        comparison.observe(116, 100);
        assert!(comparison.is_proof());
        comparison.observe(132, 116);
        assert!(!comparison.is_proof(), "it has ended");
    }

    #[test]
    fn joined_segments_are_no_proof() {
        let mut comparison = PacketComparison::default();
        comparison.observe(0, 0);
        // GRO does the same: 45 segments of 1,448 bytes become one packet of 64 KiB.
        comparison.observe(45_000, 1_000);
        assert!(!comparison.is_proof());
        comparison.observe(90_000, 1_010);
        assert!(comparison.is_proof());
    }

    #[test]
    fn decreasing_counters_start_a_new_period() {
        let mut comparison = PacketComparison::default();
        comparison.observe(1_000, 1_000);
        comparison.observe(5, 1_000);
        assert!(comparison.last.is_none());
        comparison.observe(30, 1_025);
        assert_eq!(comparison.last, Some((25, 25)));
    }

    #[test]
    fn order_and_counts_are_reported_separately() {
        let comparison = |last| PacketComparison { last, ..PacketComparison::default() };
        let described = |ahead: &[Ahead], last| describe(ahead, Hook::Tcx, &comparison(last));
        assert_eq!(described(&[], Some((50, 50))), None);
        assert_eq!(
            described(&[], Some((0, 50))).unwrap(),
            "an unknown program: 0 of 50 packets reached tcx"
        );
        assert_eq!(
            described(&[tcx()], Some((0, 50))).unwrap(),
            "program 7 `cut` ahead at tcx: 0 of 50 packets reached tcx"
        );
        assert_eq!(
            described(&[tcx()], Some((50, 50))).unwrap(),
            "program 7 `cut` ahead at tcx, which lets packets pass"
        );
        assert_eq!(
            described(&[tcx()], None).unwrap(),
            "program 7 `cut` ahead at tcx; no packets yet that show whether it lets them pass"
        );
        let xdp = [Ahead::Xdp(Program { id: 8, name: None })];
        assert_eq!(described(&xdp, Some((50, 50))), None, "there by choice");
        assert_eq!(
            described(&xdp, Some((1, 500))).unwrap(),
            "program 8 ahead at xdp: 1 of 500 packets reached tcx"
        );
    }
}
