//! `cargo xtask faults`: real faults under a numbered stream, and `docs/faults.md` made of what
//! became of it.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use tap53_harness::faults::{ROWS_VARIABLE, Row};

use crate::{
    build_ebpf,
    setup::{self, Purpose},
    test,
    workspace::{Workspace, output, run as run_command},
};

const DOCUMENT: &str = "docs/faults.md";
const COMMAND: &str = "cargo xtask faults";

/// What to try.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only tests with this in their names; the other rows stay as they were [default: all].
    filter: Option<String>,
}

/// Runs the long form of the tests and writes the table; only if all of them passed, so that no row
/// is missing from it.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let runner = test::runner(workspace)?;
    setup::install_missing(workspace, Purpose::Test)?;
    build_ebpf::run(workspace)?;
    run_command(workspace.cargo().args(["build", "--quiet", "--package", "tap53"]))?;
    tap53_harness::kafka::jars()?;
    tap53_harness::python::python()?;

    let directory = workspace.target.join("faults");
    fs::create_dir_all(&directory)?;
    // A copy, so that a build meanwhile does not change what is tried.
    let binary = directory.join("tap53");
    fs::copy(workspace.target.join("debug/tap53"), &binary)
        .with_context(|| format!("copy the agent to {}", binary.display()))?;
    let rows = directory.join("rows.jsonl");
    if rows.exists() && arguments.filter.is_none() {
        fs::remove_file(&rows)?;
    }
    let tested = run_command(
        workspace
            .cargo()
            .args(["test", "--quiet", "--package", "tap53-tests", "--test", "faults"])
            .args(&runner)
            // One after the other: each is to have the machine for itself.
            .args(["--", "--test-threads=1", "--nocapture"])
            .args(&arguments.filter)
            .env("TAP53_BIN", &binary)
            .env(ROWS_VARIABLE, &rows),
    );
    // Where a test failed, for those that passed.
    let read = rows.exists().then(|| Row::read_all(&rows)).transpose()?.unwrap_or_default();
    let table = document(&read, &Circumstances::now()?);
    if tested.is_err() {
        println!("{table}");
    }
    tested?;
    ensure!(!read.is_empty(), "no row was written");
    let path = workspace.root.join(DOCUMENT);
    fs::write(&path, table).with_context(|| format!("write {}", path.display()))?;
    println!("wrote {DOCUMENT}");
    Ok(())
}

/// What the numbers hold for.
struct Circumstances {
    date: String,
    kernel: String,
    broker: String,
}

impl Circumstances {
    fn now() -> Result<Self> {
        Ok(Self {
            date: output(Command::new("date").args(["--utc", "+%Y-%m-%d"]))?,
            kernel: fs::read_to_string(Path::new("/proc/sys/kernel/osrelease"))?.trim().to_owned(),
            broker: tap53_harness::kafka::version()?.to_owned(),
        })
    }
}

fn document(rows: &[Row], circumstances: &Circumstances) -> String {
    let Circumstances { date, kernel, broker } = circumstances;
    let mut text = INTRODUCTION.trim_start().replace("$COMMAND", COMMAND);
    let _ = writeln!(
        text,
        "\n{date}, Linux {kernel}, Apache Kafka {broker}, agent built for debugging.\n"
    );
    text.push_str(HEADING.trim_start());
    for row in rows {
        let reasons: Vec<String> = row
            .lost
            .iter()
            .map(|(reason, count)| format!("{reason} {count}"))
            .chain((row.unaccepted > 0).then(|| format!("not accepted {}", row.unaccepted)))
            .chain((row.bound > 0).then(|| in_memory(row)))
            .collect();
        let problems = row.problems();
        let verdict = if problems.is_empty() { "holds".to_owned() } else { problems.join("; ") };
        let cap = row.cap_kib.map_or(String::new(), |cap| format!(" of {}", cap / 1024));
        let kills = if row.kills > 0 { format!(", {} killed", row.kills) } else { String::new() };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} of {}{kills} | {}{cap} | {} | {verdict} |",
            row.fault,
            row.mode,
            row.sent,
            row.numbers,
            row.duplicates(),
            row.missing(),
            if reasons.is_empty() { "-".to_owned() } else { reasons.join(", ") },
            row.balanced,
            row.ledgers,
            row.peak_kib / 1024,
            row.complaints,
        );
    }
    text.push_str(NOTES);
    text
}

/// What is missing for no other reason than that it was in memory when the agent was killed.
fn in_memory(row: &Row) -> String {
    let others = row.counted() + row.unaccepted;
    format!("in memory {}, at most {}", row.missing().saturating_sub(others), row.bound)
}

const INTRODUCTION: &str = "
# Measured faults

`$COMMAND` injects real faults, writes this page, and computes the verdicts from the numbers. The tests
run a shorter form of it.

A client sends queries with numbers in their names through a veth to a resolver. The agent captures
them there and delivers the records to a real broker on a separate link, with a spool. The message
timeout is one second, shorter than any outage. (If the agent is killed in mode `fast`, it is 60 s, so that
records are in memory at that time.) After the fault, kcat and fastavro read the topic, and the identity must hold: **each
number that was sent is consumed or counted as lost with a reason, and each ledger balances.**
";

const HEADING: &str = "
| fault | mode | sent | consumed | duplicates | missing | counted as lost, by reason | balanced ledgers | agent's peak memory, MiB | warnings and errors in its log | identity |
|---|---|---|---|---|---|---|---|---|---|---|
";

const NOTES: &str = "
- *consumed*: distinct numbers; *duplicates*: messages whose `record_id` had arrived before.
- *missing*: sent, but not consumed. It is never more than the counted losses: a record that the spool
  dropped while it was in flight is counted, and may have arrived.
- *not accepted*: captured, but not yet a record when the agent was killed: in a ring, or waiting for a
  response.
- *in memory*: accepted in mode `fast`, and in flight when the agent was killed. The bound for each kill is
  `queue_bytes`, here 1 MiB, divided by the smallest record that was consumed.
- Broker at another port: librdkafka connects only to the brokers in `brokers` and to those that they
  announce. If your broker moves, list both addresses, or restart the agent with the new one. Nothing is
  lost in between.
- A broker refuses a record that is more than `message.timestamp.after.max.ms` (an hour by default) ahead
  of its own clock. A node whose clock is further ahead loses records, counted as `rejected`.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_comes_from_the_numbers() {
        let circumstances = Circumstances {
            date: "2001-01-01".to_owned(),
            kernel: "6.1".to_owned(),
            broker: "4".to_owned(),
        };
        let row = Row {
            fault: "a fault".to_owned(),
            mode: "fast".to_owned(),
            sent: 10,
            messages: 12,
            records: 9,
            numbers: 9,
            ledgers: 1,
            balanced: 1,
            peak_kib: 2_048,
            ..Row::default()
        };
        let text = document(std::slice::from_ref(&row), &circumstances);
        assert!(
            text.contains(
                "| a fault | fast | 10 | 9 | 3 | 1 | - | 1 of 1 | 2 | 0 | 1 missing, 0 explained |"
            ),
            "{text}"
        );
        let lost = [("dropped_oldest".to_owned(), 1)].into();
        let text = document(&[Row { lost, kills: 2, ..row }], &circumstances);
        assert!(
            text.contains("| 1 | dropped_oldest 1 | 1 of 1, 2 killed | 2 | 0 | holds |"),
            "{text}"
        );
    }
}
