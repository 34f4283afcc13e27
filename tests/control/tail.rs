//! Following the records of a running agent.

use super::*;

/// A running `tap53 tail` that the agent knows of.
struct Follower(Process);

impl Follower {
    fn start(agent: &Agent, arguments: &[&str]) -> Result<Self> {
        let before = followers(agent)?;
        let command = agent.command(&[&["tail"], arguments].concat())?;
        let process = Process::spawn("tap53 tail", command)?;
        wait::until("the agent to know of the follower", DEADLINE, || {
            Ok((followers(agent)? > before).then_some(()))
        })?;
        Ok(Self(process))
    }

    /// Its lines as JSON, once there are `count`.
    fn records(&self, count: usize) -> Result<Vec<Value>> {
        wait::until("the follower to show all", DEADLINE, || {
            Ok((self.0.stdout().len() >= count).then_some(()))
        })
        .with_context(|| format!("{} lines of {count}", self.0.stdout().len()))?;
        let lines = self.0.stdout().lines();
        lines.iter().map(|line| serde_json::from_str(line).context(line.clone())).collect()
    }
}

fn followers(agent: &Agent) -> Result<u64> {
    status(agent)?["control"]["followers"].as_u64().context("no number of followers")
}

fn ids(records: &[Value]) -> BTreeSet<String> {
    records.iter().map(|record| record["record_id"].to_string()).collect()
}

#[test]
fn a_follower_sees_every_record_as_the_sink_does() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    let json = Follower::start(&agent, &["--json"])?;
    // Two at once, the other for people.
    let mut text = Follower::start(&agent, &[])?;
    let exchanges = lab.ask_everything()?;
    let followed = json.records(exchanges.len())?;
    let expected = exchanges.len() + 1;
    wait::until("the text follower to show all", DEADLINE, || {
        Ok((text.0.stdout().len() >= expected).then_some(()))
    })?;
    let lines = text.0.stdout().lines();
    assert!(lines[0].starts_with("TIME (UTC)"), "{}", lines[0]);
    assert!(lines.iter().any(|line| line.contains("www.tap53.test") && line.contains("NOERROR")));
    assert!(lines.iter().any(|line| line.contains("UNANSWERED")));
    assert!(!lines.iter().any(|line| line.contains('\x1b')), "colour without a terminal");
    let ended = agent.stop()?;
    Ledger(&ended.ledger).require_balance()?;
    assert_eq!(ids(&followed), ids(&ended.records));
    assert_eq!(followed.len(), exchanges.len());
    // Told that it is over, which is no failure.
    assert!(text.0.wait(DEADLINE)?.success());
    assert_eq!(text.0.stderr().text(), "tap53: the agent has stopped");
    Ok(())
}

/// Options of a follower, and a condition that its records must fulfil.
type Case = (&'static [&'static str], fn(&Value) -> bool);

#[test]
fn a_follower_chooses_by_answer_and_latency() -> Result<()> {
    require_chosen(&[
        (&["--answer", "203.0.113.0/28"], |r| {
            let addresses = r["resolved_addresses"].as_array().into_iter().flatten();
            let within = |address: &str| {
                address.parse::<std::net::Ipv4Addr>().is_ok_and(|it| {
                    let [a, b, c, d] = it.octets();
                    [a, b, c] == [203, 0, 113] && d < 16
                })
            };
            addresses.filter_map(Value::as_str).any(within)
        }),
        // Every response, and no transaction without one.
        (&["--slower", "1us"], |r| r["latency_ns"].as_u64().is_some_and(|ns| ns >= 1_000)),
    ])
}

#[test]
fn a_follower_chooses() -> Result<()> {
    require_chosen(&[
        (&["--qname", "WWW.tap53.test"], |r| r["qname"] == "www.tap53.test"),
        (&["--qtype", "aaaa", "--qtype", "MX"], |r| r["qtype"] == "AAAA" || r["qtype"] == "MX"),
        (&["--rcode", "NXDOMAIN", "--unanswered"], |r| {
            r["rcode"] == "NXDOMAIN" || r["outcome"] == "UNANSWERED"
        }),
        (&["--client", "2001:db8::/64"], |r| r["ip_version"] == 6),
        (&["--server", "203.0.113.2"], |r| r["interface"] == "s1"),
        (&["--interface", "s[1-9]"], |r| r["interface"] == "s1"),
        (&["--qname", "tap53.test", "--qtype", "A", "--client", "198.51.100.1"], |r| {
            r["ip_version"] == 4
                && r["qtype"] == "A"
                && r["qname"].as_str().is_some_and(|name| name.ends_with("tap53.test"))
        }),
    ])
}

