//! Requests to schema registries, for sinks with a registry.

use tap53_ledger::RegistryCounts;

use super::{Counter, Family, Gauge, Reading, agent};

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "tap53_registry_requests_total",
        kind: Counter,
        help: "Requests to the sink's schema registry.",
        labels: &["sink"],
        collect: |r, s| each_registry(r, |of, counts| s.count(&[of], counts.requests)),
    },
    Family {
        name: "tap53_registry_failures_total",
        kind: Counter,
        help: "Requests to the schema registry that failed: no response, or an error.",
        labels: &["sink"],
        collect: |r, s| each_registry(r, |of, counts| s.count(&[of], counts.failures)),
    },
    Family {
        name: "tap53_registry_id_changes_total",
        kind: Counter,
        help: "How often the registry returned a different id for a schema than before.",
        labels: &["sink"],
        collect: |r, s| each_registry(r, |of, counts| s.count(&[of], counts.id_changes)),
    },
    Family {
        name: "tap53_registry_ids_known",
        kind: Gauge,
        help: "1 if the ids of all schemas in use are known; 0 while records wait for one.",
        labels: &["sink"],
        collect: |r, s| {
            each_registry(r, |of, counts| s.flag(&[of], counts.ids_known == counts.ids_wanted))
        },
    },
];

fn each_registry<'a>(reading: &Reading<'a>, mut report: impl FnMut(&'a str, &'a RegistryCounts)) {
    for sink in &agent(reading).sinks {
        if let Some(counts) = &sink.registry {
            report(&sink.name, counts);
        }
    }
}
