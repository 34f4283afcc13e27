//! Those who do not keep to the rules of the socket: each gets one clear line, is counted, and costs
//! capture nothing.

use super::*;

/// Timeout of a request in these tests.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(1_000);

fn start(lab: &Lab) -> Result<Agent> {
    let configuration = format!(
        "{CONFIGURATION}\ncontrol: {{socket: $OUT/control.sock, request_timeout_ms: {}}}\n",
        REQUEST_TIMEOUT.as_millis()
    );
    Agent::start(&lab.server, &configuration, &[])
}

fn connect(agent: &Agent) -> Result<UnixStream> {
    let stream = UnixStream::connect(agent.control_socket())?;
    stream.set_read_timeout(Some(DEADLINE))?;
    Ok(stream)
}

/// Returns the agent's refusal, and checks that it closed the connection after it.
fn refusal(stream: &mut UnixStream) -> Result<Value> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let answer: Value = serde_json::from_str(&line).with_context(|| format!("{line:?}"))?;
    let message = answer["error"]["message"].as_str().unwrap_or_default();
    ensure!(!message.is_empty(), "{answer}");
    let mut rest = Vec::new();
    // Reset where the agent has left something unread.
    let _ = reader.read_to_end(&mut rest);
    ensure!(rest.is_empty(), "more than one line");
    Ok(answer["error"]["reason"].clone())
}

#[test]
fn malformed_requests_are_answered_and_capture_continues() -> Result<()> {
    let lab = Lab::new()?;
    let agent = start(&lab)?;
    let oversize = vec![b'{'; 1 << 20];
    for (bytes, reason) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "malformed"),
        (b"\0\0\0\n", "malformed"),
        (b"{\"version\":1,\"call\":{\"enable\":{}}}\n", "malformed"),
        (b"{\"version\":99,\"call\":\"status\"}\n", "version"),
        (&oversize, "too_long"),
    ] {
        let mut stream = connect(&agent)?;
        // Disconnected in the middle of a request that is too long.
        let _ = stream.write_all(bytes);
        assert_eq!(refusal(&mut stream)?, reason);
    }
    let mut half = connect(&agent)?;
    half.write_all(b"{\"version\":1,\"call\":\"sta")?;
    half.shutdown(Shutdown::Write)?;
    assert_eq!(refusal(&mut half)?, "malformed");
    // A client that disconnects without a request is no error.
    drop(connect(&agent)?);
    let exchanges = lab.ask_everything()?;
    let status = status(&agent)?;
    assert_eq!(status["control"]["malformed"], 6, "{}", status["control"]);
    let ended = agent.stop()?;
    Ledger(&ended.ledger).require_balance()?;
    assert_eq!(ended.records.len(), exchanges.len());
    Ok(())
}

#[test]
fn a_client_of_one_byte_a_time_is_cut_at_the_deadline() -> Result<()> {
    let lab = Lab::new()?;
    let agent = start(&lab)?;
    let mut slow = connect(&agent)?;
    let mut told = slow.try_clone()?;
    let began = Instant::now();
    let reason = thread::scope(|scope| {
        scope.spawn(move || {
            for byte in b"{\"version\":1,\"call\":\"status\"}".iter().cycle() {
                if slow.write_all(&[*byte]).is_err() {
                    break;
                }
                thread::park_timeout(REQUEST_TIMEOUT / 20);
            }
        });
        refusal(&mut told)
    })?;
    assert_eq!(reason, "timed_out");
    let took = began.elapsed();
    ensure!(took >= REQUEST_TIMEOUT && took < DEADLINE, "{took:?}");
    assert_eq!(status(&agent)?["control"]["timed_out"], 1);
    agent.stop()?;
    Ok(())
}

#[test]
fn a_thousand_connections_and_a_deaf_one_cost_capture_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let agent = start(&lab)?;
    // It sends a request, and never reads; a small receive buffer would not matter, as the sender's counts.
    let mut deaf: Vec<UnixStream> = Vec::new();
    for _ in 0..4 {
        let mut stream = connect(&agent)?;
        stream.write_all(b"{\"version\":1,\"call\":\"status\"}\n")?;
        deaf.push(stream);
    }
    let mut idle = Vec::new();
    for _ in 0..1_000 {
        idle.push(connect(&agent)?);
    }
    let exchanges = lab.ask_everything()?;
    let mut reasons = [0_u32; 2];
    for stream in &mut idle {
        match refusal(stream)?.as_str() {
            Some("busy") => reasons[0] += 1,
            Some("timed_out") => reasons[1] += 1,
            other => anyhow::bail!("{other:?}"),
        }
    }
    // All got an answer, and the slots are free again.
    ensure!(reasons[0] > 900 && reasons[1] > 0, "{reasons:?}");
    let control = status(&agent)?["control"].clone();
    assert_eq!(control["busy"], reasons[0], "{control}");
    assert_eq!(control["timed_out"], reasons[1], "{control}");
    drop(deaf);
    let ended = agent.stop()?;
    let lines = ended.stderr.matches("control_connections_closed").count();
    ensure!((1..10).contains(&lines), "{lines} lines: {}", ended.stderr);
    Ledger(&ended.ledger).require_balance()?;
    assert_eq!(ended.records.len(), exchanges.len());
    Ok(())
}

/// An allowed user can send any number of requests: the run loop handles one after the other, and
/// capture does not wait for it.
#[test]
fn requests_without_end_lose_nothing() -> Result<()> {
    const LOAD: u64 = 6_000;
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    let questions = tempfile::NamedTempFile::new()?;
    fs::write(questions.path(), "www.tap53.test A\nmail.tap53.test AAAA\nx.absent.test A\n")?;
    let mut dnsperf = lab.client.command("dnsperf");
    let repeats = (LOAD / 3).to_string();
    dnsperf.args(["-s", "198.51.100.2", "-n", &repeats, "-q", "50", "-d"]).arg(questions.path());
    let loaded = AtomicBool::new(false);
    let answered = thread::scope(|scope| {
        let askers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| -> Result<u64> {
                    let client = Client::new(&agent.control_socket());
                    let mut answered = 0;
                    while !loaded.load(Ordering::Relaxed) {
                        client.status()?;
                        answered += 1;
                    }
                    Ok(answered)
                })
            })
            .collect();
        let outcome = process::run(&mut dnsperf);
        loaded.store(true, Ordering::Relaxed);
        let mut answered = 0;
        for asker in askers {
            answered += asker.join().expect("no panic while asking")?;
        }
        outcome.map(|_| answered)
    })?;
    // How many there are is the machine's affair; each asker had several.
    ensure!(answered > 20, "{answered} answers");
    let ended = agent.stop()?;
    Ledger(&ended.ledger).require_balance()?;
    assert_eq!(ended.records.len() as u64, LOAD);
    Ok(())
}
