//! Processes of clients, by the sockets that they connect or send from.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use tap53_harness::scratch;

use super::*;

const FEW_CONTAINERS: usize = 8;
const CLIENTS: usize = 240;

fn naming_processes(cgroups: &Cgroups) -> String {
    configuration(cgroups).replace("containers:", "containers:\n  processes: true")
}

/// Starts the agent, and waits until it captures at TC.
fn start(lab: &Lab, yaml: &str) -> Result<Agent> {
    let agent = Agent::start(&lab.server, yaml, &[])?;
    agent.process().wait_for_line("why=\"tc is the default for veth devices", 0, DEADLINE)?;
    Ok(agent)
}

/// Gives the client program another name, which becomes that of its process.
fn named(directory: &Path, name: &str) -> Result<PathBuf> {
    let path = directory.join(name);
    symlink(env!("CARGO_BIN_EXE_brief-client"), &path)?;
    Ok(path)
}

/// Runs a client to its end; returns its process identifier.
fn run(mut command: Command) -> Result<u32> {
    let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
    let pid = child.id();
    ensure!(child.wait()?.success(), "{command:?} failed");
    Ok(pid)
}

fn require_process(record: &Value, pid: u32, command: &str) {
    assert_eq!(record["client_pid"], pid, "{record}");
    assert_eq!(record["client_command"], command, "{record}");
}

#[test]
fn short_lived_processes_are_named_whatever_they_send_by() -> Result<()> {
    let lab = Lab::new()?;
    let cgroups = Cgroups::mount()?;
    let agent = start(&lab, &naming_processes(&cgroups))?;
    let containers = (0..FEW_CONTAINERS).map(|number| Container::create(&cgroups, number));
    let containers: Vec<Container> = containers.collect::<Result<_>>()?;
    let programs = scratch::directory("programs")?;
    let servers: [IpAddr; 2] = [SERVER_END.ipv4.into(), SERVER_END.ipv6.into()];
    let names: Vec<String> = (0..CLIENTS).map(|client| format!("p{client}.tap53.test")).collect();
    let command = |client: usize| format!("client-{client}");
    let mut pids = Vec::with_capacity(CLIENTS);
    for (client, name) in names.iter().enumerate() {
        let mut process = lab.client.command(named(programs.path(), &command(client))?);
        let server = servers[client / MODES.len() % servers.len()];
        process.arg(MODES[client % MODES.len()]).arg(server.to_string()).arg(name);
        containers[client % FEW_CONTAINERS].cgroup.hold(&mut process);
        pids.push(run(process)?);
    }
    let records = records(&agent, &names)?;
    for (client, name) in names.iter().enumerate() {
        require_of(&records[name], "client", &containers[client % FEW_CONTAINERS]);
        require_process(&records[name], pids[client], &command(client));
    }
    Ok(())
}

/// A process outside of all containers has a cgroup too: the root, if no other.
#[test]
fn a_process_of_the_host_is_named() -> Result<()> {
    let lab = Lab::new()?;
    let cgroups = Cgroups::mount()?;
    let agent = start(&lab, &naming_processes(&cgroups))?;
    let name = ["host.tap53.test".to_owned()];
    let pid = run(client(&lab.client, "udp", SERVER_END.ipv4.into(), &name))?;
    require_process(&records(&agent, &name)?[&name[0]], pid, "brief-client");
    Ok(())
}

/// A record may be written before the second process sends: then the first one is right.
#[test]
fn of_several_processes_with_one_socket_none_is_guessed() -> Result<()> {
    let lab = Lab::new()?;
    let cgroups = Cgroups::mount()?;
    let agent = start(&lab, &naming_processes(&cgroups))?;
    let names = ["first.tap53.test".to_owned(), "second.tap53.test".to_owned()];
    let first = run(client(&lab.client, "shared", SERVER_END.ipv4.into(), &names))?;
    let records = records(&agent, &names)?;
    let [of_first, of_second] = names.map(|name| records[&name]["client_pid"].clone());
    assert!(of_first.is_null() || of_first == first, "{of_first} and not {first}");
    assert_eq!(of_second, Value::Null);
    Ok(())
}

#[test]
fn without_the_setting_no_process_is_named() -> Result<()> {
    let lab = Lab::new()?;
    let cgroups = Cgroups::mount()?;
    let agent = start(&lab, &configuration(&cgroups))?;
    let name = ["off.tap53.test".to_owned()];
    run(client(&lab.client, "connected", SERVER_END.ipv4.into(), &name))?;
    let record = &records(&agent, &name)?[&name[0]];
    assert!(record["client_user_id"].is_u64(), "its socket is seen: {record}");
    for field in ["client_pid", "client_command"] {
        assert_eq!(record.get(field), Some(&Value::Null), "{field} in {record}");
    }
    Ok(())
}

/// The rest of the record does not depend on it.
#[test]
fn without_a_tree_of_cgroups_the_agent_says_so_and_captures() -> Result<()> {
    let lab = Lab::new()?;
    let cgroups = Cgroups::mount()?;
    let nothing = scratch::directory("no-cgroups")?;
    let yaml = naming_processes(&cgroups)
        .replace(&cgroups.root().display().to_string(), &nothing.path().display().to_string());
    let agent = start(&lab, &yaml)?;
    agent.process().wait_for_line("event=\"processes_unavailable\"", 0, DEADLINE)?;
    let name = ["none.tap53.test".to_owned()];
    run(client(&lab.client, "udp", SERVER_END.ipv4.into(), &name))?;
    assert_eq!(records(&agent, &name)?[&name[0]]["client_pid"], Value::Null);
    Ok(())
}