/// Checks that each follower gets the records that fulfil its condition, and no others.
fn require_chosen(cases: &[Case]) -> Result<()> {
    let lab = Lab::new()?;
    let pair = SecondPair::new(&lab)?;
    let agent = Agent::start(&lab.server, &CONFIGURATION.replace("[s0]", "[s0, s1]"), &[])?;
    let mut followers = Vec::new();
    for (arguments, _) in cases {
        followers.push(Follower::start(&agent, &[&["--json"], *arguments].concat())?);
    }
    let mut counted = Follower::start(&agent, &["--count", "3", "--json"])?;
    lab.ask_everything()?;
    pair.send(&lab, 2)?;
    assert!(counted.0.wait(DEADLINE)?.success());
    assert_eq!(counted.0.stdout().len(), 3);
    let ended = agent.stop()?;
    for ((arguments, holds), follower) in cases.iter().zip(&mut followers) {
        // Its end comes after the last line.
        assert!(follower.0.wait(DEADLINE)?.success());
        let expected: Vec<Value> = ended.records.iter().filter(|r| holds(r)).cloned().collect();
        let shown = follower.records(expected.len())?;
        assert!(!expected.is_empty() && expected.len() < ended.records.len(), "{arguments:?}");
        assert_eq!(ids(&shown), ids(&expected), "{arguments:?}");
    }
    Ok(())
}

#[test]
fn an_invalid_selection_is_refused_with_the_reason() -> Result<()> {
    let lab = Lab::new()?;
    let configuration = format!("{CONFIGURATION}\nprivacy: {{client_address: drop}}\n");
    let agent = Agent::start(&lab.server, &configuration, &[])?;
    let hidden = command(&agent, &["tail", "--client", "198.51.100.1"])?;
    assert_eq!(hidden.status.code(), Some(FAILED));
    let message = stderr(&hidden);
    assert!(message.contains("client's address: the privacy section hides it"), "{message}");
    for wrong in [["--qtype", "AAAAA"], ["--rcode", "NXDOM"], ["--client", "10.0.0.1/8"]] {
        let output = command(&agent, &["tail", wrong[0], wrong[1]])?;
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(stderr(&output).contains(wrong[1]), "{}", stderr(&output));
    }
    for (arguments, part) in [
        (["--interface", "s9"], "no interface matches \"s9\": there are s0"),
        (["--namespace", "shop"], "records name pods only if an agent with kubernetes.enabled"),
        (["--label", "app=shop"], "records name pods only if an agent with kubernetes.enabled"),
    ] {
        let refused = command(&agent, &[&["tail"][..], &arguments].concat())?;
        assert_eq!(refused.status.code(), Some(FAILED), "{arguments:?}");
        assert!(stderr(&refused).contains(part), "{}", stderr(&refused));
    }
    // The privacy rules apply to the lines.
    let follower = Follower::start(&agent, &["--json"])?;
    lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    let shown = follower.records(1)?;
    assert!(!shown[0].to_string().contains("198.51.100.1\""), "{}", shown[0]);
    agent.stop()?;
    Ok(())
}

