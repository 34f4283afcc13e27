//! Switching interfaces: every packet is where it belongs.

use super::*;

#[test]
fn each_way_of_switching_captures_the_selected_packets_exactly() -> Result<()> {
    let lab = Lab::new()?;
    let pair = SecondPair::new(&lab)?;
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    pair.send(&lab, 5)?;
    assert!(ingress(&status(&agent)?["ledger"], "s1").is_null(), "nobody asked for s1");

    let table = succeed(&agent, &["enable", "s1"])?;
    for part in ["s1", "both", "command", "tcx"] {
        assert!(table.contains(part), "{part} is missing in:\n{table}");
    }
    assert_eq!(is_capturing(&status(&agent)?, "s1"), [true, true]);
    pair.send(&lab, 7)?;

    succeed(&agent, &["disable", "s1"])?;
    let off = status(&agent)?;
    assert_eq!(is_capturing(&off, "s1"), [false, false]);
    assert_eq!(of(&off, "s1")["wanted"], Value::Null);
    assert!(of(&off, "s1")["ingress"]["hook"].is_string(), "the programs stay: {off}");
    pair.send(&lab, 3)?;

    succeed(&agent, &["enable", "s1", "--direction", "egress"])?;
    assert_eq!(is_capturing(&status(&agent)?, "s1"), [false, true]);
    let mut interfaces = lab.server.command(agent::binary()?);
    interfaces.args(["interfaces", "--socket"]).arg(agent.control_socket());
    let listing = process::run(&mut interfaces)?;
    let heading = listing.lines().next().context("a heading")?;
    let column = heading.split_whitespace().position(|name| name == "CAPTURED");
    let column = column.with_context(|| listing.clone())?;
    let captured = |name: &str| {
        let line = listing.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(column)
    };
    assert_eq!(
        ["s0", "s1", "lo"].map(captured),
        [Some("both"), Some("egress"), Some("no")],
        "{listing}"
    );
    pair.send(&lab, 4)?;

    succeed(&agent, &["enable", "s?", "--direction", "ingress"])?;
    assert_eq!(is_capturing(&status(&agent)?, "s1"), [true, false]);
    assert_eq!(is_capturing(&status(&agent)?, "s0"), [true, false]);
    pair.send(&lab, 2)?;

    succeed(&agent, &["reset", "s?"])?;
    succeed(&agent, &["disable", "s1", "--detach"])?;
    let detached = status(&agent)?;
    assert_eq!(is_capturing(&detached, "s0"), [true, true]);
    assert_eq!(of(&detached, "s1")["ingress"]["hook"], Value::Null, "{detached}");
    assert_eq!(links_held(&agent)?.len(), 2, "those of s0");
    bpf::require_bare(&lab.server, "s1")?;
    pair.send(&lab, 6)?;

    let ended = agent.stop()?;
    Ledger(&ended.ledger).require_balance()?;
    let counts = ingress(&ended.ledger, "s1");
    // All packets while a program was attached: captured ones and ignored ones.
    assert_eq!(counts["seen"], 7 + 3 + 4 + 2, "{counts}");
    assert_eq!(counts["captured"], 7 + 2, "{counts}");
    assert_eq!(counts["ignored"]["disabled"], 3 + 4, "{counts}");
    let of_s1 = ended.records.iter().filter(|record| record["interface"] == "s1").count();
    assert_eq!(of_s1, 7 + 2);
    Ok(())
}

#[test]
fn requests_and_their_clients_are_in_the_log() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    let from = agent.process().stderr().len();
    let mut client = Process::spawn("tap53", agent.command(&["disable", "s0", "--for", "10m"])?)?;
    let pid = client.pid();
    assert!(client.wait(DEADLINE)?.success());
    let line = agent.process().wait_for_line("audit", from, DEADLINE)?;
    for part in ["s0", "uid=0", &format!("pid={pid}"), "process=\"tap53\""] {
        assert!(line.contains(part), "{part} is missing in: {line}");
    }
    agent.stop()?;
    Ok(())
}

