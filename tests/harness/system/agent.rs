//! Measures the cost of a transaction in the agent: by rate and sink, and by the time until the broker
//! acknowledges.

use std::time::Duration;

use anyhow::Result;

use super::{
    Plan,
    measure::{Cost, Rate, measure as measure_load},
    node::memory,
    resolver::{TO_FILE, start, start_agent, to_topic, zone},
    spread::Spread,
    stage::Stage,
    table::Table,
};
use crate::{account::Ledger, delay::DelayingProxy, kafka::Kafka, unbound::Extra};

const IN_FLIGHT: u32 = 500;
/// Queries a second while the broker's answers are delayed.
const DELAYED_RATE: u32 = 2_000;

/// Measures the cost by rate and sink.
pub(super) fn by_rate(plan: &Plan) -> Result<String> {
    let stage = Stage::new(1)?;
    let kafka = Kafka::start(&stage.server)?;
    let _resolver = start(&stage, &Extra { server: zone(), ..Extra::default() })?;
    let mut table = Table::new(&[
        "queries/s offered",
        "answered/s",
        "Avro file, µs a transaction",
        "Kafka, µs a transaction",
        "Kafka against file",
        "RSS (anonymous), MiB: file",
        "Kafka",
    ]);
    for &rate in &plan.agent_rates {
        let (mut answered, mut file, mut topic) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..plan.rounds {
            let mut one = |sink: &str| run(&stage, plan, rate, sink, &mut answered);
            file.push(one(TO_FILE)?);
            topic.push(one(&to_topic(&kafka)?)?);
        }
        let us = |costs: &[Cost]| format!("{:.1}", Spread::over(costs, |cost| cost.us));
        let ratios = topic.iter().zip(&file).map(|(topic, file)| topic.us / file.us);
        table.row([
            rate.to_string(),
            format!("{:.0}", Spread::of(answered).median),
            us(&file),
            us(&topic),
            Spread::of(ratios).to_string(),
            memory(&file),
            memory(&topic),
        ]);
    }
    Ok(format!("The agent beside unbound, without a spool:\n\n{}", table.finish()))
}

fn run(stage: &Stage, plan: &Plan, rate: u32, sink: &str, answered: &mut Vec<f64>) -> Result<Cost> {
    let agent = start_agent(stage, sink)?;
    let rate = Rate { per_second: Some(rate), in_flight: IN_FLIGHT, latencies: false };
    let server = [Stage::address(0).into()];
    let measured = measure_load(stage, plan, &server, rate, &[agent.process().pid()])?;
    let ledger = agent.stop_for_ledger()?;
    Ledger(&ledger).require_balance()?;
    answered.push(measured.per_second);
    Ok(measured.costs[0])
}

/// Measures the cost by the delay of the broker's answers.
pub(super) fn by_delay(plan: &Plan) -> Result<String> {
    let stage = Stage::new(1)?;
    let proxy = DelayingProxy::listen(&stage.server)?;
    let kafka = Kafka::start_behind(&stage.server, &proxy)?;
    let _resolver = start(&stage, &Extra { server: zone(), ..Extra::default() })?;
    let mut runs: Vec<Vec<f64>> = plan.delays.iter().map(|_| Vec::new()).collect();
    for _ in 0..plan.rounds {
        for (&delay, runs) in plan.delays.iter().zip(&mut runs) {
            proxy.set_delay(Duration::ZERO);
            let sink = to_topic(&kafka)?;
            proxy.set_delay(delay);
            runs.push(run(&stage, plan, DELAYED_RATE, &sink, &mut Vec::new())?.us);
        }
    }
    let mut table =
        Table::new(&["acknowledged after, ms", "µs a transaction", "of that after 0 ms"]);
    for (delay, of_delay) in plan.delays.iter().zip(&runs) {
        let ratios = of_delay.iter().zip(&runs[0]).map(|(us, first)| us / first);
        table.row([
            delay.as_millis().to_string(),
            format!("{:.1}", Spread::of(of_delay.iter().copied())),
            Spread::of(ratios).to_string(),
        ]);
    }
    Ok(format!("{DELAYED_RATE} transactions a second to Kafka, by delay:\n\n{}", table.finish()))
}
