//! Tells what is no DNS message, though it came to a DNS port and is long enough for a header: TFTP,
//! HTTP, NTP, DTLS, zeros.
//!
//! Any twelve bytes can be read as a header. The rules here refuse only headers that no DNS message
//! has, whoever sends it and however broken it is; what is left is DNS until its sections say
//! otherwise. Rejected: the Z bit and unknown types or classes, which are allowed to be met; counts
//! that do not fit this message, as in a bare FORMERR that repeats the query's; the form of a DTLS
//! record, which the second rule sees in its opcode.

use super::{super::code::opcode_mnemonic, Message, ParseStatus};

/// Bytes of the shortest question and of the shortest record: the root, and what follows a name.
const SHORTEST_QUESTION: u32 = 5;
const SHORTEST_RECORD: u32 = 11;
/// Bytes behind the header of the longest message: over TCP its length has 16 bits.
const LONGEST_BODY: u32 = 65_535 - 12;

impl Message {
    /// Sets the status of what is no DNS message.
    #[cold]
    pub(super) fn note_implausible(&mut self) {
        if self.asks_nothing() || self.announces_too_much() || self.is_of_no_protocol() {
            self.parse_status = ParseStatus::NotDns;
        }
    }

    /// A standard query has a question (RFC 1035 §4.1.2), or nothing but an OPT record with a cookie
    /// (RFC 7873 §5.4). Zeros are neither, nor is a request of NTP.
    fn asks_nothing(&self) -> bool {
        !self.response && self.opcode == 0 && self.counts == [0; 4]
    }

    /// More entries than a message of any length has room for, as where the counts are text, and
    /// nothing can be read.
    fn announces_too_much(&self) -> bool {
        if !self.is_unreadable() {
            return false;
        }
        let [questions, records @ ..] = self.counts.map(u32::from);
        let records: u32 = records.iter().sum();
        questions * SHORTEST_QUESTION + records * SHORTEST_RECORD > LONGEST_BODY
    }

    /// An opcode that is not assigned (RFC 6895 §2.2), and sections of which nothing can be read. A
    /// record of DTLS has opcode 15, by its version (RFC 6347 §4.1). A header alone is an answer to
    /// somebody who tries such opcodes.
    fn is_of_no_protocol(&self) -> bool {
        opcode_mnemonic(self.opcode).is_none()
            && self.is_unreadable()
            && self.size as usize > Self::HEADER_SIZE
    }

    fn is_unreadable(&self) -> bool {
        self.parse_status != ParseStatus::Ok
            && self.questions.is_empty()
            && self.answers.is_empty()
            && self.edns.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(wire: &[u8]) -> ParseStatus {
        Message::parse(wire).unwrap().parse_status
    }

    #[test]
    fn other_protocols_are_not_dns() {
        let dtls = b"\x16\xfe\xfd\0\0\0\0\0\0\0\0\0\x32\x01\0\0\x26\0\0\0\0\0\0\0\x26\xfe\xfd";
        // The seventh record of a connection, with application data, by DTLS 1.0.
        let more_dtls = b"\x17\xfe\xff\0\x01\0\0\0\0\0\x07\0\x20\x9a\x01\x02\x03\x04\x05\x06";
        let mut ntp = vec![0x23, 0, 6, 0xec];
        ntp.resize(48, 0);
        for (what, wire) in [
            ("zeros", &[0; 12][..]),
            ("more zeros", &[0; 100]),
            ("an NTP request", &ntp),
            ("HTTP", b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"),
            ("SIP", b"OPTIONS sip:a@b.test SIP/2.0\r\n\r\n"),
            ("a TFTP request", b"\0\x01boot/pxelinux.0\0octet\0"),
            ("TFTP data", b"\0\x03\0\x01xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
            ("STUN", b"\0\x01\0\0\x21\x12\xa4\x42abcdefghijkl"),
            ("DTLS", dtls),
            ("DTLS 1.0", more_dtls),
        ] {
            assert_eq!(status(wire), ParseStatus::NotDns, "{what}");
        }
    }

    #[test]
    fn dns_of_any_kind_is_dns() {
        let question = b"\x04test\0\0\x01\0\x01";
        let header = |second: u8, third: u8, counts: [u8; 4]| {
            let [questions, answers, authorities, additionals] = counts;
            vec![0, 0, second, third, 0, questions, 0, answers, 0, authorities, 0, additionals]
        };
        let cookie =
            [header(0, 0, [0, 0, 0, 1]), b"\0\0\x29\x04\xd0\0\0\0\0\0\0".to_vec()].concat();
        let dso =
            [header(0x30, 0, [0; 4]), b"\0\x01\0\x08\0\0\x3a\x98\0\0\x3a\x98".to_vec()].concat();
        let asked = |second: u8| [header(second, 0, [1, 0, 0, 0]), question.to_vec()].concat();
        for (what, wire, expected) in [
            ("a query without a question, for a cookie", cookie, ParseStatus::Ok),
            ("a bare refusal", header(0x80, 5, [0; 4]), ParseStatus::Ok),
            ("an empty response", header(0x80, 0, [0; 4]), ParseStatus::Ok),
            ("STATUS, which no RFC describes", header(0x10, 0, [0; 4]), ParseStatus::Ok),
            ("a session keepalive (RFC 8490)", dso, ParseStatus::TrailingBytes),
            ("a query with opcode 15", asked(0x78), ParseStatus::Ok),
            (
                "the answer, with its query's counts",
                header(0xf8, 4, [1, 0, 0, 0]),
                ParseStatus::MalformedQuestion,
            ),
            (
                "a bare FORMERR with its query's counts",
                header(0x80, 1, [1, 0, 0, 1]),
                ParseStatus::MalformedQuestion,
            ),
            ("a query with Z set", asked(0x01), ParseStatus::Ok),
            (
                "a query cut within its name",
                asked(0)[..15].to_vec(),
                ParseStatus::MalformedQuestion,
            ),
        ] {
            assert_eq!(status(&wire), expected, "{what}");
        }
        let mut z_bit = asked(1);
        z_bit[3] = 0x40;
        assert_eq!(status(&z_bit), ParseStatus::Ok);
    }

    /// The shortest entries that a message is full of are announced as they are.
    #[test]
    fn a_message_full_of_the_shortest_questions_is_dns() {
        let count = u16::try_from(LONGEST_BODY / SHORTEST_QUESTION).unwrap();
        let mut wire = vec![0; 4];
        wire.extend(count.to_be_bytes());
        wire.extend([0; 6]);
        wire.extend(b"\0\0\x01\0\x01".repeat(count.into()));
        assert_eq!(status(&wire), ParseStatus::Ok);
        // One more has no room in any message; what there is can be read all the same.
        wire[4..6].copy_from_slice(&(count + 1).to_be_bytes());
        assert_eq!(status(&wire), ParseStatus::MalformedQuestion);
        // Where nothing can be read, nothing says that it is DNS.
        wire[12..].fill(0x78);
        assert_eq!(status(&wire), ParseStatus::NotDns);
    }
}
