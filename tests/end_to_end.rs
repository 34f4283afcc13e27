//! From packets on a veth to Avro files and standard output: the client's queries and answers, the
//! records and the ledger must agree in every field and number.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result};
use serde_json::Value;
use tap53_harness::{
    account::{Ledger, records_equal_exchanges},
    agent::{Agent, Ended},
    bpf::{self, XdpHolder, XdpMode},
    client::{Client, Exchange, Question, Transport},
    lab::{ANSWERED, Lab, UNANSWERED},
    namespace::{CLIENT_END, Namespace, PacketCounts, SERVER_END, join},
    process::{self, Stream},
    unbound::{Extra, Unbound},
    wait,
};

const DEADLINE: Duration = Duration::from_secs(30);

/// Standard output as well as a file: a line there shows a test that a record was created.
const CONFIGURATION: &str = r#"
node: node-under-test
interfaces:
  include: ["s0"]
capture:
  hook: HOOK
  ring_bytes: 1048576
pair:
  timeout_ms: 300
sinks:
  - type: stdout
    format: text
  - type: file
    directory: $OUT
"#;

fn configuration(hook: &str) -> String {
    CONFIGURATION.replace("HOOK", hook)
}

/// A run of the agent from before the first packet to after the last.
struct Run {
    exchanges: Vec<Exchange>,
    ended: Ended,
    /// Packets that the interface itself counted meanwhile.
    wire: PacketCounts,
}

/// Starts the agent, sends all queries, waits until it has printed that many lines, and stops it.
fn run(lab: &Lab, hook: &str, arguments: &[&str]) -> Result<Run> {
    let agent = Agent::start(&lab.server, &configuration(hook), arguments)?;
    let before = lab.server.packets("s0")?;
    let exchanges = lab.ask_everything()?;
    wait_for_records(&agent, exchanges.len())?;
    let after = lab.server.packets("s0")?;
    Ok(Run {
        exchanges,
        ended: agent.stop()?,
        wire: PacketCounts {
            received: after.received - before.received,
            sent: after.sent - before.sent,
        },
    })
}

/// Waits until standard output has `count` transactions.
fn wait_for_records(agent: &Agent, count: usize) -> Result<()> {
    let transactions = |stream: &Stream| {
        let lines = stream.lines();
        lines.iter().filter(|line| !line.starts_with("TIME")).count()
    };
    let stdout = agent.process().stdout();
    wait::until("a line for each transaction", DEADLINE, || {
        Ok((transactions(stdout) >= count).then_some(()))
    })
    .with_context(|| format!("standard output:\n{}", stdout.text()))
}

fn assert_all_agree(run: &Run, ingress_hook: &str, egress_hook: &str) -> Result<()> {
    let Run { exchanges, ended, wire } = run;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    records_equal_exchanges(&ended.records, exchanges, "s0", "INGRESS")?;
    assert!(ended.records.iter().all(|record| record["node"] == "node-under-test"));
    assert!(ended.records.iter().all(|record| record["capture_gap"] == false));

    let ledger = Ledger(&ended.ledger);
    ledger.require_balance()?;
    let hooks = &ended.ledger["interfaces"][0]["hooks"];
    let description = |direction: &str| hooks[direction].as_str().unwrap_or_default().to_owned();
    assert!(description("ingress").starts_with(ingress_hook), "{hooks}");
    assert!(description("egress").starts_with(egress_hook), "{hooks}");

    // The wire carries nothing but the client's DNS, so the kernel's own counts are an independent
    // witness of what the hooks saw.
    assert_eq!(ledger.number("/interfaces/0/ingress/seen")?, wire.received);
    assert_eq!(ledger.number("/interfaces/0/egress/seen")?, wire.sent);
    for direction in ["ingress", "egress"] {
        let path = |part: &str| format!("/interfaces/0/{direction}/{part}");
        assert_eq!(ledger.sum(&path("lost"))?, 0);
        assert_eq!(ledger.sum(&path("ignored"))?, 0);
        assert_eq!(ledger.number(&path("truncated"))?, 0);
    }
    let answered = exchanges.iter().filter(|exchange| exchange.response.is_some()).count();
    assert_eq!(ledger.number("/agent/messages/decoded")?, (exchanges.len() + answered) as u64);
    assert_eq!(ledger.number("/agent/records/created")?, exchanges.len() as u64);
    assert_eq!(ledger.sum("/agent/packets/lost")?, 0);
    for sink in 0..2 {
        let delivered = format!("/agent/sinks/{sink}/records/delivered");
        assert_eq!(ledger.number(&delivered)?, exchanges.len() as u64);
    }
    Ok(())
}

