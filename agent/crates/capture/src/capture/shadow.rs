//! Whether packets reach our programs (R7), or somebody keeps them away.
//!
//! ```text
//!  arriving   device ─▶ XDP ─▶ TCX ─▶ clsact filters, by priority ─▶ stack
//!  leaving    stack ─▶ TCX ─▶ clsact filters, by priority ─▶ device
//! ```
//!
//! Two things are looked at, and each alone would mislead:
//!
//! - **The order**: who runs before ours. A program ahead may end the chain (TC_ACT_OK, _SHOT,
//!   _REDIRECT; XDP_DROP, _TX, _REDIRECT), or let every packet pass, which its number does not tell.
//! - **The counts**: packets of the device against packets that our program saw, both since the
//!   last look. They cannot be compared to the unit: at a TC hook many segments are one packet
//!   (GRO, GSO). But one stands for [`SEGMENTS`] at most, so that fewer than one in so many is
//!   proof, whoever it is that keeps them, and also where nobody is known to be ahead (a program in
//!   the device, AF_XDP, XDP_TX).
//!
//! What is dropped on its way out ahead of our program never left, and is not missed.
//!
//! A program ahead in our own chain is told without proof as well: ours were first, and a program
//! that takes DNS alone away could not be told by counts. One at XDP ahead of ours at TC is told
//! with proof only: that is where tap53 goes by itself when XDP is taken.

use std::{fmt, os::fd::AsFd};

use tap53_ebpf::settings::Direction;

use super::{
    attached::Attached,
    bpf,
    error::errno_name,
    holders::Program,
    hook::Hook,
    object::Programs,
    qdisc::{self, Filter},
};
use crate::interfaces::{
    device::{self, Link},
    netlink::Socket,
};

/// Packets of a device that one packet at a TC hook may stand for: 64 KiB in segments of 1 KiB.
/// (BIG TCP makes longer ones, on devices whose MTU is longer too.)
const SEGMENTS: u64 = 64;

/// Packets of the device from which on a look says anything. Fewer are carried over to the next.
const ENOUGH_PACKETS: u64 = 16;

/// What earlier looks have left of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watch {
    /// Packets of the device, and those that our program saw, when a period began.
    begin: Option<(u64, u64)>,
    /// Of the last whole period: how many of how many were seen.
    last: Option<(u64, u64)>,
    /// Whether the log was told that it is shadowed, and whether with proof.
    told: Option<bool>,
}

impl Watch {
    /// Takes a reading; a period ends when it has packets enough.
    fn look(&mut self, passed: u64, seen: u64) {
        match self.begin {
            // Counters that went back are another device's.
            Some((begin, seen_before)) if begin <= passed && seen_before <= seen => {
                if passed - begin >= ENOUGH_PACKETS {
                    self.last = Some((seen - seen_before, passed - begin));
                    self.begin = Some((passed, seen));
                }
            }
            _ => self.begin = Some((passed, seen)),
        }
    }

    /// True if the counts prove that packets are kept from us.
    fn is_proof(&self) -> bool {
        self.last.is_some_and(|(seen, passed)| seen.saturating_mul(SEGMENTS) < passed)
    }
}

/// Somebody who runs before our program.
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

