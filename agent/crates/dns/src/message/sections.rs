//! Reads the sections of a message in one pass.

use super::{
    super::{
        cursor::Cursor,
        name::{self, Letters},
        private_address::{is_private_v4, is_private_v6},
        rdata,
        text::Text,
    },
    Kept, Message, ParseStatus, QuestionSpans, RecordSpans, Span, UPDATE, extent,
};

/// Type of an IPv4 address (RFC 1035 §3.4.1), and class of the Internet.
const A: u16 = 1;
const IN: u16 = 1;
/// Type of an IPv6 address (RFC 3596 §2.2).
const AAAA: u16 = 28;
/// Type of the start of a zone of authority (RFC 1035 §3.3.13).
const SOA: u16 = 6;
/// Type of the OPT record (RFC 6891 §6.1.2).
const OPT: u16 = 41;
/// Classes of records without RDATA in an update (RFC 2136 §2.4, §2.5).
const NONE: u16 = 254;
const ANY: u16 = 255;

/// A pass through a message whose header has been read.
pub(super) struct Sections<'m, 'w> {
    message: &'m mut Message,
    wire: Cursor<'w>,
    text: Text,
    /// The first name, usually that of the question, which the owners of most records point to.
    first: Name,
    /// The last name that was an owner or a whole RDATA; the owners of records after a CNAME, and
    /// of further records of a set, point to it.
    latest: Name,
    /// The letters of the name that was written last.
    letters: Letters,
    /// True if a limit of the text was reached: nothing more is stored.
    full: bool,
    kept: Kept,
}

/// A name that was read: its offset on the wire, and its text.
#[derive(Clone, Copy)]
struct Name {
    origin: usize,
    span: Span,
}

impl Name {
    /// Differs from every name.
    const UNKNOWN: Self = Self { origin: usize::MAX, span: Span { start: 0, end: 0 } };
}

/// The fields after the owner of a record (RFC 1035 §4.1.3).
struct Body<'w> {
    rtype: u16,
    class: u16,
    ttl: u32,
    rdata: Cursor<'w>,
}

impl<'m, 'w> Sections<'m, 'w> {
    /// Reads the sections into `message`, one entry at a time, so that entries before a malformed
    /// one are kept. Large counts in the header cost nothing without entries.
    ///
    /// The work is proportional to the message's length, and to `work_limit` if names or RDATA
    /// create more text than they have bytes: past the limit, entries are only skipped, up to the
    /// OPT record.
    pub(super) fn read(message: &'m mut Message, wire: Cursor<'w>, work_limit: usize, kept: Kept) {
        let text = Text::reuse(std::mem::take(&mut message.text), work_limit);
        let (first, latest, letters) = (Name::UNKNOWN, Name::UNKNOWN, Letters::Unknown);
        let mut sections = Self { message, wire, text, first, latest, letters, full: false, kept };
        if let Err(status) = sections.walk() {
            sections.flaw(status);
        }
        sections.message.work = extent(sections.text.work());
        sections.message.text = sections.text.finish();
    }

    fn walk(&mut self) -> Result<(), ParseStatus> {
        let [questions, answers, authorities, additionals] = self.message.counts;
        for _ in 0..questions {
            self.question().ok_or(ParseStatus::MalformedQuestion)?;
        }
        for _ in 0..answers {
            let flaw = ParseStatus::MalformedAnswer;
            self.record::<true>(flaw, |message| &mut message.answers).ok_or(flaw)?;
        }
        let update = self.message.is_update_request();
        for _ in 0..authorities {
            let flaw = ParseStatus::MalformedRest;
            if update {
                self.record::<false>(flaw, |message| &mut message.updates).ok_or(flaw)?;
            } else {
                self.authority().ok_or(flaw)?;
            }
        }
        for _ in 0..additionals {
            self.additional().ok_or(ParseStatus::MalformedRest)?;
        }
        if self.wire.is_empty() { Ok(()) } else { Err(ParseStatus::TrailingBytes) }
    }