#[test]
fn every_transaction_is_recorded_through_xdp() -> Result<()> {
    let lab = Lab::new()?;
    let run = run(&lab, "xdp", &[])?;
    assert_all_agree(&run, "xdp", "tc")?;
    bpf::require_bare(&lab.server, "s0")
}

#[test]
fn every_transaction_is_recorded_through_tc() -> Result<()> {
    let lab = Lab::new()?;
    let run = run(&lab, "tc", &[])?;
    assert_all_agree(&run, "tc", "tc")?;
    bpf::require_bare(&lab.server, "s0")
}

/// At the client's end the same transactions leave, so their direction is the other one.
#[test]
fn queries_that_leave_are_egress() -> Result<()> {
    let lab = Lab::new()?;
    let configuration = configuration("xdp").replace("s0", "c0");
    let agent = Agent::start(&lab.client, &configuration, &[])?;
    let exchanges = lab.ask_everything()?;
    wait_for_records(&agent, exchanges.len())?;
    let ended = agent.stop()?;
    records_equal_exchanges(&ended.records, &exchanges, "c0", "EGRESS")?;
    Ledger(&ended.ledger).require_balance()
}

#[test]
fn json_lines_have_the_records_of_the_file() -> Result<()> {
    let lab = Lab::new()?;
    // --json overrides the format in the file.
    let agent = Agent::start(&lab.server, &configuration("auto"), &["--json"])?;
    let exchanges = lab.ask_everything()?;
    wait_for_records(&agent, exchanges.len())?;
    let ended = agent.stop()?;
    records_equal_exchanges(&ended.records, &exchanges, "s0", "INGRESS")?;
    let lines: Result<Vec<Value>, _> = ended.stdout.lines().map(serde_json::from_str).collect();
    let lines = lines.context("standard output is not JSON lines")?;
    assert_eq!(lines.len(), ended.records.len());
    for mut line in lines {
        let record = ended.records.iter().find(|record| record["record_id"] == line["record_id"]);
        let mut record = record.context("a line without a record in the file")?.clone();
        for time in ["query_time", "latest_query_time", "response_time"] {
            // Microseconds in Avro, RFC 3339 in JSON.
            let text = line[time].take();
            if let Some(time_us) = record[time].take().as_i64() {
                let fraction = format!(".{:06}Z", time_us % 1_000_000);
                assert!(text.as_str().is_some_and(|text| text.ends_with(&fraction)), "{text}");
            }
        }
        assert_eq!(line, record);
    }
    Ledger(&ended.ledger).require_balance()
}

/// A zone with a SOA record, which unbound sends with its negative answers.
const ZONE_WITH_SOA: &str = r#"
  local-zone: "negative.test." static
  local-data: 'negative.test. 300 SOA ns.negative.test. root.negative.test. 1 3600 600 86400 120'
"#;

