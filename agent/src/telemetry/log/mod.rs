//! The agent's own log, on standard error: a line for each event, as text or as a JSON object.
//!
//! Both have the same fields under the same names. In JSON each line has the name of the node, and
//! everything that a running agent writes there is such a line, also the ledger, panics and the error
//! that ends it. Errors in the arguments or the configuration are always text: the format is not
//! known before they are read.
//!
//! The rate of repeated lines is limited, see [`limit`].

pub mod config;
mod limit;

use std::{
    fmt,
    io::{self, IsTerminal, Write as _},
    panic,
    sync::{Arc, OnceLock},
};

use serde::Serialize;
use tap53_base::{
    visible::{visible, visible_lines},
    vitals::AUDIT,
};
use tap53_ledger::Ledger;
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    Layer,
    field::MakeExt as _,
    filter::{LevelFilter, Targets},
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{self, Writer},
    },
    layer::SubscriberExt,
    registry::{LookupSpan, Registry},
    reload,
};

use crate::telemetry::log::config::{LogConfig, LogFormat, LogLevel};

use limit::Limit;
pub use limit::{Lines, SUPPRESSED};

/// Target of the lines about a change of an interface, one for each; never limited.
pub const CHANGE: &str = "change";

/// Name of the node for lines in JSON; set when the log has started in JSON.
static JSON_OF: OnceLock<String> = OnceLock::new();

/// An error that keeps the log from starting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process has a log already.
    #[error("cannot start the log: {0}")]
    Start(#[from] tracing::subscriber::SetGlobalDefaultError),
    /// The `log` crate has a logger already.
    #[error("cannot take over the log of libraries: {0}")]
    Libraries(String),
}

/// The log. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    set_level: Arc<dyn Fn(LogLevel) + Send + Sync>,
    limit: Limit,
}

impl Log {
    /// Starts the log of this process.
    ///
    /// # Errors
    /// If it has been started before.
    pub fn start(config: &LogConfig, node: &str) -> Result<Self, Error> {
        let (reloadable, level) = reload::Layer::new(targets(config.level));
        let limit = Limit::default();
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            // It would panic if standard error is a closed pipe.
            .log_internal_errors(false);
        match config.format {
            LogFormat::Text => {
                let lines = lines.with_target(false).with_ansi(io::stderr().is_terminal());
                let lines = lines.fmt_fields(text_fields()).with_filter(limit.clone());
                tracing::subscriber::set_global_default(registry().with(reloadable).with(lines))?;
            }
            LogFormat::Json => {
                let fields = format::JsonFields::new();
                let lines = lines.event_format(JsonLine::new(node)).fmt_fields(fields);
                let lines = lines.with_filter(limit.clone());
                tracing::subscriber::set_global_default(registry().with(reloadable).with(lines))?;
                let _ = JSON_OF.set(node.to_owned());
                panic::set_hook(Box::new(|panic| tracing::error!(event = "panic", "{panic}")));
            }
        }
        // aya and librdkafka's wrapper use the `log` crate.
        tracing_log::LogTracer::builder()
            // It logs each relocation and instruction.
            .ignore_crate("aya_obj")
            .init()
            .map_err(|error| Error::Libraries(error.to_string()))?;
        let set_level = move |least| {
            if let Err(error) = level.reload(targets(least)) {
                tracing::error!(
                    event = "log_level_not_changed",
                    %error,
                    "cannot change the log level"
                );
            }
        };
        Ok(Self { set_level: Arc::new(set_level), limit })
    }

    /// Returns a log for a program that has its own one, whose level `set_level` sets.
    pub fn external(set_level: impl Fn(LogLevel) + Send + Sync + 'static) -> Self {
        Self { set_level: Arc::new(set_level), limit: Limit::default() }
    }

    /// Sets the least severe level that is written.
    pub fn set_level(&self, level: LogLevel) {
        (self.set_level)(level);
    }

    /// Logs how many lines were suppressed since the last call. Called every second.
    pub fn report_suppressed(&self) {
        self.limit.report();
    }

    /// Ends the limit: the last lines of a run matter, and are few.
    pub fn end_limit(&self) {
        self.limit.end();
    }

