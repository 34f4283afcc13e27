//! A DNS message, as far as it could be read.

use std::{net::IpAddr, str};

use hickory_proto::{
    op::Query,
    rr::{
        Name, RData, Record, RecordType,
        rdata::opt::{EdnsCode, EdnsOption, OPT},
    },
    serialize::binary::{BinDecodable, BinDecoder},
};

use super::{name::push_presentation, rdata};

/// The flag bits of a DNS header (RFC 1035 §4.1.1, RFC 4035 §3.1.6), QR and the codes aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// AA: the answer is authoritative.
    pub authoritative: bool,
    /// TC: the message was truncated; the full answer may follow over TCP (RFC 7766 §5).
    pub truncated: bool,
    /// RD: recursion desired.
    pub recursion_desired: bool,
    /// RA: recursion available.
    pub recursion_available: bool,
    /// AD: authentic data.
    pub authentic_data: bool,
    /// CD: checking disabled.
    pub checking_disabled: bool,
}

/// The first entry of the question section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Question {
    /// Lower-case presentation format without the trailing dot.
    pub name: String,
    /// QTYPE.
    pub qtype: u16,
    /// QCLASS.
    pub qclass: u16,
}

/// A record of the answer section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Owner, in lower-case presentation format without the trailing dot.
    pub name: String,
    /// RR type.
    pub rtype: u16,
    /// Class.
    pub class: u16,
    /// Time to live, seconds.
    pub ttl: u32,
    /// RDATA in presentation format; RFC 3597 §5 where the type is unknown.
    pub rdata: String,
}

/// Extended DNS Error (RFC 8914 §2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtendedError {
    /// INFO-CODE.
    pub code: u16,
    /// EXTRA-TEXT, control characters and non-UTF-8 replaced.
    pub text: String,
}

/// The OPT pseudo record (RFC 6891 §6.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edns {
    /// EDNS version.
    pub version: u8,
    /// Requestor's UDP payload size, bytes.
    pub udp_payload_size: u16,
    /// DO: DNSSEC records are welcome.
    pub dnssec_ok: bool,
    /// EDNS Client Subnet as `address/source prefix` (RFC 7871 §6).
    pub client_subnet: Option<(IpAddr, u8)>,
    /// Name server identifier (RFC 5001 §2.3).
    pub nsid: Option<Vec<u8>>,
    /// Client cookie, and the server's where it is known (RFC 7873 §4).
    pub cookie: Option<Vec<u8>>,
    /// Extended DNS Error (RFC 8914).
    pub extended_error: Option<ExtendedError>,
}

/// How much of a message could be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ParseStatus {
    /// All of it.
    #[default]
    Ok,
    /// The header only.
    MalformedQuestion,
    /// Header and question, and the answers up to the one that is broken.
    MalformedAnswer,
    /// Header, question and answers; authority or additional section is broken.
    MalformedRest,
    /// All of it, and bytes behind it: padding, or another message that a UDP GSO packet carries.
    TrailingBytes,
}

impl ParseStatus {
    /// Symbol of the Avro enum.
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::MalformedQuestion => "MALFORMED_QUESTION",
            Self::MalformedAnswer => "MALFORMED_ANSWER",
            Self::MalformedRest => "MALFORMED_REST",
            Self::TrailingBytes => "TRAILING_BYTES",
        }
    }
}

/// A DNS message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Transaction identifier.
    pub id: u16,
    /// QR: a response.
    pub response: bool,
    /// Opcode, 4 bits.
    pub opcode: u8,
    /// Flag bits.
    pub flags: Flags,
    /// Response code, with the 8 extended bits of EDNS where there is one (RFC 6891 §6.1.3).
    pub rcode: u16,
    /// Entries that the header announces: question, answer, authority, additional.
    pub counts: [u16; 4],
    /// First question.
    pub question: Option<Question>,
    /// Answer section.
    pub answers: Vec<Answer>,
    /// EDNS.
    pub edns: Option<Edns>,
    /// Length of the message, bytes on the wire, without TCP's length prefix.
    pub size: u32,
    /// How much of it could be read.
    pub parse_status: ParseStatus,
}

