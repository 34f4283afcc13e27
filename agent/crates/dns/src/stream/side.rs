//! One direction of a connection: sorts bytes that arrive in any order.
//!
//! ```text
//!  positions:   origin ………………………… next ………………… pieces ……… fin
//!               processed by framing ▲ missing     ▲ wait for the missing bytes
//! ```
//!
//! Positions are sequence numbers extended to 64 bits, so that they do not wrap (RFC 9293 §3.4).

use std::collections::BTreeMap;

use super::{
    StreamIgnored, StreamLoss,
    framing::{Framing, cut},
    latest::Latest,
    outlet::Outlet,
};

/// Maximum distance of a sequence or acknowledgement number from the expected one: a larger one is
/// of another connection, or forged. Linux does not grow a socket buffer past 6 MiB by itself
/// (tcp_rmem, tcp_wmem), so segments in the network are never that far apart.
const WINDOW: u32 = 16 << 20;

/// Memory charged for a piece besides its payload, in bytes: a box from the allocator (16), and its
/// entry of 32 bytes in a B-tree whose nodes are at least half full, with the nodes' links (80).
const PIECE_BYTES: usize = 96;

/// A part of a stream after a gap.
struct Piece {
    at_ns: u64,
    bytes: Box<[u8]>,
}

/// One direction of a connection.
pub(super) struct Side {
    /// True once a segment was seen; until then no other field has a meaning.
    seen: bool,
    /// True if the SYN was seen; `origin` is then the position after it.
    syn: bool,
    /// First position seen.
    origin: u64,
    /// First position that was not processed.
    next: u64,
    /// Position of the FIN.
    fin: Option<u64>,
    framing: Framing,
    /// The processed bytes before `next`.
    latest: Latest,
    /// Pieces by position, disjoint, all after `next`.
    pieces: BTreeMap<u64, Piece>,
    piece_bytes: usize,
    /// Position up to which the other side has acknowledged data while nothing waited.
    acknowledged: u64,
    /// Time of the first acknowledgement of what is missing now.
    acknowledged_at_ns: u64,
}

impl Side {
    pub(super) const fn new() -> Self {
        Self {
            seen: false,
            syn: false,
            origin: 0,
            next: 0,
            fin: None,
            framing: Framing::new(false),
            latest: Latest::new(),
            pieces: BTreeMap::new(),
            piece_bytes: 0,
            acknowledged: 0,
            acknowledged_at_ns: 0,
        }
    }

    pub(super) const fn was_seen(&self) -> bool {
        self.seen
    }

    pub(super) const fn saw_syn(&self) -> bool {
        self.syn
    }

    /// Returns true if this SYN is a retransmission of the one that was seen.
    pub(super) const fn is_syn(&self, sequence: u32) -> bool {
        self.syn && low_half(self.origin) == sequence.wrapping_add(1)
    }

    /// Returns the number of stored bytes.
    pub(super) const fn waiting(&self) -> usize {
        self.framing.waiting() + self.piece_bytes
    }

    /// Returns true if bytes are known to be missing: others wait after them, or were acknowledged.
    pub(super) fn has_gap(&self) -> bool {
        !self.pieces.is_empty() || self.missing_end() > self.next
    }

    /// Returns the end of the missing bytes that were acknowledged; at most `next` if there are
    /// none.
    fn missing_end(&self) -> u64 {
        // A FIN takes a sequence number, but no byte.
        self.fin.map_or(self.acknowledged, |fin| self.acknowledged.min(fin))
    }

    /// Returns the memory in bytes, besides this struct.
    pub(super) fn memory(&self) -> usize {
        self.framing.memory() + self.pieces_memory()
    }

    fn pieces_memory(&self) -> usize {
        self.piece_bytes + self.pieces.len() * PIECE_BYTES
    }

    pub(super) const fn has_fin(&self) -> bool {
        self.fin.is_some()
    }

