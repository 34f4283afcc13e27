//! Metrics of signals.

use tap53_signals::{Signal, Usage};

use super::{
    Family,
    Kind::{Counter, Gauge},
    Reading,
};

fn usage(reading: &Reading<'_>) -> Option<Usage> {
    reading.path.signals.as_ref().map(|signals| signals.usage())
}

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "tap53_signals_total",
        kind: Counter,
        help: "Transactions with a signal, by signal; empty unless signals.enabled is set. A signal is no verdict: see docs/signals.md.",
        labels: &["signal"],
        collect: |r, s| {
            for signal in Signal::ALL.into_iter().filter(|_| r.path.signals.is_some()) {
                let records = r.workers.iter().map(|counts| counts.signals[signal as usize]).sum();
                s.count(&[&signal.name().to_lowercase()], records);
            }
        },
    },
    Family {
        name: "tap53_signals_domains",
        kind: Gauge,
        help: "Registrable domains that this node and its workloads have resolved, as far as they are remembered.",
        labels: &[],
        collect: |r, s| {
            if let Some(usage) = usage(r) {
                s.count(&[], usage.domains);
            }
        },
    },
    Family {
        name: "tap53_signals_domains_replaced_total",
        kind: Counter,
        help: "Domains that were forgotten because others took their place: they are new when they come again. Raise signals.max_memory_mib if this grows fast.",
        labels: &[],
        collect: |r, s| {
            if let Some(usage) = usage(r) {
                s.count(&[], usage.domains_replaced);
            }
        },
    },
    Family {
        name: "tap53_signals_state_resets_total",
        kind: Counter,
        help: "State files of domains that could not be used at the start: 1 if each domain is new once more since this agent began, see event signals_state_reset.",
        labels: &[],
        collect: |r, s| {
            if let Some(usage) = usage(r) {
                s.count(&[], usage.state_resets);
            }
        },
    },
    Family {
        name: "tap53_signals_state_write_failures_total",
        kind: Counter,
        help: "Attempts to write the state of domains that failed: what they would have written is new again after a restart.",
        labels: &[],
        collect: |r, s| {
            if let Some(usage) = usage(r) {
                s.count(&[], usage.state_write_failures);
            }
        },
    },
];