/// Looks at an attached interface: for each direction, what keeps packets from our program.
pub(super) fn look(
    attached: &mut Attached,
    programs: &Programs,
    seen: [u64; 2],
) -> [Option<String>; 2] {
    let interface = attached.attachment.interface.clone();
    let Ok(mut socket) = Socket::open() else { return [None, None] };
    // Gone: that is for others to tell.
    let Ok(link) = device::link(&mut socket, interface.ifindex) else { return [None, None] };
    let passed = link.packets();
    Direction::ALL.map(|direction| {
        let hook = attached.attachment.hook(direction)?;
        let index = direction as usize;
        attached.watch[index].look(passed[index], seen[index]);
        let own = match own_place(attached, programs, hook, direction) {
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
        let watch = &mut attached.watch[index];
        let shadowed = match order(&mut socket, &link, interface.ifindex, direction, &own) {
            Order::Unknown => describe(&[], hook, watch),
            Order::Absent => Some(format!("somebody who detached it from {hook}")),
            Order::Behind(ahead) => describe(&ahead, hook, watch),
        };
        // The counts change with each look, who is ahead and what that means do not.
        let news = shadowed.as_ref().map(|_| watch.is_proof());
        if news != watch.told {
            watch.told = news;
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

/// Where our program of a direction should be found.
enum Own {
    Xdp(u32),
    Tcx(u32),
    Clsact(Filter),
}

fn own_place(
    attached: &Attached,
    programs: &Programs,
    hook: Hook,
    direction: Direction,
) -> std::io::Result<Own> {
    let tc = programs.tc[direction as usize].as_fd();
    Ok(match hook {
        Hook::XdpNative | Hook::XdpGeneric => Own::Xdp(bpf::program_id(programs.xdp.as_fd())?),
        Hook::Tcx => Own::Tcx(bpf::program_id(tc)?),
        Hook::Clsact => match attached.filter(direction) {
            Some(filter) => Own::Clsact(filter.clone()),
            None => return Err(std::io::ErrorKind::NotFound.into()),
        },
    })
}

enum Order {
    /// The kernel does not tell.
    Unknown,
    /// Our program is not there.
    Absent,
    /// Those who run before it.
    Behind(Vec<Ahead>),
}

fn order(socket: &mut Socket, link: &Link, ifindex: u32, direction: Direction, own: &Own) -> Order {
    let mut ahead = Vec::new();
    let xdp = link.xdp();
    if let Own::Xdp(own) = own {
        return if xdp.iter().any(|(_, id)| id == own) {
            let others = xdp.iter().filter(|(_, id)| id != own);
            Order::Behind(others.map(|(_, id)| Ahead::Xdp(Program::new(*id))).collect())
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
            let Some(place) = tcx.iter().position(|id| id == own) else { return Order::Absent };
            ahead.extend(tcx[..place].iter().map(|id| Ahead::Tcx(Program::new(*id))));
        }
        Own::Clsact(own) => {
            // No TCX: nobody is there.
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
    Order::Behind(ahead)
}

/// What is told of who is ahead and what the counts say: who it is that shadows.
fn describe(ahead: &[Ahead], hook: Hook, watch: &Watch) -> Option<String> {
    let in_our_chain = ahead.iter().any(|ahead| !matches!(ahead, Ahead::Xdp(_)));
    let mut who = ahead.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if who.is_empty() {
        who.push_str("something out of sight");
    }
    match watch.last {
        Some((seen, passed)) if watch.is_proof() => {
            Some(format!("{who}: {seen} of {passed} packets reached {hook}"))
        }
        Some(_) if in_our_chain => Some(format!("{who}, which lets packets pass")),
        None if in_our_chain => {
            Some(format!("{who}; no packets yet to tell whether it lets them pass"))
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
        let mut watch = Watch::default();
        watch.look(100, 100);
        watch.look(110, 100);
        assert!(!watch.is_proof());
        watch.look(116, 100);
        assert!(watch.is_proof());
        watch.look(132, 116);
        assert!(!watch.is_proof(), "it has ended");
    }

    #[test]
    fn joined_segments_are_no_proof() {
        let mut watch = Watch::default();
        watch.look(0, 0);
        // As GRO does: 45 segments of 1,448 bytes are one packet of 64 KiB.
        watch.look(45_000, 1_000);
        assert!(!watch.is_proof());
        watch.look(90_000, 1_010);
        assert!(watch.is_proof());
    }

    #[test]
    fn counters_that_go_back_begin_anew() {
        let mut watch = Watch::default();
        watch.look(1_000, 1_000);
        watch.look(5, 1_000);
        assert!(watch.last.is_none());
        watch.look(30, 1_025);
        assert_eq!(watch.last, Some((25, 25)));
    }

    #[test]
    fn who_is_ahead_and_what_the_counts_say_are_told_apart() {
        let watch = |last| Watch { last, ..Watch::default() };
        let told = |ahead: &[Ahead], last| describe(ahead, Hook::Tcx, &watch(last));
        assert_eq!(told(&[], Some((50, 50))), None);
        assert_eq!(
            told(&[], Some((0, 50))).unwrap(),
            "something out of sight: 0 of 50 packets reached tcx"
        );
        assert_eq!(
            told(&[tcx()], Some((0, 50))).unwrap(),
            "program 7 `cut` ahead at tcx: 0 of 50 packets reached tcx"
        );
        assert_eq!(
            told(&[tcx()], Some((50, 50))).unwrap(),
            "program 7 `cut` ahead at tcx, which lets packets pass"
        );
        assert_eq!(
            told(&[tcx()], None).unwrap(),
            "program 7 `cut` ahead at tcx; no packets yet to tell whether it lets them pass"
        );
        let xdp = [Ahead::Xdp(Program { id: 8, name: None })];
        assert_eq!(told(&xdp, Some((50, 50))), None, "there by choice");
        assert_eq!(
            told(&xdp, Some((1, 500))).unwrap(),
            "program 8 ahead at xdp: 1 of 500 packets reached tcx"
        );
    }
}
