//! The loss ledger: what became of every packet, message and record.
//!
//! ```text
//!  hooks      seen      = captured + Σ ignored + Σ lost              each interface and direction
//!  rings      captured  = received + in rings                        in rings is zero at the end
//!  packets    received  = decoded + Σ ignored + Σ lost
//!  messages   decoded   = pending + in records + Σ lost
//!  sinks      offered   = delivered + in flight + Σ lost             records, and their messages
//!             offered   = created (records), in records (messages)
//! ```
//!
//! Each side of a line is counted where it happens, by different code, so a line that does not add
//! up is a defect that the ledger finds. A stage publishes its counts together, after a whole
//! batch, so that a snapshot of a running agent adds up too.

mod render;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;
use tap53_ebpf::{
    counter::{Counter, Counters, Fate},
    settings::Direction,
};

use crate::decode::PacketLoss;

/// Why a message is in no record.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageLoss {
    /// The table of pending queries was full and this query was its oldest.
    PairTableFull,
}

impl MessageLoss {
    /// All reasons, in index order.
    pub const ALL: [Self; 1] = [Self::PairTableFull];

    const fn name(self) -> &'static str {
        match self {
            Self::PairTableFull => "pair_table_full",
        }
    }
}

/// Why a sink did not deliver a record.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkLoss {
    /// The record did not fit the schema.
    EncodeFailed,
    /// The producer's queue stayed full.
    QueueFull,
    /// Not acknowledged within the message timeout.
    Expired,
    /// The broker or the client library refused it.
    Rejected,
    /// The file or stream could not be written.
    WriteFailed,
    /// The reader of standard output went away.
    Closed,
    /// Not acknowledged within the flush deadline at shutdown.
    Unflushed,
}

impl SinkLoss {
    /// All reasons, in index order.
    pub const ALL: [Self; 7] = [
        Self::EncodeFailed,
        Self::QueueFull,
        Self::Expired,
        Self::Rejected,
        Self::WriteFailed,
        Self::Closed,
        Self::Unflushed,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::EncodeFailed => "encode_failed",
            Self::QueueFull => "queue_full",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::WriteFailed => "write_failed",
            Self::Closed => "closed",
            Self::Unflushed => "unflushed",
        }
    }
}

/// Counts of one worker, or the sum of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerCounts {
    /// Ring records taken out.
    pub packets_received: u64,
    /// Packets that yielded messages.
    pub packets_decoded: u64,
    /// Packets that did not, by [`PacketLoss`].
    pub packets_lost: [u64; PacketLoss::ALL.len()],
    /// Messages found in packets.
    pub messages_decoded: u64,
    /// Messages of queries that wait for a response.
    pub messages_pending: u64,
    /// Messages that records stand for.
    pub messages_in_records: u64,
    /// Messages in no record, by [`MessageLoss`].
    pub messages_lost: [u64; MessageLoss::ALL.len()],
    /// Records made.
    pub records_created: u64,
}

impl WorkerCounts {
    fn add(&mut self, other: &Self) {
        self.packets_received += other.packets_received;
        self.packets_decoded += other.packets_decoded;
        self.messages_decoded += other.messages_decoded;
        self.messages_pending += other.messages_pending;
        self.messages_in_records += other.messages_in_records;
        self.records_created += other.records_created;
        for (sum, lost) in self.packets_lost.iter_mut().zip(other.packets_lost) {
            *sum += lost;
        }
        for (sum, lost) in self.messages_lost.iter_mut().zip(other.messages_lost) {
            *sum += lost;
        }
    }
}

/// A cell that a stage publishes its counts in: written once a batch, read for a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Published<T>(Arc<Mutex<T>>);

impl<T: Clone> Published<T> {
    /// Replaces the counts.
    pub fn publish(&self, counts: T) {
        *self.lock() = counts;
    }

    /// Changes the counts in place.
    pub fn update(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.lock());
    }

    /// The counts as of now.
    #[must_use]
    pub fn read(&self) -> T {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        // Counts stay true even if another holder panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records, and the messages that they stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Records.
    pub records: u64,
    /// Messages.
    pub messages: u64,
}

