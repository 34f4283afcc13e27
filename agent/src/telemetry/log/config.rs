//! The `log` section: the agent's own log.

use clap::ValueEnum;
use serde::Serialize;
use tap53_base::settings::{Section, choice};

/// The agent's own log, on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LogConfig {
    /// Least severe level that is written.
    pub level: LogLevel,
    /// Format of the lines.
    pub format: LogFormat,
}

/// Format of the log's lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text for people: time, level, message and fields.
    #[default]
    Text,
    /// One JSON object a line, with the node's name.
    Json,
}

/// Severity of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something is not as it should be, and the agent continues.
    Warn,
    /// Events of a healthy run that an operator wants to see.
    Info,
    /// Details for finding a problem.
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

impl LogConfig {
    pub(crate) fn read(
        section: &mut Section<'_>,
        level_flag: Option<LogLevel>,
        format_flag: Option<LogFormat>,
    ) -> Self {
        let level = section.read("level", choice);
        let format = section.read("format", choice);
        Self {
            level: level_flag.or(level).unwrap_or(LogLevel::Info),
            format: format_flag.or(format).unwrap_or_default(),
        }
    }
}