    fn question(&mut self) -> Option<()> {
        let start = self.text.len();
        let mut sent = self.wire;
        let name = if self.full {
            name::skip(&mut self.wire)?;
            None
        } else {
            Some(self.name()?)
        };
        let (qtype, qclass) = (self.wire.u16()?, self.wire.u16()?);
        let is_first = self.message.questions.is_empty() && !self.full;
        if is_first && self.letters == Letters::Lower {
            self.message.is_name_lower = true;
        } else if is_first {
            self.name_as_sent(&mut sent);
        }
        self.drop_when_full(start);
        if let (Some(name), false) = (name, self.full) {
            self.message.questions.push(QuestionSpans { name, qtype, qclass });
        } else {
            self.message.questions_omitted += 1;
            if is_first {
                self.message.name_as_sent = None;
            }
        }
        Some(())
    }

    /// Keeps the name at the cursor with its letters as they were sent, if any is in upper case.
    #[cold]
    fn name_as_sent(&mut self, sent: &mut Cursor<'w>) {
        let start = extent(self.text.len());
        if name::write_as_sent(sent, &mut self.text).is_some() {
            self.message.name_as_sent = Some(Span { start, end: extent(self.text.len()) });
        }
    }

    /// Reads a record into `list`, unless the text is full. Malformed RDATA is a `flaw`.
    #[inline]
    fn record<const IS_ANSWER: bool>(
        &mut self,
        flaw: ParseStatus,
        list: impl Fn(&mut Message) -> &mut Vec<RecordSpans>,
    ) -> Option<()> {
        let start = self.text.len();
        if self.full {
            self.pass()?;
            self.message.answers_omitted += 1;
            return Some(());
        }
        let (name, body) = match self.record_by_pointer() {
            Some(known) => known,
            None => (self.name()?, body(&mut self.wire)?),
        };
        let Body { rtype, class, ttl, rdata } = body;
        let rdata = match (rtype, class, rdata.whole()) {
            // The most frequent type gets a shortcut with the same result.
            (A, IN, Some(address)) => {
                let start = extent(self.text.len());
                self.text.ipv4(address);
                self.message.has_private_address |= IS_ANSWER && is_private_v4(address);
                Span { start, end: extent(self.text.len()) }
            }
            (AAAA, IN, _) => {
                let address = rdata.whole().map(<[u8; 16]>::into);
                self.message.has_private_address |= IS_ANSWER && address.is_some_and(is_private_v6);
                self.rdata(rtype, class, rdata, flaw)
            }
            _ => self.rdata(rtype, class, rdata, flaw),
        };
        self.drop_when_full(start);
        if self.full {
            self.message.answers_omitted += 1;
        } else {
            // Build it in place: a returned record is assembled and taken apart again.
            list(self.message).push(RecordSpans { name, rdata, rtype, class, ttl });
        }
        Some(())
    }

    /// Writes RDATA. Malformed RDATA is a `flaw`.
    fn rdata(&mut self, rtype: u16, class: u16, rdata: Cursor<'w>, flaw: ParseStatus) -> Span {
        let form = rdata::form(rtype, class);
        let no_rdata = self.message.opcode == UPDATE && matches!(class, NONE | ANY);
        if rdata.is_empty() && no_rdata {
            return Span::default();
        }
        if let Some(span) = self.name_as_rdata(form, rdata) {
            return span;
        }
        let start = extent(self.text.len());
        if !rdata::write(rdata, form, &mut self.text) {
            self.flaw(flaw);
        }
        Span { start, end: extent(self.text.len()) }
    }

    /// Reads a record of the authority section.
    fn authority(&mut self) -> Option<()> {
        let start = self.wire;
        let Body { rtype, rdata, .. } = self.pass()?;
        if rtype == SOA && self.message.response && self.message.soa_minimum.is_none() {
            self.message.soa_minimum = soa_minimum(rdata);
        }
        if self.kept == Kept::All {
            self.wire = start;
            self.record::<false>(ParseStatus::MalformedRest, |message| &mut message.authorities)?;
        }
        Some(())
    }

    /// Reads a record of the additional section, where OPT is always kept.
    fn additional(&mut self) -> Option<()> {
        let of_root = self.wire.peek(1) == Some(&[0]);
        let start = self.wire;
        let Body { rtype, class, ttl, rdata } = self.pass()?;
        if rtype != OPT && self.kept == Kept::All {
            self.wire = start;
            return self
                .record::<false>(ParseStatus::MalformedRest, |message| &mut message.additionals);
        }
        if rtype == OPT {
            // The first one counts; its owner is the root (RFC 6891 §6.1.1, §6.1.2).
            let first = self.message.edns.is_none();
            let well_formed =
                first && self.message.read_edns(class, ttl, rdata, &mut self.text) && of_root;
            if !well_formed {
                self.flaw(ParseStatus::MalformedRest);
            }
        }
        Some(())
    }

