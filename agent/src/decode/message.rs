//! A DNS message, as far as it could be read.

use std::net::IpAddr;

use hickory_proto::{
    op::Query,
    rr::{
        Name, RData, Record, RecordType,
        rdata::opt::{EdnsCode, EdnsOption},
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

/// An entry of the question section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Question<'a> {
    /// Lower-case presentation format without the trailing dot.
    pub name: &'a str,
    /// QTYPE.
    pub qtype: u16,
    /// QCLASS.
    pub qclass: u16,
}

/// A resource record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Owner, in lower-case presentation format without the trailing dot.
    pub name: &'a str,
    /// RR type.
    pub rtype: u16,
    /// Class.
    pub class: u16,
    /// Time to live, seconds.
    pub ttl: u32,
    /// RDATA in presentation format; RFC 3597 §5 where the type is unknown.
    pub rdata: &'a str,
}

/// EDNS Client Subnet (RFC 7871 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientSubnet {
    /// The address, zero behind the source prefix.
    pub address: IpAddr,
    /// SOURCE PREFIX-LENGTH, bits.
    pub source_prefix: u8,
    /// SCOPE PREFIX-LENGTH, bits; zero in queries.
    pub scope_prefix: u8,
}

/// Extended DNS Error (RFC 8914 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedError<'a> {
    /// INFO-CODE.
    pub code: u16,
    /// EXTRA-TEXT, control characters and non-UTF-8 replaced.
    pub text: &'a str,
}

/// The OPT pseudo record (RFC 6891 §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns<'a> {
    /// EDNS version.
    pub version: u8,
    /// Requestor's UDP payload size, bytes.
    pub udp_payload_size: u16,
    /// DO: DNSSEC records are welcome.
    pub dnssec_ok: bool,
    /// EDNS Client Subnet.
    pub client_subnet: Option<ClientSubnet>,
    /// Name server identifier (RFC 5001 §2.3).
    pub nsid: Option<&'a [u8]>,
    /// Client cookie, and the server's where it is known (RFC 7873 §4).
    pub cookie: Option<&'a [u8]>,
    /// The first Extended DNS Error (RFC 8914).
    pub extended_error: Option<ExtendedError<'a>>,
    /// Bytes of padding (RFC 7830).
    pub padding: Option<u16>,
    message: &'a Message,
}

impl<'a> Edns<'a> {
    /// Code and data of the options that have no field here, and of those that are malformed or
    /// come again, in the order of the message.
    pub fn options(&self) -> impl ExactSizeIterator<Item = (u16, &'a [u8])> + use<'a> {
        let message = self.message;
        message.options.iter().map(|(code, data)| (*code, message.octets(*data)))
    }
}

/// A part of a message's text or bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    start: u32,
    end: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct QuestionSpans {
    name: Span,
    qtype: u16,
    qclass: u16,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct RecordSpans {
    name: Span,
    rdata: Span,
    rtype: u16,
    class: u16,
    ttl: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct EdnsSpans {
    version: u8,
    udp_payload_size: u16,
    dnssec_ok: bool,
    client_subnet: Option<ClientSubnet>,
    nsid: Option<Span>,
    cookie: Option<Span>,
    extended_error: Option<(u16, Span)>,
    padding: Option<u16>,
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

/// A DNS message, read into buffers that are used again for the next one.
///
/// ```text
///  text    www.example.test192.0.2.1…     names and RDATA, back to back
///  octets  NSID, cookie, other options
///  entries hold spans of these, and read as views: [`Question`], [`Answer`], [`Edns`]
/// ```
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
    /// Length of the message, bytes on the wire, without TCP's length prefix.
    pub size: u32,
    /// How much of it could be read.
    pub parse_status: ParseStatus,
    /// Answers that were read and are not kept, because the text of a message is limited.
    pub answers_omitted: u32,
    text: String,
    octets: Vec<u8>,
    questions: Vec<QuestionSpans>,
    answers: Vec<RecordSpans>,
    updates: Vec<RecordSpans>,
    edns: Option<EdnsSpans>,
    options: Vec<(u16, Span)>,
}

impl Message {
    /// Bytes of a DNS header (RFC 1035 §4.1.1).
    pub const HEADER_SIZE: usize = 12;

    /// Reads a message into new buffers; `None` when it is shorter than its header.
    #[must_use]
    pub fn parse(wire: &[u8]) -> Option<Self> {
        let mut message = Self::default();
        message.read(wire).then_some(message)
    }

    /// Replaces the content by the message in `wire`, keeping the buffers; false, and nothing of
    /// use in here, when it is shorter than its header.
    pub fn read(&mut self, wire: &[u8]) -> bool {
        let Some(header) = wire.first_chunk::<{ Self::HEADER_SIZE }>() else { return false };
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let bits = word(2);
        let bit = |mask: u16| bits & mask != 0;
        self.clear();
        self.id = word(0);
        self.response = bit(0x8000);
        self.opcode = (header[2] >> 3) & 0x0f;
        self.flags = Flags {
            authoritative: bit(0x0400),
            truncated: bit(0x0200),
            recursion_desired: bit(0x0100),
            recursion_available: bit(0x0080),
            authentic_data: bit(0x0020),
            checking_disabled: bit(0x0010),
        };
        self.rcode = bits & 0x000f;
        self.counts = [word(4), word(6), word(8), word(10)];
        // A message over UDP or TCP is at most 65,535 bytes long.
        self.size = u32::try_from(wire.len()).unwrap_or(u32::MAX);
        self.parse_status = self.read_sections(wire).err().unwrap_or_default();
        true
    }

    /// The first entry of the question section.
    #[must_use]
    pub fn question(&self) -> Option<Question<'_>> {
        self.questions.first().map(|spans| self.view_question(spans))
    }

    /// The entries of the question section behind the first.
    pub fn more_questions(&self) -> impl ExactSizeIterator<Item = Question<'_>> {
        self.questions.iter().skip(1).map(|spans| self.view_question(spans))
    }

    /// The answer section.
    pub fn answers(&self) -> impl ExactSizeIterator<Item = Answer<'_>> {
        self.answers.iter().map(|spans| self.view_record(spans))
    }