#[test]
fn negative_answers_have_the_minimum_and_on_request_their_authority_section() -> Result<()> {
    let (client, server) = (Namespace::new()?, Namespace::new()?);
    join((&client, CLIENT_END), (&server, SERVER_END), 1_500)?;
    let address = IpAddr::from(SERVER_END.ipv4);
    let extra = Extra { server: ZONE_WITH_SOA.to_owned(), ..Extra::default() };
    let _unbound = Unbound::start_with(&server, &[address], &extra)?;
    let client = Client::new(&client, address);
    let question = Question { name: "missing.negative.test", qtype: "A" };
    for (setting, authorities) in [("", 0), ("record: {all_sections: true}\n", 1)] {
        let agent = Agent::start(&server, &format!("{}{setting}", configuration("auto")), &[])?;
        client.ask(Transport::Udp, question)?;
        wait_for_records(&agent, 1)?;
        let record = &agent.stop()?.records[0];
        assert_eq!((&record["rcode"], &record["soa_minimum"]), (&"NXDOMAIN".into(), &120.into()));
        let section = record["authorities"].as_array().context("a section")?;
        assert_eq!((&record["authority_count"], section.len()), (&1.into(), authorities));
        if let Some(soa) = section.first() {
            let expected = "ns.negative.test root.negative.test 1 3600 600 86400 120";
            assert_eq!((&soa["name"], &soa["type"]), (&"negative.test".into(), &"SOA".into()));
            assert_eq!(soa["rdata"], expected);
        }
    }
    Ok(())
}

#[test]
fn text_lines_stay_readable_for_every_outcome() -> Result<()> {
    let lab = Lab::new()?;
    let run = run(&lab, "xdp", &[])?;
    for (name, qtype, result) in [
        ("www.tap53.test", "A", "203.0.113.10"),
        ("nowhere.absent.test", "A", "NXDOMAIN"),
        ("elsewhere.example", "A", "REFUSED"),
        (UNANSWERED.name, UNANSWERED.qtype, "UNANSWERED"),
    ] {
        let found = run
            .ended
            .stdout
            .lines()
            .any(|line| [name, qtype, result].iter().all(|part| line.contains(part)));
        assert!(found, "no line with {name} {qtype} {result} in:\n{}", run.ended.stdout);
    }
    assert!(!run.ended.stdout.contains('\x1b'), "colour without a terminal");
    Ok(())
}

#[test]
fn a_query_still_open_at_the_end_is_recorded_as_a_gap() -> Result<()> {
    let lab = Lab::new()?;
    // Longer than this test, so that only the end of the run closes the query.
    let configuration = configuration("xdp").replace("timeout_ms: 300", "timeout_ms: 600000");
    let agent = Agent::start(&lab.server, &configuration, &[])?;
    let open = lab.client_v4().ask_in_vain(UNANSWERED)?;
    // The record of an answered query after it shows that the agent has read both from the ring.
    let answered = lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    let ended = agent.stop()?;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    records_equal_exchanges(&ended.records, &[open.clone(), answered], "s0", "INGRESS")?;
    let record = ended.records.iter().find(|record| record["dns_id"] == open.id);
    assert_eq!(record.context("the open query's record")?["capture_gap"], true);
    Ledger(&ended.ledger).require_balance()
}

#[test]
fn tc_captures_if_xdp_is_occupied_and_the_other_program_stays() -> Result<()> {
    for mode in [XdpMode::Native, XdpMode::Generic] {
        let lab = Lab::new()?;
        let _holder = XdpHolder::attach(&lab.server, "s0", mode)?;
        let held = lab.server.link("s0")?["xdp"].clone();
        let run = run(&lab, "xdp", &[])?;
        assert_all_agree(&run, "tc", "tc").with_context(|| format!("{mode:?} holder"))?;
        assert!(
            run.ended.stderr.lines().any(|line| line.contains("s0") && line.contains("XDP")),
            "the log says nothing of XDP being taken:\n{}",
            run.ended.stderr
        );
        assert_eq!(lab.server.link("s0")?["xdp"], held, "the holder was touched");
    }
    Ok(())
}

