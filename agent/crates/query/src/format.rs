//! Formats of results, and what they have in common.

use clap::ValueEnum;

/// Format of a result in lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    Text,
    /// Comma-separated values (RFC 4180) with a header.
    Csv,
    /// A JSON object in each line.
    Json,
}

/// Appends a field, in quotes if it needs them.
pub fn push_csv_text(text: &[u8], out: &mut Vec<u8>) {
    if !text.iter().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r')) {
        return out.extend_from_slice(text);
    }
    out.push(b'"');
    for byte in text {
        if *byte == b'"' {
            out.push(b'"');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

/// Returns a duration for people, with three digits.
#[must_use]
pub fn humane_duration(nanoseconds: i64) -> String {
    let units = [("ns", 1.0), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)];
    // Precise enough for three digits.
    #[allow(clippy::cast_precision_loss)]
    let value = nanoseconds as f64;
    let (unit, scale) =
        units.into_iter().rev().find(|(_, scale)| value.abs() >= *scale).unwrap_or(units[0]);
    let scaled = value / scale;
    let digits = match scaled.abs() {
        _ if unit == "ns" => 0,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{scaled:.digits$}{unit}")
}
