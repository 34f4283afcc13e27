//! Rewrites names that contain addresses.
//!
//! ```text
//!                      77 . 2 . 0 . 192 . in-addr . arpa      8 bits a label, 4 labels
//!  7 . 0 . 0 . … . 8 . b . d . 0 . 1 . 0 . 0 . 2 . ip6 . arpa  4 bits a label, 32 labels
//!                                      ◀── parsed this way
//! ```
//!
//! Truncation keeps the bits of the prefix and writes 0 for all labels after it, as many as the
//! name had: the reverse name of the truncated address. A label that is no number becomes 0 too,
//! and labels beyond a whole address are removed: a zone for a part of a /24 may be named after its
//! addresses (`0/25`, `128-191`; RFC 2317 §4), and the name of a service may precede an address
//! (RFC 6763 §11).
//!
//! Labels after the zone's name stay: a resolver with a search list also queries
//! `77.2.0.192.in-addr.arpa.corp.example` if the name itself was not found.

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use tap53_dns::{below, labels_from_the_right};

use super::{PrefixLengths, WITHHELD};
use crate::privacy::config::AddressRule;

/// A zone of reverse names.
struct Zone {
    name: &'static str,
    /// The name in RDATA of the generic form (RFC 3597 §5): wire format without the root, in
    /// hexadecimal.
    wire: &'static str,
    bits_per_label: u8,
    labels: usize,
    prefix_length: fn(PrefixLengths) -> u8,
}

const ZONES: [Zone; 3] = [
    Zone {
        name: "in-addr.arpa",
        wire: "07696e2d616464720461727061",
        bits_per_label: 8,
        labels: 4,
        prefix_length: |lengths| lengths.ipv4,
    },
    Zone {
        name: "ip6.arpa",
        wire: "036970360461727061",
        bits_per_label: 4,
        labels: 32,
        prefix_length: |lengths| lengths.ipv6,
    },
    // Deprecated by RFC 4159, but queries for it still contain addresses.
    Zone {
        name: "ip6.int",
        wire: "0369703603696e74",
        bits_per_label: 4,
        labels: 32,
        prefix_length: |lengths| lengths.ipv6,
    },
];

/// Rewrites `name`, which is in lower case, by `rule`; returns `None` if it is not a reverse name.
pub(super) fn rewritten(rule: &AddressRule, name: &str) -> Option<String> {
    let (zone, name, labels, suffix) = divided(name)?;
    let head = match rule {
        AddressRule::Keep => return None,
        _ if labels.is_empty() => String::new(),
        AddressRule::Drop => String::new(),
        AddressRule::Truncate(lengths) => truncated(zone, labels, (zone.prefix_length)(*lengths)),
        AddressRule::Hash(hash) => match whole_address(zone, labels) {
            Some(address) => hash.key.pseudonym_of_address(address).as_str().to_owned(),
            // It is longer than an address because of the zone's name, so the hashes never collide.
            None => hash.key.pseudonym(name.as_bytes()).as_str().to_owned(),
        },
    };
    let dot = if head.is_empty() { "" } else { "." };
    Some(format!("{head}{dot}{}{suffix}", zone.name))
}

/// Splits a name at its last zone of reverse names: returns the zone, the name up to its end, the
/// labels before the zone, and the rest after it, including the dot. Returns `None` if there is
/// none.
fn divided(name: &str) -> Option<(&'static Zone, &str, &str, &str)> {
    let last_of = |zone: &'static Zone| {
        name.rmatch_indices(zone.name).find_map(|(at, found)| {
            let (reverse, suffix) = name.split_at(at + found.len());
            let labels = below(reverse, zone.name)?;
            (suffix.is_empty() || suffix.starts_with('.'))
                .then_some((zone, reverse, labels, suffix))
        })
    };
    ZONES.iter().filter_map(last_of).max_by_key(|(_, reverse, ..)| reverse.len())
}

