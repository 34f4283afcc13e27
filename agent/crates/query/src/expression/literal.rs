//! Reads literals of each kind.

use ipnet::IpNet;

use super::{Glob, Literal};
use crate::catalogue::Kind;

/// Units of durations, with their nanoseconds.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("min", 60e9),
    ("h", 3_600e9),
];

/// Reads a literal for a field of this kind; `networks` are allowed after `in` and `=`.
///
/// # Errors
/// The reason, and what is expected.
pub(super) fn literal(kind: &Kind, text: &str) -> Result<Literal, String> {
    match kind {
        Kind::Text | Kind::Texts | Kind::Labels => Ok(Literal::Text(text.to_owned())),
        Kind::Number => number(text),
        Kind::Boolean => boolean(text),
        Kind::Duration => duration(text),
        Kind::Time => time(text),
        Kind::Address | Kind::Addresses => address(text),
        Kind::Bytes => bytes(text),
        // The parser requires a field of theirs.
        Kind::Records(_) => Err("records are compared by one of their fields".to_owned()),
    }
}

fn number(text: &str) -> Result<Literal, String> {
    let number = text.parse().map(Literal::Number);
    number.map_err(|_| format!("`{text}` is no whole number"))
}

fn boolean(text: &str) -> Result<Literal, String> {
    match text {
        "true" => Ok(Literal::Boolean(true)),
        "false" => Ok(Literal::Boolean(false)),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}

fn duration(text: &str) -> Result<Literal, String> {
    let wrong = || format!("`{text}` is no duration, such as 50ms, 1.5s or 200us");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits);
    if unit.is_empty() || unit == "ns" {
        // Exact also where a float is not.
        return digits.parse().map(Literal::Duration).map_err(|_| wrong());
    }
    let unit = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let nanoseconds = digits.parse::<f64>().map_err(|_| wrong())? * unit.1;
    if nanoseconds >= i64::MAX as f64 {
        return Err(wrong());
    }
    // Below the limit, and not negative.
    #[allow(clippy::cast_possible_truncation)]
    Ok(Literal::Duration(nanoseconds.round() as i64))
}

fn time(text: &str) -> Result<Literal, String> {
    let timestamp = text.parse::<jiff::Timestamp>().or_else(|_| {
        let date = text.parse::<jiff::civil::DateTime>()?;
        Ok::<_, jiff::Error>(date.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp())
    });
    let literal = timestamp.map(|time| Literal::Time(time.as_microsecond()));
    literal.map_err(|_| {
        format!("`{text}` is no time, such as 2026-11-18T11:06:40Z or 2026-11-18, in UTC")
    })
}

fn address(text: &str) -> Result<Literal, String> {
    if let Ok(address) = text.parse() {
        return Ok(Literal::Address(address));
    }
    let network = text.parse().map(|network: IpNet| Literal::Network(network.trunc()));
    network.map_err(|_| format!("`{text}` is neither an address nor a network such as 10.0.0.0/8"))
}

fn bytes(text: &str) -> Result<Literal, String> {
    let lower = text.to_ascii_lowercase();
    match data_encoding::HEXLOWER.decode(lower.as_bytes()) {
        Ok(_) => Ok(Literal::Text(lower)),
        Err(_) => Err(format!("`{text}` are no bytes in hexadecimal")),
    }
}

/// Reads a pattern.
///
/// # Errors
/// When it is no pattern of a shell.
pub(super) fn pattern(text: &str) -> Result<Glob, String> {
    let is_pattern = text.contains(['*', '?', '[']);
    let pattern = is_pattern.then(|| glob::Pattern::new(text)).transpose();
    let pattern = pattern.map_err(|error| format!("`{text}` is no pattern: {}", error.msg))?;
    Ok(Glob { text: text.to_owned(), pattern })
}
