//! How long what takes, on the way from the kernel's timestamp to the delivery report.

use super::{Family, Kind, each_timed};
use crate::telemetry::timings::Reached;

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "tap53_ring_wait_seconds",
        kind: Kind::Histogram,
        help: "From a packet's capture to the batch that a worker took it out of its ring with.",
        labels: &[],
        collect: |r, s| s.histogram(&[], &r.path.timings.ring_wait),
    },
    Family {
        name: "tap53_batch_seconds",
        kind: Kind::Histogram,
        help: "What a batch took a worker, from its ring to where the sinks are handed it.",
        labels: &[],
        collect: |r, s| s.histogram(&[], &r.path.timings.batch),
    },
    Family {
        name: "tap53_sink_write_seconds",
        kind: Kind::Histogram,
        help: "What taking a batch took the sink, which the worker waits for.",
        labels: &["sink"],
        collect: |r, s| each_timed(r, |of, timings| s.histogram(&[of], &timings.write)),
    },
    Family {
        name: "tap53_sink_spool_sync_seconds",
        kind: Kind::Histogram,
        help: "What forcing the spool to the disk took.",
        labels: &["sink"],
        collect: |r, s| each_timed(r, |of, timings| s.histogram(&[of], &timings.sync)),
    },
    Family {
        name: "tap53_sink_acknowledgement_seconds",
        kind: Kind::Histogram,
        help: "From handing a record to the Kafka producer to the report that it arrived.",
        labels: &["sink"],
        collect: |r, s| each_timed(r, |of, timings| s.histogram(&[of], &timings.acknowledgement)),
    },
    Family {
        name: "tap53_sink_record_age_seconds",
        kind: Kind::Histogram,
        help: "From the capture of a record's response to where the record got: written, spooled, or acknowledged straight from memory. Records without a response are not in it.",
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