#[test]
fn a_follower_may_begin_in_the_past() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    let exchanges = lab.ask_everything()?;
    wait::until("all records to be made", DEADLINE, || {
        let made = status(&agent)?["ledger"]["agent"]["records"]["created"].clone();
        Ok((made == exchanges.len()).then_some(()))
    })?;
    let past = |arguments: &[&str]| -> Result<Vec<Value>> {
        let lines =
            succeed(&agent, &[&["tail", "--no-follow", "-o", "jsonl"], arguments].concat())?;
        lines.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    };
    let (all, last) = (past(&["--since", "1h"])?, past(&["--last", "3"])?);
    let unanswered = past(&["--last", "1", "--unanswered", "--interface", "s0"])?;
    assert_eq!((past(&["--last", "0"])?.len(), unanswered.len()), (0, 1));
    assert_eq!(unanswered[0]["outcome"], "UNANSWERED");
    assert_eq!((last.len(), &last[..]), (3, &all[all.len() - 3..]));
    wait::until("the agent to drop the followers that have ended", DEADLINE, || {
        Ok((followers(&agent)? == 0).then_some(()))
    })?;
    // The same for people, and then new ones.
    let mut text = Follower::start(&agent, &["--last", "1000", "--fields", "type,name,result"])?;
    wait::until("the follower to show the past", DEADLINE, || {
        Ok((text.0.stdout().len() > exchanges.len()).then_some(()))
    })?;
    lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    wait::until("the follower to show a new one", DEADLINE, || {
        Ok((text.0.stdout().len() > exchanges.len() + 1).then_some(()))
    })?;
    let csv = succeed(&agent, &["tail", "--last", "2", "--no-follow", "-o", "csv"])?;
    assert!(csv.starts_with("time,node,interface,client,") && csv.lines().count() == 3, "{csv}");
    let ended = agent.stop()?;
    assert_eq!(ids(&all), ids(&ended.records[..exchanges.len()]));
    assert!(text.0.wait(DEADLINE)?.success());
    let lines = text.0.stdout().lines();
    assert_eq!(lines.len(), exchanges.len() + 2);
    assert!(lines[0].starts_with("TYPE   NAME"), "{}", lines[0]);
    Ok(())
}

#[test]
fn an_agent_without_memory_refuses_the_past() -> Result<()> {
    let lab = Lab::new()?;
    let configuration =
        format!("{CONFIGURATION}\ncontrol: {{socket: $OUT/control.sock, recent_bytes: 0}}\n");
    let agent = Agent::start(&lab.server, &configuration, &[])?;
    let refused = command(&agent, &["tail", "--last", "1"])?;
    assert_eq!(refused.status.code(), Some(FAILED));
    assert!(stderr(&refused).contains("control.recent_bytes is 0"), "{}", stderr(&refused));
    Ok(())
}

#[test]
fn a_follower_that_is_interrupted_closes_with_its_counts() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    let mut follower = Follower::start(&agent, &[])?;
    lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    wait::until("the follower to show the transaction", DEADLINE, || {
        Ok((follower.0.stdout().len() == 2).then_some(()))
    })?;
    follower.0.signal(Signal::SIGINT)?;
    assert_eq!(follower.0.wait(DEADLINE)?.code(), Some(0));
    let closing = follower.0.stderr().text();
    let counts = "tap53: 1 transaction shown, 0 lines lost because this reader was slow, in ";
    let seconds = closing.strip_prefix(counts).and_then(|rest| rest.strip_suffix(" s"));
    assert!(seconds.is_some_and(|seconds| seconds.parse::<f64>().is_ok()), "{closing}");
    agent.stop()?;
    Ok(())
}

/// `kubectl exec` without a terminal leaves such a command in the pod when kubectl ends: nobody reads its
/// output, and it gets no signal.
#[test]
fn a_follower_whose_reader_is_gone_ends_when_its_time_does() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    // Longer than a loaded machine takes to fill the pipe with these records.
    let mut command = agent.command(&["tail", "--json", "--for", "3s"])?;
    let mut abandoned = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let questions = tempfile::NamedTempFile::new()?;
    fs::write(questions.path(), "www.tap53.test A\n")?;
    let mut dnsperf = lab.client.command("dnsperf");
    dnsperf.args(["-s", "198.51.100.2", "-n", "300", "-d"]).arg(questions.path());
    process::run(&mut dnsperf)?;
    let ended = wait::until("the follower to end", DEADLINE, || Ok(abandoned.try_wait()?));
    if ended.is_err() {
        abandoned.kill()?;
        abandoned.wait()?;
    }
    // 0 if the pipe has taken all.
    assert!(matches!(ended?.code(), Some(0 | FAILED)));
    wait::until("the agent to drop the follower", DEADLINE, || {
        Ok((followers(&agent)? == 0).then_some(()))
    })?;
    agent.stop()?;
    Ok(())
}