#[test]
fn a_switch_with_a_time_ends_by_itself() -> Result<()> {
    let lab = Lab::new()?;
    let pair = SecondPair::new(&lab)?;
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    succeed(&agent, &["enable", "s1", "--for", "1500ms"])?;
    let during = status(&agent)?;
    assert_eq!(of(&during, "s1")["wanted_by"], "command");
    assert!(of(&during, "s1")["wanted_for_s"].as_u64().is_some_and(|seconds| seconds <= 1));
    pair.send(&lab, 3)?;
    wait::until("the switch to end", DEADLINE, || {
        Ok((is_capturing(&status(&agent)?, "s1") == [false, false]).then_some(()))
    })?;
    assert_ne!(of(&status(&agent)?, "s1")["wanted_by"], "command");
    pair.send(&lab, 4)?;
    let ended = agent.stop()?;
    Ledger(&ended.ledger).require_balance()?;
    assert_eq!(ingress(&ended.ledger, "s1")["captured"], 3);
    Ok(())
}

#[test]
fn a_pattern_that_matches_nothing_changes_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    for arguments in [["enable", "eth7"], ["disable", "veth*"], ["reset", "eth7"]] {
        let output = command(&agent, &arguments)?;
        assert_eq!(output.status.code(), Some(FAILED), "{arguments:?}");
        let expected = format!("tap53: no interface matches {:?}\n", arguments[1]);
        assert_eq!(stderr(&output), expected, "{arguments:?}");
    }
    let malformed = command(&agent, &["enable", "eth["])?;
    assert_eq!(malformed.status.code(), Some(FAILED));
    assert!(stderr(&malformed).contains("is not a shell pattern"), "{}", stderr(&malformed));
    assert_eq!(is_capturing(&status(&agent)?, "s0"), [true, true]);
    agent.stop()?;
    Ok(())
}

#[test]
fn a_reset_succeeds_although_a_configured_interface_is_missing() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, &CONFIGURATION.replace("[s0]", "[s0, absent0]"), &[])?;
    succeed(&agent, &["disable", "s0"])?;
    let table = succeed(&agent, &["reset", "*"])?;
    assert!(table.contains("no such interface"), "{table}");
    assert_eq!(is_capturing(&status(&agent)?, "s0"), [true, true]);
    agent.stop()?;
    Ok(())
}

/// Toggles of one interface through the socket, while both carry load.
const TOGGLES: u32 = 1_000;

#[test]
fn a_thousand_toggles_under_load_cost_the_other_interface_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let pair = SecondPair::new(&lab)?;
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    let client = Client::new(&agent.control_socket());
    let enable =
        || Call::Enable { pattern: "s1".to_owned(), directions: Directions::Both, lasts_ms: None };
    let disable = |detach| Call::Disable { pattern: "s1".to_owned(), detach, lasts_ms: None };
    client.switch(enable())?;
    let held = bpf::held_by(agent.process().pid())?;
    let before = [lab.server.packets("s0")?, lab.server.packets("s1")?];

    let questions = tempfile::NamedTempFile::new()?;
    fs::write(questions.path(), "www.tap53.test A\nmail.tap53.test AAAA\nx.absent.test A\n")?;
    let mut dnsperf = lab.client.command("dnsperf");
    // Runs for as long as the toggles take, and is stopped then.
    dnsperf.args(["-s", "198.51.100.2", "-l", "600", "-Q", "3000", "-q", "50", "-d"]);
    let mut load = Process::spawn("dnsperf", {
        dnsperf.arg(questions.path());
        dnsperf
    })?;
    let under_load = || -> Result<Option<()>> {
        let seen = ingress(&client.status()?.status["ledger"], "s0")["seen"].as_u64();
        Ok(seen.is_some_and(|seen| seen > 500).then_some(()))
    };
    wait::until("dnsperf to be under way", DEADLINE, under_load)?;
    // Once the first records have opened what records need.
    let before_all = self::held(&agent)?;
    for toggle in 0..TOGGLES {
        let on = toggle % 2 == 1;
        let changed = client.switch(if on { enable() } else { disable(false) })?;
        assert_eq!(changed.len(), 1);
        assert_eq!([changed[0].ingress.capturing, changed[0].egress.capturing], [on; 2]);
        pair.send_one()?;
        if toggle % 100 == 0 {
            let status = client.status()?.status;
            assert_eq!(is_capturing(&status, "s1"), [on; 2], "{status}");
            assert_eq!(is_capturing(&status, "s0"), [true; 2], "{status}");
        }
    }
    // dnsperf ends in order at SIGINT, and waits for its answers.
    load.signal(Signal::SIGINT)?;
    load.wait(DEADLINE)?;
    let report = load.stdout().text();
    let sent: u64 = report
        .lines()
        .find_map(|line| line.trim().strip_prefix("Queries sent:")?.trim().parse().ok())
        .with_context(|| format!("dnsperf's report:\n{report}"))?;
    assert_eq!(bpf::held_by(agent.process().pid())?, held, "nothing is attached anew or left");
    require_nothing_more(&agent, before_all)?;
    assert!(sent > 1_000, "there was load: {sent}");

    let received =
        |interface: &str| Ok::<_, anyhow::Error>(lab.server.packets(interface)?.received);
    let on_s0 = received("s0")? - before[0].received;
    let on_s1 = received("s1")? - before[1].received;
    assert_eq!(on_s1, u64::from(TOGGLES));
    let ended = agent.stop()?;
    Ledger(&ended.ledger).require_balance()?;
    let s0 = ingress(&ended.ledger, "s0");
    assert_eq!((s0["seen"].as_u64(), s0["captured"].as_u64()), (Some(on_s0), Some(sent)), "{s0}");
    let s1 = ingress(&ended.ledger, "s1");
    assert_eq!(s1["seen"].as_u64(), Some(on_s1), "{s1}");
    let captured = s1["captured"].as_u64().unwrap_or(0);
    // Sent after the answer to each change, so each is on the side that the change says.
    assert_eq!(captured, u64::from(TOGGLES) / 2, "{s1}");
    let of_s0 = ended.records.iter().filter(|record| record["interface"] == "s0").count() as u64;
    assert_eq!(of_s0, sent);
    Ok(())
}

