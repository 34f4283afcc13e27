//! The command line: its arguments, and a module for each command.

mod discovery;
pub(crate) mod doctor;
pub(crate) mod filters;
pub(crate) mod generate;
mod interrupt;
pub(crate) mod kubectl;
mod output;
pub(crate) mod page;
pub(crate) mod prepare;
pub(crate) mod probe;
pub(crate) mod query;
pub(crate) mod relay;
pub(crate) mod replay;
mod report;
mod result_file;
pub(crate) mod run;
pub(crate) mod show;
mod source;
pub(crate) mod spool;
pub(crate) mod status;
pub(crate) mod switch;
mod table;
pub(crate) mod tail;
pub(crate) mod top;
pub(crate) mod transactions;
pub(crate) mod verify;

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use tap53::{
    agent::ConfigFile,
    config::{Config, Error, HookChoice, LogFormat, LogLevel, Machine, Overrides, TextFormat},
    control::client::Client,
    version,
};

use self::discovery::Discovered;

/// Text below the commands, for new users.
const EXAMPLES: &str = "\
Examples:
  tap53 replay capture.pcapng        Print the DNS transactions of a capture file
  sudo tap53 run -i eth0 --stdout    Print those at an interface as they happen, until Ctrl-C
  sudo tap53 doctor -c tap53.yaml    Find out what prevents capture on this host, and how to fix it
  tap53 interfaces                   List the interfaces of this host that can be captured from
  sudo tap53 run -c tap53.yaml       Run as an agent that writes to Kafka or files
  sudo tap53 status                  Show the state of a running agent and its ledger
  sudo tap53 enable eth1 --for 10m   Make a running agent capture on eth1 as well, for 10 minutes
  sudo tap53 tail --qname test       Print the transactions of names under test from a running agent
  sudo tap53 top                     Watch names, workloads, codes and latencies of a running agent

Run 'tap53 <COMMAND> --help' for the options of a command.";

const RUN_EXAMPLES: &str = "\
Examples:
  sudo tap53 run -i eth0 --stdout
  sudo tap53 run -i 'veth*' -i eth0 -o jsonl | jq .qname
  sudo tap53 run -c tap53.yaml --ledger ledger.json

Capture needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON. At the end the ledger on standard
error accounts for every packet, message and record. SIGTERM and SIGINT stop the agent, SIGUSR1
prints the ledger, and SIGHUP reloads the configuration file (without a file it stops the agent).

Exit status: 0 stopped, nothing was lost; 1 failed; 2 invalid arguments or configuration;
3 stopped, but records were lost or the ledger does not balance.";

/// Captures DNS transactions: queries with their responses, clients and response times. Live from
/// the interfaces of a node, or from capture files.
#[derive(Debug, Parser)]
#[command(name = "tap53", version = version::text(), propagate_version = true, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Capture from interfaces until SIGTERM or SIGINT
    #[command(after_help = RUN_EXAMPLES)]
    Run(Run),
    /// Read capture files (pcap, pcapng) instead of interfaces; needs no root
    #[command(after_help = replay::EXAMPLES)]
    Replay(replay::Arguments),
    /// Select records of captures, Avro files or a running agent, or make a report of them
    #[command(after_help = query::EXAMPLES)]
    Query(query::Arguments),
    /// Write one HTML page about the records of captures, Avro files or a running agent
    #[command(after_help = page::EXAMPLES)]
    Report(page::Arguments),
    /// Check the configuration, and print it with all defaults
    #[command(after_help = show::CHECK_CONFIG_EXAMPLES)]
    CheckConfig(show::CheckConfig),
    /// Print the Avro schema of a record, or SQL that creates a table for records
    #[command(after_help = show::SCHEMA_EXAMPLES)]
    Schema(show::Schema),
    /// List the interfaces of this host, with the hooks that capture would use
    Interfaces(show::Interfaces),
    /// Check whether this host can run tap53, and show how to fix what is wrong
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(doctor::Arguments),
    /// Show the state of a running agent: interfaces, ledger, configuration, Kubernetes, sinks
    #[command(after_help = status::EXAMPLES)]
    Status(status::Arguments),
    /// Start capture on interfaces of a running agent
    #[command(after_help = switch::ENABLE_EXAMPLES)]
    Enable(switch::Enable),
    /// Stop capture on interfaces of a running agent
    #[command(after_help = switch::DISABLE_EXAMPLES)]
    Disable(switch::Disable),
    /// Undo an earlier enable or disable
    #[command(after_help = switch::RESET_EXAMPLES)]
    Reset(switch::Reset),
    /// Print the transactions of a running agent as they happen
    #[command(after_help = tail::EXAMPLES)]
    Tail(tail::Arguments),
    /// Show the DNS of a running agent on the terminal, again and again
    #[command(after_help = top::EXAMPLES)]
    Top(top::Arguments),
    /// Send a query, and follow it through a running agent until its record
    #[command(after_help = probe::EXAMPLES)]
    Probe(probe::Arguments),
    /// Inspect the spool (queue on disk) of a Kafka sink; the agent may be running
    #[command(subcommand, after_help = spool::EXAMPLES)]
    Spool(spool::Command),
    /// Verify that records are as an agent wrote them, and that none was removed
    #[command(after_help = verify::EXAMPLES)]
    Verify(verify::Arguments),
    /// Pass standard input to a running agent, and its answers to standard output
    #[command(hide = true)]
    Relay(relay::Arguments),
    /// Create a directory that is owned by the agent's user
    #[command(after_help = prepare::EXAMPLES)]
    Prepare(prepare::Arguments),
    /// Print a script that completes commands and options in a shell
    #[command(after_help = generate::COMPLETIONS_EXAMPLES)]
    Completions(generate::Completions),
    /// Print the manual page, or write the pages of all commands
    #[command(after_help = generate::MAN_EXAMPLES)]
    Man(generate::ManPages),
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) selection: Selection,
    #[command(flatten)]
    output: transactions::Output,
    /// Print each transaction as a line of text
    #[arg(long)]
    stdout: bool,
    /// Print each transaction as a line of JSON
    #[arg(long)]
    json: bool,
    /// Write the final ledger to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) ledger: Option<PathBuf>,
}

