//! A worker that is held up, and a sink that no longer holds one up.

use std::{io::BufRead as _, sync::mpsc};

use nix::{
    sys::{
        ptrace,
        signal::Signal::{SIGKILL, SIGTERM},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use tap53_harness::{account::Ledger, fastavro, lab::UNANSWERED};

use super::*;

/// Exchanges that lie in a ring.
const QUERIES: u64 = 20;

/// The agent with pipes of the test, and its environment.
struct Stage {
    agent: Piped,
    directory: tempfile::TempDir,
    /// Lines of its log, as they come.
    log: mpsc::Receiver<String>,
}

impl Stage {
    fn start(lab: &Lab, sinks: &str, more: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let out = directory.path().display();
        let configuration = directory.path().join("tap53.yaml");
        fs::write(
            &configuration,
            format!(
                "interfaces: {{include: [s0]}}\ncapture: {{workers: 1}}\n\
                 sinks: {}\nshutdown: {{flush_timeout_ms: 500}}\n\
                 telemetry: {{listen: '{PORT}', {more}}}\n\
                 control: {{socket: {out}/control.sock}}\n",
                sinks.replace("$OUT", &out.to_string())
            ),
        )?;
        let path = configuration.to_str().context("a temporary path in UTF-8")?;
        let ledger = directory.path().join("ledger.json");
        let ledger = ledger.to_str().context("a temporary path in UTF-8")?;
        let mut agent = Piped::start(lab, &["--config", path, "--ledger", ledger])?;
        let log = agent.read_until_ready()?;
        let (to, lines) = mpsc::channel();
        // The log must not be what holds it up.
        thread::spawn(move || log.lines().map_while(Result::ok).try_for_each(|line| to.send(line)));
        Ok(Self { agent, directory, log: lines })
    }

    fn wait_for_log(&self, text: &str) -> Result<()> {
        loop {
            let line = self.log.recv_timeout(DEADLINE).with_context(|| format!("no {text}"))?;
            if line.contains(text) {
                return Ok(());
            }
        }
    }

    fn check(&self, question: &str) -> Result<std::process::Output> {
        let mut command = Command::new(agent::binary()?);
        command.args(["status", "--check", question, "--socket"]);
        Ok(command.arg(self.directory.path().join("control.sock")).output()?)
    }

    fn ledger(&self) -> Result<serde_json::Value> {
        Ok(serde_json::from_slice(&fs::read(self.directory.path().join("ledger.json"))?)?)
    }
}

/// The thread of a process that has this name.
fn thread_named(process: Pid, name: &str) -> Result<Option<Pid>> {
    for entry in fs::read_dir(format!("/proc/{process}/task"))? {
        let entry = entry?;
        // Without it, the thread has ended since the directory was read.
        let Ok(found) = fs::read_to_string(entry.path().join("comm")) else { continue };
        if found.trim() == name {
            let number = entry.file_name().to_str().context("a number")?.parse()?;
            return Ok(Some(Pid::from_raw(number)));
        }
    }
    Ok(None)
}

/// A thread that is stopped until this is dropped.
struct StoppedThread(Pid);

impl StoppedThread {
    /// Stops the first worker. A thread names itself, so that an agent may be ready before its worker
    /// has its name.
    fn worker(process: Pid) -> Result<Self> {
        let what = format!("worker-0 in process {process}");
        let thread = wait::until(&what, DEADLINE, || thread_named(process, "worker-0"))?;
        // The kernel ends a tracee with its tracer, so that nothing is left stopped.
        ptrace::seize(thread, ptrace::Options::PTRACE_O_EXITKILL)?;
        ptrace::interrupt(thread)?;
        waitpid(thread, Some(WaitPidFlag::__WALL))?;
        Ok(Self(thread))
    }
}

impl StoppedThread {
    /// Waits for it to end with its process, which is not over before.
    fn end(self) -> Result<()> {
        let thread = self.0;
        std::mem::forget(self);
        wait::until("the stopped worker to end", DEADLINE, || {
            let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
            let status = waitpid(thread, Some(flags))?;
            let is_over = matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..));
            Ok(is_over.then_some(()))
        })
    }
}

