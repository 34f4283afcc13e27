//! Switching one interface on and off, under load on another.

use std::{
    collections::BTreeMap,
    fs,
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tap53::{config::Directions, control::Refusal};
use tap53_capture::{
    capture::{HookOwners, Qdisc},
    interfaces::{InterfaceStatus, SwitchTo, WantedBy},
};
use tap53_harness::{
    account, dns, fastavro,
    frames::{FrameSocket, udp_to_port_53},
    wait,
};

use crate::{
    DEADLINE,
    running::{DETACHED, OFF, ON, Running, timed},
    stage::{Stage, counter, find},
};

/// Times that an interface is switched off and on again; each is two changes.
const ROUNDS: usize = 500;

/// Frames that pass the other interface with each change: in all fewer than its rings hold, so that
/// any that is missing was lost to the change.
const BURST: u16 = 20;

/// Who switches.
#[derive(Clone, Copy)]
enum Way {
    Command,
    Annotation,
    File,
}

#[test]
fn a_thousand_commands_lose_nothing_elsewhere_and_status_tells_the_truth() -> Result<()> {
    toggle(Way::Command)
}

#[test]
fn a_thousand_annotations_lose_nothing_elsewhere_and_status_tells_the_truth() -> Result<()> {
    toggle(Way::Annotation)
}

#[test]
fn a_thousand_versions_of_the_file_lose_nothing_elsewhere_and_status_tells_the_truth() -> Result<()>
{
    toggle(Way::File)
}

fn toggle(way: Way) -> Result<()> {
    let stage = Stage::new("")?;
    let agent = stage.start("include: [a0, b0]")?;
    let on_b = FrameSocket::open(&stage.client, "b1")?;
    let (mut captured, mut disabled) = (0, 0);
    let mut expected_b = Expected::attached();
    let mut took = [const { Vec::new() }; 4];
    let (bursts, to_send) = channel();
    let sent = thread::scope(|scope| -> Result<u64> {
        let stage = &stage;
        let sender = scope.spawn(move || send_bursts(stage, &to_send));
        for round in 0..2 * ROUNDS {
            bursts.send(())?;
            let on = round % 2 == 1;
            // Every other time, the programs go too.
            let detach = round % 4 == 0 || matches!(way, Way::File);
            let (time, status) = timed(|| set(stage, &agent, way, on, detach, round));
            took[round % 4].push(time);
            let status = status?;
            expected_b.follow(on, detach && !matches!(way, Way::Annotation));
            expected_b.require(stage, &status).with_context(|| format!("round {round}"))?;

            // What the hook does with the next packet is the truth.
            let id = u16::try_from(round)?;
            on_b.send(&udp_to_port_53(1, &dns::query(id, "b.test", "A")))?;
            captured += u64::from(expected_b.enabled);
            disabled += u64::from(expected_b.attached && !expected_b.enabled);
            let what = format!("round {round}: captured {captured}, disabled {disabled}");
            agent.wait_until(&what, |status| {
                let ledger = serde_json::to_value(&status.ledger).ok()?;
                let is = |reason| counter(&ledger, "b0", reason);
                (is("captured") == captured && is("ignored/disabled") == disabled).then_some(())
            })?;
        }
        drop(bursts);
        sender.join().expect("no panic in the sender")
    })?;
    for (what, mut took) in ["off (detached)", "on (attached)", "off", "on"].iter().zip(took) {
        took.sort_unstable();
        let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
        println!("{what}: median {median:?}, longest {longest:?}");
    }

    let ledger = agent.stop()?;
    account::Ledger(&ledger).require_balance()?;
    assert_eq!(sent, 2 * ROUNDS as u64 * u64::from(BURST));
    assert_eq!(counter(&ledger, "a0", "seen"), sent, "every frame of the other interface");
    assert_eq!(counter(&ledger, "a0", "captured"), sent);
    assert_eq!(counter(&ledger, "b0", "captured"), captured);
    assert_eq!(counter(&ledger, "b0", "ignored/disabled"), disabled);
    assert_eq!(captured, ROUNDS as u64, "on half of the time");
    let records = fastavro::read_containers(&stage.files()?)?;
    let of = |name: &str| records.iter().filter(|r| r["interface"] == name).count() as u64;
    assert_eq!((of("a0"), of("b0")), (sent, captured), "a record for each");
    assert_eq!(records.len() as u64, sent + captured);
    stage.require_bare()
}

/// Makes a change, and returns how the interface is once it is made.
fn set(
    stage: &Stage,
    agent: &Running,
    way: Way,
    on: bool,
    detach: bool,
    round: usize,
) -> Result<InterfaceStatus> {
    let by = match way {
        Way::Command => {
            let to = if on { ON } else { SwitchTo::Off { detach } };
            return Ok(find(&agent.switch("b0", to)??, "b0")?.clone());
        }
        Way::Annotation => {
            let state = if on { "on" } else { "off" };
            agent.annotate(Some(&format!("b0={state}")));
            WantedBy::Annotation
        }
        Way::File => {
            let include = if on { "include: [a0, b0]" } else { "include: [a0]" };
            // So that each version differs from the one before in more than one place.
            stage.write_config(
                include,
                &format!("log: {{level: {}}}", ["info", "warn"][round % 2]),
            )?;
            agent.reload()?;
            WantedBy::File
        }
    };
    agent.wait_until("the change", |status| match find(&status.interfaces, "b0") {
        Ok(found) => (found.wanted.is_some() == on && found.wanted_by == by).then(|| found.clone()),
        // Not wanted, and not attached: of no interest.
        Err(_) => (!on).then(|| nothing("b0")),
    })
}

fn nothing(name: &str) -> InterfaceStatus {
    let none =
        || tap53_capture::interfaces::Actual { capturing: false, hook: None, shadowed: None };
    InterfaceStatus {
        name: name.to_owned(),
        ifindex: 0,
        kind: String::new(),
        wanted: None,
        wanted_by: WantedBy::File,
        wanted_for_s: None,
        ingress: none(),
        egress: none(),
        why: String::new(),
    }
}

/// What must be at the interface, by what was asked for.
struct Expected {
    enabled: bool,
    attached: bool,
}

impl Expected {
    const fn attached() -> Self {
        Self { enabled: true, attached: true }
    }

    const fn follow(&mut self, on: bool, detach: bool) {
        self.enabled = on;
        self.attached = on || (self.attached && !detach);
    }

    /// Against the status, and against what the kernel tells others.
    fn require(&self, stage: &Stage, status: &InterfaceStatus) -> Result<()> {
        for actual in [&status.ingress, &status.egress] {
            ensure!(actual.capturing == self.enabled, "{status:?}");
            ensure!(actual.hook.is_some() == self.attached, "{status:?}");
        }
        let programs = usize::from(self.attached);
        let tcx = stage.hook_owners("b0")?.tcx.context("this kernel has TCX")?;
        ensure!(tcx.iter().all(|programs_there| programs_there.len() == programs), "{tcx:?}");
        Ok(())
    }
}

/// A burst for each message; returns how many frames were sent. Each frame is another query.
fn send_bursts(stage: &Stage, bursts: &Receiver<()>) -> Result<u64> {
    let socket = FrameSocket::open(&stage.client, "a1")?;
    let mut sent: u64 = 0;
    while bursts.recv_timeout(DEADLINE).is_ok() {
        for _ in 0..BURST {
            let id = u16::try_from(sent % 60_000)?;
            socket.send(&udp_to_port_53(4_000 + id % 7, &dns::query(id, "a.test", "A")))?;
            sent += 1;
        }
    }
    Ok(sent)
}

#[test]
fn a_query_that_was_open_when_capture_ended_or_began_is_not_called_unanswered_for_sure()
-> Result<()> {
    let stage = Stage::new("")?;
    stage.write_config("include: [a0, b0]", "pair: {timeout_ms: 3000}")?;
    let agent = Running::start(&stage.server, &stage.config())?;
    let open = |interface, id| -> Result<()> {
        FrameSocket::open(&stage.client, interface)?
            .send(&udp_to_port_53(4_000, &dns::query(id, "open.test", "A")))
    };
    let records = |count: u64| {
        agent.wait_until(&format!("{count} records"), |status| {
            let ledger = serde_json::to_value(&status.ledger).ok()?;
            (ledger["agent"]["records"]["created"] == count).then_some(())
        })
    };
    // Longer ago than any query waits: what began with the agent is a gap of its own.
    open("a1", 1)?;
    records(1)?;
    open("a1", 2)?;
    open("b1", 3)?;
    agent.wait_until("both to be captured", |status| {
        let ledger = serde_json::to_value(&status.ledger).ok()?;
        let captured = |name| counter(&ledger, name, "captured");
        ((captured("a0"), captured("b0")) == (2, 1)).then_some(())
    })?;
    agent.switch("b0", OFF)??;
    agent.switch("b0", ON)??;
    records(3)?;
    agent.stop()?;
    let gaps: BTreeMap<_, _> = fastavro::read_containers(&stage.files()?)?
        .iter()
        .map(|record| (record["dns_id"].as_u64(), record["capture_gap"] == true))
        .collect();
    assert_eq!(gaps, BTreeMap::from([(Some(1), false), (Some(2), false), (Some(3), true)]));
    Ok(())
}

#[test]
fn a_repeated_enable_attaches_nothing_anew_and_directions_change_by_setting() -> Result<()> {
    let stage = Stage::new("")?;
    let agent = stage.start("include: [a0]")?;
    let before = stage.hook_owners("a0")?;
    for directions in [Directions::Both, Directions::Ingress, Directions::Egress, Directions::Both]
    {
        let answer = agent.switch("a*", SwitchTo::On(directions))??;
        let [status] = &answer[..] else { panic!("a0 alone fits: {answer:?}") };
        assert_eq!((status.wanted, status.wanted_by), (Some(directions), WantedBy::Command));
        assert_eq!(status.ingress.capturing, directions != Directions::Egress);
        assert_eq!(status.egress.capturing, directions != Directions::Ingress);
        assert_eq!(stage.hook_owners("a0")?, before, "the same programs");
    }
    assert_eq!(agent.interface("a0")?.context("a0")?.why, "tc is configured");
    assert_eq!(
        agent.switch("z*", ON)?,
        Err(Refusal::NoSuchInterface("z*".to_owned())),
        "nothing fits"
    );
    assert!(agent.interface("b0")?.is_none(), "nobody asked for it");
    agent.switch("*", SwitchTo::Reset)??;
    let status = agent.interface("a0")?.context("a0")?;
    assert_eq!(status.wanted_by, WantedBy::File);
    account::Ledger(&agent.stop()?).require_balance()
}

#[test]
fn the_status_tells_of_a_link_as_it_is_now() -> Result<()> {
    let stage = Stage::new("")?;
    let agent = stage.start("include: [a0]")?;
    stage.server.ip(&["link", "set", "b0", "down"])?;
    agent.switch("b0", ON)??;
    for (state, expected) in
        [("down", "tc is configured; link is down"), ("up", "tc is configured")]
    {
        stage.server.ip(&["link", "set", "b0", state])?;
        agent.wait_until(&format!("b0 to be told of as {state}"), |status| {
            find(&status.interfaces, "b0").is_ok_and(|b0| b0.why == expected).then_some(())
        })?;
    }
    account::Ledger(&agent.stop()?).require_balance()
}

#[test]
fn the_order_of_precedence_holds_in_the_running_agent() -> Result<()> {
    let stage = Stage::new("")?;
    let agent = stage.start("include: [a0]")?;
    let state = |name: &str| -> Result<(bool, WantedBy)> {
        let status = agent.interface(name)?.with_context(|| format!("{name} is in the status"))?;
        Ok((status.ingress.capturing, status.wanted_by))
    };
    assert_eq!(state("a0")?, (true, WantedBy::File));
    agent.annotate(Some("a0=off, b0=on"));
    agent.wait_until("the annotation", |status| status.annotation.in_force.clone())?;
    assert_eq!(state("a0")?, (false, WantedBy::Annotation));
    assert_eq!(state("b0")?, (true, WantedBy::Annotation));
    agent.switch("a0", ON)??;
    assert_eq!(state("a0")?, (true, WantedBy::Command));
    agent.annotate(Some("a0=perhaps"));
    let error = agent.wait_until("the error", |status| status.annotation.error.clone())?;
    assert_eq!(error, "\"perhaps\" is none of on, off, ingress, egress, both");
    assert_eq!(agent.status()?.annotation.in_force.as_deref(), Some("a0=off, b0=on"));
    agent.switch("a0", SwitchTo::Reset)??;
    assert_eq!(state("a0")?, (false, WantedBy::Annotation), "what was in force still is");
    agent.annotate(None);
    agent.wait_until("no annotation", |status| {
        (status.annotation == tap53::control::AnnotationStatus::default()).then_some(())
    })?;
    assert_eq!(state("a0")?, (true, WantedBy::File));
    assert!(agent.interface("b0")?.is_none(), "the file does not ask for it: detached");
    account::Ledger(&agent.stop()?).require_balance()?;
    stage.require_bare()
}

#[test]
fn what_the_kernel_refuses_is_said_and_tried_again() -> Result<()> {
    let stage = Stage::new("capture: {hook: tc, tc: clsact, workers: 1, ring_bytes: 131072}")?;
    let agent = stage.start("include: [a0]")?;
    stage.server.tc(&["qdisc", "add", "dev", "b0", "ingress"])?;
    let refusal = agent.switch("b0", ON)?.expect_err("the ingress qdisc is in the way");
    assert!(
        matches!(&refusal, Refusal::NotAttached(why) if why.contains("ingress qdisc")),
        "{refusal}"
    );
    assert!(agent.interface("b0")?.is_none(), "a refused command leaves nothing");
    // The file's wish stays, and is tried again once the way is free.
    stage.write_config("include: [a0, b0]", "")?;
    agent.reload()?;
    let why = agent.wait_until("the refusal", |status| {
        let found = find(&status.interfaces, "b0").ok()?;
        (!found.why.is_empty()).then(|| found.why.clone())
    })?;
    assert!(why.contains("ingress qdisc") && why.contains("tried again in"), "{why}");
    stage.server.tc(&["qdisc", "del", "dev", "b0", "ingress"])?;
    agent.wait_until("the next try", |status| {
        find(&status.interfaces, "b0").is_ok_and(|found| found.ingress.capturing).then_some(())
    })?;
    account::Ledger(&agent.stop()?).require_balance()
}

#[test]
fn a_foreign_clsact_and_its_filters_survive_our_toggles() -> Result<()> {
    let stage = Stage::new("capture: {hook: tc, tc: clsact, workers: 1, ring_bytes: 131072}")?;
    let tc = |arguments: &[&str]| stage.server.tc(arguments);
    tc(&["qdisc", "add", "dev", "b0", "clsact"])?;
    for direction in ["ingress", "egress"] {
        #[rustfmt::skip]
        tc(&["filter", "add", "dev", "b0", direction, "prio", "7", "protocol", "all",
             "bpf", "bytecode", "1,6 0 0 0"])?;
    }
    let foreign = || -> Result<(Qdisc, usize)> {
        let HookOwners { qdisc, filters, .. } = stage.hook_owners("b0")?;
        Ok((qdisc, filters.iter().filter(|filter| filter.priority == 7).count()))
    };
    let before = stage.hook_owners("b0")?;
    let agent = stage.start("include: [a0, b0]")?;
    for round in 0..50 {
        for to in [OFF, ON, DETACHED, ON] {
            agent.switch("b0", to)??;
            assert_eq!(foreign()?, (Qdisc::Clsact, 2), "round {round}, {to:?}");
        }
    }
    account::Ledger(&agent.stop()?).require_balance()?;
    assert_eq!(stage.hook_owners("b0")?, before);
    assert_eq!(stage.hook_owners("a0")?.qdisc, Qdisc::Absent, "ours went");
    Ok(())
}

#[test]
fn a_command_for_a_time_ends_by_itself() -> Result<()> {
    let stage = Stage::new("")?;
    let agent = stage.start("include: [a0]")?;
    agent.switch_for("a0", OFF, Duration::from_secs(3_600))??;
    let status = agent.interface("a0")?.context("a0")?;
    assert!((3_590..=3_600).contains(&status.wanted_for_s.unwrap_or(0)), "{status:?}");
    assert!(!status.ingress.capturing);
    agent.switch_for("a0", OFF, Duration::from_millis(200))??;
    agent.wait_until("the end of the switch", |status| {
        let found = find(&status.interfaces, "a0").ok()?;
        (found.wanted_by == WantedBy::File && found.ingress.capturing).then_some(())
    })?;
    account::Ledger(&agent.stop()?).require_balance()
}

#[test]
fn a_configmap_is_taken_up_and_an_invalid_one_changes_nothing() -> Result<()> {
    let stage = Stage::new("")?;
    let mount = stage.config_map()?;
    let (a, b) = (stage.yaml("include: [a0]", ""), stage.yaml("include: [b0]", ""));
    mount.publish(&a)?;
    let agent = Running::start(&stage.server, &mount.file())?;
    let captures = |name: &str| {
        let name = name.to_owned();
        move |status: &tap53::control::Status| {
            let on = status.interfaces.iter().filter(|i| i.ingress.capturing).collect::<Vec<_>>();
            (on.len() == 1 && on[0].name == name).then_some(())
        }
    };
    agent.wait_until("a0", captures("a0"))?;
    mount.publish(&b)?;
    agent.wait_until("b0, after the links were exchanged", captures("b0"))?;

    mount.publish("interfaces: {include: [a0]}\nlog: {level: loud}\n")?;
    let error = agent.wait_until("the error", |status| status.config.error.clone())?;
    assert!(error.contains("log.level") && error.contains("loud"), "{error}");
    captures("b0")(&agent.status()?).context("nothing changed")?;

    let more =
        "filter: {qnames: {deny: [denied.test]}}\nlog: {level: debug}\npair: {timeout_ms: 77}";
    mount.publish(&stage.yaml("include: [b0]", more))?;
    let needed = agent.wait_until("the mended file", |status| {
        let config = &status.config;
        (config.error.is_none() && !config.restart_needed.is_empty())
            .then(|| config.restart_needed.clone())
    })?;
    assert_eq!(needed, ["pair.timeout_ms"]);
    let levels = agent.log_levels.lock().expect("no panic").clone();
    assert_eq!(levels, [tap53::config::LogLevel::Debug]);

    // The filter is in force from now on.
    let socket = FrameSocket::open(&stage.client, "b1")?;
    let filtered = |ledger: &Value| {
        ledger.pointer("/agent/records/filtered/qname_denied").and_then(Value::as_u64)
    };
    wait::until("a filtered record", DEADLINE, || {
        socket.send(&udp_to_port_53(9, &dns::query(9, "denied.test", "A")))?;
        let ledger = serde_json::to_value(agent.status()?.ledger)?;
        Ok(filtered(&ledger).filter(|count| *count > 0))
    })?;
    account::Ledger(&agent.stop()?).require_balance()?;
    let left = fs::read_dir(mount.directory())?.count();
    assert_eq!(left, 3, "one version, its link, and the file's link");
    Ok(())
}
