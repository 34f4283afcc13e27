//! Recognizes data that is no DNS message, although it came to a DNS port and is long enough for a
//! header: TFTP, HTTP, NTP, DTLS, zeros.
//!
//! Any twelve bytes can be read as a header. The rules here refuse only headers that no DNS message
//! has, however broken the sender is; all others are DNS until their sections prove otherwise.
//! Rejected criteria: the Z bit and unknown types or classes, which are allowed; counts that do not
//! fit this message, as in a bare FORMERR that repeats those of the query; the format of a DTLS
//! record, which the second rule recognizes by its opcode.

use super::{super::code::opcode_mnemonic, Message, ParseStatus};

/// Size in bytes of the shortest question and of the shortest record: the root, and the fixed
/// fields.
const MIN_QUESTION: u32 = 5;
const MIN_RECORD: u32 = 11;
/// Maximum number of bytes after the header: over TCP the length has 16 bits.
const MAX_BODY: u32 = 65_535 - 12;

impl Message {
    /// Sets the status of data that is no DNS message.
    #[cold]
    pub(super) fn note_implausible(&mut self) {
        if self.lacks_question() || self.counts_exceed_length() || self.has_unassigned_opcode() {
            self.parse_status = ParseStatus::NotDns;
        }
    }

    /// A standard query has a question (RFC 1035 §4.1.2), or only an OPT record with a cookie (RFC
    /// 7873 §5.4). Zeros have neither, nor does an NTP request.
    fn lacks_question(&self) -> bool {
        !self.response && self.opcode == 0 && self.counts == [0; 4]
    }

    /// The header announces more entries than fit any message, as when the counts are text, and
    /// none can be read.
    fn counts_exceed_length(&self) -> bool {
        if !self.is_unreadable() {
            return false;
        }
        let [questions, records @ ..] = self.counts.map(u32::from);
        let records: u32 = records.iter().sum();
        questions * MIN_QUESTION + records * MIN_RECORD > MAX_BODY
    }

    /// The opcode is unassigned (RFC 6895 §2.2), and no section can be read. A DTLS record has
    /// opcode 15, because of its version (RFC 6347 §4.1). A header alone may be a response to a
    /// query with such an opcode.
    fn has_unassigned_opcode(&self) -> bool {
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
        // The seventh record of a connection, with application data, in DTLS 1.0.
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

    /// A message full of the shortest entries has matching counts.
    #[test]
    fn a_message_full_of_the_shortest_questions_is_dns() {
        let count = u16::try_from(MAX_BODY / MIN_QUESTION).unwrap();
        let mut wire = vec![0; 4];
        wire.extend(count.to_be_bytes());
        wire.extend([0; 6]);
        wire.extend(b"\0\0\x01\0\x01".repeat(count.into()));
        assert_eq!(status(&wire), ParseStatus::Ok);
        // No message has room for one more; the others can be read all the same.
        wire[4..6].copy_from_slice(&(count + 1).to_be_bytes());
        assert_eq!(status(&wire), ParseStatus::MalformedQuestion);
        // If nothing can be read, it is not DNS.
        wire[12..].fill(0x78);
        assert_eq!(status(&wire), ParseStatus::NotDns);
    }
}
