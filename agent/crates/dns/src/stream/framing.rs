//! Splits bytes in order into messages: each has a length prefix of two bytes (RFC 1035 §4.2.2).

use super::{
    StreamLoss,
    begins::{MAX_JUDGED, Verdict, judge},
    outlet::Outlet,
};

/// The position of a side's bytes in its messages.
pub(super) struct Framing {
    /// False while no message boundary is known. `frame` then contains bytes that may or may not
    /// start a message.
    synchronised: bool,
    /// The incomplete message, including its length prefix.
    frame: Vec<u8>,
    /// Capture time of the latest byte of the frame, in nanoseconds.
    frame_at_ns: u64,
    /// Number of following bytes that belong to a message of which a part is missing.
    skip: u64,
}

impl Framing {
    /// Creates a framing for bytes that start with a message, like those after a SYN, or for
    /// others.
    pub(super) const fn new(synchronised: bool) -> Self {
        Self { synchronised, frame: Vec::new(), frame_at_ns: 0, skip: 0 }
    }

    /// Returns the number of stored bytes.
    pub(super) const fn waiting(&self) -> usize {
        self.frame.len()
    }

    /// Returns the memory in bytes, besides this struct.
    pub(super) const fn memory(&self) -> usize {
        self.frame.capacity()
    }

    /// Processes the next bytes, captured at `at_ns`, which start at the start of a segment or
    /// continue one.
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

    /// Appends the missing bytes of the frame; returns the bytes after it.
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
            // The prefix was sent separately: the message is complete in this segment.
            out.message(part, at_ns);
        } else {
            self.append(part, at_ns);
            out.message(&self.frame[2..], at_ns);
        }
        self.frame = Vec::new();
        behind
    }

    /// Returns the number of missing bytes of the frame's message; `None` if its length is unknown.
    fn missing(&self) -> Option<usize> {
        let prefix = self.frame.first_chunk()?;
        Some((2 + length(prefix)).saturating_sub(self.frame.len()))
    }

    /// Appends to the frame. Its memory at most doubles, and does not exceed its message: a claimed
    /// length alone takes no memory.
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

    /// Looks for a message that starts with the frame or with `bytes`. Returns true if one does and
    /// `bytes` are to be processed as its part; otherwise they were added to the frame, or lost.
    #[cold]
    fn synchronise(&mut self, bytes: &[u8], at_ns: u64, out: &mut impl Outlet) -> bool {
        let tried = self.frame.len();
        if tried > 0 {
            let more = &bytes[..bytes.len().min(MAX_JUDGED)];
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

    /// Continues after `missing` bytes that will not arrive.
    pub(super) fn skip_gap(&mut self, missing: u64, at_ns: u64, out: &mut impl Outlet) {
        // If the gap ends within the message that it began in, the next boundary is known.
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

    /// Loses the incomplete message, and with it the boundary after it.
    pub(super) fn lose(&mut self, reason: StreamLoss, at_ns: u64, out: &mut impl Outlet) {
        if !self.frame.is_empty() {
            out.loss(reason, self.frame.len(), at_ns);
            *self = Self::new(false);
        }
    }
}

/// Returns the length in a prefix.
fn length(prefix: &[u8; 2]) -> usize {
    u16::from_be_bytes(*prefix).into()
}

/// Removes up to `amount` bytes from the front; returns their number.
pub(super) fn cut(bytes: &mut &[u8], amount: u64) -> usize {
    let amount = usize::try_from(amount).map_or(bytes.len(), |amount| amount.min(bytes.len()));
    *bytes = &bytes[amount..];
    amount
}
