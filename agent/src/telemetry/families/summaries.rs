//! Summaries of the ledger. Of sinks that write them.

use tap53_ledger::Summaries;

use super::{Counter, Family, Gauge, Reading};

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "tap53_summaries_written_total",
        kind: Counter,
        help: "Summaries of the ledger that this run created for the sink's summary topic.",
        labels: &["sink"],
        collect: |r, s| each(r, |of, summaries| s.count(&[of], summaries.written)),
    },
    Family {
        name: "tap53_summaries_delivered_total",
        kind: Counter,
        help: "Summaries that were acknowledged, including those of earlier runs.",
        labels: &["sink"],
        collect: |r, s| each(r, |of, summaries| s.count(&[of], summaries.delivered)),
    },
    Family {
        name: "tap53_summaries_lost_total",
        kind: Counter,
        help: "Summaries that were lost. Sums downstream stay right, because later summaries count from the start of the run.",
        labels: &["sink"],
        collect: |r, s| each(r, |of, summaries| s.count(&[of], summaries.lost)),
    },
    Family {
        name: "tap53_summaries_carried",
        kind: Gauge,
        help: "Summaries of earlier runs that waited when this one started. written + carried = delivered + waiting + lost.",
        labels: &["sink"],
        collect: |r, s| each(r, |of, summaries| s.count(&[of], summaries.carried)),
    },
    Family {
        name: "tap53_summaries_waiting",
        kind: Gauge,
        help: "Summaries that are not acknowledged yet.",
        labels: &["sink"],
        collect: |r, s| each(r, |of, summaries| s.count(&[of], summaries.waiting)),
    },
];

fn each<'a>(reading: &Reading<'a>, mut tell: impl FnMut(&'a str, &'a Summaries)) {
    for sink in &reading.status.ledger.agent.sinks {
        if let Some(summaries) = &sink.summaries {
            tell(&sink.name, summaries);
        }
    }
}
