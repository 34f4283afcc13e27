//! The values of the terms: each is read from the counts of the code that counts it.

use std::iter;

use tap53_base::amount::Amount;
use tap53_dns::{
    PacketLoss, ParseStatus,
    fragments::{FragmentIgnored, FragmentLoss},
    stream::{StreamCounts, StreamIgnored, StreamLoss},
};
use tap53_ebpf::{
    counter::{Counter, Counters},
    settings::Direction,
};
use tap53_reasons::Fate::{Filtered, Ignored, Lost};
use tap53_spool::{Loss, Totals};
use tap53_transactions::filter::FilterReason;

use super::{Agent, AgentPackets, Interface, Ledger, Sink, SpoolTotals};
use crate::{
    MessageLoss, SinkCounts, SinkLoss, SummaryCounts, WorkerCounts,
    sources::{InterfaceCounts, Sources},
    stage::{ByReason, ByStatus, by_reason},
    stages::{
        Deliveries, Fragments, Hook, Messages, Packets, Records, Rings, SpoolHistory, Summaries,
        TcpBytes,
    },
};

impl Interface {
    pub(super) fn new(counts: &InterfaceCounts) -> Self {
        let hooks = Direction::ALL
            .into_iter()
            .map(|direction| (direction.name(), counts.hooks[direction as usize].clone()))
            .collect();
        Self {
            name: counts.name.clone(),
            ifindex: counts.ifindex,
            hooks,
            ingress: Hook::new(&counts.counters[Direction::Ingress as usize]),
            egress: Hook::new(&counts.counters[Direction::Egress as usize]),
            is_pair: counts.is_pair,
            is_attached: counts.is_attached,
        }
    }
}

impl Hook {
    fn new(counters: &Counters) -> Self {
        let count = |counter| counters.get(counter);
        Self {
            seen: count(Counter::Seen),
            captured: count(Counter::Captured),
            bytes_captured: count(Counter::BytesCaptured),
            truncated: count(Counter::Truncated),
            ignored: by_reason(Ignored, count),
            lost: by_reason(Lost, count),
        }
    }

    /// Adds up hooks.
    pub fn sum<'a>(hooks: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self::new(&Counters::default());
        hooks.into_iter().for_each(|hook| sum.add(hook));
        sum
    }

    fn add(&mut self, other: &Self) {
        self.seen += other.seen;
        self.captured += other.captured;
        self.bytes_captured += other.bytes_captured;
        self.truncated += other.truncated;
        for (sum, part) in
            iter::zip([&mut self.ignored, &mut self.lost], [&other.ignored, &other.lost])
        {
            for (reason, count) in part {
                *sum.entry(reason).or_default() += count;
            }
        }
    }
}

impl Ledger {
    /// Adds up all hooks.
    pub(crate) fn hooks(&self) -> Hook {
        Hook::sum(self.interfaces.iter().flat_map(|of| [&of.ingress, &of.egress]))
    }
}

impl Agent {
    pub(super) fn new(interfaces: &[Interface], sources: &Sources) -> Self {
        let workers = &sources.workers;
        let hooks = interfaces.iter().flat_map(|of| [&of.ingress, &of.egress]);
        let captured = hooks.map(|hook| hook.captured).sum();
        Self {
            packets: AgentPackets {
                rings: Rings::new(captured, sources),
                workers: Packets::new(workers),
            },
            fragments: Fragments::new(workers),
            tcp_bytes: TcpBytes::new(&workers.streams),
            messages: Messages::new(workers),
            records: Records::new(workers, &sources.last_numbers),
            sinks: sources.sinks.iter().map(|(name, counts)| Sink::new(name, counts)).collect(),
        }
    }
}

impl Rings {
    /// Captured packets that no worker counted are in the rings, unless workers were abandoned.
    fn new(captured: u64, sources: &Sources) -> Self {
        let received = sources.workers.packets_received;
        let not_received = captured.saturating_sub(received);
        let (in_rings, abandoned) =
            if sources.is_abandoned { (0, not_received) } else { (not_received, 0) };
        Self { captured, received, in_rings, abandoned }
    }
}

impl Packets {
    fn new(workers: &WorkerCounts) -> Self {
        let count = |reason: PacketLoss| workers.packets_lost[reason as usize];
        Self {
            received: workers.packets_received,
            joined: workers.datagrams_taken,
            decoded: workers.packets_decoded,
            fragments: workers.packets_in_fragments,
            ignored: by_reason(Ignored, count),
            lost: by_reason(Lost, count),
        }
    }
}