impl Amount {
    /// One record that stands for `messages`.
    #[must_use]
    pub const fn record(messages: u64) -> Self {
        Self {
            records: 1,
            messages,
        }
    }
}

impl std::ops::AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.messages += other.messages;
    }
}

impl std::ops::SubAssign for Amount {
    fn sub_assign(&mut self, other: Self) {
        self.records = self.records.saturating_sub(other.records);
        self.messages = self.messages.saturating_sub(other.messages);
    }
}

/// Counts of one sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkCounts {
    /// Handed to the sink.
    pub offered: Amount,
    /// Known to have arrived.
    pub delivered: Amount,
    /// Accepted, and not yet known to have arrived.
    pub in_flight: Amount,
    /// Not delivered, by [`SinkLoss`].
    pub lost: [Amount; SinkLoss::ALL.len()],
}

impl SinkCounts {
    /// Counts what a sink will not deliver.
    pub fn lose(&mut self, reason: SinkLoss, amount: Amount) {
        self.lost[reason as usize] += amount;
    }

    /// Records that were lost.
    #[must_use]
    pub fn records_lost(&self) -> u64 {
        self.lost.iter().map(|lost| lost.records).sum()
    }
}

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
    /// When it was taken, microseconds since 1970 UTC.
    pub taken_at_us: i64,
    /// True after the workers and sinks have ended: nothing may be left in the rings.
    pub ended: bool,
    /// Kernel counters.
    pub interfaces: Vec<InterfaceCounts>,
    /// Sum of the workers' counts.
    pub workers: WorkerCounts,
    /// Name and counts of each sink.
    pub sinks: Vec<(String, SinkCounts)>,
}

impl Sources {
    /// Adds the counts of a worker.
    pub fn add_worker(&mut self, counts: &WorkerCounts) {
        self.workers.add(counts);
    }
}

type ByReason = BTreeMap<&'static str, u64>;

