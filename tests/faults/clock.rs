//! The wall clock is set. Only the agent's is, by libfaketime; CLOCK_MONOTONIC goes on as it does on
//! a machine whose clock is set.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use tap53_harness::{
    faults::Row,
    numbered::{Clocks, Consumed},
    scratch, wait,
};
use tempfile::TempDir;

use super::stage::{AWAY, BACK, DEADLINE, Run, Stage, Start, row, size};

const HOUR_S: i64 = 3_600;

/// Time for which records may have times of the clock before the step: the agent compares its clocks
/// every second or so, and the machine is loaded.
const DETECTED_WITHIN: Duration = Duration::from_secs(3);

/// The agent's wall clock.
struct Clock {
    directory: TempDir,
}

impl Clock {
    fn new(ahead_s: i64) -> Result<Self> {
        let clock = Self { directory: scratch::directory("clock")? };
        clock.set(ahead_s)?;
        Ok(clock)
    }

    /// So much ahead of the machine's from now on.
    fn set(&self, ahead_s: i64) -> Result<()> {
        let new = self.directory.path().join("new");
        fs::write(&new, format!("{ahead_s:+}\n"))?;
        // Never half a file.
        Ok(fs::rename(new, self.path())?)
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("ahead")
    }

    fn environment(&self) -> Result<Vec<(&'static str, String)>> {
        let found = glob::glob("/usr/lib/*/faketime/libfaketimeMT.so.1")?.next();
        let library = found.context("no libfaketime: package faketime")??;
        Ok(vec![
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.path().display().to_string()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
        ])
    }
}

/// Feeds for so long that the agent has taken the clock up, and a little more; the last number.
fn feed_past_step(run: &Run, stage: &mut Stage<'_>) -> Result<u32> {
    let begin = Instant::now();
    wait::until("the step to be detected", DEADLINE, || {
        run.feed(stage, 200)?;
        Ok((begin.elapsed() > DETECTED_WITHIN).then_some(()))
    })?;
    run.feed(stage, size(1_000, 10_000))?;
    Ok(stage.next() - 1)
}

/// An hour forward and two back while the broker is away and the spool drops what is older than ten
/// minutes: nothing is.
pub(super) fn stepped(stage: &mut Stage<'_>) -> Result<Vec<Row>> {
    let spool = scratch::directory("queue")?;
    let clock = Clock::new(0)?;
    let mut start = Start::new("durable", spool.path());
    start.more = "max_age_s: 600";
    start.environment = clock.environment()?;
    let run = Run::start(stage, &start)?;
    run.feed(stage, 1_000)?;
    run.wait_until_delivered()?;
    stage.kafka.kill();
    run.feed(stage, size(1_000, 10_000))?;
    run.wait_until_noticed(AWAY)?;
    // A little less, since brokers refuse what is more than an hour ahead of them.
    let steps = [HOUR_S - 60, -HOUR_S, 0];
    let mut last = Vec::new();
    for ahead_s in &steps[..2] {
        clock.set(*ahead_s)?;
        last.push(feed_past_step(&run, stage)?);
    }
    stage.kafka.restart()?;
    run.wait_until_noticed(BACK)?;
    clock.set(0)?;
    last.push(feed_past_step(&run, stage)?);
    let mut row = row("durable");
    run.finish(&mut row)?;
    ensure!(row.lost.is_empty(), "{:?}", row.lost);
    let consumed = stage.consume(&mut row)?;
    for (number, ahead_s) in last.into_iter().zip(steps) {
        let is_s = ahead_of_us_s(&clocks_of(&consumed, number)?)?;
        ensure!((is_s - ahead_s).abs() < 300, "{number} is {is_s} s ahead, not {ahead_s}");
    }
    // Latency is measured by the other clock.
    for clocks in &consumed.clocks {
        let times = clocks.query_time_us.zip(clocks.response_time_us);
        let Some((query_us, response_us)) = times else { continue };
        let latency_ns = clocks.latency_ns.context("a latency")?;
        let limit_ns = i64::try_from(DEADLINE.as_nanos())?;
        ensure!((0..limit_ns).contains(&latency_ns), "{clocks:?}");
        let between_us = response_us - query_us;
        ensure!((between_us - latency_ns / 1_000).abs() <= 1, "{clocks:?}");
    }
    Ok(vec![row])
}

fn clocks_of(consumed: &Consumed, number: u32) -> Result<Clocks> {
    let at = consumed.numbers.iter().position(|other| *other == number);
    Ok(consumed.clocks[at.with_context(|| format!("{number} was not consumed"))?])
}

/// Returns by how many seconds a record's time is ahead of now, on this machine.
fn ahead_of_us_s(clocks: &Clocks) -> Result<i64> {
    let now_s = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    Ok(clocks.query_time_us.context("a query_time")? / 1_000_000 - now_s)
}

/// The next run begins with a clock that is an hour ahead: what waits is older than it may be, as far
/// as that run can know, and counted.
pub(super) fn ahead_at_restart(stage: &mut Stage<'_>) -> Result<Vec<Row>> {
    let spool = scratch::directory("queue")?;
    let clock = Clock::new(0)?;
    let mut start = Start::new("durable", spool.path());
    start.more = "max_age_s: 600";
    start.environment = clock.environment()?;
    let mut row = row("durable");
    let run = Run::start(stage, &start)?;
    run.feed(stage, 1_000)?;
    run.wait_until_delivered()?;
    stage.kafka.kill();
    let waiting = size(2_000, 20_000);
    run.feed(stage, waiting)?;
    run.wait_until_noticed(AWAY)?;
    run.stop(&mut row)?;
    clock.set(HOUR_S - 60)?;
    let run = Run::start(stage, &start)?;
    run.feed(stage, 1_000)?;
    stage.kafka.restart()?;
    run.wait_until_delivered()?;
    run.finish(&mut row)?;
    let too_old = row.lost.get("too_old").copied().unwrap_or(0);
    stage.consume(&mut row)?;
    // Some are sent before anything looks at their age.
    ensure!(too_old > u64::from(waiting) / 2, "{too_old} of {waiting} are too old");
    ensure!(too_old == row.missing(), "{too_old} are too old, {} missing", row.missing());
    Ok(vec![row])
}

/// Two hours ahead of the broker, which takes no record that is more than one ahead, unless it is
/// told to (`message.timestamp.after.max.ms`).
pub(super) fn ahead_of_the_broker(stage: &mut Stage<'_>) -> Result<Vec<Row>> {
    let spool = scratch::directory("queue")?;
    let clock = Clock::new(0)?;
    let mut start = Start::new("durable", spool.path());
    start.environment = clock.environment()?;
    let run = Run::start(stage, &start)?;
    run.feed(stage, 1_000)?;
    clock.set(2 * HOUR_S)?;
    feed_past_step(&run, stage)?;
    clock.set(0)?;
    let last = feed_past_step(&run, stage)?;
    run.wait_until_delivered()?;
    let mut row = row("durable");
    run.finish(&mut row)?;
    let rejected = row.lost.get("rejected").copied().unwrap_or(0);
    let consumed = stage.consume(&mut row)?;
    ensure!(rejected > 0, "the broker took them: {:?}", row.lost);
    ensure!(rejected == row.missing(), "{rejected} rejected, {} missing", row.missing());
    ensure!(consumed.times.contains_key(&last), "what came after is missing as well");
    Ok(vec![row])
}
