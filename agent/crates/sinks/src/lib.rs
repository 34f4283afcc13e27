//! The sinks: Kafka topics, Avro files and standard output.
//!
//! Contract: [`Sink::write`] takes a whole batch and accounts for each record of it in the sink's
//! counts, as delivered, in flight or lost for a reason. It never fails as a whole, and waits only as
//! long as the sink documents. After [`Sink::close`] nothing is in flight. Sinks are shared by the
//! workers.

#![cfg_attr(not(test), forbid(unsafe_code))]

pub mod config;
mod container;
mod file;
mod kafka;
mod oauth;
mod queued;
pub mod registry;
mod stdout;
mod summaries;
#[cfg(test)]
mod tests;
mod wait_budget;

pub use container::AvroFile;
pub use kafka::{
    Broker, Spread, Statistics,
    admin::{AdminClient, AdminError},
};
pub use queued::QUEUE_BYTES;
pub use summaries::Summaries;
pub use summaries::SummarySink;

use wait_budget::WaitBudget;

use std::{
    io::IsTerminal,
    sync::Arc,
    time::{Duration, Instant},
};

use tap53_base::{amount::Amount, vitals::SinkTimings};
use tap53_ledger::{Published, SinkCounts};
use tap53_records::encode::{self, Batch, Format, Key, TextOptions, WindowSlot};
use tokio::sync::Notify;

use crate::config::{ColorChoice, SinkConfig, StdoutConfig, TextFormat};

/// The failure to open a sink.
#[derive(Debug, thiserror::Error)]
#[error("sink {sink}: {cause}")]
pub struct Error {
    /// Name of the sink.
    pub sink: String,
    /// The reason. It is not the `source()`, which would print it twice.
    pub cause: OpenError,
}

/// Reasons why a sink cannot be opened. Each message has its cause, so none is a `source()`, which
/// would print it twice.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file system refused.
    #[error("cannot {action} {path}: {cause}")]
    File {
        /// The action that failed.
        action: &'static str,
        /// The file.
        path: String,
        /// The cause.
        cause: std::io::Error,
    },
    /// librdkafka refused its configuration.
    #[error("librdkafka refuses the configuration: {0}")]
    Kafka(rdkafka::error::KafkaError),
    /// A thread of the sink cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// The spool cannot be opened.
    #[error("{0}")]
    Spool(tap53_spool::Error),
    /// The schema does not parse.
    #[error("{0}")]
    Encode(encode::Error),
}

/// Takes batches of encoded records.
pub trait Sink: Send + Sync {
    /// Returns the encoding that it takes.
    fn format(&self) -> Format;

    /// Returns the key that records need.
    fn key(&self) -> Key {
        Key::None
    }

    /// Its counts, for the ledger.
    fn counts(&self) -> &Published<SinkCounts>;

    /// Returns the times of its stages, if they are measured.
    fn timings(&self) -> Option<&SinkTimings> {
        None
    }

    /// Returns its inner state, for metrics. Never waits for a disk or a broker.
    fn state(&self) -> State {
        State::default()
    }

    /// Returns the destination for summaries of the ledger, if there is one.
    fn summaries(&self) -> Option<&dyn SummarySink> {
        None
    }

    /// Announces records, before anything else counts them. Returns the slot for their batch.
    fn announce(&self, _records: u64) -> WindowSlot {
        WindowSlot::default()
    }

    /// Returns for how long a batch may wait for further ones, so that the sink writes few large ones.
    fn linger(&self) -> Duration {
        Duration::ZERO
    }

    /// Writes the records of `batch`, which have been announced.
    fn write(&self, batch: &Batch);

    /// Does periodic work, such as finishing a file that is old enough.
    fn tick(&self, now: Instant);

    /// Delivers what it holds within `deadline` and counts the rest as lost.
    fn close(&self, deadline: Duration);

    /// As [`close`](Self::close), after an interruption: what it wrote last is not complete, and must
    /// not look as if it were.
    fn close_interrupted(&self, deadline: Duration) {
        self.close(deadline);
    }
}

/// The inner state of a sink, without its counts in the ledger.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Its spool.
    pub spool: Option<SpoolState>,
    /// The latest statistics of librdkafka.
    pub kafka: Option<Arc<Statistics>>,
    /// The reason why it does not deliver now, although it may lose nothing; `None` while it delivers.
    pub outage: Option<String>,
}