    /// Returns true once everything up to the FIN was processed or given up.
    pub(super) fn has_ended(&self) -> bool {
        self.fin.is_some_and(|fin| fin <= self.next)
    }

    /// Returns true if this SYN precedes the data that the other side's own SYN has acknowledged,
    /// which was captured first.
    pub(super) fn is_late_syn(&self, sequence: u32) -> bool {
        let untouched = self.next == self.origin && self.pieces.is_empty();
        self.seen && !self.syn && untouched && low_half(self.origin) == sequence.wrapping_add(1)
    }

    /// Records the SYN: messages begin after it.
    pub(super) fn note_late_syn(&mut self) {
        (self.syn, self.framing) = (true, Framing::new(true));
    }

    /// Starts with a SYN of this sequence number. The previous state must have been dropped.
    pub(super) fn open(&mut self, sequence: u32) {
        self.start(sequence.wrapping_add(1), true);
    }

    /// Starts at `sequence` without a known message boundary.
    pub(super) fn start_amid(&mut self, sequence: u32) {
        self.start(sequence, false);
    }

    fn start(&mut self, sequence: u32, syn: bool) {
        // Leave room below, so that earlier positions do not become negative.
        let next = 1 << 32 | u64::from(sequence);
        let framing = Framing::new(syn);
        *self = Self { seen: true, syn, origin: next, next, framing, ..Self::new() };
    }

    /// Returns the position of a sequence number; `None` if it is too far from the expected one.
    fn position(&self, sequence: u32) -> Option<u64> {
        let distance = sequence.wrapping_sub(low_half(self.next)).cast_signed();
        (distance.unsigned_abs() <= WINDOW).then(|| self.next.wrapping_add_signed(distance.into()))
    }

    /// Processes payload that was captured at `at_ns`.
    #[inline]
    pub(super) fn data(
        &mut self,
        sequence: u32,
        payload: &[u8],
        at_ns: u64,
        out: &mut impl Outlet,
    ) {
        if self.seen && low_half(self.next) == sequence && self.pieces.is_empty() {
            self.advance(payload, at_ns, out);
        } else {
            self.data_elsewhere(sequence, payload, at_ns, out);
        }
        if self.fin.is_some_and(|fin| fin < self.next) {
            // There is data after the FIN, so it was not one of this connection.
            self.fin = None;
        }
    }

    /// Processes payload that does not start at the next position.
    fn data_elsewhere(&mut self, sequence: u32, payload: &[u8], at_ns: u64, out: &mut impl Outlet) {
        let position = if self.seen { self.position(sequence) } else { None };
        let mut at = position.unwrap_or_else(|| {
            // It is the first segment, or one of another connection between the same ports whose
            // SYN was not captured. The earlier bytes may have been the start of a message.
            self.settle(StreamLoss::Closed, at_ns, out);
            self.start_amid(sequence);
            out.loss(StreamLoss::Unsynchronised, 0, at_ns);
            self.next
        });
        let mut bytes = payload;
        if at + 1 == self.next && bytes.len() == 1 {
            return out.ignore(StreamIgnored::KeepAlive, 1);
        }
        let early = cut(&mut bytes, self.origin.saturating_sub(at));
        if early > 0 {
            // It was sent before the first byte seen, and captured after it.
            out.loss(StreamLoss::Unsynchronised, early, at_ns);
            at += early as u64;
        }
        let before = bytes;
        let repeated = cut(&mut bytes, self.next.saturating_sub(at));
        let differ = self.latest.differs(self.next.saturating_sub(at), &before[..repeated]);
        note_repeated(repeated, differ, at_ns, out);
        at += repeated as u64;
        if bytes.is_empty() {
            return;
        }
        if at > self.next {
            self.insert_piece(at, bytes, at_ns, out);
        } else {
            self.advance_among_pieces(bytes, at_ns, out);
        }
    }

    /// Processes bytes that start at `next`.
    #[inline]
    fn advance(&mut self, bytes: &[u8], at_ns: u64, out: &mut impl Outlet) {
        self.next += bytes.len() as u64;
        self.latest.push(bytes);
        self.framing.take(bytes, at_ns, out);
    }

