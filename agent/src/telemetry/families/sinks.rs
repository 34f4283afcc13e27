//! Where records went.

use super::{Counter, Family, Gauge, each, each_sink};

pub(super) const FAMILIES: &[Family] = &[
    // Sinks: offered + carried = delivered + in flight + spooled + lost.
    Family {
        name: "tap53_sink_records_offered_total",
        kind: Counter,
        help: "Records that the sink has accepted for delivery.",
        labels: &["sink"],
        collect: |r, s| each_sink(r, |of, records| s.count(&[of], records.offered)),
    },
    Family {
        name: "tap53_sink_records_in_batches",
        kind: Gauge,
        help: "Records that the sink has not accepted yet: in batches of workers, or in the queue of a sink that may block.",
        labels: &["sink"],
        collect: |r, s| each_sink(r, |of, records| s.count(&[of], records.in_batches)),
    },
    Family {
        name: "tap53_sink_records_delivered_total",
        kind: Counter,
        help: "Records that are acknowledged, or written.",
        labels: &["sink"],
        collect: |r, s| each_sink(r, |of, records| s.count(&[of], records.delivered)),
    },
    Family {
        name: "tap53_sink_records_in_flight",
        kind: Gauge,
        help: "Records accepted and not yet acknowledged.",
        labels: &["sink"],
        collect: |r, s| each_sink(r, |of, records| s.count(&[of], records.in_flight)),
    },
    Family {
        name: "tap53_sink_records_carried",
        kind: Gauge,
        help: "Records that were in the spool when this run started. offered + carried = delivered + in flight + spooled + lost.",
        labels: &["sink"],
        collect: |r, s| each_sink(r, |of, records| s.count(&[of], records.carried)),
    },
    Family {
        name: "tap53_sink_records_spooled",
        kind: Gauge,
        help: "Records in the spool that are not acknowledged yet.",
        labels: &["sink"],
        collect: |r, s| each_sink(r, |of, records| s.count(&[of], records.spooled)),
    },
    Family {
        name: "tap53_sink_spool_bytes",
        kind: Gauge,
        help: "Bytes that the spool takes on disk; 0 without one.",
        labels: &["sink"],
        collect: |r, s| {
            let sinks = &r.status.ledger.agent.sinks;
            sinks.iter().for_each(|sink| s.count(&[&sink.name], sink.spool_bytes));
        },
    },
    Family {
        name: "tap53_sink_records_lost_total",
        kind: Counter,
        help: "Records that the sink will not deliver, by reason.",
        labels: &["sink", "reason"],
        collect: |r, s| {
            each_sink(r, |of, records| each(&records.lost, |reason, n| s.count(&[of, reason], n)))
        },
    },
    Family {
        name: "tap53_spool_records_lost_total",
        kind: Counter,
        help: "Records lost in the spool, in this run and in earlier ones, including killed runs.",
        labels: &["sink", "reason"],
        collect: |r, s| {
            for sink in &r.status.ledger.agent.sinks {
                if let Some(spool) = &sink.spool {
                    each(&spool.records.lost, |reason, n| s.count(&[&sink.name, reason], n));
                }
            }
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
