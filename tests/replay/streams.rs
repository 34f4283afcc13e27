//! Standard input as it comes, readers that go away, and replays that are stopped.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tap53_harness::{agent, pcap::Pcap, process::die_with_parent, wait};

use super::{
    DEADLINE,
    files::{HOUR, ask, exchange, exchanges},
    text,
};

/// `tap53 replay` with pipes that the test holds; dropping it kills the process.
struct Piped(Child);

impl Piped {
    fn start(arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(agent::binary()?);
        command.arg("replay").args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        die_with_parent(&mut command, Signal::SIGKILL);
        Ok(Self(command.spawn()?))
    }

    fn lines(&mut self) -> Result<impl BufRead + use<>> {
        Ok(BufReader::new(self.0.stdout.take().context("stdout is piped")?))
    }

    /// Waits for the end: exit code and standard error.
    fn end(&mut self) -> Result<(Option<i32>, String)> {
        drop(self.0.stdin.take());
        let status = wait::until("tap53 to exit", DEADLINE, || Ok(self.0.try_wait()?))?;
        let mut stderr = String::new();
        self.0.stderr.take().context("stderr is piped")?.read_to_string(&mut stderr)?;
        Ok((status.code(), stderr))
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn line(lines: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    lines.read_line(&mut line)?;
    Ok(line)
}

#[test]
fn standard_input_is_replayed_as_it_arrives() -> Result<()> {
    let (first, both) = (exchanges(&[(0, 1)]), exchanges(&[(0, 1), (1, 2)]));
    let mut replay = Piped::start(&["--json", "-"])?;
    let mut stdin = replay.0.stdin.take().context("stdin is piped")?;
    let mut lines = replay.lines()?;
    for (bytes, id) in [(first.bytes(), 1), (&both.bytes()[first.bytes().len()..], 2)] {
        stdin.write_all(bytes)?;
        stdin.flush()?;
        // While the pipe is open.
        let line = line(&mut lines)?;
        assert!(line.contains(&format!("\"dns_id\":{id},")), "{line}");
    }
    drop(stdin);
    let (code, stderr) = replay.end()?;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("standard input"), "{stderr}");
    Ok(())
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("long.pcap");
    let mut file = Pcap::default();
    for id in 0..20_000 {
        exchange(&mut file, Duration::from_millis(id.into()), id);
    }
    file.write(&path)?;
    let mut replay = Piped::start(&["--json", text(&path)?])?;
    let mut lines = replay.lines()?;
    assert!(line(&mut lines)?.contains("MATCHED"));
    drop(lines);
    let (code, stderr) = replay.end()?;
    assert_eq!(code, Some(0), "{stderr}");
    for word in ["ERROR", "WARN", "panicked", "tap53:"] {
        assert!(!stderr.contains(word), "{stderr}");
    }
    Ok(())
}

#[test]
fn a_replay_as_fast_as_recorded_waits_and_can_be_interrupted() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("slow.pcap");
    let mut file = exchanges(&[(0, 1)]);
    ask(&mut file, HOUR, 2);
    file.write(&path)?;
    for (signal, expected) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let mut replay = Piped::start(&["--json", "--speed", "0.5", text(&path)?])?;
        // Delivered before it waits for the next frame.
        assert!(line(&mut replay.lines()?)?.contains("MATCHED"));
        kill(Pid::from_raw(i32::try_from(replay.0.id())?), signal)?;
        let (code, stderr) = replay.end()?;
        assert_eq!(code, Some(expected), "{stderr}");
        assert!(stderr.contains("stopped before the end"), "{stderr}");
        assert!(stderr.contains("balanced: yes"), "{stderr}");
        assert!(stderr.contains("created") || stderr.contains("offered          1"), "{stderr}");
    }
    // Both frames at once if they are not waited for.
    let mut replay = Piped::start(&["--json", "--speed", "1e9", text(&path)?])?;
    let mut lines = replay.lines()?;
    for outcome in ["MATCHED", "UNANSWERED"] {
        assert!(line(&mut lines)?.contains(outcome));
    }
    assert_eq!(replay.end()?.0, Some(0));
    Ok(())
}

