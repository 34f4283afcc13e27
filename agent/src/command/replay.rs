//! `tap53 replay`.

use std::{
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nix::sys::signal::Signal::{SIGINT, SIGTERM};
use tap53::{
    config::{
        Config, Error, LogFormat, LogLevel, Overrides, Problem, SinkConfig, TextFormat, TunnelRule,
        TunnelType, port_of_flag,
    },
    replay::{Ending, Plan, Replay, Speed},
    tail::Known,
    telemetry::{Log, print_error, report},
};
use tap53_capture::interfaces::Selector;
use tap53_transactions::privacy::Policy;
use tokio::{sync::Notify, time::MissedTickBehavior};

use super::{
    filters::Filters,
    run::{LedgerFile, Signals},
    transactions::{Output, refuse},
};
use crate::exit;

/// Interval at which sinks do what is due with time, and the progress bar is drawn.
const TICK: Duration = Duration::from_millis(200);

pub(super) const EXAMPLES: &str = "\
Examples:
  tap53 replay capture.pcapng
  tap53 replay --slower 100ms --fields time,client,name,latency capture.pcapng
  tap53 replay -o csv capture.pcapng > capture.csv
  tap53 replay -o jsonl trace.pcap.gz trace.pcap1.gz | jq 'select(.rcode==\"SERVFAIL\") | .qname'
  tap53 replay --messages capture.pcap | jq 'select(.query_frame == 42)'
  ssh host tcpdump -U -w - port 53 | tap53 replay -
  tap53 replay --speed recorded -c tap53.yaml capture.pcapng

Files are pcap or pcapng, plain or compressed with gzip, zstd or xz, and are replayed one after the
other as one capture; - is standard input. Link types: Ethernet, Linux cooked (any), raw IP and BSD
loopback. At the end the ledger on standard error accounts for every frame, message and record.

Exit status: 0 replayed, nothing was lost; 1 a file cannot be read to its end; 2 invalid arguments
or configuration; 3 records were lost or the ledger does not balance; 130 or 143 interrupted by
SIGINT or SIGTERM before the end: an Avro file that was being written keeps the suffix .partial.";

/// Arguments of `tap53 replay`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Capture files (pcap, pcapng), in this order; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Configuration file (YAML), of which sinks, ports, timeouts and filters are used
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
    /// Print each transaction as a line of text; the default unless the configuration has sinks
    #[arg(long, group = "format", conflicts_with = "output")]
    text: bool,
    /// Print each transaction as a line of JSON, like --output jsonl
    #[arg(long, group = "format", conflicts_with = "output")]
    json: bool,
    /// Print each message as a line of JSON with its frame number; other sinks are not used
    #[arg(long, group = "format", conflicts_with_all = ["output", "fields", "local"])]
    messages: bool,
    /// Speed: as-fast, recorded, or a factor such as 2 for twice as fast as recorded
    #[arg(long, value_name = "SPEED", default_value = "as-fast")]
    speed: Speed,
    /// DNS port instead of the configured ones: a number, mdns or llmnr; may be repeated [default: 53]
    #[arg(short, long = "port", value_name = "PORT", value_parser = dns_port)]
    ports: Vec<u16>,
    /// Decapsulate these tunnels, in addition to the configured ones
    #[arg(long, value_enum, value_name = "TYPE", value_delimiter = ',')]
    tunnels: Vec<TunnelType>,
    /// Write the final ledger to this file as JSON
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    #[command(flatten)]
    filters: Filters,
    /// Least severe level of log lines [default: info]
    #[arg(long, value_enum, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
    /// Format of the log on standard error [default: text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

fn dns_port(text: &str) -> Result<u16, String> {
    port_of_flag(text)
}

impl Arguments {
    /// Loads the configuration.
    fn load(&self) -> Result<Config, Error> {
        let stdout = match (self.json, self.text) {
            (true, _) => Some(TextFormat::Json),
            (false, true) => Some(TextFormat::Text),
            (false, false) => None,
        };
        let overrides = Overrides {
            // The interfaces are those of the files.
            interfaces: vec!["*".to_owned()],
            stdout: self.output.flags(stdout),
            log_level: self.log_level,
            log_format: self.log_format,
            ..Overrides::default()
        };
        let mut config = Config::load(self.config.as_deref(), &overrides)?;
        refuse_filters_by_pod(self.config.as_deref(), &config)?;
        for sink in &mut config.sinks {
            if let SinkConfig::Stdout(stdout) = sink {
                stdout.dated = true;
            }
        }
        let capture = &mut config.capture;
        if !self.ports.is_empty() {
            capture.ports.clone_from(&self.ports);
            capture.ports.sort_unstable();
            capture.ports.dedup();
        }
        if !self.tunnels.is_empty() {
            let everywhere = Selector::parse("*").into_iter().collect();
            let types = self.tunnels.clone();
            capture.tunnels.push(TunnelRule { interfaces: everywhere, types });
        }
        Ok(config)
    }
}

/// Refuses filters that would exclude nothing, or everything: the pods of a file's addresses are not known.
pub(super) fn refuse_filters_by_pod(file: Option<&Path>, config: &Config) -> Result<(), Error> {
    if config.filter.pods.is_empty() {
        return Ok(());
    }
    let problem = Problem {
        path: "filter".to_owned(),
        place: None,
        value: None,
        reason: "the pods of a capture file are not known, so it cannot be filtered by namespaces, workloads or pod_labels: \
                 leave them out of the configuration for files, and use clients"
            .to_owned(),
    };
    Err(Error::Refused { file: file.map(Path::to_owned), problems: vec![problem] })
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = arguments.load()?;
    let mut selection = arguments.filters.selection();
    // The current owner of an address is not its owner at the time of the file. Signals are looked for if
    // they are selected.
    let known = Known { signals: true, ..Known::default() };
    if let Err(refusal) = selection.check(&Policy::new(&config.privacy), &known) {
        refuse(&refusal.to_string());
    }
    let log = Log::start(&config.log, &config.node)?;
    let ledger = arguments.ledger.as_deref().map(LedgerFile::create).transpose()?;
    let plan = Plan {
        files: arguments.files.clone(),
        speed: arguments.speed,
        messages: arguments.messages,
        selection,
    };
    // The replay is a thread; the runtime only waits for signals and time.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    runtime.block_on(replay(&config, &plan, &log, ledger))
}

async fn replay(
    config: &Config,
    plan: &Plan,
    log: &Log,
    ledger_file: Option<LedgerFile>,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let ended = Arc::new(Notify::new());
    let mut replay = Replay::start(config, plan, &ended)?;
    let bar = progress_bar(config, plan, replay.total_bytes());
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let signal = loop {
        tokio::select! {
            _ = signals.terminate.recv() => break Some(SIGTERM),
            _ = signals.interrupt.recv() => break Some(SIGINT),
            () = ended.notified() => break None,
            _ = signals.report.recv() => bar.suspend(|| report(&replay.ledger())),
            _ = ticks.tick() => {
                replay.tick(Instant::now());
                log.report_suppressed();
                let (frames, bytes) = replay.progress();
                bar.set_message(frames_per_second(frames, bar.elapsed()));
                bar.set_position(bytes);
            }
        }
    };
    bar.finish_and_clear();
    log.end_limit();
    let ending = if signal.is_some() { Ending::Interrupted } else { Ending::Ended };
    let outcome = replay.finish(config.shutdown.flush_timeout, ending)?;
    let interrupted_by = signal.filter(|_| outcome.stopped);
    if interrupted_by.is_some() {
        tracing::warn!(event = "replay_stopped", "replay stopped before the end of its input");
    }
    report(&outcome.ledger);
    if let Some(file) = ledger_file {
        file.write(&outcome.ledger)?;
    }
    for error in &outcome.errors {
        print_error(&error.to_string());
    }
    Ok(if let Some(signal) = interrupted_by {
        ExitCode::from(exit::of_signal(signal))
    } else if !outcome.errors.is_empty() {
        ExitCode::from(exit::FAILED)
    } else if !outcome.ledger.balanced() || outcome.ledger.lost_records() {
        ExitCode::from(exit::LOSS)
    } else {
        ExitCode::SUCCESS
    })
}

/// Creates the progress bar, which is visible if standard error is a terminal that shows nothing else.
fn progress_bar(config: &Config, plan: &Plan, total_bytes: Option<u64>) -> ProgressBar {
    let shows_lines =
        plan.messages || config.sinks.iter().any(|sink| matches!(sink, SinkConfig::Stdout(_)));
    if !io::stderr().is_terminal() || (shows_lines && io::stdout().is_terminal()) {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(total_bytes, ProgressDrawTarget::stderr());
    // Cannot fail: a test parses both templates.
    if let Ok(style) = ProgressStyle::with_template(template(total_bytes)) {
        bar.set_style(style);
    }
    bar
}

const fn template(total_bytes: Option<u64>) -> &'static str {
    match total_bytes {
        Some(_) => "{bar:30} {bytes} of {total_bytes}, {msg}, {eta} left",
        None => "{spinner} {bytes}, {msg}",
    }
}

fn frames_per_second(frames: u64, elapsed: Duration) -> String {
    let per_second = u128::from(frames) * 1_000 / elapsed.as_millis().max(1);
    format!("{frames} frames, {per_second}/s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_progress_bar_has_a_style_with_and_without_a_known_end() {
        for total_bytes in [None, Some(1)] {
            assert!(ProgressStyle::with_template(template(total_bytes)).is_ok());
        }
        assert_eq!(frames_per_second(30, Duration::from_secs(2)), "30 frames, 15/s");
        assert_eq!(frames_per_second(0, Duration::ZERO), "0 frames, 0/s");
    }
}
