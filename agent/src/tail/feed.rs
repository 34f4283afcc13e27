//! A worker's side: from a record to the queues of those who follow.

use std::sync::Arc;

use tap53_records::encode::{self, Encode, Record};

use super::{LineFormat, PENDING_BYTES, Queue, Tails};

/// One worker's way to the followers.
pub(crate) struct Feed {
    tails: Tails,
    version: u64,
    following: Vec<Following>,
    encoders: Vec<Encoder>,
}

/// One follower, as a worker sees it.
struct Following {
    queue: Arc<Queue>,
    /// Lines since the last hand-over, their number, and that of those that were not written since
    /// the queue was full.
    lines: Vec<u8>,
    count: u64,
    lost: u64,
}

/// Writes a record once for all who want the same format.
struct Encoder {
    encode: Box<dyn Encode>,
    line: Vec<u8>,
    /// Whether `line` is of the record at hand.
    written: bool,
}

impl Feed {
    /// # Errors
    /// When an encoder cannot be made.
    pub(crate) fn new(tails: Tails) -> Result<Self, encode::Error> {
        let mut encoders = Vec::with_capacity(LineFormat::ALL.len());
        for format in LineFormat::ALL {
            let encode = format.format().build()?;
            encoders.push(Encoder { encode, line: Vec::new(), written: false });
        }
        // What the first look finds is new.
        Ok(Self { tails, version: u64::MAX, following: Vec::new(), encoders })
    }

    /// Looks who follows; once a batch, before its first record.
    pub(crate) fn refresh(&mut self) {
        let version = self.tails.version();
        if version == self.version {
            return;
        }
        self.deliver();
        self.version = version;
        let queues = self.tails.queues().clone();
        let following = |queue| Following { queue, lines: Vec::new(), count: 0, lost: 0 };
        self.following = queues.into_iter().map(following).collect();
    }

    /// Writes a record for each follower that chose it.
    #[inline]
    pub(crate) fn push(&mut self, record: &Record<'_>) {
        if !self.following.is_empty() {
            self.push_to_each(record);
        }
    }

    #[cold]
    fn push_to_each(&mut self, record: &Record<'_>) {
        for encoder in &mut self.encoders {
            encoder.written = false;
        }
        for following in &mut self.following {
            if !following.queue.chosen.holds(record) {
                continue;
            }
            if following.queue.is_full() {
                following.lost += 1;
                continue;
            }
            // The index of a format is its position.
            let Some(encoder) = self.encoders.get_mut(following.queue.format as usize) else {
                continue;
            };
            match encoder.line_of(record) {
                Some(line) => {
                    following.lines.extend_from_slice(line);
                    following.count += 1;
                }
                None => following.lost += 1,
            }
            if following.lines.len() >= PENDING_BYTES {
                following.deliver();
            }
        }
    }

    /// Hands what was written to the queues.
    pub(crate) fn deliver(&mut self) {
        for following in &mut self.following {
            following.deliver();
        }
    }
}

impl Following {
    fn deliver(&mut self) {
        if self.count == 0 && self.lost == 0 {
            return;
        }
        self.queue.push(&self.lines, self.count, self.lost);
        self.lines.clear();
        (self.count, self.lost) = (0, 0);
    }
}

impl Encoder {
    /// The record's line, written at the first call for it; `None` where it cannot be written.
    fn line_of(&mut self, record: &Record<'_>) -> Option<&[u8]> {
        if !self.written {
            self.line.clear();
            // What cannot be written leaves nothing, which is then as good as written.
            let _ = self.encode.encode(record, &mut self.line);
            self.written = true;
        }
        Some(self.line.as_slice()).filter(|line| !line.is_empty())
    }
}
