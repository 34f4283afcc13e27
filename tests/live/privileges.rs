//! Privileges, thread by thread, while everything that needs some is done.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::Signal,
    unistd::{Gid, Pid, Uid, chown},
};
use tap53_harness::{
    account,
    agent::{self, Agent},
    dns,
    frames::{FrameSocket, udp_to_port_53},
    namespace::Namespace,
    process::run,
    wait,
};

use crate::{
    DEADLINE,
    stage::{counter, pair_between, require_bare},
};

/// Bits of linux/capability.h.
const NET_ADMIN: u64 = 1 << 12;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;

/// A user that owns nothing.
const NOBODY: u32 = 65_534;

/// A thread's name and its privileges from `/proc`.
#[derive(Debug)]
struct Thread {
    name: String,
    uids: Vec<u32>,
    inheritable: u64,
    permitted: u64,
    effective: u64,
    bounding: u64,
    ambient: u64,
    no_new_privileges: bool,
    /// Number of seccomp filters.
    filters: u32,
}

fn threads(pid: Pid) -> Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        // Without it, the thread has ended since the directory was read.
        let Ok(status) = fs::read_to_string(entry?.path().join("status")) else { continue };
        let field = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.map(str::trim).with_context(|| format!("no {key} in {status}"))
        };
        let set = |key: &str| Ok::<_, anyhow::Error>(u64::from_str_radix(field(key)?, 16)?);
        threads.push(Thread {
            name: field("Name")?.to_owned(),
            uids: field("Uid")?.split_whitespace().map(str::parse).collect::<Result<_, _>>()?,
            inheritable: set("CapInh")?,
            permitted: set("CapPrm")?,
            effective: set("CapEff")?,
            bounding: set("CapBnd")?,
            ambient: set("CapAmb")?,
            no_new_privileges: field("NoNewPrivs")? == "1",
            filters: field("Seccomp_filters")?.parse()?,
        });
    }
    Ok(threads)
}

/// Way of starting the agent.
struct Start {
    /// Command line before `tap53`.
    with: &'static [&'static str],
    /// Capabilities of the program's file, as setcap(8) takes them.
    file: Option<&'static str>,
    privileges: &'static str,
    capture: &'static str,
    /// User that it then runs as.
    uid: u32,
    /// Capabilities that the bounding set may still have.
    bounding: u64,
}

const THREE: &str = "-all,+bpf,+net_admin,+perfmon";
const FOUR: &str = "-all,+bpf,+net_admin,+perfmon,+setpcap";

const AS_NOBODY: &[&str] = &[
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps",
    THREE,
    "--ambient-caps",
    THREE,
    "--bounding-set",
    THREE,
];

const AS_NOBODY_WITH_SETPCAP: &[&str] = &[
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps",
    FOUR,
    "--ambient-caps",
    FOUR,
    "--bounding-set",
    FOUR,
];

/// Without any capability but those that the program's file has.
const AS_NOBODY_BY_FILE: &[&str] = &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

#[test]
fn root_keeps_one_capability_in_one_thread() -> Result<()> {
    for capture in ["hook: xdp", "hook: tc", "hook: tc, tc: clsact"] {
        run_through(&Start {
            with: &[],
            file: None,
            privileges: "",
            capture,
            uid: 0,
            bounding: 0,
        })?;
    }
    Ok(())
}

#[test]
fn root_becomes_the_user_that_is_configured() -> Result<()> {
    for privileges in ["user: 65534", "user: \"65534:65534\"", "user: nobody"] {
        let capture = "hook: xdp";
        run_through(&Start {
            with: &[],
            file: None,
            privileges,
            capture,
            uid: NOBODY,
            bounding: 0,
        })?;
    }
    Ok(())
}

#[test]
fn a_user_with_three_capabilities_keeps_one_in_one_thread() -> Result<()> {
    for capture in ["hook: xdp", "hook: tc, tc: clsact"] {
        // Taking the bounding set away would take a fourth.
        let bounding = NET_ADMIN | PERFMON | BPF;
        run_through(&Start {
            with: AS_NOBODY,
            file: None,
            privileges: "",
            capture,
            uid: NOBODY,
            bounding,
        })?;
    }
    Ok(())
}