#[test]
fn the_newest_follower_displaces_the_oldest_with_a_message() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    let mut oldest = Follower::start(&agent, &[])?;
    let others: Vec<_> =
        (0..7).map(|_| Follower::start(&agent, &["--json"])).collect::<Result<_>>()?;
    let newest = Process::spawn("tap53 tail", agent.command(&["tail", "--json"])?)?;
    assert_eq!(oldest.0.wait(DEADLINE)?.code(), Some(FAILED));
    let message = oldest.0.stderr().text();
    assert!(message.contains("a newer follower took this place"), "{message}");
    lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    for follower in others.iter().map(|follower| &follower.0).chain([&newest]) {
        follower.stdout().wait_for_line("www.tap53.test", 0, DEADLINE)?;
    }
    agent.stop()?;
    Ok(())
}

/// Queries while a follower is stopped: ten times what its queue and the socket's buffers hold.
const LOAD: usize = 6_000;

#[test]
fn a_stalled_follower_loses_lines_that_are_counted_and_capture_loses_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    let mut stalled = Follower::start(&agent, &["--json"])?;
    let mut awake = Follower::start(&agent, &[])?;
    stalled.0.signal(Signal::SIGSTOP)?;
    let questions = tempfile::NamedTempFile::new()?;
    fs::write(questions.path(), "www.tap53.test A\nmail.tap53.test AAAA\nx.absent.test A\n")?;
    let mut dnsperf = lab.client.command("dnsperf");
    let repeats = (LOAD / 3).to_string();
    dnsperf.args(["-s", "198.51.100.2", "-n", &repeats, "-q", "50", "-d"]).arg(questions.path());
    process::run(&mut dnsperf)?;
    // The agent has created all records before the follower wakes.
    wait::until("all records to be made", DEADLINE, || {
        let made = status(&agent)?["ledger"]["agent"]["records"]["created"].clone();
        Ok((made == LOAD).then_some(()))
    })?;
    stalled.0.signal(Signal::SIGCONT)?;
    stalled.0.wait_for_line("lost", 0, DEADLINE)?;
    // Awake, it gets every line again, after the counts of the lost ones.
    let mut asked = 0;
    wait::until("a record that was not missed", DEADLINE, || {
        asked += 1;
        lab.client_v4().ask(Transport::Udp, ANSWERED[3])?;
        Ok(stalled.0.stdout().text().contains("\"qname\":\"tap53.test\"").then_some(()))
    })?;
    let lost_in_status = status(&agent)?["control"]["follower_lines_lost"].clone();
    let ended = agent.stop()?;
    Ledger(&ended.ledger).require_balance()?;
    assert_eq!(ended.records.len(), LOAD + asked);
    assert!(stalled.0.wait(DEADLINE)?.success());

    // Told at each place where some are missing: the socket takes a few in between.
    let told = stalled.0.stderr().text();
    let lost: usize = told
        .lines()
        .filter_map(|line| line.strip_prefix("… ")?.strip_suffix(" lost"))
        .filter_map(|count| count.split(' ').next()?.parse::<usize>().ok())
        .sum();
    assert!(lost > 0, "it lost nothing: {told}");
    assert_eq!(stalled.0.stdout().len() + lost, LOAD + asked, "{lost} lost");
    assert_eq!(lost_in_status, lost);
    // The one follower has what the other loses.
    assert!(awake.0.wait(DEADLINE)?.success());
    assert_eq!(awake.0.stdout().len(), LOAD + asked + 1, "with the heading");
    Ok(())
}

#[test]
fn a_follower_of_an_agent_that_is_killed_fails() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    let mut follower = Follower::start(&agent, &[])?;
    agent.process_mut().kill();
    assert_eq!(follower.0.wait(DEADLINE)?.code(), Some(FAILED));
    let said = follower.0.stderr().text();
    assert!(said.contains("the connection to the agent"), "{said}");
    Ok(())
}
