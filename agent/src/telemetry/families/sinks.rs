//! Records at the sinks and in their spools.

use tap53_ledger::{Deliveries, SpoolHistory};

use super::{Family, Gauge, Metric, agent, each_sink, stage};

pub(super) fn stages() -> impl Iterator<Item = Metric> {
    let sinks = stage::<Deliveries>(&["sink"], |r, report| {
        each_sink(r, |of, records| report(&[of], records));
    });
    sinks.chain(stage::<SpoolHistory>(&["sink"], |r, report| {
        for sink in &agent(r).sinks {
            if let Some(spool) = &sink.spool {
                report(&[&sink.name], &spool.records);
            }
        }
    }))
}

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "tap53_sink_spool_bytes",
        kind: Gauge,
        help: "Bytes that the spool takes on disk; 0 without one.",
        labels: &["sink"],
        collect: |r, s| {
            agent(r).sinks.iter().for_each(|sink| s.count(&[&sink.name], sink.spool_bytes));
        },
    },
    Family {
        name: "tap53_sink_able_to_store",
        kind: Gauge,
        help: "1 unless the sink lost the last records that it accepted.",
        labels: &["sink"],
        collect: |r, s| {
            each_sink(r, |of, _| {
                s.flag(&[of], !r.status.health.failing_sinks.iter().any(|name| name == of))
            })
        },
    },
];
