//! `tap53 doctor` on machines broken in one way each: it names what is broken, offers a line that
//! fixes it, changes nothing, and its exit code tells.
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
    /// Where every user can execute it.
    binary: PathBuf,
}

/// How to start `tap53 doctor` on a machine.
#[derive(Default)]
struct Start<'a> {
    /// Shell commands to run before, as root in a mount namespace of their own.
    before: &'a str,
    /// Options of setpriv(1).
    privileges: &'a [&'a str],
    /// Whether a filter of system calls denies bpf(2).
    without_bpf: bool,
    arguments: &'a [&'a str],
}

/// What it said.
struct Said {
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

    /// Runs `tap53 doctor`, and makes sure that it leaves nothing.
    fn doctor(&self, start: &Start<'_>) -> Result<Said> {
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
        let said = Said { code: output.status.code().context("killed")?, checks };
        said.require_sense(&report)?;
        Ok(said)
    }

    /// What hangs at the interface.
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

impl Said {
    /// What is not ok has a reason and a fix, and the worst decides over verdict and exit code.
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

    /// The check that has all of `parts` in what it looked at or what is wrong.
    fn check(&self, verdict: &str, area: &str, parts: &[&str]) -> Result<&Value> {
        let found = self.checks.iter().find(|check| {
            let words = format!("{} {}", check["what"], check["wrong"]);
            check["verdict"] == verdict
                && check["area"] == area
                && parts.iter().all(|part| words.contains(part))
        });
        found.with_context(|| format!("no {verdict} of {area} with {parts:?} in:\n{self}"))
    }

    /// As [`Self::check`], and its fix has all of `fixes`.
    fn require(&self, verdict: &str, area: &str, parts: &[&str], fixes: &[&str]) -> Result<()> {
        let check = self.check(verdict, area, parts)?;
        let fix = check["fix"].as_str().unwrap_or_default();
        for part in fixes {
            ensure!(fix.contains(part), "{part:?} is not in the fix {fix:?}");
        }
        Ok(())
    }

    /// Nothing is wrong but what `areas` have to say.
    fn require_fine_but_for(&self, areas: &[&str]) -> Result<()> {
        for check in &self.checks {
            let area = check["area"].as_str().unwrap_or_default();
            // Whether the clock of this machine is kept in step is nobody's to say here.
            let told = areas.contains(&area) || area == "clock" && check["verdict"] == "warn";
            ensure!(check["verdict"] == "ok" || told, "not healthy: {check}");
        }
        Ok(())
    }
}

impl std::fmt::Display for Said {
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
    let said = machine.doctor(&Start { arguments: &["--config", &config], ..Start::default() })?;
    assert_eq!(said.code, FINE, "{said}");
    said.require(
        "warn",
        "registry",
        &["sinks[1]", "without `registry`", "Kafka Connect", "Vertica", "ksqlDB"],
        &["registry: {urls:"],
    )?;
    said.require_fine_but_for(&["registry"])?;
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
        said.check("ok", area, parts)?;
    }

    // The same broker, and a topic that nobody made.
    let config = machine.configure(&format!(
        "sinks:\n  - {{type: kafka, brokers: [\"{}\"], topic: absent}}\n",
        kafka.address()
    ))?;
    let start = Start { arguments: &["--config", &config], ..Start::default() };
    let create = format!("--bootstrap-server {} --create --topic absent", kafka.address());
    // Asked twice: the question itself must not make the topic.
    for _ in 0..2 {
        let said = machine.doctor(&start)?;
        said.require(
            "fail",
            "kafka",
            &["topic absent", "tap53 creates none"],
            &["kafka-topics.sh", &create],
        )?;
        said.require_fine_but_for(&["kafka", "registry"])?;
    }
    Ok(())
}

