//! Operators in control of a running agent: commands through the control socket, who may and who may
//! not, and that nothing which happens there costs a packet.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, UdpSocket},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    path::Path,
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicBool, AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::Signal,
    unistd::{Uid, chown},
};
use serde_json::{Value, json};
use tap53::{
    config::Directions,
    control::{client::Client, protocol::Call},
};
use tap53_harness::{
    account::Ledger,
    agent::{self, Agent},
    bpf::{self, Place, TcxHolder, verdict},
    client::Transport,
    dns,
    frames::{FrameSocket, udp_to_port_53},
    lab::{ANSWERED, Lab, UNANSWERED},
    namespace::{End, join},
    process::{self, Process},
    wait,
};

#[path = "control/abuse.rs"]
mod abuse;
#[path = "control/questions.rs"]
mod questions;
#[path = "control/tail.rs"]
mod tail;
#[path = "control/toggles.rs"]
mod toggles;

const DEADLINE: Duration = Duration::from_secs(30);
const FAILED: i32 = 1;

/// One interface is selected; the other is switched by commands.
const CONFIGURATION: &str = "
interfaces:
  include: [s0]
capture:
  workers: 2
pair:
  timeout_ms: 300
sinks:
  - type: file
    directory: $OUT
";

/// A second veth pair between the same namespaces, over which nothing goes that a test does not
/// send.
struct SecondPair {
    /// Receives the packets, so that no ICMP error is sent back.
    _sink: UdpSocket,
    client: UdpSocket,
    /// Id of the next query: a query that repeats an id would be a retry without a record.
    next_id: AtomicU16,
}

const C1: End = End {
    interface: "c1",
    mac: [0x02, 0, 0, 0, 0x53, 0x11],
    ipv4: std::net::Ipv4Addr::new(203, 0, 113, 1),
    ipv6: std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1),
};
const S1: End = End {
    interface: "s1",
    mac: [0x02, 0, 0, 0, 0x53, 0x12],
    ipv4: std::net::Ipv4Addr::new(203, 0, 113, 2),
    ipv6: std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 2),
};

impl SecondPair {
    fn new(lab: &Lab) -> Result<Self> {
        join((&lab.client, C1), (&lab.server, S1), 1_500)?;
        let sink = lab.server.enter(|| Ok(UdpSocket::bind((S1.ipv4, 53))?))?;
        let client = lab.client.enter(|| {
            let socket = UdpSocket::bind((C1.ipv4, 0))?;
            socket.connect((S1.ipv4, 53))?;
            Ok(socket)
        })?;
        Ok(Self { _sink: sink, client, next_id: AtomicU16::new(0) })
    }

    fn send_one(&self) -> Result<()> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.client.send(&dns::query(id, UNANSWERED.name, UNANSWERED.qtype))?;
        Ok(())
    }

    /// Sends queries, and waits until the interface has received them: a veth delivers in order.
    fn send(&self, lab: &Lab, count: u64) -> Result<()> {
        let before = lab.server.packets("s1")?.received;
        for _ in 0..count {
            self.send_one()?;
        }
        wait::until("s1 to receive what was sent", DEADLINE, || {
            Ok((lab.server.packets("s1")?.received >= before + count).then_some(()))
        })
    }
}

/// Runs `tap53` for the agent to its end.
fn command(agent: &Agent, arguments: &[&str]) -> Result<Output> {
    agent.command(arguments)?.output().context("start tap53")
}

fn status(agent: &Agent) -> Result<Value> {
    let output = command(agent, &["status", "-o", "json"])?;
    ensure!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).context("the status is not JSON")
}

/// Returns the part of a status about one interface; null if it has none.
fn of<'a>(status: &'a Value, interface: &str) -> &'a Value {
    let all = status["interfaces"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().find(|status| status["name"] == interface).unwrap_or(&Value::Null)
}

fn is_capturing(status: &Value, interface: &str) -> [bool; 2] {
    ["ingress", "egress"].map(|way| of(status, interface)[way]["capturing"] == true)
}

