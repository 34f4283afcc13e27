//! Standard output.
//!
//! A line is either complete or terminated. A batch takes as many writes as necessary, also if the
//! reader is slow and the pipe is non-blocking. If the rest of a line cannot be written, the next batch
//! begins with a line feed.

use std::{
    io::{self, ErrorKind, Write},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use parking_lot::Mutex;
use tap53_base::{
    amount::Amount,
    clock::monotonic_ns,
    vitals::{Reached, SinkTimings},
};
use tap53_ledger::{Published, SinkCounts, SinkLoss};
use tap53_records::encode::{Batch, Format};
use tokio::sync::Notify;

use super::Sink;

/// Writes whole batches, so that lines of different workers do not mix.
pub(super) struct Stdout<W = StandardOutput> {
    format: Format,
    counts: Published<SinkCounts>,
    stop: Arc<Notify>,
    out: Mutex<Lines<W>>,
    timings: SinkTimings,
}

/// Writes to the descriptor itself: std's buffer keeps the part that it could not write.
pub(super) struct StandardOutput(io::Stdout);

impl Write for StandardOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(nix::unistd::write(&self.0, bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for StandardOutput {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The output, with the state that keeps lines apart.
struct Lines<W> {
    out: W,
    /// True if the last byte that was written is not a line feed.
    torn: bool,
    /// The lines above the first record, until they are written.
    heading: String,
    /// True after a failed write, until one succeeds: each outage is logged once.
    failing: bool,
}

impl Stdout {
    pub(super) fn new(format: Format, stop: Arc<Notify>) -> Self {
        Self::to(StandardOutput(io::stdout()), format, stop)
    }
}

impl<W: Write + AsFd + Send> Stdout<W> {
    fn to(out: W, format: Format, stop: Arc<Notify>) -> Self {
        // None in practice: memory can be written to.
        let heading = format.heading().unwrap_or_default();
        Self {
            format,
            counts: Published::default(),
            stop,
            out: Mutex::new(Lines { out, torn: false, heading, failing: false }),
            timings: SinkTimings::default(),
        }
    }
}

impl<W: Write + AsFd> Lines<W> {
    /// Writes a batch; returns the number of bytes that were written, and the error that stopped it.
    fn write_batch(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        if self.torn
            && let (_, Err(error)) = self.write_all(b"\n")
        {
            return (0, Err(error));
        }
        if !self.heading.is_empty() {
            let heading = std::mem::take(&mut self.heading);
            if let (_, Err(error)) = self.write_all(heading.as_bytes()) {
                self.heading = heading;
                return (0, Err(error));
            }
        }
        self.write_all(bytes)
    }

    fn write_all(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match self.out.write(rest) {
                Ok(0) => return (written, Err(ErrorKind::WriteZero.into())),
                Ok(count) => {
                    written += count;
                    self.torn = bytes.get(written - 1) != Some(&b'\n');
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A non-blocking pipe is full.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if let Err(error) = self.wait_for_room() {
                        return (written, Err(error));
                    }
                }
                Err(error) => return (written, Err(error)),
            }
        }
        (written, Ok(()))
    }

    /// Waits for room, as a blocking pipe would. It ends if the reader is gone.
    fn wait_for_room(&self) -> io::Result<()> {
        let mut polled = [PollFd::new(self.out.as_fd(), PollFlags::POLLOUT)];
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Returns the amount of records in `batch` whose lines end within `bytes`.
fn amount_within(batch: &Batch, bytes: usize) -> Amount {
    let mut amount = Amount::default();
    let mut end = 0;
    for (line, entry) in batch.iter() {
        end += line.len();
        if end > bytes {
            break;
        }
        amount += Amount::record(entry.messages.into());
    }
    amount
}

impl<W: Write + AsFd + Send> Sink for Stdout<W> {
    fn format(&self) -> Format {
        self.format
    }

    fn counts(&self) -> &Published<SinkCounts> {
        &self.counts
    }

    fn timings(&self) -> Option<&SinkTimings> {
        Some(&self.timings)
    }

    fn write(&self, batch: &Batch) {
        let amount = super::amount(batch);
        let mut out = self.out.lock();
        let (bytes, written) = out.write_batch(batch.bytes());
        let delivered = if written.is_ok() { amount } else { amount_within(batch, bytes) };
        let mut lost = amount;
        lost -= delivered;
        self.counts.update(|counts| {
            counts.offer(amount);
            counts.delivered += delivered;
            match &written {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    counts.lose(SinkLoss::Closed, lost);
                }
                Err(_) => counts.lose(SinkLoss::WriteFailed, lost),
            }
        });
        let was_failing = std::mem::replace(&mut out.failing, written.is_err());
        drop(out);
        match written {
            Ok(()) => {
                self.timings.all_reached(Reached::Written, batch.answered_at_ns(), monotonic_ns())
            }
            Err(error) if error.kind() == ErrorKind::BrokenPipe => self.stop.notify_one(),
            Err(error) if !was_failing => {
                tracing::error!(event = "stdout_write_failed", %error, "cannot write to standard output; records are lost and counted");
            }
            _ => {}
        }
    }

    fn tick(&self, _now: Instant) {}

    fn close(&self, _deadline: Duration) {}
}

#[cfg(test)]
mod tests {
    use std::{
        io::{PipeReader, PipeWriter, Read, pipe},
        thread,
    };

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;
    use tap53_records::encode::samples;

    fn batch(records: usize) -> Batch {
        let mut batch = Batch::default();
        let mut encoder = Format::Json.build().unwrap();
        for _ in 0..records {
            samples::with_record("matched", |record| batch.push(&mut *encoder, record).unwrap());
        }
        batch
    }

    /// A pipe that does not block, and a sink that writes to it.
    fn to_pipe<W: Write + AsFd + Send>(
        wrap: impl FnOnce(PipeWriter) -> W,
    ) -> (PipeReader, Stdout<W>) {
        let (reader, writer) = pipe().unwrap();
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        (reader, Stdout::to(wrap(writer), Format::Json, Arc::default()))
    }

    /// Lines, each of which must be a whole record.
    fn whole_lines(text: &str) -> usize {
        for line in text.lines() {
            let parsed: Result<serde_json::Value, _> = serde_json::from_str(line);
            parsed.unwrap_or_else(|error| panic!("{error} in {line}"));
        }
        text.lines().count()
    }

    #[test]
    fn a_full_pipe_that_does_not_block_loses_nothing() {
        const RECORDS: usize = 400;
        let (mut reader, sink) = to_pipe(|writer| writer);
        let batch = batch(RECORDS);
        // More than a pipe holds, so that it is full before anybody reads.
        assert!(batch.bytes().len() > 2 * 65_536);
        let text = thread::scope(|scope| {
            scope.spawn(|| {
                sink.write(&batch);
                drop(sink);
            });
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        assert_eq!(whole_lines(&text), RECORDS);
    }

    #[test]
    fn a_reader_that_goes_away_ends_the_wait() {
        let (reader, sink) = to_pipe(|writer| writer);
        let batch = batch(400);
        thread::scope(|scope| {
            scope.spawn(|| sink.write(&batch));
            let mut first = [0; 1];
            (&reader).read_exact(&mut first).unwrap();
            drop(reader);
        });
        let counts = sink.counts().read();
        let delivered = counts.delivered.records;
        assert!((1..400).contains(&delivered), "{delivered} fit the pipe");
        assert_eq!(counts.lost[SinkLoss::Closed as usize].records, 400 - delivered);
        assert_eq!(counts.offered.records, 400);
    }

    /// Fails a single time, after this number of bytes.
    struct FailingPipe {
        out: PipeWriter,
        after: Option<usize>,
    }

    impl Write for FailingPipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.after {
                Some(0) => {
                    self.after = None;
                    Err(io::Error::from_raw_os_error(libc::ENOSPC))
                }
                Some(after) => {
                    let count = self.out.write(bytes.get(..after).unwrap_or(bytes))?;
                    self.after = Some(after - count);
                    Ok(count)
                }
                None => self.out.write(bytes),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl AsFd for FailingPipe {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.out.as_fd()
        }
    }

    #[test]
    fn a_torn_line_is_not_glued_to_the_next_and_whole_ones_count_as_delivered() {
        let batch = batch(3);
        let line = batch.bytes().len() / 3;
        for (after, whole) in [(line + line / 2, 1), (line, 1), (2 * line - 1, 1), (0, 0)] {
            let (mut reader, sink) = to_pipe(|out| FailingPipe { out, after: Some(after) });
            sink.write(&batch);
            let counts = sink.counts().read();
            assert_eq!(counts.delivered.records, whole, "{after}");
            assert_eq!(counts.lost[SinkLoss::WriteFailed as usize].records, 3 - whole);
            sink.write(&batch);
            let counts = sink.counts().read();
            assert_eq!((counts.offered.records, counts.delivered.records), (6, 3 + whole));
            drop(sink);
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            let torn = after % line != 0;
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines.len() as u64, whole + u64::from(torn) + 3, "{after}");
            let is_whole = |line: &&&str| serde_json::from_str::<serde_json::Value>(line).is_ok();
            let parsed = lines.iter().filter(is_whole).count() as u64;
            // A line without its line feed is whole all the same.
            assert!(parsed >= whole + 3, "{after}: {text}");
        }
    }
}
