//! The channel from librdkafka's callbacks to the sender: delivery reports, and records that come
//! back. A callback must not wait for a disk.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{backlog::QueuedMessage, flight::Flight};

/// The outcome of a message, by its delivery report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Delivered,
    /// It may have arrived all the same: its acknowledgement may be lost.
    Failed,
    /// The broker refused another record of its batch, and this one with it.
    Innocent,
    /// The broker refuses its batch as too large, which librdkafka does not divide: it is refused
    /// for good only if it was sent alone.
    TooLarge,
    /// The broker never takes it.
    Rejected,
}

/// A record that was in memory alone, and comes back to be requeued.
#[derive(Debug)]
pub(super) struct FailedDelivery {
    pub(super) record: QueuedMessage<Flight>,
    pub(super) outcome: Outcome,
}

/// The events that the sender has yet to apply.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// Reports on records of the spool, by id.
    pub(super) reports: Vec<(u64, Outcome)>,
    /// At most what the producer's queue holds.
    pub(super) failed: Vec<FailedDelivery>,
    /// Records that were appended to the backlog.
    pub(super) appended: usize,
    pub(super) stop: bool,
}

impl Events {
    fn is_empty(&self) -> bool {
        self.reports.is_empty() && self.failed.is_empty() && self.appended == 0 && !self.stop
    }
}

/// The channel.
#[derive(Debug, Default)]
pub(super) struct DeliveryEvents {
    inbox: Mutex<Events>,
    arrived: Condvar,
}

impl DeliveryEvents {
    pub(super) fn put(&self, add: impl FnOnce(&mut Events)) {
        let mut inbox = self.inbox.lock();
        let was_empty = inbox.is_empty();
        add(&mut inbox);
        if was_empty {
            self.arrived.notify_one();
        }
    }

    /// Takes all events, waiting for the first for as long as `timeout`.
    pub(super) fn take(&self, timeout: Duration) -> Events {
        let mut inbox = self.inbox.lock();
        self.arrived.wait_while_for(&mut inbox, |inbox| inbox.is_empty(), timeout);
        std::mem::take(&mut *inbox)
    }

    /// Reports and records that the sender has yet to take in.
    pub(super) fn depth(&self) -> usize {
        let events = self.inbox.lock();
        events.reports.len() + events.failed.len()
    }
}