    /// Returns the numbers of lines so far.
    #[must_use]
    pub fn lines(&self) -> Lines {
        self.limit.lines()
    }
}

fn registry() -> Registry {
    Registry::default()
}

fn targets(level: LogLevel) -> Targets {
    let level = LevelFilter::from_level(tracing::Level::from(level));
    // It logs each attempt as an error; the watches log an outage once, with its cause.
    let kube = if level >= LevelFilter::DEBUG { level } else { LevelFilter::OFF };
    Targets::new()
        .with_default(level)
        .with_target(AUDIT, level.max(LevelFilter::INFO))
        // Suppressed lines are reported at every log level.
        .with_target(SUPPRESSED, level.max(LevelFilter::WARN))
        .with_target("kube_client", kube)
}

/// Writes the error that a command ends with to standard error: a line of the log if that is in JSON,
/// else text. A closed standard error is ignored.
pub fn print_error(error: &str) {
    if JSON_OF.get().is_some() {
        tracing::error!(event = "command_failed", "{error}");
    } else {
        let _ = writeln!(io::stderr(), "tap53: {}", visible_lines(error));
    }
}

/// Writes a warning of a command to standard error, as [`print_error`] does.
pub fn print_warning(warning: &str) {
    if JSON_OF.get().is_some() {
        tracing::warn!(event = "command_warning", "{warning}");
    } else {
        let _ = writeln!(io::stderr(), "tap53: warning: {}", visible_lines(warning));
    }
}

/// Writes a notice of a command to standard error; not as a line of the log.
pub fn print_notice(notice: &str) {
    let _ = writeln!(io::stderr(), "tap53: {}", visible_lines(notice));
}

/// Writes the ledger to standard error: a line of the log if that is in JSON, else text.
pub fn report(ledger: &Ledger) {
    /// A line as [`JsonLine`] writes events, with an object as a field.
    #[derive(Serialize)]
    struct Line<'a> {
        node: &'a str,
        timestamp: String,
        level: &'static str,
        message: &'static str,
        ledger: &'a Ledger,
        target: &'static str,
    }
    let text = match JSON_OF.get() {
        None => visible_lines(&ledger.to_string()).into_owned(),
        Some(node) => {
            let line = Line {
                node,
                timestamp: format!("{:.6}", jiff::Timestamp::now()),
                level: "INFO",
                message: "ledger",
                ledger,
                target: "ledger",
            };
            match serde_json::to_string(&line) {
                Ok(line) => line + "\n",
                Err(error) => {
                    return tracing::error!(
                        event = "ledger_not_written",
                        %error,
                        "cannot write the ledger as JSON"
                    );
                }
            }
        }
    };
    // In one write, so that no other line gets in between.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Formats the fields of a line of text as tracing-subscriber does, with control characters escaped.
fn text_fields() -> impl for<'writer> FormatFields<'writer> + 'static {
    format::debug_fn(|writer, field, value| {
        let value = format!("{value:?}");
        let value = visible(&value);
        match field.name() {
            "message" => write!(writer, "{value}"),
            // Metadata of records of the `log` crate.
            name if name.starts_with("log.") => Ok(()),
            name if writer.has_ansi_escapes() => {
                write!(writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{value}")
            }
            name => write!(writer, "{name}={value}"),
        }
    })
    .delimited(" ")
}

/// An event as a JSON object that begins with the node.
struct JsonLine {
    /// `{"node":"…",`
    beginning: Arc<str>,
    rest: format::Format<format::Json>,
}

impl JsonLine {
    fn new(node: &str) -> Self {
        // A string can be written as JSON.
        let node = serde_json::to_string(node).unwrap_or_else(|_| "\"\"".to_owned());
        Self {
            beginning: format!("{{\"node\":{node},").into(),
            rest: format::format()
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false),
        }
    }
}

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::with_capacity(256);
        self.rest.format_event(context, Writer::new(&mut line), event)?;
        // Only within strings, where JSON reads an escape as its character.
        let line = visible_lines(&line);
        let Some(rest) = line.strip_prefix('{') else { return writer.write_str(&line) };
        writer.write_str(&self.beginning)?;
        writer.write_str(rest)
    }
}

#[cfg(test)]
mod tests;
