//! Interfaces that are renamed, move away, come and go, by the thousand.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{sys::signal::Signal, unistd::Pid};
use tap53::control::client::Client;
use tap53_harness::{
    account,
    agent::{self, Agent},
    bpf::{self, Kind},
    dns,
    frames::{FrameSocket, udp_to_port_53},
    namespace::Namespace,
    wait,
};

use crate::{
    DEADLINE,
    stage::{counter, pair_between, require_bare},
};

/// Interfaces that come and go in all, and how many of them are there at a time.
const CYCLES: u32 = 1_000;
const AT_A_TIME: u32 = 50;
const GROUP: &str = "53";

/// Maximum growth of the process after it has seen as many interfaces as exist at a time: memory that the
/// allocator keeps. A leak of 8 KiB for each of a thousand interfaces would exceed it.
const SLACK_KIB: u64 = 4_096;

fn yaml(include: &str, hook: &str) -> String {
    format!(
        "interfaces: {{include: [{include}]}}\n\
         capture: {{hook: {hook}, workers: 2, ring_bytes: 1048576}}\n\
         pair: {{timeout_ms: 300}}\nsinks: [{{type: file, directory: $OUT}}]\n"
    )
}

fn links(pid: Pid) -> Result<Vec<u32>> {
    let objects = bpf::held_by(pid)?;
    Ok(objects.into_iter().filter(|(kind, _)| *kind == Kind::Link).map(|(_, id)| id).collect())
}

/// A client and a server; the agent is to run with the server.
fn namespaces() -> Result<(Namespace, Namespace)> {
    Ok((Namespace::new()?, Namespace::new()?))
}

fn send(client: &Namespace, interface: &str, id: u16) -> Result<()> {
    let query = dns::query(id, "www.tap53.test", "A");
    FrameSocket::open(client, interface)?.send(&udp_to_port_53(4_000, &query))
}

/// Packets captured on their way in, on all interfaces.
pub(crate) fn captured(agent: &Agent) -> Result<u64> {
    let status = Client::new(&agent.control_socket()).status()?.status;
    let interfaces = status["ledger"]["interfaces"].as_array().context("interfaces")?;
    Ok(interfaces.iter().filter_map(|it| it["ingress"]["captured"].as_u64()).sum())
}

/// Sends a query and waits until it is captured: a busy kernel may have it wait at the interface,
/// over the next thing that happens to that.
fn send_captured(agent: &Agent, client: &Namespace, interface: &str, id: u16) -> Result<()> {
    let before = captured(agent)?;
    send(client, interface, id)?;
    wait::until("the query to be captured", DEADLINE, || {
        Ok((captured(agent)? > before).then_some(()))
    })
}

#[test]
fn a_renamed_interface_goes_on_under_its_new_name_and_the_same_links() -> Result<()> {
    for hook in ["tc", "xdp"] {
        let (client, server) = namespaces()?;
        pair_between(&server, &client, "a")?;
        let agent = Agent::start(&server, &yaml("a0, wan*", hook), &[])?;
        let pid = agent.process().pid();
        let before = links(pid)?;
        assert_eq!(before.len(), 2);
        send_captured(&agent, &client, "a1", 1)?;
        for (name, id) in [("wan0", 2), ("wan1", 3)] {
            let old = if id == 2 { "a0" } else { "wan0" };
            server.ip(&["link", "set", old, "name", name])?;
            let line = format!("from=\"{old}\" to=\"{name}\"");
            agent.process().wait_for_line(&line, 0, DEADLINE)?;
            send_captured(&agent, &client, "a1", id)?;
        }
        assert_eq!(links(pid)?, before, "nothing was attached anew");
        // The new name matches no pattern: it is not desired any more.
        server.ip(&["link", "set", "wan1", "name", "other"])?;
        agent.process().wait_for_line("event=\"capture_ended\"", 0, DEADLINE)?;
        require_bare(&server, "other")?;
        let ended = agent.stop()?;
        account::Ledger(&ended.ledger).require_balance()?;
        let mut seen: Vec<_> = ended
            .records
            .iter()
            .map(|r| (r["dns_id"].as_u64(), r["interface"].as_str().unwrap_or_default()))
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, [(Some(1), "a0"), (Some(2), "wan0"), (Some(3), "wan1")]);
    }
    Ok(())
}

