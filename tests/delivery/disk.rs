//! The disk is full, loses its power, or has a large spool.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tap53_harness::{agent, fastavro, kafka::Kafka, limit::Limit, mount::Mount, scratch, wait};
use tap53_spool::{self as spool, Config, Fsync, Record, Spool};

use super::run::{DEADLINE, QUICK, Run, TOPIC, consume, namespace, spool as spool_keys};

#[test]
fn a_full_disk_costs_the_oldest_records_and_each_is_counted() -> Result<()> {
    let namespace = namespace()?;
    let mut kafka = Kafka::start(&namespace)?;
    kafka.create_topic(TOPIC)?;
    let disk = Mount::tmpfs(16 << 20)?;
    // The limit is larger than the disk.
    let keys = spool_keys("durable", disk.path(), "max_bytes: 67108864, replay_records_per_s: 0");
    let keys = format!("{QUICK}\n    {keys}");
    let mut run = Run::start(&namespace, &kafka.address(), &keys, 0)?;
    run.feed(500)?;
    kafka.kill();
    // Another file takes half of the disk for a while.
    let other = disk.path().join("other");
    fs::write(&other, vec![1; 8 << 20])?;
    run.feed(30_000)?;
    let full = disk_free(&disk)?;
    ensure!(full < 4 << 20, "{full} bytes are free: the disk was never full");
    fs::remove_file(&other)?;
    run.feed(20_000)?;
    kafka.restart()?;
    run.process().wait_for_line("event=\"delivery_resumed\"", 0, DEADLINE)?;
    let next = run.next();
    let ended = run.finish()?;
    tap53_harness::account::Ledger(&ended.ledger).require_balance()?;
    let dropped = ended.records("lost/dropped_oldest")?;
    assert_eq!(ended.lost()?, dropped, "{}", ended.ledger["agent"]["sinks"][0]);
    assert!(dropped > 0);
    assert_eq!(ended.status.code(), Some(3), "records were lost");
    let consumed = consume(&kafka)?;
    let missing = consumed.missing(0..next);
    println!("{dropped} dropped of {next}, {} missing", missing.len());
    // A record in flight may arrive after it was dropped and counted, but never the reverse.
    assert!(missing.len() as u64 <= dropped, "{} against {dropped}", missing.len());
    assert_eq!(ended.records("delivered")? + dropped, u64::from(next));
    Ok(())
}

fn disk_free(disk: &Mount) -> Result<u64> {
    let usage = nix::sys::statvfs::statvfs(disk.path())?;
    Ok(usage.blocks_available() * usage.fragment_size())
}

#[test]
fn a_power_cut_loses_nothing_that_was_accepted_with_fsync_of_each_batch() -> Result<()> {
    let namespace = namespace()?;
    let disk = Mount::ext4(64 << 20)?;
    let directory = disk.path().join("spool");
    let keys = spool_keys("durable", &directory, "fsync: batch");
    let mut run = Run::start(&namespace, "127.0.0.1:9", &keys, 0)?;
    for _ in 0..3 {
        let accepted = run.feed(400)?;
        let found = waiting(&disk.after_power_cut()?)?;
        assert_eq!(found, u64::from(accepted.end));
    }
    run.terminate()?.require_nothing_lost()
}

#[test]
fn a_power_cut_loses_no_more_than_the_interval_with_fsync_at_intervals() -> Result<()> {
    let interval = Duration::from_millis(500);
    let namespace = namespace()?;
    let disk = Mount::ext4(64 << 20)?;
    let directory = disk.path().join("spool");
    let keys = spool_keys("durable", &directory, "fsync: interval, fsync_interval_ms: 500");
    let mut run = Run::start(&namespace, "127.0.0.1:9", &keys, 0)?;
    for _ in 0..3 {
        let accepted = run.feed(400)?;
        let since = Instant::now();
        // ext4's own default is five seconds, or thirty.
        wait::until("the records to be on the disk", 6 * interval, || {
            let begun = since.elapsed();
            let found = waiting(&disk.after_power_cut()?)?;
            println!("{begun:?} later: {found} of {}", accepted.end);
            Ok((found == u64::from(accepted.end)).then_some(()))
        })?;
    }
    run.terminate()?.require_nothing_lost()
}

/// The readable records of a spool on this disk.
fn waiting(disk: &Mount) -> Result<u64> {
    let directory = disk.path().join("spool");
    if !directory.is_dir() {
        return Ok(0);
    }
    let contents = spool::contents(&directory)?;
    Ok(contents.read(|_| Ok::<_, spool::Error>(()))?.waiting.records)
}