    /// Processes bytes that start at `next` while pieces wait. A piece was captured first, so its
    /// bytes win.
    fn advance_among_pieces(&mut self, bytes: &[u8], at_ns: u64, out: &mut impl Outlet) {
        let mut rest = bytes;
        while !rest.is_empty() {
            out.counts().steps += 1;
            let gap =
                self.pieces.first_key_value().map_or(u64::MAX, |(start, _)| start - self.next);
            let before = rest;
            let length = cut(&mut rest, gap);
            self.advance(&before[..length], at_ns, out);
            let before = self.next;
            self.advance_pieces(out);
            let again = rest;
            let repeated = cut(&mut rest, self.next - before);
            let differ = self.latest.differs(self.next - before, &again[..repeated]);
            note_repeated(repeated, differ, at_ns, out);
        }
    }

    /// Processes the pieces that have no gap before them.
    fn advance_pieces(&mut self, out: &mut impl Outlet) {
        while let Some(first) = self.pieces.first_entry()
            && *first.key() == self.next
        {
            let piece = first.remove();
            out.counts().steps += 1;
            self.piece_bytes -= piece.bytes.len();
            self.advance(&piece.bytes, piece.at_ns, out);
        }
    }

    /// Stores the bytes from `at` on that no piece has.
    fn insert_piece(&mut self, at: u64, bytes: &[u8], at_ns: u64, out: &mut impl Outlet) {
        let (mut at, mut rest) = (at, bytes);
        if let Some((start, piece)) = self.pieces.range(..at).next_back() {
            let again = rest;
            let repeated = cut(&mut rest, (start + piece.bytes.len() as u64).saturating_sub(at));
            // After the end of the piece nothing is repeated or compared.
            let from = usize::try_from(at - start).unwrap_or(usize::MAX);
            let taken = piece.bytes.get(from..).unwrap_or_default();
            let differ = !taken.starts_with(&again[..repeated]);
            note_repeated(repeated, differ, at_ns, out);
            at += repeated as u64;
        }
        while !rest.is_empty() {
            out.counts().steps += 1;
            let following = self.pieces.range(at..).next();
            let following = following.map(|(start, piece)| (*start - at, piece.bytes.len()));
            let before = rest;
            let hole = cut(&mut rest, following.map_or(u64::MAX, |(hole, _)| hole));
            if hole > 0 {
                self.piece_bytes += hole;
                self.pieces.insert(at, Piece { at_ns, bytes: before[..hole].into() });
            }
            let again = rest;
            let repeated = cut(&mut rest, following.map_or(0, |(_, length)| length as u64));
            at += hole as u64;
            let differ = repeated > 0
                && self
                    .pieces
                    .get(&at)
                    .is_some_and(|piece| !piece.bytes.starts_with(&again[..repeated]));
            note_repeated(repeated, differ, at_ns, out);
            at += repeated as u64;
        }
    }

    /// The other side has everything before `acknowledgement`: missing bytes that are not captured
    /// soon will not be sent again. If bytes wait after them, give up at once: a response to them
    /// may be in this very segment.
    #[inline]
    pub(super) fn acknowledged(&mut self, acknowledgement: u32, at_ns: u64, out: &mut impl Outlet) {
        if low_half(self.next) == acknowledgement || !self.seen {
            return;
        }
        let Some(position) = self.position(acknowledgement) else {
            return;
        };
        let position = self.fin.map_or(position, |fin| position.min(fin));
        while self.next < position
            && let Some((&start, _)) = self.pieces.first_key_value()
        {
            self.give_up(start.min(position), at_ns, out);
        }
        if self.next < position {
            self.note_missing(position, at_ns, out);
        }
    }

