//! Kernels that are older than this machine's, and one for another processor: they take the programs,
//! and what the agent captures there is right. Needs no hardware support and no root.

use std::path::Path;

use anyhow::{Context as _, Result};
use data_encoding::HEXLOWER;
use serde_json::Value;
use tap53_harness::{
    agent,
    architecture::Architecture,
    cross,
    guest::{Kernel, Root},
};

const INIT: &str = include_str!("older_kernels/init.sh");
const AGENT_STEPS: &str = include_str!("older_kernels/agent.sh");
const PACKETS_STEPS: &str = include_str!("older_kernels/packets.sh");
const MODULES: [&str; 3] = ["veth", "sch_ingress", "cls_bpf"];
/// Prefix that distinguishes the guest's output from the kernel's messages.
const MARK: &str = "tap53-test ";

/// `www.tap53.test` A.
const QUESTION: &[u8] = b"\x03www\x05tap53\x04test\x00\x00\x01\x00\x01";
const QUERY_HEADER: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00";
const RESPONSE_HEADER: &[u8] = b"\x12\x34\x85\x80\x00\x01\x00\x01\x00\x00\x00\x00";
/// 192.0.2.1.
const ANSWER: &[u8] = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x01\x2c\x00\x04\xc0\x00\x02\x01";

/// Identifier of the client's container.
const CONTAINER: &str = "00000000000000000000000000000000000000000000000000000000000000c1";

/// With the length in front (RFC 1035 §4.2.2).
fn over_tcp(parts: &[&[u8]]) -> Vec<u8> {
    let message = parts.concat();
    let length = u16::try_from(message.len()).expect("a short message");
    [&length.to_be_bytes()[..], &message].concat()
}

/// The agent's capture at one hook.
#[derive(Debug, Default)]
struct Captured {
    status: String,
    /// Process of the client.
    pid: u32,
    log: Vec<String>,
    records: Vec<Value>,
}

