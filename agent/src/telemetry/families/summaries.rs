//! Summaries of the ledger at the sinks that write them.

use tap53_ledger::Summaries;

use super::{Metric, agent, stage};

pub(super) fn stages() -> impl Iterator<Item = Metric> {
    stage::<Summaries>(&["sink"], |r, report| {
        for sink in &agent(r).sinks {
            if let Some(summaries) = &sink.summaries {
                report(&[&sink.name], summaries);
            }
        }
    })
}
