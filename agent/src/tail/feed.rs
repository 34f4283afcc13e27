//! The worker's side: writes records to the followers' queues.

use std::sync::Arc;

use tap53_records::encode::{self, Encode, Record};

use super::{LineFormat, PENDING_BYTES, Queue, Tails};

/// One worker's view of the followers.
pub(crate) struct Feed {
    tails: Tails,
    version: u64,
    following: Vec<Following>,
    encoders: Vec<Encoder>,
}

/// One follower, as a worker sees it.
struct Following {
    queue: Arc<Queue>,
    /// Lines since the last delivery.
    lines: Vec<u8>,
    /// Number of these lines.
    count: u64,
    /// Number of lines that were not written because the queue was full.
    lost: u64,
}

/// Encodes a record once for all followers of a format.
struct Encoder {
    encode: Box<dyn Encode>,
    line: Vec<u8>,
    /// Set if `line` is the current record's.
    written: bool,
}

impl Feed {
    /// # Errors
    /// When an encoder cannot be created.
    pub(crate) fn new(tails: Tails) -> Result<Self, encode::Error> {
        let mut encoders = Vec::with_capacity(LineFormat::ALL.len());
        for format in LineFormat::ALL {
            let encode = format.format().build()?;
            encoders.push(Encoder { encode, line: Vec::new(), written: false });
        }
        // The first refresh sees another version.
        Ok(Self { tails, version: u64::MAX, following: Vec::new(), encoders })
    }

    /// Updates the list of followers; called once a batch, before its first record.
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

    /// Writes a record for each follower that selects it.
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
            if !following.queue.filter.matches(record) {
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

    /// Passes the lines to the queues.
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
    /// Returns the record's line, which the first call encodes; `None` if it cannot be encoded.
    fn line_of(&mut self, record: &Record<'_>) -> Option<&[u8]> {
        if !self.written {
            self.line.clear();
            // An error leaves the line empty, and is not tried again.
            let _ = self.encode.encode(record, &mut self.line);
            self.written = true;
        }
        Some(self.line.as_slice()).filter(|line| !line.is_empty())
    }
}