impl Drop for StoppedThread {
    fn drop(&mut self) {
        if ptrace::detach(self.0, None).is_err() {
            // It must not stay as it is.
            let _ = nix::sys::signal::kill(self.0, SIGKILL);
        }
    }
}

#[test]
fn a_worker_that_hangs_is_not_alive_until_it_goes_on() -> Result<()> {
    let lab = Lab::new()?;
    let mut stage =
        Stage::start(&lab, "[{type: stdout, format: json}]", "heartbeat_timeout_ms: 1000")?;
    wait_for(&lab, "/livez", 200, "live")?;
    wait::until("a healthy agent", DEADLINE, || {
        Ok(stage.check("ready")?.status.success().then_some(()))
    })?;

    let stopped = StoppedThread::worker(stage.agent.pid()?)?;
    wait_for(&lab, "/livez", 503, "not live\nworker 0 has not been at its ring for ")?;
    wait_for(&lab, "/readyz", 503, "worker 0 has not been at its ring for ")?;
    for question in ["live", "ready"] {
        let output = stage.check(question)?;
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("worker 0 has not been at its ring for "), "{told}");
    }
    let metrics = get(&lab, "/metrics")?.body;
    let of = series(&metrics);
    assert_eq!(of.get("tap53_live"), Some(&0.0), "{metrics}");
    assert!(of["tap53_worker_heartbeat_age_seconds{worker=\"0\"}"] >= 1.0, "{metrics}");
    // Packets that arrive meanwhile stay in the ring, whose depth shows them.
    lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    let packets =
        "tap53_hook_packets_captured_total{interface=\"(pairs)\",direction=\"egress\"} 1\n";
    let metrics = wait_for(&lab, "/metrics", 200, packets)?.body;
    let of = series(&metrics);
    assert!(of["tap53_ring_used_bytes{worker=\"0\"}"] > 200.0, "{metrics}");
    assert!(of["tap53_ring_packets"] >= 2.0, "{metrics}");

    drop(stopped);
    wait_for(&lab, "/livez", 200, "live")?;
    wait_for(&lab, "/metrics", 200, "tap53_ring_used_bytes{worker=\"0\"} 0\n")?;
    for question in ["live", "ready"] {
        wait::until("a healthy agent", DEADLINE, || {
            Ok(stage.check(question)?.status.success().then_some(()))
        })?;
    }
    let mut records = stage.agent.take_stdout()?;
    stage.agent.signal(SIGTERM)?;
    let mut text = String::new();
    records.read_to_string(&mut text)?;
    assert_eq!(stage.agent.wait()?.code(), Some(0));
    assert_eq!(text.lines().count(), 1, "nothing is lost by waiting");
    Ok(())
}

#[test]
fn a_worker_that_is_slow_at_the_stop_is_waited_for_beyond_the_flush_timeout() -> Result<()> {
    let lab = Lab::new()?;
    let sinks = "[{type: file, directory: $OUT}]";
    let mut stage = Stage::start(&lab, sinks, "heartbeat_timeout_ms: 5000")?;
    let stopped = StoppedThread::worker(stage.agent.pid()?)?;
    for _ in 0..QUERIES {
        lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    }
    stage.agent.signal(SIGTERM)?;
    stage.wait_for_log("event=\"worker_slow_at_stop\"")?;
    drop(stopped);
    assert_eq!(stage.agent.wait()?.code(), Some(0));
    let ledger = stage.ledger()?;
    let ledger = Ledger(&ledger);
    ledger.require_balance()?;
    assert_eq!(ledger.number("/agent/sinks/0/records/delivered")?, QUERIES);
    Ok(())
}