#[test]
fn directions_that_change_in_the_file_attach_nothing_anew() -> Result<()> {
    for hook in ["tc", "xdp"] {
        let (client, server) = namespaces()?;
        pair_between(&server, &client, "a")?;
        let yaml = yaml("a0", hook);
        let agent = Agent::start(&server, &yaml, &[])?;
        let pid = agent.process().pid();
        let before = links(pid)?;
        let out = agent.directory().to_str().context("UTF-8")?;
        for directions in ["ingress", "egress", "both"] {
            let with = format!("[a0], directions: {directions}");
            let yaml = yaml.replace("[a0]", &with).replace("$OUT", out);
            let from = agent.process().stderr().len();
            // The directory is watched: no signal.
            fs::write(agent.directory().join("tap53.yaml"), yaml)?;
            let line = format!("directions=\"{directions}\"");
            agent.process().wait_for_line(&line, from, DEADLINE)?;
            assert_eq!(links(pid)?, before, "{directions}");
        }
        account::Ledger(&agent.stop()?.ledger).require_balance()?;
    }
    Ok(())
}

#[test]
fn changes_and_their_clients_are_in_the_log_at_every_level() -> Result<()> {
    let (client, server) = namespaces()?;
    pair_between(&server, &client, "a")?;
    let yaml = yaml("a0", "tc") + "log: {level: error}\n";
    let agent = Agent::launch(server.command(agent::binary()?), &yaml, &[])?;
    let pid = agent.process().pid();
    wait::until("it to attach", DEADLINE, || Ok((links(pid)?.len() == 2).then_some(())))?;
    let out = agent.directory().to_str().context("UTF-8")?;
    let yaml = yaml.replace("[a0]", "[b0]").replace("$OUT", out);
    fs::write(agent.directory().join("tap53.yaml"), yaml)?;
    let line = agent.process().wait_for_line("event=\"config_reloaded\"", 0, DEADLINE)?;
    ensure!(line.contains("interfaces=true"), "{line}");
    wait::until("it to detach", DEADLINE, || Ok(links(pid)?.is_empty().then_some(())))?;
    let log = agent.process().stderr().text();
    ensure!(!log.contains("detached"), "an information at level error: {log}");
    account::Ledger(&agent.stop()?.ledger).require_balance()
}

#[test]
fn an_interface_that_moves_to_another_namespace_is_let_go() -> Result<()> {
    for hook in ["tc", "xdp"] {
        let (client, server) = namespaces()?;
        let elsewhere = Namespace::new()?;
        for pair in ["a", "b"] {
            pair_between(&server, &client, pair)?;
        }
        let agent = Agent::start(&server, &yaml("a0, b0", hook), &[])?;
        assert_eq!(links(agent.process().pid())?.len(), 4);
        send_captured(&agent, &client, "a1", 1)?;
        server.ip(&["link", "set", "a0", "netns", elsewhere.name()])?;
        agent.process().wait_for_line("event=\"interface_removed\"", 0, DEADLINE)?;
        wait::until("the links to be closed", DEADLINE, || {
            Ok((links(agent.process().pid())?.len() == 2).then_some(()))
        })?;
        require_bare(&elsewhere, "a0")?;
        // Packets there must not be captured.
        elsewhere.ip(&["link", "set", "a0", "up"])?;
        send(&client, "a1", 2)?;
        // It comes back, and is captured from again.
        elsewhere.ip(&["link", "set", "a0", "netns", server.name()])?;
        server.ip(&["link", "set", "a0", "up"])?;
        wait::until("it to be captured from again", DEADLINE, || {
            Ok((links(agent.process().pid())?.len() == 4).then_some(()))
        })?;
        send_captured(&agent, &client, "a1", 3)?;
        send_captured(&agent, &client, "b1", 4)?;
        let ended = agent.stop()?;
        account::Ledger(&ended.ledger).require_balance()?;
        let mut seen: Vec<_> = ended
            .records
            .iter()
            .map(|r| (r["dns_id"].as_u64(), r["interface"].as_str().unwrap_or_default()))
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, [(Some(1), "a0"), (Some(3), "a0"), (Some(4), "b0")], "with {hook}");
    }
    Ok(())
}

