//! What a run has in memory, and has lost, as its ledger says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ByReason, Ledger};

/// Numbers by reason; reasons of other versions too.
type ByName = BTreeMap<String, u64>;

/// What a run has in memory, and has lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Standing {
    /// Packets in rings, captured and not yet read.
    pub packets_in_rings: u64,
    /// Messages of queries that wait for their response, and fragments and parts of streams count
    /// for none.
    pub messages_pending: u64,
    /// Records that are in memory alone, by sink.
    pub records_in_memory: ByName,
    /// What it has counted as lost.
    pub lost: Lost,
}

/// What was counted as lost, by reason; without reasons that did not occur.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lost {
    /// Packets at the hooks of all interfaces.
    pub hook_packets: ByName,
    /// Packets of which nothing could be read.
    pub packets: ByName,
    /// Fragments.
    pub fragments: ByName,
    /// Bytes of TCP streams.
    pub tcp_bytes: ByName,
    /// Messages in no record.
    pub messages: ByName,
    /// Records, by sink and reason.
    pub records: BTreeMap<String, ByName>,
}

impl Lost {
    /// Adds what another run lost.
    pub fn add(&mut self, other: &Self) {
        let mine = [
            &mut self.hook_packets,
            &mut self.packets,
            &mut self.fragments,
            &mut self.tcp_bytes,
            &mut self.messages,
        ];
        let theirs = [
            &other.hook_packets,
            &other.packets,
            &other.fragments,
            &other.tcp_bytes,
            &other.messages,
        ];
        for (mine, theirs) in mine.into_iter().zip(theirs) {
            add(mine, theirs);
        }
        for (sink, theirs) in &other.records {
            add(self.records.entry(sink.clone()).or_default(), theirs);
        }
    }
}

fn add(sum: &mut ByName, more: &ByName) {
    for (reason, count) in more {
        let sum = sum.entry(reason.clone()).or_default();
        *sum = sum.saturating_add(*count);
    }
}

fn occurred(reasons: &ByReason) -> ByName {
    let occurred = reasons.iter().filter(|(_, count)| **count > 0);
    occurred.map(|(reason, count)| ((*reason).to_owned(), *count)).collect()
}

impl From<&Ledger> for Standing {
    fn from(ledger: &Ledger) -> Self {
        let agent = &ledger.agent;
        let mut lost = Lost {
            packets: occurred(&agent.packets.lost),
            fragments: occurred(&agent.fragments.lost),
            tcp_bytes: occurred(&agent.tcp_bytes.lost),
            messages: occurred(&agent.messages.lost),
            ..Lost::default()
        };
        for interface in &ledger.interfaces {
            for hook in [&interface.ingress, &interface.egress] {
                add(&mut lost.hook_packets, &occurred(&hook.lost));
            }
        }
        let mut records_in_memory = ByName::new();
        for sink in &agent.sinks {
            let lost_here = occurred(&sink.records.lost);
            if !lost_here.is_empty() {
                lost.records.insert(sink.name.clone(), lost_here);
            }
            if sink.records.in_flight > 0 {
                records_in_memory.insert(sink.name.clone(), sink.records.in_flight);
            }
        }
        Self {
            packets_in_rings: agent.packets.in_rings,
            messages_pending: agent.messages.pending,
            records_in_memory,
            lost,
        }
    }
}
