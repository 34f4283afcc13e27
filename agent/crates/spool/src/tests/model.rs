//! Compares the queue with a simple model: any order of calls, with crashes and restarts in
//! between.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::{prelude::*, test_runner::Config as Runner};

use super::*;

#[derive(Clone, Debug)]
enum Act {
    Append(u64),
    Send(usize),
    /// Reports on a record in flight that this number selects.
    Acknowledge(usize),
    Fail(usize),
    Reject(usize),
    Checkpoint,
    /// Ends the process; this number of bytes of an incomplete append are in the file.
    Crash(usize),
    Close,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (1..9u64).prop_map(Act::Append),
        4 => (1..9usize).prop_map(Act::Send),
        6 => any::<usize>().prop_map(Act::Acknowledge),
        2 => any::<usize>().prop_map(Act::Fail),
        1 => any::<usize>().prop_map(Act::Reject),
        1 => Just(Act::Checkpoint),
        1 => (0..200usize).prop_map(Act::Crash),
        1 => Just(Act::Close),
    ]
}

/// The expected behaviour of a queue, in the simplest form.
#[derive(Default)]
struct Model {
    /// Neither acknowledged nor lost, oldest first.
    held: VecDeque<u64>,
    /// Those of them that are in flight.
    sent: Vec<u64>,
    next_id: u64,
    /// Acknowledged or lost; needed to distinguish them from records that were never appended.
    done: Amount,
    lost: Amount,
    /// For all records that are not held, over all crashes: true if the record was lost.
    fates: BTreeMap<u64, bool>,
    /// In flight when their segment was dropped, or delivered after such a record: they count as
    /// lost after a crash.
    orphans: BTreeSet<u64>,
}

impl Model {
    fn take_sent(&mut self, choice: usize) -> Option<u64> {
        (!self.sent.is_empty()).then(|| self.sent.swap_remove(choice % self.sent.len()))
    }

    fn remove(&mut self, id: u64) {
        self.held.retain(|held| *held != id);
    }
}

fn run(acts: &[Act], max_bytes: u64) {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { max_bytes, ..config(directory.path()) };
    let mut model = Model::default();
    let mut spool = Spool::open(&config).unwrap();
    for act in acts {
        match *act {
            Act::Append(count) => {
                append(&mut spool, count, NOW_MS).unwrap();
                model.held.extend(model.next_id..model.next_id + count);
                model.next_id += count;
            }
            Act::Send(count) => {
                for id in send(&mut spool, count) {
                    // The oldest one that is not in flight.
                    let expected = model.held.iter().find(|held| !model.sent.contains(held));
                    assert_eq!(Some(&id), expected);
                    model.sent.push(id);
                }
            }
            Act::Acknowledge(choice) => {
                if let Some(id) = model.take_sent(choice) {
                    acknowledge(&mut spool, [id]);
                    model.remove(id);
                    model.fates.insert(id, false);
                    model.done += amount([id]);
                }
            }
            Act::Fail(choice) => {
                if let Some(id) = model.take_sent(choice) {
                    spool.fail(id);
                }
            }
            Act::Reject(choice) => {
                if let Some(id) = model.take_sent(choice) {
                    spool.reject(id);
                    model.remove(id);
                    model.fates.insert(id, true);
                    assert_eq!(spool.take_losses()[Loss::Rejected as usize], amount([id]));
                    model.lost += amount([id]);
                }
            }
            Act::Checkpoint => spool.checkpoint(false).unwrap(),
            Act::Crash(torn_bytes) => {
                drop(spool);
                drop_orphans(&mut model, directory.path());
                if let Some(last) = segments(directory.path()).last() {
                    let bytes = fs::read(last).unwrap();
                    // Bytes that resemble an entry, but are incomplete.
                    let torn = &bytes[48..][..torn_bytes.min(51)];
                    fs::write(last, [&bytes[..], torn].concat()).unwrap();
                }
                spool = Spool::open(&config).unwrap();
                reopened(&mut model, &spool, false);
            }
            Act::Close => {
                spool.close().unwrap();
                drop(spool);
                let had_orphans = drop_orphans(&mut model, directory.path());
                spool = Spool::open(&config).unwrap();
                reopened(&mut model, &spool, !had_orphans);
            }
        }
        // The oldest are dropped if there is no room; those of them in flight may still be
        // delivered.
        let losses = spool.take_losses();
        assert_eq!(losses[Loss::Unreadable as usize], Amount::default());
        let mut dropped = losses[Loss::DroppedOldest as usize];
        model.lost += dropped;
        let sent = model.sent.clone();
        let fates = &mut model.fates;
        model.held.retain(|id| {
            let goes = dropped.records > 0 && !sent.contains(id);
            if goes {
                fates.insert(*id, true);
                dropped -= amount([*id]);
            }
            !goes
        });
        assert_eq!(dropped, Amount::default());
        assert_eq!(spool.held(), amount(model.held.iter().copied()), "after {act:?}");
        assert_eq!(spool.next_id(), model.next_id);
        let mut accounted = model.done;
        accounted += model.lost;
        accounted += spool.held();
        assert_eq!(accounted, amount(0..model.next_id));
        let listed = contents(directory.path()).unwrap().list();
        let first = listed.first().map_or(model.next_id, |segment| segment.first_id);
        model.orphans.extend(model.sent.iter().filter(|id| **id < first));
        // Also those that were delivered after them: a checkpoint does not contain them.
        let oldest = model.held.front().copied().unwrap_or(model.next_id);
        let arrived = model.fates.range(oldest.min(first)..first).filter(|(_, is_lost)| !**is_lost);
        model.orphans.extend(arrived.map(|(id, _)| *id));
        require_totals(&model, &spool.totals());
    }
}