/// Returns the counts of a ledger for received packets of one interface.
fn ingress<'a>(ledger: &'a Value, interface: &str) -> &'a Value {
    let all = ledger["interfaces"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = all.iter().find(|counts| counts["name"] == interface);
    found.map_or(&Value::Null, |counts| &counts["ingress"])
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asserts that a command succeeded; returns its output.
fn succeed(agent: &Agent, arguments: &[&str]) -> Result<String> {
    let output = command(agent, arguments)?;
    ensure!(
        output.status.success(),
        "{arguments:?}: {}{}\nagent's log:\n{}",
        stdout(&output),
        stderr(&output),
        agent.process().stderr().text()
    );
    Ok(stdout(&output))
}

/// Needs a kernel with TCX.
#[test]
fn the_status_names_the_program_that_keeps_packets_away() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    let socket = FrameSocket::open(&lab.client, "c0")?;
    let query = udp_to_port_53(4_242, &dns::query(1, "www.tap53.test", "A"));
    let shadowed_after_packets = |wanted: &str| {
        wait::until(wanted, DEADLINE, || {
            (0..32).try_for_each(|_| socket.send(&query))?;
            let status = status(&agent)?;
            let s0 = of(&status, "s0");
            ensure!(s0["egress"]["shadowed"].is_null(), "{s0}");
            let shadowed = s0["ingress"]["shadowed"].as_str().unwrap_or("nobody");
            Ok(shadowed.starts_with(wanted).then(|| shadowed.to_owned()))
        })
    };
    shadowed_after_packets("nobody")?;
    succeed(&agent, &["status", "--check"])?;

    let ahead = TcxHolder::attach(&lab.server, "s0", false, Place::First, verdict::TC_OK)?;
    let name = format!("program {} ahead at tcx", ahead.program_id());
    shadowed_after_packets(&format!("{name}: 0 of "))?;
    assert!(!command(&agent, &["status", "--check"])?.status.success(), "not as it is wanted");
    let text = succeed(&agent, &["status"])?;
    assert!(text.contains(&format!("ingress shadowed by {name}")), "{text}");

    drop(ahead);
    shadowed_after_packets("nobody")?;
    succeed(&agent, &["status", "--check"])?;
    Ok(())
}

#[test]
fn the_status_is_json_and_true() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    // Captured packets take a moment to pass the rings.
    let status = wait::until("both packets to be taken in", DEADLINE, || {
        let status = status(&agent)?;
        let received = status["ledger"]["agent"]["packets"]["received"] == 2;
        Ok(received.then_some(status))
    })?;
    let s0 = of(&status, "s0");
    assert_eq!(s0["ifindex"], lab.server.link("s0")?["ifindex"]);
    assert_eq!((&s0["wanted"], &s0["wanted_by"]), (&json!("both"), &json!("file")));
    assert_eq!(s0["wanted_for_s"], Value::Null);
    // The kernel's own list of attached programs.
    let hooks = ["ingress", "egress"].map(|way| s0[way]["hook"].clone());
    let links = links_held(&agent)?;
    assert_eq!(links.len(), hooks.iter().filter(|hook| !hook.is_null()).count(), "{s0}");
    assert_eq!(is_capturing(&status, "s0"), [true, true]);
    assert_eq!(status["ledger"]["interfaces"][0]["ingress"]["seen"], 1);
    Ledger(&status["ledger"]).require_balance()?;
    assert!(status["uptime_s"].as_u64().is_some_and(|seconds| seconds < 600));
    assert!(status["config"]["file"].as_str().is_some_and(|file| file.ends_with("tap53.yaml")));
    // And for people.
    let text = succeed(&agent, &["status"])?;
    for part in ["tap53 ", "s0", "both", "tcx", "ledger of", "balanced: yes"] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    assert!(!text.contains('\x1b'), "colour without a terminal");
    assert_eq!(succeed(&agent, &["status", "--check"])?, "");
    agent.stop()?;
    Ok(())
}

fn links_held(agent: &Agent) -> Result<BTreeSet<bpf::Object>> {
    let held = bpf::held_by(agent.process().pid())?;
    Ok(held.into_iter().filter(|(kind, _)| *kind == bpf::Kind::Link).collect())
}

#[test]
fn without_an_agent_a_command_names_the_socket() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("control.sock");
    let socket = path.to_str().context("UTF-8")?;
    for arguments in [&["status"][..], &["status", "--check"], &["enable", "eth0"], &["tail"]] {
        let output = agent::run(&[arguments, &["--socket", socket]].concat())?;
        assert_eq!(output.status.code(), Some(FAILED));
        let expected = format!(
            "tap53: no agent answers at {socket}: is it running? (No such file or directory)\n"
        );
        assert_eq!(stderr(&output), expected);
    }
    Ok(())
}

