//! Numbers as people read them.

/// Returns a count with separators of thousands.
pub(super) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a count in at most seven characters.
pub(super) fn short(value: u64) -> String {
    match value {
        0..1_000_000 => count(value),
        1_000_000..1_000_000_000 => scaled(value, 1_000_000, 'M'),
        _ => scaled(value, 1_000_000_000, 'G'),
    }
}

fn scaled(value: u64, unit: u64, letter: char) -> String {
    format!("{}.{}{letter}", value / unit, value % unit * 10 / unit)
}

/// Returns a number per second.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
pub(super) fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate <= 0.0 => "0".to_owned(),
        rate if rate < 0.05 => "<0.1".to_owned(),
        rate if rate < 9.95 => format!("{rate:.1}"),
        rate => short(rate.round() as u64),
    }
}

/// Returns a part of a whole in percent; a dash if the whole is nothing.
pub(super) fn share(part: u64, whole: u64) -> String {
    match ratio(part, whole) {
        None => "-".to_owned(),
        Some(ratio) if ratio <= 0.0 => "0%".to_owned(),
        Some(ratio) if ratio < 0.0005 => "<0.1%".to_owned(),
        Some(ratio) if ratio < 0.9995 => format!("{:.1}%", ratio * 100.0),
        Some(_) => "100%".to_owned(),
    }
}

/// Returns a part of a whole; `None` if the whole is nothing.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(super) fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Returns a bound of a latency.
pub(super) fn nanoseconds(ns: u64) -> String {
    let (value, unit) = match ns {
        1_000_000_000.. => (ns as f64 / 1e9, "s"),
        1_000_000.. => (ns as f64 / 1e6, "ms"),
        1_000.. => (ns as f64 / 1e3, "µs"),
        _ => (ns as f64, "ns"),
    };
    format!("{value}{unit}")
}

/// Returns a duration in its two largest units.
pub(super) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m{:02}s", seconds % 60),
        3_600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// Shortens a text in its middle: both ends of a name say most.
pub(super) fn elide(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(1);
    let head: String = text.chars().take(kept / 2).collect();
    let tail: String = text.chars().skip(length - (kept - kept / 2)).collect();
    if width == 0 { String::new() } else { format!("{head}…{tail}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_have_units() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        let shorts = [999_999, 1_000_000, 12_345_678, 7_890_000_000].map(short);
        assert_eq!(shorts, ["999,999", "1.0M", "12.3M", "7.8G"]);
        assert_eq!([0.0, 0.01, 0.5, 9.96, 1234.4].map(rate), ["0", "<0.1", "0.5", "10", "1,234"]);
        assert_eq!(share(1, 3), "33.3%");
        assert_eq!(
            [share(0, 0), share(0, 5), share(1, 9_999), share(5, 5)],
            ["-", "0%", "<0.1%", "100%"]
        );
        let latencies = [250, 100_000, 2_500_000, 5_000_000_000].map(nanoseconds);
        assert_eq!(latencies, ["250ns", "100µs", "2.5ms", "5s"]);
        let durations = [59, 61, 3_700, 90_000].map(duration);
        assert_eq!(durations, ["59s", "1m01s", "1h01m", "1d01h"]);
    }

    #[test]
    fn long_names_keep_both_ends_and_never_exceed_the_width() {
        assert_eq!(elide("www.example.test", 16), "www.example.test");
        assert_eq!(elide("www.example.test", 9), "www.…test");
        for width in 0..20 {
            assert!(elide("a-rather-long.name.example", width).chars().count() <= width);
        }
    }
}
