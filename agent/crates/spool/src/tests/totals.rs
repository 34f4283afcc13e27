//! Totals of all records that ever were in the queue, over processes that were killed.

use super::*;

fn reopen(spool: Spool, config: &Config) -> Spool {
    // Like a kill: nothing is closed.
    drop(spool);
    Spool::open(config).unwrap()
}

fn of(totals: &Totals, reason: Loss) -> Amount {
    totals.lost[reason as usize]
}

#[test]
fn drops_of_a_killed_process_are_counted_by_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let mut spool = Spool::open(&config).unwrap();
    for _ in 0..100 {
        append(&mut spool, 5, NOW_MS).unwrap();
    }
    let dropped = spool.take_losses()[Loss::DroppedOldest as usize];
    assert!(dropped.records > 200);
    for _ in 0..3 {
        spool = reopen(spool, &config);
        assert_eq!(spool.take_losses(), Losses::default(), "another process lost them");
        let totals = spool.totals();
        assert_eq!(of(&totals, Loss::DroppedOldest), dropped);
        assert_eq!((totals.appended, totals.arrived), (amount(0..500), Amount::default()));
        assert_eq!(contents(directory.path()).unwrap().totals(), totals);
    }
    // Delivered records are no loss of the next process.
    let sent = send(&mut spool, 7);
    acknowledge(&mut spool, sent.iter().copied());
    spool.checkpoint(false).unwrap();
    spool = reopen(spool, &config);
    assert_eq!(spool.totals().arrived, amount(sent));
    assert_eq!(lost(&spool.totals().lost), dropped);
}

#[test]
fn a_loss_after_a_pending_record_is_counted_once() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let mut spool = Spool::open(&config).unwrap();
    append(&mut spool, 10, NOW_MS).unwrap();
    send(&mut spool, 4);
    spool.reject(2);
    acknowledge(&mut spool, [3]);
    assert_eq!(of(&spool.totals(), Loss::Rejected), amount([2]));
    spool.checkpoint(false).unwrap();
    // 0 and 1 were in flight: they and all later ones are sent again, and 2 is rejected again.
    spool = reopen(spool, &config);
    assert_eq!(spool.held(), amount(0..10));
    assert_eq!(lost(&spool.totals().lost), Amount::default());
    send(&mut spool, 4);
    spool.reject(2);
    acknowledge(&mut spool, [0, 1, 3]);
    spool.checkpoint(false).unwrap();
    spool = reopen(spool, &config);
    assert_eq!(of(&spool.totals(), Loss::Rejected), amount([2]));
    assert_eq!(spool.totals().arrived, amount([0, 1, 3]));
    assert_eq!(spool.held(), amount(4..10));
}

#[test]
fn a_checkpoint_without_a_history_begins_one_and_an_older_program_reads_one_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let mut spool = Spool::open(&config).unwrap();
    append(&mut spool, 10, NOW_MS).unwrap();
    send(&mut spool, 6);
    acknowledge(&mut spool, 0..6);
    spool.close().unwrap();
    drop(spool);
    let path = directory.path().join("acknowledged");
    let bytes = fs::read(&path).unwrap();
    // The first part equals version 1, including its checksum and length.
    assert_eq!((bytes.len(), &bytes[8..12]), (144, &[1, 0, 48, 0][..]));
    for damaged in [&bytes[..48], &bytes[..143]] {
        fs::write(&path, damaged).unwrap();
        let spool = Spool::open(&config).unwrap();
        assert_eq!(spool.held(), amount(6..10));
        let totals = spool.totals();
        assert_eq!((totals.from_id, totals.appended), (6, amount(6..10)));
    }
    for at in 48..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        fs::write(&path, damaged).unwrap();
        let spool = Spool::open(&config).unwrap();
        assert_eq!(spool.held(), amount(6..10), "byte {at}");
        assert_eq!(spool.totals().from_id, 6, "byte {at}");
    }
}
