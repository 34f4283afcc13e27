//! One direction of a connection: bytes in any order become messages.
//!
//! ```text
//!  positions:   origin ………… next ………………… pieces ……… fin
//!               taken         ▲ missing     ▲ wait for what is missing
//!               └ frame: the message that ends behind `next`, its length prefix included
//! ```
//!
//! Positions are sequence numbers made 64 bits wide, so that they do not wrap (RFC 9293 §3.4).

use std::collections::BTreeMap;

use super::{
    StreamIgnored, StreamLoss,
    begins::{ENOUGH, Verdict, judge},
    outlet::Outlet,
};

/// Bytes that a sequence or acknowledgement number may be away from what is expected: beyond it is
/// another connection, or a forgery. Linux lets no socket buffer grow past 6 MiB by itself
/// (tcp_rmem, tcp_wmem), so nothing that is still in the network is that far apart.
const WINDOW: u32 = 16 << 20;

/// Bytes charged for a piece besides its payload: a box from the allocator (16), and its entry in a
/// B-tree whose nodes of 11 entries of 32 bytes are at least half full (64).
const PIECE_BYTES: usize = 96;

/// What is known of the message boundaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing was seen of this side.
    Unseen,
    /// `next` is at a known place of a message.
    Synchronised,
    /// No message boundary is known; `frame` holds bytes of which it cannot yet be told whether a
    /// message begins with them.
    Unsynchronised,
}

/// A part of a stream behind a gap.
struct Piece {
    at_ns: u64,
    bytes: Box<[u8]>,
}

/// One direction of a connection.
pub(super) struct Side {
    phase: Phase,
    /// True if the SYN was seen; `origin` is then the position behind it.
    syn: bool,
    /// First position seen.
    origin: u64,
    /// First position that was not taken.
    next: u64,
    /// Position of the FIN.
    fin: Option<u64>,
    /// Bytes from `next` on that belong to a message of which a part is missing.
    skip: u64,
    frame: Vec<u8>,
    /// When the latest byte of the frame was captured.
    frame_at_ns: u64,
    /// By position, apart from each other, all behind `next`.
    pieces: BTreeMap<u64, Piece>,
    piece_bytes: usize,
}

impl Side {
    pub(super) const fn new() -> Self {
        Self {
            phase: Phase::Unseen,
            syn: false,
            origin: 0,
            next: 0,
            fin: None,
            skip: 0,
            frame: Vec::new(),
            frame_at_ns: 0,
            pieces: BTreeMap::new(),
            piece_bytes: 0,
        }
    }

    pub(super) fn is_unseen(&self) -> bool {
        self.phase == Phase::Unseen
    }

    pub(super) const fn saw_syn(&self) -> bool {
        self.syn
    }

    /// True if this SYN is the one that was seen, sent again.
    pub(super) const fn is_syn(&self, sequence: u32) -> bool {
        self.syn && low_half(self.origin) == sequence.wrapping_add(1)
    }

    /// Bytes kept.
    pub(super) fn waiting(&self) -> usize {
        self.frame.len() + self.piece_bytes
    }

    /// True if bytes wait for what is missing before them.
    pub(super) fn has_gap(&self) -> bool {
        !self.pieces.is_empty()
    }

    /// Bytes of memory kept, besides this struct.
    pub(super) fn memory(&self) -> usize {
        self.frame.capacity() + self.pieces_memory()
    }

    fn pieces_memory(&self) -> usize {
        self.piece_bytes + self.pieces.len() * PIECE_BYTES
    }

    pub(super) const fn has_fin(&self) -> bool {
        self.fin.is_some()
    }

    /// True once everything up to the FIN was taken or given up.
    pub(super) fn has_ended(&self) -> bool {
        self.fin.is_some_and(|fin| fin <= self.next)
    }

    /// Begins with a SYN of this sequence number. What the side had must have been given up.
    pub(super) fn open(&mut self, sequence: u32) {
        self.start(sequence.wrapping_add(1), Phase::Synchronised);
        self.syn = true;
    }

    /// Begins at `sequence` without knowing where messages do.
    pub(super) fn start_amid(&mut self, sequence: u32) {
        self.start(sequence, Phase::Unsynchronised);
    }

    fn start(&mut self, sequence: u32, phase: Phase) {
        // Room below, so that distances back do not go below zero.
        let next = 1 << 32 | u64::from(sequence);
        *self = Self { phase, origin: next, next, ..Self::new() };
    }

