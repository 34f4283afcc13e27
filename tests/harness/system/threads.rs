//! Measures where the cost of a transaction is: by rate, by what is done with the records, and by thread.
//!
//! Two recorders show the floor: dumpcap, which writes all packets to /dev/null, and an agent whose filter
//! leaves every transaction out.

use std::collections::BTreeMap;

use anyhow::Result;
use nix::unistd::Pid;

use super::{
    Plan,
    measure::{Measured, Rate, measure as measure_load},
    resolver::{TO_FILE, start, start_agent, start_agent_with, to_topic, zone},
    spread::Spread,
    stage::{Stage, ZONE},
    table::Table,
};
use crate::{
    account::Ledger, dumpcap::Dumpcap, kafka::Kafka, namespace::SERVER_END, unbound::Extra,
};

const IN_FLIGHT: u32 = 500;
/// A thread whose time is below this in all rows is in the column of all others.
const LEAST_US: f64 = 0.05;

/// The program that records, and where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recorder {
    Dumpcap,
    NothingKept,
    AvroFile,
    Kafka,
    KafkaFast,
    KafkaDurable,
}

impl Recorder {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Dumpcap, "dumpcap, to /dev/null"),
        (Self::NothingKept, "tap53, all left out by the filter"),
        (Self::AvroFile, "tap53, Avro file"),
        (Self::Kafka, "tap53, Kafka without a spool"),
        (Self::KafkaFast, "tap53, Kafka, `fast`"),
        (Self::KafkaDurable, "tap53, Kafka, `durable`"),
    ];
}

/// Measures the CPU time of each thread.
pub(super) fn measure(plan: &Plan) -> Result<String> {
    let stage = Stage::new(1)?;
    let kafka = Kafka::start(&stage.server)?;
    let _resolver = start(&stage, &Extra { server: zone(), ..Extra::default() })?;
    let mut text = String::new();
    for &rate in &plan.agent_rates {
        let mut runs = Recorder::ALL.map(|_| Vec::new());
        for _ in 0..plan.rounds {
            for ((recorder, _), runs) in Recorder::ALL.iter().zip(&mut runs) {
                runs.push(run(&stage, plan, &kafka, *recorder, rate)?);
            }
        }
        text.push_str(&format!("{rate} queries a second, µs of CPU for a transaction:\n\n"));
        text.push_str(&table(&runs));
    }
    Ok(text)
}

fn run(
    stage: &Stage,
    plan: &Plan,
    kafka: &Kafka<'_>,
    recorder: Recorder,
    rate: u32,
) -> Result<Measured> {
    if recorder == Recorder::Dumpcap {
        let (interface, file) = (SERVER_END.interface, "/dev/null".as_ref());
        let dumpcap = Dumpcap::start(&stage.server, interface, "EN10MB", file)?;
        return load(stage, plan, rate, dumpcap.pid());
    }
    let spool = |mode: &str| -> Result<String> {
        Ok(format!("{}, spool: {{mode: {mode}, directory: $OUT/spool}}", to_topic(kafka)?))
    };
    let agent = match recorder {
        Recorder::NothingKept => {
            let filter = format!("filter: {{qnames: {{deny: [{ZONE}]}}}}\n");
            start_agent_with(stage, TO_FILE, &filter)
        }
        Recorder::Dumpcap | Recorder::AvroFile => start_agent(stage, TO_FILE),
        Recorder::Kafka => start_agent(stage, &to_topic(kafka)?),
        Recorder::KafkaFast => start_agent(stage, &spool("fast")?),
        Recorder::KafkaDurable => start_agent(stage, &spool("durable")?),
    }?;
    let measured = load(stage, plan, rate, agent.process().pid())?;
    Ledger(&agent.stop_for_ledger()?).require_balance()?;
    Ok(measured)
}

fn load(stage: &Stage, plan: &Plan, rate: u32, recorder: Pid) -> Result<Measured> {
    let rate = Rate { per_second: Some(rate), in_flight: IN_FLIGHT, latencies: false };
    measure_load(stage, plan, &[Stage::address(0).into()], rate, &[recorder])
}

/// A row for each recorder, with the medians of all rounds.
fn table(runs: &[Vec<Measured>; 6]) -> String {
    let medians: Vec<BTreeMap<&str, f64>> = runs.iter().map(|runs| by_thread(runs)).collect();
    let mut names: Vec<&str> = medians
        .iter()
        .flatten()
        .filter(|(_, us)| **us >= LEAST_US)
        .map(|(name, _)| *name)
        .collect();
    names.sort_unstable();
    names.dedup();
    let headings = ["recorder", "all threads"].into_iter().chain(names.iter().copied());
    let mut table = Table::new(&headings.chain(["others"]).collect::<Vec<_>>());
    for (((_, name), of_case), threads) in Recorder::ALL.iter().zip(runs).zip(&medians) {
        let all = Spread::over(of_case, |run| run.costs[0].us);
        let of = |thread: &&str| threads.get(*thread).copied().unwrap_or_default();
        let others: f64 = threads.values().sum::<f64>() - names.iter().map(of).sum::<f64>();
        let cells = names.iter().map(|name| format!("{:.2}", of(name)));
        let first = [(*name).to_owned(), format!("{all:.2}")];
        table.row(first.into_iter().chain(cells).chain([format!("{:.2}", others.max(0.0))]));
    }
    table.finish()
}

/// The median time of the threads of each name.
fn by_thread(runs: &[Measured]) -> BTreeMap<&str, f64> {
    let names = runs.iter().flat_map(|run| run.threads[0].keys());
    names
        .map(|name| {
            let of_run = |run: &Measured| run.threads[0].get(name).copied().unwrap_or_default();
            (name.as_str(), Spread::over(runs, of_run).median)
        })
        .collect()
}