/// Resources of a process.
#[derive(Debug)]
struct Holds {
    descriptors: usize,
    threads: usize,
    resident_kib: u64,
}

impl Holds {
    fn of(pid: Pid) -> Result<Self> {
        let entries = |what: &str| {
            Ok::<_, anyhow::Error>(fs::read_dir(format!("/proc/{pid}/{what}"))?.count())
        };
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let resident_kib = line.trim().trim_end_matches(" kB").parse()?;
        Ok(Self { descriptors: entries("fd")?, threads: entries("task")?, resident_kib })
    }
}

/// Has `ip` do several things in a namespace, one after the other in one process.
fn ip_batch(namespace: &Namespace, lines: impl IntoIterator<Item = String>) -> Result<()> {
    let mut child = Command::new("ip")
        .args(["-n", namespace.name(), "-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()?;
    let text = lines.into_iter().collect::<Vec<_>>().join("\n");
    child.stdin.take().context("stdin is piped")?.write_all(text.as_bytes())?;
    ensure!(child.wait()?.success(), "ip -batch failed");
    Ok(())
}

#[test]
fn a_thousand_interfaces_that_come_and_go_leave_nothing_behind() -> Result<()> {
    let (client, server) = namespaces()?;
    pair_between(&server, &client, "a")?;
    let agent = Agent::start(&server, &yaml("a0, v*", "tc"), &[])?;
    let pid = agent.process().pid();
    let base = Holds::of(pid)?;
    let mut warm = None;
    for batch in 0..CYCLES / AT_A_TIME {
        let numbers = batch * AT_A_TIME..(batch + 1) * AT_A_TIME;
        ip_batch(
            &server,
            numbers.clone().flat_map(|number| {
                [
                    format!("link add v{number} group {GROUP} type veth peer name w{number}"),
                    format!("link set v{number} arp off addrgenmode none up"),
                    format!("link set w{number} arp off addrgenmode none up"),
                ]
            }),
        )?;
        for number in numbers.clone() {
            let line = format!("capturing interface=\"v{number}\" ");
            agent.process().wait_for_line(&line, 0, DEADLINE)?;
            send(&server, &format!("w{number}"), u16::try_from(number)?)?;
        }
        // All at once, as when a node drains.
        server.ip(&["link", "delete", "group", GROUP])?;
        for number in numbers {
            let line = format!("event=\"interface_removed\" interface=\"v{number}\" ");
            agent.process().wait_for_line(&line, 0, DEADLINE)?;
        }
        wait::until("the links to be closed", DEADLINE, || {
            Ok((links(pid)?.len() == 2).then_some(()))
        })?;
        // The first batches fill tables, buffers and the allocator's pages, which then stay.
        if batch == 3 {
            warm = Some(Holds::of(pid)?);
        }
    }
    let (warm, last) = (warm.context("a fourth batch")?, Holds::of(pid)?);
    println!("before {base:?}, after {} {warm:?}, in the end {last:?}", 4 * AT_A_TIME);
    // The first record opens a file.
    assert_eq!((last.descriptors, last.threads), (base.descriptors + 1, base.threads));
    ensure!(last.resident_kib <= warm.resident_kib + SLACK_KIB, "{last:?} against {warm:?}");

    let ended = agent.stop()?;
    let ledger = &ended.ledger;
    account::Ledger(ledger).require_balance()?;
    let lines = ledger["interfaces"].as_array().context("interfaces")?;
    ensure!(lines.len() <= 70, "{} lines in the ledger", lines.len());
    let captured = |line: &serde_json::Value| line["ingress"]["captured"].as_u64().unwrap_or(0);
    assert_eq!(lines.iter().map(captured).sum::<u64>(), u64::from(CYCLES));
    let earlier =
        lines.iter().find(|line| line["name"] == format!("({} earlier pairs)", CYCLES - 64));
    assert_eq!(earlier.map(captured), Some(u64::from(CYCLES - 64)), "a line for the rest");
    assert_eq!(ended.records.len(), CYCLES as usize);
    for record in &ended.records {
        let id = record["dns_id"].as_u64().context("dns_id")?;
        assert_eq!(record["interface"], format!("v{id}"), "the name that it had");
    }
    Ok(())
}

#[test]
fn interfaces_beyond_the_limit_are_reported_and_captured_from_later() -> Result<()> {
    let (client, server) = namespaces()?;
    for pair in ["a", "b", "c"] {
        pair_between(&server, &client, pair)?;
    }
    let yaml = yaml("a0, b0, c0", "tc").replace("workers: 2", "workers: 2, max_interfaces: 2");
    let agent = Agent::start(&server, &yaml, &[])?;
    let full = "interface c0: no more than 2 interfaces can be captured from at a time";
    agent.process().wait_for_line(full, 0, DEADLINE)?;
    server.ip(&["link", "delete", "a0"])?;
    agent.process().wait_for_line("capturing interface=\"c0\"", 0, DEADLINE)?;
    send(&client, "c1", 7)?;
    let ended = agent.stop()?;
    account::Ledger(&ended.ledger).require_balance()?;
    assert_eq!(counter(&ended.ledger, "c0", "captured"), 1);
    Ok(())
}

/// Pairs created while the agent is stopped: some twenty times the kernel's buffer.
const UNHEARD: u32 = 400;

#[test]
fn a_netlink_overrun_is_resynced() -> Result<()> {
    let (client, server) = namespaces()?;
    pair_between(&server, &client, "a")?;
    let agent = Agent::start(&server, &yaml("a0, v*, last*", "tc"), &[])?;
    agent.process().signal(Signal::SIGSTOP)?;
    server.ip(&["link", "delete", "a0"])?;
    ip_batch(
        &server,
        (0..UNHEARD).flat_map(|number| {
            [
                format!("link add v{number} type veth peer name w{number}"),
                format!("link delete v{number}"),
            ]
        }),
    )?;
    pair_between(&server, &client, "last")?;
    agent.process().signal(Signal::SIGCONT)?;
    agent.process().wait_for_line("event=\"netlink_overrun\"", 0, DEADLINE)?;
    agent.process().wait_for_line("capturing interface=\"last0\"", 0, DEADLINE)?;
    agent.process().wait_for_line("event=\"interface_removed\" interface=\"a0\"", 0, DEADLINE)?;
    wait::until("only the last one to be attached", DEADLINE, || {
        Ok((links(agent.process().pid())?.len() == 2).then_some(()))
    })?;
    send(&client, "last1", 1)?;
    let ended = agent.stop()?;
    account::Ledger(&ended.ledger).require_balance()?;
    assert_eq!(counter(&ended.ledger, "last0", "captured"), 1);
    Ok(())
}

#[test]
fn programs_detached_by_others_are_attached_again() -> Result<()> {
    let (client, server) = namespaces()?;
    pair_between(&server, &client, "a")?;
    let agent = Agent::start(&server, &yaml("a0", "tc"), &[])?;
    let before = links(agent.process().pid())?;
    bpf::detach_link(*before.first().context("a link")?)?;
    let deadline = DEADLINE.max(Duration::from_secs(15));
    agent.process().wait_for_line("event=\"hooks_lost\"", 0, deadline)?;
    let after = wait::until("new links", deadline, || {
        let now = links(agent.process().pid())?;
        Ok((now.len() == 2 && now.iter().all(|id| !before.contains(id))).then_some(now))
    })?;
    assert_ne!(after, before);
    send(&client, "a1", 1)?;
    let ended = agent.stop()?;
    account::Ledger(&ended.ledger).require_balance()?;
    assert_eq!(counter(&ended.ledger, "a0", "captured"), 1);
    Ok(())
}
