//! Reads and writes sections of the configuration: parses the YAML file into nodes with line
//! numbers, checks values, and serializes them again.
//!
//! Each part of the agent owns its section, in its `config` module; the agent's `config` combines
//! them.

mod description;
mod problem;
mod suggestion;
mod tree;

use std::{
    fs::OpenOptions, net::IpAddr, os::unix::fs::OpenOptionsExt, path::PathBuf, time::Duration,
};

use glob::Pattern;
use ipnet::IpNet;

pub use description::Form;
pub use problem::Problem;
pub use suggestion::nearest;
pub use tree::{
    Machine, Section, Value, boolean, choice, label, milliseconds, parse, seconds, text,
    whole_number,
};

/// Reads a shell pattern of interface names.
///
/// # Errors
/// Fails if the text is empty, too long, or not a pattern.
pub fn shell_pattern(text: &str) -> Result<Pattern, String> {
    label(text)?;
    Pattern::new(text).map_err(|error| {
        format!("is not a shell pattern: {} at character {}", error.msg, error.pos + 1)
    })
}

/// Serializes a duration as whole milliseconds, for keys that end in `_ms`.
///
/// # Errors
/// Returns the error of the serializer.
pub fn as_milliseconds<S: serde::Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// Serializes a duration as whole seconds, for keys that end in `_s`.
///
/// # Errors
/// Returns the error of the serializer.
pub fn as_seconds<S: serde::Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_secs())
}

/// Reads a prefix, `address/length`, or an address, which stands for a prefix of full length.
///
/// # Errors
/// Returns the reason why the text is not a prefix.
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

/// Accepts the absolute path of a directory that the agent owns, and creates at the start.
///
/// # Errors
/// Fails if the path is relative, or names a file that is not a directory.
pub fn own_directory(text: &str, machine: Machine) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if !path.is_absolute() {
        Err("must be an absolute path".to_owned())
    } else if machine == Machine::Agent && path.exists() && !path.is_dir() {
        Err("is not a directory".to_owned())
    } else {
        Ok(path)
    }
}

/// Checks that a file can be read now, but not its content.
///
/// # Errors
/// The reason why it cannot be read.
pub fn readable_file(text: &str, machine: Machine) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if machine == Machine::Other {
        return Ok(path);
    }
    // Otherwise, opening a pipe would wait for its writer.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
    let metadata = opened.and_then(|file| file.metadata());
    match metadata {
        Ok(metadata) if metadata.is_file() => Ok(path),
        Ok(_) => Err("is not a file".to_owned()),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}
