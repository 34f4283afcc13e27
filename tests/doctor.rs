//! Runs `tap53 doctor` on machines with one fault each: it names the fault and its fix, changes nothing,
//! and has the right exit code.
//!
//! Each machine is a network namespace, and where files matter a mount namespace inside it.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tap53_harness::{
    agent,
    bpf::{self, XdpHolder},
    kafka::Kafka,
    kube::KubeApi,
    namespace::{CLIENT_END, Namespace, SERVER_END, join},
    registry::Registry,
    wait,
};
use tempfile::TempDir;

#[path = "doctor/capabilities.rs"]
mod capabilities;
#[path = "doctor/interfaces.rs"]
mod interfaces;
#[path = "doctor/kafka.rs"]
mod kafka;
#[path = "doctor/kubernetes.rs"]
mod kubernetes;
#[path = "doctor/outputs.rs"]
mod outputs;

const INTERFACE: &str = SERVER_END.interface;
const DEADLINE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3_600);
const FINE: i32 = 0;
const FAILED: i32 = 1;

/// A user without any privilege.
const NOBODY: &str = "65534";

/// A machine with one interface on a cable, and a directory that every user may enter.
struct Machine {
    _peer: Namespace,
    namespace: Namespace,
    directory: TempDir,
    /// Path of the binary, which every user can execute.
    binary: PathBuf,
}

/// Options for starting `tap53 doctor` on a machine.
#[derive(Default)]
struct Start<'a> {
    /// Shell commands to run before, as root in a separate mount namespace.
    before: &'a str,
    /// Options of setpriv(1).
    privileges: &'a [&'a str],
    /// Set if a seccomp filter denies bpf(2).
    without_bpf: bool,
    arguments: &'a [&'a str],
}

/// The checks of a report.
struct Findings {
    code: i32,
    checks: Vec<Value>,
}

impl Machine {
    fn new() -> Result<Self> {
        let (peer, namespace) = (Namespace::new()?, Namespace::new()?);
        join((&peer, CLIENT_END), (&namespace, SERVER_END), 1_500)?;
        let (directory, binary) = agent::binary_for_everyone()?;
        Ok(Self { _peer: peer, namespace, directory, binary })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a configuration for the interface, with `more`, and returns its path.
    fn configure(&self, more: &str) -> Result<String> {
        let path = self.path("tap53.yaml");
        fs::write(&path, format!("interfaces:\n  include: [{INTERFACE}]\n{more}"))?;
        text(&path)
    }

    /// Runs `tap53 doctor`, and checks that it leaves nothing behind.
    fn doctor(&self, start: &Start<'_>) -> Result<Findings> {
        let mut command = self.namespace.command("unshare");
        let script = format!("set -e\n{}\nexec \"$@\"", start.before);
        command.args(["--mount", "sh", "-c", &script, "sh"]);
        if !start.privileges.is_empty() {
            command.arg("setpriv").args(start.privileges);
        }
        command.arg(&self.binary).args(["doctor", "-o", "json"]).args(start.arguments);
        if start.without_bpf {
            bpf::deny(&mut command);
        }
        let (before, hooks) = (self.files()?, self.hooks()?);
        let output = command.output().context("start tap53 doctor")?;
        let report: Value = serde_json::from_slice(&output.stdout).with_context(|| {
            format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr))
        })?;
        ensure!(self.files()? == before, "files are left");
        ensure!(self.hooks()? == hooks, "hooks have changed");
        let checks = report["checks"].as_array().context("no checks")?.clone();
        let found = Findings { code: output.status.code().context("killed")?, checks };
        found.require_sense(&report)?;
        Ok(found)
    }

    /// Returns the programs and qdiscs of the interface.
    fn hooks(&self) -> Result<(Value, String)> {
        let xdp = self.namespace.link(INTERFACE)?["xdp"].clone();
        Ok((xdp, self.namespace.tc(&["qdisc", "show", "dev", INTERFACE])?))
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let mut directories = vec![self.directory.path().to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    directories.push(entry.path());
                }
                found.push(entry.path());
            }
        }
        found.sort();
        Ok(found)
    }
}

impl Findings {
    /// Checks that every problem has a reason and a fix, and that the worst one decides the verdict and the
    /// exit code.
    fn require_sense(&self, report: &Value) -> Result<()> {
        for check in &self.checks {
            let is_ok = check["verdict"] == "ok";
            ensure!(check["wrong"].is_null() == is_ok, "{check}");
            ensure!(check["fix"].is_null() == is_ok, "{check}");
        }
        let any = |verdict: &str| self.checks.iter().any(|check| check["verdict"] == verdict);
        let (verdict, code) = match (any("fail"), any("warn")) {
            (true, _) => ("fail", FAILED),
            (false, true) => ("warn", FINE),
            (false, false) => ("ok", FINE),
        };
        ensure!(report["verdict"] == verdict, "{report}");
        ensure!(self.code == code, "exit code {} with {report}", self.code);
        Ok(())
    }