/// The state of a spool, without its counts in the ledger.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpoolState {
    /// The most bytes that it may take.
    pub limit_bytes: u64,
    /// The time since when its oldest record waits, milliseconds since 1970 UTC.
    pub oldest_at_ms: Option<i64>,
    /// Delivery reports and failed records that wait for the sender.
    pub reports_waiting: usize,
}

/// A sink and its name in the ledger.
#[derive(Clone)]
pub struct Named {
    /// Name.
    pub name: String,
    /// The sink.
    pub sink: Arc<dyn Sink>,
}

/// Opens the sinks of a configuration for workers that must not be blocked: sinks that may block have a
/// queue and a thread. `stop` is notified when a sink's reader is gone, so that the agent has nothing
/// left to do. Statistics that cost something are collected only if `watches`.
///
/// # Errors
/// The first sink that cannot be opened.
pub fn build(
    configs: &[SinkConfig],
    node: &str,
    watches: bool,
    stop: &Arc<Notify>,
) -> Result<Vec<Named>, Error> {
    open_all(configs, node, Purpose::Live { watches }, stop, |name, sink| {
        Ok(Arc::new(queued::QueuedSink::start(name, sink, stop).map_err(OpenError::Thread)?))
    })
}

/// As [`build`], for callers that lose nothing while they wait for a sink.
///
/// # Errors
/// As [`build`].
pub fn build_without_queues(
    configs: &[SinkConfig],
    node: &str,
    stop: &Arc<Notify>,
) -> Result<Vec<Named>, Error> {
    open_all(configs, node, Purpose::Replay, stop, |_, sink| Ok(Arc::from(sink)))
}

/// The user of the sinks.
#[derive(Clone, Copy)]
enum Purpose {
    /// Workers, which must not be blocked.
    Live {
        /// True if statistics are collected that cost something.
        watches: bool,
    },
    /// A replay, which waits for as long as a sink takes.
    Replay,
}

/// `share` gives sinks that may block a queue, if the workers need that.
fn open_all(
    configs: &[SinkConfig],
    node: &str,
    purpose: Purpose,
    stop: &Arc<Notify>,
    share: impl Fn(&str, Box<dyn Sink>) -> Result<Arc<dyn Sink>, OpenError>,
) -> Result<Vec<Named>, Error> {
    let open = |config: &SinkConfig| -> Result<Arc<dyn Sink>, OpenError> {
        Ok(match config {
            SinkConfig::Stdout(stdout) => {
                let format = format(stdout);
                share(&stdout.name, Box::new(stdout::Stdout::new(format, stop.clone())))?
            }
            SinkConfig::File(file) => share(&file.name, Box::new(file::Files::open(file, node)?))?,
            SinkConfig::Kafka(kafka) => {
                let (watches, wait_budget) = match purpose {
                    Purpose::Live { watches } => (watches, Some(WaitBudget::default())),
                    Purpose::Replay => (false, None),
                };
                Arc::new(kafka::Kafka::open(kafka, node, watches, wait_budget)?)
            }
        })
    };
    let open = |config: &SinkConfig| {
        let name = config.name().to_owned();
        match open(config) {
            Ok(sink) => Ok(Named { name, sink }),
            Err(cause) => Err(Error { sink: name, cause }),
        }
    };
    configs.iter().map(open).collect()
}

/// Opens standard output with a line for each message, for records of one message each.
#[must_use]
pub fn messages(stop: &Arc<Notify>) -> Named {
    let sink = Arc::new(stdout::Stdout::new(Format::Message, stop.clone()));
    Named { name: "stdout".to_owned(), sink }
}

pub(crate) fn amount(batch: &Batch) -> Amount {
    Amount { records: batch.records(), messages: batch.messages() }
}

/// Returns the encoding of the lines on standard output.
fn format(config: &StdoutConfig) -> Format {
    let StdoutConfig { format, color, columns, local_time, dated, .. } = config;
    let options = TextOptions {
        columns: columns.unwrap_or(format.columns()),
        width: terminal_width().filter(|_| *format == TextFormat::Text),
        color: match color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            // https://no-color.org
            ColorChoice::Auto => {
                std::io::stdout().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        },
        local_time: *local_time,
        dated: *dated,
    };
    match format {
        TextFormat::Json => Format::Json,
        TextFormat::Compact => Format::CompactJson,
        TextFormat::Text | TextFormat::Wide => Format::Text(options),
        TextFormat::Csv => Format::Csv(options),
    }
}

/// Returns the width of the terminal at standard output; `None` if that is no terminal.
#[must_use]
pub fn terminal_width() -> Option<u16> {
    terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| width.0)
}