#[test]
fn each_missing_capability_is_named() -> Result<()> {
    let machine = Machine::new()?;
    let needed = ["bpf", "net_admin", "perfmon"];
    for missing in needed {
        let kept: Vec<_> = needed.iter().filter(|name| **name != missing).collect();
        let kept = kept.iter().fold("-all".to_owned(), |list, name| format!("{list},+{name}"));
        let said = machine.doctor(&Start {
            privileges: &[
                &format!("--reuid={NOBODY}"),
                "--clear-groups",
                &format!("--inh-caps={kept}"),
                &format!("--ambient-caps={kept}"),
                &format!("--bounding-set={kept}"),
            ],
            arguments: &["--interface", INTERFACE],
            ..Start::default()
        })?;
        let name = format!("CAP_{}", missing.to_uppercase());
        said.require(
            "fail",
            "capabilities",
            &[&name, "bounding set"],
            &["AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_PERFMON"],
        )?;
        for other in needed.iter().filter(|other| **other != missing) {
            let other = format!("CAP_{}", other.to_uppercase());
            ensure!(said.check("fail", "capabilities", &[&other]).is_err(), "{said}");
        }
        let loading = said.check("warn", "kernel", &["could not be tried", &name])?;
        assert!(loading["fix"].as_str().is_some_and(|fix| fix.contains("sudo")), "{loading}");
    }
    Ok(())
}

#[test]
fn without_root_it_looks_at_what_it_can_and_says_what_it_could_not() -> Result<()> {
    let machine = Machine::new()?;
    let said = machine.doctor(&Start {
        privileges: &[&format!("--reuid={NOBODY}"), "--clear-groups", "--inh-caps=-all"],
        arguments: &["--interface", INTERFACE],
        ..Start::default()
    })?;
    for name in ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"] {
        said.require("fail", "capabilities", &[name, "not permitted"], &["setcap cap_bpf"])?;
    }
    said.check("warn", "kernel", &["programs", "could not be tried"])?;
    said.check("warn", "kernel", &["TCX", "could not be tried"])?;
    said.check("ok", "interfaces", &["s0: veth", "egress tcx > clsact", "CAP_NET_ADMIN"])?;
    said.check("ok", "resources", &["memory"])?;
    said.require_fine_but_for(&["capabilities", "kernel"])
}

#[test]
fn a_user_other_than_root_with_the_capabilities_is_healthy() -> Result<()> {
    let machine = Machine::new()?;
    let needed = "-all,+bpf,+net_admin,+perfmon";
    let said = machine.doctor(&Start {
        privileges: &[
            &format!("--reuid={NOBODY}"),
            "--clear-groups",
            &format!("--inh-caps={needed}"),
            &format!("--ambient-caps={needed}"),
            &format!("--bounding-set={needed}"),
        ],
        arguments: &["--interface", INTERFACE],
        ..Start::default()
    })?;
    assert_eq!(said.code, FINE, "{said}");
    said.require_fine_but_for(&[])
}

#[test]
fn a_filter_of_system_calls_that_denies_bpf_is_named() -> Result<()> {
    let machine = Machine::new()?;
    let said = machine.doctor(&Start {
        without_bpf: true,
        arguments: &["--interface", INTERFACE],
        ..Start::default()
    })?;
    said.check("ok", "capabilities", &["CAP_BPF"])?;
    said.require("fail", "kernel", &["programs", "seccomp"], &["SystemCallFilter=bpf"])
}

#[test]
fn a_kernel_that_shows_no_btf_is_named() -> Result<()> {
    let machine = Machine::new()?;
    let said = machine.doctor(&Start {
        before: "mount -t tmpfs none /sys/kernel/btf",
        arguments: &["--interface", INTERFACE],
        ..Start::default()
    })?;
    said.require(
        "warn",
        "kernel",
        &["BTF", "/sys/kernel/btf/vmlinux"],
        &["CONFIG_DEBUG_INFO_BTF"],
    )?;
    said.check("ok", "kernel", &["load"])?;
    assert_eq!(said.code, FINE, "it captures all the same");
    Ok(())
}

#[test]
fn an_interface_that_is_not_there_is_named_beside_those_that_are() -> Result<()> {
    let machine = Machine::new()?;
    let said =
        machine.doctor(&Start { arguments: &["--interface", "eth7"], ..Start::default() })?;
    said.require(
        "fail",
        "interfaces",
        &["eth7", "no interface matches", INTERFACE],
        &["interfaces: {include: [\"s0\"]}"],
    )?;
    // Beside others, a name that is missing may come, and a pattern may be for other nodes.
    let said = machine.doctor(&Start {
        arguments: &["-i", "eth7", "-i", "ens*", "-i", INTERFACE],
        ..Start::default()
    })?;
    said.require("warn", "interfaces", &["eth7", "no such interface"], &["ip link show eth7"])?;
    ensure!(said.check("warn", "interfaces", &["ens*"]).is_err(), "{said}");
    assert_eq!(said.code, FINE, "{said}");
    Ok(())
}