/// Over all crashes, each record is held, delivered, or lost for one reason.
fn require_totals(model: &Model, totals: &Totals) {
    assert_eq!((totals.from_id, totals.appended), (0, amount(0..model.next_id)));
    assert_eq!(totals.waiting, amount(model.held.iter().copied()));
    let counted = lost(&totals.lost).records;
    let surely = model.fates.values().filter(|lost| **lost).count() as u64;
    let perhaps = surely + model.orphans.len() as u64;
    assert!((surely..=perhaps).contains(&counted), "{surely} to {perhaps} lost: {totals:?}");
    if model.orphans.is_empty() {
        let is_lost = |id: &u64| model.fates.get(id) == Some(&true);
        assert_eq!(lost(&totals.lost), amount((0..model.next_id).filter(is_lost)));
    }
    let mut sum = totals.arrived;
    sum += totals.waiting;
    sum += lost(&totals.lost);
    assert_eq!(sum, totals.appended);
}

/// Records that were in flight when their segment was dropped end with the process: no delivery
/// report will arrive, and they cannot be sent again. A process that closes the queue regularly
/// waits for the reports first.
fn drop_orphans(model: &mut Model, directory: &Path) -> bool {
    let listed = contents(directory).unwrap().list();
    let first = listed.first().map_or(model.next_id, |segment| segment.first_id);
    let sent = std::mem::take(&mut model.sent);
    let held = model.held.len();
    model.held.retain(|id| *id >= first || !sent.contains(id));
    model.held.len() < held
}

/// Models a restart: nothing is in flight, and records that were delivered after one that was not,
/// or since the last checkpoint, are held again.
fn reopened(model: &mut Model, spool: &Spool, in_order: bool) {
    model.sent.clear();
    let first = model.next_id - spool.held().records;
    let oldest = model.held.front().copied().unwrap_or(model.next_id);
    assert!(first <= oldest, "{first} is behind {oldest}");
    if in_order {
        assert_eq!(first, oldest);
    }
    model.held = (first..model.next_id).collect();
    // Records that are held again have no fate yet; all others have one.
    model.fates.retain(|id, _| *id < first);
    for id in 0..first {
        model.fates.entry(id).or_insert_with(|| {
            assert!(model.orphans.contains(&id), "{id} is nowhere");
            true
        });
    }
    let held = amount(model.held.iter().copied());
    let mut rest = amount(0..model.next_id);
    rest -= held;
    model.done = rest;
    model.lost = Amount::default();
}

proptest! {
    #![proptest_config(Runner { cases: 100, failure_persistence: None, ..Runner::default() })]

    #[test]
    fn it_behaves_like_the_model(acts in prop::collection::vec(act(), 1..80)) {
        run(&acts, 1 << 20);
    }

    #[test]
    fn it_behaves_like_the_model_when_it_is_full(acts in prop::collection::vec(act(), 1..80)) {
        run(&acts, 2 << 10);
    }
}
