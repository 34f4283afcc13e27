//! Messages, and the transactions that they belong to, until they are records.

use tap53_ledger::{Messages, Records};
use tap53_transactions::pair::Anomaly;

use super::{Counter, Family, Metric, agent, stage};

pub(super) fn stages() -> impl Iterator<Item = Metric> {
    let messages = stage::<Messages>(&[], |r, report| report(&[], &agent(r).messages));
    messages.chain(stage::<Records>(&[], |r, report| report(&[], &agent(r).records)))
}

pub(super) const FAMILIES: &[Family] = &[Family {
    name: "tap53_anomalies_total",
    kind: Counter,
    help: "Records with a sign of tampering, by kind.",
    labels: &["kind"],
    collect: |r, s| {
        for kind in Anomaly::ALL {
            let records = r.workers.iter().map(|counts| counts.anomalies[kind as usize]).sum();
            s.count(&[&kind.name().to_lowercase()], records);
        }
    },
}];