#[test]
fn who_holds_xdp_is_named_with_what_is_taken_instead() -> Result<()> {
    let machine = Machine::new()?;
    for (mode, word) in [(bpf::XdpMode::Native, "native"), (bpf::XdpMode::Generic, "generic")] {
        let _holder = XdpHolder::attach(&machine.namespace, INTERFACE, mode)?;
        let said = machine.doctor(&Start {
            arguments: &["--interface", INTERFACE, "--hook", "xdp"],
            ..Start::default()
        })?;
        said.require(
            "warn",
            "interfaces",
            &["s0: XDP", "held by program", &format!("in {word} mode"), "tcx instead"],
            &["capture: {hook: tc}", "ip link set dev s0 xdp off"],
        )?;
        assert_eq!(said.code, FINE, "{said}");
        // Nobody asked for it there.
        let said = machine
            .doctor(&Start { arguments: &["--interface", INTERFACE], ..Start::default() })?;
        said.require_fine_but_for(&[])?;
    }
    Ok(())
}

#[test]
fn native_xdp_on_a_veth_is_advised_against() -> Result<()> {
    let machine = Machine::new()?;
    let arguments = &["--interface", INTERFACE, "--hook", "xdp"];
    let said = machine.doctor(&Start { arguments, ..Start::default() })?;
    said.require("warn", "interfaces", &["s0: XDP", "GRO"], &["capture: {hook: auto}"])?;
    assert_eq!(said.code, FINE, "{said}");
    Ok(())
}

#[test]
fn a_device_without_ethernet_headers_is_named() -> Result<()> {
    let machine = Machine::new()?;
    machine.namespace.ip(&["tuntap", "add", "dev", "tun0", "mode", "tun"])?;
    let arguments = ["--interface", "tun0", "--interface", INTERFACE];
    let said = machine.doctor(&Start { arguments: &arguments, ..Start::default() })?;
    said.require(
        "fail",
        "interfaces",
        &["tun0", "tun device", "no Ethernet header"],
        &["interfaces: {exclude: [\"tun0\"]}"],
    )?;
    // Among all that there are, it is only told.
    let said = machine.doctor(&Start::default())?;
    said.check("warn", "interfaces", &["tun0"])?;
    assert_eq!(said.code, FINE, "{said}");
    Ok(())
}

#[test]
fn a_link_that_is_down_and_a_whole_beside_its_part_are_told() -> Result<()> {
    let machine = Machine::new()?;
    machine.namespace.ip(&["link", "add", "br0", "type", "bridge"])?;
    machine.namespace.ip(&["link", "set", INTERFACE, "master", "br0"])?;
    let path = machine.path("tap53.yaml");
    fs::write(&path, "interfaces: {include: [s0, br0]}\npair: {merge_interfaces: false}\n")?;
    let path = text(&path)?;
    let start = Start { arguments: &["--config", &path], ..Start::default() };
    let said = machine.doctor(&start)?;
    said.require("warn", "interfaces", &["br0: link", "no packets"], &["ip link set dev br0 up"])?;
    said.require(
        "warn",
        "interfaces",
        &["s0 and br0", "records of its own"],
        &["pair: {merge_interfaces: true}"],
    )?;
    fs::write(&path, "interfaces: {include: [s0, br0]}\n")?;
    machine.doctor(&start)?.check("ok", "interfaces", &["s0 and br0", "copies"])?;
    Ok(())
}

#[test]
fn an_ingress_qdisc_where_clsact_has_to_go_is_named() -> Result<()> {
    let machine = Machine::new()?;
    let config = machine.configure("capture: {tc: clsact}\n")?;
    machine.namespace.tc(&["qdisc", "add", "dev", INTERFACE, "ingress"])?;
    let start = Start { arguments: &["--config", &config], ..Start::default() };
    let said = machine.doctor(&start)?;
    said.require(
        "fail",
        "interfaces",
        &["s0: clsact", "ingress qdisc"],
        &["tc qdisc delete dev s0 ingress"],
    )
}

