//! Recent records in memory, for followers that begin in the past.
//!
//! ```text
//!  worker ─▶ RecentRecords (its own, two halves) ─▶ a copy for a new follower ─▶ Past: select, decode
//! ```
//!
//! Each worker keeps its latest records as Avro, up to its share of `control.recent_bytes`: an
//! assignment of bytes that a sink has encoded anyway. Nothing is shared with other threads. When a
//! worker first sees a follower that begins in the past, it copies its records to the follower's queue.
//! Its next records go there as lines, so the follower gets each record once, and misses none.

use std::ops::Range;

use tap53_records::encode::{self, Encode, Profile, Row, push_json_line};

use super::{LineFormat, datum::push_line, selection::RecordFilter};

/// Size in bytes of the length that precedes a record.
const LENGTH: usize = size_of::<u32>();

/// Number of records that are decoded at a time.
const CHUNK: usize = 64;

/// The latest records of a worker. When one half is full, the other one's records are dropped.
#[derive(Debug)]
pub(super) struct RecentRecords {
    /// Capacity of each half in bytes.
    half: usize,
    older: Vec<u8>,
    newer: Vec<u8>,
    /// Set once a record was dropped, or did not fit.
    dropped: bool,
}

impl RecentRecords {
    /// Creates an empty memory of at most `bytes`.
    pub(super) const fn new(bytes: usize) -> Self {
        Self { half: bytes / 2, older: Vec::new(), newer: Vec::new(), dropped: false }
    }

    /// Adds the Avro datum of a record.
    #[inline]
    pub(super) fn push(&mut self, datum: &[u8]) {
        if self.newer.len() + LENGTH + datum.len() > self.half {
            self.turn();
        }
        match u32::try_from(datum.len()) {
            Ok(length) if LENGTH + datum.len() <= self.half => {
                self.newer.extend_from_slice(&length.to_le_bytes());
                self.newer.extend_from_slice(datum);
            }
            _ => self.dropped = true,
        }
    }

    /// Starts the other half.
    #[cold]
    fn turn(&mut self) {
        std::mem::swap(&mut self.older, &mut self.newer);
        self.dropped |= !self.newer.is_empty();
        self.newer.clear();
        // Once for each half; pages that are not used cost nothing.
        self.newer.reserve_exact(self.half);
    }

    /// Returns a copy, for one follower.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot { bytes: [&self.older[..], &self.newer].concat(), dropped: self.dropped }
    }
}

/// A copy of a worker's recent records.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    bytes: Vec<u8>,
    dropped: bool,
}

impl Snapshot {
    /// Returns where each record is, the oldest first.
    fn ranges(&self) -> Vec<Range<usize>> {
        let mut ranges = Vec::new();
        let mut at = 0;
        while let Some(length) = self.bytes.get(at..).and_then(<[u8]>::first_chunk::<LENGTH>) {
            let start = at + LENGTH;
            at = start + u32::from_le_bytes(*length) as usize;
            ranges.push(start..at);
        }
        ranges
    }

    fn datum(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }
}

/// The part of the past that a follower wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Maximum number of records; the latest ones.
    pub last: Option<u64>,
    /// Earliest end of a transaction, in microseconds since 1970 UTC.
    pub since_us: Option<i64>,
}

/// The records of the past that a follower gets.
pub struct Past {
    format: LineFormat,
    snapshots: Vec<Snapshot>,
    /// The workers' records in order of time: snapshot, and place in it.
    selected: Vec<(usize, Range<usize>)>,
    /// Number of records that were written.
    written: usize,
    is_complete: bool,
}

