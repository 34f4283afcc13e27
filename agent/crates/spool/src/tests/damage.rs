//! Torn, flipped, cut and missing bytes: all that remains is read, and the rest is counted.

use super::*;

/// Creates and closes a queue of some segments; returns its files and their bytes.
fn closed(directory: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut spool = Spool::open(&config(directory)).unwrap();
    for _ in 0..6 {
        append(&mut spool, 4, NOW_MS).unwrap();
    }
    assert_eq!(send(&mut spool, 2), [0, 1]);
    acknowledge(&mut spool, [0]);
    spool.close().unwrap();
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        files.push((path.clone(), fs::read(&path).unwrap()));
    }
    files.sort();
    files
}

/// Returns the bytes of the checkpoint.
fn checkpoint(files: &[(std::path::PathBuf, Vec<u8>)]) -> &[u8] {
    let found = files.iter().find(|(path, _)| path.ends_with("acknowledged"));
    &found.unwrap().1
}

const HELD: std::ops::Range<u64> = 1..24;

fn restore(directory: &Path, files: &[(std::path::PathBuf, Vec<u8>)]) {
    for entry in fs::read_dir(directory).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for (path, bytes) in files {
        fs::write(path, bytes).unwrap();
    }
}

/// Opens the queue, reads all that is readable, and requires that the rest is counted. Returns the
/// ids of the waiting records that were read.
fn read_and_account(directory: &Path, whole_checkpoint: &[u8], what: &str) -> Vec<u64> {
    let listed = contents(directory).unwrap();
    let mut spool = Spool::open(&config(directory)).unwrap();
    let held = spool.held();
    assert_eq!(listed.waiting(), held, "{what}");
    let checkpoint = fs::read(directory.join("acknowledged")).unwrap_or_default();
    if checkpoint == *whole_checkpoint {
        // Whatever happened to the segments, this much was appended.
        assert_eq!(held, amount(HELD), "{what}");
    }
    // Earlier damage does not affect later records.
    let added = spool.next_id();
    append(&mut spool, 1, NOW_MS).unwrap();
    let mut ids = send(&mut spool, 100);
    assert_eq!(ids.pop(), Some(added), "{what}");
    assert!(spool.is_read(), "{what}");
    let lost = spool.take_losses()[Loss::Unreadable as usize];
    let mut accounted = amount(ids.iter().copied());
    accounted += lost;
    assert_eq!(accounted, held, "{what}");
    assert!(ids.is_sorted(), "{what}");
    acknowledge(&mut spool, ids.iter().copied().chain([added]));
    assert_eq!(spool.held(), Amount::default(), "{what}");
    // The damage has no further effects.
    drop(spool);
    let mut spool = Spool::open(&config(directory)).unwrap();
    send(&mut spool, 100);
    assert!(spool.is_read(), "{what}");
    ids
}

#[test]
fn any_flipped_byte_costs_one_record_at_most_and_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let files = closed(directory.path());
    let whole: Vec<u64> = HELD.collect();
    restore(directory.path(), &files);
    assert_eq!(read_and_account(directory.path(), checkpoint(&files), "nothing damaged"), whole);
    for (path, bytes) in &files {
        for offset in 0..bytes.len() {
            restore(directory.path(), &files);
            let mut damaged = bytes.clone();
            damaged[offset] ^= 1 << (offset % 8);
            fs::write(path, damaged).unwrap();
            let what = format!("{} flipped at {offset}", path.display());
            let ids = read_and_account(directory.path(), checkpoint(&files), &what);
            let missing = HELD.filter(|id| !ids.contains(id)).count();
            let is_segment = path.extension().is_some();
            assert!(missing <= usize::from(is_segment), "{what}: {ids:?}");
            // Only the checkpoint states that record 0 was delivered.
            assert!(is_segment || ids.len() <= whole.len() + 1, "{what}: {ids:?}");
            if is_segment && offset < segment::HEADER_BYTES {
                assert_eq!(missing, 0, "{what}");
            }
        }
    }
}

#[test]
fn a_truncated_file_loses_only_the_removed_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let files = closed(directory.path());
    for (path, bytes) in &files {
        let mut most = 0;
        for length in 0..bytes.len() {
            restore(directory.path(), &files);
            fs::write(path, &bytes[..length]).unwrap();
            let what = format!("{} cut to {length}", path.display());
            let ids = read_and_account(directory.path(), checkpoint(&files), &what);
            assert!(ids.len() + 1 >= most, "{what}: {ids:?}");
            most = ids.len().max(most);
        }
    }
}

#[test]
fn a_missing_segment_is_counted_and_the_others_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let files = closed(directory.path());
    let paths = segments(directory.path());
    assert!(paths.len() >= 3);
    restore(directory.path(), &files);
    fs::remove_file(&paths[1]).unwrap();
    let ids = read_and_account(directory.path(), checkpoint(&files), "the second is missing");
    assert!(ids.contains(&1) && ids.contains(&23) && ids.len() < 23);
    restore(directory.path(), &files);
    fs::remove_file(paths.last().unwrap()).unwrap();
    let ids = read_and_account(directory.path(), checkpoint(&files), "the last is missing");
    assert!(ids.contains(&1) && !ids.contains(&23));
}

#[test]
fn a_torn_end_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(&config(directory.path())).unwrap();
    append(&mut spool, 3, NOW_MS).unwrap();
    drop(spool);
    let path = &segments(directory.path())[0];
    let whole = fs::read(path).unwrap();
    let entry = &whole[segment::HEADER_BYTES..][..60];
    for torn in [&entry[..1], &entry[..51], &entry[..59], &[0; 4096], &[0xff; 100]] {
        fs::write(path, [&whole, torn].concat()).unwrap();
        let spool = Spool::open(&config(directory.path())).unwrap();
        assert_eq!(spool.held(), amount(0..3));
        assert_eq!(fs::read(path).unwrap(), whole);
    }
}

