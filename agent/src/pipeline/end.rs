//! Ends the pipeline: workers, sinks, and the final ledger.

use std::{
    sync::{atomic::Ordering, mpsc},
    thread,
    time::{Duration, Instant},
};

use tap53_ledger::{Ledger, WorkerCounts};
use tap53_sinks::Named;

use super::{Error, Pipeline, worker_thread::Running};
use crate::ending::{self, EndWait, Verdict};

/// Minimum time for a sink to deliver what it holds, even if another one has used up the timeout.
const MIN_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Time for the workers to end after the start has failed.
const DROP_TIMEOUT: Duration = Duration::from_secs(2);

impl Pipeline {
    /// Stops capture. Packets that were captured stay in the rings until the workers read them.
    ///
    /// # Errors
    /// When the capture thread has ended.
    pub fn detach(&self) -> Result<(), Error> {
        for error in self.capture.detach_all()? {
            tracing::error!(event = "detach_failed", "{error}");
        }
        Ok(())
    }

    /// Stops capture, delivers what was captured and returns the final ledger.
    ///
    /// # Errors
    /// When the kernel's counters cannot be read.
    pub fn shutdown(mut self, flush_timeout: Duration) -> Result<Ledger, Error> {
        self.detach()?;
        let deadline = Instant::now() + flush_timeout;
        self.end_workers(deadline);
        for sink in &self.sinks {
            let left = deadline.saturating_duration_since(Instant::now()).max(MIN_FLUSH_TIMEOUT);
            if self.abandoned > 0 {
                close_on_own_thread(sink, left);
            } else {
                sink.sink.close(left);
            }
        }
        let ledger = Ledger::new(&self.read_sources(true)?);
        if std::mem::take(&mut self.summaries).end(&ledger) {
            // With the outcome of the summaries.
            return Ok(Ledger::new(&self.read_sources(true)?));
        }
        Ok(ledger)
    }

    /// Ends the workers, see [`crate::ending`].
    fn end_workers(&mut self, deadline: Instant) {
        self.ending.store(true, Ordering::Release);
        self.workers.iter().for_each(|worker| worker.waker.wake());
        let mut wait = EndWait::new(Instant::now(), deadline);
        while self.workers.iter().any(Running::is_running) {
            match wait.look(Instant::now(), self.progress()) {
                Verdict::Wait => {}
                Verdict::PastDeadline => tracing::warn!(
                    event = "worker_slow_at_stop",
                    "the flush timeout is over and workers still make progress: waiting for them"
                ),
                Verdict::Release => self.released.store(true, Ordering::Release),
                Verdict::Abandon => break,
            }
            thread::park_timeout(ending::POLL_INTERVAL);
        }
        for worker in &mut self.workers {
            let Some(thread) = worker.thread.take() else { continue };
            let number = worker.heartbeat.worker();
            let ended = thread.is_finished().then(|| thread.join());
            let why = match ended {
                Some(Ok(true)) => continue,
                Some(Ok(false)) => "it could not read its ring",
                Some(Err(_)) => "it panicked",
                None => "a sink blocks it",
            };
            self.abandoned += 1;
            tracing::error!(
                event = "worker_abandoned",
                worker = number,
                "a worker is abandoned: {why}; its records are counted as lost"
            );
        }
    }

    /// Returns a value that changes whenever a worker makes progress.
    fn progress(&self) -> Vec<([u64; 2], WorkerCounts, bool)> {
        let of = |worker: &Running| {
            (worker.heartbeat.progress(), worker.counts.read(), worker.is_running())
        };
        self.workers.iter().map(of).collect()
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.end_workers(Instant::now() + DROP_TIMEOUT);
    }
}

/// Closes a sink on a separate thread: an abandoned worker may block in it, and hold a lock that
/// closing waits for.
fn close_on_own_thread(sink: &Named, deadline: Duration) {
    let (closed, is_closed) = mpsc::channel::<()>();
    let name = sink.name.clone();
    let sink = sink.sink.clone();
    let thread = thread::Builder::new().name("close".to_owned()).spawn(move || {
        sink.close(deadline);
        drop(closed);
    });
    let is_stuck = is_closed.recv_timeout(deadline + MIN_FLUSH_TIMEOUT)
        == Err(mpsc::RecvTimeoutError::Timeout);
    if let Err(error) = thread {
        tracing::error!(event = "sink_close_failed", %error, sink = name, "cannot close a sink");
    } else if is_stuck {
        tracing::error!(
            event = "sink_close_blocked",
            sink = name,
            "cannot close a sink: an abandoned worker blocks in it"
        );
    }
}
