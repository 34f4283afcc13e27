//! Two loaders over one topic, killed in turn in the middle of their transactions.

use anyhow::{Result, ensure};
use tap53_harness::{spark::Job, wait};

use super::{
    require_account,
    stage::{DEADLINE, Stage, exchanges, namespace},
};

const ROUNDS: usize = 10;
const EXCHANGES: u32 = 20_000;
/// So few that the backlog outlasts the kills.
const AT_MOST: &str = "600";
const IN_TRANSACTION: &str = "SELECT count(*) FROM pg_stat_activity \
    WHERE application_name = 'tap53 loader' AND xact_start IS NOT NULL AND query NOT LIKE 'CREATE%'";

#[test]
#[ignore = "takes minutes: cargo xtask warehouse"]
fn two_loaders_that_are_killed_load_each_message_once() -> Result<()> {
    let namespace = namespace()?;
    let stage = Stage::start(&namespace)?;
    let packets = exchanges(0..EXCHANGES)?;
    stage.replay("node-1", &packets)?;
    stage.replay("node-2", &packets)?;
    let all = stage.records()?.len();

    let mut loaders = [start(&stage)?, start(&stage)?];
    for round in 0..ROUNDS {
        let before = rows(&stage)?;
        wait::until("progress, and a loader in a transaction", DEADLINE, || {
            let is_inside = stage.warehouse.number(IN_TRANSACTION)? > 0;
            Ok((rows(&stage)? > before && is_inside).then_some(()))
        })?;
        // One of the two, the other, and both.
        let killed: &[usize] = [&[0][..], &[1], &[0, 1]][round % 3];
        for index in killed {
            let fresh = start(&stage)?;
            std::mem::replace(&mut loaders[*index], fresh).kill();
        }
        ensure!(rows(&stage)? < all, "all was loaded after {round} kills: nothing was tried");
    }
    drop(loaders);
    stage.load_all()?;
    ensure!(rows(&stage)? == all, "{} of {all}", rows(&stage)?);
    println!(
        "{all} messages, {ROUNDS} rounds of SIGKILL, {} loaders brought rows, {} transactions",
        stage.warehouse.number("SELECT count(DISTINCT loader) FROM tap53_loads")?,
        stage.warehouse.number("SELECT count(*) FROM tap53_loads")?,
    );
    require_account(&stage, all)
}

fn start(stage: &Stage<'_>) -> Result<Job> {
    stage.loader(&["--every", "0", "--at-most", AT_MOST])
}

/// Rows in the warehouse; none while there is no table.
fn rows(stage: &Stage<'_>) -> Result<usize> {
    let is_there = "SELECT count(*) FROM pg_tables WHERE tablename = 'dns_transactions'";
    if stage.warehouse.number(is_there)? == 0 {
        return Ok(0);
    }
    Ok(usize::try_from(stage.warehouse.number("SELECT count(*) FROM dns_transactions")?)?)
}
