//! Names, data and messages in wire format (RFC 1035 §3.1 and §4.1).

use std::net::IpAddr;

use super::{Answer, Lookup, rtype};
use crate::dns::{HEADER_SIZE, push_name};

/// Type and class of a question.
const QUESTION_FIXED: usize = 4;
/// A pointer as the owner, type, class, TTL and length.
const RECORD_FIXED: usize = 12;
/// A name in the question section, which all answers point to.
const POINTER_TO_QUESTION: u16 = 0xc00c;
const CLASS_IN: u16 = 1;
/// RD in a query, with QR and RA in a response.
const QUERY_FLAGS: u16 = 0x0100;
const RESPONSE_FLAGS: u16 = 0x8180;
const TTL_S: u32 = 60;

/// Returns a name in wire format.
#[must_use]
pub fn name_of(text: &str) -> Vec<u8> {
    let mut wire = Vec::with_capacity(text.len() + 2);
    push_name(&mut wire, text);
    wire
}

/// Iterates over the labels of a name in wire format.
pub fn labels(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = name;
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first()?;
        let (label, next) = after.split_at_checked(usize::from(*length))?;
        rest = next;
        (*length > 0).then_some(label)
    })
}

/// Returns labels in presentation format (RFC 1035 §5.1), without the last dot.
#[must_use]
pub fn text_of<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut text = String::new();
    for label in labels {
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label {
            match byte {
                b'.' | b'\\' => text.extend(['\\', char::from(*byte)]),
                0x21..=0x7e => text.push(char::from(*byte)),
                _ => text.push_str(&format!("\\{byte:03}")),
            }
        }
    }
    text
}

impl Answer {
    /// A record of an address: A or AAAA.
    pub(super) fn address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self { rtype: rtype::A, rdata: address.octets().to_vec() },
            IpAddr::V6(address) => Self { rtype: rtype::AAAA, rdata: address.octets().to_vec() },
        }
    }

    /// A record whose data is a name: CNAME, NS or PTR.
    pub(super) fn name(rtype: u16, name: &str) -> Self {
        Self { rtype, rdata: name_of(name) }
    }

    /// A TXT record, in strings of up to 255 bytes.
    pub(super) fn text(text: &str) -> Self {
        let mut rdata = Vec::new();
        for part in text.as_bytes().chunks(255) {
            rdata.push(u8::try_from(part.len()).expect("at most 255"));
            rdata.extend(part);
        }
        Self { rtype: rtype::TXT, rdata }
    }

    /// A record whose data begins with numbers, before a name: MX or SRV.
    pub(super) fn numbers_and_name(rtype: u16, numbers: &[u16], name: &str) -> Self {
        let mut rdata: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
        push_name(&mut rdata, name);
        Self { rtype, rdata }
    }
}

pub(super) fn query_size(lookup: &Lookup) -> usize {
    HEADER_SIZE + lookup.name.len() + QUESTION_FIXED
}

pub(super) fn response_size(lookup: &Lookup) -> usize {
    let records: usize = owners(lookup)
        .map(|(owner, answer)| {
            let owner_beyond_pointer = owner.map_or(0, |name| name.len() - 2);
            RECORD_FIXED + owner_beyond_pointer + answer.rdata.len()
        })
        .sum();
    query_size(lookup) + records
}

pub(super) fn query(lookup: &Lookup, id: u16) -> Vec<u8> {
    message(lookup, [id, QUERY_FLAGS, 1, 0, 0, 0])
}

pub(super) fn response(lookup: &Lookup, id: u16) -> Vec<u8> {
    let count = u16::try_from(lookup.answers.len()).expect("few answers");
    let flags = RESPONSE_FLAGS | u16::from(lookup.rcode);
    let mut message = message(lookup, [id, flags, 1, count, 0, 0]);
    for (owner, answer) in owners(lookup) {
        match owner {
            Some(name) => message.extend(name),
            None => message.extend(POINTER_TO_QUESTION.to_be_bytes()),
        }
        message.extend(answer.rtype.to_be_bytes());
        message.extend(CLASS_IN.to_be_bytes());
        message.extend(TTL_S.to_be_bytes());
        let length = u16::try_from(answer.rdata.len()).expect("data of a record");
        message.extend(length.to_be_bytes());
        message.extend(&answer.rdata);
    }
    message
}

/// Header and question.
fn message(lookup: &Lookup, header: [u16; 6]) -> Vec<u8> {
    let mut message: Vec<u8> = header.iter().flat_map(|word| word.to_be_bytes()).collect();
    message.extend(&lookup.name);
    message.extend(lookup.qtype.to_be_bytes());
    message.extend(CLASS_IN.to_be_bytes());
    message
}

/// Iterates over the answers, each with the name of its owner if that is not the name in the question.
fn owners(lookup: &Lookup) -> impl Iterator<Item = (Option<&[u8]>, &Answer)> {
    let mut owner: Option<&[u8]> = None;
    lookup.answers.iter().map(move |answer| {
        let own = owner;
        if answer.rtype == rtype::CNAME {
            owner = Some(&answer.rdata);
        }
        (own, answer)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        dns::Response,
        lookups::{Kind, NOERROR},
    };

    #[test]
    fn messages_have_the_stated_sizes_and_can_be_read() {
        let address: IpAddr = [192, 0, 2, 1].into();
        let lookup = Lookup {
            at: Duration::ZERO,
            client: address,
            name: name_of("www.domain.example"),
            qtype: rtype::A,
            rcode: NOERROR,
            answers: vec![Answer::name(rtype::CNAME, "edge.cdn.example"), Answer::address(address)],
            captured_sizes: None,
            kind: Kind::Web,
        };
        let (query, response) = lookup.messages(7);
        assert_eq!((query.len(), response.len()), (lookup.query_size(), lookup.response_size()));
        let read = format!("{:?}", Response::parse(&response).expect("a message"));
        assert!(read.contains("edge.cdn.example") && read.contains("192.0.2.1"), "{read}");
        assert_eq!(lookup.domain(), "domain.example");
    }

    #[test]
    fn bytes_that_are_no_text_are_escaped() {
        assert_eq!(text_of(labels(b"\x03a.\xc8\x04test\x00")), r"a\.\200.test");
    }
}
