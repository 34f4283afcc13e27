//! Bytes in order become messages: each follows two bytes that state its length (RFC 1035 §4.2.2).

use super::{
    StreamLoss,
    begins::{ENOUGH, Verdict, judge},
    outlet::Outlet,
};

/// Where a side's bytes are in its messages.
pub(super) struct Framing {
    /// False while no message boundary is known. `frame` then holds bytes of which it cannot be
    /// told yet whether a message begins with them.
    synchronised: bool,
    /// The message that goes on in the next bytes, its length prefix included.
    frame: Vec<u8>,
    /// When the latest byte of the frame was captured, nanoseconds.
    frame_at_ns: u64,
    /// How many of the next bytes belong to a message of which a part is missing.
    skip: u64,
}

impl Framing {
    /// For bytes that begin with a message, as those behind a SYN do, or amid one.
    pub(super) const fn new(synchronised: bool) -> Self {
        Self { synchronised, frame: Vec::new(), frame_at_ns: 0, skip: 0 }
    }

    /// Bytes kept.
    pub(super) const fn waiting(&self) -> usize {
        self.frame.len()
    }

    /// Bytes of memory kept, besides this struct.
    pub(super) const fn memory(&self) -> usize {
        self.frame.capacity()
    }

    /// Takes the next bytes, captured at `at_ns`, which begin where a segment did or continue one.
    #[inline]
    pub(super) fn take(&mut self, bytes: &[u8], at_ns: u64, out: &mut impl Outlet) {
        let mut rest = bytes;
        if !self.synchronised && !self.synchronise(rest, at_ns, out) {
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
            out.counts().steps += 1;
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
        let Some(missing) = self.missing() else {
            return rest;
        };
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

    /// What the frame's message lacks; `None` where its length is not known.
    fn missing(&self) -> Option<usize> {
        let prefix = self.frame.first_chunk()?;
        Some((2 + length(prefix)).saturating_sub(self.frame.len()))
    }

    /// Adds to the frame. Its memory at most doubles, and does not exceed its message: the length
    /// alone that a sender states takes none.
    fn append(&mut self, bytes: &[u8], at_ns: u64) {
        let earlier = if self.frame.is_empty() { 0 } else { self.frame_at_ns };
        self.frame_at_ns = earlier.max(at_ns);
        let need = self.frame.len() + bytes.len();
        if need > self.frame.capacity() {
            let whole = self.missing().map_or(need, |missing| self.frame.len() + missing);
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
            match judge(&self.frame, &mut out.counts().steps) {
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
        match judge(bytes, &mut out.counts().steps) {
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
        self.synchronised = true;
        out.counts().synchronisations += 1;
        true
    }

    /// Goes on behind `missing` bytes that will not come.
    pub(super) fn skip_gap(&mut self, missing: u64, at_ns: u64, out: &mut impl Outlet) {
        // What the message that the gap begins in still lacks: then the next boundary is known.
        let lacking = self.missing().map_or(self.skip, |missing| missing as u64);
        if self.synchronised && lacking >= missing {
            self.skip = lacking - missing;
        } else {
            (self.synchronised, self.skip) = (false, 0);
        }
        out.counts().gaps += 1;
        out.counts().bytes_missing += missing;
        out.loss(StreamLoss::Gap, self.frame.len(), at_ns);
        self.frame = Vec::new();
    }

    /// Loses the message that has not ended, and with it the boundary behind it.
    pub(super) fn lose(&mut self, reason: StreamLoss, at_ns: u64, out: &mut impl Outlet) {
        if !self.frame.is_empty() {
            out.loss(reason, self.frame.len(), at_ns);
            *self = Self::new(false);
        }
    }
}

/// The length that a prefix states.
fn length(prefix: &[u8; 2]) -> usize {
    u16::from_be_bytes(*prefix).into()
}

/// Cuts up to `amount` bytes off the front; returns how many those are.
pub(super) fn cut(bytes: &mut &[u8], amount: u64) -> usize {
    let amount = usize::try_from(amount).map_or(bytes.len(), |amount| amount.min(bytes.len()));
    *bytes = &bytes[amount..];
    amount
}
