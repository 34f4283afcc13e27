//! Judges whether bytes look like the start of a DNS message in a stream.
//!
//! It is needed if no message boundary is known: in a connection that existed before the capture,
//! and after a gap that contained a length prefix. Most senders start a segment with a message, so
//! the start of each segment is tried; its inside is not searched.
//!
//! All of these conditions must hold for the available bytes:
//! - the length prefix is at least 12, and the sections named by the header fit it at 5 bytes a
//!   question and 11 a record;
//! - the opcode is QUERY, NOTIFY or UPDATE; the Z bit is 0 (RFC 1035 §4.1.1); a request has no TC
//!   and no RCODE, and, being a QUERY, no answers; a response has an assigned RCODE (at most 11);
//! - there is one question, in a class that exists (IN, CH, HS, NONE, ANY), its name without
//!   compression; or none and a record in such a class that fits the length, which is how the later
//!   messages of a zone transfer begin (RFC 5936 §2.2.1); or a response that is only a header and
//!   an error;
//! - a message that follows in the same segment passes too.
//!
//! Odds: uniformly random bytes pass opcode, Z, TC and RCODE in 4 %, counts of questions in 2⁻¹⁵,
//! counts of records in about 2⁻¹⁵, class in 2⁻¹⁴ and name in a quarter of the cases: together
//! below 2⁻⁴⁸ per segment. Text (HTTP) never passes, because two printable characters as a count of
//! questions are at least 8,224; a TLS record does not, because its bytes 6 and 7 contain a
//! handshake's length as the count of records, or random bytes. A message that contains a whole
//! framed message in its RDATA, and is split into segments there, does pass: a sender can do that
//! on purpose, in its own stream.

use super::super::Message;

/// Number of bytes that always suffice for a verdict: prefix, header, the longest name (RFC 1035
/// §2.3.4) with a pointer at its end, and the fixed part of a record.
pub(super) const MAX_JUDGED: usize = 2 + Message::HEADER_SIZE + 256 + 10;

/// The verdict on the available bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A message begins with the first byte.
    Begins,
    /// The bytes fit so far; more are needed.
    Undecided,
    /// No message begins with the first byte.
    Refused,
}

/// Judges the start of a segment; adds the visited labels and messages to `steps`.
pub(super) fn judge(segment: &[u8], steps: &mut u64) -> Verdict {
    let first = judge_message(segment, steps);
    if first != Verdict::Begins {
        return first;
    }
    // The last message in the segment may be truncated anywhere, so it proves nothing.
    let mut rest = after_message(segment);
    while !rest.is_empty() {
        if judge_message(rest, steps) == Verdict::Refused {
            return Verdict::Refused;
        }
        rest = after_message(rest);
    }
    Verdict::Begins
}

/// Returns the bytes after the first message.
fn after_message(stream: &[u8]) -> &[u8] {
    let Some((prefix, rest)) = stream.split_first_chunk() else {
        return &[];
    };
    rest.get(usize::from(u16::from_be_bytes(*prefix))..).unwrap_or_default()
}

fn judge_message(stream: &[u8], steps: &mut u64) -> Verdict {
    *steps += 1;
    let Some((prefix, rest)) = stream.split_first_chunk::<2>() else {
        return Verdict::Undecided;
    };
    let length = usize::from(u16::from_be_bytes(*prefix));
    if length < Message::HEADER_SIZE {
        return Verdict::Refused;
    }
    let message = &rest[..rest.len().min(length)];
    let Some((header, sections)) = message.split_first_chunk::<{ Message::HEADER_SIZE }>() else {
        return Verdict::Undecided;
    };
    let Some(questions) = questions(header, length) else {
        return Verdict::Refused;
    };
    let room = length - Message::HEADER_SIZE;
    match questions {
        Questions::One => judge_entry(sections, room, Entry::Question, steps),
        Questions::NoneButRecords => judge_entry(sections, room, Entry::Record, steps),
        Questions::OnlyHeader => Verdict::Begins,
    }
}

enum Questions {
    One,
    NoneButRecords,
    OnlyHeader,
}

/// Returns the entries that must follow a header; `None` if it is not one.
fn questions(header: &[u8; Message::HEADER_SIZE], length: usize) -> Option<Questions> {
    let [_, _, high, low, ..] = *header;
    let count =
        |section: usize| u16::from_be_bytes([header[4 + 2 * section], header[5 + 2 * section]]);
    let (opcode, rcode) = (high >> 3 & 0x0f, low & 0x0f);
    let (response, truncated, z) = (high & 0x80 != 0, high & 0x02 != 0, low & 0x40 != 0);
    let records = (1..4).map(|section| usize::from(count(section))).sum::<usize>();
    let least = Message::HEADER_SIZE + 5 * usize::from(count(0)) + 11 * records;
    if !matches!(opcode, 0 | 4 | 5) || z || least > length {
        return None;
    }
    let plausible = if response {
        rcode <= 11
    } else {
        rcode == 0 && !truncated && (opcode != 0 || count(1) == 0)
    };
    match (count(0), records) {
        (1, _) if plausible => Some(Questions::One),
        (0, 1..) if plausible && response => Some(Questions::NoneButRecords),
        (0, 0) if plausible && response && rcode != 0 && length == Message::HEADER_SIZE => {
            Some(Questions::OnlyHeader)
        }
        _ => None,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    /// Name, type, class.
    Question,
    /// Name, type, class, TTL, length of the RDATA.
    Record,
}

/// Judges the first entry of a message that has `room` bytes for its sections.
fn judge_entry(sections: &[u8], room: usize, entry: Entry, steps: &mut u64) -> Verdict {
    let mut at = 0;
    while let Some(&octet) = sections.get(at) {
        *steps += 1;
        match octet {
            0 => return judge_fields(sections, at + 1, room, entry),
            1..=63 => at += 1 + usize::from(octet),
            // A record's name may end in a pointer (RFC 1035 §4.1.4).
            0xc0.. if entry == Entry::Record => {
                return judge_fields(sections, at + 2, room, entry);
            }
            _ => return Verdict::Refused,
        }
        if at >= 255 {
            return Verdict::Refused;
        }
    }
    if at >= room { Verdict::Refused } else { Verdict::Undecided }
}

/// Judges the fields after the name, from `at` on.
fn judge_fields(sections: &[u8], at: usize, room: usize, entry: Entry) -> Verdict {
    let end = at + if entry == Entry::Record { 10 } else { 4 };
    if end > room {
        return Verdict::Refused;
    }
    let Some(fields) = sections.get(at..end) else {
        return Verdict::Undecided;
    };
    let word = |at: usize| u16::from_be_bytes([fields[at], fields[at + 1]]);
    // IN, CH, HS; NONE (RFC 2136 §1.3), ANY. An OPT record has a size there (RFC 6891 §6.1.2).
    let class_exists = matches!(word(2), 1 | 3 | 4 | 254 | 255)
        || (entry == Entry::Record && word(0) == 41 && at == 1);
    let rdata_fits = entry == Entry::Question || end + usize::from(word(8)) <= room;
    if word(0) != 0 && class_exists && rdata_fits { Verdict::Begins } else { Verdict::Refused }
}

#[cfg(test)]
mod tests;
