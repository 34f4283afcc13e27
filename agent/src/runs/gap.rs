//! The capture gap between two runs.

use tap53_capture::interfaces::{PacketCounts, config::Directions};
use tap53_ebpf::settings::Direction;
use tap53_ledger::{Bounds, Gap, InterfaceGap, Since};

use super::file::{Moment, Position, Saved, Stage};

/// Returns the gap between the end of `previous` and the start of this run, on the interfaces of
/// which both captured the same direction.
pub(super) fn between(
    previous: &Saved,
    before: &[PacketCounts],
    after: &[PacketCounts],
    captured: &[(u32, Directions)],
    now: Moment,
) -> Gap {
    let here = Saved::new(now);
    let is_same_boot = previous.boot_id == here.boot_id;
    let is_same_namespace = is_same_boot && previous.namespace == here.namespace;
    let since = match previous.stage {
        _ if !is_same_boot => Since::Boot,
        Stage::Running => Since::LastWritten,
        Stage::Stopping | Stage::Detached | Stage::Ended => Since::Stop,
    };
    let mut gap = Gap {
        seconds: seconds(previous, is_same_boot, now),
        since,
        packets: Bounds::default(),
        interfaces: Vec::new(),
    };
    for (ifindex, directions) in captured {
        let Some(after) = after.iter().find(|counts| counts.ifindex == *ifindex) else { continue };
        let before = before.iter().find(|counts| counts.ifindex == *ifindex);
        // Numbers are valid in one namespace until the next boot; names last.
        let position = previous.positions.iter().find(|position| {
            if is_same_namespace {
                position.ifindex == *ifindex
            } else {
                position.name == after.name
            }
        });
        let Some(position) = position else { continue };
        let of = |direction: Direction| {
            let is_both = position.captured[direction as usize] && directions.contains(direction);
            is_both.then(|| bounds(position, before, after, direction, is_same_namespace))
        };
        let of = InterfaceGap {
            name: after.name.clone(),
            is_pair: after.is_pair,
            ingress: of(Direction::Ingress),
            egress: of(Direction::Egress),
        };
        for bounds in [of.ingress, of.egress].into_iter().flatten() {
            gap.packets += bounds;
        }
        gap.interfaces.push(of);
    }
    gap
}

fn bounds(
    position: &Position,
    before: Option<&PacketCounts>,
    after: &PacketCounts,
    direction: Direction,
    is_same_namespace: bool,
) -> Bounds {
    let index = direction as usize;
    let (end, begin) = (after.packets[index], position.packets[index]);
    let before = before.map(|counts| counts.packets[index]);
    // Counters that went back, or started with the boot, are another device's: all its packets have
    // passed since.
    if !is_same_namespace || end < begin {
        return Bounds { at_least: before.unwrap_or(0), at_most: end };
    }
    let detached = position.packets_after.map(|packets| packets[index]);
    let at_least = match (detached, before) {
        (Some(detached), Some(before)) => before.saturating_sub(detached),
        _ => 0,
    };
    Bounds { at_least, at_most: end - begin }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 microseconds, 285 years")]
fn seconds(previous: &Saved, is_same_boot: bool, now: Moment) -> f64 {
    let from = previous.positions_at;
    let us = if is_same_boot {
        now.boot_us.saturating_sub(from.boot_us)
    } else {
        u64::try_from(now.utc_us.saturating_sub(from.utc_us)).unwrap_or(0)
    };
    us as f64 / 1e6
}