/// Rewrites the reverse names in RDATA like [`rewritten`]: those of CNAME, PTR, DNAME, NS, SOA,
/// SRV, NSEC and the signer of RRSIG, each of which is separated by spaces. Generic RDATA that
/// contains such a name is withheld completely.
pub(super) fn rewritten_rdata(rule: &AddressRule, rdata: &str) -> Option<String> {
    if rdata.starts_with("\\#") {
        return holds_zone(rdata).then(|| WITHHELD.to_owned());
    }
    // Most RDATA ends here.
    if !ZONES.iter().any(|zone| rdata.contains(zone.name)) {
        return None;
    }
    let mut changed = false;
    let words = rdata.split(' ').map(|word| match rewritten(rule, word) {
        // A quotation mark in a name would be escaped.
        Some(name) if !word.starts_with('"') => {
            changed = true;
            Cow::Owned(name)
        }
        _ => Cow::Borrowed(word),
    });
    let words: Vec<Cow<'_, str>> = words.collect();
    changed.then(|| words.join(" "))
}

/// Returns true if generic RDATA contains the end of a reverse name, in letters of either case.
fn holds_zone(rdata: &str) -> bool {
    // Hexadecimal digits may be grouped.
    let mut digits: Vec<u8> = rdata.bytes().filter(|digit| *digit != b' ').collect();
    digits.make_ascii_lowercase();
    ZONES.iter().any(|zone| {
        digits
            .windows(zone.wire.len())
            .any(|window| equal_on_the_wire(window, zone.wire.as_bytes()))
    })
}

/// Compares names in hexadecimal, where 41 and 61 are the same letter: the first of a letter's two
/// digits depends on its case.
fn equal_on_the_wire(found: &[u8], zone: &[u8]) -> bool {
    found.chunks(2).zip(zone.chunks(2)).all(|(found, zone)| {
        found == zone
            || matches!(
                (found, zone),
                ([b'4', low], [b'6', zone_low]) | ([b'5', low], [b'7', zone_low]) if low == zone_low
            )
    })
}

/// Rewrites the labels before the zone's name, with the bits of the prefix.
fn truncated(zone: &Zone, labels: &str, prefix_length: u8) -> String {
    let mut shown = Vec::with_capacity(zone.labels);
    let mut bits_left = prefix_length;
    for label in labels_from_the_right(labels).take(zone.labels) {
        let bits = bits_left.min(zone.bits_per_label);
        bits_left -= bits;
        let number = number(zone, label).unwrap_or_else(|| {
            // Labels left of it belong to no prefix.
            bits_left = 0;
            0
        });
        let hidden = u8::MAX.checked_shr((8 - zone.bits_per_label + bits).into()).unwrap_or(0);
        shown.push(number & !hidden);
    }
    let mut text = String::with_capacity(labels.len());
    for number in shown.iter().rev() {
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(&match zone.bits_per_label {
            8 => number.to_string(),
            _ => format!("{number:x}"),
        });
    }
    text
}

/// Returns the address of a name, if it is a whole address.
fn whole_address(zone: &Zone, labels: &str) -> Option<IpAddr> {
    let mut bits = 0u128;
    let mut count = 0;
    for label in labels_from_the_right(labels) {
        if count == zone.labels {
            return None;
        }
        bits = bits << zone.bits_per_label | u128::from(number(zone, label)?);
        count += 1;
    }
    match (count == zone.labels).then_some(zone.bits_per_label)? {
        8 => u32::try_from(bits).ok().map(|bits| Ipv4Addr::from_bits(bits).into()),
        _ => Some(Ipv6Addr::from_bits(bits).into()),
    }
}

/// Parses an octet in decimal, or half an octet in hexadecimal, in the usual notation.
fn number(zone: &Zone, label: &str) -> Option<u8> {
    let digits = label.as_bytes();
    if zone.bits_per_label == 4 {
        let [digit] = digits else { return None };
        return char::from(*digit).to_digit(16).and_then(|number| number.try_into().ok());
    }
    let usual = digits == b"0" || !digits.starts_with(b"0");
    let decimal = digits.iter().all(u8::is_ascii_digit);
    (usual && decimal).then(|| label.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;