#[test]
fn an_interrupted_replay_does_not_finish_its_file() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (path, configuration) =
        (directory.path().join("slow.pcap"), directory.path().join("tap53.yaml"));
    let mut file = exchanges(&[(0, 1)]);
    ask(&mut file, HOUR, 2);
    file.write(&path)?;
    let out = directory.path().join("out");
    fs::create_dir(&out)?;
    let sinks = format!("[{{type: stdout}}, {{type: file, directory: {}}}]", text(&out)?);
    fs::write(&configuration, format!("sinks: {sinks}\n"))?;
    let names = || -> Result<Vec<String>> {
        fs::read_dir(&out)?.map(|it| Ok(it?.file_name().to_string_lossy().into_owned())).collect()
    };
    let (configuration, path) = (text(&configuration)?, text(&path)?);
    let mut replay = Piped::start(&["-c", configuration, "--speed", "1", path])?;
    let mut lines = replay.lines()?;
    // Below the heading. The file has the record too then, or will have it.
    while !line(&mut lines)?.contains("NOERROR") {}
    wait::until("the record in the file", DEADLINE, || {
        let sizes = fs::read_dir(&out)?.map(|it| Ok(it?.metadata()?.len()));
        let sizes: Vec<u64> = sizes.collect::<Result<_>>()?;
        Ok((sizes.iter().sum::<u64>() > 0).then_some(()))
    })?;
    kill(Pid::from_raw(i32::try_from(replay.0.id())?), Signal::SIGINT)?;
    let (code, stderr) = replay.end()?;
    assert_eq!(code, Some(130), "{stderr}");
    assert!(stderr.contains("event=\"file_left_unfinished\""), "{stderr}");
    assert!(stderr.contains("balanced: yes"), "{stderr}");
    let left = names()?;
    assert!(left.len() == 1 && left[0].ends_with(".avro.partial"), "{left:?}");

    // A replay that reaches its end gives its file the final name.
    let output = agent::run(&["replay", "-c", configuration, path])?;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(names()?.iter().filter(|name| name.ends_with(".avro")).count(), 1, "{:?}", names()?);
    Ok(())
}

#[test]
fn a_pipe_that_stays_open_does_not_hold_up_the_end() -> Result<()> {
    let mut replay = Piped::start(&["--json", "-"])?;
    let mut stdin = replay.0.stdin.take().context("stdin is piped")?;
    stdin.write_all(exchanges(&[(0, 1)]).bytes())?;
    assert!(line(&mut replay.lines()?)?.contains("MATCHED"));
    kill(Pid::from_raw(i32::try_from(replay.0.id())?), Signal::SIGINT)?;
    let (code, stderr) = replay.end()?;
    assert_eq!(code, Some(130), "{stderr}");
    assert!(stderr.contains("balanced: yes"), "{stderr}");
    drop(stdin);
    Ok(())
}

#[test]
fn sigusr1_prints_the_ledger_and_the_replay_goes_on() -> Result<()> {
    let mut replay = Piped::start(&["--json", "-"])?;
    let mut stdin = replay.0.stdin.take().context("stdin is piped")?;
    let both = exchanges(&[(0, 1), (1, 2)]);
    let half = exchanges(&[(0, 1)]).bytes().len();
    stdin.write_all(&both.bytes()[..half])?;
    let mut lines = replay.lines()?;
    assert!(line(&mut lines)?.contains("MATCHED"));
    let pid = Pid::from_raw(i32::try_from(replay.0.id())?);
    let mut log = BufReader::new(replay.0.stderr.take().context("stderr is piped")?);
    // A line is out before it is counted, so the first ledger may come without it.
    wait::until("the ledger to have the line", DEADLINE, || {
        kill(pid, Signal::SIGUSR1)?;
        let mut ledger = String::new();
        while !ledger.contains("balanced") {
            anyhow::ensure!(log.read_line(&mut ledger)? > 0, "it ended: {ledger}");
        }
        assert!(ledger.contains("balanced: yes"), "{ledger}");
        Ok(ledger.contains("offered          1 = delivered 1").then_some(()))
    })?;
    stdin.write_all(&both.bytes()[half..])?;
    assert!(line(&mut lines)?.contains("MATCHED"));
    drop(stdin);
    assert_eq!(wait::until("the end", DEADLINE, || Ok(replay.0.try_wait()?))?.code(), Some(0));
    Ok(())
}
