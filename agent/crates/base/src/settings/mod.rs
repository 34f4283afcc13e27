//! Reads and writes sections of the configuration: the YAML file as nodes with their lines,
//! checks of values, and how values are written back.
//!
//! Each part of the agent owns its section, in its `config` module; [`crate::config`] puts them
//! together.

mod problem;
mod tree;

use std::{net::IpAddr, path::PathBuf, time::Duration};

use glob::Pattern;
use ipnet::IpNet;

pub use problem::Problem;
pub use tree::{
    Section, Value, boolean, choice, label, milliseconds, parse, seconds, text, whole_number,
};

/// Accepts a shell pattern.
///
/// # Errors
/// When the value is not text, or the text is not a pattern.
pub fn pattern(value: &Value) -> Result<Pattern, String> {
    text(shell_pattern)(value)
}

/// Reads a shell pattern of interface names.
///
/// # Errors
/// When the text is empty, too long, or not a pattern.
pub fn shell_pattern(text: &str) -> Result<Pattern, String> {
    label(text)?;
    Pattern::new(text).map_err(|error| {
        format!("is not a shell pattern: {} at character {}", error.msg, error.pos + 1)
    })
}

/// Writes a duration back as whole milliseconds, for keys that end in `_ms`.
///
/// # Errors
/// Those of the serializer.
pub fn as_milliseconds<S: serde::Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// Writes a duration back as whole seconds, for keys that end in `_s`.
///
/// # Errors
/// Those of the serializer.
pub fn as_seconds<S: serde::Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_secs())
}

/// Writes shell patterns back as a list of texts.
///
/// # Errors
/// Those of the serializer.
pub fn patterns_as_text<S: serde::Serializer>(
    patterns: &[Pattern],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(patterns.iter().map(Pattern::as_str))
}

/// A prefix: `address/length`, or an address for itself alone.
///
/// # Errors
/// What is wrong with it.
pub fn prefix(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let prefix: IpNet =
        text.parse().map_err(|_| "must be a prefix, such as 10.0.0.0/8 or 2001:db8::/32")?;
    match prefix.trunc() {
        exact if exact == prefix => Ok(prefix),
        exact => Err(format!("has bits behind its length: write {exact}")),
    }
}

/// Accepts the absolute path of a directory of the agent's own, which it creates at the start.
///
/// # Errors
/// When the path is relative, or names something else than a directory.
pub fn own_directory(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if !path.is_absolute() {
        Err("must be an absolute path".to_owned())
    } else if path.exists() && !path.is_dir() {
        Err("is not a directory".to_owned())
    } else {
        Ok(path)
    }
}
