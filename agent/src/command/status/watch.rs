//! `tap53 status --watch`: shows the status again and again, until Ctrl-C.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use tap53::telemetry::print_error;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use super::super::table::{colored, printable};

/// Escape sequence that clears a terminal and its scrollback, and moves the cursor to the top left.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// Shows what `show` returns, every `every`: in place on a terminal, else one after the other. An
/// agent that does not answer the first time is an error; later it may be restarting.
pub(super) fn watch(
    every: Duration,
    show: impl Fn() -> anyhow::Result<String>,
) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    runtime.block_on(async {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut terminate = listen(SignalKind::terminate())?;
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut answered = false;
        loop {
            tokio::select! {
                _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
                _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
                _ = ticks.tick() => match show() {
                    Ok(text) => {
                        answered = true;
                        if !write(&text)? {
                            return Ok(ExitCode::SUCCESS);
                        }
                    }
                    Err(error) if !answered => return Err(error),
                    Err(error) => print_error(&format!("{error:#}")),
                },
            }
        }
    })
}

/// Writes one view; returns false if its reader has gone.
fn write(text: &str) -> anyhow::Result<bool> {
    let mut out = io::stdout().lock();
    let clear = if out.is_terminal() { CLEAR } else { "" };
    let view = format!("{clear}{}", printable(text, colored()));
    match out.write_all(view.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        outcome => outcome.context("cannot write to standard output").map(|()| true),
    }
}