impl Message {
    /// Bytes of a DNS header (RFC 1035 §4.1.1).
    pub const HEADER_SIZE: usize = 12;

    /// Reads a message; `None` when it is shorter than its header.
    #[must_use]
    pub fn parse(wire: &[u8]) -> Option<Self> {
        let header = wire.first_chunk::<{ Self::HEADER_SIZE }>()?;
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let bits = word(2);
        let bit = |mask: u16| bits & mask != 0;
        let mut message = Self {
            id: word(0),
            response: bit(0x8000),
            opcode: (header[2] >> 3) & 0x0f,
            flags: Flags {
                authoritative: bit(0x0400),
                truncated: bit(0x0200),
                recursion_desired: bit(0x0100),
                recursion_available: bit(0x0080),
                authentic_data: bit(0x0020),
                checking_disabled: bit(0x0010),
            },
            rcode: bits & 0x000f,
            counts: [word(4), word(6), word(8), word(10)],
            question: None,
            answers: Vec::new(),
            edns: None,
            // A message over UDP or TCP is at most 65,535 bytes long.
            size: u32::try_from(wire.len()).unwrap_or(u32::MAX),
            parse_status: ParseStatus::Ok,
        };
        if let Err(status) = message.read_sections(wire) {
            message.parse_status = status;
        }
        Some(message)
    }

    /// Reads the sections one entry at a time, so that what precedes a broken entry is kept.
    fn read_sections(&mut self, wire: &[u8]) -> Result<(), ParseStatus> {
        let mut decoder = BinDecoder::new(wire);
        // The offset is within the message: parse() saw a whole header.
        decoder.read_slice(Self::HEADER_SIZE).map_err(|_| ParseStatus::MalformedQuestion)?;
        for _ in 0..self.counts[0] {
            let query = Query::read(&mut decoder).map_err(|_| ParseStatus::MalformedQuestion)?;
            self.question.get_or_insert_with(|| question(&query));
        }
        for _ in 0..self.counts[1] {
            let record = Record::read(&mut decoder).map_err(|_| ParseStatus::MalformedAnswer)?;
            self.answers.push(answer(&record));
        }
        for _ in 0..self.counts[2] {
            Record::<RData>::read(&mut decoder).map_err(|_| ParseStatus::MalformedRest)?;
        }
        for _ in 0..self.counts[3] {
            let record = Record::read(&mut decoder).map_err(|_| ParseStatus::MalformedRest)?;
            if record.record_type() == RecordType::OPT {
                let opt = match &record.data {
                    RData::OPT(opt) => Some(opt),
                    _ => None, // an OPT without options
                };
                // The upper 8 bits of the response code (RFC 6891 §6.1.3).
                self.rcode |= u16::try_from(record.ttl >> 24).unwrap_or_default() << 4;
                self.edns.get_or_insert_with(|| edns(&record, opt));
            }
        }
        if decoder.is_empty() { Ok(()) } else { Err(ParseStatus::TrailingBytes) }
    }
}

fn question(query: &Query) -> Question {
    // hickory takes the top bit of the class for mDNS' unicast-response bit only with its `mdns`
    // feature, which is off: the class comes as it was sent.
    Question {
        name: lowered(query.name()),
        qtype: query.query_type().into(),
        qclass: query.query_class().into(),
    }
}

fn answer(record: &Record) -> Answer {
    Answer {
        name: lowered(&record.name),
        rtype: record.record_type().into(),
        class: record.dns_class.into(),
        ttl: record.ttl,
        rdata: rdata::presentation(&record.data),
    }
}

fn lowered(name: &Name) -> String {
    let mut text = String::with_capacity(name.len());
    push_presentation(&mut text, name.iter(), true);
    text
}

