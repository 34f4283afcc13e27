//! The machine against a small reference model, in random orders of events: answers of brokers, a full
//! or fatal producer, the spool's lock, schema ids, failures of the disk, kills and shutdowns. Everything
//! but the cluster is real; the test steps the sender.
//!
//! The reference knows where every record is: written, sent, or arrived. After each step the ledger
//! must add up, and its records in flight must be those in memory.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fs,
    path::PathBuf,
    sync::{Mutex, MutexGuard},
};

use proptest::{prelude::*, test_runner::Config as Runner};
use tap53_base::amount::Amount;
use tap53_records::encode::{Record, fingerprint};
use tap53_spool::Spool;

use super::*;
use crate::{
    kafka::{
        backlog::Backlog,
        context::Report,
        events::Outcome,
        origin::Origin,
        producer::{Message, Refusal, Transport},
    },
    registry::SchemaIds,
};

/// A message that the cluster has accepted and not answered.
struct Sent {
    origin: Origin,
    number: u64,
    timestamp_ms: i64,
    value: Vec<u8>,
}

#[derive(Default)]
struct Hands {
    capacity: usize,
    refuses: bool,
    is_fatal: bool,
    sent: VecDeque<Sent>,
    arrived: Vec<u64>,
    /// Numbers of all records, by their bytes.
    numbers: HashMap<Vec<u8>, u64>,
    /// True if something failed, so that records may be out of order.
    has_failed: bool,
    /// True if something arrived without an acknowledgement, so that it may arrive twice.
    is_unsure: bool,
}

/// Replaces the producer and the cluster: it accepts messages, and answers on demand.
struct Cluster {
    context: Arc<SinkContext>,
    hands: Mutex<Hands>,
}

impl Cluster {
    fn hands(&self) -> MutexGuard<'_, Hands> {
        self.hands.lock().unwrap()
    }

    /// Answers the oldest `count` messages.
    fn answer(&self, count: usize, outcome: Outcome, has_arrived: bool) {
        for _ in 0..count {
            let mut hands = self.hands();
            let Some(sent) = hands.sent.pop_front() else { return };
            if has_arrived {
                hands.arrived.push(sent.number);
            }
            hands.has_failed |= outcome != Outcome::Delivered;
            hands.is_unsure |= has_arrived && outcome != Outcome::Delivered;
            // Not with the lock, like librdkafka.
            drop(hands);
            let Sent { origin, timestamp_ms, value, .. } = sent;
            let loss = match outcome {
                Outcome::Rejected | Outcome::TooLarge => SinkLoss::Rejected,
                _ => SinkLoss::Expired,
            };
            let message = Message { timestamp_ms, key: b"", value: &value };
            self.context.report(&Report { origin, outcome, error: None, loss, message });
        }
    }

    fn answer_all(&self, outcome: Outcome, has_arrived: bool) {
        let count = self.hands().sent.len();
        self.answer(count, outcome, has_arrived);
    }
}

impl Transport for Cluster {
    type Handle = ();

    fn current(&self) {}

    fn send(
        &self,
        (): &(),
        origin: Origin,
        _schema_version: u32,
        message: &Message<'_>,
    ) -> Result<(), Refusal> {
        if !self.context.is_schema_known() {
            return Err(Refusal::NoId);
        }
        let mut hands = self.hands();
        if hands.refuses || hands.is_fatal {
            hands.has_failed = true;
            return Err(Refusal::NotNow);
        }
        if hands.sent.len() >= hands.capacity {
            return Err(Refusal::QueueFull);
        }
        let value = message.value.to_vec();
        let number = *hands.numbers.get(&value).expect("nothing arrives that was not written");
        let timestamp_ms = message.timestamp_ms;
        hands.sent.push_back(Sent { origin, number, timestamp_ms, value });
        Ok(())
    }

    fn purge(&self) {
        self.answer_all(Outcome::Failed, false);
    }

    fn rebuild_if_fatal(&self) -> bool {
        let is_fatal = std::mem::take(&mut self.hands().is_fatal);
        if is_fatal {
            self.answer_all(Outcome::Failed, false);
        }
        is_fatal
    }
}

#[derive(Clone, Debug)]
enum Act {
    Write(u64),
    /// The oldest messages get this answer.
    Answer(usize, Outcome),
    /// They arrive, and their acknowledgements are lost.
    LoseAcknowledgement(usize),
    /// The sender makes a step after this many milliseconds.
    Step(u64),
    Capacity(usize),
    /// The producer accepts nothing for a while.
    Refuse(bool),
    Fatal,
    /// The other agent ends.
    Unlock,
    LearnId,
    DiskFails,
    DiskRecovers,
    Kill,
    Shutdown,
}