impl Fragments {
    fn new(workers: &WorkerCounts) -> Self {
        let counts = &workers.fragments;
        Self {
            received: counts.received,
            joined: counts.joined,
            datagrams: counts.datagrams,
            waiting: counts.waiting,
            ignored: by_reason(Ignored, |reason| match reason {
                FragmentIgnored::Duplicate => counts.duplicates,
            }),
            lost: by_reason(Lost, |reason: FragmentLoss| counts.lost[reason as usize]),
            datagrams_lost: workers.datagrams_not_handed_over,
        }
    }
}

impl TcpBytes {
    fn new(counts: &StreamCounts) -> Self {
        Self {
            received: counts.bytes_received,
            in_messages: counts.bytes_in_messages,
            waiting: counts.bytes_waiting,
            ignored: by_reason(Ignored, |reason: StreamIgnored| {
                counts.bytes_ignored[reason as usize]
            }),
            lost: by_reason(Lost, |reason: StreamLoss| counts.bytes_lost[reason as usize]),
            missing: counts.bytes_missing,
        }
    }
}

impl Messages {
    fn new(workers: &WorkerCounts) -> Self {
        let count = |reason: MessageLoss| workers.messages_lost[reason as usize];
        let flawed = ParseStatus::ALL
            .into_iter()
            .filter(|status| *status != ParseStatus::Ok)
            .map(|status| (status.name(), workers.messages_flawed[status as usize]));
        Self {
            decoded: workers.messages_decoded,
            pending: workers.messages_pending,
            in_records: workers.messages_in_records,
            ahead: workers.ahead.messages,
            filtered: filtered(workers, |amount| amount.messages),
            ignored: by_reason(Ignored, count),
            lost: by_reason(Lost, count),
            flawed: ByStatus(flawed.collect()),
        }
    }
}

impl Records {
    fn new(workers: &WorkerCounts, last_numbers: &[u64]) -> Self {
        Self {
            created: workers.records_created,
            ahead: workers.ahead.records,
            filtered: filtered(workers, |amount| amount.records),
            last_numbers: last_numbers.to_vec(),
        }
    }
}

fn filtered(workers: &WorkerCounts, part: fn(&Amount) -> u64) -> ByReason {
    by_reason(Filtered, |reason: FilterReason| part(&workers.filtered[reason as usize]))
}

impl Sink {
    fn new(name: &str, counts: &SinkCounts) -> Self {
        Self {
            name: name.to_owned(),
            records: Deliveries::new(counts, |amount| amount.records),
            messages: Deliveries::new(counts, |amount| amount.messages),
            spool_bytes: counts.spool_bytes,
            summaries: Summaries::new(&counts.summaries),
            spool: counts.spool_totals.as_ref().map(SpoolTotals::new),
            registry: counts.registry,
        }
    }
}

impl Deliveries {
    fn new(counts: &SinkCounts, part: fn(&Amount) -> u64) -> Self {
        Self {
            offered: part(&counts.offered),
            in_batches: part(&counts.in_batches),
            delivered: part(&counts.delivered),
            in_flight: part(&counts.in_flight),
            carried: part(&counts.carried),
            spooled: part(&counts.spooled),
            lost: by_reason(Lost, |reason: SinkLoss| part(&counts.lost[reason as usize])),
        }
    }
}

impl SpoolTotals {
    fn new(totals: &Totals) -> Self {
        Self {
            from_id: totals.from_id,
            records: SpoolHistory::new(totals, |amount| amount.records),
            messages: SpoolHistory::new(totals, |amount| amount.messages),
        }
    }
}

impl SpoolHistory {
    fn new(totals: &Totals, part: fn(&Amount) -> u64) -> Self {
        Self {
            appended: part(&totals.appended),
            waiting: part(&totals.waiting),
            arrived: part(&totals.arrived),
            lost: by_reason(Lost, |reason: Loss| part(&totals.lost[reason as usize])),
        }
    }
}

impl Summaries {
    /// Returns `None` where there are none.
    fn new(counts: &SummaryCounts) -> Option<Self> {
        let SummaryCounts { written, carried, delivered, waiting, lost } = *counts;
        (written + carried > 0).then_some(Self { written, carried, delivered, waiting, lost })
    }
}