#[test]
fn the_bounding_set_is_empty_wherever_it_can_be() -> Result<()> {
    let by_file = "cap_bpf,cap_net_admin,cap_perfmon,cap_setpcap+p";
    for (with, file) in [(AS_NOBODY_WITH_SETPCAP, None), (AS_NOBODY_BY_FILE, Some(by_file))] {
        let capture = "hook: tc";
        run_through(&Start { with, file, privileges: "", capture, uid: NOBODY, bounding: 0 })?;
    }
    // As in the image, which does not have a capability for this.
    run_through(&Start {
        with: AS_NOBODY_BY_FILE,
        file: Some("cap_bpf,cap_net_admin,cap_perfmon+p"),
        privileges: "",
        capture: "hook: tc",
        uid: NOBODY,
        bounding: u64::MAX,
    })
}

/// Starts the agent and has it do all that may need privileges, looking at its threads all the time.
fn run_through(start: &Start) -> Result<()> {
    let (client, server) = (Namespace::new()?, Namespace::new()?);
    for pair in ["a", "b"] {
        pair_between(&server, &client, pair)?;
    }
    // Where every user may read, and where the agent's user may write.
    let directory = tempfile::Builder::new().prefix("tap53-live-").tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    chown(directory.path(), Some(Uid::from_raw(start.uid)), Some(Gid::from_raw(start.uid)))?;
    let binary = directory.path().join("tap53");
    // By another process: a child of another thread's would hold it open to write for a moment.
    run(Command::new("install").args(["-m", "755"]).arg(agent::binary()?).arg(&binary))?;
    if let Some(capabilities) = start.file {
        run(Command::new("setcap").arg(capabilities).arg(&binary))?;
    }
    let config = directory.path().join("live.yaml");
    write_config(&config, start, directory.path(), "a0, v*")?;

    let mut command = match start.with {
        [] => server.command(&binary),
        [program, arguments @ ..] => {
            let mut command = server.command(program);
            command.args(arguments).arg(&binary);
            command
        }
    };
    command.args(["run", "--config"]).arg(&config);
    command.arg("--ledger").arg(directory.path().join("ledger.json"));
    let agent = Launched::start(command)?;
    let pid = agent.process.pid();
    require_privileges(pid, start, "in the beginning")?;
    // Files of a process that can be dumped belong to its user in /proc, who can then read them.
    assert_eq!(fs::metadata(format!("/proc/{pid}/environ"))?.uid(), 0);
    let has_bounding_set = start.bounding != 0;
    let log = agent.process.stderr().text();
    ensure!(log.contains("event=\"bounding_set_kept\"") == has_bounding_set, "{log}");

    let says = |pattern: &str| agent.process.wait_for_line(pattern, 0, DEADLINE);
    says("ready interfaces=1")?;
    send(&client, "a1", 1)?;
    // Another interface by the file, and off again.
    write_config(&config, start, directory.path(), "a0, b0, v*")?;
    agent.process.signal(Signal::SIGHUP)?;
    says("capturing interface=\"b0\"")?;
    send(&client, "b1", 2)?;
    require_privileges(pid, start, "after attaching")?;
    write_config(&config, start, directory.path(), "a0, v*")?;
    agent.process.signal(Signal::SIGHUP)?;
    says("event=\"capture_ended\" interface=\"b0\"")?;
    // One that appears, and goes.
    pair_between(&server, &client, "v")?;
    says("capturing interface=\"v0\"")?;
    send(&client, "v1", 3)?;
    server.ip(&["link", "delete", "v0"])?;
    says("event=\"interface_removed\" interface=\"v0\"")?;
    // The ledger of the running agent.
    agent.process.signal(Signal::SIGUSR1)?;
    says("balanced: yes")?;
    require_privileges(pid, start, "in the end")?;

    let ledger = agent.stop(directory.path())?;
    account::Ledger(&ledger).require_balance()?;
    for name in ["a0", "b0", "v0"] {
        assert_eq!(counter(&ledger, name, "captured"), 1, "{name}");
    }
    for name in ["a0", "b0"] {
        require_bare(&server, name)?;
    }
    Ok(())
}

fn write_config(path: &Path, start: &Start, out: &Path, include: &str) -> Result<()> {
    let (capture, privileges, out) = (start.capture, start.privileges, out.display());
    let yaml = format!(
        "interfaces: {{include: [{include}]}}\n\
         capture: {{{capture}, workers: 2, ring_bytes: 1048576}}\n\
         pair: {{timeout_ms: 300}}\nprivileges: {{{privileges}}}\n\
         sinks: [{{type: file, directory: {out}}}, {{type: kafka, brokers: [\"127.0.0.1:1\"], \
         topic: t, message_timeout_ms: 1000}}]\nshutdown: {{flush_timeout_ms: 1500}}\n"
    );
    Ok(fs::write(path, yaml)?)
}

fn send(client: &Namespace, interface: &str, id: u16) -> Result<()> {
    let query = dns::query(id, "www.tap53.test", "A");
    FrameSocket::open(client, interface)?.send(&udp_to_port_53(4_000, &query))
}