#[test]
fn the_socket_is_removed_at_the_end_and_a_killed_agents_one_is_replaced() -> Result<()> {
    let lab = Lab::new()?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("run/control.sock");
    let configuration = format!("{CONFIGURATION}\ncontrol: {{socket: {}}}\n", path.display());
    let status = || agent::run(&["status", "-o", "json", "--socket", path.to_str().unwrap_or("")]);

    let mut killed = Agent::start(&lab.server, &configuration, &[])?;
    assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
    assert!(status()?.status.success());
    killed.process_mut().kill();
    assert!(path.exists(), "nobody could remove it");
    let output = status()?;
    assert!(stderr(&output).contains("Connection refused"), "{}", stderr(&output));

    let first = Agent::start(&lab.server, &configuration, &[])?;
    assert!(status()?.status.success());
    // A second agent captures, and leaves the socket to the first until that ends.
    let second = Agent::start(&lab.server, &configuration, &[])?;
    let pid = first.process().pid();
    second.process().wait_for_line("event=\"control_socket_in_use\"", 0, DEADLINE)?;
    let log = second.process().stderr().text();
    ensure!(log.contains(&format!("process {pid}")), "{log}");
    first.stop()?;
    second.process().wait_for_line("event=\"control_socket_open\"", 0, DEADLINE)?;
    assert!(status()?.status.success());
    second.stop()?;
    assert!(!path.exists());
    assert!(!path.with_file_name("control.sock.lock").exists());
    Ok(())
}

/// Runs `tap53 status` as the user nobody, with file permissions that allow it.
fn as_nobody_who_overrides(agent: &Agent) -> Result<Output> {
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    setpriv.args(["--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"]);
    setpriv.arg(agent::binary()?).args(["status", "--socket"]).arg(agent.control_socket());
    setpriv.output().context("start setpriv")
}

#[test]
fn a_denied_user_gets_the_allowed_uids_and_is_counted() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    // The file's permissions keep most out.
    let open = tempfile::tempdir()?;
    fs::set_permissions(open.path(), fs::Permissions::from_mode(0o755))?;
    let output = status_as(65_534, open.path(), &agent.control_socket())?;
    assert_eq!(output.status.code(), Some(FAILED));
    let message = stderr(&output);
    assert!(message.contains("is not open to uid 65534"), "{message}");
    // Who passes them, by a capability, is looked at by SO_PEERCRED.
    let output = as_nobody_who_overrides(&agent)?;
    assert_eq!(output.status.code(), Some(FAILED));
    let expected = "tap53: uid 65534 may not control this agent; allowed: uid 0\n";
    assert_eq!(stderr(&output), expected);
    agent.process().wait_for_line("event=\"control_denied\" uid=65534 pid=", 0, DEADLINE)?;
    assert_eq!(status(&agent)?["control"]["denied"], 1);
    agent.stop()?;
    Ok(())
}

/// Runs `tap53 status` as another user without any capability. Others need not be able to reach the
/// directory that it was built in, so there is a copy in one that they can.
fn status_as(uid: u32, directory: &Path, socket: &Path) -> Result<Output> {
    let copy = directory.join("tap53");
    if !copy.exists() {
        fs::copy(agent::binary()?, &copy)?;
    }
    let uid = uid.to_string();
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--reuid", &uid, "--regid", &uid, "--clear-groups"]);
    setpriv.arg(copy).args(["status", "--check", "--socket"]).arg(socket);
    setpriv.output().context("start setpriv")
}

#[test]
fn a_user_in_the_list_may() -> Result<()> {
    let lab = Lab::new()?;
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    let path = directory.path().join("control.sock");
    let control = format!("{{socket: {}, allow_uids: [65534]}}", path.display());
    let configuration = format!("{CONFIGURATION}\ncontrol: {control}\n");
    let agent = Agent::start(&lab.server, &configuration, &[])?;
    let allowed = status_as(65_534, directory.path(), &path)?;
    assert!(allowed.status.success(), "{}", stderr(&allowed));
    let denied = status_as(65_533, directory.path(), &path)?;
    assert_eq!(denied.status.code(), Some(FAILED));
    let expected = "tap53: uid 65533 may not control this agent; allowed: uid 0, 65534\n";
    assert_eq!(stderr(&denied), expected);
    agent.stop()?;
    Ok(())
}

