//! Limits on size and age.

use std::time::Duration;

use super::*;

#[test]
fn a_full_queue_drops_its_oldest_and_counts_them() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let mut spool = Spool::open(&config).unwrap();
    for _ in 0..100 {
        append(&mut spool, 5, NOW_MS).unwrap();
        assert!(spool.bytes() <= config.max_bytes);
    }
    let dropped = spool.take_losses()[Loss::DroppedOldest as usize];
    assert!(dropped.records > 200);
    assert_eq!(dropped, amount(0..dropped.records));
    assert_eq!(spool.held(), amount(dropped.records..500));
    assert_eq!(send(&mut spool, 500), (dropped.records..500).collect::<Vec<_>>());
}

#[test]
fn records_in_flight_may_be_delivered_after_their_segment_was_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(&config(directory.path())).unwrap();
    append(&mut spool, 10, NOW_MS).unwrap();
    assert_eq!(send(&mut spool, 4), [0, 1, 2, 3]);
    spool.fail(1);
    while segments(directory.path())[0].to_string_lossy().contains("/0000000000000000-") {
        append(&mut spool, 5, NOW_MS).unwrap();
    }
    let dropped = spool.take_losses()[Loss::DroppedOldest as usize];
    // Record 9 was the last one of its segment.
    assert_eq!(dropped, amount([1].into_iter().chain(4..10)));
    assert_eq!(spool.acknowledge(0), Some(amount([0])));
    spool.fail(2);
    assert_eq!(spool.take_losses()[Loss::DroppedOldest as usize], amount([2]));
    assert_eq!(spool.acknowledge(3), Some(amount([3])));
    assert_eq!(spool.held(), amount(10..spool.next_id()));
    assert_eq!(send(&mut spool, 1), [10]);
}

#[test]
fn a_segment_that_is_gone_is_not_kept_open_until_it_would_be_forced_to_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { fsync: Fsync::Interval(Duration::MAX), ..config(directory.path()) };
    let mut spool = Spool::open(&config).unwrap();
    for _ in 0..20 {
        append(&mut spool, 10, NOW_MS).unwrap();
        let ids = send(&mut spool, 10);
        acknowledge(&mut spool, ids);
    }
    let open = fs::read_dir("/proc/self/fd").unwrap();
    let open = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    let gone = open.filter(|path| {
        path.starts_with(directory.path()) && path.to_string_lossy().ends_with(" (deleted)")
    });
    assert_eq!(gone.collect::<Vec<_>>(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn records_beyond_the_maximum_age_are_dropped_by_segment() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { max_age: Some(Duration::from_secs(80)), ..config(directory.path()) };
    let mut spool = Spool::open(&config).unwrap();
    for second in 0..60 {
        append(&mut spool, 1, NOW_MS + second * 1_000).unwrap();
    }
    assert_eq!(segments(directory.path()).len(), 6, "an eighth of the age each");
    // Ages are also known to a process that did not write the segments.
    drop(spool);
    let mut spool = Spool::open(&config).unwrap();
    spool.drop_old(NOW_MS + 80_000);
    assert_eq!(spool.held(), amount(0..60));
    // The last record of the first segment was appended at 9 s.
    spool.drop_old(NOW_MS + 90_001);
    assert_eq!(spool.take_losses()[Loss::TooOld as usize], amount(0..10));
    spool.drop_old(NOW_MS + 500_000);
    assert_eq!(spool.take_losses()[Loss::TooOld as usize], amount(10..60));
    assert_eq!(spool.held(), Amount::default());
    append(&mut spool, 1, NOW_MS + 500_000).unwrap();
    assert_eq!(send(&mut spool, 2), [60]);
}

#[test]
fn a_failed_record_of_a_dropped_segment_is_lost_for_that_reason() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { max_age: Some(Duration::from_secs(80)), ..config(directory.path()) };
    let mut spool = Spool::open(&config).unwrap();
    append(&mut spool, 3, NOW_MS).unwrap();
    assert_eq!(send(&mut spool, 2), [0, 1]);
    spool.drop_old(NOW_MS + 500_000);
    assert_eq!(spool.take_losses()[Loss::TooOld as usize], amount([2]));
    acknowledge(&mut spool, [0]);
    spool.fail(1);
    assert_eq!(spool.take_losses()[Loss::TooOld as usize], amount([1]));
    assert_eq!(spool.held(), Amount::default());
}

#[test]
fn a_record_that_is_too_long_for_an_entry_is_refused_with_its_batch() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(&config(directory.path())).unwrap();
    let long = vec![0; segment::MAX_ENTRY_BYTES + 1];
    let record = |value| Record { timestamp_ms: 0, messages: 1, key: b"", value };
    let records = [record(&b"short"[..]), record(&long)];
    let refused = spool.append(records.into_iter(), NOW_MS);
    assert!(matches!(refused, Err(AppendError::TooLong(length)) if length == long.len()));
    assert_eq!(spool.held(), Amount::default());
    // A record of maximum length replaces everything else.
    append(&mut spool, 3, NOW_MS).unwrap();
    spool.append([record(&long[1..])].into_iter(), NOW_MS).unwrap();
    assert_eq!(spool.take_losses()[Loss::DroppedOldest as usize], amount(0..3));
    assert_eq!(spool.peek().unwrap().record.value.len(), long.len() - 1);
}
