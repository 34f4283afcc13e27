mod damage;
mod format;
mod limits;
mod model;
mod order;
mod totals;

use std::{fs, path::Path};

use tap53_base::amount::Amount;

use super::*;

/// A time in milliseconds since 1970 UTC.
const NOW_MS: i64 = 1_700_000_000_000;

/// Configures segments of 1 KiB, so that a few records fill several.
fn config(directory: &Path) -> Config {
    Config {
        directory: directory.to_owned(),
        max_bytes: 16 << 10,
        max_age: None,
        // No test cuts the power.
        fsync: Fsync::Never,
        schema_version: 2,
    }
}

/// Returns the content of the record with an id.
fn value(id: u64) -> Vec<u8> {
    format!("value {id} {}", "x".repeat((id % 7) as usize * 10)).into_bytes()
}

fn messages(id: u64) -> u32 {
    1 + (id % 3) as u32
}

fn amount(ids: impl IntoIterator<Item = u64>) -> Amount {
    let mut amount = Amount::default();
    ids.into_iter().for_each(|id| amount += Amount::record(u64::from(messages(id))));
    amount
}

/// Appends `count` records in one batch, with values that follow from their ids.
fn append(spool: &mut Spool, count: u64, now_ms: i64) -> Result<Amount, AppendError> {
    let first = spool.next_id();
    let values: Vec<_> = (first..first + count).map(|id| (id, value(id))).collect();
    let records = values.iter().map(|(id, value)| Record {
        timestamp_ms: NOW_MS + *id as i64,
        messages: messages(*id),
        key: if id % 2 == 0 { b"" } else { b"key" },
        value,
    });
    spool.append(records, now_ms)
}

/// Sends up to `most` records, checks that each is as appended, and returns their ids.
fn send(spool: &mut Spool, most: usize) -> Vec<u64> {
    let mut ids = Vec::new();
    while ids.len() < most
        && let Some(entry) = spool.peek()
    {
        let (id, record) = (entry.id, entry.record);
        assert_eq!(record.value, value(id), "record {id}");
        assert_eq!(record.key, if id % 2 == 0 { &b""[..] } else { b"key" });
        assert_eq!((record.messages, record.timestamp_ms), (messages(id), NOW_MS + id as i64));
        ids.push(id);
        spool.mark_sent();
    }
    ids
}

fn acknowledge(spool: &mut Spool, ids: impl IntoIterator<Item = u64>) {
    for id in ids {
        assert_eq!(spool.acknowledge(id), Some(amount([id])), "record {id}");
    }
}

fn segments(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    paths.sort();
    paths
}

fn lost(losses: &Losses) -> Amount {
    let mut sum = Amount::default();
    losses.iter().for_each(|amount| sum += *amount);
    sum
}
