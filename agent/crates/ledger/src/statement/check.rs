//! The check of the ledger: each stage adds up, and stages agree where one hands over to the next.

use tap53_ebpf::settings::Direction;

use super::{Agent, Ledger, Sink};
use crate::{
    sources::Sources,
    stage::{Stage, differ, sum},
    stages::{Deliveries, Records},
};

/// Lines that do not add up.
#[derive(Default)]
struct Imbalances(Vec<String>);

impl Imbalances {
    fn check(&mut self, at: &str, stage: &impl Stage) {
        self.0.extend(stage.imbalance().map(|imbalance| format!("{at}: {imbalance}")));
    }

    fn check_stage<S: Stage>(&mut self, stage: &S) {
        self.check(&S::NAME.replace('_', " "), stage);
    }

    fn equal(&mut self, name: &str, left: u64, right: u64) {
        self.0.extend(differ(name, left, right));
    }
}

impl Ledger {
    /// Returns every line that does not add up.
    pub(super) fn check(&self, sources: &Sources) -> Vec<String> {
        let mut found = Imbalances::default();
        for interface in &self.interfaces {
            for direction in Direction::ALL {
                let at = format!("{} {}", interface.name, direction.name());
                found.check(&at, interface.hook(direction));
            }
        }
        let Agent { packets, fragments, tcp_bytes, messages, records, sinks } = &self.agent;
        found.check_stage(&packets.rings);
        found.check_stage(&packets.workers);
        found.check_stage(fragments);
        found.check_stage(tcp_bytes);
        found.check_stage(messages);
        found.check_stage(records);
        self.check_packets(sources, &mut found);
        for sink in sinks {
            found.check(&format!("sink {}: records", sink.name), &sink.records);
            found.check(&format!("sink {}: messages", sink.name), &sink.messages);
            self.check_offers(sink, sources.ended, &mut found);
        }
        found.0
    }

    /// Compares what the rings, the workers and the reassembly say of the same packets.
    fn check_packets(&self, sources: &Sources, found: &mut Imbalances) {
        let Agent { packets, fragments, .. } = &self.agent;
        found.equal("fragments: handed over", packets.workers.fragments, fragments.received);
        if !sources.ended {
            return;
        }
        found.equal("rings: waiting at the end", packets.rings.in_rings, 0);
        // An abandoned worker has sent datagrams that it has not counted yet.
        if !sources.is_abandoned {
            let taken = packets.workers.joined + fragments.datagrams_lost;
            found.equal("fragments: datagrams", fragments.datagrams, taken);
        }
    }

    /// Checks that a sink was handed all that became a record.
    fn check_offers(&self, sink: &Sink, ended: bool, found: &mut Imbalances) {
        // At the end, a batch that no sink took is lost without a reason.
        let handed = |of: &Deliveries| of.offered + if ended { 0 } else { of.in_batches };
        let Agent { messages, records, .. } = &self.agent;
        let Records { created, ahead, filtered, .. } = records;
        let name = &sink.name;
        let accounted = handed(&sink.records) + sum(filtered);
        found.equal(&format!("sink {name}: records created"), created + ahead, accounted);
        let in_records = messages.in_records + messages.ahead;
        found.equal(&format!("sink {name}: messages offered"), handed(&sink.messages), in_records);
    }
}
