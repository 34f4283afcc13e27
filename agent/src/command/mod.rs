//! The command line: its arguments here, each command in a file.

pub(crate) mod doctor;
pub(crate) mod prepare;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod show;
pub(crate) mod spool;
pub(crate) mod status;
pub(crate) mod switch;
mod table;
pub(crate) mod tail;
pub(crate) mod verify;

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use tap53::{
    agent::ConfigFile,
    config::{Config, Error, HookChoice, LogFormat, LogLevel, Overrides, TextFormat},
};

/// Below the commands, for who sees this for the first time.
const EXAMPLES: &str = "\
Examples:
  tap53 replay capture.pcapng        What a capture file says: who asked what, and the answer
  sudo tap53 run -i eth0 --stdout    The same as it happens at an interface, until Ctrl-C
  sudo tap53 doctor -c tap53.yaml    What is wrong here, and the line that fixes it
  tap53 interfaces                   What could be captured from on this host
  sudo tap53 run -c tap53.yaml       As an agent: to Kafka or files, as the configuration says
  sudo tap53 status                  How a running agent is, and where its packets and records are
  sudo tap53 enable eth1 --for 10m   Have it capture there too, for a while
  sudo tap53 tail --qname test       What it records of names under test, as it happens

tap53 <COMMAND> --help tells more of each command.";

const RUN_EXAMPLES: &str = "\
Examples:
  sudo tap53 run -i eth0 --stdout
  sudo tap53 run -i 'veth*' -i eth0 --json | jq .qname
  sudo tap53 run -c tap53.yaml --ledger ledger.json

It needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON. At the end the ledger on standard
error accounts for every packet, message and record.

Exit status: 0 stopped, and nothing is missing; 1 failed; 2 arguments or configuration refused;
3 stopped, and records were lost or the ledger does not balance.";

/// Records DNS transactions: who asked what, the answer, and how long it took. Live from a node's
/// interfaces, or from capture files.
#[derive(Debug, Parser)]
#[command(name = "tap53", version, propagate_version = true, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Capture until SIGTERM or SIGINT; SIGUSR1 prints the ledger, SIGHUP reads the file again, or stops without one
    #[command(after_help = RUN_EXAMPLES)]
    Run(Run),
    /// Read capture files (pcap, pcapng) instead of interfaces; needs no root
    #[command(after_help = replay::EXAMPLES)]
    Replay(replay::Arguments),
    /// Check the configuration and print what is in force
    CheckConfig(Selection),
    /// Print the Avro schema of a record, or the SQL that creates a table for records
    #[command(after_help = show::SCHEMA_EXAMPLES)]
    Schema(show::Schema),
    /// List the interfaces: selected or not, captured or not, hooks they would take, who holds them now
    Interfaces(show::Interfaces),
    /// Say what is wrong here for capture, and the line that fixes it
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(doctor::Arguments),
    /// Tell how a running agent is: interfaces, ledger, configuration, Kubernetes, sinks
    #[command(after_help = status::EXAMPLES)]
    Status(status::Arguments),
    /// Have a running agent capture from interfaces
    #[command(after_help = switch::ENABLE_EXAMPLES)]
    Enable(switch::Enable),
    /// Have a running agent capture from interfaces no longer
    #[command(after_help = switch::DISABLE_EXAMPLES)]
    Disable(switch::Disable),
    /// Have a running agent forget an enable or disable
    #[command(after_help = switch::RESET_EXAMPLES)]
    Reset(switch::Reset),
    /// Show transactions of a running agent as they happen
    #[command(after_help = tail::EXAMPLES)]
    Tail(tail::Arguments),
    /// Look into the queue on disk of a Kafka sink; the agent may run
    #[command(subcommand, after_help = spool::EXAMPLES)]
    Spool(spool::Command),
    /// Check that records are as an agent wrote them, and that none was removed
    #[command(after_help = verify::EXAMPLES)]
    Verify(verify::Arguments),
    /// Give a directory to the user that the agent runs as
    #[command(after_help = prepare::EXAMPLES)]
    Prepare(prepare::Arguments),
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// Write the final ledger to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) ledger: Option<PathBuf>,
}

/// Where the configuration comes from. Flags override the file.
#[derive(Args, Debug)]
pub(crate) struct Selection {
    /// Configuration file (YAML)
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Interfaces to capture from, as a shell pattern; may be repeated
    #[arg(short, long = "interface", value_name = "PATTERN")]
    interfaces: Vec<String>,
    /// Hook for arriving packets
    #[arg(long, value_enum)]
    hook: Option<HookChoice>,
    /// Print each transaction on a line
    #[arg(long)]
    stdout: bool,
    /// Print each transaction as a JSON object on a line
    #[arg(long)]
    json: bool,
    /// Least severe log level that is written
    #[arg(long, value_enum, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
    /// What the log is written as
    #[arg(long, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

impl Selection {
    /// The configuration in force, for looking at interfaces: without any pattern, all of them.
    pub(crate) fn load_to_look(&mut self) -> Result<Config, Error> {
        if !self.names_interfaces() {
            self.interfaces.push("*".to_owned());
        }
        self.load()
    }

    /// Whether interfaces were named, by the file or by a flag.
    pub(crate) fn names_interfaces(&self) -> bool {
        self.config.is_some() || !self.interfaces.is_empty()
    }

    /// The configuration file.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// The configuration in force.
    pub(crate) fn load(&self) -> Result<Config, Error> {
        Config::load(self.config.as_deref(), &self.overrides())
    }

    /// The configuration in force, to be followed while it runs.
    pub(crate) fn open(&self) -> Result<ConfigFile, Error> {
        ConfigFile::load(self.config.as_deref(), self.overrides())
    }

    fn overrides(&self) -> Overrides {
        let stdout = match (self.json, self.stdout) {
            (true, _) => Some(TextFormat::Json),
            (false, true) => Some(TextFormat::Text),
            (false, false) => None,
        };
        Overrides {
            interfaces: self.interfaces.clone(),
            hook: self.hook,
            stdout,
            log_level: self.log_level,
            log_format: self.log_format,
        }
    }
}
