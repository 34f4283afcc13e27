//! `cargo xtask demo`: a resolver, a client, and tap53 watching them, on this machine's kernel.
//!
//! ```text
//!  set up ─▶ build ─▶ (as root) stage: namespaces, unbound, Kafka ─▶ agent ─▶ queries ─▶ accounts
//! ```
//!
//! The part that needs root runs in a second process of this program, with sudo if necessary. It succeeds
//! only if the client's queries, the file's records and the ledger agree. It removes everything that it
//! has created, also when it is interrupted.

mod accounts;
mod lake;
mod stage;
mod terminal;

use std::{
    env,
    os::unix::process::CommandExt as _,
    process::{Command, ExitStatus},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    progress,
    setup::{self, Purpose},
    workspace::{Workspace, as_root},
};
pub(crate) use stage::interrupt_on_signals;
use terminal::section;

/// Arguments of `demo`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Duration of the client's queries in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Also send the records to a real Apache Kafka, and read them back
    #[arg(long)]
    kafka: bool,
    /// Also write the records from Kafka to an Iceberg table on an S3 server, and query it with SQL
    #[arg(long)]
    lake: bool,
    /// Only run: everything is installed and built. The demo calls itself with this option, as root
    #[arg(long, hide = true)]
    staged: bool,
}

/// The downstream of the records, in addition to the terminal and a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Downstream {
    Nothing,
    Kafka,
    /// Kafka, and from there to a table.
    Lake,
}

impl Arguments {
    const fn downstream(&self) -> Downstream {
        match (self.lake, self.kafka) {
            (true, _) => Downstream::Lake,
            (false, true) => Downstream::Kafka,
            (false, false) => Downstream::Nothing,
        }
    }
}

impl Downstream {
    const fn purpose(self) -> Purpose {
        match self {
            Self::Nothing => Purpose::Demo,
            Self::Kafka => Purpose::DemoKafka,
            Self::Lake => Purpose::DemoLake,
        }
    }
}

/// Runs the demo.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    if arguments.staged {
        return stage::run(workspace, arguments.seconds, arguments.downstream());
    }
    let mut as_root = as_root("the demo")?;

    section("Build");
    setup::install_missing(workspace, arguments.downstream().purpose())?;
    let this = env::current_exe().context("cannot find this program")?;
    progress::build("kernel programs (Rust to BPF)", Command::new(&this).arg("build-ebpf"))?;
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--package", "tap53"]);
    progress::build("agent", &mut cargo)?;

    if as_root.get_program() == "sudo" {
        println!("  network namespaces and BPF need root: going on by sudo");
    }
    as_root
        .arg(format!("TAP53_CACHE={}", workspace.cache.display()))
        .arg(format!("CARGO_TARGET_DIR={}", workspace.target.display()))
        .arg(this)
        .args(["demo", "--staged", "--seconds", &arguments.seconds.to_string()]);
    as_root.args(arguments.kafka.then_some("--kafka")).args(arguments.lake.then_some("--lake"));
    // In place of this process: a signal sent to it then reaches the one that cleans up.
    Err(as_root.exec()).context("cannot start the part that needs root")
}

/// The agent must have stopped by itself, with nothing lost.
fn require_clean_exit(status: ExitStatus) -> Result<()> {
    match status.code() {
        Some(0) => Ok(()),
        Some(3) => bail!("the agent lost records at its end (exit code 3)"),
        _ => bail!("the agent ended with {status}; see its log"),
    }
}
