//! Records are sent in order, and stay until they are acknowledged.

use super::*;

#[test]
fn records_are_sent_in_order_over_segments() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(&config(directory.path())).unwrap();
    for _ in 0..10 {
        append(&mut spool, 5, NOW_MS).unwrap();
    }
    assert!(segments(directory.path()).len() > 3);
    assert_eq!(spool.held(), amount(0..50));
    assert_eq!(send(&mut spool, 100), (0..50).collect::<Vec<_>>());
    assert!(spool.is_read() && spool.held() == amount(0..50), "read is not arrived");
    acknowledge(&mut spool, 0..50);
    assert_eq!(spool.held(), Amount::default());
    assert_eq!(segments(directory.path()).len(), 1, "whole segments go, the last one stays");
    append(&mut spool, 1, NOW_MS).unwrap();
    assert_eq!(send(&mut spool, 2), [50]);
}

#[test]
fn unacknowledged_records_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let mut spool = Spool::open(&config).unwrap();
    append(&mut spool, 30, NOW_MS).unwrap();
    send(&mut spool, 20);
    // Reports may arrive out of order: 12 is still in flight.
    acknowledge(&mut spool, (0..20).filter(|id| *id != 12));
    spool.checkpoint(false).unwrap();
    drop(spool);
    let mut spool = Spool::open(&config).unwrap();
    assert_eq!(spool.held(), amount(12..30));
    assert_eq!(send(&mut spool, 100), (12..30).collect::<Vec<_>>());
    acknowledge(&mut spool, 12..30);
    spool.close().unwrap();
    drop(spool);
    assert_eq!(segments(directory.path()).len(), 0);
    let mut spool = Spool::open(&config).unwrap();
    assert_eq!((spool.next_id(), spool.held()), (30, Amount::default()));
    assert!(spool.peek().is_none());
}

#[test]
fn after_a_failure_nothing_younger_goes_before_it_is_sent_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(&config(directory.path())).unwrap();
    append(&mut spool, 20, NOW_MS).unwrap();
    assert_eq!(send(&mut spool, 8).len(), 8);
    spool.acknowledge(1);
    for id in [3, 5, 6] {
        spool.fail(id);
    }
    assert!(spool.peek().is_none(), "0, 2, 4 and 7 are in flight");
    acknowledge(&mut spool, [0, 2, 4]);
    assert!(spool.peek().is_none());
    spool.fail(7);
    assert_eq!(send(&mut spool, 2), [3, 5]);
    // Another failure: again no younger record is sent before it.
    spool.fail(3);
    assert!(spool.peek().is_none(), "5 is in flight");
    acknowledge(&mut spool, [5]);
    assert_eq!(send(&mut spool, 3), [3, 6, 7]);
    acknowledge(&mut spool, [6, 7]);
    assert_eq!(send(&mut spool, 100), (8..20).collect::<Vec<_>>());
    assert!(spool.acknowledge(7).is_none() && spool.acknowledge(99).is_none());
    assert_eq!(spool.held(), amount([3].into_iter().chain(8..20)));
}

#[test]
fn undeliverable_records_do_not_block_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(&config(directory.path())).unwrap();
    append(&mut spool, 3, NOW_MS).unwrap();
    assert_eq!(send(&mut spool, 1), [0]);
    spool.reject(0);
    assert_eq!(spool.take_losses()[Loss::Rejected as usize], amount([0]));
    assert_eq!(send(&mut spool, 3), [1, 2]);
    acknowledge(&mut spool, [1, 2]);
    assert_eq!(spool.held(), Amount::default());
}

#[test]
fn a_second_writer_is_refused_and_a_reader_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(&config(directory.path())).unwrap();
    append(&mut spool, 3, NOW_MS).unwrap();
    let second = Spool::open(&config(directory.path()));
    assert!(matches!(second, Err(Error::Locked(_))));
    let contents = contents(directory.path()).unwrap();
    assert_eq!(contents.waiting(), amount(0..3));
    drop(spool);
    Spool::open(&config(directory.path())).unwrap();
}

#[test]
fn files_are_readable_only_by_the_owner() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new/spool");
    let mut spool = Spool::open(&config(&path)).unwrap();
    append(&mut spool, 3, NOW_MS).unwrap();
    spool.checkpoint(false).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for entry in fs::read_dir(&path).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
}
