//! The agent is killed, and finds its spool damaged.

use std::{fs, os::unix::fs::FileExt as _};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tap53_harness::{faults::Row, numbered::number, scratch};

use super::stage::{AWAY, QUEUE_BYTES, Run, Stage, Start, row, size};

/// Killed at any moment under load, while the broker is there and while it is not.
pub(super) fn killed_durable(stage: &mut Stage<'_>) -> Result<Vec<Row>> {
    let rounds = size(5, 200);
    let spool = scratch::directory("queue")?;
    let mut start = Start::new("durable", spool.path());
    start.tells = true;
    let mut row = row("durable");
    let mut accepted = Vec::new();
    for round in 0..rounds {
        let run = Run::start(stage, &start)?;
        // More in some rounds than in others, and some more that may be anywhere when it ends.
        run.feed_until_logged(stage, 200 + round * 97 % 800)?;
        if round % 5 == 3 {
            stage.kafka.signal(Signal::SIGSTOP)?;
            run.feed_until_logged(stage, 500)?;
        }
        stage.ask(100 + round * 31 % 100)?;
        accepted.extend(numbers(&run.kill(&mut row)?)?);
        stage.kafka.signal(Signal::SIGCONT)?;
    }
    deliver_the_rest(stage, &start, &mut row)?;
    let consumed = stage.consume(&mut row)?;
    let lost = consumed.missing(accepted.iter().copied());
    row.unaccepted = row.missing().saturating_sub(lost.len() as u64);
    Ok(vec![row])
}

/// Checks that only records in memory are lost.
pub(super) fn killed_fast(stage: &mut Stage<'_>) -> Result<Vec<Row>> {
    let rounds = size(4, 40);
    let spool = scratch::directory("queue")?;
    let mut start = Start::new("fast", spool.path());
    start.tells = true;
    // Until then, records stay in memory.
    start.message_timeout_ms = 60_000;
    start.sink = "compression: none";
    let mut row = row("fast");
    let mut accepted = Vec::new();
    for round in 0..rounds {
        let run = Run::start(stage, &start)?;
        run.feed_until_logged(stage, 200 + round * 97 % 800)?;
        let is_away = round % 4 == 2;
        if is_away {
            // Waiting records come first, so new records go to memory.
            run.wait_until_delivered()?;
            stage.kafka.kill();
            run.feed_until_logged(stage, 2_000)?;
        }
        stage.ask(100 + round * 31 % 100)?;
        accepted.push(numbers(&run.kill(&mut row)?)?);
        if is_away {
            stage.kafka.restart()?;
        }
    }
    deliver_the_rest(stage, &start, &mut row)?;
    let consumed = stage.consume(&mut row)?;
    let may_hold = QUEUE_BYTES / consumed.shortest as u64;
    let mut all_lost = 0;
    for (round, accepted) in accepted.into_iter().enumerate() {
        let lost = consumed.missing(accepted).len() as u64;
        ensure!(lost <= may_hold, "kill {round} cost {lost} records, {may_hold} are allowed");
        all_lost += lost;
    }
    ensure!(all_lost > 0, "no record was in memory when it was killed: nothing was tried");
    row.unaccepted = row.missing().saturating_sub(all_lost);
    row.bound = row.kills * may_hold;
    Ok(vec![row])
}

fn deliver_the_rest(stage: &Stage<'_>, start: &Start<'_>, row: &mut Row) -> Result<()> {
    let run = Run::start(stage, start)?;
    run.wait_until_delivered()?;
    run.finish(row)
}

/// The numbers of records that the agent wrote as JSON; the last line may be cut by the kill.
fn numbers(lines: &[String]) -> Result<Vec<u32>> {
    let lines = lines.iter().filter(|line| line.ends_with('}'));
    lines.map(|line| number(&serde_json::from_str(line)?)).collect()
}

/// Between two runs, bytes of one segment change and another is cut in half.
pub(super) fn spool_damaged(stage: &mut Stage<'_>) -> Result<Vec<Row>> {
    let queries = size(16_000, 60_000);
    let spool = scratch::directory("queue")?;
    let mut start = Start::new("durable", spool.path());
    // Segments are a sixteenth of it.
    let max_bytes = u64::from(queries) * 1_024;
    let more = format!("max_bytes: {max_bytes}");
    start.more = &more;
    let mut row = row("durable");
    let run = Run::start(stage, &start)?;
    run.feed(stage, 500)?;
    run.wait_until_delivered()?;
    stage.kafka.kill();
    run.feed(stage, queries)?;
    run.wait_until_noticed(AWAY)?;
    run.stop(&mut row)?;

    let segments = tap53_spool::contents(spool.path())?.list();
    ensure!(segments.len() >= 3, "{} segments", segments.len());
    let file = fs::OpenOptions::new().read(true).write(true).open(&segments[0].path)?;
    let length = file.metadata()?.len();
    for part in 1..10 {
        let (at, mut byte) = (length * part / 10, [0]);
        file.read_exact_at(&mut byte, at)?;
        file.write_all_at(&[byte[0] ^ 0x20], at)?;
    }
    let file = fs::OpenOptions::new().write(true).open(&segments[1].path)?;
    file.set_len(file.metadata()?.len() / 2)?;

    stage.kafka.restart()?;
    let run = Run::start(stage, &start)?;
    run.feed(stage, 500)?;
    run.finish(&mut row)?;
    let unreadable = row.lost.get("unreadable").copied().unwrap_or(0);
    stage.consume(&mut row)?;
    // None of them was on its way.
    ensure!(unreadable > 9, "{unreadable} records are unreadable");
    ensure!(unreadable == row.missing(), "{unreadable} unreadable, {} missing", row.missing());
    Ok(vec![row])
}