#[test]
fn a_broker_that_cannot_be_reached_is_named() -> Result<()> {
    let machine = Machine::new()?;
    let config = machine.configure(
        "sinks:\n  - {type: kafka, brokers: [\"127.0.0.1:9\", \"broker.invalid:9092\"], topic: dns}\n",
    )?;
    let said = machine.doctor(&Start { arguments: &["--config", &config], ..Start::default() })?;
    said.require(
        "fail",
        "kafka",
        &["sinks[0]", "127.0.0.1:9", "refused"],
        &["nc -vz 127.0.0.1 9"],
    )?;
    said.require("fail", "kafka", &["broker.invalid:9092"], &["getent hosts broker.invalid"])?;
    said.require_fine_but_for(&["kafka", "registry"])
}

#[test]
fn a_directory_that_cannot_be_written_to_is_named() -> Result<()> {
    let machine = Machine::new()?;
    let out = machine.path("out");
    let out_text = text(&out)?;
    let config =
        machine.configure(&format!("sinks:\n  - {{type: file, directory: {out_text}}}\n"))?;
    let doctor = |before: &str, privileges: &[&str]| {
        let arguments = &["--config", &config];
        machine.doctor(&Start { before, privileges, arguments, ..Start::default() })
    };

    let said = doctor("", &[])?;
    said.require(
        "fail",
        "config",
        &["tap53.yaml", "sinks[0].directory", "No such file"],
        &[&format!("install -d -m 0750 {out_text}")],
    )?;
    said.check("warn", "config", &["not looked at"])?;

    fs::create_dir(&out)?;
    let said = doctor(&format!("mount -t tmpfs -o ro none {out_text}"), &[])?;
    said.require("fail", "outputs", &["sinks[0]", "Read-only"], &["remount,rw", &out_text])?;

    let full = format!(
        "mount -t tmpfs -o size=64k none {out_text}\n\
         dd if=/dev/zero of={out_text}/filler bs=4k count=16 status=none"
    );
    let said = doctor(&full, &[])?;
    said.require("fail", "outputs", &["sinks[0]", "No space left"], &["df -h", &out_text])?;

    let said = doctor(&format!("mount -t tmpfs -o size=1m none {out_text}"), &[])?;
    said.require("warn", "outputs", &["less than one file"], &["rotate_bytes"])?;
    assert_eq!(said.code, FINE, "{said}");

    fs::set_permissions(&out, fs::Permissions::from_mode(0o755))?;
    let needed = "-all,+bpf,+net_admin,+perfmon";
    let privileges = [
        &format!("--reuid={NOBODY}"),
        "--clear-groups",
        &format!("--inh-caps={needed}"),
        &format!("--ambient-caps={needed}"),
    ];
    let said = doctor("", &privileges)?;
    let chown = format!("chown {NOBODY} {out_text}");
    said.require("fail", "outputs", &["sinks[0]", "Permission denied"], &[&chown])
}

