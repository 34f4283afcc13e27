//! The ledger itself: drawn up from all counts, every line checked.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use serde::Serialize;
use tap53_base::amount::Amount;
use tap53_dns::{
    PacketLoss, ParseStatus,
    fragments::FragmentLoss,
    stream::{StreamCounts, StreamIgnored, StreamLoss},
};
use tap53_ebpf::{
    counter::{Counter, Counters},
    settings::Direction,
};
use tap53_reasons::Fate;
use tap53_spool::{Loss, Totals};
use tap53_transactions::filter::FilterReason;

use super::{
    MessageLoss, PreviousRuns, RegistryCounts, SinkCounts, SinkLoss, SummaryCounts, WorkerCounts,
};

/// What the kernel programs counted for one interface.
#[derive(Clone, Debug)]
pub struct InterfaceCounts {
    /// Interface name.
    pub name: String,
    /// Interface index.
    pub ifindex: u32,
    /// Hook in use for each direction, and its mode.
    pub hooks: [String; 2],
    /// Counters for each direction.
    pub counters: [Counters; 2],
}

/// Everything that a ledger is made from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Name of the node.
    pub node: String,
    /// Run of the agent.
    pub run: [u8; 8],
    /// When it was taken, microseconds since 1970 UTC.
    pub taken_at_us: i64,
    /// True after the workers and sinks have ended: nothing may be left in the rings.
    pub ended: bool,
    /// True once [`abandon`](Self::abandon) has counted what workers hold that did not come to their
    /// end.
    pub is_abandoned: bool,
    /// Kernel counters.
    pub interfaces: Vec<InterfaceCounts>,
    /// Sum of the workers' counts.
    pub workers: WorkerCounts,
    /// Number of each worker's last record.
    pub last_numbers: Vec<u64>,
    /// Name and counts of each sink.
    pub sinks: Vec<(String, SinkCounts)>,
}

impl Sources {
    /// Counts as lost what is held by workers that did not come to their end, at the end of a run.
    ///
    /// All other workers hold nothing by then, so whatever waits anywhere is theirs. Only what they
    /// took out of their rings in an unfinished batch, or never took out, was counted by nobody: those
    /// packets are the difference to what the hooks captured. A run without abandoned workers must
    /// never come here, since no difference is a defect then.
    pub fn abandon(&mut self) {
        self.is_abandoned = true;
        let workers = &mut self.workers;
        let messages = std::mem::take(&mut workers.messages_pending);
        workers.messages_lost[MessageLoss::Abandoned as usize] += messages;
        workers.queries_pending = 0;
        workers.transactions_held = 0;
        let fragments = &mut workers.fragments;
        fragments.lost[FragmentLoss::Ended as usize] += std::mem::take(&mut fragments.waiting);
        // On their way to one of those workers.
        let taken = workers.datagrams_taken + workers.datagrams_not_handed_over;
        workers.datagrams_not_handed_over += fragments.datagrams.saturating_sub(taken);
        let streams = &mut workers.streams;
        let bytes = std::mem::take(&mut streams.bytes_waiting);
        streams.bytes_lost[StreamLoss::Ended as usize] += bytes;
        for (_, sink) in &mut self.sinks {
            let in_batches = sink.in_batches;
            sink.offer(in_batches);
            sink.lose(SinkLoss::Abandoned, in_batches);
        }
    }
}

/// Counts by the name of their reason; every reason is there.
pub type ByReason = BTreeMap<&'static str, u64>;

/// The ledger, as it is printed and written.
#[derive(Clone, Debug, Serialize)]
pub struct Ledger {
    pub(crate) tap53_version: &'static str,
    pub(crate) node: String,
    /// Run of the agent, as in its records.
    pub(crate) run_id: String,
    pub(crate) written_at: String,
    /// Interfaces that are captured from, or were.
    pub interfaces: Vec<Interface>,
    /// Fates of the packets that the hooks captured.
    pub agent: Agent,
    /// What is known of the runs before; nothing where nothing is written down.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub before: Option<PreviousRuns>,
    /// Lines that do not add up; empty in a balanced ledger.
    pub(crate) imbalances: Vec<String>,
    pub(crate) balanced: bool,
}