    /// Returns the check that has all of `parts` in its subject or problem.
    fn check(&self, verdict: &str, area: &str, parts: &[&str]) -> Result<&Value> {
        let found = self.checks.iter().find(|check| {
            let words = format!("{} {}", check["what"], check["wrong"]);
            check["verdict"] == verdict
                && check["area"] == area
                && parts.iter().all(|part| words.contains(part))
        });
        found.with_context(|| format!("no {verdict} of {area} with {parts:?} in:\n{self}"))
    }

    /// Does the same as [`Self::check`], and its fix has all of `fixes`.
    fn require(&self, verdict: &str, area: &str, parts: &[&str], fixes: &[&str]) -> Result<()> {
        let check = self.check(verdict, area, parts)?;
        let fix = check["fix"].as_str().unwrap_or_default();
        for part in fixes {
            ensure!(fix.contains(part), "{part:?} is not in the fix {fix:?}");
        }
        Ok(())
    }

    /// Checks that only `areas` have problems.
    fn require_fine_but_for(&self, areas: &[&str]) -> Result<()> {
        for check in &self.checks {
            let area = check["area"].as_str().unwrap_or_default();
            // The clock of this machine need not be synchronised, and `ip netns exec` mounts a sysfs
            // without cgroups.
            let is_of_the_machine =
                ["clock", "containers"].contains(&area) && check["verdict"] == "warn";
            let is_expected = areas.contains(&area) || is_of_the_machine;
            ensure!(check["verdict"] == "ok" || is_expected, "not healthy: {check}");
        }
        Ok(())
    }
}

impl std::fmt::Display for Findings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.checks.iter().try_for_each(|check| writeln!(f, "{check}"))
    }
}

fn text(path: &Path) -> Result<String> {
    Ok(path.to_str().context("a temporary path in UTF-8")?.to_owned())
}

#[test]
fn on_a_healthy_machine_nothing_is_wrong() -> Result<()> {
    let machine = Machine::new()?;
    fs::create_dir(machine.path("out"))?;
    let kafka = Kafka::start(&machine.namespace)?;
    kafka.create_topic("dns")?;
    let config = machine.configure(&format!(
        "sinks:\n  - {{type: file, directory: {}}}\n  - {{type: kafka, brokers: [\"{}\"], topic: dns}}\n",
        text(&machine.path("out"))?,
        kafka.address(),
    ))?;
    let found = machine.doctor(&Start { arguments: &["--config", &config], ..Start::default() })?;
    assert_eq!(found.code, FINE, "{found}");
    found.require(
        "warn",
        "registry",
        &["sinks[1]", "without `registry`", "Kafka Connect", "Vertica", "ksqlDB"],
        &["registry: {urls:"],
    )?;
    found.require_fine_but_for(&["registry"])?;
    for (area, parts) in [
        ("config", &["tap53.yaml"][..]),
        ("capabilities", &["CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON"]),
        ("kernel", &["load"]),
        ("interfaces", &["s0: veth, MTU 1500, ingress tcx, egress tcx"]),
        ("resources", &["memory"]),
        ("outputs", &["sinks[0]", "writable"]),
        ("kafka", &["sinks[1]", "can be reached"]),
        ("kafka", &["topic dns: 1 partitions"]),
        ("control", &["no agent runs"]),
    ] {
        found.check("ok", area, parts)?;
    }

    // The same broker, and a topic that does not exist.
    let config = machine.configure(&format!(
        "sinks:\n  - {{type: kafka, brokers: [\"{}\"], topic: absent}}\n",
        kafka.address()
    ))?;
    let start = Start { arguments: &["--config", &config], ..Start::default() };
    let create = format!("--bootstrap-server {} --create --topic absent", kafka.address());
    // Asked twice: the question itself must not make the topic.
    for _ in 0..2 {
        let found = machine.doctor(&start)?;
        found.require(
            "fail",
            "kafka",
            &["topic absent", "tap53 creates it only if create_topic is set"],
            &["kafka-topics.sh", &create],
        )?;
        found.require_fine_but_for(&["kafka", "registry"])?;
    }
    Ok(())
}

#[test]
fn an_invalid_configuration_is_reported_line_by_line() -> Result<()> {
    let machine = Machine::new()?;
    let config = machine.configure("capture:\n  hook: xpd\n  ports: [0]\n")?;
    let found = machine.doctor(&Start { arguments: &["--config", &config], ..Start::default() })?;
    found.require("fail", "config", &["tap53.yaml:4", "capture.hook", "xpd"], &["check-config"])?;
    found.require("fail", "config", &["tap53.yaml:5", "capture.ports[0]"], &["check-config"])?;
    found.check("ok", "kernel", &["load"])?;

    let absent = text(&machine.path("absent.yaml"))?;
    let found = machine.doctor(&Start { arguments: &["--config", &absent], ..Start::default() })?;
    found.require("fail", "config", &["absent.yaml", "cannot be read"], &["ls -l"])
}

