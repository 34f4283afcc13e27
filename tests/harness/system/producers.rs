//! Many agents against one broker: what each costs there. docs/scale.md has the arithmetic.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Plan, measure::mib, programs::Programs, stage::Stage, table::Table};
use crate::{
    kafka::Kafka,
    process::Process,
    usage::{Memory, cpu_time},
};

const DEADLINE: Duration = Duration::from_secs(120);
/// Records of each producer a second: each is sent alone, since linger is 20 ms at most.
const RECORDS_PER_S: u32 = 2;
const PARTITIONS: i32 = 24;

/// Measures each size of the fleet.
pub(super) fn measure(plan: &Plan) -> Result<String> {
    let programs = Programs::build()?;
    let stage = Stage::new(0)?;
    let mut table = Table::new(&[
        "producers",
        "all connected after, s",
        "requests/s",
        "failed",
        "acknowledged after, ms",
        "broker, µs a request",
        "broker's RSS, MiB",
    ]);
    for &producers in &plan.producers {
        // A broker that has served no other fleet.
        let kafka = Kafka::start(&stage.server)?;
        table.row(produce(&stage, plan, &programs, &kafka, producers)?);
    }
    Ok(format!(
        "One broker (heap of 256 MiB), idempotent producers with {RECORDS_PER_S} records a second \
         each, LZ4, 20 ms of linger, all replicas, {PARTITIONS} partitions:\n\n{}",
        table.finish()
    ))
}

fn produce(
    stage: &Stage,
    plan: &Plan,
    programs: &Programs,
    kafka: &Kafka<'_>,
    producers: u32,
) -> Result<[String; 7]> {
    let topic = "fleet";
    kafka.create_topic_of(topic, PARTITIONS)?;
    let time = plan.warm_up + plan.window + Duration::from_secs(1);
    let mut command = stage.server.command(programs.path("producers"));
    command.args(["-broker", &kafka.address(), "-topic", topic, "-bytes", "150"]);
    command.args(["-producers", &producers.to_string(), "-rate", &RECORDS_PER_S.to_string()]);
    command.args(["-for", &format!("{}ms", time.as_millis())]);
    let mut process = Process::spawn("producers", command)?;
    process.wait_for_line("producers connected", 0, DEADLINE)?;
    thread::sleep(plan.warm_up);
    let pid = kafka.pid()?;
    let (began, before) = (Instant::now(), cpu_time(pid)?);
    thread::sleep(plan.window);
    let (took, cpu) = (began.elapsed(), cpu_time(pid)? - before);
    let memory = Memory::of(pid)?;
    process.wait(DEADLINE)?;
    let report: Value = serde_json::from_str(&process.stdout().text())
        .with_context(|| format!("the producers' report; {}", process.stderr().text()))?;
    let number = |name: &str| report[name].as_f64().with_context(|| format!("no {name}: {report}"));
    let per_second = number("acknowledged")? / number("seconds")?;
    ensure!(per_second > 0.0, "nothing was acknowledged: {report}");
    Ok([
        producers.to_string(),
        format!("{:.1}", number("connect_s")?),
        format!("{per_second:.0}"),
        format!("{:.0}", number("failed")?),
        format!("{:.0}", number("mean_ms")?),
        format!("{:.0}", cpu.as_secs_f64() * 1e6 / (per_second * took.as_secs_f64())),
        format!("{:.0}", mib(memory.resident)),
    ])
}
