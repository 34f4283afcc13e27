//! Containers by the cgroups of their sockets: on a real kernel, with cgroups that are named as
//! container runtimes name them, and without an API server.

#[path = "containers/processes.rs"]
mod processes;

use std::{collections::HashMap, net::IpAddr, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tap53_harness::{
    agent::Agent,
    bpf::{XdpHolder, XdpMode},
    cgroups::{Cgroup, Cgroups},
    lab::Lab,
    namespace::{CLIENT_END, Namespace, SERVER_END},
    process,
    unbound::Unbound,
    wait,
};

const DEADLINE: Duration = Duration::from_secs(60);

/// The ways in which a client can send.
const MODES: [&str; 4] = ["udp", "connected", "tcp", "sendmmsg"];

/// Containers of the short-lived processes, and those processes.
const CONTAINERS: usize = 50;
const PROCESSES: usize = 1_000;

/// A container of a pod.
struct Container {
    id: String,
    pod_uid: String,
    cgroup: Cgroup,
}

impl Container {
    /// Creates its cgroup: every other one as the systemd driver names it.
    fn create(cgroups: &Cgroups, number: usize) -> Result<Self> {
        let id = format!("{number:064x}");
        let pod_uid = format!("8d3f1d4e-5c2b-4a57-9b0e-{number:012x}");
        let path = if number.is_multiple_of(2) {
            format!("kubepods/burstable/pod{pod_uid}/{id}")
        } else {
            let uid = pod_uid.replace('-', "_");
            format!("kubepods.slice/kubepods-pod{uid}.slice/cri-containerd-{id}.scope")
        };
        let cgroup = cgroups.create(&path)?;
        Ok(Self { id, pod_uid, cgroup })
    }

    /// Has a process of it send queries for `names` and end.
    fn send(&self, namespace: &Namespace, mode: &str, to: IpAddr, names: &[String]) -> Result<()> {
        let mut command = client(namespace, mode, to, names);
        self.cgroup.hold(&mut command);
        process::run(&mut command).map(drop)
    }
}

fn client(namespace: &Namespace, mode: &str, to: IpAddr, names: &[String]) -> Command {
    let mut command = namespace.command(env!("CARGO_BIN_EXE_brief-client"));
    command.arg(mode).arg(to.to_string()).args(names);
    command
}

fn configuration(cgroups: &Cgroups) -> String {
    format!(
        r#"
node: node-1
interfaces:
  include: ["kind:pods"]
pair:
  timeout_ms: 300
containers:
  cgroup_root: {}
sinks:
  - type: stdout
    format: json
"#,
        cgroups.root().display()
    )
}

/// Waits for the record of each name, and returns them by name.
fn records(agent: &Agent, names: &[String]) -> Result<HashMap<String, Value>> {
    wait::until("a record for each query", DEADLINE, || {
        let mut records = HashMap::new();
        for line in agent.process().stdout().lines() {
            let record: Value = serde_json::from_str(&line).context("a record")?;
            let name = record["qname"].as_str().unwrap_or_default().to_owned();
            ensure!(records.insert(name.clone(), record).is_none(), "two records of {name}");
        }
        Ok(names.iter().all(|name| records.contains_key(name)).then_some(records))
    })
}

fn require_of(record: &Value, side: &str, container: &Container) {
    for (field, expected) in [
        ("attribution", Value::from("POD")),
        ("attribution_source", "SOCKET".into()),
        ("attribution_conflict", false.into()),
        ("container_id", container.id.as_str().into()),
        ("pod_uid", container.pod_uid.as_str().into()),
        ("node_name", "node-1".into()),
        ("user_id", 0.into()),
    ] {
        assert_eq!(record[format!("{side}_{field}")], expected, "{side}_{field} in {record}");
    }
}

#[test]
fn a_thousand_short_lived_processes_are_named_by_their_containers() -> Result<()> {
    let lab = Lab::new()?;
    let cgroups = Cgroups::mount()?;
    let agent = Agent::start(&lab.server, &configuration(&cgroups), &[])?;
    // XDP would see no sockets.
    agent.process().wait_for_line("why=\"tc is the default for veth devices", 0, DEADLINE)?;
    // Created while the agent runs: it has to follow them.
    let containers = (0..CONTAINERS).map(|number| Container::create(&cgroups, number));
    let containers: Vec<Container> = containers.collect::<Result<_>>()?;
    let name = |process: usize| format!("p{process}.tap53.test");
    for process in 0..PROCESSES {
        let (container, mode) = (&containers[process % CONTAINERS], MODES[process % MODES.len()]);
        container.send(&lab.client, mode, SERVER_END.ipv4.into(), &[name(process)])?;
    }
    let names: Vec<String> = (0..PROCESSES).map(name).collect();
    let records = records(&agent, &names)?;
    for (process, name) in names.iter().enumerate() {
        require_of(&records[name], "client", &containers[process % CONTAINERS]);
    }
    Ok(())
}

#[test]
fn many_queries_of_one_call_are_all_of_their_container() -> Result<()> {
    let lab = Lab::new()?;
    let cgroups = Cgroups::mount()?;
    let agent = Agent::start(&lab.server, &configuration(&cgroups), &[])?;
    let container = Container::create(&cgroups, 1)?;
    let names: Vec<String> = (0..20).map(|number| format!("m{number}.tap53.test")).collect();
    container.send(&lab.client, "sendmmsg", SERVER_END.ipv4.into(), &names)?;
    let records = records(&agent, &names)?;
    names.iter().for_each(|name| require_of(&records[name], "client", &container));
    Ok(())
}

/// A pod in the host's network leaves by the node's device, where the egress hook sees its socket;
/// the resolver in the other namespace is a container of another node, whose socket never comes here.
#[test]
fn a_pod_in_the_hosts_network_is_named_and_so_is_a_server() -> Result<()> {
    let lab = Lab::new()?;
    let address = IpAddr::from(CLIENT_END.ipv4);
    let _resolver = Unbound::start(&lab.client, &[address])?;
    let cgroups = Cgroups::mount()?;
    let agent = Agent::start(&lab.server, &configuration(&cgroups), &[])?;
    let container = Container::create(&cgroups, 7)?;
    let (inside, outside) = ("inside.tap53.test".to_owned(), "outside.tap53.test".to_owned());
    container.send(&lab.server, "udp", address, std::slice::from_ref(&inside))?;
    process::run(&mut client(&lab.server, "udp", address, std::slice::from_ref(&outside)))?;
    let records = records(&agent, &[inside.clone(), outside.clone()])?;
    require_of(&records[&inside], "client", &container);
    // The resolver is a process of the host: its socket is seen, and it is in no container.
    for (record, side) in [(&records[&inside], "server"), (&records[&outside], "client")] {
        assert!(record[format!("{side}_user_id")].is_u64(), "{side} in {record}");
        assert_eq!(record[format!("{side}_container_id")], Value::Null, "{side} in {record}");
    }
    Ok(())
}

/// XDP has no socket to see: the record says so by what it leaves out.
#[test]
fn without_a_socket_nothing_is_guessed() -> Result<()> {
    let lab = Lab::new()?;
    let cgroups = Cgroups::mount()?;
    let yaml = format!("{}capture: {{hook: xdp}}\n", configuration(&cgroups));
    let agent = Agent::start(&lab.server, &yaml, &[])?;
    let container = Container::create(&cgroups, 3)?;
    let name = "xdp.tap53.test".to_owned();
    container.send(&lab.client, "udp", SERVER_END.ipv4.into(), std::slice::from_ref(&name))?;
    let record = &records(&agent, std::slice::from_ref(&name))?[&name];
    for field in ["container_id", "pod_uid", "user_id", "attribution_source"] {
        assert_eq!(record[format!("client_{field}")], Value::Null, "{record}");
    }
    assert_eq!(record["client_attribution"], "UNATTRIBUTED");
    Ok(())
}

/// If another program occupies XDP in native mode, veth copies the packet for it, and the kernel may
/// give up the socket with the original: then nothing is guessed either.
#[test]
fn behind_xdp_of_others_the_container_is_right_or_unknown() -> Result<()> {
    let lab = Lab::new()?;
    let cgroups = Cgroups::mount()?;
    let container = Container::create(&cgroups, 5)?;
    for mode in [XdpMode::Generic, XdpMode::Native] {
        let _holder = XdpHolder::attach(&lab.server, "s0", mode)?;
        let agent = Agent::start(&lab.server, &configuration(&cgroups), &[])?;
        let name = format!("{mode:?}.tap53.test").to_lowercase();
        container.send(&lab.client, "udp", SERVER_END.ipv4.into(), std::slice::from_ref(&name))?;
        let record = &records(&agent, std::slice::from_ref(&name))?[&name];
        println!("{mode:?}: container {}", record["client_container_id"]);
        if record["client_user_id"].is_null() {
            assert_eq!(record["client_container_id"], Value::Null, "{record}");
        } else {
            require_of(record, "client", &container);
        }
    }
    Ok(())
}
