//! `tap53 query --agent` and `tap53 report --agent`: questions to a running agent are answered as those to files.

use tap53_harness::python::json_lines;

use super::*;

/// Starts an agent, and waits until it has the records of all exchanges.
fn agent_with_records(lab: &Lab) -> Result<(Agent, usize)> {
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    let exchanges = lab.ask_everything()?.len();
    wait_for_records(&agent, exchanges)?;
    Ok((agent, exchanges))
}

fn wait_for_records(agent: &Agent, count: usize) -> Result<()> {
    wait::until("all records to be created", DEADLINE, || {
        let created = status(agent)?["ledger"]["agent"]["records"]["created"].clone();
        Ok((created == count).then_some(()))
    })
}

/// Starts a question about new records, and waits until the agent knows of it.
fn follow(agent: &Agent, arguments: &[&str]) -> Result<Process> {
    let command = agent.command(&[&["query", "--agent", "--for", "1h"], arguments].concat())?;
    let process = Process::spawn("tap53 query", command)?;
    wait::until("the agent to know of the follower", DEADLINE, || {
        Ok((status(agent)?["control"]["followers"] == 1).then_some(()))
    })?;
    Ok(process)
}

fn objects(lines: &str) -> Result<Vec<Value>> {
    lines.lines().map(|line| serde_json::from_str(line).context("a line of JSON")).collect()
}

#[test]
fn the_memory_of_an_agent_answers_as_a_file_does() -> Result<()> {
    let lab = Lab::new()?;
    let (agent, exchanges) = agent_with_records(&lab)?;
    let query = |arguments: &[&str]| succeed(&agent, &[&["query", "--agent"], arguments].concat());
    let records = objects(&query(&["-o", "json"])?)?;
    let tail = succeed(&agent, &["tail", "--since", "1h", "--no-follow", "-o", "jsonl"])?;
    assert_eq!(records, objects(&tail)?, "every field, as tail prints it");
    assert_eq!(records.len(), exchanges);
    let last = objects(&query(&["--last", "2", "-o", "json"])?)?;
    assert_eq!(last, records[exchanges - 2..]);
    let absent: Vec<_> = records.iter().filter(|it| it["rcode"] == "NXDOMAIN").cloned().collect();
    assert!(!absent.is_empty() && absent.len() < exchanges);
    assert_eq!(objects(&query(&["rcode = NXDOMAIN", "-o", "json"])?)?, absent);
    let report = objects(&query(&["--since", "1h", "--report", "rcodes", "-o", "json"])?)?;
    let row = report.iter().find(|row| row["rcode"] == "NXDOMAIN");
    assert_eq!(row.context("a row")?["transactions"], absent.len());
    let csv = query(&["-o", "csv"])?;
    assert_eq!(csv.lines().count(), exchanges + 1);
    let parquet = agent.directory().join("records.parquet");
    let path = parquet.to_str().context("a temporary path in UTF-8")?;
    query(&["-o", "parquet", "--output", path])?;
    assert_eq!(json_lines("read_parquet.py", [&parquet], &[])?, records);
    let page = agent.directory().join("report.html");
    let path = page.to_str().context("a temporary path in UTF-8")?;
    succeed(&agent, &["report", "--agent", "-o", path])?;
    let [page] = &json_lines("read_page.py", [&page], &[])?[..] else {
        anyhow::bail!("one object")
    };
    let source = format!("agent at {}", agent.control_socket().display());
    let cells = page["cells"].as_array().context("cells")?;
    assert!(cells.iter().any(|cell| cell == "www.tap53.test"), "{page}");
    let texts = page["definitions"].as_array().context("definitions")?;
    assert!(texts.iter().any(|text| *text == source), "{page}");
    agent.stop()?;
    Ok(())
}