    /// Position of a sequence number; `None` if it is too far from what is expected.
    fn position(&self, sequence: u32) -> Option<u64> {
        let distance = sequence.wrapping_sub(low_half(self.next)).cast_signed();
        (distance.unsigned_abs() <= WINDOW).then(|| self.next.wrapping_add_signed(distance.into()))
    }

    /// Takes in payload that was captured at `at_ns`.
    #[inline]
    pub(super) fn data(
        &mut self,
        sequence: u32,
        payload: &[u8],
        at_ns: u64,
        out: &mut impl Outlet,
    ) {
        if payload.is_empty() {
            return;
        }
        if self.phase != Phase::Unseen && low_half(self.next) == sequence && self.pieces.is_empty()
        {
            self.advance(payload, at_ns, out);
        } else {
            self.data_elsewhere(sequence, payload, at_ns, out);
        }
        if self.fin.is_some_and(|fin| fin < self.next) {
            // Data behind the FIN: it was none of this connection.
            self.fin = None;
        }
    }

    /// Takes in payload that is not simply what comes next.
    fn data_elsewhere(&mut self, sequence: u32, payload: &[u8], at_ns: u64, out: &mut impl Outlet) {
        if self.phase == Phase::Unseen {
            self.start_amid(sequence);
            // What came before may have been a message's beginning.
            out.loss(StreamLoss::Unsynchronised, 0, at_ns);
        }
        let mut at = match self.position(sequence) {
            Some(at) => at,
            None => {
                // Another connection between the same ports, whose SYN was not seen.
                self.abandon(StreamLoss::Gap, at_ns, out);
                self.start_amid(sequence);
                self.next
            }
        };
        let mut bytes = payload;
        if at + 1 == self.next && bytes.len() == 1 {
            return out.ignore(StreamIgnored::KeepAlive, 1);
        }
        let early = cut(&mut bytes, self.origin.saturating_sub(at));
        if early > 0 {
            // Sent before the first byte seen, captured behind it.
            out.loss(StreamLoss::Unsynchronised, early, at_ns);
            at += early as u64;
        }
        let repeated = cut(&mut bytes, self.next.saturating_sub(at));
        out.ignore(StreamIgnored::Repeated, repeated);
        at += repeated as u64;
        if bytes.is_empty() {
            return;
        }
        if at > self.next {
            self.keep(at, bytes, at_ns, out);
        } else {
            self.advance_among_pieces(bytes, at_ns, out);
        }
    }

