//! The `tap53` command: arguments, configuration, run, exit code.

mod cnd_timedwait;
mod command;

use std::process::ExitCode;

use clap::Parser;
use command::{
    Arguments, Command, doctor, generate, kubectl, page, prepare, probe, query, relay, replay, run,
    show, spool, status, switch, tail, top, verify,
};

/// Exit codes of a run, as `docs/commands.md` documents them.
pub(crate) mod exit {
    /// Could not start, or could not go on.
    pub(crate) const FAILED: u8 = 1;
    /// Usage or configuration refused. clap uses the same number.
    pub(crate) const REFUSED: u8 = 2;
    /// Stopped, but a sink has lost records or the ledger does not balance.
    pub(crate) const LOSS: u8 = 3;

    /// Interrupted by a signal, in the convention of shells.
    pub(crate) fn of_signal(signal: nix::sys::signal::Signal) -> u8 {
        u8::try_from(128 + signal as i32).unwrap_or(FAILED)
    }
}

fn main() -> ExitCode {
    // Before any secret is read.
    tap53_base::privileges::forbid_dumps();
    if kubectl::is_called() {
        return ended(kubectl::run());
    }
    ended(match Arguments::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Query(arguments) => query::run(arguments),
        Command::Report(arguments) => page::run(arguments),
        Command::CheckConfig(arguments) => show::config(&arguments),
        Command::Schema(arguments) => show::schema(&arguments),
        Command::Interfaces(arguments) => show::interfaces(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Enable(arguments) => switch::enable(arguments),
        Command::Disable(arguments) => switch::disable(arguments),
        Command::Reset(arguments) => switch::reset(arguments),
        Command::Tail(arguments) => tail::run(arguments),
        Command::Top(arguments) => top::run(&arguments),
        Command::Spool(command) => spool::run(&command),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Prepare(arguments) => prepare::run(&arguments),
        Command::Relay(arguments) => relay::run(&arguments),
        Command::Probe(arguments) => probe::run(arguments),
        Command::Completions(arguments) => generate::completions(&arguments),
        Command::Man(arguments) => generate::man(&arguments),
    })
}

/// Returns the exit code; an error is printed first.
fn ended(outcome: anyhow::Result<ExitCode>) -> ExitCode {
    match outcome {
        Ok(code) => code,
        Err(error) => {
            // The alternate form: the error and what caused it, on one line.
            tap53::telemetry::print_error(&format!("{error:#}"));
            let refused = error.downcast_ref::<tap53::config::Error>().is_some();
            ExitCode::from(if refused { exit::REFUSED } else { exit::FAILED })
        }
    }
}
