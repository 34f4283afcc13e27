//! One line that shows how far a build is, in place of cargo's hundreds.

use std::{
    io::{self, IsTerminal, Read, Write},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use tap53_harness::process::die_with_parent;

/// Cargo's own progress bar is drawn only up to this width, bar and counts included.
const BAR_WIDTH: &str = "80";
/// Without a terminal, a line for each of this many parts of the whole.
const PARTS: u64 = 4;
/// Lines of cargo's output shown when it fails.
const LINES_SHOWN: usize = 60;

/// Runs a command that builds by cargo; shows `label` with cargo's count of crates meanwhile, and
/// the time it took at the end. What cargo prints is shown only if it fails.
pub(crate) fn build(label: &str, command: &mut Command) -> Result<()> {
    let started = Instant::now();
    // Not SIGKILL: cargo then has no chance to end its compilers.
    die_with_parent(command, Signal::SIGTERM);
    let mut child = command
        .env("CARGO_TERM_PROGRESS_WHEN", "always")
        .env("CARGO_TERM_PROGRESS_WIDTH", BAR_WIDTH)
        .env("CARGO_TERM_COLOR", "never")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
    let mut stderr = child.stderr.take().context("stderr is piped")?;

    let mut line = Line::new(label);
    let (mut printed, mut current, mut buffer) = (Vec::new(), Vec::new(), [0; 4096]);
    loop {
        let count = stderr.read(&mut buffer)?;
        for byte in &buffer[..count] {
            if matches!(byte, b'\r' | b'\n') {
                let text = String::from_utf8_lossy(&current).trim_end().to_owned();
                match Count::in_bar(&text) {
                    Some(count) => line.show(count)?,
                    None if !text.is_empty() => printed.push(text),
                    None => {}
                }
                current.clear();
            } else {
                current.push(*byte);
            }
        }
        if count == 0 {
            break;
        }
    }
    let status = child.wait()?;
    if !status.success() {
        line.end("failed")?;
        let shown = &printed[printed.len().saturating_sub(LINES_SHOWN)..];
        bail!("{label} failed ({status}):\n{}", shown.join("\n"));
    }
    line.end(&format!("done in {:.1} s", started.elapsed().as_secs_f64()))
}

/// "57/158" of cargo's bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count {
    built: u64,
    total: u64,
}

impl Count {
    /// Parses a line such as `Building [=====>    ] 57/158: crate, crate`.
    fn in_bar(text: &str) -> Option<Self> {
        let (_, rest) = text.trim_start().strip_prefix("Building [")?.split_once("] ")?;
        let (built, rest) = rest.split_once('/')?;
        let total = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        Some(Self { built: built.trim().parse().ok()?, total: total.parse().ok()? })
    }
}

/// A line that is written over on a terminal, and grows by a few notes elsewhere.
struct Line<'a> {
    label: &'a str,
    terminal: bool,
    parts_shown: u64,
}

impl<'a> Line<'a> {
    fn new(label: &'a str) -> Self {
        Self { label, terminal: io::stdout().is_terminal(), parts_shown: 0 }
    }

    fn show(&mut self, count: Count) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let Count { built, total } = count;
        if self.terminal {
            // Erases to the end of the line: an earlier text may have been longer.
            write!(out, "\r  {:<34} {built} of {total} crates\x1b[K", self.label)?;
        } else {
            let part = built * PARTS / total.max(1);
            if part <= self.parts_shown {
                return Ok(());
            }
            self.parts_shown = part;
            writeln!(out, "  {:<34} {built} of {total} crates", self.label)?;
        }
        out.flush()
    }

    fn end(&self, outcome: &str) -> Result<()> {
        let (start, end) = if self.terminal { ("\r", "\x1b[K") } else { ("", "") };
        println!("{start}  {:<34} {outcome}{end}", self.label);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_from_cargos_bar() {
        let bar =
            "    Building [=====>                  ] 57/158: serde_json, tokio, rdkafka-sys(...";
        assert_eq!(Count::in_bar(bar), Some(Count { built: 57, total: 158 }));
        assert_eq!(Count::in_bar("   Compiling serde v1.0.229"), None);
        assert_eq!(Count::in_bar("    Building [=>"), None);
    }
}
