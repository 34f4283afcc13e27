//! The command line: its arguments here, each command in a file.

pub(crate) mod run;
pub(crate) mod show;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use tap53::config::{Config, Error, HookChoice, LogLevel, Overrides, TextFormat};

/// Captures DNS at a node's interfaces and records each transaction.
#[derive(Debug, Parser)]
#[command(name = "tap53", version, propagate_version = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Capture until SIGTERM or SIGINT; SIGUSR1 prints the ledger
    Run(Run),
    /// Check the configuration and print what is in force
    CheckConfig(Selection),
    /// Print the Avro schema of a record
    Schema,
    /// List the interfaces: selected or not, hooks they would take, who holds them now
    Interfaces(Selection),
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
}

impl Selection {
    /// The configuration in force, for looking at interfaces: without any pattern, all of them.
    pub(crate) fn load_to_look(&mut self) -> Result<Config, Error> {
        if self.config.is_none() && self.interfaces.is_empty() {
            self.interfaces.push("*".to_owned());
        }
        self.load()
    }

    /// The configuration in force.
    pub(crate) fn load(&self) -> Result<Config, Error> {
        let stdout = match (self.json, self.stdout) {
            (true, _) => Some(TextFormat::Json),
            (false, true) => Some(TextFormat::Text),
            (false, false) => None,
        };
        let overrides = Overrides {
            interfaces: self.interfaces.clone(),
            hook: self.hook,
            stdout,
            log_level: self.log_level,
        };
        Config::load(self.config.as_deref(), &overrides)
    }
}