fn act() -> impl Strategy<Value = Act> {
    let failure = prop_oneof![
        3 => Just(Outcome::Failed),
        1 => Just(Outcome::Innocent),
        1 => Just(Outcome::TooLarge),
        1 => Just(Outcome::Rejected),
    ];
    prop_oneof![
        12 => (1..20u64).prop_map(Act::Write),
        10 => (1..40usize).prop_map(|count| Act::Answer(count, Outcome::Delivered)),
        3 => ((1..20usize), failure).prop_map(|(count, outcome)| Act::Answer(count, outcome)),
        1 => (1..8usize).prop_map(Act::LoseAcknowledgement),
        14 => prop_oneof![Just(0), 1..200u64, 200..6_000u64].prop_map(Act::Step),
        2 => prop_oneof![Just(0), 1..60usize, Just(100_000)].prop_map(Act::Capacity),
        1 => any::<bool>().prop_map(Act::Refuse),
        1 => Just(Act::Fatal),
        1 => Just(Act::Unlock),
        2 => Just(Act::LearnId),
        1 => Just(Act::DiskFails),
        2 => Just(Act::DiskRecovers),
        1 => Just(Act::Kill),
        1 => Just(Act::Shutdown),
    ]
}

/// An act that makes nothing fail; all together take less time than a stall.
fn quiet_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        10 => (1..20u64).prop_map(Act::Write),
        6 => (1..40usize).prop_map(|count| Act::Answer(count, Outcome::Delivered)),
        10 => (0..60u64).prop_map(Act::Step),
        4 => prop_oneof![Just(0), 1..60usize].prop_map(Act::Capacity),
        1 => Just(Act::Unlock),
        1 => Just(Act::LearnId),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Setup {
    mode: Option<SpoolMode>,
    has_registry: bool,
    is_locked: bool,
    queue_bytes: u64,
}

fn setup() -> impl Strategy<Value = Setup> {
    let mode = prop_oneof![
        3 => Just(Some(SpoolMode::Fast)),
        3 => Just(Some(SpoolMode::Durable)),
        1 => Just(None),
    ];
    (mode, any::<bool>(), any::<bool>()).prop_map(|(mode, has_registry, is_locked)| Setup {
        mode,
        has_registry,
        is_locked: is_locked && mode.is_some(),
        queue_bytes: 60_000,
    })
}

/// The part of a process that belongs to the sink.
struct Process {
    delivery: Arc<Delivery<Cluster>>,
    sender: Sender<Cluster>,
}

struct Machine {
    setup: Setup,
    directory: tempfile::TempDir,
    /// The other agent's.
    other: Option<Spool>,
    process: Process,
    now: Instant,
    written: u64,
    window: i64,
    /// Counts of processes that have ended: records lost, and records in memory when they were
    /// killed.
    lost: u64,
    killed: u64,
    has_disk_failed: bool,
}

fn total_lost(counts: &SinkCounts) -> u64 {
    counts.lost.iter().map(|lost| lost.records).sum()
}