#[test]
fn records_of_an_abandoned_worker_are_counted_and_the_ledger_balances() -> Result<()> {
    let lab = Lab::new()?;
    let sinks = "[{type: file, directory: $OUT}]";
    let mut stage = Stage::start(&lab, sinks, "heartbeat_timeout_ms: 5000")?;
    // One that is recorded, and one that waits for its answer when the worker hangs.
    lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    lab.client_v4().ask_in_vain(UNANSWERED)?;
    // Not before the first response is in: until then, its query is the one that is pending.
    wait_for(&lab, "/metrics", 200, "tap53_packets_received_total 3\n")?;
    wait_for(&lab, "/metrics", 200, "tap53_messages_pending 1\n")?;
    let stopped = StoppedThread::worker(stage.agent.pid()?)?;
    for _ in 0..QUERIES {
        lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    }
    stage.agent.signal(SIGTERM)?;
    stage.wait_for_log("event=\"worker_abandoned\"")?;
    stopped.end()?;
    assert_eq!(stage.agent.wait()?.code(), Some(3));
    let ledger = stage.ledger()?;
    let ledger = Ledger(&ledger);
    ledger.require_balance()?;
    assert_eq!(ledger.number("/agent/packets/received")?, 3);
    assert_eq!(ledger.number("/agent/packets/abandoned")?, 2 * QUERIES);
    assert_eq!(ledger.number("/agent/messages/lost/abandoned")?, 1);
    assert_eq!(ledger.number("/agent/messages/pending")?, 0);
    assert_eq!(ledger.number("/agent/sinks/0/records/delivered")?, 1);
    Ok(())
}

#[test]
fn an_unread_pipe_blocks_neither_the_workers_nor_the_other_sink() -> Result<()> {
    /// Records of over 1 KiB of JSON each: more than the pipe and the sink's queue of 8 MiB hold.
    const LOAD: u64 = 21_000;
    let lab = Lab::new()?;
    let sinks = "[{type: stdout, format: json}, {type: file, directory: $OUT}]";
    let mut stage = Stage::start(&lab, sinks, "heartbeat_timeout_ms: 5000")?;
    let questions = tempfile::NamedTempFile::new()?;
    fs::write(questions.path(), "www.tap53.test A\nmail.tap53.test AAAA\nx.absent.test A\n")?;
    let mut dnsperf = lab.client.command("dnsperf");
    // At a rate that a build for debugging keeps up with.
    let repeats = (LOAD / 3).to_string();
    dnsperf.args(["-s", "198.51.100.2", "-n", &repeats, "-Q", "3000", "-d"]).arg(questions.path());
    let output = dnsperf.output().context("dnsperf")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // The one lost what did not fit; the other has everything.
    let reason = "sink stdout lost the last records that it took: queue_full";
    wait_for(&lab, "/readyz", 503, reason)?;
    assert_eq!(get(&lab, "/livez")?.code, 200, "no worker waits for it");
    let in_file = format!("tap53_sink_records_in_flight{{sink=\"file\"}} {LOAD}\n");
    let metrics = wait_for(&lab, "/metrics", 200, &in_file)?.body;
    assert_eq!(series(&metrics).get("tap53_ledger_balanced"), Some(&1.0), "{metrics}");

    stage.agent.signal(SIGTERM)?;
    assert_eq!(stage.agent.wait()?.code(), Some(3), "stopped in time, and says that some are lost");
    let ledger = stage.ledger()?;
    Ledger(&ledger).require_balance()?;
    let sinks = ledger["agent"]["sinks"].as_array().context("sinks")?;
    let of = |name: &str| -> Result<serde_json::Value> {
        let sink = sinks.iter().find(|sink| sink["name"] == name).context("the sink")?;
        Ok(sink["records"].clone())
    };
    let (stdout, file) = (of("stdout")?, of("file")?);
    assert_eq!(file["delivered"], LOAD, "{file}");
    assert_eq!(stdout["offered"], LOAD, "{stdout}");
    let lost = |reason: &str| stdout["lost"][reason].as_u64().unwrap_or(0);
    let (full, unflushed) = (lost("queue_full"), lost("unflushed"));
    let delivered = stdout["delivered"].as_u64().context("delivered")?;
    assert!(full > 0 && unflushed > 0, "{stdout}");
    assert_eq!(delivered + full + unflushed, LOAD, "{stdout}");
    let files = fs::read_dir(stage.directory.path())?.flatten().map(|entry| entry.path());
    let files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|end| end == "avro")).collect();
    let records = fastavro::read_containers(&files)?.len() as u64;
    assert_eq!(records, LOAD);
    Ok(())
}