impl Past {
    /// Selects records from the workers' copies. This takes some 50 µs for each record that they
    /// have, so it is no work for a thread that others wait for.
    pub(super) fn new(
        snapshots: Vec<Snapshot>,
        wanted: Wanted,
        filter: &RecordFilter,
        format: LineFormat,
    ) -> Self {
        let limit =
            wanted.last.map_or(usize::MAX, |last| usize::try_from(last).unwrap_or(usize::MAX));
        let since_us = wanted.since_us.unwrap_or(i64::MIN);
        let mut selected = Vec::new();
        let mut reaches_since = true;
        for (number, snapshot) in snapshots.iter().enumerate() {
            let mut is_older_there = false;
            for range in snapshot.ranges() {
                // A worker has encoded it, so it can be read.
                let Some(row) = read(snapshot.datum(&range)) else { continue };
                let ended_us = ended_us(&row);
                if ended_us < since_us {
                    is_older_there = true;
                } else if filter.matches(&row) {
                    selected.push((ended_us, number, range));
                }
            }
            reaches_since &= is_older_there || !snapshot.dropped;
        }
        let is_complete = reaches_since || selected.len() >= limit;
        selected.sort_by_key(|(ended_us, ..)| *ended_us);
        selected.drain(..selected.len().saturating_sub(limit));
        let selected = selected.into_iter().map(|(_, number, range)| (number, range)).collect();
        Self { format, snapshots, selected, written: 0, is_complete }
    }

    /// Returns the same records, of which some are missing.
    pub(super) fn incomplete(self) -> Self {
        Self { is_complete: false, ..self }
    }

    /// Returns the number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.selected.len()
    }

    /// Returns true if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.selected.is_empty()
    }

    /// Returns false if there were more that the memory has dropped.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Returns the lines of some more records; `None` after the last one.
    pub fn next_lines(&mut self) -> Option<Vec<u8>> {
        let rest = self.selected.get(self.written..).filter(|rest| !rest.is_empty())?;
        let chunk = rest.get(..CHUNK).unwrap_or(rest);
        let mut lines = Vec::new();
        for (number, range) in chunk {
            let datum = self.snapshots.get(*number).map_or(&[][..], |it| it.datum(range));
            // Selecting has read it before, so it can be read.
            let _ = self.format.push_line(datum, &mut lines);
        }
        self.written += chunk.len();
        Some(lines)
    }
}

impl LineFormat {
    /// Appends the line of a record in Avro.
    fn push_line(self, datum: &[u8], lines: &mut Vec<u8>) -> Result<(), encode::Error> {
        match self {
            Self::Json => return push_json_line(Profile::Full, datum, lines),
            Self::Avro => {
                push_line(datum, lines);
                return Ok(());
            }
            Self::Text | Self::ColoredText | Self::Row => {}
        }
        let mut json = Vec::new();
        push_json_line(Profile::Full, datum, &mut json)?;
        let row = Row::from_json(&json)?;
        match self.format() {
            encode::Format::Text(options) => {
                let mut line = String::new();
                encode::Text::new(options).push(&row, &mut line);
                lines.extend_from_slice(line.as_bytes());
            }
            _ => {
                serde_json::to_writer(&mut *lines, &row)?;
                lines.push(b'\n');
            }
        }
        Ok(())
    }
}

fn read(datum: &[u8]) -> Option<Row<'static>> {
    let mut json = Vec::new();
    push_json_line(Profile::Full, datum, &mut json).ok()?;
    Row::from_json(&json).ok()
}

/// Returns the time at which a transaction ended, as far as it was seen.
fn ended_us(row: &Row<'_>) -> i64 {
    row.response_time.or(row.query_time).unwrap_or_default().0
}

/// Encodes records for the memory if no sink does.
#[derive(Default)]
pub(super) struct DatumEncoder {
    encoder: encode::Datum,
    datum: Vec<u8>,
}

