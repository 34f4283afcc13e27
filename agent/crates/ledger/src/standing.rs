//! Sums a ledger up for the next run: contents of memory, and losses.

use super::{
    previous::{ByName, Lost, Standing, add},
    stage::ByReason,
    statement::Ledger,
};

fn occurred(reasons: &ByReason) -> ByName {
    let occurred = reasons.iter().filter(|(_, count)| **count > 0);
    occurred.map(|(reason, count)| ((*reason).to_owned(), *count)).collect()
}

impl From<&Ledger> for Standing {
    fn from(ledger: &Ledger) -> Self {
        let agent = &ledger.agent;
        let mut lost = Lost {
            packets: occurred(&agent.packets.workers.lost),
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
            packets_in_rings: agent.packets.rings.in_rings,
            messages_pending: agent.messages.pending,
            records_in_memory,
            lost,
        }
    }
}