    /// The update section of an UPDATE request (RFC 2136 §2.5); empty in other messages.
    pub fn updates(&self) -> impl ExactSizeIterator<Item = Answer<'_>> {
        self.updates.iter().map(|spans| self.view_record(spans))
    }

    /// The first OPT record.
    #[must_use]
    pub fn edns(&self) -> Option<Edns<'_>> {
        let edns = self.edns.as_ref()?;
        Some(Edns {
            version: edns.version,
            udp_payload_size: edns.udp_payload_size,
            dnssec_ok: edns.dnssec_ok,
            client_subnet: edns.client_subnet,
            nsid: edns.nsid.map(|span| self.octets(span)),
            cookie: edns.cookie.map(|span| self.octets(span)),
            extended_error: edns
                .extended_error
                .map(|(code, text)| ExtendedError { code, text: self.text(text) }),
            padding: edns.padding,
            message: self,
        })
    }

    /// Bytes of memory that the buffers take.
    #[must_use]
    pub fn buffer_bytes(&self) -> usize {
        self.text.capacity()
            + self.octets.capacity()
            + self.questions.capacity() * size_of::<QuestionSpans>()
            + (self.answers.capacity() + self.updates.capacity()) * size_of::<RecordSpans>()
            + self.options.capacity() * size_of::<(u16, Span)>()
    }

    fn clear(&mut self) {
        self.answers_omitted = 0;
        self.text.clear();
        self.octets.clear();
        self.questions.clear();
        self.answers.clear();
        self.updates.clear();
        self.edns = None;
        self.options.clear();
    }

    fn text(&self, span: Span) -> &str {
        self.text.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    fn octets(&self, span: Span) -> &[u8] {
        self.octets.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    fn view_question(&self, spans: &QuestionSpans) -> Question<'_> {
        Question { name: self.text(spans.name), qtype: spans.qtype, qclass: spans.qclass }
    }

    fn view_record(&self, spans: &RecordSpans) -> Answer<'_> {
        Answer {
            name: self.text(spans.name),
            rtype: spans.rtype,
            class: spans.class,
            ttl: spans.ttl,
            rdata: self.text(spans.rdata),
        }
    }

    /// Reads the sections one entry at a time, so that what precedes a broken entry is kept.
    fn read_sections(&mut self, wire: &[u8]) -> Result<(), ParseStatus> {
        let mut decoder = BinDecoder::new(wire);
        // The offset is within the message: read() saw a whole header.
        decoder.read_slice(Self::HEADER_SIZE).map_err(|_| ParseStatus::MalformedQuestion)?;
        for _ in 0..self.counts[0] {
            let query = Query::read(&mut decoder).map_err(|_| ParseStatus::MalformedQuestion)?;
            let name = self.push_name(query.name());
            self.questions.push(QuestionSpans {
                name,
                qtype: query.query_type().into(),
                qclass: query.query_class().into(),
            });
        }
        for _ in 0..self.counts[1] {
            let record = Record::read(&mut decoder).map_err(|_| ParseStatus::MalformedAnswer)?;
            let spans = self.push_record(&record);
            self.answers.push(spans);
        }
        for _ in 0..self.counts[2] {
            let record = Record::read(&mut decoder).map_err(|_| ParseStatus::MalformedRest)?;
            if self.opcode == UPDATE && !self.response {
                let spans = self.push_record(&record);
                self.updates.push(spans);
            }
        }
        for _ in 0..self.counts[3] {
            let record = Record::read(&mut decoder).map_err(|_| ParseStatus::MalformedRest)?;
            if record.record_type() == RecordType::OPT {
                // The upper 8 bits of the response code (RFC 6891 §6.1.3).
                self.rcode |= u16::try_from(record.ttl >> 24).unwrap_or_default() << 4;
                if self.edns.is_none() {
                    self.push_edns(&record);
                }
            }
        }
        if decoder.is_empty() { Ok(()) } else { Err(ParseStatus::TrailingBytes) }
    }

    fn push_text(&mut self, write: impl FnOnce(&mut String)) -> Span {
        let start = position(self.text.len());
        write(&mut self.text);
        Span { start, end: position(self.text.len()) }
    }

    fn push_octets(&mut self, octets: &[u8]) -> Span {
        let start = position(self.octets.len());
        self.octets.extend_from_slice(octets);
        Span { start, end: position(self.octets.len()) }
    }

    fn push_name(&mut self, name: &Name) -> Span {
        self.push_text(|text| push_presentation(text, name.iter(), true))
    }

    fn push_record(&mut self, record: &Record) -> RecordSpans {
        RecordSpans {
            name: self.push_name(&record.name),
            rdata: self.push_text(|text| text.push_str(&rdata::presentation(&record.data))),
            rtype: record.record_type().into(),
            class: record.dns_class.into(),
            ttl: record.ttl,
        }
    }

    fn push_edns(&mut self, record: &Record) {
        let [_, version, flags_high, _] = record.ttl.to_be_bytes();
        let options = match &record.data {
            RData::OPT(opt) => Some(opt),
            _ => None, // an OPT without options
        };
        let option = |code: u16| options.and_then(|opt| opt.get(EdnsCode::from(code)));
        let unknown = |code: u16| match option(code) {
            Some(EdnsOption::Unknown(_, bytes)) => Some(bytes.as_slice()),
            _ => None,
        };
        let nsid = match option(3) {
            Some(EdnsOption::NSID(nsid)) => Some(self.push_octets(nsid.as_ref())),
            _ => None,
        };
        let cookie = unknown(10).map(|cookie| self.push_octets(cookie));
        let extended_error = unknown(15).and_then(|data| data.split_first_chunk::<2>());
        let extended_error = extended_error.map(|(code, extra)| {
            let extra = String::from_utf8_lossy(extra);
            let visible = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
            let span = self.push_text(|text| text.extend(extra.chars().map(visible)));
            (u16::from_be_bytes(*code), span)
        });
        self.edns = Some(EdnsSpans {
            version,
            udp_payload_size: record.dns_class.into(),
            dnssec_ok: flags_high & 0x80 != 0,
            client_subnet: match option(8) {
                Some(EdnsOption::Subnet(subnet)) => Some(ClientSubnet {
                    address: subnet.addr(),
                    source_prefix: subnet.source_prefix(),
                    scope_prefix: subnet.scope_prefix(),
                }),
                _ => None,
            },
            nsid,
            cookie,
            extended_error,
            padding: None,
        });
    }
}

/// Opcode of dynamic updates (RFC 2136).
const UPDATE: u8 = 5;

/// A position in a buffer; what a message of 64 KiB can hold as text stays far below the limit.
fn position(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
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
        assert_eq!(message.question().unwrap().name, "www.test");
        assert_eq!(message.answers().next().unwrap().rdata, "192.0.2.1");
        assert_eq!(message.answers().next().unwrap().name, "www.test");
        assert_eq!(message.answers().next().unwrap().ttl, 60);
        let edns = message.edns().unwrap();
        assert_eq!((edns.version, edns.udp_payload_size, edns.dnssec_ok), (0, 1232, true));
        assert_eq!(edns.extended_error.unwrap(), ExtendedError { code: 18, text: "blocked" });
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
        assert_eq!(message.question().unwrap().name, "www.test");
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