/// The ledger, as it is printed and written.
#[derive(Clone, Debug, Serialize)]
pub struct Ledger {
    tap53_version: &'static str,
    node: String,
    written_at: String,
    interfaces: Vec<Interface>,
    agent: Agent,
    /// Lines that do not add up; empty in a balanced ledger.
    imbalances: Vec<String>,
    balanced: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Interface {
    name: String,
    ifindex: u32,
    hooks: BTreeMap<&'static str, String>,
    ingress: Hook,
    egress: Hook,
}

#[derive(Clone, Debug, Serialize)]
struct Hook {
    seen: u64,
    captured: u64,
    bytes_captured: u64,
    truncated: u64,
    ignored: ByReason,
    lost: ByReason,
}

#[derive(Clone, Debug, Serialize)]
struct Agent {
    packets: Packets,
    messages: Messages,
    records: Records,
    sinks: Vec<Sink>,
}

#[derive(Clone, Debug, Serialize)]
struct Packets {
    in_rings: u64,
    received: u64,
    decoded: u64,
    ignored: ByReason,
    lost: ByReason,
}

#[derive(Clone, Debug, Serialize)]
struct Messages {
    decoded: u64,
    pending: u64,
    in_records: u64,
    lost: ByReason,
}

#[derive(Clone, Debug, Serialize)]
struct Records {
    created: u64,
}

#[derive(Clone, Debug, Serialize)]
struct Sink {
    name: String,
    records: Deliveries,
    messages: Deliveries,
}

#[derive(Clone, Debug, Serialize)]
struct Deliveries {
    offered: u64,
    delivered: u64,
    in_flight: u64,
    lost: ByReason,
}

impl Hook {
    fn new(counters: &Counters) -> Self {
        let of_fate = |fate| {
            let counted = Counter::ALL
                .into_iter()
                .filter(|counter| counter.fate() == fate);
            counted
                .map(|counter| (counter.name(), counters.get(counter)))
                .collect()
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

impl Deliveries {
    fn new(counts: &SinkCounts, part: fn(&Amount) -> u64) -> Self {
        Self {
            offered: part(&counts.offered),
            delivered: part(&counts.delivered),
            in_flight: part(&counts.in_flight),
            lost: SinkLoss::ALL
                .into_iter()
                .map(|reason| (reason.name(), part(&counts.lost[reason as usize])))
                .collect(),
        }
    }

    fn accounted(&self) -> u64 {
        self.delivered + self.in_flight + sum(&self.lost)
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
        let by_fate = |ignored: bool| {
            PacketLoss::ALL
                .into_iter()
                .filter(|reason| reason.is_ignored() == ignored)
                .map(|reason| (reason.name(), workers.packets_lost[reason as usize]))
                .collect()
        };
        let mut ledger = Self {
            tap53_version: env!("CARGO_PKG_VERSION"),
            node: sources.node.clone(),
            written_at: jiff::Timestamp::from_microsecond(sources.taken_at_us)
                .map_or_else(|_| "unknown".into(), |timestamp| format!("{timestamp:.6}")),
            interfaces,
            agent: Agent {
                packets: Packets {
                    in_rings: captured.saturating_sub(workers.packets_received),
                    received: workers.packets_received,
                    decoded: workers.packets_decoded,
                    ignored: by_fate(true),
                    lost: by_fate(false),
                },
                messages: Messages {
                    decoded: workers.messages_decoded,
                    pending: workers.messages_pending,
                    in_records: workers.messages_in_records,
                    lost: MessageLoss::ALL
                        .into_iter()
                        .map(|reason| (reason.name(), workers.messages_lost[reason as usize]))
                        .collect(),
                },
                records: Records {
                    created: workers.records_created,
                },
                sinks: sources
                    .sinks
                    .iter()
                    .map(|(name, counts)| Sink::new(name, counts))
                    .collect(),
            },
            imbalances: Vec::new(),
            balanced: false,
        };
        ledger.imbalances = ledger.check(captured, sources.ended);
        ledger.balanced = ledger.imbalances.is_empty();
        ledger
    }

    /// True if every line adds up.
    #[must_use]
    pub const fn balanced(&self) -> bool {
        self.balanced
    }

    fn check(&self, captured: u64, ended: bool) -> Vec<String> {
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
        equal(
            "rings: captured".into(),
            captured,
            packets.received + in_rings,
        );
        let accounted = packets.decoded + sum(&packets.ignored) + sum(&packets.lost);
        equal("packets: received".into(), packets.received, accounted);
        let accounted = messages.pending + messages.in_records + sum(&messages.lost);
        equal("messages: decoded".into(), messages.decoded, accounted);
        for sink in &self.agent.sinks {
            let name = &sink.name;
            let (records, carried) = (&sink.records, &sink.messages);
            equal(
                format!("sink {name}: offered records"),
                records.offered,
                records.accounted(),
            );
            equal(
                format!("sink {name}: offered messages"),
                carried.offered,
                carried.accounted(),
            );
            let created = self.agent.records.created;
            equal(
                format!("sink {name}: records offered"),
                records.offered,
                created,
            );
            equal(
                format!("sink {name}: messages offered"),
                carried.offered,
                messages.in_records,
            );
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

impl Sink {
    fn new(name: &str, counts: &SinkCounts) -> Self {
        Self {
            name: name.to_owned(),
            records: Deliveries::new(counts, |amount| amount.records),
            messages: Deliveries::new(counts, |amount| amount.messages),
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
            messages_decoded: 3,
            messages_pending: 1,
            messages_in_records: 2,
            records_created: 1,
            ..Default::default()
        };
        workers.packets_lost[PacketLoss::MalformedPacket as usize] = 1;
        let amount = Amount {
            records: 1,
            messages: 2,
        };
        let sink = SinkCounts {
            offered: amount,
            delivered: amount,
            ..Default::default()
        };
        Sources {
            node: "node-1".into(),
            taken_at_us: 0,
            ended: true,
            interfaces,
            workers,
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
        let changes: [fn(&mut Sources); 9] = [
            |s| s.interfaces[0].counters[0].counts[Counter::Seen as usize] += 1,
            |s| s.interfaces[0].counters[1].counts[Counter::Captured as usize] += 1,
            |s| s.workers.packets_received -= 1,
            |s| s.workers.packets_decoded -= 1,
            |s| s.workers.messages_decoded += 1,
            |s| s.workers.messages_pending = 0,
            |s| s.workers.records_created += 1,
            |s| s.sinks[0].1.offered.messages += 1,
            |s| s.sinks[0].1.delivered.records = 0,
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
}
