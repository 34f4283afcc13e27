//! Masks the parts of an output that differ in each run.

use std::{net::IpAddr, str::FromStr};

/// Units of durations, as the agent prints them.
const UNITS: [&str; 8] = ["ns", "us", "µs", "ms", "s", "m", "min", "h"];

/// Returns a line with words in place of times, durations and identifiers, with one space between words,
/// and if `masks_numbers`, with `#` in place of numbers.
pub(crate) fn masked(line: &str, masks_numbers: bool) -> String {
    let mut masked = Vec::new();
    let mut words = line.split_whitespace().peekable();
    while let Some(word) = words.next() {
        // A duration may be two words: `4.387 ms`.
        let is_unit = |next: &&str| UNITS.contains(&next.trim_end_matches([',', '.', ';', ':']));
        if word.parse::<f64>().is_ok() && words.next_if(is_unit).is_some() {
            masked.push("DURATION".to_owned());
        } else {
            masked.push(masked_word(word, masks_numbers));
        }
    }
    masked.join(" ")
}

/// Masks the parts of a word, such as those of `{"id":"…","count":3}`.
fn masked_word(word: &str, masks_numbers: bool) -> String {
    if masks_numbers && is_grouped(word) {
        return "#".to_owned();
    }
    let mut text = String::new();
    let is_sign = |sign: char| !sign.is_alphanumeric() && !".:-+_/%".contains(sign);
    for part in word.split_inclusive(is_sign) {
        let end =
            part.len() - part.chars().last().filter(|it| is_sign(*it)).map_or(0, char::len_utf8);
        let (part, sign) = part.split_at(end);
        let bare = part.trim_end_matches([':', '.']);
        text.push_str(&masked_part(bare, masks_numbers));
        text.push_str(&part[bare.len()..]);
        text.push_str(sign);
    }
    text
}

fn masked_part(part: &str, masks_numbers: bool) -> String {
    if is_time(part) {
        "TIME".to_owned()
    } else if is_identifier(part) {
        "ID".to_owned()
    } else if is_duration(part) {
        "DURATION".to_owned()
    } else if !masks_numbers {
        part.to_owned()
    } else if part.trim_end_matches('%').parse::<f64>().is_ok() {
        "#".to_owned()
    } else if let Some((address, port)) = part.rsplit_once(':')
        && IpAddr::from_str(address).is_ok()
        && port.parse::<u16>().is_ok()
    {
        format!("{address}:#")
    } else {
        part.to_owned()
    }
}

/// `1,462`: a number with its digits in groups of three.
fn is_grouped(word: &str) -> bool {
    let mut groups = word.split(',');
    let is_number = |group: &str| group.bytes().all(|it| it.is_ascii_digit());
    let begins =
        groups.next().is_some_and(|group| (1..=3).contains(&group.len()) && is_number(group));
    begins && word.contains(',') && groups.all(|group| group.len() == 3 && is_number(group))
}

/// `2026-11-29`, `2026-11-29T22:41:26.5Z`, `22:41:26.500000`.
fn is_time(part: &str) -> bool {
    let shape: String = part.chars().map(|it| if it.is_ascii_digit() { '9' } else { it }).collect();
    let shape = shape.trim_end_matches("+99:99").trim_end_matches('Z');
    let shape = shape.split_once('.').map_or(shape, |(whole, _)| whole);
    ["9999-99-99", "9999-99-99T99:99:99", "99:99:99"].contains(&shape)
}

/// At least 16 hexadecimal digits with a letter among them, or a UUID.
fn is_identifier(part: &str) -> bool {
    let digits: String = part.chars().filter(|it| *it != '-').collect();
    let is_hex = digits.bytes().all(|it| it.is_ascii_hexdigit());
    let has_digit = digits.bytes().any(|it| it.is_ascii_digit());
    is_hex && has_digit && digits.len() >= 16 && digits.parse::<f64>().is_err()
}

/// `12.5ms`, `1h2m`.
fn is_duration(part: &str) -> bool {
    let starts = part.starts_with(|it: char| it.is_ascii_digit());
    let is_digit = |it: char| it.is_ascii_digit() || it == '.';
    let mut units = part.split(is_digit).filter(|unit| !unit.is_empty()).peekable();
    starts && units.peek().is_some() && units.all(|unit| UNITS.contains(&unit))
}

#[test]
fn times_durations_and_identifiers_are_masked() {
    for (line, expected) in [
        ("2026-11-18T11:06:41.000000Z  10.1.2.3  2.50s", "TIME 10.1.2.3 DURATION"),
        ("22:46:03.659889 UDP 4.387 ms 203.0.113.10", "TIME UDP DURATION 203.0.113.10"),
        ("since 2026-11-29 22:41:26, for 1h2m:", "since TIME TIME, for DURATION:"),
        (
            r#"{"run_id":"6f1c9b2e-7d1a-4c58-9a53-0c2b7d1f8e44","count":3}"#,
            r#"{"run_id":"ID","count":3}"#,
        ),
        ("2 of 6 records selected", "2 of 6 records selected"),
        ("decade.example.com abcdefabcdefabcdef", "decade.example.com abcdefabcdefabcdef"),
    ] {
        assert_eq!(masked(line, false), expected);
    }
}

#[test]
fn numbers_are_masked_on_request_and_addresses_are_not() {
    for (line, expected) in [
        ("2 of 6 records, 33.33 % or 33%", "# of # records, # % or #"),
        ("4.387 ms 203.0.113.10:53412 2001:db8::25", "DURATION 203.0.113.10:# 2001:db8::25"),
        ("tap53_signals_total{signal=\"dga\"} 0", "tap53_signals_total{signal=\"dga\"} #"),
        ("eth0 AAAA TLS1.3", "eth0 AAAA TLS1.3"),
        ("1,462 web,672,504 1,46", "# web,#,# #,#"),
    ] {
        assert_eq!(masked(line, true), expected);
    }
}
