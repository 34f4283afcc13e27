//! `cargo xtask signals`: evaluates the signals in the long form, and writes the outcomes to
//! `docs/signals-evaluation.md`.

use std::{fmt::Write as _, fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use tap53_harness::evaluation::{ROWS_VARIABLE, Row, Table};

use crate::{
    build_ebpf,
    setup::{self, Purpose},
    test,
    workspace::{Workspace, output, run as run_command},
};

const DOCUMENT: &str = "docs/signals-evaluation.md";

/// Runs the long form of the tests and writes the tables, also if a requirement is not met: the numbers are
/// then on the page, and the command fails.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let runner = test::runner(workspace)?;
    setup::install_missing(workspace, Purpose::Test)?;
    build_ebpf::run(workspace)?;
    run_command(workspace.cargo().args(["build", "--quiet", "--package", "tap53"]))?;
    let directory = workspace.target.join("signals");
    fs::create_dir_all(&directory)?;
    let rows = directory.join("rows.jsonl");
    if rows.exists() {
        fs::remove_file(&rows)?;
    }
    let tested = run_command(
        workspace
            .cargo()
            .args(["test", "--quiet", "--package", "tap53-tests", "--test", "signals"])
            .args(&runner)
            .args(["--", "--test-threads=1", "--nocapture"])
            .env(ROWS_VARIABLE, &rows),
    );
    let read = rows.exists().then(|| Row::read_all(&rows)).transpose()?.unwrap_or_default();
    ensure!(!read.is_empty(), "no row was written; the tests: {tested:?}");
    let date = output(Command::new("date").args(["--utc", "+%Y-%m-%d"]))?;
    let path = workspace.root.join(DOCUMENT);
    fs::write(&path, document(&read, &date))
        .with_context(|| format!("write {}", path.display()))?;
    println!("wrote {DOCUMENT}");
    tested
}

/// Sections of the page: the heading, the text before the table, and the table.
const SECTIONS: [(&str, &str, Table); 6] = [
    ("Tunnels", TUNNELS, Table::Tunnels),
    ("False alarms", ALARMS, Table::Alarms),
    ("What is marked wrongly", NAMED, Table::Named),
    ("Generated domains", BURSTS, Table::Bursts),
    ("Rebinding", REBINDING, Table::Rebinding),
    ("The benign lookups", BENIGN, Table::Benign),
];

fn document(rows: &[Row], date: &str) -> String {
    let mut text = INTRODUCTION.trim_start().replace("$DATE", date);
    for (heading, introduction, table) in SECTIONS {
        let _ = write!(text, "\n## {heading}\n{introduction}\n");
        let headings = table.headings();
        let _ = writeln!(text, "| {} |\n|{}", headings.join(" | "), "---|".repeat(headings.len()));
        for row in rows.iter().filter(|row| row.table == table) {
            let _ = writeln!(text, "| {} |", row.cells.join(" | "));
        }
    }
    text
}

const INTRODUCTION: &str = "
# How well signals are found

`cargo xtask signals` runs real tunnels, mixes them with a million benign lookups, and writes this page. The
tests run a shorter form of it.

Signals are computed by the detector of the agent with its default configuration. Time is that of the lookups.
$DATE.
";

const TUNNELS: &str = "
iodine and dns2tcp of Debian run in network namespaces, with payload of ours
through them. Their queries and responses are captured. A trial is 200 queries in a row of a capture, the first
ones of the tunnel included, with a client and a domain of its own, at a random time among the benign lookups.
A tunnel is found if one of these queries is marked within 60 seconds. At least 99 % must be found.

- dns2tcp is the second tool. It was found when it was first measured; nothing was changed for it.
- `-M 100` limits names to 100 bytes, so that they are less conspicuous.
- The path is direct, so iodine encodes its data in octets beyond ASCII. dns2tcp uses letters and digits.
- The rate is measured in the second half of a capture.
";

const ALARMS: &str = "
No benign lookup below should have a signal. At most one in 10,000 benign domains may be taken for a tunnel. A
list of nodes (see below) is the only kind that may.
";

const NAMED: &str = "
Peer-to-peer networks publish lists of their nodes as trees of TXT records with hashes as names (EIP-1459). A
client that walks such a tree looks up many encoded names, and receives much data: it cannot be told from a
download through a tunnel. If you run such nodes, add the domain of their list to `signals.lookup_services`.
";

const BURSTS: &str = "
Each burst is 200 domains, of which one in fifty exists, by a client of its own. Those of at least five domains a
second must be found. The families: hexadecimal digits, words of a dictionary, syllables that can be spoken,
and letters from a generator whose seed is the date.
";

const REBINDING: &str = "
A name of a public domain has a public address, and a second later a private one. The second lookup must be
marked, the first must not. `0.0.0.0` is no signal: filters of advertising answer it.
";

const BENIGN: &str = "
The lookups are made from a seed by rules of ours; no data of others is in them. The dense run is an hour, the
sparse one a day. Clients are 500 workstations, a forwarder for a fifth of them, 300 pods, and some servers.
Web sites are drawn from 60,000 domains by Zipf's law with a heavier tail.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_in_its_table() {
        let cells = |table: Table| table.headings().iter().map(|it| format!("a {it}")).collect();
        let rows = SECTIONS.map(|(.., table)| Row { table, cells: cells(table) });
        let text = document(&rows, "2001-01-01");
        for (heading, _, table) in SECTIONS {
            let section = text.split(&format!("## {heading}\n")).nth(1).expect("a section");
            let section = section.split("\n## ").next().expect("its text");
            let row = format!("| a {} |", table.headings().join(" | a "));
            assert!(section.contains(&row), "{section}");
            assert_eq!(section.matches("---|").count(), table.headings().len());
        }
    }
}
