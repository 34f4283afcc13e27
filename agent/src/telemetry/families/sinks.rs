//! Where records went.

use super::{Counter, Family, Gauge, each, each_sink};

pub(super) const FAMILIES: &[Family] = &[
    // Sinks: offered + carried = delivered + in flight + spooled + lost.
    Family {
        name: "tap53_sink_records_offered_total",
        kind: Counter,
        help: "Records that the sink has taken.",
        labels: &["sink"],
        collect: |r, s| each_sink(r, |of, records| s.count(&[of], records.offered)),
    },
    Family {
        name: "tap53_sink_records_in_batches",
        kind: Gauge,
        help: "Records that the sink has not taken yet: of the batches of workers, or in the queue before a sink that may block.",
        labels: &["sink"],
        collect: |r, s| each_sink(r, |of, records| s.count(&[of], records.in_batches)),
    },
    Family {
        name: "tap53_sink_records_delivered_total",
        kind: Counter,
        help: "Records known to have arrived.",
        labels: &["sink"],
        collect: |r, s| each_sink(r, |of, records| s.count(&[of], records.delivered)),
    },
    Family {
        name: "tap53_sink_records_in_flight",
        kind: Gauge,
        help: "Records accepted and not yet known to have arrived.",
        labels: &["sink"],
        collect: |r, s| each_sink(r, |of, records| s.count(&[of], records.in_flight)),
    },
    Family {
        name: "tap53_sink_records_carried",
        kind: Gauge,
        help: "Records in the spool when this run began, to be accounted for beside what was offered.",
        labels: &["sink"],
        collect: |r, s| each_sink(r, |of, records| s.count(&[of], records.carried)),
    },
    Family {
        name: "tap53_sink_records_spooled",
        kind: Gauge,
        help: "Records in the spool, and not yet known to have arrived.",
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
        help: "Records that the sink will not deliver.",
        labels: &["sink", "reason"],
        collect: |r, s| {
            each_sink(r, |of, records| each(&records.lost, |reason, n| s.count(&[of, reason], n)))
        },
    },
    Family {
        name: "tap53_spool_records_lost_total",
        kind: Counter,
        help: "Records that were lost in the spool, in this run and in those before, killed ones too.",
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
        help: "1 unless the sink lost the last records that it took.",
        labels: &["sink"],
        collect: |r, s| {
            each_sink(r, |of, _| {
                s.flag(&[of], !r.status.health.failing_sinks.iter().any(|name| name == of))
            })
        },
    },
];