#[test]
fn rings_larger_than_the_memory_are_named() -> Result<()> {
    let machine = Machine::new()?;
    // 64 GiB, which are not taken: the programs are tried with a small ring.
    let config = machine.configure("capture: {workers: 64, ring_bytes: 1073741824}\n")?;
    let found = machine.doctor(&Start { arguments: &["--config", &config], ..Start::default() })?;
    found.require(
        "fail",
        "resources",
        &["64 rings of 1024 MiB", "more than"],
        &["capture: {ring_bytes: 536870912}"],
    )?;
    found.require("warn", "resources", &["64 workers"], &["capture: {workers:"])?;
    found.check("ok", "kernel", &["load"])?;
    Ok(())
}

/// None of them hides another.
#[test]
fn on_a_machine_broken_in_eleven_ways_each_is_named() -> Result<()> {
    let machine = Machine::new()?;
    let _holder = XdpHolder::attach(&machine.namespace, INTERFACE, bpf::XdpMode::Generic)?;
    machine.namespace.ip(&["tuntap", "add", "dev", "tun0", "mode", "tun"])?;
    machine.namespace.ip(&["link", "add", "br0", "type", "bridge"])?;
    fs::create_dir(machine.path("out"))?;
    fs::create_dir(machine.path("run"))?;
    drop(UnixListener::bind(machine.path("run/control.sock"))?);
    let [out, socket, kubeconfig] = ["out", "run/control.sock", "kubeconfig"]
        .map(|name| machine.path(name).display().to_string());
    let config = text(&machine.path("tap53.yaml"))?;
    fs::write(
        &config,
        format!(
            "interfaces: {{include: [{INTERFACE}, eth7, tun0, br0]}}\n\
             capture: {{hook: xdp, workers: 64, ring_bytes: 1073741824}}\n\
             kubernetes: {{kubeconfig: {kubeconfig}}}\n\
             control: {{socket: {socket}}}\n\
             sinks:\n\
             - {{type: file, directory: {out}}}\n\
             - {{type: kafka, brokers: [\"127.0.0.1:9\"], topic: dns}}\n"
        ),
    )?;
    let found = machine.doctor(&Start {
        before: &format!("mount -t tmpfs none /sys/kernel/btf\nmount -t tmpfs -o ro none {out}"),
        // CAP_SYS_ADMIN includes CAP_PERFMON.
        privileges: &["--bounding-set=-perfmon,-sys_admin", "--inh-caps=-perfmon,-sys_admin"],
        arguments: &["--config", &config],
        ..Start::default()
    })?;
    for (verdict, area, parts, fix) in [
        ("fail", "capabilities", &["CAP_PERFMON", "bounding set"][..], "AmbientCapabilities"),
        ("warn", "kernel", &["BTF"], "CONFIG_DEBUG_INFO_BTF"),
        ("warn", "interfaces", &["eth7", "no such interface"], "ip link show eth7"),
        ("fail", "interfaces", &["tun0", "no Ethernet header"], "exclude"),
        ("warn", "interfaces", &["br0: link", "no packets"], "ip link set dev br0 up"),
        (
            "warn",
            "interfaces",
            &["s0: XDP", "is attached: tcx is used instead"],
            "capture: {hook: tc}",
        ),
        ("fail", "resources", &["64 rings of 1024 MiB", "more than"], "ring_bytes"),
        ("fail", "outputs", &["sinks[0]", "Read-only"], "remount,rw"),
        ("fail", "kafka", &["sinks[1]", "127.0.0.1:9", "refused"], "nc -vz"),
        ("fail", "kubernetes", &["API server", "kubeconfig"], "ls -l"),
        ("warn", "control", &["control.sock", "killed"], "tap53 run"),
    ] {
        found.require(verdict, area, parts, &[fix])?;
    }
    Ok(())
}

#[test]
fn the_sockets_of_a_killed_and_of_a_running_agent_are_distinguished() -> Result<()> {
    let machine = Machine::new()?;
    fs::create_dir(machine.path("run"))?;
    let listener = UnixListener::bind(machine.path("run/control.sock"))?;
    let socket = text(&machine.path("run/control.sock"))?;
    let config = machine.configure(&format!("control: {{socket: {socket}}}\n"))?;
    let start = Start { arguments: &["--config", &config], ..Start::default() };
    machine.doctor(&start)?.check("ok", "control", &["an agent answers"])?;
    drop(listener);
    machine.doctor(&start)?.require("warn", "control", &["control.sock", "killed"], &["tap53 run"])
}

#[test]
fn the_text_has_a_line_for_each_check_with_the_fix_below() -> Result<()> {
    let machine = Machine::new()?;
    let mut command = machine.namespace.command(&machine.binary);
    let output = command.args(["doctor", "--interface", "eth7"]).output()?;
    assert_eq!(output.status.code(), Some(FAILED));
    let found = String::from_utf8(output.stdout)?;
    let lines: Vec<&str> = found.lines().collect();
    let at = lines.iter().position(|line| line.starts_with("fail  interfaces     eth7"));
    let at = at.with_context(|| found.clone())?;
    assert!(lines[at + 1].trim_start().starts_with("no interface matches"), "{found}");
    assert!(lines[at + 2].trim_start().starts_with("fix: interfaces: {include:"), "{found}");
    assert!(lines.last().is_some_and(|line| line.ends_with(" 1 fail")), "{found}");
    Ok(())
}