/// Packets at the two hooks of an interface.
#[derive(Clone, Debug, Serialize)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Number of the interface.
    pub ifindex: u32,
    pub(crate) hooks: BTreeMap<&'static str, String>,
    /// What arrived.
    pub ingress: Hook,
    /// What left.
    pub egress: Hook,
}

/// Packets at one hook: seen = captured + Σ ignored + Σ lost.
#[derive(Clone, Debug, Serialize)]
pub struct Hook {
    /// Packets that passed the hook.
    pub seen: u64,
    /// Packets copied into a ring.
    pub captured: u64,
    /// Bytes of those packets.
    pub bytes_captured: u64,
    /// Captured packets that the snap length cut.
    pub truncated: u64,
    /// Rightly not taken, by reason.
    pub ignored: ByReason,
    /// Lost, by reason.
    pub lost: ByReason,
}

#[derive(Clone, Debug, Serialize)]
pub struct Agent {
    pub packets: Packets,
    pub fragments: Fragments,
    pub tcp_bytes: TcpBytes,
    pub messages: Messages,
    pub records: Records,
    pub sinks: Vec<Sink>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Packets {
    pub in_rings: u64,
    /// At the end, in the rings or in the unfinished batches of workers that were abandoned: captured,
    /// and never counted as received.
    pub(crate) abandoned: u64,
    pub received: u64,
    /// Datagrams joined from fragments: taken in beside the packets.
    pub joined: u64,
    pub decoded: u64,
    /// Packets that are fragments; the next line tells of them.
    pub fragments: u64,
    pub ignored: ByReason,
    pub lost: ByReason,
}

#[derive(Clone, Debug, Serialize)]
pub struct Fragments {
    pub received: u64,
    /// Fragments in whole datagrams, and those datagrams.
    pub joined: u64,
    pub datagrams: u64,
    pub waiting: u64,
    pub ignored: ByReason,
    pub lost: ByReason,
    /// Datagrams that the worker of their flow could not take in.
    pub datagrams_lost: u64,
}

/// Bytes of TCP payload.
#[derive(Clone, Debug, Serialize)]
pub struct TcpBytes {
    pub received: u64,
    pub in_messages: u64,
    pub waiting: u64,
    pub ignored: ByReason,
    pub lost: ByReason,
    /// Of streams that were captured, and never came; outside the sum.
    pub missing: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Messages {
    pub decoded: u64,
    pub pending: u64,
    pub in_records: u64,
    /// Beside those: in records that sinks were handed early.
    pub(crate) ahead: u64,
    pub filtered: ByReason,
    pub ignored: ByReason,
    pub lost: ByReason,
    /// Those that could not be read whole, by the `parse_status` of the record; outside of the sum.
    pub flawed: ByReason,
}

#[derive(Clone, Debug, Serialize)]
pub struct Records {
    pub created: u64,
    /// Beside those: handed to sinks before the batch that they come from is counted.
    pub ahead: u64,
    pub filtered: ByReason,
    /// Number of each worker's last record: all from 1 on have been offered to the sinks.
    pub(crate) last_numbers: Vec<u64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Sink {
    pub name: String,
    pub records: Deliveries,
    pub(crate) messages: Deliveries,
    /// Bytes that its spool takes on disk.
    pub spool_bytes: u64,
    /// What became of all that ever was in its spool, in this run and in those before.
    pub spool: Option<SpoolTotals>,
    /// Its schema registry, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistryCounts>,
    /// Summaries of the ledger beside them.
    pub summaries: Option<Summaries>,
}

/// Summaries of the ledger: written + carried = delivered + waiting + lost.
#[derive(Clone, Debug, Serialize)]
pub struct Summaries {
    /// Written by this run.
    pub written: u64,
    /// Left by earlier runs.
    pub carried: u64,
    /// Known to have arrived.
    pub delivered: u64,
    /// Not yet known to have arrived.
    pub waiting: u64,
    /// Given up; the next summary makes up for them.
    pub lost: u64,
}

/// Of all runs, killed ones included: appended = waiting + arrived + Σ lost.
#[derive(Clone, Debug, Serialize)]
pub struct SpoolTotals {
    /// Id of the first record that is counted.
    pub(crate) from_id: u64,
    /// Records.
    pub records: Fates,
    pub(crate) messages: Fates,
}

/// Fates of everything that was ever in a spool.
#[derive(Clone, Debug, Serialize)]
pub struct Fates {
    pub(crate) appended: u64,
    pub(crate) waiting: u64,
    pub(crate) arrived: u64,
    /// Lost, by reason.
    pub lost: ByReason,
}

impl SpoolTotals {
    fn new(totals: &Totals) -> Self {
        let fates = |part: fn(&Amount) -> u64| Fates {
            appended: part(&totals.appended),
            waiting: part(&totals.waiting),
            arrived: part(&totals.arrived),
            lost: Loss::ALL
                .into_iter()
                .zip(&totals.lost)
                .map(|(reason, lost)| (reason.name(), part(lost)))
                .collect(),
        };
        Self {
            from_id: totals.from_id,
            records: fates(|amount| amount.records),
            messages: fates(|amount| amount.messages),
        }
    }
}

/// Records or messages that a sink took, and their fates.
#[derive(Clone, Debug, Serialize)]
pub struct Deliveries {
    /// On their way to the sink, which has not taken them yet.
    pub in_batches: u64,
    /// Taken by the sink.
    pub offered: u64,
    /// Known to have arrived.
    pub delivered: u64,
    /// Taken, and not yet delivered, spooled or lost.
    pub in_flight: u64,
    /// In the spool at the start of this run: to be accounted for beside what was offered.
    pub carried: u64,
    /// In the spool now.
    pub spooled: u64,
    /// Lost, by reason.
    pub lost: ByReason,
}

impl Hook {
    fn new(counters: &Counters) -> Self {
        let of_fate = |fate| {
            let counted = Counter::ALL.into_iter().filter(|counter| counter.fate() == fate);
            counted.map(|counter| (counter.name(), counters.get(counter))).collect()
        };
        Self {
            seen: counters.get(Counter::Seen),
            captured: counters.get(Counter::Captured),
            bytes_captured: counters.get(Counter::BytesCaptured),
            truncated: counters.get(Counter::Truncated),
            ignored: of_fate(Fate::Ignored),
            lost: of_fate(Fate::Lost),
        }
    }

