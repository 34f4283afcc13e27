//! Field values: what Avro takes as it is and JSON wants in text.

use std::net::IpAddr;

use serde::{Serialize, Serializer, ser::SerializeStruct};
use tap53_ebpf::settings::Direction;

use super::Attribution;
use crate::{
    decode::{Answer, Message, ParseStatus, Transport, class_name, type_name},
    pair::Outcome,
};

/// A symbol of an Avro enum: its position in the schema, and its text.
pub(super) struct Symbol {
    enumeration: &'static str,
    position: u32,
    text: &'static str,
}

impl Symbol {
    pub(super) const fn of_direction(direction: Direction) -> Self {
        let text = match direction {
            Direction::Ingress => "INGRESS",
            Direction::Egress => "EGRESS",
        };
        Self { enumeration: "Direction", position: direction as u32, text }
    }

    pub(super) const fn of_outcome(outcome: Outcome) -> Self {
        Self { enumeration: "Outcome", position: outcome as u32, text: outcome.symbol() }
    }

    pub(super) const fn of_transport(transport: Transport) -> Self {
        let text = match transport {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
        };
        Self { enumeration: "Transport", position: transport as u32, text }
    }

    pub(super) const fn of_parse_status(status: ParseStatus) -> Self {
        Self { enumeration: "ParseStatus", position: status as u32, text: status.symbol() }
    }

    pub(super) const fn of_attribution(attribution: Attribution) -> Self {
        let position = attribution as u32;
        Self { enumeration: "Attribution", position, text: attribution.symbol() }
    }
}

impl Serialize for Symbol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit_variant(self.enumeration, self.position, self.text)
    }
}

/// Microseconds since 1970 UTC: a number in Avro, RFC 3339 in JSON.
pub(super) struct Time(pub(super) i64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return serializer.serialize_i64(self.0);
        }
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(timestamp) => serializer.collect_str(&format_args!("{timestamp:.6}")),
            Err(error) => Err(serde::ser::Error::custom(error)),
        }
    }
}

/// Bytes: as they are in Avro, hexadecimal in JSON.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return serializer.serialize_bytes(self.0);
        }
        let mut text = String::with_capacity(self.0.len() * 2);
        for octet in self.0 {
            for digit in [octet >> 4, octet & 15] {
                text.extend(char::from_digit(u32::from(digit), 16));
            }
        }
        serializer.serialize_str(&text)
    }
}

/// An address as text, written without a heap allocation.
pub(super) struct Display(pub(super) IpAddr);

impl Serialize for Display {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // std writes IpAddr in at most 45 bytes; through collect_str apache-avro would allocate.
        let mut text = [0; 45];
        let mut rest = &mut text[..];
        std::io::Write::write_fmt(&mut rest, format_args!("{}", self.0))
            .map_err(serde::ser::Error::custom)?;
        let length = 45 - rest.len();
        let text = str::from_utf8(&text[..length]).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(text)
    }
}

/// The answer section of a message; empty without one.
pub(super) struct Answers<'a>(pub(super) Option<&'a Message>);

impl Serialize for Answers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(message) => serializer.collect_seq(message.answers().map(AnswerFields)),
            None => serializer.collect_seq::<[u8; 0]>([]),
        }
    }
}

struct AnswerFields<'a>(Answer<'a>);

impl Serialize for AnswerFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut s = serializer.serialize_struct("Answer", 5)?;
        s.serialize_field("name", self.0.name)?;
        s.serialize_field("type", &*type_name(self.0.rtype))?;
        s.serialize_field("class", &*class_name(self.0.class))?;
        s.serialize_field("ttl", &self.0.ttl)?;
        s.serialize_field("rdata", self.0.rdata)?;
        s.end()
    }
}