fn edns(record: &Record, options: Option<&OPT>) -> Edns {
    let [_, version, flags_high, _] = record.ttl.to_be_bytes();
    let option = |code: u16| options.and_then(|opt| opt.get(EdnsCode::from(code)));
    let unknown = |code: u16| match option(code) {
        Some(EdnsOption::Unknown(_, bytes)) => Some(bytes.clone()),
        _ => None,
    };
    Edns {
        version,
        udp_payload_size: record.dns_class.into(),
        dnssec_ok: flags_high & 0x80 != 0,
        client_subnet: match option(8) {
            Some(EdnsOption::Subnet(subnet)) => Some((subnet.addr(), subnet.source_prefix())),
            _ => None,
        },
        nsid: match option(3) {
            Some(EdnsOption::NSID(nsid)) => Some(nsid.as_ref().to_vec()),
            _ => None,
        },
        cookie: unknown(10),
        extended_error: unknown(15).and_then(|bytes| extended_error(&bytes)),
    }
}

fn extended_error(option: &[u8]) -> Option<ExtendedError> {
    let (code, text) = option.split_first_chunk::<2>()?;
    let text = String::from_utf8_lossy(text)
        .chars()
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect();
    Some(ExtendedError { code: u16::from_be_bytes(*code), text })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Header with `counts`, response bit set, identifier 0x1234.
    fn header(counts: [u16; 4]) -> Vec<u8> {
        let mut wire = vec![0x12, 0x34, 0x81, 0x83];
        wire.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
        wire
    }

    const QUESTION: &[u8] = b"\x03WWW\x04test\x00\x00\x01\x00\x01";

    #[test]
    fn a_whole_message_is_read() {
        let mut wire = header([1, 1, 0, 1]);
        wire.extend(QUESTION);
        wire.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01");
        // OPT: 1232 bytes, extended rcode 1, version 0, DO, an extended error 18 "blocked".
        wire.extend(b"\x00\x00\x29\x04\xd0\x01\x00\x80\x00\x00\x0d\x00\x0f\x00\x09\x00\x12blocked");
        let message = Message::parse(&wire).unwrap();
        assert_eq!(message.parse_status, ParseStatus::Ok);
        assert_eq!((message.id, message.response, message.rcode), (0x1234, true, 0x13));
        assert_eq!(message.question.unwrap().name, "www.test");
        assert_eq!(message.answers[0].rdata, "192.0.2.1");
        assert_eq!(message.answers[0].name, "www.test");
        assert_eq!(message.answers[0].ttl, 60);
        let edns = message.edns.unwrap();
        assert_eq!((edns.version, edns.udp_payload_size, edns.dnssec_ok), (0, 1232, true));
        assert_eq!(
            edns.extended_error.unwrap(),
            ExtendedError { code: 18, text: "blocked".into() }
        );
    }

    #[test]
    fn what_precedes_the_broken_part_is_kept() {
        let status = |wire: &[u8]| Message::parse(wire).map(|message| message.parse_status);
        assert_eq!(status(&header([0; 4])[..11]), None);
        assert_eq!(status(&header([1, 0, 0, 0])), Some(ParseStatus::MalformedQuestion));
        let mut wire = header([1, 1, 0, 0]);
        wire.extend(QUESTION);
        let message = Message::parse(&wire).unwrap();
        assert_eq!(message.parse_status, ParseStatus::MalformedAnswer);
        assert_eq!(message.question.unwrap().name, "www.test");
        let mut wire = header([1, 0, 0, 9]);
        wire.extend(QUESTION);
        assert_eq!(status(&wire), Some(ParseStatus::MalformedRest));
    }

    #[test]
    fn bytes_behind_the_message_are_noticed() {
        let mut wire = header([1, 0, 0, 0]);
        wire.extend(QUESTION);
        assert_eq!(Message::parse(&wire).unwrap().parse_status, ParseStatus::Ok);
        wire.push(0);
        assert_eq!(Message::parse(&wire).unwrap().parse_status, ParseStatus::TrailingBytes);
    }

    #[test]
    fn a_pointer_loop_ends() {
        let mut wire = header([1, 0, 0, 0]);
        wire.extend(b"\xc0\x0c\x00\x01\x00\x01");
        assert_eq!(Message::parse(&wire).unwrap().parse_status, ParseStatus::MalformedQuestion);
    }

    #[test]
    fn announced_counts_cost_no_memory() {
        let message = Message::parse(&header([u16::MAX; 4])).unwrap();
        assert_eq!(message.answers.capacity(), 0);
        assert_eq!(message.counts, [u16::MAX; 4]);
    }
}