impl DatumEncoder {
    /// Returns the Avro datum; `None` if the record cannot be encoded.
    pub(super) fn encode(&mut self, record: &encode::Record<'_>) -> Option<&[u8]> {
        self.datum.clear();
        self.encoder.encode(record, &mut self.datum).ok()?;
        Some(&self.datum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tail::Selection;
    use tap53_records::encode::samples;

    fn datum(name: &str) -> Vec<u8> {
        let mut encoder = DatumEncoder::default();
        samples::with_record(name, |record| encoder.encode(record).unwrap().to_vec())
    }

    fn past(snapshots: Vec<Snapshot>, wanted: Wanted, selection: &Selection) -> Past {
        Past::new(snapshots, wanted, &RecordFilter::new(selection), LineFormat::Json)
    }

    fn lines(mut past: Past) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(more) = past.next_lines() {
            let more = String::from_utf8(more).unwrap();
            lines.extend(more.lines().map(str::to_owned));
        }
        lines
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_the_latest() {
        let mut recent = RecentRecords::new(2_000);
        for number in 0..10_000_u32 {
            recent.push(&number.to_le_bytes());
            assert!(recent.older.capacity() + recent.newer.capacity() <= 4_000);
        }
        let snapshot = recent.snapshot();
        assert!(snapshot.dropped && snapshot.bytes.len() <= 2_000);
        let numbers: Vec<u32> = snapshot
            .ranges()
            .iter()
            .map(|range| u32::from_le_bytes(snapshot.datum(range).try_into().unwrap()))
            .collect();
        assert!(numbers.len() >= 125, "{}", numbers.len());
        let first = 10_000 - u32::try_from(numbers.len()).unwrap();
        assert_eq!(numbers, (first..10_000).collect::<Vec<_>>());
        // One that does not fit is not there, and the others are.
        recent.push(&[0; 1_001]);
        recent.push(&[7; 4]);
        assert!(recent.snapshot().bytes.ends_with(&[4, 0, 0, 0, 7, 7, 7, 7]));
    }

    #[test]
    fn the_latest_records_of_all_workers_are_selected_in_order_of_time() {
        let mut workers = [RecentRecords::new(1 << 20), RecentRecords::new(1 << 20)];
        workers[0].push(&datum("matched"));
        workers[0].push(&datum("unanswered"));
        workers[1].push(&datum("unanswered"));
        workers[1].push(&datum("response"));
        let snapshots = || workers.iter().map(RecentRecords::snapshot).collect::<Vec<_>>();
        let all = past(snapshots(), Wanted::default(), &Selection::default());
        assert!(all.is_complete());
        let outcomes = |past| {
            let outcome = |line: &String| {
                let record: serde_json::Value = serde_json::from_str(line).unwrap();
                record["outcome"].as_str().unwrap().to_owned()
            };
            lines(past).iter().map(outcome).collect::<Vec<_>>()
        };
        let expected = ["UNANSWERED", "UNANSWERED", "MATCHED", "UNMATCHED_RESPONSE"];
        assert_eq!(outcomes(all), expected);
        let last = |last| Wanted { last: Some(last), since_us: None };
        assert_eq!(outcomes(past(snapshots(), last(2), &Selection::default())), expected[2..]);
        assert!(past(snapshots(), last(0), &Selection::default()).is_empty());
        let unanswered = Selection { unanswered: true, ..Selection::default() };
        assert_eq!(outcomes(past(snapshots(), last(9), &unanswered)), expected[..2]);
        let since = Wanted { last: None, since_us: Some(1_700_000_000_001_250) };
        assert_eq!(outcomes(past(snapshots(), since, &Selection::default())), expected[2..]);
    }

    #[test]
    fn what_the_memory_has_dropped_is_reported() {
        let matched = datum("matched");
        let mut recent = RecentRecords::new(6 * (matched.len() + LENGTH));
        (0..20).for_each(|_| recent.push(&matched));
        let get = |last| {
            let wanted = Wanted { last: Some(last), since_us: None };
            let past = past(vec![recent.snapshot()], wanted, &Selection::default());
            (past.len(), past.is_complete())
        };
        assert_eq!(get(2), (2, true));
        let (kept, is_complete) = get(20);
        assert!((3..=6).contains(&kept) && !is_complete, "{kept}");
    }
}