    fn accounted(&self) -> u64 {
        self.captured + sum(&self.ignored) + sum(&self.lost)
    }
}

impl Fragments {
    fn new(workers: &WorkerCounts) -> Self {
        let counts = &workers.fragments;
        let lost = FragmentLoss::ALL
            .into_iter()
            .map(|reason| (reason.name(), counts.lost[reason as usize]));
        Self {
            received: counts.received,
            joined: counts.joined,
            datagrams: counts.datagrams,
            waiting: counts.waiting,
            ignored: ByReason::from([("duplicate", counts.duplicates)]),
            lost: lost.collect(),
            datagrams_lost: workers.datagrams_not_handed_over,
        }
    }
}

impl TcpBytes {
    fn new(counts: &StreamCounts) -> Self {
        let ignored = StreamIgnored::ALL
            .into_iter()
            .map(|reason| (reason.name(), counts.bytes_ignored[reason as usize]));
        let lost = StreamLoss::ALL
            .into_iter()
            .map(|reason| (reason.name(), counts.bytes_lost[reason as usize]));
        Self {
            received: counts.bytes_received,
            in_messages: counts.bytes_in_messages,
            waiting: counts.bytes_waiting,
            ignored: ignored.collect(),
            lost: lost.collect(),
            missing: counts.bytes_missing,
        }
    }
}

impl Deliveries {
    fn new(counts: &SinkCounts, part: fn(&Amount) -> u64) -> Self {
        Self {
            in_batches: part(&counts.in_batches),
            offered: part(&counts.offered),
            delivered: part(&counts.delivered),
            in_flight: part(&counts.in_flight),
            carried: part(&counts.carried),
            spooled: part(&counts.spooled),
            lost: SinkLoss::ALL
                .into_iter()
                .map(|reason| (reason.name(), part(&counts.lost[reason as usize])))
                .collect(),
        }
    }

