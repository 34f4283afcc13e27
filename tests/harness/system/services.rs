//! Many agents against one registry and one API server. docs/scale.md has the arithmetic.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::{Plan, measure::count, programs::Programs, stage::Stage, table::Table};
use crate::{
    agent,
    kube::KubeApi,
    process::Process,
    registry::Registry,
    usage::{Memory, cpu_time},
};

const DEADLINE: Duration = Duration::from_secs(120);
/// Requests to the registry at a time.
const REGISTERING: u32 = 16;
/// One day: longer than any run.
const TOKEN_LIFETIME: Duration = Duration::from_secs(86_400);

/// Measures both.
pub(super) fn measure(plan: &Plan) -> Result<String> {
    Ok(registry(plan)? + &api_server(plan)?)
}

fn registry(plan: &Plan) -> Result<String> {
    let stage = Stage::new(0)?;
    let registry = Registry::start(&stage.server)?;
    let schema = String::from_utf8(agent::run(&["schema"])?.stdout)?;
    // The first one registers; the others, as agents do, find the schema registered.
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

fn api_server(plan: &Plan) -> Result<String> {
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
        "One API server, agents that list and watch the pods of their node, DNS servers' pods, \
         services and their node, each on a connection of its own:\n\n{}",
        table.finish()
    ))
}

/// Returns the file of a token that may do everything.
pub(super) fn fleet_token(api: &KubeApi<'_>) -> Result<PathBuf> {
    api.kubectl(&["create", "serviceaccount", "agent", "--namespace=default"])?;
    let account = "--serviceaccount=default:agent";
    api.kubectl(&[
        "create",
        "clusterrolebinding",
        "agent",
        "--clusterrole=cluster-admin",
        account,
    ])?;
    Ok(api.account("default", "agent", TOKEN_LIFETIME)?.token_file)
}

fn watch(
    stage: &Stage,
    plan: &Plan,
    programs: &Programs,
    api: &KubeApi<'_>,
    agents: u32,
) -> Result<[String; 5]> {
    let token = fleet_token(api)?;
    let pid = api.pid()?;
    let (began, before, memory) = (Instant::now(), cpu_time(pid)?, Memory::of(pid)?);
    let mut command = stage.server.command(programs.path("watches"));
    command.args(["-url", &api.url(), "-agents", &agents.to_string(), "-ca"]).arg(api.ca());
    command.arg("-token").arg(&token);
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
