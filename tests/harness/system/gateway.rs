//! One gateway: alone, reporting the old way, and beside the agent.

use anyhow::Result;

use super::{
    Plan,
    measure::{Cost, mib},
    node::{Reporter, Run, memory, run},
    programs::Programs,
    spread::Spread,
    stage::Stage,
    table::Table,
};
use crate::kafka::Kafka;

/// Published figures of the system that this project implements.
const PUBLISHED: &str = "CPU −50 %, memory −80 %";

/// The runs at one rate, one of each kind in each round.
struct Rounds {
    rate: Option<u32>,
    alone: Vec<Run>,
    old: Vec<Run>,
    new: Vec<Run>,
}

/// Measures at all rates.
pub(super) fn measure(plan: &Plan) -> Result<String> {
    let programs = Programs::build()?;
    let stage = Stage::new(1)?;
    let kafka = Kafka::start(&stage.server)?;
    let mut all = Vec::new();
    for &rate in &plan.gateway_rates {
        let mut rounds = Rounds { rate, alone: Vec::new(), old: Vec::new(), new: Vec::new() };
        for _ in 0..plan.rounds {
            for reporter in Reporter::ALL {
                let run = run(&stage, plan, &programs, &kafka, reporter, (1, rate))?;
                rounds.of(reporter).push(run);
            }
        }
        all.push(rounds);
    }
    Ok(headline(&all, plan.headline_rate)
        + &pods(&all)
        + &nodes(&all)
        + &latencies(&all)
        + &storage(&all))
}

impl Rounds {
    fn of(&mut self, reporter: Reporter) -> &mut Vec<Run> {
        match reporter {
            Reporter::Nobody => &mut self.alone,
            Reporter::Collectors => &mut self.old,
            Reporter::Agent => &mut self.new,
        }
    }

    fn name(&self) -> String {
        self.rate.map_or_else(|| "saturation".to_owned(), |rate| format!("{rate}"))
    }

    /// A figure of the new way by the same of the old way, round by round.
    fn ratio(&self, figure: impl Fn(&Run, Reporter) -> f64) -> Spread {
        let pairs = self.old.iter().zip(&self.new);
        Spread::of(
            pairs
                .map(|(old, new)| figure(new, Reporter::Agent) / figure(old, Reporter::Collectors)),
        )
    }
}

fn headline(all: &[Rounds], rate: u32) -> String {
    let Some(rounds) = all.iter().find(|rounds| rounds.rate == Some(rate)) else {
        return String::new();
    };
    let change = |figure: fn(Cost) -> f64| {
        rounds.ratio(|run, reporter| figure(run.pods(reporter))).as_change()
    };
    format!(
        "**The gateway's pod at {rate} queries a second**, gateway and collector → gateway alone \
         (published: {PUBLISHED}): CPU {}; memory {} resident, {} anonymous.\n\n",
        change(|pod| pod.us),
        change(|pod| mib(pod.memory.resident)),
        change(|pod| mib(pod.memory.anonymous))
    )
}

fn pods(all: &[Rounds]) -> String {
    let mut table = Table::new(&[
        "queries/s",
        "alone, µs a query",
        "old: gateway + collector",
        "with tap53: gateway",
        "pod's CPU, change",
        "old: pod's RSS (anonymous), MiB",
        "with tap53",
        "RSS, change",
        "anonymous, change",
    ]);
    for rounds in all {
        let us =
            |runs: &[Run], part: fn(&Run) -> Cost| Spread::over(runs, |run| part(run).us).median;
        let pod = |runs: &[Run], reporter| -> Vec<Cost> {
            runs.iter().map(|run| run.pods(reporter)).collect()
        };
        let change = |figure: fn(Cost) -> f64| {
            rounds.ratio(|run, reporter| figure(run.pods(reporter))).as_change()
        };
        table.row([
            rounds.name(),
            format!("{:.0}", us(&rounds.alone, |run| run.gateways)),
            format!(
                "{:.0} + {:.0}",
                us(&rounds.old, |run| run.gateways),
                us(&rounds.old, |run| run.reporter)
            ),
            format!("{:.0}", us(&rounds.new, |run| run.gateways)),
            change(|pod| pod.us),
            memory(&pod(&rounds.old, Reporter::Collectors)),
            memory(&pod(&rounds.new, Reporter::Agent)),
            change(|pod| mib(pod.memory.resident)),
            change(|pod| mib(pod.memory.anonymous)),
        ]);
    }
    format!("The gateway's pod:\n\n{}", table.finish())
}