#[test]
fn an_agent_starts_at_once_and_in_little_memory_on_two_gibibytes() -> Result<()> {
    const SEGMENTS: u64 = 64;
    const SEGMENT_BYTES: u64 = 32 << 20;
    let namespace = namespace()?;
    let directory = scratch::directory("queue")?;
    let config = Config {
        directory: directory.path().to_owned(),
        max_bytes: 4 << 30,
        max_age: None,
        fsync: Fsync::Never,
        schema_version: 2,
    };
    // The first segment has more than the producer holds, so that the others are not read.
    for segment in 0..SEGMENTS {
        let mut spool = Spool::open(&config)?;
        let value = [7; 1024];
        let record = Record { timestamp_ms: 0, messages: 2, key: b"", value: &value };
        let records = if segment == 0 { 10_000 } else { 10 };
        spool.append((0..records).map(|_| record), 0)?;
    }
    // Sparse files: a reader sees their whole size.
    let segments = spool::contents(directory.path())?.list();
    for segment in segments.iter().rev().skip(1) {
        fs::OpenOptions::new().write(true).open(&segment.path)?.set_len(SEGMENT_BYTES)?;
    }
    let bytes: u64 = spool::contents(directory.path())?.list().iter().map(|row| row.bytes).sum();
    ensure!(bytes > (SEGMENTS - 1) * SEGMENT_BYTES, "{bytes}");

    let limit = Limit::memory(128 << 20)?;
    let keys = spool_keys("durable", directory.path(), "max_bytes: 4294967296");
    let began = Instant::now();
    let mut run = Run::start_prepared(
        &namespace,
        "127.0.0.1:9",
        &format!("{QUICK}\n    {keys}"),
        0,
        |command| {
            limit.hold(command);
        },
    )?;
    run.process().wait_for_line("event=\"spool_inherited\"", 0, DEADLINE)?;
    let took = began.elapsed();
    println!("{bytes} bytes: open after {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    run.feed(1_000)?;
    let ended = run.terminate()?;
    ended.require_nothing_lost()?;
    assert_eq!(ended.records("carried")?, 10_000 + 63 * 10);
    assert_eq!(ended.records("spooled")?, 10_000 + 63 * 10 + 1_000);
    Ok(())
}

#[test]
fn the_command_lists_verifies_and_exports_waiting_records() -> Result<()> {
    let namespace = namespace()?;
    let directory = scratch::directory("queue")?;
    let keys = spool_keys("durable", directory.path(), "");
    let mut run = Run::start(&namespace, "127.0.0.1:9", &keys, 0)?;
    run.feed(700)?;
    let path = directory.path().to_str().context("a path in UTF-8")?;
    // Also while the agent runs.
    let listed = agent::run(&["spool", "ls", path])?;
    let text = String::from_utf8(listed.stdout)?;
    assert!(text.contains("waiting: 700 records (1400 messages), from id 0 on"), "{text}");
    run.terminate()?.require_nothing_lost()?;

    let verified = agent::run(&["spool", "verify", path])?;
    let text = String::from_utf8(verified.stdout)?;
    assert_eq!(verified.status.code(), Some(0));
    assert!(
        text.contains("whole: 700 records, of which 700 wait\nunreadable: 0 records"),
        "{text}"
    );

    let out = scratch::directory("export")?;
    let file = out.path().join("waiting.avro");
    let file_text = file.to_str().context("a path in UTF-8")?;
    let exported = agent::run(&["spool", "export", path, file_text])?;
    assert_eq!(exported.stdout, b"700 records exported\n", "{exported:?}");
    let records = fastavro::read_containers(std::slice::from_ref(&file))?;
    let names: Vec<_> =
        records.iter().map(|record| record["qname"].as_str().unwrap_or("")).collect();
    let expected: Vec<_> = (0..700).map(|number| format!("q{number}.tap53.test")).collect();
    assert_eq!(names, expected);
    // As JSON, and to standard output, which then has nothing else.
    let json = agent::run(&["spool", "export", "--json", path, "-"])?;
    assert_eq!((json.status.code(), &json.stderr[..]), (Some(0), &b"700 records exported\n"[..]));
    let lines = String::from_utf8(json.stdout)?;
    for ((line, record), name) in lines.lines().zip(&records).zip(&expected) {
        let shown: serde_json::Value = serde_json::from_str(line)?;
        assert_eq!(shown["qname"], *name);
        // Bytes are hexadecimal in both; the number of names is that of the schema.
        assert_eq!(shown["record_id"], record["record_id"]);
        let names = |value: &serde_json::Value| value.as_object().map(serde_json::Map::len);
        assert_eq!(names(&shown), names(record));
    }
    assert_eq!(lines.lines().count(), 700);
    let piped = agent::run(&["spool", "export", path, "-"])?;
    let copy = out.path().join("piped.avro");
    fs::write(&copy, piped.stdout)?;
    assert_eq!(fastavro::read_containers(&[copy])?, records);
    // An existing file is not overwritten.
    assert_eq!(agent::run(&["spool", "export", path, file_text])?.status.code(), Some(1));

    // Damage a byte in the middle.
    let segment = &spool::contents(directory.path())?.list()[0].path;
    let mut bytes = fs::read(segment)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    fs::write(segment, bytes)?;
    let verified = agent::run(&["spool", "verify", path])?;
    let text = String::from_utf8(verified.stdout)?;
    assert_eq!(verified.status.code(), Some(3));
    assert!(text.contains("unreadable: 1 records (2 messages)"), "{text}");
    Ok(())
}