    /// Skips a record.
    fn pass(&mut self) -> Option<Body<'w>> {
        name::skip(&mut self.wire)?;
        body(&mut self.wire)
    }

    /// Reads the next record if it has the usual form: its owner is a pointer to a name read
    /// before.
    fn record_by_pointer(&mut self) -> Option<(Span, Body<'w>)> {
        let mut wire = self.wire;
        let [high @ 0xc0..=0xff, low] = wire.octets()? else { return None };
        let origin = name::pointed_to(high, low);
        let known = [self.first, self.latest].into_iter().find(|known| known.origin == origin)?;
        let body = body(&mut wire)?;
        self.wire = wire;
        Some((known.span, body))
    }

    /// Returns the text of the name at the cursor, and shares that of an equal name.
    #[inline]
    fn name(&mut self) -> Option<Span> {
        let origin = name::origin(&self.wire);
        for known in [self.first, self.latest] {
            if known.origin == origin {
                name::skip(&mut self.wire)?;
                return Some(known.span);
            }
        }
        let mut wire = self.wire;
        let span = self.write_name(&mut wire)?;
        self.wire = wire;
        self.remember(Name { origin, span });
        Some(span)
    }

    /// Reads RDATA that is a name. Returns `None` if it is not, or contains more.
    fn name_as_rdata(&mut self, form: Option<rdata::Form>, mut rdata: Cursor<'w>) -> Option<Span> {
        form.filter(|form| form.is_name())?;
        let (start, origin) = (self.text.len(), name::origin(&rdata));
        let span = self.write_name(&mut rdata)?;
        if !rdata.is_empty() {
            self.text.truncate(start);
            return None;
        }
        self.remember(Name { origin, span });
        Some(span)
    }

    fn write_name(&mut self, wire: &mut Cursor<'w>) -> Option<Span> {
        let start = self.text.len();
        let Some(letters) = name::write_noting_letters(wire, &mut self.text) else {
            self.text.truncate(start);
            return None;
        };
        self.letters = letters;
        Some(Span { start: extent(start), end: extent(self.text.len()) })
    }

    fn remember(&mut self, name: Name) {
        if self.first.origin == Name::UNKNOWN.origin {
            self.first = name;
        } else {
            self.latest = name;
        }
    }

    /// Removes the text from `start` on if it exceeds a limit.
    fn drop_when_full(&mut self, start: usize) {
        if self.text.is_full() {
            if self.text.is_over_budget() {
                // Takes precedence over the errors that caused the work: it explains what is
                // missing.
                self.message.parse_status = ParseStatus::WorkLimit;
            }
            self.text.truncate(start);
            self.full = true;
        }
    }

    /// Records an error; only the first one is reported.
    fn flaw(&mut self, status: ParseStatus) {
        if self.message.parse_status == ParseStatus::Ok {
            self.message.parse_status = status;
        }
    }
}

/// Returns MINIMUM, the last field of a SOA record's RDATA (RFC 1035 §3.3.13).
fn soa_minimum(mut rdata: Cursor<'_>) -> Option<u32> {
    name::skip(&mut rdata)?;
    name::skip(&mut rdata)?;
    let numbers: [u8; 20] = rdata.octets()?;
    let [.., m0, m1, m2, m3] = numbers;
    Some(u32::from_be_bytes([m0, m1, m2, m3]))
}

/// Reads the fields after the owner.
#[inline]
fn body<'w>(wire: &mut Cursor<'w>) -> Option<Body<'w>> {
    let [t0, t1, c0, c1, s0, s1, s2, s3, l0, l1] = wire.octets()?;
    Some(Body {
        rtype: u16::from_be_bytes([t0, t1]),
        class: u16::from_be_bytes([c0, c1]),
        ttl: u32::from_be_bytes([s0, s1, s2, s3]),
        rdata: wire.part(u16::from_be_bytes([l0, l1]).into())?,
    })
}
