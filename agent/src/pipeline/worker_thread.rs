//! The threads of the workers.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
};

use tap53_base::vitals::{Heartbeat, WorkerTimings};
use tap53_capture::ring;
use tap53_ledger::{Published, WorkerCounts};
use tokio::sync::Notify;

use super::Error;
use crate::worker::{Waiting, Worker};

/// A running worker.
pub(super) struct Running {
    pub(super) counts: Published<WorkerCounts>,
    pub(super) heartbeat: Heartbeat,
    /// `None` if the kernel does not map the ring.
    pub(super) ring: Option<ring::Depth>,
    pub(super) datagrams_waiting: Waiting,
    pub(super) waker: ring::Waker,
    /// `None` once joined.
    pub(super) thread: Option<JoinHandle<bool>>,
}

impl Running {
    pub(super) fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

/// Starts the thread of a worker. `stop` is notified when it ends.
pub(super) fn spawn(
    number: u16,
    worker: Worker,
    ring: Option<ring::Depth>,
    timings: Arc<WorkerTimings>,
    stop: Arc<Notify>,
) -> Result<Running, Error> {
    /// Notifies also when the thread unwinds.
    struct Ended(Arc<Notify>);
    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let (counts, heartbeat) = (worker.counts(), worker.heartbeat());
    let (datagrams_waiting, waker) = (worker.datagrams_waiting(), worker.waker());
    let ended = Ended(stop);
    let thread = thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(move || {
            let _ended = ended;
            worker.run(&timings)
        })
        .map_err(|cause| Error::Worker { number, cause })?;
    Ok(Running { counts, heartbeat, ring, datagrams_waiting, waker, thread: Some(thread) })
}