fn nodes(all: &[Rounds]) -> String {
    let mut table = Table::new(&[
        "queries/s",
        "agent, µs a query",
        "client: alone, old, with tap53",
        "gateway + agent against gateway + collector",
        "the same with the client",
        "agent's RSS (anonymous), MiB",
    ]);
    for rounds in all {
        let client = |runs: &[Run]| Spread::over(runs, |run| run.measured.client_us).median;
        let agent: Vec<Cost> = rounds.new.iter().map(|run| run.reporter).collect();
        table.row([
            rounds.name(),
            format!("{:.1}", Spread::over(&agent, |agent| agent.us)),
            format!(
                "{:.0}, {:.0}, {:.0}",
                client(&rounds.alone),
                client(&rounds.old),
                client(&rounds.new)
            ),
            rounds.ratio(|run, _| run.node().us).as_change(),
            rounds.ratio(|run, _| run.node().us + run.measured.client_us).as_change(),
            memory(&agent),
        ]);
    }
    format!(
        "The node, with the share of each part; the agent's program at ingress runs on the client's \
         time:\n\n{}",
        table.finish()
    )
}

fn latencies(all: &[Rounds]) -> String {
    let mut table = Table::new(&[
        "queries/s",
        "p50 in µs: alone, old, with tap53",
        "p99",
        "answered/s: alone, old, with tap53",
        "with tap53 against alone",
        "old against alone",
    ]);
    for rounds in all {
        let three = |figure: &dyn Fn(&Run) -> f64| {
            let [alone, old, new] = [&rounds.alone, &rounds.old, &rounds.new]
                .map(|runs| Spread::over(runs, figure).median);
            format!("{alone:.0}, {old:.0}, {new:.0}")
        };
        let throughput = |runs: &[Run]| {
            let pairs = runs.iter().zip(&rounds.alone);
            Spread::of(
                pairs.map(|(run, alone)| run.measured.per_second / alone.measured.per_second),
            )
        };
        let latency = |share: f64| match rounds.rate {
            Some(_) => three(&|run: &Run| run.measured.latency_us(share)),
            None => "–".to_owned(),
        };
        table.row([
            rounds.name(),
            latency(0.5),
            latency(0.99),
            three(&|run: &Run| run.measured.per_second),
            throughput(&rounds.new).to_string(),
            throughput(&rounds.old).to_string(),
        ]);
    }
    format!("The gateway's clients:\n\n{}", table.finish())
}

fn storage(all: &[Rounds]) -> String {
    let mut table = Table::new(&[
        "queries/s",
        "old: bytes a record in the topic",
        "tap53",
        "change",
        "old: missing, %",
        "tap53: missing, %",
    ]);
    for rounds in all {
        let missing =
            |runs: &[Run]| format!("{:.2}", Spread::over(runs, |run| run.missing * 100.0).max);
        table.row([
            rounds.name(),
            format!("{:.0}", Spread::over(&rounds.old, |run| run.bytes).median),
            format!("{:.0}", Spread::over(&rounds.new, |run| run.bytes).median),
            rounds.ratio(|run, _| run.bytes).as_change(),
            missing(&rounds.old),
            missing(&rounds.new),
        ]);
    }
    format!("Storage (both LZ4), and answered queries without a record:\n\n{}", table.finish())
}