/// Returns the numbers of descriptors and threads of the agent's process.
fn held(agent: &Agent) -> Result<[usize; 2]> {
    let count = |what: &str| -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/{what}", agent.process().pid()))?.count())
    };
    Ok([count("fd")?, count("task")?])
}

/// Nothing more than `before`, once the connection of the last command is closed.
fn require_nothing_more(agent: &Agent, before: [usize; 2]) -> Result<()> {
    wait::until("no descriptor and no thread to be left", DEADLINE, || {
        let now = held(agent)?;
        Ok((now[0] <= before[0] && now[1] <= before[1]).then_some(()))
    })
}

#[test]
fn repeated_reloads_leak_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let _pair = SecondPair::new(&lab)?;
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    status(&agent)?;
    let (links, before) = (links_held(&agent)?, held(&agent)?);
    let path = agent.directory().join("tap53.yaml");
    let without = fs::read_to_string(&path)?;
    let with = without.replace("[s0]", "[s0, s1]");
    let client = Client::new(&agent.control_socket());
    for round in 0..60 {
        for (yaml, on) in [(&with, true), (&without, false)] {
            // The same way as an editor, and half of the time by a signal as well.
            let new = agent.directory().join("new");
            fs::write(&new, yaml)?;
            fs::rename(&new, &path)?;
            if round % 2 == 0 {
                agent.process().signal(Signal::SIGHUP)?;
            }
            wait::until("the file to be reloaded", DEADLINE, || {
                let status = client.status()?.status;
                let attached = status["interfaces"].as_array().map_or(0, Vec::len);
                Ok((attached == 1 + usize::from(on)).then_some(()))
            })?;
        }
    }
    assert_eq!(links_held(&agent)?, links);
    require_nothing_more(&agent, before)?;
    bpf::require_bare(&lab.server, "s1")?;
    agent.stop()?;
    Ok(())
}

#[test]
fn repeated_detaching_leaks_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let _pair = SecondPair::new(&lab)?;
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    // Answered: all that the agent opens at its start is open.
    status(&agent)?;
    let (links, before) = (links_held(&agent)?, held(&agent)?);
    let client = Client::new(&agent.control_socket());
    for _ in 0..60 {
        client.switch(Call::Enable {
            pattern: "s1".to_owned(),
            directions: Directions::Both,
            lasts_ms: None,
        })?;
        client.switch(Call::Disable { pattern: "s1".to_owned(), detach: true, lasts_ms: None })?;
    }
    assert_eq!(links_held(&agent)?, links);
    require_nothing_more(&agent, before)?;
    bpf::require_bare(&lab.server, "s1")?;
    agent.stop()?;
    Ok(())
}
