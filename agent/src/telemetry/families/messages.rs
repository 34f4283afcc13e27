//! Messages, and the transactions that they belong to, until they are records.

use tap53_ledger::{Messages, Records, WorkerCounts};
use tap53_transactions::pair::{Anomaly, AnsweredFrom};

use super::{Counter, Family, Metric, agent, stage};

pub(super) fn stages() -> impl Iterator<Item = Metric> {
    let messages = stage::<Messages>(&[], |r, report| report(&[], &agent(r).messages));
    messages.chain(stage::<Records>(&[], |r, report| report(&[], &agent(r).records)))
}

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "tap53_answers_total",
        kind: Counter,
        help: "Transactions of resolvers' answers, by where they came from; 0 unless chains are enabled.",
        labels: &["from"],
        collect: |r, s| {
            for from in AnsweredFrom::ALL {
                let of = |counts: &WorkerCounts| counts.answered_from[from as usize];
                s.count(&[&from.symbol().to_lowercase()], r.workers.iter().map(of).sum());
            }
        },
    },
    Family {
        name: "tap53_chains_without_verdict_total",
        kind: Counter,
        help: "Records of resolvers' exchanges that could not wait until the chain behind their answer was known.",
        labels: &["worker"],
        collect: |r, s| {
            for (worker, counts) in r.path.workers.iter().zip(&r.workers) {
                s.count(&[&worker.number.to_string()], counts.chains_without_verdict);
            }
        },
    },
    Family {
        name: "tap53_translations_undecided_total",
        kind: Counter,
        help: "Transactions that stay apart although one may be another after address translation, since several fit.",
        labels: &[],
        collect: |r, s| {
            s.count(&[], r.workers.iter().map(|counts| counts.translations_undecided).sum());
        },
    },
    Family {
        name: "tap53_anomalies_total",
        kind: Counter,
        help: "Transactions with a sign of tampering, by kind.",
        labels: &["kind"],
        collect: |r, s| {
            for kind in Anomaly::ALL {
                let records = r.workers.iter().map(|counts| counts.anomalies[kind as usize]).sum();
                s.count(&[&kind.name().to_lowercase()], records);
            }
        },
    },
];