    /// Records acknowledged bytes that may still be captured.
    #[cold]
    fn note_missing(&mut self, position: u64, at_ns: u64, out: &mut impl Outlet) {
        if position - self.next > u64::from(WINDOW / 2) {
            // With more, they could not be distinguished from another connection.
            self.give_up(position, at_ns, out);
        } else if position > self.acknowledged {
            if self.acknowledged <= self.next {
                self.acknowledged_at_ns = at_ns;
            }
            self.acknowledged = position;
            // Records that are created meanwhile must be marked.
            out.loss(StreamLoss::Gap, 0, at_ns);
        }
    }

    /// Gives up gaps until the remaining pieces take no more than this memory.
    pub(super) fn give_up_beyond(&mut self, memory: usize, at_ns: u64, out: &mut impl Outlet) {
        while self.pieces_memory() > memory
            && let Some((&start, _)) = self.pieces.first_key_value()
        {
            self.give_up(start, at_ns, out);
        }
    }

    /// Gives up the gaps before pieces that have waited since `since_ns` or longer, or, if all
    /// missing bytes were acknowledged, since `acknowledged_since_ns`; and missing bytes without a
    /// piece after them since `since_ns`.
    pub(super) fn give_up_since(
        &mut self,
        since_ns: u64,
        acknowledged_since_ns: u64,
        at_ns: u64,
        out: &mut impl Outlet,
    ) {
        while let Some((&start, piece)) = self.pieces.first_key_value()
            && (piece.at_ns <= since_ns
                || start <= self.acknowledged && piece.at_ns <= acknowledged_since_ns)
        {
            self.give_up(start, at_ns, out);
        }
        let missing_end = self.missing_end();
        if self.pieces.is_empty() && missing_end > self.next && self.acknowledged_at_ns <= since_ns
        {
            self.give_up(missing_end, self.acknowledged_at_ns, out);
        }
    }

    /// Continues at `position` without the missing bytes before it.
    #[cold]
    fn give_up(&mut self, position: u64, at_ns: u64, out: &mut impl Outlet) {
        out.counts().steps += 1;
        self.framing.skip_gap(position - self.next, at_ns, out);
        self.next = position;
        self.latest.clear();
        self.advance_pieces(out);
    }

    /// Records that the side ends at this sequence number.
    pub(super) fn finish(&mut self, sequence: u32) {
        if !self.seen {
            self.start_amid(sequence);
        }
        self.fin = self.position(sequence).filter(|fin| *fin >= self.next).or(self.fin);
    }

    /// Loses an incomplete message at the FIN.
    pub(super) fn end_if_over(&mut self, at_ns: u64, out: &mut impl Outlet) {
        if self.has_ended() {
            self.framing.lose(StreamLoss::Closed, at_ns, out);
        }
    }

    /// Returns true if a RST with this sequence number can be genuine: RFC 5961 §3.2 requires
    /// exactly the number that the receiver expects, and the capture may miss some bytes.
    pub(super) fn can_reset(&self, sequence: u32) -> bool {
        let last = self.pieces.last_key_value();
        let end = last.map_or(self.next, |(start, piece)| start + piece.bytes.len() as u64);
        let end = end.max(self.acknowledged);
        // A FIN takes a number too.
        let expected = self.next..=end + 1;
        self.seen && self.position(sequence).is_some_and(|position| expected.contains(&position))
    }

    /// Ends the side: passes on whole messages after gaps, and loses the rest.
    pub(super) fn settle(&mut self, reason: StreamLoss, at_ns: u64, out: &mut impl Outlet) {
        self.give_up_since(u64::MAX, u64::MAX, at_ns, out);
        self.framing.lose(reason, at_ns, out);
    }
}

/// Counts bytes at positions that were processed before: as equal or as different.
fn note_repeated(bytes: usize, differ: bool, at_ns: u64, out: &mut impl Outlet) {
    if differ {
        out.loss(StreamLoss::Conflict, bytes, at_ns);
    } else {
        out.ignore(StreamIgnored::Repeated, bytes);
    }
}

const fn low_half(position: u64) -> u32 {
    (position & 0xffff_ffff) as u32
}