    fn accounted(&self) -> u64 {
        self.delivered + self.in_flight + self.spooled + sum(&self.lost)
    }
}

fn sum(by_reason: &ByReason) -> u64 {
    by_reason.values().sum()
}

impl Ledger {
    /// Draws up a ledger and checks every line of it.
    #[must_use]
    pub fn new(sources: &Sources) -> Self {
        let interfaces: Vec<Interface> = sources.interfaces.iter().map(Interface::new).collect();
        let captured: u64 = interfaces
            .iter()
            .flat_map(|interface| [&interface.ingress, &interface.egress])
            .map(|hook| hook.captured)
            .sum();
        let workers = &sources.workers;
        let not_received = captured.saturating_sub(workers.packets_received);
        let (in_rings, abandoned) =
            if sources.is_abandoned { (0, not_received) } else { (not_received, 0) };
        let by_fate = |fate| {
            PacketLoss::ALL
                .into_iter()
                .filter(|reason| reason.fate() == fate)
                .map(|reason| (reason.name(), workers.packets_lost[reason as usize]))
                .collect()
        };
        let messages_by_fate = |fate| {
            MessageLoss::ALL
                .into_iter()
                .filter(|reason| reason.fate() == fate)
                .map(|reason| (reason.name(), workers.messages_lost[reason as usize]))
                .collect()
        };
        let filtered = |part: fn(&Amount) -> u64| {
            FilterReason::ALL
                .into_iter()
                .map(|reason| (reason.name(), part(&workers.filtered[reason as usize])))
                .collect()
        };
        let mut ledger = Self {
            tap53_version: env!("CARGO_PKG_VERSION"),
            node: sources.node.clone(),
            run_id: HEXLOWER.encode(&sources.run),
            written_at: jiff::Timestamp::from_microsecond(sources.taken_at_us)
                .map_or_else(|_| "unknown".into(), |timestamp| format!("{timestamp:.6}")),
            interfaces,
            agent: Agent {
                packets: Packets {
                    in_rings,
                    abandoned,
                    received: workers.packets_received,
                    joined: workers.datagrams_taken,
                    decoded: workers.packets_decoded,
                    fragments: workers.packets_in_fragments,
                    ignored: by_fate(Fate::Ignored),
                    lost: by_fate(Fate::Lost),
                },
                fragments: Fragments::new(workers),
                tcp_bytes: TcpBytes::new(&workers.streams),
                messages: Messages {
                    decoded: workers.messages_decoded,
                    pending: workers.messages_pending,
                    in_records: workers.messages_in_records,
                    ahead: workers.ahead.messages,
                    filtered: filtered(|amount| amount.messages),
                    ignored: messages_by_fate(Fate::Ignored),
                    lost: messages_by_fate(Fate::Lost),
                    flawed: ParseStatus::ALL
                        .into_iter()
                        .filter(|status| *status != ParseStatus::Ok)
                        .map(|status| (status.name(), workers.messages_flawed[status as usize]))
                        .collect(),
                },
                records: Records {
                    created: workers.records_created,
                    ahead: workers.ahead.records,
                    filtered: filtered(|amount| amount.records),
                    last_numbers: sources.last_numbers.clone(),
                },
                sinks: sources.sinks.iter().map(|(name, counts)| Sink::new(name, counts)).collect(),
            },
            before: None,
            imbalances: Vec::new(),
            balanced: false,
        };
        ledger.imbalances = ledger.check(captured, sources);
        ledger.balanced = ledger.imbalances.is_empty();
        ledger
    }