/// The parameters of a kernel that is booted, and of the agent in it.
struct Guest {
    series: &'static str,
    /// Kernel parameters.
    parameters: &'static str,
    /// Part of the agent's configuration.
    config: &'static str,
    /// Values of `capture.hook`.
    hooks: [&'static str; 2],
}

impl Guest {
    const fn new(series: &'static str) -> Self {
        Self { series, parameters: "", config: "", hooks: ["tc", "xdp"] }
    }
}

/// Before 5.19, threads without CAP_BPF cannot use maps on Debian.
const KERNEL_5_10: Guest = Guest { config: "privileges: {keep: true}\n", ..Guest::new("5.10") };

/// The files of a guest that runs `steps` with `program`.
fn root_for(
    steps: &str,
    program: &Path,
    hooks: [&str; 2],
    architecture: Architecture,
) -> Result<Root> {
    let root = Root::new(INIT, architecture)?;
    root.program(program)?;
    root.utility("ip")?;
    let query = query();
    root.executable(
        "bin/answer",
        format!("#!/bin/sh\nhead -c {} >/dev/null\nexec cat /response\n", query.len()),
    )?;
    root.file("steps", steps)?;
    root.file("query", query)?;
    root.file("response", response())?;
    root.file("hooks", hooks.join(" "))?;
    Ok(root)
}

fn query() -> Vec<u8> {
    over_tcp(&[QUERY_HEADER, QUESTION])
}

fn response() -> Vec<u8> {
    over_tcp(&[RESPONSE_HEADER, QUESTION, ANSWER])
}

/// The lines of a console that are for the test, each as its first word and the rest.
fn reported(console: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = console.lines().filter_map(|line| line.trim().strip_prefix(MARK));
    lines.map(|line| line.split_once(' ').unwrap_or((line, "")))
}

/// Boots a kernel, runs `tap53 doctor`, and captures with each of the hooks.
fn capture(
    guest: &Guest,
    architecture: Architecture,
    agent: &Path,
) -> Result<(Vec<String>, [Captured; 2])> {
    let Guest { series, parameters, config, hooks } = guest;
    let kernel = Kernel::of_series(series, &MODULES, architecture)?;
    let root = root_for(AGENT_STEPS, agent, *hooks, architecture)?;
    root.file("container", CONTAINER)?;
    root.file("config", config)?;
    let console = kernel.boot(&root, parameters)?;

    let (mut doctor, mut captured) = (Vec::new(), Vec::new());
    let mut release = None;
    for (what, rest) in reported(&console) {
        if what == "hook" {
            captured.push(Captured::default());
        }
        match (what, captured.last_mut()) {
            ("kernel", _) => release = Some(rest.to_owned()),
            ("doctor", _) => doctor.push(rest.to_owned()),
            ("status", Some(at)) => rest.clone_into(&mut at.status),
            ("pid", Some(at)) => at.pid = rest.parse()?,
            ("log", Some(at)) => at.log.push(rest.to_owned()),
            ("record", Some(at)) => at.records.push(serde_json::from_str(rest)?),
            _ => {}
        }
    }
    assert_eq!(release.as_ref(), Some(&kernel.release), "{console}");
    let captured = captured.try_into().ok();
    Ok((doctor, captured.with_context(|| format!("not two hooks:\n{console}"))?))
}

/// Does the same with a kernel for this machine's processor.
fn capture_natively(guest: &Guest) -> Result<(Vec<String>, [Captured; 2])> {
    capture(guest, Architecture::of_this_machine()?, &agent::binary()?)
}

/// Checks that `tap53 doctor` found nothing that fails, and the kernel as it is.
fn check_doctor(said: &[String], tcx: &str, egress: &str) {
    let text = said.join("\n");
    assert!(!said.iter().any(|line| line.starts_with("fail")), "{text}");
    assert!(
        said.iter().any(|line| line.starts_with("ok    kernel") && line.ends_with(tcx)),
        "{text}"
    );
    let interface = said.iter().find(|line| line.contains("s0: veth")).expect(&text);
    assert!(interface.contains(&format!("egress {egress};")), "{text}");
}

/// Checks that the agent attached as it should and recorded the transaction, and nothing got lost.
fn check(captured: &Captured, ingress: &str, egress: &str) {
    let log = captured.log.join("\n");
    let capturing = captured.log.iter().find(|line| line.contains("capturing")).expect(&log);
    for hook in [format!("ingress=\"{ingress}\""), format!("egress=\"{egress}\"")] {
        assert!(capturing.contains(&hook), "{hook}: {log}");
    }
    assert_eq!(captured.status, "0", "{log}");
    let [record] = &captured.records[..] else {
        panic!("not one record: {:?}\n{log}", captured.records);
    };
    assert_eq!(record["qname"], "www.tap53.test");
    assert_eq!(record["rcode"], "NOERROR");
    // The client's socket crosses the veth to TC at the other end; XDP does not see it. The server's
    // is seen where its response leaves, at either.
    let at_tc = !ingress.starts_with("xdp");
    let container = if at_tc { CONTAINER.into() } else { Value::Null };
    assert_eq!(record["client_container_id"], container, "{record}");
    assert_eq!(record["client_user_id"].is_u64(), at_tc, "{record}");
    assert_eq!(record["server_user_id"], 0, "{record}");
    let process =
        if at_tc { [captured.pid.into(), "nc".into()] } else { [Value::Null, Value::Null] };
    assert_eq!([&record["client_pid"], &record["client_command"]], process.each_ref(), "{record}");
}

/// It lacks additions that fetch (5.12), the helper that copies from XDP packets (5.18), TCX (6.6),
/// maps without CAP_BPF (5.19), and it counts maps as locked memory (until 5.11).
#[test]
fn kernel_5_10_takes_the_programs() -> Result<()> {
    let (doctor, [tc, xdp]) = capture_natively(&KERNEL_5_10)?;
    check_doctor(&doctor, "no TCX (6.6 has it): clsact filters are used", "clsact");
    check(&tc, "clsact", "clsact");
    check(&xdp, "xdp native", "clsact");
    Ok(())
}

/// Locked down, it has no helper that copies from XDP packets, not even by their address.
#[test]
fn kernel_5_10_without_xdp_is_captured_on_at_tc() -> Result<()> {
    let guest =
        Guest { parameters: "lockdown=confidentiality", hooks: ["auto", "xdp"], ..KERNEL_5_10 };
    let (doctor, [auto, xdp]) = capture_natively(&guest)?;
    let said = |lines: &[String], part: &str| {
        assert!(lines.iter().any(|line| line.contains(part)), "{part}: {}", lines.join("\n"));
    };
    said(&doctor, "load, for TC alone: it accepts no XDP program");
    said(&auto.log, "event=\"xdp_unavailable\"");
    check(&auto, "clsact", "clsact");
    said(&xdp.log, "accepts no XDP program, and capture.hook asks for one");
    assert_eq!(xdp.status, "1");
    Ok(())
}

#[test]
fn kernel_6_1_takes_the_programs() -> Result<()> {
    let (doctor, [tc, xdp]) = capture_natively(&Guest::new("6.1"))?;
    check_doctor(&doctor, "no TCX (6.6 has it): clsact filters are used", "clsact");
    check(&tc, "clsact", "clsact");
    check(&xdp, "xdp native", "clsact");
    Ok(())
}

#[test]
fn kernel_6_12_takes_the_programs() -> Result<()> {
    let (doctor, [tc, xdp]) = capture_natively(&Guest::new("6.12"))?;
    check_doctor(&doctor, " TCX", "tcx");
    check(&tc, "tcx", "tcx");
    check(&xdp, "xdp native", "tcx");
    Ok(())
}

/// The crate that captures, without the rest of the agent: it is cross-built in a minute or two.
#[test]
fn arm64_takes_the_programs_of_the_capture_crate() -> Result<()> {
    let architecture = Architecture::Aarch64;
    let hooks = ["tc", "xdp"];
    let kernel = Kernel::of_series("6.12", &MODULES, architecture)?;
    let program = cross::example(architecture, "tap53-capture", "packets")?;
    let root = root_for(PACKETS_STEPS, &program, hooks, architecture)?;
    let [query, response] = [query(), response()].map(|bytes| HEXLOWER.encode(&bytes));
    root.file("answered", &response)?;
    let console = kernel.boot(&root, "")?;
    let packets = reported(&console).filter(|(what, _)| *what == "packets");
    let lines: Vec<&str> = packets.map(|(_, line)| line).collect();
    for ingress in ["tcx", "xdp native"] {
        let attached = format!("attached ingress={ingress} egress=tcx");
        let begin = lines.iter().position(|line| *line == attached).context(console.clone())?;
        for packet in [format!("packet ingress 6 {query}"), format!("packet egress 6 {response}")] {
            let mut at_hook =
                lines[begin..].iter().skip(1).take_while(|line| !line.contains("attached"));
            // A slow guest may send a segment again.
            assert!(at_hook.any(|line| **line == packet), "{packet}\n{console}");
        }
    }
    Ok(())
}

#[test]
#[ignore = "cross-builds the agent: cargo test -p tap53-tests --test older_kernels -- --ignored"]
fn arm64_takes_the_programs() -> Result<()> {
    let architecture = Architecture::Aarch64;
    let (doctor, [tc, xdp]) =
        capture(&Guest::new("6.12"), architecture, &cross::agent(architecture)?)?;
    check_doctor(&doctor, " TCX", "tcx");
    check(&tc, "tcx", "tcx");
    check(&xdp, "xdp native", "tcx");
    Ok(())
}
