//! The agent's own log, on standard error: a line for each event, as text or as a JSON object.
//!
//! Both have the same fields under the same names. In JSON each line carries the name of the node,
//! and everything that a running agent says there is such a line: the ledger, panics and the error
//! that it ends with too. What refuses to start it, arguments and configuration, is text always:
//! that is where the format would be read from.
//!
//! Lines that repeat are limited, see [`limit`].

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

/// Target of the lines that say what changed at an interface, one for each change; never limited
/// either.
pub const CHANGE: &str = "change";

/// Node of the lines in JSON, once the log has begun and is in JSON.
static JSON_OF: OnceLock<String> = OnceLock::new();

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is one already.
    #[error("cannot start the log: {0}")]
    Start(#[from] tracing::subscriber::SetGlobalDefaultError),
    /// Libraries have one already.
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
    /// Begins the log of this process.
    ///
    /// # Errors
    /// If it has begun already.
    pub fn start(config: &LogConfig, node: &str) -> Result<Self, Error> {
        let (reloadable, level) = reload::Layer::new(targets(config.level));
        let limit = Limit::default();
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            // It would panic where standard error has lost its reader.
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
                panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
            }
        }
        // aya and librdkafka's wrapper speak to the `log` crate.
        tracing_log::LogTracer::builder()
            // It tells of each relocation and instruction.
            .ignore_crate("aya_obj")
            .init()
            .map_err(|error| Error::Libraries(error.to_string()))?;
        let set_level = move |least| {
            if let Err(error) = level.reload(targets(least)) {
                tracing::error!(%error, "the log's level stays as it is");
            }
        };
        Ok(Self { set_level: Arc::new(set_level), limit })
    }

    /// For a program that has a log of its own, whose level is set by `set_level`.
    pub fn elsewhere(set_level: impl Fn(LogLevel) + Send + Sync + 'static) -> Self {
        Self { set_level: Arc::new(set_level), limit: Limit::default() }
    }

    /// Changes the least severe level that is written.
    pub fn set_level(&self, level: LogLevel) {
        (self.set_level)(level);
    }

    /// Says what was left out since it was last asked to. To be called now and then.
    pub fn tell_suppressed(&self) {
        self.limit.tell();
    }

    /// From here on every line is written: the last ones matter, and are few.
    pub fn end_limit(&self) {
        self.limit.end();
    }

    /// How many lines there were.
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
    // It calls each attempt an error, of which the watches tell once and with the cause.
    let kube = if level >= LevelFilter::DEBUG { level } else { LevelFilter::OFF };
    Targets::new()
        .with_default(level)
        .with_target(AUDIT, level.max(LevelFilter::INFO))
        // What was left out is told as long as anything is.
        .with_target(SUPPRESSED, level.max(LevelFilter::WARN))
        .with_target("kube_client", kube)
}

/// The error that a command ends with: a line of the log where that is in JSON, else for people. A
/// reader of standard error that went away is no reason to panic.
pub fn say_error(error: &str) {
    if JSON_OF.get().is_some() {
        tracing::error!("{error}");
    } else {
        let _ = writeln!(io::stderr(), "tap53: {}", visible_lines(error));
    }
}

/// What a command that only looks at something finds, and does not end with: as [`say_error`].
pub fn say_warning(warning: &str) {
    if JSON_OF.get().is_some() {
        tracing::warn!("{warning}");
    } else {
        let _ = writeln!(io::stderr(), "tap53: warning: {}", visible_lines(warning));
    }
}

/// The ledger: a line of the log where that is in JSON, else for people.
pub fn report(ledger: &Ledger) {
    /// As [`JsonLine`] writes events, with an object for a field.
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
                Err(error) => return tracing::error!(%error, "cannot write the ledger"),
            }
        }
    };
    // At once, so that no other line gets in between.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// The fields of a line of text, as tracing-subscriber writes them, with everything in them seen.
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
        // Within texts alone, where JSON reads an escape as its character.
        let line = visible_lines(&line);
        let Some(rest) = line.strip_prefix('{') else { return writer.write_str(&line) };
        writer.write_str(&self.beginning)?;
        writer.write_str(rest)
    }
}

#[cfg(test)]
mod tests;
