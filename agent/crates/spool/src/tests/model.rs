//! Against a naive queue: any order of calls, with crashes and restarts between.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::{prelude::*, test_runner::Config as Runner};

use super::*;

#[derive(Clone, Debug)]
enum Act {
    Append(u64),
    Send(usize),
    /// Reports on a record that is in flight, chosen by this number.
    Acknowledge(usize),
    Fail(usize),
    Reject(usize),
    Checkpoint,
    /// The process ends here; so many bytes of an append that had not returned are in the file.
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

/// What a queue should do, in the simplest way.
#[derive(Default)]
struct Naive {
    /// Neither acknowledged nor lost, oldest first.
    held: VecDeque<u64>,
    /// Of those, what is in flight.
    sent: Vec<u64>,
    next_id: u64,
    /// Acknowledged, lost: to be told from records that never were.
    done: Amount,
    lost: Amount,
    /// Of all that is not held, over all crashes: whether it was lost.
    fates: BTreeMap<u64, bool>,
    /// On their way when their segment was dropped, or arrived behind one that was: a crash makes
    /// lost ones of them.
    orphans: BTreeSet<u64>,
}

impl Naive {
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
    let mut naive = Naive::default();
    let mut spool = Spool::open(&config).unwrap();
    for act in acts {
        match *act {
            Act::Append(count) => {
                append(&mut spool, count, NOW_MS).unwrap();
                naive.held.extend(naive.next_id..naive.next_id + count);
                naive.next_id += count;
            }
            Act::Send(count) => {
                for id in send(&mut spool, count) {
                    // The oldest one that is not in flight.
                    let expected = naive.held.iter().find(|held| !naive.sent.contains(held));
                    assert_eq!(Some(&id), expected);
                    naive.sent.push(id);
                }
            }
            Act::Acknowledge(choice) => {
                if let Some(id) = naive.take_sent(choice) {
                    acknowledge(&mut spool, [id]);
                    naive.remove(id);
                    naive.fates.insert(id, false);
                    naive.done += amount([id]);
                }
            }
            Act::Fail(choice) => {
                if let Some(id) = naive.take_sent(choice) {
                    spool.fail(id);
                }
            }
            Act::Reject(choice) => {
                if let Some(id) = naive.take_sent(choice) {
                    spool.reject(id);
                    naive.remove(id);
                    naive.fates.insert(id, true);
                    assert_eq!(spool.take_losses()[Loss::Rejected as usize], amount([id]));
                    naive.lost += amount([id]);
                }
            }
            Act::Checkpoint => spool.checkpoint(false).unwrap(),
            Act::Crash(torn_bytes) => {
                drop(spool);
                forget_orphans(&mut naive, directory.path());
                if let Some(last) = segments(directory.path()).last() {
                    let bytes = fs::read(last).unwrap();
                    // Something that looks like an entry, and is not whole.
                    let torn = &bytes[48..][..torn_bytes.min(51)];
                    fs::write(last, [&bytes[..], torn].concat()).unwrap();
                }
                spool = Spool::open(&config).unwrap();
                reopened(&mut naive, &spool, false);
            }
            Act::Close => {
                spool.close().unwrap();
                drop(spool);
                let had_orphans = forget_orphans(&mut naive, directory.path());
                spool = Spool::open(&config).unwrap();
                reopened(&mut naive, &spool, !had_orphans);
            }
        }
        // The oldest go where there is no room; and of those, what is in flight may yet arrive.
        let losses = spool.take_losses();
        assert_eq!(losses[Loss::Unreadable as usize], Amount::default());
        let mut dropped = losses[Loss::DroppedOldest as usize];
        naive.lost += dropped;
        let sent = naive.sent.clone();
        let fates = &mut naive.fates;
        naive.held.retain(|id| {
            let goes = dropped.records > 0 && !sent.contains(id);
            if goes {
                fates.insert(*id, true);
                dropped -= amount([*id]);
            }
            !goes
        });
        assert_eq!(dropped, Amount::default());
        assert_eq!(spool.held(), amount(naive.held.iter().copied()), "after {act:?}");
        assert_eq!(spool.next_id(), naive.next_id);
        let mut accounted = naive.done;
        accounted += naive.lost;
        accounted += spool.held();
        assert_eq!(accounted, amount(0..naive.next_id));
        let listed = contents(directory.path()).unwrap().list();
        let first = listed.first().map_or(naive.next_id, |segment| segment.first_id);
        naive.orphans.extend(naive.sent.iter().filter(|id| **id < first));
        // And what arrived behind those: a checkpoint says nothing of it.
        let oldest = naive.held.front().copied().unwrap_or(naive.next_id);
        let arrived = naive.fates.range(oldest.min(first)..first).filter(|(_, is_lost)| !**is_lost);
        naive.orphans.extend(arrived.map(|(id, _)| *id));
        require_totals(&naive, &spool.totals());
    }
}

/// Over all crashes, each record is held, has arrived, or is lost for one reason.
fn require_totals(naive: &Naive, totals: &Totals) {
    assert_eq!((totals.from_id, totals.appended), (0, amount(0..naive.next_id)));
    assert_eq!(totals.waiting, amount(naive.held.iter().copied()));
    let counted = lost(&totals.lost).records;
    let surely = naive.fates.values().filter(|lost| **lost).count() as u64;
    let perhaps = surely + naive.orphans.len() as u64;
    assert!((surely..=perhaps).contains(&counted), "{surely} to {perhaps} lost: {totals:?}");
    if naive.orphans.is_empty() {
        let is_lost = |id: &u64| naive.fates.get(id) == Some(&true);
        assert_eq!(lost(&totals.lost), amount((0..naive.next_id).filter(is_lost)));
    }
    let mut sum = totals.arrived;
    sum += totals.waiting;
    sum += lost(&totals.lost);
    assert_eq!(sum, totals.appended);
}

/// What was in flight when its segment was dropped ends with the process: a report that it arrived
/// will not come any more, and it is not there to be sent again. Whoever closes the queue in good
/// order waits for the reports first.
fn forget_orphans(naive: &mut Naive, directory: &Path) -> bool {
    let listed = contents(directory).unwrap().list();
    let first = listed.first().map_or(naive.next_id, |segment| segment.first_id);
    let sent = std::mem::take(&mut naive.sent);
    let held = naive.held.len();
    naive.held.retain(|id| *id >= first || !sent.contains(id));
    naive.held.len() < held
}

/// A restart: nothing is in flight, and what arrived behind something that did not, or since the
/// last checkpoint, is held again.
fn reopened(naive: &mut Naive, spool: &Spool, in_order: bool) {
    naive.sent.clear();
    let first = naive.next_id - spool.held().records;
    let oldest = naive.held.front().copied().unwrap_or(naive.next_id);
    assert!(first <= oldest, "{first} is behind {oldest}");
    if in_order {
        assert_eq!(first, oldest);
    }
    naive.held = (first..naive.next_id).collect();
    // What is held again has no fate yet, and what is not held has one.
    naive.fates.retain(|id, _| *id < first);
    for id in 0..first {
        naive.fates.entry(id).or_insert_with(|| {
            assert!(naive.orphans.contains(&id), "{id} is nowhere");
            true
        });
    }
    let held = amount(naive.held.iter().copied());
    let mut rest = amount(0..naive.next_id);
    rest -= held;
    naive.done = rest;
    naive.lost = Amount::default();
}

proptest! {
    #![proptest_config(Runner { cases: 100, failure_persistence: None, ..Runner::default() })]

    #[test]
    fn it_does_what_a_naive_queue_does(acts in prop::collection::vec(act(), 1..80)) {
        run(&acts, 1 << 20);
    }

    #[test]
    fn it_does_so_when_it_is_full(acts in prop::collection::vec(act(), 1..80)) {
        run(&acts, 2 << 10);
    }
}
