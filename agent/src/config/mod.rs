//! The configuration: one YAML file and the flags of the command line, checked whole before
//! anything runs.
//!
//! ```text
//!  file ─▶ tree: nodes with their line ─▶ sections: typed, checked ─┐
//!  flags ─▶ Overrides ──────────────────────────────────────────────┴▶ Config ─▶ stages
//! ```
//!
//! - Every problem is reported, not only the first, each with the path of its key
//!   (`sinks[1].rotate_bytes`), the value found and the reason.
//! - A key that is not known is refused: a misspelt key must not silently leave a default in force.
//! - Sizes and durations carry their unit in the key's name; in the types they are [`Duration`]s
//!   and byte counts.
//! - Flags override the file. What is wrong in the file is refused even where a flag overrides it.
//! - [`Config`] serialises to a file that reads back as the same [`Config`].

mod capture;
mod sinks;

use std::time::Duration;

use clap::ValueEnum;
use glob::Pattern;
use serde::Serialize;
use tap53_ebpf::settings::Direction;

pub use capture::{CaptureConfig, HookChoice, TcChoice, XdpMode};
pub use sinks::{
    ColorChoice, FileCodec, FileConfig, KafkaCompression, KafkaConfig, SinkConfig, StdoutConfig,
    TextFormat,
};

/// The whole configuration, checked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// Name of this node in the records; the host name unless set.
    pub node: String,
    /// Which interfaces to capture from.
    pub interfaces: InterfacesConfig,
    /// How packets are captured.
    pub capture: CaptureConfig,
    /// The table that pairs queries with responses.
    pub pair: PairConfig,
    /// Where records go; never empty, names are unique.
    pub sinks: Vec<SinkConfig>,
    /// What happens between the signal to stop and the exit.
    pub shutdown: ShutdownConfig,
    /// The agent's own log.
    pub log: LogConfig,
}

/// Which interfaces to capture from. Exclusion wins over inclusion.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InterfacesConfig {
    /// Shell patterns of names to capture from; at least one.
    #[serde(serialize_with = "patterns_as_text")]
    pub include: Vec<Pattern>,
    /// Shell patterns of names to leave alone.
    #[serde(serialize_with = "patterns_as_text")]
    pub exclude: Vec<Pattern>,
    /// Directions to capture.
    pub directions: Directions,
}

/// Directions to capture on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Directions {
    /// What arrives.
    Ingress,
    /// What leaves.
    Egress,
    /// Both.
    Both,
}

impl Directions {
    /// True if `direction` is among them.
    #[must_use]
    pub const fn contains(self, direction: Direction) -> bool {
        matches!(
            (self, direction),
            (Self::Both, _)
                | (Self::Ingress, Direction::Ingress)
                | (Self::Egress, Direction::Egress)
        )
    }

    /// Bits for [`InterfaceSettings::directions`](tap53_ebpf::settings::InterfaceSettings).
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Ingress => 1 << Direction::Ingress as u32,
            Self::Egress => 1 << Direction::Egress as u32,
            Self::Both => 1 << Direction::Ingress as u32 | 1 << Direction::Egress as u32,
        }
    }
}

/// The table that pairs queries with responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PairConfig {
    /// How long a query waits for its response before it counts as unanswered.
    #[serde(rename = "timeout_ms", serialize_with = "as_milliseconds")]
    pub timeout: Duration,
    /// Pending queries that each worker holds at most.
    pub capacity: usize,
}

/// What happens between the signal to stop and the exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ShutdownConfig {
    /// How long sinks may take to deliver what they hold.
    #[serde(rename = "flush_timeout_ms", serialize_with = "as_milliseconds")]
    pub flush_timeout: Duration,
}

/// The agent's own log, on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LogConfig {
    /// Least severe level that is written.
    pub level: LogLevel,
}

/// Severity of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something is not as it should be, and the agent goes on.
    Warn,
    /// What an operator wants to see of a healthy run.
    Info,
    /// Steps in between.
    Debug,
    /// Everything.
    Trace,
}

impl From<LogLevel> for tracing::Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// What the flags of the command line change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--interface`, repeated: replaces `interfaces.include`.
    pub interfaces: Vec<String>,
    /// `--hook`: replaces `capture.hook`.
    pub hook: Option<HookChoice>,
    /// `--stdout` or `--json`: adds a stdout sink of this format, or gives the one in the file
    /// this format.
    pub stdout: Option<TextFormat>,
    /// `--log-level`: replaces `log.level`.
    pub log_level: Option<LogLevel>,
}

fn as_milliseconds<S: serde::Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn as_seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_secs())
}

fn patterns_as_text<S: serde::Serializer>(
    patterns: &[Pattern],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(patterns.iter().map(Pattern::as_str))
}
