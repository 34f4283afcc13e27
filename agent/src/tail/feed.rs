//! The worker's side: writes records to the followers' queues.

use std::sync::Arc;

use tap53_records::encode::{self, Encode, Record, Row};

use super::{
    LineFormat, PENDING_BYTES, Queue, Tails,
    counting::{self, WorkerTally},
    datum,
    recent::{DatumEncoder, RecentRecords},
};

/// One worker's view of the followers.
pub(crate) struct Feed {
    tails: Tails,
    version: u64,
    following: Vec<Following>,
    /// The counts for followers that get no lines.
    tallies: Vec<WorkerTally>,
    encoders: Vec<Encoder>,
    /// The latest records; `None` if they are not kept.
    recent: Option<RecentRecords>,
    /// Encodes records for `recent` if no sink does.
    datum: DatumEncoder,
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
    format: LineFormat,
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
            let encode = format.build()?;
            encoders.push(Encoder { format, encode, line: Vec::new(), written: false });
        }
        let recent = tails.join().map(RecentRecords::new);
        // The first refresh sees another version.
        let (version, following, tallies) = (u64::MAX, Vec::new(), Vec::new());
        let datum = DatumEncoder::default();
        Ok(Self { tails, version, following, tallies, encoders, recent, datum })
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
        for queue in queues.iter().filter(|queue| queue.wants_past) {
            if !self.following.iter().any(|known| Arc::ptr_eq(&known.queue, queue)) {
                let snapshot = self.recent.as_ref().map(RecentRecords::snapshot);
                queue.add_snapshot(snapshot.unwrap_or_default());
            }
        }
        let following = |queue| Following { queue, lines: Vec::new(), count: 0, lost: 0 };
        self.following = queues.into_iter().map(following).collect();
        self.refresh_tallies();
    }

    fn refresh_tallies(&mut self) {
        let wanted = self.tails.tallies().clone();
        self.tallies.retain(|known| wanted.iter().any(|it| Arc::ptr_eq(it, &known.tally)));
        for tally in wanted {
            if !self.tallies.iter().any(|known| Arc::ptr_eq(&known.tally, &tally)) {
                self.tallies.push(WorkerTally::new(tally));
            }
        }
    }

    /// Writes a record for each follower that selects it, and keeps it as a recent one. `encoded` is its
    /// Avro datum, if a sink has encoded it.
    #[inline]
    pub(crate) fn push(&mut self, record: &Record<'_>, encoded: Option<&[u8]>) {
        if let Some(recent) = &mut self.recent
            && let Some(datum) = encoded.or_else(|| self.datum.encode(record))
        {
            recent.push(datum);
        }
        if !self.following.is_empty() {
            self.push_to_each(record, encoded);
        }
    }

    /// Returns true if a follower gets counts.
    #[inline]
    pub(crate) fn is_counting(&self) -> bool {
        !self.tallies.is_empty()
    }

    /// Counts a transaction for each follower that gets counts and selects it, whether or not it becomes a
    /// record.
    #[inline]
    pub(crate) fn count(&mut self, record: &Record<'_>) {
        if self.is_counting() {
            counting::count(&mut self.tallies, record);
        }
    }

    #[cold]
    fn push_to_each(&mut self, record: &Record<'_>, encoded: Option<&[u8]>) {
        for encoder in &mut self.encoders {
            encoder.written = false;
        }
        let row = Row::of(record);
        for following in &mut self.following {
            if !following.queue.filter.matches(&row) {
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
            match encoder.line_of(record, encoded) {
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

    /// Passes the lines to the queues, and the counts to their followers.
    pub(crate) fn deliver(&mut self) {
        for following in &mut self.following {
            following.deliver();
        }
        self.tallies.iter_mut().for_each(WorkerTally::publish);
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.tails.leave();
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
    /// `encoded` is the record's Avro datum, if there is one.
    fn line_of(&mut self, record: &Record<'_>, encoded: Option<&[u8]>) -> Option<&[u8]> {
        if !self.written {
            self.line.clear();
            match (self.format, encoded) {
                (LineFormat::Avro, Some(datum)) => datum::push_line(datum, &mut self.line),
                // An error leaves the line empty, and is not tried again.
                _ => drop(self.encode.encode(record, &mut self.line)),
            }
            self.written = true;
        }
        Some(self.line.as_slice()).filter(|line| !line.is_empty())
    }
}