#[test]
fn directories_that_are_made_at_the_start_are_looked_at_where_they_will_be() -> Result<()> {
    let machine = Machine::new()?;
    let kept = machine.path("kept");
    let kept_text = text(&kept)?;
    let config = machine.configure(&format!(
        "sinks: [{{type: kafka, brokers: [\"127.0.0.1:9\"], topic: dns, spool: {{directory: \
         {kept_text}/spool, max_bytes: 8388608}}}}]\nstate: {{directory: {kept_text}/state}}\n"
    ))?;
    let doctor = |before: &str, privileges: &[&str]| {
        let arguments = &["--config", &config];
        machine.doctor(&Start { before, privileges, arguments, ..Start::default() })
    };
    let said = doctor("", &[])?;
    said.check("ok", "outputs", &["sinks[0].spool", "writable"])?;
    said.check("ok", "outputs", &["state", "kept/state"])?;
    assert!(!kept.exists(), "nothing is made");

    let needed = "-all,+bpf,+net_admin,+perfmon";
    let nobody = [
        &format!("--reuid={NOBODY}"),
        &format!("--regid={NOBODY}"),
        "--clear-groups",
        &format!("--inh-caps={needed}"),
        &format!("--ambient-caps={needed}"),
    ];
    let said = doctor("", &nobody)?;
    let install = format!("install -d -o {NOBODY} -g {NOBODY} -m 0750 {kept_text}/state");
    said.require("fail", "outputs", &["state", "cannot be made", "Permission"], &[&install])?;
    // Root looks for the user that the agent becomes.
    let becomes = format!("{}privileges: {{user: {NOBODY}}}\n", fs::read_to_string(&config)?);
    fs::write(&config, becomes)?;
    let arguments = &["--config", &config];
    let said = machine.doctor(&Start { arguments, ..Start::default() })?;
    said.require("fail", "outputs", &["state", "cannot be made", "Permission"], &[&install])?;
    // As the container beside the agent's does it.
    let status = std::process::Command::new(agent::binary()?)
        .args(["prepare", &kept_text, "--user", NOBODY])
        .status()?;
    assert!(status.success());
    let said = doctor("", &nobody)?;
    said.check("ok", "outputs", &["state", "kept/state"])?;

    let small = format!("mount -t tmpfs -o size=2m none {kept_text}");
    let said = doctor(&small, &[])?;
    said.require("warn", "outputs", &["sinks[0].spool", "may take 8 MiB"], &["max_bytes"])
}

#[test]
fn a_configuration_that_is_refused_is_named_line_by_line() -> Result<()> {
    let machine = Machine::new()?;
    let config = machine.configure("capture:\n  hook: xpd\n  ports: [0]\n")?;
    let said = machine.doctor(&Start { arguments: &["--config", &config], ..Start::default() })?;
    said.require("fail", "config", &["tap53.yaml:4", "capture.hook", "xpd"], &["check-config"])?;
    said.require("fail", "config", &["tap53.yaml:5", "capture.ports[0]"], &["check-config"])?;
    said.check("ok", "kernel", &["load"])?;

    let absent = text(&machine.path("absent.yaml"))?;
    let said = machine.doctor(&Start { arguments: &["--config", &absent], ..Start::default() })?;
    said.require("fail", "config", &["absent.yaml", "cannot be read"], &["ls -l"])
}

