//! Standard output.

use std::{
    io::{self, ErrorKind, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::Sink;
use crate::{
    encode::{Batch, Format, HEADING},
    ledger::{Amount, Published, SinkCounts, SinkLoss},
    telemetry::{Reached, SinkTimings},
    worker::monotonic_ns,
};

/// Writes whole batches, so that lines of different workers do not mix.
pub(super) struct Stdout {
    format: Format,
    counts: Published<SinkCounts>,
    stop: Arc<Notify>,
    headed: AtomicBool,
    /// True after a failed write, until one succeeds: each outage is logged once.
    failing: AtomicBool,
    timings: SinkTimings,
}

impl Stdout {
    pub(super) fn new(format: Format, stop: Arc<Notify>) -> Self {
        Self {
            format,
            counts: Published::default(),
            stop,
            headed: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            timings: SinkTimings::default(),
        }
    }

    fn write_out(&self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let text = matches!(self.format, Format::Text { .. });
        if text && !self.headed.swap(true, Ordering::Relaxed) {
            out.write_all(HEADING.as_bytes())?;
        }
        out.write_all(bytes)?;
        out.flush()
    }
}

impl Sink for Stdout {
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
        let amount = Amount { records: batch.records(), messages: batch.messages() };
        let written = self.write_out(batch.bytes());
        self.counts.update(|counts| {
            counts.offer(amount);
            match &written {
                Ok(()) => counts.delivered += amount,
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    counts.lose(SinkLoss::Closed, amount);
                }
                Err(_) => counts.lose(SinkLoss::WriteFailed, amount),
            }
        });
        let was_failing = self.failing.swap(written.is_err(), Ordering::Relaxed);
        match written {
            Ok(()) => self.timings.all_reached(Reached::Written, batch, monotonic_ns()),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => self.stop.notify_one(),
            Err(error) if !was_failing => {
                tracing::error!(%error, "cannot write to standard output; records are lost and counted");
            }
            _ => {}
        }
    }

    fn tick(&self, _now: Instant) {}

    fn close(&self, _deadline: Duration) {}
}