fn require_privileges(pid: Pid, start: &Start, when: &str) -> Result<()> {
    // A thread names itself, soon after it has begun.
    let all = ["capture", "worker-0", "worker-1", "sink-file", "tap53", "rdk"];
    let threads = wait::until("each thread to have its name", DEADLINE, || {
        let threads = threads(pid)?;
        let is_there = |name: &&str| threads.iter().any(|thread| thread.name.starts_with(name));
        Ok(all.iter().all(is_there).then_some(threads))
    })
    .with_context(|| format!("{when}, with {}", start.capture))?;
    for thread in &threads {
        let expected = if thread.name == "capture" { NET_ADMIN } else { 0 };
        // One for each thread after capture's, and one more for those that only work.
        let filters = match thread.name.as_str() {
            "capture" => 0,
            name if name.starts_with("worker-") || name.starts_with("sink-") => 2,
            _ => 1,
        };
        let is_right = thread.effective == expected
            && thread.permitted == expected
            && thread.inheritable == 0
            && thread.ambient == 0
            && thread.bounding & !start.bounding == 0
            && thread.no_new_privileges
            && thread.filters == filters
            && thread.uids.iter().all(|uid| *uid == start.uid);
        ensure!(is_right, "{when}, with {}: {thread:?}", start.capture);
    }
    Ok(())
}

#[test]
fn a_user_that_does_not_exist_is_refused_before_anything_attaches() -> Result<()> {
    let (client, server) = (Namespace::new()?, Namespace::new()?);
    pair_between(&server, &client, "a")?;
    let yaml = "interfaces: {include: [a0]}\nprivileges: {user: nobody-at-all}\n";
    let mut agent = Agent::launch(server.command(agent::binary()?), yaml, &[])?;
    let status = agent.process_mut().wait(DEADLINE)?;
    assert_eq!(status.code(), Some(1));
    let log = agent.process().stderr().text();
    ensure!(log.contains("privileges.user: no user \"nobody-at-all\""), "{log}");
    require_bare(&server, "a0")
}

#[test]
fn root_gets_the_reason_why_it_cannot_write_to_other_users_directories() -> Result<()> {
    let (client, server) = (Namespace::new()?, Namespace::new()?);
    pair_between(&server, &client, "a")?;
    let directory = tempfile::tempdir()?;
    chown(directory.path(), Some(Uid::from_raw(NOBODY)), None)?;
    let path = directory.path().to_str().context("UTF-8")?;
    let to_file = format!("sinks: [{{type: file, directory: {path}}}]\n");
    let ledger = format!("{path}/ledger.json");
    for (sinks, arguments) in [(to_file.as_str(), &[][..]), ("", &["--ledger", &ledger])] {
        let yaml = format!("interfaces: {{include: [a0]}}\n{sinks}");
        let mut command = server.command(agent::binary()?);
        let config = tempfile::NamedTempFile::new()?;
        fs::write(config.path(), yaml)?;
        let output =
            command.args(["run", "--config"]).arg(config.path()).args(arguments).output()?;
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{message}");
        for part in [path, "Permission denied", "privileges.user"] {
            ensure!(message.contains(part), "{part:?} is missing in: {message}");
        }
        require_bare(&server, "a0")?;
    }
    Ok(())
}

#[test]
fn privileges_are_kept_where_that_is_configured() -> Result<()> {
    let (client, server) = (Namespace::new()?, Namespace::new()?);
    pair_between(&server, &client, "a")?;
    let yaml = "interfaces: {include: [a0]}\nprivileges: {keep: true}\n";
    let agent = Agent::start(&server, yaml, &[])?;
    for thread in threads(agent.process().pid())? {
        ensure!(thread.effective & BPF != 0, "{thread:?}");
    }
    agent.process().wait_for_line("event=\"privileges_kept\"", 0, DEADLINE)?;
    Ok(())
}

/// The agent with a configuration of our own making; dropping it kills it.
struct Launched {
    process: tap53_harness::process::Process,
}

impl Launched {
    fn start(command: Command) -> Result<Self> {
        let process = tap53_harness::process::Process::spawn("tap53", command)?;
        process.wait_for_line("ready interfaces=", 0, DEADLINE)?;
        Ok(Self { process })
    }

    fn stop(mut self, directory: &Path) -> Result<serde_json::Value> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.wait(DEADLINE)?;
        let ledger = directory.join("ledger.json");
        let text = fs::read(&ledger).with_context(|| self.process.stderr().text())?;
        Ok(serde_json::from_slice(&text)?)
    }
}