    /// What all hooks saw together.
    pub(super) fn hooks(&self) -> Hook {
        let mut sum = Hook::new(&Counters::default());
        for hook in self.interfaces.iter().flat_map(|of| [&of.ingress, &of.egress]) {
            sum.seen += hook.seen;
            sum.captured += hook.captured;
            for (total, part) in [(&mut sum.ignored, &hook.ignored), (&mut sum.lost, &hook.lost)] {
                for (reason, count) in part {
                    *total.entry(reason).or_default() += count;
                }
            }
        }
        sum
    }

    /// The same, with what is known of the runs before.
    #[must_use]
    pub fn after(mut self, before: Option<&PreviousRuns>) -> Self {
        self.before = before.cloned();
        self
    }

    /// True if every line adds up.
    #[must_use]
    pub const fn balanced(&self) -> bool {
        self.balanced
    }

    /// True if a sink has lost records, other than to a reader that went away, or if a worker was
    /// abandoned with something that would have become records.
    #[must_use]
    pub fn lost_records(&self) -> bool {
        let Agent { packets, messages, .. } = &self.agent;
        if packets.abandoned > 0 || messages.lost[MessageLoss::Abandoned.name()] > 0 {
            return true;
        }
        let closed = SinkLoss::Closed.name();
        self.agent.sinks.iter().any(|sink| sum(&sink.records.lost) > sink.records.lost[closed])
    }

    fn check(&self, captured: u64, sources: &Sources) -> Vec<String> {
        let ended = sources.ended;
        let mut imbalances = Vec::new();
        let mut equal = |what: String, left: u64, right: u64| {
            if left != right {
                imbalances.push(format!("{what}: {left} is not {right}"));
            }
        };
        for interface in &self.interfaces {
            for direction in Direction::ALL {
                let hook = interface.hook(direction);
                let what = format!("{} {}: seen", interface.name, direction.name());
                equal(what, hook.seen, hook.accounted());
            }
        }
        let (packets, messages) = (&self.agent.packets, &self.agent.messages);
        let in_rings = if ended { 0 } else { packets.in_rings };
        let accounted = packets.received + in_rings + packets.abandoned;
        equal("rings: captured".into(), captured, accounted);
        let accounted =
            packets.decoded + packets.fragments + sum(&packets.ignored) + sum(&packets.lost);
        equal("packets: received and joined".into(), packets.received + packets.joined, accounted);
        let (fragments, bytes) = (&self.agent.fragments, &self.agent.tcp_bytes);
        equal("fragments: received".into(), fragments.received, packets.fragments);
        let accounted =
            fragments.joined + fragments.waiting + sum(&fragments.ignored) + sum(&fragments.lost);
        equal("fragments: accounted".into(), fragments.received, accounted);
        // An abandoned worker has sent datagrams that it has not counted yet.
        if ended && !sources.is_abandoned {
            let taken = packets.joined + fragments.datagrams_lost;
            equal("fragments: datagrams".into(), fragments.datagrams, taken);
        }
        let accounted = bytes.in_messages + bytes.waiting + sum(&bytes.ignored) + sum(&bytes.lost);
        equal("tcp bytes: received".into(), bytes.received, accounted);
        let left_out = [&messages.filtered, &messages.ignored, &messages.lost].map(sum);
        let accounted = messages.pending + messages.in_records + left_out.iter().sum::<u64>();
        equal("messages: decoded".into(), messages.decoded, accounted);
        let records = &self.agent.records;
        let numbered = records.last_numbers.iter().sum::<u64>();
        let accounted = numbered + sum(&records.filtered);
        equal("records: created".into(), records.created, accounted);
        for sink in &self.agent.sinks {
            let name = &sink.name;
            let (records, carried) = (&sink.records, &sink.messages);
            let taken = |of: &Deliveries| of.offered + of.carried;
            equal(format!("sink {name}: offered records"), taken(records), records.accounted());
            equal(format!("sink {name}: offered messages"), taken(carried), carried.accounted());
            // At the end a batch that nobody took is lost without a reason.
            let handed = |of: &Deliveries| of.offered + if ended { 0 } else { of.in_batches };
            let Records { created, ahead, filtered, .. } = &self.agent.records;
            let accounted = handed(records) + sum(filtered);
            equal(format!("sink {name}: records created"), created + ahead, accounted);
            let in_records = messages.in_records + messages.ahead;
            equal(format!("sink {name}: messages offered"), handed(carried), in_records);
        }
        imbalances
    }
}

impl Interface {
    fn new(counts: &InterfaceCounts) -> Self {
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
        }
    }