#[test]
fn new_records_are_read_until_the_limit_or_an_interrupt() -> Result<()> {
    let lab = Lab::new()?;
    let (agent, _) = agent_with_records(&lab)?;
    let mut limited = follow(
        &agent,
        &["qname = www.tap53.test", "--limit", "2", "--fields", "qname", "-o", "csv"],
    )?;
    for _ in 0..3 {
        lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    }
    assert!(limited.wait(DEADLINE)?.success());
    assert_eq!(limited.stdout().lines(), ["qname", "www.tap53.test", "www.tap53.test"]);
    wait::until("the agent to drop the follower", DEADLINE, || {
        Ok((status(&agent)?["control"]["followers"] == 0).then_some(()))
    })?;
    // Lines are written while it follows; a report when it ends.
    let mut lines = follow(&agent, &["--fields", "qname", "-o", "csv"])?;
    lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    wait::until("the line of the record", DEADLINE, || {
        Ok((lines.stdout().len() == 2).then_some(()))
    })?;
    lines.signal(Signal::SIGINT)?;
    assert!(lines.wait(DEADLINE)?.success());
    assert_eq!(lines.stderr().text(), "1 of 1 records selected");
    agent.stop()?;
    Ok(())
}

#[test]
fn records_that_a_slow_reader_missed_are_counted_and_fail_the_question() -> Result<()> {
    const LOAD: usize = 6_000;
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    let mut stalled = follow(&agent, &["--fields", "qname", "-o", "csv"])?;
    stalled.signal(Signal::SIGSTOP)?;
    let questions = tempfile::NamedTempFile::new()?;
    fs::write(questions.path(), "www.tap53.test A\nmail.tap53.test AAAA\nx.absent.test A\n")?;
    let mut dnsperf = lab.client.command("dnsperf");
    let repeats = (LOAD / 3).to_string();
    dnsperf.args(["-s", "198.51.100.2", "-n", &repeats, "-q", "50", "-d"]).arg(questions.path());
    process::run(&mut dnsperf)?;
    wait_for_records(&agent, LOAD)?;
    stalled.signal(Signal::SIGCONT)?;
    let ended = agent.stop()?;
    Ledger(&ended.ledger).require_balance()?;
    assert_eq!(stalled.wait(DEADLINE)?.code(), Some(FAILED));
    let errors = stalled.stderr().text();
    let missed = errors.lines().find_map(|line| {
        let count = line.strip_prefix("tap53: ")?.strip_suffix(MISSED)?;
        count.parse::<usize>().ok()
    });
    let missed = missed.with_context(|| errors.clone())?;
    assert!(missed > 0, "{errors}");
    assert_eq!(stalled.stdout().len() - 1 + missed, LOAD, "{errors}");
    assert!(errors.contains("tap53: the agent has stopped"), "{errors}");
    Ok(())
}

const MISSED: &str = " records of the agent were missed because this reader was slow: write the result \
                      to a file, or query files of the agent";

#[test]
fn what_an_agent_cannot_answer_is_refused_with_the_remedy() -> Result<()> {
    let lab = Lab::new()?;
    let configuration =
        format!("{CONFIGURATION}\ncontrol: {{socket: $OUT/control.sock, recent_bytes: 0}}\n");
    let agent = Agent::start(&lab.server, &configuration, &[])?;
    let fails = |arguments: &[&str], code: i32, message: &str| -> Result<()> {
        let output = command(&agent, arguments)?;
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert!(stderr(&output).contains(message), "{message:?} is not in {}", stderr(&output));
        Ok(())
    };
    let remedy = "control.recent_bytes is 0; set it to 4194304";
    fails(&["query", "--agent"], FAILED, remedy)?;
    fails(&["report", "--agent", "-o", "report.html"], FAILED, remedy)?;
    fails(&["query", "--agent", "records.avro"], 2, "--agent reads no files")?;
    fails(&["query", "records.avro", "--last", "5"], 2, "--agent")?;
    fails(&["query", "--agent", "-p", "53"], 2, "--port")?;
    let nobody = agent::run(&["query", "--agent", "--socket", "/absent"])?;
    assert_eq!(nobody.status.code(), Some(FAILED));
    assert!(stderr(&nobody).contains("no agent answers at /absent"), "{}", stderr(&nobody));
    agent.stop()?;
    Ok(())
}
