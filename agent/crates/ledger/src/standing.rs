//! Sums a ledger up for the next run: contents of memory, and losses.

use tap53_reasons::Fate;

use super::{
    previous::{ByName, Lost, Standing},
    stage::{Stage as _, StageCount},
    stages::Hook,
    statement::{Ledger, Sink},
};

impl From<&Ledger> for Standing {
    fn from(ledger: &Ledger) -> Self {
        let agent = &ledger.agent;
        let in_memory = agent.sinks.iter().filter(|sink| sink.records.in_flight > 0);
        let records = agent.sinks.iter().map(|sink| (sink.name.clone(), lost_by(sink)));
        Self {
            packets_in_rings: agent.packets.rings.in_rings,
            messages_pending: agent.messages.pending,
            records_in_memory: in_memory
                .map(|sink| (sink.name.clone(), sink.records.in_flight))
                .collect(),
            lost: Lost {
                records: records.filter(|(_, lost)| !lost.is_empty()).collect(),
                ..lost_before_sinks(&ledger.agent_counts())
            },
        }
    }
}

fn lost_before_sinks(counts: &[StageCount]) -> Lost {
    let mut lost = Lost::default();
    for count in counts.iter().filter(|count| count.fate == Fate::Lost) {
        let name = if count.stage == Hook::NAME { "hook_packets" } else { count.stage };
        let stage = lost.stages.entry(name.to_owned()).or_default();
        stage.extend(occurred(count));
    }
    lost
}

fn lost_by(sink: &Sink) -> ByName {
    let counts = sink.records.counts();
    counts.iter().filter(|count| count.fate == Fate::Lost).filter_map(occurred).collect()
}

/// Returns reason and count, unless the reason did not occur.
fn occurred(count: &StageCount) -> Option<(String, u64)> {
    (count.total > 0).then(|| (count.reason.to_owned(), count.total))
}

#[cfg(test)]
mod tests;
