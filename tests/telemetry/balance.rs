//! The ledger is looked at while the disk holds everything up.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use anyhow::{Result, ensure};
use tap53_harness::{
    agent::{self, Agent},
    client::Transport,
    lab::{ANSWERED, Lab},
    limit::Limit,
    mount::Mount,
    wait,
};

use super::{DEADLINE, PORT, get, series};

/// Writes a second that the disk does.
const WRITES_PER_S: u32 = 4;
/// Looks at the ledger while it is busy.
const LOOKS: usize = 150;

#[test]
fn every_line_adds_up_at_every_moment_though_the_disk_is_slow() -> Result<()> {
    let lab = Lab::new()?;
    let disk = Mount::ext4(64 << 20)?;
    let limit = Limit::disk_writes(&disk, WRITES_PER_S)?;
    let mut command = lab.server.command(agent::binary()?);
    limit.hold(&mut command);
    let agent = Agent::launch(
        command,
        &format!(
            "interfaces: {{include: [s0]}}\ncapture: {{workers: 1}}\n\
             sinks: [{{type: kafka, brokers: ['127.0.0.1:1'], topic: t,\n\
             spool: {{mode: durable, fsync: batch, directory: {}/spool}}}}]\n\
             shutdown: {{flush_timeout_ms: 500}}\ntelemetry: {{listen: '{PORT}'}}\n",
            disk.path().display()
        ),
        &[],
    )?;
    agent.wait_until_ready()?;
    let (is_over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let client = scope.spawn(|| -> Result<()> {
            while !is_over.load(Ordering::Relaxed) {
                lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
                asked.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let looked = look(&lab);
        is_over.store(true, Ordering::Relaxed);
        match client.join() {
            Ok(asked) => asked?,
            Err(_) => anyhow::bail!("the client panicked"),
        }
        looked
    })?;
    let asked = asked.load(Ordering::Relaxed);
    let spooled = format!("tap53_sink_records_spooled{{sink=\"kafka\"}} {asked}\n");
    wait::until(&format!("{asked} records in the spool"), DEADLINE, || {
        Ok(get(&lab, "/metrics")?.body.contains(&spooled).then_some(()))
    })?;
    assert_eq!(agent.stop()?.ledger["balanced"], true);
    Ok(())
}

/// Looks until the disk has been seen to hold the worker up often enough.
fn look(lab: &Lab) -> Result<()> {
    let (mut looks, mut held_up, mut mean_s) = (0, 0, 0.0);
    wait::until("enough looks at a worker that its disk holds up", DEADLINE, || {
        let text = get(lab, "/metrics")?.body;
        let of = series(&text);
        looks += 1;
        held_up += usize::from(of["tap53_worker_heartbeat_age_seconds{worker=\"0\"}"] > 0.03);
        ensure!(of["tap53_ledger_balanced"] == 1.0, "look {looks}: {text}");
        // The line that a slow sink could unbalance, by our own arithmetic.
        let created = of["tap53_records_created_total"] + of["tap53_records_ahead"];
        let offered = of["tap53_sink_records_offered_total{sink=\"kafka\"}"];
        let in_batches = of["tap53_sink_records_in_batches{sink=\"kafka\"}"];
        ensure!(created == offered + in_batches, "look {looks}: {text}");
        let forced = of["tap53_sink_spool_sync_seconds_count{sink=\"kafka\"}"];
        let is_enough = looks >= LOOKS && held_up >= LOOKS / 4 && forced >= 5.0;
        mean_s = of["tap53_sink_spool_sync_seconds_sum{sink=\"kafka\"}"] / forced;
        Ok(is_enough.then_some(()))
    })?;
    println!("{looks} looks, {held_up} of them while held up; the disk took {mean_s} s on average");
    ensure!(mean_s > 0.02, "the disk was not slow: {mean_s} s on average");
    Ok(())
}
