//! Reads a DNS message, as far as it is well-formed.

mod edns;
mod entry;
#[cfg(test)]
mod hostile;
mod plausible;
mod sections;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod versus_hickory;
#[cfg(test)]
mod work;

use super::cursor::Cursor;
use edns::EdnsSpans;
pub use edns::{ClientSubnet, Edns, ExtendedError};
pub use entry::{Answer, Flags, ParseStatus, Question};
use sections::Sections;

/// Opcode of dynamic updates (RFC 2136).
const UPDATE: u8 = 5;

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

/// A DNS message, read into buffers that are reused for the next one.
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
    /// QR: true for a response.
    pub response: bool,
    /// Opcode (4 bits).
    pub opcode: u8,
    /// Flag bits.
    pub flags: Flags,
    /// Response code, with the 8 extended bits of EDNS if present (RFC 6891 §6.1.3).
    pub rcode: u16,
    /// Counts in the header: question, answer, authority, additional.
    pub counts: [u16; 4],
    /// Length of the message in bytes on the wire, without TCP's length prefix.
    pub size: u32,
    /// The extent to which the message could be read.
    pub parse_status: ParseStatus,
    /// Records that were skipped because the text of a message is limited to 64 KiB, or
    /// because of [`ParseStatus::WorkLimit`]. They are the last ones of their section.
    pub answers_omitted: u32,
    /// Questions that were skipped for the same reasons.
    pub questions_omitted: u32,
    /// MINIMUM of the first SOA record in the authority section of a response, in seconds: the lifetime of a
    /// negative answer is at most that (RFC 2308 §5).
    pub soa_minimum: Option<u32>,
    work: u32,
    text: String,
    octets: Vec<u8>,
    questions: Vec<QuestionSpans>,
    name_as_sent: Option<Span>,
    is_name_lower: bool,
    has_private_address: bool,
    answers: Vec<RecordSpans>,
    updates: Vec<RecordSpans>,
    authorities: Vec<RecordSpans>,
    additionals: Vec<RecordSpans>,
    /// Bits of a class that have another meaning.
    class_bits_off: u16,
    edns: Option<EdnsSpans>,
    options: Vec<(u16, Span)>,
}

/// The records of a message that are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kept {
    /// Those of the answer section, or of the sections of an UPDATE request.
    #[default]
    Answers,
    /// Also those of the authority and additional sections.
    All,
}

impl Message {
    /// Size of a DNS header in bytes (RFC 1035 §4.1.1).
    pub const HEADER_SIZE: usize = 12;

    /// Returns the work that a message of `length` bytes may cost, in octets of text, except for
    /// the last entry: see [`ParseStatus::WorkLimit`].
    ///
    /// Compression and escapes create text from bytes that exist once, or from none: 1,150 bytes
    /// that refer to a name of 255 octets 64 times create 64 KiB of text, and RDATA that is
    /// malformed after such names creates text that is discarded, thousands of times in one
    /// message. Of genuine messages, the most expensive have short records and long names with
    /// escaped labels: a zone transfer of an IPv6 reverse zone, lists of mDNS services. They create
    /// six octets of text per byte; most messages create less than two. The constant leaves room
    /// for two names of maximum length in a short message.
    #[must_use]
    pub const fn work_limit(length: usize) -> usize {
        length.saturating_mul(8).saturating_add(2_048)
    }

    /// Reads a message into new buffers, without its authority and additional records. Returns `None`
    /// if it is shorter than its header.
    #[must_use]
    pub fn parse(wire: &[u8]) -> Option<Self> {
        Self::parse_keeping(wire, Kept::Answers)
    }

    /// Reads a message into new buffers. Returns `None` if it is shorter than its header.
    #[must_use]
    pub fn parse_keeping(wire: &[u8], kept: Kept) -> Option<Self> {
        let mut message = Self::default();
        message.read(wire, kept).then_some(message)
    }

    /// Replaces the content by the message in `wire`, and reuses the buffers. Returns false if it
    /// is shorter than its header; the content is then meaningless.
    pub fn read(&mut self, wire: &[u8], kept: Kept) -> bool {
        let Some(header) = wire.first_chunk::<{ Self::HEADER_SIZE }>() else { return false };
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let bits = word(2);
        self.clear();
        self.id = word(0);
        self.response = bits & 0x8000 != 0;
        self.opcode = (header[2] >> 3) & 0x0f;
        self.flags = Flags::from_bits(bits);
        self.rcode = bits & 0x000f;
        self.counts = [word(4), word(6), word(8), word(10)];
        // A message over UDP or TCP is at most 65,535 bytes long.
        self.size = u32::try_from(wire.len()).unwrap_or(u32::MAX);
        let mut sections = Cursor::new(wire);
        sections.seek(Self::HEADER_SIZE);
        Sections::read(self, sections, Self::work_limit(wire.len()), kept);
        if self.parse_status != ParseStatus::Ok || self.questions.is_empty() {
            self.note_implausible();
        }
        true
    }

    /// Marks the message as Multicast DNS: the top bit of a class is not part of it, but requests a
    /// unicast response (RFC 6762 §5.4) or a cache flush (§10.2).
    #[cold]
    pub const fn note_multicast_dns(&mut self) {
        self.class_bits_off = 0x8000;
    }

    /// Records that this many bytes were sent after the captured ones.
    #[cold]
    pub fn note_cut(&mut self, missing: usize) {
        self.size = self.size.saturating_add(u32::try_from(missing).unwrap_or(u32::MAX));
        if self.parse_status == ParseStatus::Ok {
            // Every entry was captured.
            self.parse_status = ParseStatus::TrailingBytes;
        }
    }