impl Machine {
    fn new(setup: Setup) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = Self::config(setup, directory.path());
        let other = setup.is_locked.then(|| {
            let spool = config.spool.as_ref().unwrap();
            Spool::open(&spool.of_records()).unwrap()
        });
        let now = Instant::now();
        let process = Self::start(setup, &config, now, Hands { capacity: 50, ..Hands::default() });
        Self {
            setup,
            directory,
            other,
            process,
            now,
            written: 0,
            window: 0,
            lost: 0,
            killed: 0,
            has_disk_failed: false,
        }
    }

    fn config(setup: Setup, directory: &Path) -> KafkaConfig {
        let spool = setup.mode.and_then(|mode| spool(&directory.join("spool"), mode));
        KafkaConfig {
            message_timeout: Duration::from_secs(2),
            queue_bytes: setup.queue_bytes,
            spool,
            ..KafkaConfig::to("none:1", "dns")
        }
    }

    fn start(setup: Setup, config: &KafkaConfig, now: Instant, hands: Hands) -> Process {
        let ids = setup.has_registry.then(|| {
            let newest = fingerprint().unwrap();
            Arc::new(SchemaIds::new(newest, std::iter::once((newest, None))))
        });
        let context = Arc::new(SinkContext::new(config, Published::default(), ids, false));
        let cluster = Arc::new(Cluster { context: context.clone(), hands: Mutex::new(hands) });
        // An exhausted budget: waits would be in vain, since the cluster answers only on demand.
        let budget = WaitBudget::default();
        budget.end(now, now + Duration::from_secs(3_600));
        let delivery = Arc::new(Delivery::new(config, &context, &cluster, &[], Some(budget)));
        match delivery.acquire_spool() {
            Ok(()) | Err(spool::Error::Locked(_)) => {}
            Err(error) => panic!("{error}"),
        }
        let sender = Sender::new(delivery.clone(), None, now);
        Process { delivery, sender }
    }

    fn cluster(&self) -> &Cluster {
        &self.process.delivery.producer
    }

    fn context(&self) -> &SinkContext {
        &self.process.delivery.context
    }

    fn apply(&mut self, act: &Act) {
        match *act {
            Act::Write(records) => self.write(records),
            Act::Answer(count, outcome) => {
                self.cluster().answer(count, outcome, outcome == Outcome::Delivered);
            }
            Act::LoseAcknowledgement(count) => self.cluster().answer(count, Outcome::Failed, true),
            Act::Step(ms) => {
                self.now += Duration::from_millis(ms);
                self.step(false);
            }
            Act::Capacity(capacity) => self.cluster().hands().capacity = capacity,
            Act::Refuse(refuses) => self.cluster().hands().refuses = refuses,
            Act::Fatal => self.cluster().hands().is_fatal = self.setup.mode.is_some(),
            Act::Unlock => self.other = None,
            Act::LearnId => self.learn_id(),
            Act::DiskFails => self.fail_disk(),
            Act::DiskRecovers => self.recover_disk(),
            Act::Kill => {
                self.recover_disk();
                self.killed += self.in_memory();
                self.cluster().hands().is_unsure = true;
                self.restart();
            }
            Act::Shutdown => {
                self.recover_disk();
                self.step(true);
                self.context().accounts.write_off();
                self.check();
                assert_eq!(self.in_flight(), 0);
                // The checkpoint has the oldest unacknowledged record: those after it are sent again.
                let mut hands = self.cluster().hands();
                hands.is_unsure |= hands.has_failed;
                drop(hands);
                self.restart();
            }
        }
        self.check();
    }

    fn write(&mut self, records: u64) {
        let (mut batch, mut encoder) = (Batch::default(), SingleObject::new().unwrap());
        for _ in 0..records {
            self.written += 1;
            samples::with_record(samples::NAMES[0], |record| {
                let record = Record { number: self.written, ..*record };
                batch.push(&mut encoder, &record).unwrap();
            });
            let value = batch.iter().last().unwrap().0.to_vec();
            self.cluster().hands().numbers.insert(value, self.written);
        }
        batch.set_slot(self.context().accounts.windows.enter(records));
        let amount = Amount { records, messages: batch.messages() };
        self.context().counts().update(|counts| counts.in_batches += amount);
        self.process.delivery.write(&batch);
        assert_eq!(self.context().counts().read().in_batches, Amount::default());
    }

    fn step(&mut self, stop: bool) {
        let mut events = self.context().events.take(Duration::ZERO);
        events.stop = stop;
        let _ = self.process.sender.step(events, self.now);
    }

    fn learn_id(&self) {
        if let Some(ids) = &self.context().schema_ids {
            ids.set(fingerprint().unwrap(), 7);
        }
    }

    fn spool_paths(&self) -> (PathBuf, PathBuf) {
        (self.directory.path().join("spool"), self.directory.path().join("gone"))
    }

    /// The spool's directory is gone, and nothing more can be written to the open file.
    fn fail_disk(&mut self) {
        let (there, gone) = self.spool_paths();
        if there.exists() && self.process.delivery.router.has_spool() {
            if let Backlog::Disk(spool) = &mut *self.process.delivery.lock() {
                spool.seal_active();
            }
            fs::rename(there, gone).unwrap();
            self.has_disk_failed = true;
        }
    }

    fn recover_disk(&self) {
        let (there, gone) = self.spool_paths();
        if gone.exists() {
            fs::rename(gone, there).unwrap();
        }
    }

    /// With a spool, no temporary failure loses records.
    fn check_reasons(&self) {
        let counts = self.context().counts().read();
        if self.setup.mode.is_some() {
            let ruled_out = [SinkLoss::Expired, SinkLoss::QueueFull, SinkLoss::NoSchemaId];
            let kept = self.process.delivery.router.has_spool() && !self.has_disk_failed;
            let unflushed = Some(SinkLoss::Unflushed).filter(|_| kept);
            for reason in ruled_out.into_iter().chain(unflushed) {
                assert_eq!(counts.lost[reason as usize].records, 0, "{counts:?}");
            }
        }
    }

    /// The process ends without a shutdown, and another one starts.
    fn restart(&mut self) {
        self.check_reasons();
        let config = Self::config(self.setup, self.directory.path());
        self.lost += total_lost(&self.context().counts().read());
        let hands = std::mem::take(&mut *self.cluster().hands());
        let has_failed = hands.has_failed || !hands.sent.is_empty();
        let hands = Hands { sent: VecDeque::new(), has_failed, ..hands };
        // The old process locks the spool until it is dropped.
        let other = Self::config(Setup { mode: None, ..self.setup }, self.directory.path());
        self.process = Self::start(self.setup, &other, self.now, Hands::default());
        self.process = Self::start(self.setup, &config, self.now, hands);
    }

    fn in_flight(&self) -> u64 {
        self.context().counts().read().in_flight.records
    }

    /// Returns the records that are in memory alone, by the reference.
    fn in_memory(&self) -> u64 {
        let hands = self.cluster().hands();
        let is_memory = |sent: &&Sent| matches!(sent.origin, Origin::Memory { .. });
        let in_cluster = hands.sent.iter().filter(is_memory).count();
        let waiting = match &*self.process.delivery.lock() {
            Backlog::Memory(buffer) => buffer.len(),
            Backlog::Disk(_) => 0,
        };
        let events = self.context().events.take(Duration::ZERO);
        let returned = events.failed.len();
        self.context().events.put(|put| *put = events);
        (in_cluster + waiting + returned) as u64
    }

    fn check(&mut self) {
        let counts = self.context().counts().read();
        require_balance(&counts);
        let is_written_off = counts.in_flight.records == 0 && self.in_memory() > 0;
        assert!(is_written_off || counts.in_flight.records == self.in_memory(), "{counts:?}");
        let route = self.process.delivery.router.state();
        if let Backlog::Disk(spool) = &*self.process.delivery.lock() {
            assert_eq!(counts.spooled, spool.held());
        }
        assert!(self.setup.mode.is_some() || counts.spooled == Amount::default(), "{route:?}");
        // A window with records in memory is not settled.
        self.window += 1;
        let settled = self.context().accounts.windows.begin_window(self.window, u64::MAX);
        let is_settled = settled == Some(self.window - 1);
        assert_eq!(is_settled, counts.in_flight.records == 0, "{settled:?}, {counts:?}");
    }

    /// Ends all failures, after which every record must be delivered or counted.
    fn finish(&mut self) {
        self.other = None;
        self.recover_disk();
        self.learn_id();
        self.cluster().hands().capacity = usize::MAX;
        self.cluster().hands().refuses = false;
        for round in 0.. {
            self.now += Duration::from_secs(1);
            self.step(false);
            self.cluster().answer_all(Outcome::Delivered, true);
            self.check();
            let counts = self.context().counts().read();
            if counts.in_flight.records + counts.spooled.records == 0 {
                break;
            }
            assert!(round < 10_000, "it does not end: {counts:?}");
        }
        self.check_reasons();
        let hands = self.cluster().hands();
        let mut times: BTreeMap<u64, u64> = BTreeMap::new();
        hands.arrived.iter().for_each(|number| *times.entry(*number).or_default() += 1);
        let lost = self.lost + total_lost(&self.context().counts().read());
        let missing = self.written - times.len() as u64;
        assert!(
            missing <= lost + self.killed,
            "{missing} of {} missing, {lost} lost",
            self.written
        );
        if !hands.is_unsure {
            assert!(times.values().all(|times| *times == 1), "{times:?}");
            if !self.has_disk_failed {
                assert_eq!(missing, lost);
            }
        }
        if !hands.has_failed && !self.has_disk_failed {
            let mut seen = BTreeSet::new();
            let first: Vec<_> =
                hands.arrived.iter().filter(|number| seen.insert(**number)).collect();
            assert!(first.is_sorted(), "{first:?}");
        }
    }
}

