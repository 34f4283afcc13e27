//! The parts of a message.

/// The flag bits of a DNS header (RFC 1035 §4.1.1, RFC 4035 §3.1.6), except QR and the codes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// AA: the answer is authoritative.
    pub authoritative: bool,
    /// TC: the message was truncated; the full response may follow over TCP (RFC 7766 §5).
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

impl Flags {
    /// Reads the flags from the second 16 bits of a header.
    pub(super) const fn from_bits(bits: u16) -> Self {
        Self {
            authoritative: bits & 0x0400 != 0,
            truncated: bits & 0x0200 != 0,
            recursion_desired: bits & 0x0100 != 0,
            recursion_available: bits & 0x0080 != 0,
            authentic_data: bits & 0x0020 != 0,
            checking_disabled: bits & 0x0010 != 0,
        }
    }
}

/// An entry of the question section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Question<'a> {
    /// Name in lower-case presentation format without the trailing dot.
    pub name: &'a str,
    /// QTYPE.
    pub qtype: u16,
    /// QCLASS; in Multicast DNS without the top bit, see [`note_multicast_dns`].
    ///
    /// [`note_multicast_dns`]: super::Message::note_multicast_dns
    pub qclass: u16,
}

impl Question<'_> {
    /// Returns true if the response may take several messages: IXFR (RFC 1995) and AXFR (RFC 5936).
    #[must_use]
    pub const fn is_transfer(&self) -> bool {
        matches!(self.qtype, 251 | 252)
    }
}

/// A resource record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Owner in lower-case presentation format without the trailing dot.
    pub name: &'a str,
    /// RR type.
    pub rtype: u16,
    /// Class; in Multicast DNS without the top bit, see [`note_multicast_dns`].
    ///
    /// [`note_multicast_dns`]: super::Message::note_multicast_dns
    pub class: u16,
    /// Time to live in seconds.
    pub ttl: u32,
    /// RDATA in presentation format, or in the generic format of RFC 3597 §5 if the type is unknown
    /// or the RDATA malformed. Empty in an update without RDATA (RFC 2136 §2.4, §2.5).
    pub rdata: &'a str,
}

/// The extent to which a message could be read; the first of several errors. The order is that of
/// the Avro enum's symbols.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ParseStatus {
    /// The whole message.
    #[default]
    Ok,
    /// The header, and the questions before the malformed one.
    MalformedQuestion,
    /// Header, questions and answers, at least one of which is malformed. If only its RDATA is, the
    /// record contains the RDATA's bytes, and later records are read too, since the length of the
    /// RDATA gives their position. Otherwise the answers end before it, and are fewer than the
    /// header announces.
    MalformedAnswer,
    /// Header, questions and answers. The authority or additional section is malformed, an EDNS
    /// option does not have the format of its code, or there is a second OPT record, which is a
    /// format error (RFC 6891 §6.1.1). Only extent and type are checked of records that are not
    /// kept.
    MalformedRest,
    /// The whole message, with more bytes after it: padding, or another message in a UDP GSO
    /// packet.
    TrailingBytes,
    /// The entries up to the one that reached [`Message::work_limit`], and the OPT record: the
    /// message was constructed to cost more than its size warrants. Takes precedence over other
    /// errors.
    ///
    /// [`Message::work_limit`]: super::Message::work_limit
    WorkLimit,
    /// The header is not one of a DNS message: this is another protocol at a DNS port. The fields
    /// contain what could be read, but have no meaning. Takes precedence over other errors.
    NotDns,
}

impl ParseStatus {
    /// All statuses, in the order of the Avro enum's symbols.
    pub const ALL: [Self; 7] = [
        Self::Ok,
        Self::MalformedQuestion,
        Self::MalformedAnswer,
        Self::MalformedRest,
        Self::TrailingBytes,
        Self::WorkLimit,
        Self::NotDns,
    ];

    /// Returns the symbol of the Avro enum.
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::MalformedQuestion => "MALFORMED_QUESTION",
            Self::MalformedAnswer => "MALFORMED_ANSWER",
            Self::MalformedRest => "MALFORMED_REST",
            Self::TrailingBytes => "TRAILING_BYTES",
            Self::WorkLimit => "WORK_LIMIT",
            Self::NotDns => "NOT_DNS",
        }
    }
}