/// Arguments that select the configuration. Flags override the file.
#[derive(Args, Debug)]
pub(crate) struct Selection {
    /// Configuration file (YAML)
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Interface to capture from, by name or shell pattern; may be repeated. Replaces
    /// interfaces.include
    #[arg(short, long = "interface", value_name = "PATTERN")]
    interfaces: Vec<String>,
    /// Hook for arriving packets [default: auto]
    #[arg(long, value_enum)]
    hook: Option<HookChoice>,
    /// Least severe level of log lines [default: info]
    #[arg(long, value_enum, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
    /// Format of the log on standard error [default: text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

impl Selection {
    /// Finds the configuration if none was given; returns what it chose, for people.
    pub(crate) fn discover(&mut self, client: &Client) -> Option<&'static str> {
        if self.config.is_some() {
            return None;
        }
        let Discovered { file, reason } = discovery::discover(client);
        self.config = file;
        Some(reason)
    }

    /// Loads the configuration for a command that inspects interfaces: all of them, unless some are
    /// named.
    pub(crate) fn load_for_inspection(&mut self) -> Result<Config, Error> {
        if !self.names_interfaces() {
            self.interfaces.push("*".to_owned());
        }
        self.load()
    }

    /// Returns true if the file or a flag names interfaces.
    pub(crate) fn names_interfaces(&self) -> bool {
        self.config.is_some() || !self.interfaces.is_empty()
    }

    /// Returns the path of the configuration file.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// Loads the configuration.
    pub(crate) fn load(&self) -> Result<Config, Error> {
        self.load_on(Machine::Agent)
    }

    /// Loads the configuration to check it on a machine.
    pub(crate) fn load_on(&self, machine: Machine) -> Result<Config, Error> {
        Config::load(self.config.as_deref(), &Overrides { machine, ..self.overrides() })
    }

    fn overrides(&self) -> Overrides {
        Overrides {
            interfaces: self.interfaces.clone(),
            hook: self.hook,
            log_level: self.log_level,
            log_format: self.log_format,
            ..Overrides::default()
        }
    }
}

impl Run {
    /// Loads the configuration so that it can be reloaded while the agent runs.
    pub(crate) fn open(&self) -> Result<ConfigFile, Error> {
        let named = match (self.json, self.stdout) {
            (true, _) => Some(TextFormat::Json),
            (false, true) => Some(TextFormat::Text),
            (false, false) => None,
        };
        let stdout = self.output.flags(named);
        let selection = &self.selection;
        ConfigFile::load(selection.config.as_deref(), Overrides { stdout, ..selection.overrides() })
    }
}