#[test]
fn sigkill_leaves_nothing_attached_and_no_torn_file() -> Result<()> {
    for hook in ["xdp", "tc"] {
        let lab = Lab::new()?;
        let mut agent = Agent::start(&lab.server, &configuration(hook), &[])?;
        lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
        agent.wait_for_output("www.tap53.test", 0, DEADLINE)?;
        let held = bpf::held_by(agent.process().pid())?;
        let links = held.iter().filter(|(kind, _)| *kind == bpf::Kind::Link).count();
        assert!(links >= 2, "ingress and egress are held by links: {held:?}");

        agent.process_mut().kill();
        // The kernel frees BPF objects after a grace period.
        wait::until("the kernel to drop the BPF objects", DEADLINE, || {
            for object in &held {
                if bpf::exists(*object)? {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
        .with_context(|| format!("hook {hook}, held {held:?}"))?;
        bpf::require_bare(&lab.server, "s0")?;
        assert!(agent.finished_files()?.is_empty(), "an unfinished file under a final name");
        // And the wire still works.
        lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    }
    Ok(())
}

#[test]
fn files_are_rotated_whole_and_in_order() -> Result<()> {
    let lab = Lab::new()?;
    // The least there is: a few records fill a file.
    let configuration = configuration("xdp") + "    rotate_bytes: 4096\n    codec: deflate\n";
    let agent = Agent::start(&lab.server, &configuration, &[])?;
    let mut exchanges = Vec::new();
    for round in 1..=5 {
        exchanges.extend(lab.ask_everything()?);
        wait_for_records(&agent, exchanges.len()).with_context(|| format!("round {round}"))?;
    }
    let directory = agent.directory().to_owned();
    let partial = || -> Result<usize> {
        let mut count = 0;
        for entry in std::fs::read_dir(&directory)? {
            count += usize::from(entry?.path().extension().is_some_and(|e| e == "partial"));
        }
        Ok(count)
    };
    assert!(partial()? <= 1, "more than one open file");
    let ended = agent.stop()?;
    records_equal_exchanges(&ended.records, &exchanges, "s0", "INGRESS")?;
    Ledger(&ended.ledger).require_balance()
}

/// Load from dnsperf, an independent client that counts its queries and responses.
#[test]
fn dnsperf_and_the_ledger_count_the_same() -> Result<()> {
    let lab = Lab::new()?;
    let configuration = configuration("xdp")
        .replace("  - type: stdout\n    format: text\n", "")
        .replace("1048576", "8388608");
    let agent = Agent::start(&lab.server, &configuration, &[])?;
    let questions = tempfile::NamedTempFile::new()?;
    std::fs::write(
        questions.path(),
        "www.tap53.test A\nmail.tap53.test AAAA\ntap53.test TXT\nx.absent.test A\n",
    )?;
    let mut dnsperf = lab.client.command("dnsperf");
    // 1000 times through the list: 4000 queries, of which at most 50 are under way.
    dnsperf.args(["-s", "198.51.100.2", "-n", "1000", "-q", "50", "-d"]).arg(questions.path());
    let report = process::run(&mut dnsperf)?;
    let ended = agent.stop()?;
    let reported = |label: &str| -> Result<u64> {
        let line = report.lines().find_map(|line| line.trim().strip_prefix(label));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        number.with_context(|| format!("{label} in dnsperf's report:\n{report}"))
    };
    assert_eq!(reported("Queries sent:")?, 4_000);
    assert_eq!(reported("Queries completed:")?, 4_000);
    let ledger = Ledger(&ended.ledger);
    ledger.require_balance()?;
    assert_eq!(ledger.number("/interfaces/0/ingress/captured")?, 4_000);
    assert_eq!(ledger.number("/interfaces/0/egress/captured")?, 4_000);
    assert_eq!(ledger.number("/agent/records/created")?, 4_000);
    assert_eq!(ended.records.len(), 4_000);
    assert!(ended.records.iter().all(|record| record["outcome"] == "MATCHED"));
    Ok(())
}

/// A second agent beside the first takes TC, and both see everything.
#[test]
fn two_agents_on_one_interface_both_capture() -> Result<()> {
    let lab = Lab::new()?;
    let first = Agent::start(&lab.server, &configuration("xdp"), &[])?;
    let run = run(&lab, "xdp", &[])?;
    assert_all_agree(&run, "tc", "tc")?;
    wait_for_records(&first, run.exchanges.len())?;
    let ended = first.stop()?;
    records_equal_exchanges(&ended.records, &run.exchanges, "s0", "INGRESS")?;
    Ledger(&ended.ledger).require_balance()
}