    const fn hook(&self, direction: Direction) -> &Hook {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

impl Summaries {
    /// `None` where there are none.
    fn new(counts: &SummaryCounts) -> Option<Self> {
        let SummaryCounts { written, carried, delivered, waiting, lost } = *counts;
        (written + carried > 0).then_some(Self { written, carried, delivered, waiting, lost })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> Sources {
        let mut counters = [Counters::default(); 2];
        counters[0].counts[Counter::Seen as usize] = 7;
        counters[0].counts[Counter::Captured as usize] = 4;
        counters[0].counts[Counter::NotDns as usize] = 2;
        counters[0].counts[Counter::RingFull as usize] = 1;
        let interfaces = vec![InterfaceCounts {
            name: "v0".into(),
            ifindex: 5,
            hooks: ["xdp native".into(), "tcx".into()],
            counters,
        }];
        let mut workers = WorkerCounts {
            packets_received: 4,
            packets_decoded: 3,
            messages_decoded: 5,
            messages_pending: 1,
            messages_in_records: 2,
            records_created: 2,
            ..Default::default()
        };
        workers.packets_lost[PacketLoss::MalformedPacket as usize] = 1;
        workers.filtered[FilterReason::SampledOut as usize] = Amount { records: 1, messages: 2 };
        let amount = Amount { records: 1, messages: 2 };
        let sink = SinkCounts { offered: amount, delivered: amount, ..Default::default() };
        Sources {
            node: "node-1".into(),
            run: [7; 8],
            taken_at_us: 0,
            ended: true,
            is_abandoned: false,
            interfaces,
            workers,
            last_numbers: vec![1],
            sinks: vec![("file".into(), sink)],
        }
    }

    #[test]
    fn a_ledger_that_adds_up_is_balanced() {
        let ledger = Ledger::new(&sources());
        assert!(ledger.balanced(), "{:?}", ledger.imbalances);
        let json = serde_json::to_value(&ledger).unwrap();
        assert_eq!(json["interfaces"][0]["ingress"]["lost"]["ring_full"], 1);
        assert_eq!(json["agent"]["sinks"][0]["records"]["delivered"], 1);
        assert_eq!(json["balanced"], true);
    }

    #[test]
    fn one_missing_unit_anywhere_unbalances_it() {
        let changes: [fn(&mut Sources); 16] = [
            |s| s.interfaces[0].counters[0].counts[Counter::Seen as usize] += 1,
            |s| s.interfaces[0].counters[1].counts[Counter::Captured as usize] += 1,
            |s| s.workers.packets_received -= 1,
            |s| s.workers.packets_decoded -= 1,
            |s| s.workers.messages_decoded += 1,
            |s| s.workers.messages_pending = 0,
            |s| s.workers.records_created += 1,
            |s| s.last_numbers[0] += 1,
            |s| s.workers.filtered[FilterReason::QnameDenied as usize].records = 1,
            |s| s.workers.filtered[FilterReason::QnameDenied as usize].messages = 1,
            |s| s.workers.ahead.records += 1,
            |s| s.workers.ahead.messages += 1,
            |s| s.sinks[0].1.offered.messages += 1,
            |s| s.sinks[0].1.delivered.records = 0,
            |s| s.sinks[0].1.carried.records += 1,
            |s| s.sinks[0].1.spooled.messages += 1,
        ];
        for (position, change) in changes.into_iter().enumerate() {
            let mut sources = sources();
            change(&mut sources);
            assert!(!Ledger::new(&sources).balanced(), "change {position}");
        }
    }

    #[test]
    fn rings_may_hold_packets_while_it_runs_but_not_at_the_end() {
        let mut sources = sources();
        sources.interfaces[0].counters[0].counts[Counter::Seen as usize] += 3;
        sources.interfaces[0].counters[0].counts[Counter::Captured as usize] += 3;
        assert!(!Ledger::new(&sources).balanced());
        sources.ended = false;
        assert!(Ledger::new(&sources).balanced());
    }

    #[test]
    fn what_abandoned_workers_hold_is_counted_and_nothing_else_is_excused() {
        let held = |sources: &mut Sources| {
            // In the ring, and in the unfinished batch.
            sources.interfaces[0].counters[0].counts[Counter::Seen as usize] += 3;
            sources.interfaces[0].counters[0].counts[Counter::Captured as usize] += 3;
            let workers = &mut sources.workers;
            // A fragment that waits, a datagram on its way to another worker, bytes of a stream.
            workers.packets_received += 3;
            sources.interfaces[0].counters[0].counts[Counter::Seen as usize] += 3;
            sources.interfaces[0].counters[0].counts[Counter::Captured as usize] += 3;
            workers.packets_in_fragments += 3;
            workers.fragments.received += 3;
            workers.fragments.joined += 2;
            workers.fragments.datagrams += 1;
            workers.fragments.waiting += 1;
            workers.streams.bytes_received += 9;
            workers.streams.bytes_waiting += 9;
            let sink = &mut sources.sinks[0].1;
            sink.in_batches = std::mem::take(&mut sink.offered);
            sink.delivered = Amount::default();
        };
        let mut left = sources();
        held(&mut left);
        assert!(!Ledger::new(&left).balanced(), "nobody has abandoned anything");
        let pending = left.workers.messages_pending;
        assert!(pending > 0);
        left.abandon();
        let ledger = Ledger::new(&left);
        assert!(ledger.balanced(), "{:?}", ledger.imbalances);
        let json = serde_json::to_value(&ledger).unwrap();
        let agent = &json["agent"];
        assert_eq!(agent["packets"]["abandoned"], 3);
        assert_eq!(agent["packets"]["in_rings"], 0);
        assert_eq!(agent["messages"]["lost"]["abandoned"], pending);
        assert_eq!(agent["messages"]["pending"], 0);
        assert_eq!(agent["fragments"]["lost"]["ended"], 1);
        assert_eq!(agent["fragments"]["datagrams_lost"], 1);
        assert_eq!(agent["tcp_bytes"]["lost"]["ended"], 9);
        assert_eq!(agent["sinks"][0]["records"]["lost"]["abandoned"], 1);
        assert!(ledger.lost_records());
        // What the workers have published must add up as ever.
        let defects: [fn(&mut Sources); 5] = [
            |s| s.workers.packets_received += 100,
            |s| s.workers.packets_decoded += 1,
            |s| s.workers.messages_decoded += 1,
            |s| s.workers.records_created += 1,
            |s| s.sinks[0].1.delivered.records += 1,
        ];
        for (position, defect) in defects.into_iter().enumerate() {
            let mut sources = left.clone();
            defect(&mut sources);
            assert!(!Ledger::new(&sources).balanced(), "defect {position}");
        }
    }

    #[test]
    fn batches_may_be_on_their_way_to_a_sink_but_not_at_the_end() {
        let mut sources = sources();
        let sink = &mut sources.sinks[0].1;
        sink.in_batches = std::mem::take(&mut sink.offered);
        sink.delivered = Amount::default();
        assert!(!Ledger::new(&sources).balanced());
        sources.ended = false;
        assert!(Ledger::new(&sources).balanced());
        sources.workers.ahead = Amount { records: 2, messages: 5 };
        assert!(!Ledger::new(&sources).balanced(), "a part of a batch that no sink was handed");
        sources.sinks[0].1.in_batches += Amount { records: 2, messages: 5 };
        assert!(Ledger::new(&sources).balanced());
    }
}
