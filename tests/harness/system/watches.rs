//! Each watch of an agent alone, at an API server that has the objects of a cluster: what it lists,
//! what an event is, and what an event costs that an agent does not even receive. From these follow
//! the figures of a large cluster.

use std::{
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    Plan, measure::count, programs::Programs, services::fleet_token, stage::Stage, table::Table,
};
use crate::{
    kube::KubeApi,
    process::{Process, run},
    usage::cpu_time,
};

const DEADLINE: Duration = Duration::from_secs(240);

/// Pods of DNS servers that are written.
const SERVERS: u32 = 4;

/// Changes that agents elsewhere do not receive, for each that they do.
const UNRECEIVED: u32 = 10;

/// A pod and a node that change. Agents 1 and later are on other nodes than agent 0.
const POD: &str = "namespaces/default/pods/web-7d4b9c6f5-0000-000";
const NODE: &str = "nodes/node-0";

/// A watch of an agent.
struct Watch {
    name: &'static str,
    /// Path and query, as the program `watches` takes them.
    path: &'static str,
    /// The object whose changes the API server may have to pass on.
    changes: &'static str,
    metadata: bool,
    /// Objects that it has in the large cluster, on one node.
    objects: u32,
    /// Events a second in the large cluster that the API server looks at for it, and those that it
    /// passes on.
    considered: f64,
    received: f64,
}

/// The large cluster.
const NODES: u32 = 5_000;
const PODS_OF_A_NODE: u32 = 20;
const SERVICES: u32 = 5_000;
/// One for 16 nodes: the default of cluster-proportional-autoscaler.
const DNS_SERVERS: u32 = 313;
/// A pod lives for two hours on average and has eight events.
const POD_EVENTS: f64 = 100_000.0 / 7_200.0 * 8.0;
/// A pod of a DNS server lives for a day.
const SERVER_EVENTS: f64 = 313.0 / 86_400.0 * 8.0;
/// A kubelet writes its node every five minutes, whatever happens.
const NODE_EVENTS: f64 = 5_000.0 / 300.0;

const SELECTED: &str = "labelSelector=k8s-app%20in%20(kube-dns,node-local-dns)";

fn watches() -> [Watch; 10] {
    let watch = |name, path, objects, considered, received| Watch {
        name,
        path,
        changes: POD,
        metadata: false,
        objects,
        considered,
        received,
    };
    let nodes = |name, path, objects, received| Watch {
        changes: NODE,
        ..watch(name, path, objects, NODE_EVENTS, received)
    };
    [
        watch(
            "pods of the node (`scope: node`)",
            "pods?fieldSelector=spec.nodeName%3DNODE",
            PODS_OF_A_NODE,
            POD_EVENTS,
            POD_EVENTS / f64::from(NODES),
        ),
        watch(
            "DNS servers in kube-system (`servers`)",
            concat!(
                "namespaces/kube-system/pods?fieldSelector=spec.hostNetwork%3Dfalse",
                "&labelSelector=k8s-app%20in%20(kube-dns,node-local-dns)"
            ),
            DNS_SERVERS,
            POD_EVENTS,
            SERVER_EVENTS,
        ),
        watch(
            "the same in all namespaces",
            concat!(
                "pods?fieldSelector=spec.hostNetwork%3Dfalse",
                "&labelSelector=k8s-app%20in%20(kube-dns,node-local-dns)"
            ),
            DNS_SERVERS,
            POD_EVENTS,
            SERVER_EVENTS,
        ),
        watch(
            "the same with the host's network",
            "pods?labelSelector=k8s-app%20in%20(kube-dns,node-local-dns)",
            DNS_SERVERS + NODES,
            POD_EVENTS,
            SERVER_EVENTS + f64::from(NODES) / 86_400.0 * 8.0,
        ),
        watch(
            "all pods (`scope: cluster`)",
            "pods?",
            PODS_OF_A_NODE * NODES,
            POD_EVENTS,
            POD_EVENTS,
        ),
        nodes(
            "own node",
            "nodes?fieldSelector=metadata.name%3DNODE",
            1,
            NODE_EVENTS / f64::from(NODES),
        ),
        Watch { metadata: true, ..nodes("all nodes, metadata only", "nodes?", NODES, NODE_EVENTS) },
        nodes("all nodes (`nodes: true`)", "nodes?", NODES, NODE_EVENTS),
        watch("all services (`services: true`)", "services?", SERVICES, 0.0, 0.0),
        watch("services of DNS servers (`services: servers`)", "", 1, 0.0, 0.0),
    ]
}

