//! The parts of a message.

use tap53_reasons::labels;

/// The flag bits of a DNS header (RFC 1035 §4.1.1, RFC 4035 §3.1.6), QR and the codes aside.
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
    /// Z: reserved, to be zero in all messages (RFC 1035 §4.1.1).
    pub reserved: bool,
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
            reserved: bits & 0x0040 != 0,
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

labels! {
    /// The part of a message that could be read, by the first of its flaws. The order and the names are those
    /// of the Avro enum's symbols.
    #[derive(Default)]
    pub enum ParseStatus {
        /// All of it was read.
        #[default]
        Ok = "OK";
        /// The header was read, and the questions up to the one that is broken.
        MalformedQuestion = "MALFORMED_QUESTION";
        /// Header, questions and answers were read, at least one of which is broken. Where its RDATA alone
        /// is, the record is there with the RDATA's bytes, and so are the records after it, since the
        /// length of the RDATA says where they begin. Otherwise the answers end before it, and there
        /// are fewer of them than the header announces.
        MalformedAnswer = "MALFORMED_ANSWER";
        /// Header, questions and answers were read; authority or additional section is broken, an EDNS
        /// option has not the form of its code, or there is a second OPT record, which makes a format
        /// error of the message (RFC 6891 §6.1.1). Of records that are not kept, extent and type alone
        /// are looked at.
        MalformedRest = "MALFORMED_REST";
        /// All of it was read, and bytes follow: padding, or another message that a UDP GSO packet carries.
        TrailingBytes = "TRAILING_BYTES";
        /// After the entry that reached [`Message::work_limit`] nothing is kept but the OPT record: the
        /// message was crafted to cost more than its size warrants. Takes precedence over other flaws.
        ///
        /// [`Message::work_limit`]: super::Message::work_limit
        WorkLimit = "WORK_LIMIT";
        /// The header is none that a DNS message has: this is another protocol at a DNS port. What could
        /// be read stands in the fields all the same, and means nothing. Takes precedence over other
        /// flaws.
        NotDns = "NOT_DNS";
    }
}