    /// Returns the first entry of the question section.
    #[must_use]
    pub fn question(&self) -> Option<Question<'_>> {
        self.questions.first().map(|spans| self.view_question(spans))
    }

    /// Returns the name of the first question with its letters as they were sent; `None` if all are
    /// in lower case, as in [`Question::name`].
    #[must_use]
    pub fn name_as_sent(&self) -> Option<&str> {
        self.name_as_sent.map(|span| self.text(span))
    }

    /// Returns true if the name of the first question was sent uncompressed and without letters in
    /// upper case. Of names with other characters than letters, digits, hyphens and underscores, this
    /// is not known, and false.
    #[inline]
    #[must_use]
    pub const fn is_name_lower(&self) -> bool {
        self.is_name_lower
    }

    /// Returns true if an answer is a [private](crate::private_address) address.
    #[inline]
    #[must_use]
    pub const fn has_private_address(&self) -> bool {
        self.has_private_address
    }

    /// Returns the entries of the question section after the first.
    pub fn more_questions(&self) -> impl ExactSizeIterator<Item = Question<'_>> {
        self.questions.iter().skip(1).map(|spans| self.view_question(spans))
    }

    /// Returns the answer section.
    pub fn answers(&self) -> impl ExactSizeIterator<Item = Answer<'_>> + Clone {
        self.answers.iter().map(|spans| self.view_record(spans))
    }

    /// Returns the prerequisites of an UPDATE request (RFC 2136 §2.4), which take the place of the
    /// answer section; empty in other messages.
    pub fn prerequisites(&self) -> impl ExactSizeIterator<Item = Answer<'_>> {
        let prerequisites = if self.is_update_request() { &*self.answers } else { &[] };
        prerequisites.iter().map(|spans| self.view_record(spans))
    }

    /// Returns true for a request of opcode UPDATE (RFC 2136).
    const fn is_update_request(&self) -> bool {
        self.opcode == UPDATE && !self.response
    }

    /// Returns the update section of an UPDATE request (RFC 2136 §2.5); empty in other messages.
    pub fn updates(&self) -> impl ExactSizeIterator<Item = Answer<'_>> {
        self.updates.iter().map(|spans| self.view_record(spans))
    }

    /// Returns the authority section of a response, if it was kept ([`Kept::All`]).
    pub fn authorities(&self) -> impl ExactSizeIterator<Item = Answer<'_>> {
        self.authorities.iter().map(|spans| self.view_record(spans))
    }

    /// Returns the additional section without OPT records, if it was kept ([`Kept::All`]).
    pub fn additionals(&self) -> impl ExactSizeIterator<Item = Answer<'_>> {
        self.additionals.iter().map(|spans| self.view_record(spans))
    }

    /// Returns the first OPT record.
    #[inline]
    #[must_use]
    pub fn edns(&self) -> Option<Edns<'_>> {
        self.edns.as_ref().map(|spans| Edns::view(spans, self))
    }

    /// Returns the number of stored entries of all sections, and options.
    #[must_use]
    pub const fn entries(&self) -> usize {
        self.questions.len()
            + self.answers.len()
            + self.updates.len()
            + self.authorities.len()
            + self.additionals.len()
            + self.options.len()
    }

    /// Returns the number of bytes of text and octets that the entries refer to; shared ones count
    /// once.
    #[must_use]
    pub const fn content_bytes(&self) -> usize {
        self.text.len() + self.octets.len()
    }

    /// Returns the work of reading the message, in octets of text: those that were kept, those that
    /// were discarded, and an allowance for the labels and pointers of names.
    #[must_use]
    pub const fn work(&self) -> u32 {
        self.work
    }

    /// Returns the memory of the buffers in bytes.
    #[must_use]
    pub fn buffer_bytes(&self) -> usize {
        self.text.capacity()
            + self.octets.capacity()
            + self.questions.capacity() * size_of::<QuestionSpans>()
            + (self.answers.capacity()
                + self.updates.capacity()
                + self.authorities.capacity()
                + self.additionals.capacity())
                * size_of::<RecordSpans>()
            + self.options.capacity() * size_of::<(u16, Span)>()
    }

    fn clear(&mut self) {
        self.parse_status = ParseStatus::Ok;
        self.answers_omitted = 0;
        self.questions_omitted = 0;
        self.class_bits_off = 0;
        self.text.clear();
        self.octets.clear();
        self.questions.clear();
        self.name_as_sent = None;
        self.is_name_lower = false;
        self.has_private_address = false;
        self.answers.clear();
        self.updates.clear();
        self.authorities.clear();
        self.additionals.clear();
        self.soa_minimum = None;
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
        let qclass = spans.qclass & !self.class_bits_off;
        Question { name: self.text(spans.name), qtype: spans.qtype, qclass }
    }

    #[inline]
    fn view_record(&self, spans: &RecordSpans) -> Answer<'_> {
        Answer {
            name: self.text(spans.name),
            rtype: spans.rtype,
            class: spans.class & !self.class_bits_off,
            ttl: spans.ttl,
            rdata: self.text(spans.rdata),
        }
    }

    fn push_octets(&mut self, octets: &[u8]) -> Span {
        let start = extent(self.octets.len());
        self.octets.extend_from_slice(octets);
        Span { start, end: extent(self.octets.len()) }
    }
}

/// Converts a position in a buffer; a message of 64 KiB stays far below the limit.
fn extent(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