/// Measurement of a watch.
struct Measured {
    /// Bytes of a listed object.
    listed: f64,
    /// Bytes of an event; 0 where agents receive none.
    event: f64,
    /// Received events for each change and agent: 0 or 1.
    share: f64,
    /// CPU of the API server for each change and agent, in µs.
    cpu_us: f64,
}

/// Measures each watch, and calculates the large cluster.
pub(super) fn measure(plan: &Plan) -> Result<String> {
    let programs = Programs::build()?;
    let stage = Stage::new(0)?;
    let api = KubeApi::start(&stage.server)?;
    let fleet =
        Fleet { stage: &stage, plan, programs: &programs, api: &api, token: fleet_token(&api)? };
    fleet.populate()?;
    // The cost of a change itself, and of whatever else the server does meanwhile.
    let alone = [fleet.change_alone(POD)?, fleet.change_alone(NODE)?];
    let (mut measured, mut large) = (measured_table(), large_table());
    for watch in watches() {
        let path = match watch.path {
            "" => format!("namespaces/kube-system/services?{SELECTED}"),
            path => path.to_owned(),
        };
        let alone = alone[usize::from(watch.changes == NODE)];
        let figures = fleet.measure(&watch, &path, alone)?;
        measured.row(measured_row(&watch, &figures));
        large.row(large_row(&watch, &figures));
    }
    let Plan { cluster_nodes, watchers, changes, .. } = plan;
    Ok(format!(
        "One API server with {cluster_nodes} nodes of {PODS_OF_A_NODE} pods and one pod of NodeLocal DNSCache, \
         {SERVERS} pods of DNS servers and 100 services; {watchers} agents, each with this watch alone, \
         while a pod (or node) elsewhere changes {changes} times, or {UNRECEIVED} times as often if they do not \
         receive it:\n\n{}\
         From these figures, {NODES} nodes and agents, {} pods with {POD_EVENTS:.0} events a second, \
         {DNS_SERVERS} DNS servers, {SERVICES} services, and nodes that are written every five minutes:\n\n{}",
        measured.finish(),
        NODES * PODS_OF_A_NODE,
        large.finish()
    ))
}

fn measured_table() -> Table {
    Table::new(&[
        "watch",
        "bytes an object listed",
        "agents that receive the change",
        "bytes an event",
        "API server, µs a change and agent",
    ])
}

fn measured_row(watch: &Watch, figures: &Measured) -> [String; 5] {
    let changed = watch.considered > 0.0;
    let some = |known: bool, text: String| if known { text } else { "–".to_owned() };
    [
        watch.name.to_owned(),
        format!("{:.0}", figures.listed),
        some(changed, format!("{:.0} %", figures.share * 100.0)),
        some(figures.event > 0.0, format!("{:.0}", figures.event)),
        some(changed, format!("{:.1}", figures.cpu_us)),
    ]
}

fn large_table() -> Table {
    Table::new(&[
        "watch",
        "at start, MB an agent",
        "at start, GB in all",
        "events/s an agent",
        "events/s in all",
        "MB/s in all",
        "API server's cores",
    ])
}

fn large_row(watch: &Watch, figures: &Measured) -> [String; 7] {
    let (agents, listed) = (f64::from(NODES), f64::from(watch.objects) * figures.listed);
    let events = watch.received * agents;
    // An event that is received has the size of an object where none was measured.
    let event = if figures.event > 0.0 { figures.event } else { figures.listed };
    let cores = watch.considered * agents * figures.cpu_us / 1e6;
    [
        watch.name.to_owned(),
        format!("{:.2}", listed / 1e6),
        format!("{:.1}", listed * agents / 1e9),
        format!("{:.3}", watch.received),
        format!("{events:.0}"),
        format!("{:.1}", events * event / 1e6),
        format!("{cores:.2}"),
    ]
}