proptest! {
    #![proptest_config(Runner { cases: 32, ..Runner::default() })]

    #[test]
    fn every_record_is_delivered_waits_or_is_counted_whatever_happens(
        setup in setup(),
        acts in prop::collection::vec(act(), 1..80),
    ) {
        let mut machine = Machine::new(setup);
        for act in &acts {
            machine.apply(act);
        }
        machine.finish();
    }

    /// A kill loses no record that was accepted in mode durable.
    #[test]
    fn a_kill_in_mode_durable_costs_nothing(
        acts in prop::collection::vec(act(), 1..80),
    ) {
        let mut machine = Machine::new(Setup {
            mode: Some(SpoolMode::Durable),
            has_registry: false,
            is_locked: false,
            queue_bytes: 60_000,
        });
        for act in acts.iter().filter(|act| !matches!(act, Act::DiskFails)) {
            machine.apply(act);
            assert_eq!(machine.in_memory(), 0, "all is on disk once it is accepted");
        }
        machine.finish();
        assert_eq!(machine.killed, 0);
    }

    /// New records never overtake those that wait, wherever that is.
    #[test]
    fn where_nothing_fails_records_keep_their_order(
        setup in setup(),
        acts in prop::collection::vec(quiet_act(), 1..80),
    ) {
        // There is room for everything that waits.
        let mut machine = Machine::new(Setup { queue_bytes: 16 << 20, ..setup });
        for act in &acts {
            machine.apply(act);
        }
        assert!(!machine.cluster().hands().has_failed);
        machine.finish();
    }
}
