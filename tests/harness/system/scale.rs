//! Many agents against one broker, one registry and one API server: what each costs there. The
//! arithmetic for a fleet is in docs/scale.md.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    Plan,
    measure::{count, mib},
    programs::Programs,
    stage::Stage,
    table::Table,
};
use crate::{
    agent,
    kafka::Kafka,
    kube::KubeApi,
    process::Process,
    registry::Registry,
    usage::{Memory, cpu_time},
};

const DEADLINE: Duration = Duration::from_secs(120);
/// Of each producer a second: each goes alone, since it waits for others for 20 ms at most.
const RECORDS_PER_S: u32 = 2;
const PARTITIONS: i32 = 24;
/// Requests to the registry at a time.
const REGISTERING: u32 = 16;
/// One day: longer than any run.
const TOKEN_LIFETIME: Duration = Duration::from_secs(86_400);

/// Measures the three.
pub(super) fn measure(plan: &Plan) -> Result<String> {
    Ok(brokers(plan)? + &registries(plan)? + &api_servers(plan)?)
}

fn brokers(plan: &Plan) -> Result<String> {
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

fn registries(plan: &Plan) -> Result<String> {
    let stage = Stage::new(0)?;
    let registry = Registry::start(&stage.server)?;
    let schema = String::from_utf8(agent::run(&["schema"])?.stdout)?;
    // The first one registers; the others, as agents do, are told that it is there.
    let id = registry.register("fleet-value", &schema)?;
    let pid = registry.pid()?;
    let (began, before) = (Instant::now(), cpu_time(pid)?);
    let each = plan.registrations.div_ceil(REGISTERING);
    thread::scope(|scope| {
        let register_all = || -> Result<()> {
            for _ in 0..each {
                ensure!(registry.register("fleet-value", &schema)? == id, "another id");
            }
            Ok(())
        };
        let threads: Vec<_> = (0..REGISTERING).map(|_| scope.spawn(register_all)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })?;
    let registrations = count(u64::from(each * REGISTERING));
    let (took, cpu) = (began.elapsed(), cpu_time(pid)? - before);
    Ok(format!(
        "One registry (Apicurio), agents that register the schema, {REGISTERING} at a time: \
         {registrations:.0} in {:.1} s, {:.0} a second, {:.1} ms of its CPU each.\n\n",
        took.as_secs_f64(),
        registrations / took.as_secs_f64(),
        cpu.as_secs_f64() * 1e3 / registrations
    ))
}

fn api_servers(plan: &Plan) -> Result<String> {
    let programs = Programs::build()?;
    let stage = Stage::new(0)?;
    let mut table = Table::new(&[
        "agents",
        "all watch after, s",
        "API server's CPU for that, ms an agent",
        "its CPU with no events, ms/s",
        "its RSS, KiB an agent",
    ]);
    for &agents in &plan.watches {
        let api = KubeApi::start(&stage.server)?;
        table.row(watch(&stage, plan, &programs, &api, agents)?);
    }
    Ok(format!(
        "One API server, agents that list and watch the pods of their node, services and nodes, each \
         on a connection of its own:\n\n{}",
        table.finish()
    ))
}

fn watch(
    stage: &Stage,
    plan: &Plan,
    programs: &Programs,
    api: &KubeApi<'_>,
    agents: u32,
) -> Result<[String; 5]> {
    api.kubectl(&["create", "serviceaccount", "agent", "--namespace=default"])?;
    let account = "--serviceaccount=default:agent";
    api.kubectl(&[
        "create",
        "clusterrolebinding",
        "agent",
        "--clusterrole=cluster-admin",
        account,
    ])?;
    let account = api.account("default", "agent", TOKEN_LIFETIME)?;
    let pid = api.pid()?;
    let (began, before, memory) = (Instant::now(), cpu_time(pid)?, Memory::of(pid)?);
    let mut command = stage.server.command(programs.path("watches"));
    command.args(["-url", &api.url(), "-agents", &agents.to_string(), "-ca"]).arg(api.ca());
    command.arg("-token").arg(&account.token_file);
    let process = Process::spawn("watches", command)?;
    process.wait_for_line("agents watch", 0, DEADLINE)?;
    let (took, cpu) = (began.elapsed(), cpu_time(pid)? - before);
    let grown = Memory::of(pid)?.resident.saturating_sub(memory.resident);
    thread::sleep(plan.warm_up);
    let (began, before) = (Instant::now(), cpu_time(pid)?);
    thread::sleep(plan.window);
    let idle = (cpu_time(pid)? - before).as_secs_f64() / began.elapsed().as_secs_f64();
    Ok([
        agents.to_string(),
        format!("{:.1}", took.as_secs_f64()),
        format!("{:.1}", cpu.as_secs_f64() * 1e3 / f64::from(agents)),
        format!("{:.0}", idle * 1e3),
        format!("{:.0}", count(grown >> 10) / f64::from(agents)),
    ])
}