#[test]
fn rings_that_the_machine_has_no_memory_for_are_named() -> Result<()> {
    let machine = Machine::new()?;
    // 64 GiB, which are not taken: the programs are tried with a small ring.
    let config = machine.configure("capture: {workers: 64, ring_bytes: 1073741824}\n")?;
    let said = machine.doctor(&Start { arguments: &["--config", &config], ..Start::default() })?;
    said.require(
        "fail",
        "resources",
        &["64 rings of 1024 MiB", "more than"],
        &["capture: {ring_bytes: 536870912}"],
    )?;
    said.require("warn", "resources", &["64 workers"], &["capture: {workers:"])?;
    said.check("ok", "kernel", &["load"])?;
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
    let said = machine.doctor(&Start {
        before: &format!("mount -t tmpfs none /sys/kernel/btf\nmount -t tmpfs -o ro none {out}"),
        // The one stands for the other.
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
        ("warn", "interfaces", &["s0: XDP", "held by program"], "capture: {hook: tc}"),
        ("fail", "resources", &["64 rings of 1024 MiB", "more than"], "ring_bytes"),
        ("fail", "outputs", &["sinks[0]", "Read-only"], "remount,rw"),
        ("fail", "kafka", &["sinks[1]", "127.0.0.1:9", "refused"], "nc -vz"),
        ("fail", "kubernetes", &["API server", "kubeconfig"], "ls -l"),
        ("warn", "control", &["control.sock", "killed"], "tap53 run"),
    ] {
        said.require(verdict, area, parts, &[fix])?;
    }
    Ok(())
}

#[test]
fn the_socket_of_a_dead_agent_is_told_from_that_of_a_living_one() -> Result<()> {
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

/// Rules of a role, in JSON.
fn role(rules: &str) -> String {
    format!(
        "{{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [\n\
         {{\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {{\"name\": \"dns\"}}}},\n\
         {{\"apiVersion\": \"v1\", \"kind\": \"ServiceAccount\",\n\
           \"metadata\": {{\"name\": \"tap53\", \"namespace\": \"dns\"}}}},\n\
         {{\"apiVersion\": \"rbac.authorization.k8s.io/v1\", \"kind\": \"ClusterRole\",\n\
           \"metadata\": {{\"name\": \"tap53\"}}, \"rules\": [{rules}]}},\n\
         {{\"apiVersion\": \"rbac.authorization.k8s.io/v1\", \"kind\": \"ClusterRoleBinding\",\n\
           \"metadata\": {{\"name\": \"tap53\"}},\n\
           \"roleRef\": {{\"apiGroup\": \"rbac.authorization.k8s.io\", \"kind\": \"ClusterRole\", \"name\": \"tap53\"}},\n\
           \"subjects\": [{{\"kind\": \"ServiceAccount\", \"name\": \"tap53\", \"namespace\": \"dns\"}}]}}\n]}}\n"
    )
}

#[test]
fn each_right_that_the_api_server_denies_is_named_and_so_is_a_server_that_is_away() -> Result<()> {
    const ALL: &str = "{\"apiGroups\": [\"\"], \"resources\": [\"pods\", \"nodes\", \"services\"], \
                       \"verbs\": [\"list\", \"watch\"]}, \
                       {\"apiGroups\": [\"batch\"], \"resources\": [\"jobs\"], \"verbs\": [\"get\"]}";
    const SOME: &str = "{\"apiGroups\": [\"\"], \"resources\": [\"pods\", \"nodes\"], \
                        \"verbs\": [\"list\", \"watch\"]}, \
                        {\"apiGroups\": [\"\"], \"resources\": [\"services\"], \"verbs\": [\"list\"]}";
    let machine = Machine::new()?;
    let mut api = KubeApi::start(&machine.namespace)?;
    api.apply(&role(ALL))?;
    let account = api.account("dns", "tap53", HOUR)?;
    let kubeconfig = text(&account.kubeconfig)?;
    let config = machine.configure(&format!("kubernetes: {{kubeconfig: {kubeconfig}}}\n"))?;
    let doctor =
        || machine.doctor(&Start { arguments: &["--config", &config], ..Start::default() });

    let said = doctor()?;
    said.require_fine_but_for(&[])?;
    said.check("ok", "kubernetes", &["allowed: list pods", "watch nodes", "get jobs.batch"])?;

    api.apply(&role(SOME))?;
    // The authorizer follows the change by a watch of its own.
    let said = wait::until("the role to change", DEADLINE, || {
        let said = doctor()?;
        Ok(said.check("fail", "kubernetes", &["denied by RBAC"]).is_ok().then_some(said))
    })?;
    said.require(
        "fail",
        "kubernetes",
        &["watch services", "denied by RBAC"],
        &["{apiGroups: [\"\"], resources: [services], verbs: [watch]}"],
    )?;
    said.require(
        "warn",
        "kubernetes",
        &["get jobs.batch", "denied by RBAC"],
        &["{apiGroups: [\"batch\"], resources: [jobs], verbs: [get]}"],
    )?;
    assert!(said.check("fail", "kubernetes", &["pods"]).is_err(), "{said}");
    said.require_fine_but_for(&["kubernetes"])?;

    fs::write(&account.token_file, "not-a-token")?;
    doctor()?.require("fail", "kubernetes", &["401"], &["auth whoami"])?;

    api.kill();
    doctor()?.require(
        "fail",
        "kubernetes",
        &["cannot be reached"],
        &[&format!("kubectl --kubeconfig {kubeconfig}")],
    )
}

#[test]
fn the_text_has_a_line_a_check_with_the_fix_below() -> Result<()> {
    let machine = Machine::new()?;
    let mut command = machine.namespace.command(&machine.binary);
    let output = command.args(["doctor", "--interface", "eth7"]).output()?;
    assert_eq!(output.status.code(), Some(FAILED));
    let said = String::from_utf8(output.stdout)?;
    let lines: Vec<&str> = said.lines().collect();
    let at = lines.iter().position(|line| line.starts_with("fail  interfaces     eth7"));
    let at = at.with_context(|| said.clone())?;
    assert!(lines[at + 1].trim_start().starts_with("no interface matches"), "{said}");
    assert!(lines[at + 2].trim_start().starts_with("fix: interfaces: {include:"), "{said}");
    assert!(lines.last().is_some_and(|line| line.ends_with(" 1 fail")), "{said}");
    Ok(())
}

#[test]
fn a_schema_registry_is_asked_whether_it_takes_the_schema_and_told_nothing() -> Result<()> {
    let machine = Machine::new()?;
    let kafka = Kafka::start(&machine.namespace)?;
    kafka.create_topic("dns")?;
    let mut registry = Registry::start(&machine.namespace)?;
    let configure = |machine: &Machine, url: &str, more: &str| {
        machine.configure(&format!(
            "sinks:\n  - type: kafka\n    brokers: [\"{}\"]\n    topic: dns\n    \
             registry: {{urls: [\"{url}\"], {more}}}\n",
            kafka.address()
        ))
    };
    let look = |machine: &Machine, url: &str, more: &str| {
        let config = configure(machine, url, more)?;
        machine.doctor(&Start { arguments: &["--config", &config], ..Start::default() })
    };
    let url = registry.url();
    let said = look(&machine, &url, "")?;
    said.check("ok", "registry", &["sinks[0]", &url, "dns-value", "the first run registers"])?;
    said.require_fine_but_for(&[])?;
    let with_summaries = machine.configure(&format!(
        "sinks:\n  - {{type: kafka, brokers: [\"{}\"], topic: dns, summary: {{topic: sums}}, \
         registry: {{urls: [\"{url}\"]}}}}\n",
        kafka.address()
    ))?;
    let said =
        machine.doctor(&Start { arguments: &["--config", &with_summaries], ..Start::default() })?;
    for subject in ["dns-value", "sums-value"] {
        said.check("ok", "registry", &[subject, "the first run registers"])?;
    }
    let register = format!("{url}/subjects/dns-value/versions");
    let said = look(&machine, &url, "register: false")?;
    said.require(
        "fail",
        "registry",
        &["no such schema under subject dns-value", "records would wait"],
        &["tap53 schema | jq", &register],
    )?;
    said.require_fine_but_for(&["registry"])?;
    assert_eq!(registry.versions("dns-value")?, 0, "doctor has registered it");

    // A path that is not the API's.
    let wrong = url.replace("ccompat/v7", "nothing");
    let said = look(&machine, &wrong, "")?;
    said.require("fail", "registry", &["no such path (404)"], &["/apis/ccompat/v7"])?;

    // Somebody else's schema under the same subject, then also ours.
    let foreign = r#"{"type": "record", "name": "X", "fields": [{"name": "y", "type": "int"}]}"#;
    registry.register("dns-value", foreign)?;
    let said = look(&machine, &url, "")?;
    said.require(
        "fail",
        "registry",
        &["incompatible with subject dns-value"],
        &["topic_record_name", "/subjects/dns-value/versions/latest"],
    )?;
    registry.require_compatibility("NONE")?;
    let schema = String::from_utf8(agent::run(&["schema"])?.stdout)?;
    let id = registry.register("dns-value", &schema)?;
    let said = look(&machine, &url, "register: false")?;
    said.check("ok", "registry", &["dns-value has version", &format!("as id {id}")])?;

    registry.kill();
    let said = look(&machine, &url, "")?;
    said.require("fail", "registry", &["cannot be reached", "refused"], &["nc -vz 127.0.0.1"])?;
    // With an id that an earlier run left, records need not wait.
    let ids = machine.path("ids.json");
    let fingerprint = data_encoding::HEXLOWER.encode(&tap53_records::encode::fingerprint()?);
    let entry = serde_json::json!({
        "registry": url, "subject": "dns-value", "fingerprint": fingerprint, "id": 77,
    });
    fs::write(&ids, serde_json::json!({"version": 1, "ids": [entry]}).to_string())?;
    let said = look(&machine, &url, &format!("ids_file: {}", text(&ids)?))?;
    said.check("warn", "registry", &["cannot be reached", "id 77 of an earlier run is used"])?;
    said.require_fine_but_for(&["registry"])
}
