//! Latency of each stage from the kernel's timestamp to the delivery report.

use tap53_base::vitals::Reached;

use super::{Family, Kind, each_timed};

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "tap53_ring_wait_seconds",
        kind: Kind::Histogram,
        help: "Time from a packet's capture to the batch in which a worker read it from the ring.",
        labels: &[],
        collect: |r, s| s.histogram(&[], &r.path.timings.ring_wait),
    },
    Family {
        name: "tap53_batch_seconds",
        kind: Kind::Histogram,
        help: "Time that a worker spent on a batch, from the ring to the hand-over to the sinks.",
        labels: &[],
        collect: |r, s| s.histogram(&[], &r.path.timings.batch),
    },
    Family {
        name: "tap53_sink_write_seconds",
        kind: Kind::Histogram,
        help: "Time that the sink spent on accepting a batch, while the worker waited.",
        labels: &["sink"],
        collect: |r, s| each_timed(r, |of, timings| s.histogram(&[of], &timings.write)),
    },
    Family {
        name: "tap53_sink_spool_sync_seconds",
        kind: Kind::Histogram,
        help: "Time to sync the spool to disk.",
        labels: &["sink"],
        collect: |r, s| each_timed(r, |of, timings| s.histogram(&[of], &timings.sync)),
    },
    Family {
        name: "tap53_sink_acknowledgement_seconds",
        kind: Kind::Histogram,
        help: "Time from handing a record to the Kafka producer to its delivery report.",
        labels: &["sink"],
        collect: |r, s| each_timed(r, |of, timings| s.histogram(&[of], &timings.acknowledgement)),
    },
    Family {
        name: "tap53_sink_record_age_seconds",
        kind: Kind::Histogram,
        help: "Time from the capture of a record's response until the record was written, spooled, or acknowledged straight from memory. Records without a response are not included.",
        labels: &["sink", "reached"],
        collect: |r, s| {
            each_timed(r, |of, timings| {
                for reached in Reached::ALL {
                    s.histogram(&[of, reached.name()], timings.age(reached));
                }
            })
        },
    },
];
