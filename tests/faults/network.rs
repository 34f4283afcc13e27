//! The way to the broker is cut, and is slow.

use anyhow::{Context as _, Result, ensure};
use tap53_harness::{
    faults::Row,
    namespace::{cut, mend},
    wait,
};

use super::stage::{AGENT_END, AWAY, BACK, BROKER_END, Both, DEADLINE, Stage, size};

pub(super) fn cut_off(stage: &mut Stage<'_>) -> Result<Vec<Row>> {
    let queries = size(2_000, 20_000);
    let places = stage.places;
    let both = Both::start(stage, "")?;
    both.feed(stage, queries)?;
    cut(&places.far, BROKER_END)?;
    both.feed(stage, queries)?;
    both.wait_until_noticed(AWAY)?;
    both.feed(stage, queries)?;
    mend((&places.far, BROKER_END), (&places.lab.server, AGENT_END))?;
    both.wait_until_noticed(BACK)?;
    both.feed(stage, queries)?;
    both.finish(stage)
}

/// Slower than what comes in, so slow that of what goes there some arrives and some times out.
pub(super) fn slow(stage: &mut Stage<'_>) -> Result<Vec<Row>> {
    let queries = size(4_000, 20_000);
    let server = &stage.places.lab.server;
    // A request gets through in a quarter of the message timeout.
    let both = Both::start(stage, "compression: none\n  batch_bytes: 16384")?;
    both.feed(stage, queries)?;
    #[rustfmt::skip]
    server.tc(&[
        "qdisc", "add", "dev", AGENT_END.interface, "root",
        "tbf", "rate", "512kbit", "burst", "32kb", "latency", "200ms",
    ])?;
    both.feed(stage, 2 * queries)?;
    both.each(|run| {
        let waiting = run.records("spooled")? + run.records("in_flight")?;
        ensure!(waiting > u64::from(queries) / 2, "{waiting} records wait: the link is not slow");
        Ok(())
    })?;
    both.wait_until_noticed(AWAY)?;
    both.each(|run| {
        let before = run.records("delivered")?;
        wait::until("more records to arrive", DEADLINE, || {
            Ok((run.records("delivered")? > before + 1_000).then_some(()))
        })
        .with_context(|| run.log())
    })?;
    server.tc(&["qdisc", "del", "dev", AGENT_END.interface, "root"])?;
    both.wait_until_noticed(BACK)?;
    both.feed(stage, queries)?;
    both.finish(stage)
}