#[test]
fn a_record_cannot_pass_for_an_entry() {
    // Records contain data of strangers. This one contains a valid entry with the very next id, and
    // lies in a damaged range that is searched for entries.
    let directory = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(&config(directory.path())).unwrap();
    let record = |value| Record { timestamp_ms: 0, messages: 1, key: b"", value };
    let mut forged = Vec::new();
    let position = segment::Position { id: 1, messages: 1 };
    segment::push_entry(&mut forged, crc32c::crc32c(&[0; 4]), position, 0, &record(b"false"));
    let values = [&b"true 0"[..], &forged, b"true 2"];
    spool.append(values.map(record).into_iter(), NOW_MS).unwrap();
    drop(spool);
    let path = &segments(directory.path())[0];
    let mut bytes = fs::read(path).unwrap();
    // Damage the length field of the entry around the forged one.
    bytes[segment::HEADER_BYTES + 52 + 6] ^= 0x40;
    fs::write(path, bytes).unwrap();
    let mut spool = Spool::open(&config(directory.path())).unwrap();
    for (id, value) in [(0, values[0]), (2, values[2])] {
        let entry = spool.peek().unwrap();
        assert_eq!((entry.id, entry.record.value), (id, value));
        spool.mark_sent();
    }
    assert_eq!(spool.take_losses()[Loss::Unreadable as usize].records, 1);
}

#[test]
fn a_crash_between_the_checkpoint_and_the_removal_of_segments_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let mut spool = Spool::open(&config).unwrap();
    for _ in 0..6 {
        append(&mut spool, 4, NOW_MS).unwrap();
    }
    spool.checkpoint(false).unwrap();
    let checkpoint = directory.path().join("acknowledged");
    let before = fs::read(&checkpoint).unwrap();
    let all: Vec<_> = segments(directory.path());
    let bytes: Vec<_> = all.iter().map(|path| fs::read(path).unwrap()).collect();
    send(&mut spool, 15);
    acknowledge(&mut spool, 0..15);
    drop(spool);
    let expected = Spool::open(&config).unwrap().held();
    let left = segments(directory.path());
    assert!(left.len() < all.len());
    let after = fs::read(&checkpoint).unwrap();
    assert_ne!(before, after);

    // The checkpoint was written, but no segment was removed.
    for (path, bytes) in all.iter().zip(&bytes) {
        fs::write(path, bytes).unwrap();
    }
    let spool = Spool::open(&config).unwrap();
    assert_eq!(segments(directory.path()), left);
    assert_eq!(spool.held(), expected);
    drop(spool);
    // Segments were removed, but the checkpoint is the previous one.
    fs::write(&checkpoint, &before).unwrap();
    let mut spool = Spool::open(&config).unwrap();
    let first = send(&mut spool, 100)[0];
    assert!(first <= 15, "what was not acknowledged is there");
    assert_eq!(lost(&spool.take_losses()), Amount::default(), "what arrived is not lost");
}

/// Another user could write to the directory before its mode was restricted.
#[test]
fn a_link_a_pipe_or_a_device_in_the_place_of_a_segment_is_passed_over_and_counted() {
    use nix::{sys::stat::Mode, unistd::mkfifo};
    use std::os::unix::fs::symlink;
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let files = closed(directory.path());
    let second = segments(directory.path())[1].clone();
    let whole = fs::read(&second).unwrap();
    let copy = elsewhere.path().join("copy");
    fs::write(&copy, &whole).unwrap();
    for (what, plant) in [
        ("link", Box::new(|| symlink(&copy, &second).unwrap()) as Box<dyn Fn()>),
        ("device", Box::new(|| symlink("/dev/zero", &second).unwrap())),
        ("pipe", Box::new(|| mkfifo(&second, Mode::S_IRWXU).unwrap())),
    ] {
        restore(directory.path(), &files);
        fs::remove_file(&second).unwrap();
        plant();
        let ids = read_and_account(directory.path(), checkpoint(&files), what);
        assert!(ids.len() < HELD.count() && !ids.is_empty(), "{what}: {ids:?}");
        assert_eq!(fs::read(&copy).unwrap(), whole, "{what}");
    }
}

#[test]
fn a_directory_that_others_can_write_in_is_refused_and_so_are_links_among_its_files() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let directory = tempfile::tempdir().unwrap();
    let with_mode = |mode| {
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
        Spool::open(&config(directory.path())).map(drop).map_err(|error| error.to_string())
    };
    let refused = with_mode(0o777).unwrap_err();
    assert!(refused.contains("everybody can write in it (mode 0777)"), "{refused}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is made there");
    assert_eq!(with_mode(0o750), Ok(()));

    let precious = tempfile::NamedTempFile::new().unwrap();
    fs::write(precious.path(), "precious").unwrap();
    for name in ["lock", "acknowledged", "acknowledged.new"] {
        let path = directory.path().join(name);
        let _ = fs::remove_file(&path);
        symlink(precious.path(), &path).unwrap();
        let opened = Spool::open(&config(directory.path()));
        let refused = opened.and_then(|mut spool| {
            append(&mut spool, 1, NOW_MS).unwrap();
            spool.checkpoint(false)
        });
        assert!(refused.is_err(), "{name}");
        assert_eq!(fs::read(precious.path()).unwrap(), b"precious", "{name}");
        fs::remove_file(&path).unwrap();
    }
}