#[test]
fn an_agent_of_a_user_of_its_own_lets_in_that_user_and_root() -> Result<()> {
    let lab = Lab::new()?;
    let directory = tempfile::tempdir()?;
    let nobody = Uid::from_raw(65_534);
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    chown(directory.path(), Some(nobody), None)?;
    let path = directory.path().join("run/control.sock");
    let configuration = directory.path().join("tap53.yaml");
    fs::write(
        &configuration,
        format!(
            "interfaces: {{include: [s0]}}\nprivileges: {{user: 65534}}\nsinks: [{{type: stdout}}]\n\
             control: {{socket: {}}}\n",
            path.display()
        ),
    )?;
    let mut command = lab.server.command(agent::binary()?);
    command.args(["run", "--config"]).arg(&configuration);
    let mut agent = Process::spawn("tap53", command)?;
    agent.wait_for_line("ready interfaces=", 0, DEADLINE)?;
    let found = fs::metadata(&path).with_context(|| agent.stderr().text())?;
    assert_eq!((found.uid(), found.permissions().mode() & 0o777), (65_534, 0o600));
    // Here as root.
    let client = Client::new(&path);
    let switched =
        client.switch(Call::Disable { pattern: "s0".to_owned(), detach: true, lasts_ms: None })?;
    assert!(!switched[0].ingress.capturing);
    let enabled = client.switch(Call::Enable {
        pattern: "s0".to_owned(),
        directions: Directions::Both,
        lasts_ms: None,
    })?;
    assert!(enabled[0].ingress.capturing, "attaching needs privileges that it still has");
    let own = status_as(65_534, directory.path(), &path)?;
    assert!(own.status.success(), "{}", stderr(&own));
    agent.signal(Signal::SIGTERM)?;
    assert!(agent.wait(DEADLINE)?.success());
    assert!(!path.exists(), "removed by its owner");
    Ok(())
}

#[test]
fn the_status_begins_with_health_and_can_be_watched() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    let text = succeed(&agent, &["status"])?;
    let mut lines = text.lines();
    assert!(lines.next().is_some_and(|line| line.starts_with("tap53 ")), "{text}");
    for part in ["PART ", "agent ", "capture ", "sink "] {
        assert!(lines.next().is_some_and(|line| line.starts_with(part)), "{part} in {text}");
    }
    let health = status(&agent)?["health"].clone();
    assert_eq!(health["capture"]["ok"], true, "{health}");
    assert!(health["capture"]["since"].as_str().is_some_and(|at| at.ends_with('Z')), "{health}");

    let one = succeed(&agent, &["status", "s[0-9]", "-o", "json"])?;
    let one: Value = serde_json::from_str(&one)?;
    assert_eq!(one[0]["name"], "s0");
    assert!(one[0]["packets"]["ingress"]["seen"].is_u64(), "{one}");
    assert!(succeed(&agent, &["status", "s0"])?.contains("packets at s0"));
    let unknown = command(&agent, &["status", "s9"])?;
    assert_eq!(unknown.status.code(), Some(FAILED));
    let message = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(message.contains("no interface \"s9\"; it has: s0"), "{message}");

    let watching = agent.command(&["status", "--watch", "--interval", "100ms"])?;
    let mut watching = Process::spawn("tap53 status --watch", watching)?;
    let views = || {
        let text = watching.stdout().text();
        Ok((text.matches("\nPART ").count() >= 3).then_some(text))
    };
    let text = wait::until("three views of the status", DEADLINE, views)?;
    assert!(!text.contains('\x1b'), "without a terminal it is appended: {text}");
    watching.signal(Signal::SIGINT)?;
    let ended = watching.wait(DEADLINE)?;
    assert_eq!((ended.code(), watching.stderr().text().as_str()), (Some(0), ""));
    agent.stop()?;
    Ok(())
}

#[test]
fn help_shows_examples_of_every_command() -> Result<()> {
    for (command, part) in [
        ("status", "tap53 status --check"),
        ("enable", "tap53 enable 'veth*' --direction ingress --for 10m"),
        ("disable", "tap53 disable eth1 --detach"),
        ("reset", "tap53 reset eth1"),
        ("tail", "tap53 tail --qname example.com"),
    ] {
        let output = agent::run(&[command, "--help"])?;
        let help = stdout(&output);
        assert_eq!(output.status.code(), Some(0), "{help}");
        assert!(help.contains("Examples:") && help.contains(part), "{part:?} is not in: {help}");
    }
    Ok(())
}
