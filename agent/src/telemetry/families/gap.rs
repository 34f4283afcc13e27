//! Before this run.

use tap53_ebpf::settings::Direction;
use tap53_ledger::{Bounds, Gap};

use super::{Family, Gauge, PAIRS, Reading};

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "tap53_gap_seconds",
        kind: Gauge,
        help: "Time before this run in which no agent captured; absent if unknown.",
        labels: &[],
        collect: |r, s| {
            if let Some(gap) = gap(r) {
                s.measure(&[], gap.seconds);
            }
        },
    },
    Family {
        name: "tap53_gap_packets",
        kind: Gauge,
        help: "Packets that passed during that time: at least, and at most.",
        labels: &["interface", "direction", "bound"],
        collect: |r, s| {
            each_gap(r, |name, direction, bounds| {
                let of = |bound| [name, direction.name(), bound];
                s.count(&of("at_least"), bounds.at_least);
                s.count(&of("at_most"), bounds.at_most);
            });
        },
    },
];

/// Reports each interface and direction; ends of pairs are summed as in [`super::each_hook`].
fn each_gap(reading: &Reading<'_>, mut report: impl FnMut(&str, Direction, Bounds)) {
    let Some(gap) = gap(reading) else { return };
    let mut pairs: [Option<Bounds>; 2] = [None; 2];
    for interface in &gap.interfaces {
        for direction in Direction::ALL {
            let Some(bounds) = interface.of(direction) else { continue };
            if reading.sums_pairs() && interface.is_pair {
                *pairs[direction as usize].get_or_insert_default() += bounds;
            } else {
                report(&interface.name, direction, bounds);
            }
        }
    }
    for (direction, bounds) in Direction::ALL.into_iter().zip(pairs) {
        if let Some(bounds) = bounds {
            report(PAIRS, direction, bounds);
        }
    }
}

fn gap<'a>(reading: &Reading<'a>) -> Option<&'a Gap> {
    reading.status.ledger.before.as_ref()?.previous_run.as_ref()?.gap.as_ref()
}
