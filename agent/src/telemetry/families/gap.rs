//! Before this run.

use tap53_ebpf::settings::Direction;
use tap53_ledger::Gap;

use super::{Family, Gauge, Reading};

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
            for interface in gap(r).iter().flat_map(|gap| &gap.interfaces) {
                for direction in Direction::ALL {
                    let Some(bounds) = interface.of(direction) else { continue };
                    let of = |bound| [interface.name.as_str(), direction.name(), bound];
                    s.count(&of("at_least"), bounds.at_least);
                    s.count(&of("at_most"), bounds.at_most);
                }
            }
        },
    },
];

fn gap<'a>(reading: &Reading<'a>) -> Option<&'a Gap> {
    reading.status.ledger.before.as_ref()?.previous_run.as_ref()?.gap.as_ref()
}