    /// Takes bytes that begin at `next` while pieces wait. A piece came first, so it wins where
    /// both have a byte.
    fn advance_among_pieces(&mut self, bytes: &[u8], at_ns: u64, out: &mut impl Outlet) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let gap =
                self.pieces.first_key_value().map_or(u64::MAX, |(start, _)| start - self.next);
            let length = usize::try_from(gap).map_or(rest.len(), |gap| gap.min(rest.len()));
            let (head, tail) = rest.split_at(length);
            self.advance(head, at_ns, out);
            rest = tail;
            let before = self.next;
            self.advance_pieces(out);
            let repeated = cut(&mut rest, self.next - before);
            out.ignore(StreamIgnored::Repeated, repeated);
        }
    }

    /// Takes the pieces that nothing is missing before.
    fn advance_pieces(&mut self, out: &mut impl Outlet) {
        while let Some(first) = self.pieces.first_entry()
            && *first.key() == self.next
        {
            let piece = first.remove();
            self.piece_bytes -= piece.bytes.len();
            self.advance(&piece.bytes, piece.at_ns, out);
        }
    }

    /// Keeps the bytes from `at` on that no piece has.
    fn keep(&mut self, at: u64, bytes: &[u8], at_ns: u64, out: &mut impl Outlet) {
        let (mut at, mut rest) = (at, bytes);
        if let Some((start, piece)) = self.pieces.range(..at).next_back() {
            let repeated = cut(&mut rest, (start + piece.bytes.len() as u64).saturating_sub(at));
            out.ignore(StreamIgnored::Repeated, repeated);
            at += repeated as u64;
        }
        while !rest.is_empty() {
            let following = self.pieces.range(at..).next();
            let following = following.map(|(start, piece)| (*start - at, piece.bytes.len()));
            let before = rest;
            let hole = cut(&mut rest, following.map_or(u64::MAX, |(hole, _)| hole));
            if hole > 0 {
                self.piece_bytes += hole;
                self.pieces.insert(at, Piece { at_ns, bytes: before[..hole].into() });
            }
            let repeated = cut(&mut rest, following.map_or(0, |(_, length)| length as u64));
            out.ignore(StreamIgnored::Repeated, repeated);
            at += (hole + repeated) as u64;
        }
    }

    /// Takes bytes that begin at `next`.
    #[inline]
    fn advance(&mut self, bytes: &[u8], at_ns: u64, out: &mut impl Outlet) {
        let mut rest = bytes;
        self.next += rest.len() as u64;
        if self.phase != Phase::Synchronised && !self.synchronise(rest, at_ns, out) {
            return;
        }
        if self.skip > 0 {
            let skipped = cut(&mut rest, self.skip);
            self.skip -= skipped as u64;
            out.counts().lose(StreamLoss::Gap, skipped as u64);
        }
        if !self.frame.is_empty() {
            rest = self.fill(rest, at_ns, out);
        }
        while let Some((prefix, behind)) = rest.split_first_chunk()
            && let Some((message, behind)) = behind.split_at_checked(length(prefix))
        {
            out.message(message, at_ns);
            rest = behind;
        }
        if !rest.is_empty() {
            self.append(rest, at_ns);
        }
    }

    /// Takes what the frame lacks; returns what is behind it.
    fn fill<'a>(&mut self, bytes: &'a [u8], at_ns: u64, out: &mut impl Outlet) -> &'a [u8] {
        let mut rest = bytes;
        if self.frame.len() == 1 {
            let prefix = rest;
            let taken = cut(&mut rest, 1);
            self.append(&prefix[..taken], at_ns);
        }
        let Some(prefix) = self.frame.first_chunk() else {
            return rest;
        };
        let missing = (2 + length(prefix)).saturating_sub(self.frame.len());
        let Some((part, behind)) = rest.split_at_checked(missing) else {
            self.append(rest, at_ns);
            return &[];
        };
        let at_ns = at_ns.max(self.frame_at_ns);
        if self.frame.len() == 2 {
            // A prefix sent on its own: the message is whole as it came.
            out.message(part, at_ns);
        } else {
            self.append(part, at_ns);
            out.message(&self.frame[2..], at_ns);
        }
        self.frame = Vec::new();
        behind
    }

    /// Adds to the frame. Its memory at most doubles, and does not exceed its message: the length
    /// alone that a sender states takes none.
    fn append(&mut self, bytes: &[u8], at_ns: u64) {
        self.frame_at_ns = self.frame_at_ns.max(at_ns);
        let need = self.frame.len() + bytes.len();
        if need > self.frame.capacity() {
            let whole = self.frame.first_chunk().map_or(need, |prefix| 2 + length(prefix));
            let room = (2 * self.frame.capacity()).max(64).min(whole).max(need);
            self.frame.reserve_exact(room - self.frame.len());
        }
        self.frame.extend_from_slice(bytes);
    }

    /// Looks for a message that begins with what the frame holds or with `bytes`. True if one does
    /// and `bytes` are to be taken as its part; else they are in the frame, or lost.
    #[cold]
    fn synchronise(&mut self, bytes: &[u8], at_ns: u64, out: &mut impl Outlet) -> bool {
        let tried = self.frame.len();
        if tried > 0 {
            let more = &bytes[..bytes.len().min(ENOUGH)];
            self.append(more, at_ns);
            match judge(&self.frame) {
                Verdict::Begins => {
                    self.frame.truncate(tried);
                    return self.synchronised(out);
                }
                Verdict::Undecided if more.len() == bytes.len() => return false,
                Verdict::Undecided | Verdict::Refused => {
                    self.frame = Vec::new();
                    out.loss(StreamLoss::Unsynchronised, tried, at_ns);
                }
            }
        }
        match judge(bytes) {
            Verdict::Begins => self.synchronised(out),
            Verdict::Undecided => {
                self.append(bytes, at_ns);
                false
            }
            Verdict::Refused => {
                out.loss(StreamLoss::Unsynchronised, bytes.len(), at_ns);
                false
            }
        }
    }

    fn synchronised(&mut self, out: &mut impl Outlet) -> bool {
        self.phase = Phase::Synchronised;
        out.counts().synchronisations += 1;
        true
    }

    /// The other side has everything before `acknowledgement`: what is missing of that was not
    /// captured, and will not be sent again.
    #[inline]
    pub(super) fn acknowledged(&mut self, acknowledgement: u32, at_ns: u64, out: &mut impl Outlet) {
        if low_half(self.next) == acknowledgement || self.phase == Phase::Unseen {
            return;
        }
        let Some(position) = self.position(acknowledgement) else {
            return;
        };
        // A FIN takes a sequence number, and no place among the bytes.
        let position = self.fin.map_or(position, |fin| position.min(fin));
        while self.next < position {
            let first = self.pieces.first_key_value().map_or(position, |(start, _)| *start);
            self.give_up(first.min(position), at_ns, out);
            self.advance_pieces(out);
        }
    }

    /// Gives up gaps until the pieces behind the others take no more memory than this.
    pub(super) fn give_up_beyond(&mut self, memory: usize, at_ns: u64, out: &mut impl Outlet) {
        while self.pieces_memory() > memory {
            self.give_up_first(at_ns, out);
        }
    }

    /// Gives up the gaps before pieces that have waited since `since_ns` or longer.
    pub(super) fn give_up_since(&mut self, since_ns: u64, at_ns: u64, out: &mut impl Outlet) {
        while self.pieces.first_key_value().is_some_and(|(_, piece)| piece.at_ns <= since_ns) {
            self.give_up_first(at_ns, out);
        }
    }

    fn give_up_first(&mut self, at_ns: u64, out: &mut impl Outlet) {
        if let Some((&start, _)) = self.pieces.first_key_value() {
            self.give_up(start, at_ns, out);
            self.advance_pieces(out);
        }
    }

    /// Goes on at `position` without what is missing before it.
    #[cold]
    fn give_up(&mut self, position: u64, at_ns: u64, out: &mut impl Outlet) {
        let missing = position - self.next;
        // What the message that the gap began in still lacks: then the next boundary is known.
        let lacking = match self.frame.first_chunk() {
            Some(prefix) => (2 + length(prefix)).saturating_sub(self.frame.len()) as u64,
            None => self.skip,
        };
        if self.phase == Phase::Synchronised && lacking >= missing && lacking > 0 {
            self.skip = lacking - missing;
        } else {
            self.phase = Phase::Unsynchronised;
            self.skip = 0;
        }
        out.counts().gaps += 1;
        out.counts().bytes_missing += missing;
        out.loss(StreamLoss::Gap, self.frame.len(), at_ns);
        self.frame = Vec::new();
        self.next = position;
    }

    /// Takes note that the side ends behind this sequence number.
    pub(super) fn finish(&mut self, sequence: u32, at_ns: u64, out: &mut impl Outlet) {
        if self.phase == Phase::Unseen {
            self.start_amid(sequence);
        }
        self.fin = self.position(sequence).filter(|fin| *fin >= self.next).or(self.fin);
        self.end_if_over(at_ns, out);
    }

    /// At the FIN, a message that has not ended will not.
    pub(super) fn end_if_over(&mut self, at_ns: u64, out: &mut impl Outlet) {
        if self.has_ended() && !self.frame.is_empty() {
            self.abandon(StreamLoss::Closed, at_ns, out);
        }
    }

    /// True if a RST with this sequence number can be genuine: RFC 5961 §3.2 asks for exactly what
    /// the receiver expects, of which we may have missed some.
    pub(super) fn can_reset(&self, sequence: u32) -> bool {
        if self.phase == Phase::Unseen {
            return false;
        }
        let last = self.pieces.last_key_value();
        let end = last.map_or(self.next, |(start, piece)| start + piece.bytes.len() as u64);
        self.position(sequence).is_some_and(|position| (self.next..=end + 1).contains(&position))
    }

    /// Gives up everything that waits: whole messages behind gaps are handed out, the rest is lost.
    pub(super) fn settle(&mut self, reason: StreamLoss, at_ns: u64, out: &mut impl Outlet) {
        self.give_up_since(u64::MAX, at_ns, out);
        if !self.frame.is_empty() {
            self.abandon(reason, at_ns, out);
        }
    }

    /// Loses everything that waits, and with it the message boundary.
    pub(super) fn abandon(&mut self, reason: StreamLoss, at_ns: u64, out: &mut impl Outlet) {
        let waiting = self.waiting();
        if waiting > 0 {
            out.loss(reason, waiting, at_ns);
            self.phase = Phase::Unsynchronised;
        }
        self.frame = Vec::new();
        self.pieces = BTreeMap::new();
        (self.piece_bytes, self.skip) = (0, 0);
    }
}

/// The length that a prefix states (RFC 1035 §4.2.2).
fn length(prefix: &[u8; 2]) -> usize {
    u16::from_be_bytes(*prefix).into()
}

/// Cuts up to `amount` bytes off the front; returns how many those are.
fn cut(bytes: &mut &[u8], amount: u64) -> usize {
    let amount = usize::try_from(amount).map_or(bytes.len(), |amount| amount.min(bytes.len()));
    *bytes = &bytes[amount..];
    amount
}

const fn low_half(position: u64) -> u32 {
    (position & 0xffff_ffff) as u32
}