/// Agents with one watch each, and the API server.
struct Fleet<'a> {
    stage: &'a Stage,
    plan: &'a Plan,
    programs: &'a Programs,
    api: &'a KubeApi<'a>,
    token: PathBuf,
}

impl Fleet<'_> {
    fn command(&self, program: &str) -> std::process::Command {
        let mut command = self.stage.server.command(self.programs.path(program));
        command.args(["-url", &self.api.url(), "-ca"]).arg(self.api.ca());
        command.arg("-token").arg::<&Path>(&self.token);
        command
    }

    fn populate(&self) -> Result<()> {
        let mut command = self.command("cluster");
        command.args(["-nodes", &self.plan.cluster_nodes.to_string(), "-services", "100"]);
        command.args(["-pods", &PODS_OF_A_NODE.to_string(), "-servers", &SERVERS.to_string()]);
        run(&mut command).map(drop)
    }

    /// Measures a watch, given the server's CPU for a change without agents, in seconds.
    fn measure(&self, watch: &Watch, path: &str, alone: f64) -> Result<Measured> {
        let agents = count(u64::from(self.plan.watchers));
        let changes = count(u64::from(self.changes(watch)));
        let (report, cpu) = self.run(watch, path, self.plan.watchers)?;
        let number =
            |name: &str| report[name].as_f64().with_context(|| format!("{name}: {report}"));
        let (objects, events) = (number("objects")?, number("events")?);
        // The first agent is on the node of what changes, and receives it with any watch.
        let of_others = events - changes;
        ensure!(objects > 0.0 && of_others >= -changes, "{}: {report}", watch.name);
        let share = (of_others / (changes * (agents - 1.0))).max(0.0);
        let event = if events > 0.0 { number("event_bytes")? / events } else { 0.0 };
        Ok(Measured {
            listed: number("listed_bytes")? / objects,
            event,
            share,
            cpu_us: (cpu / changes - alone).max(0.0) * 1e6 / agents,
        })
    }

    /// Returns the server's CPU for a change without agents, in seconds.
    fn change_alone(&self, changes: &'static str) -> Result<f64> {
        let [watch, ..] = watches();
        let watch = Watch { changes, ..watch };
        let (_, cpu) = self.run(&watch, watch.path, 0)?;
        Ok(cpu / count(u64::from(self.changes(&watch))))
    }

    /// Number of changes: more where each costs so little that it would vanish in the rest.
    fn changes(&self, watch: &Watch) -> u32 {
        let is_received = watch.received >= watch.considered;
        if is_received { self.plan.changes } else { self.plan.changes * UNRECEIVED }
    }

    /// Returns the agents' report, and the API server's CPU while objects changed, in seconds.
    fn run(&self, watch: &Watch, path: &str, agents: u32) -> Result<(Value, f64)> {
        let mut command = self.command("watches");
        command.args(["-list-once", "-agents", &agents.to_string(), "-watch", path]);
        command.args(["-patch", watch.changes, "-events", &self.changes(watch).to_string()]);
        command.args(["-settle", &format!("{}ms", 2 * self.plan.warm_up.as_millis())]);
        command.args(watch.metadata.then_some("-metadata"));
        let pid = self.api.pid()?;
        let process = Process::spawn("watches", command)?;
        process.wait_for_line("changes begin", 0, DEADLINE)?;
        let before = cpu_time(pid)?;
        let report = process.stdout().wait_for_line("event_bytes", 0, DEADLINE)?;
        let cpu = (cpu_time(pid)? - before).as_secs_f64();
        let report =
            serde_json::from_str(&report).with_context(|| format!("a report: {report}"))?;
        drop(process);
        // Until its connections are closed at the server.
        thread::sleep(self.plan.warm_up);
        Ok((report, cpu))
    }
}
