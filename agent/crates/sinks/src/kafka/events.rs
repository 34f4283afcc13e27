//! The channel from librdkafka's callbacks to the sender, which carries delivery reports and failed
//! records. A callback must not wait for a disk.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{backlog::QueuedMessage, flight::Flight};

/// The outcome in a delivery report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Delivered,
    /// The message may have arrived, if only its acknowledgement was lost.
    Failed,
    /// The broker refused the batch because of another message.
    Innocent,
    /// The broker refused the batch as too large; the message itself is too large only if it was
    /// sent alone.
    TooLarge,
    /// The broker refused the message permanently.
    Rejected,
}

/// A record to requeue, which was in memory alone.
pub(super) struct FailedDelivery {
    pub(super) record: QueuedMessage<Flight>,
    pub(super) outcome: Outcome,
}

/// The events that the sender has not yet applied.
#[derive(Default)]
pub(super) struct Events {
    /// Delivery reports on records of the spool, by id.
    pub(super) reports: Vec<(u64, Outcome)>,
    /// Their number is limited by the producer's queue.
    pub(super) failed: Vec<FailedDelivery>,
    /// The number of records appended to the backlog.
    pub(super) appended: usize,
    pub(super) stop: bool,
}

impl Events {
    fn is_empty(&self) -> bool {
        self.reports.is_empty() && self.failed.is_empty() && self.appended == 0 && !self.stop
    }
}

#[derive(Default)]
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

    /// Takes all events; waits up to `timeout` for the first.
    pub(super) fn take(&self, timeout: Duration) -> Events {
        let mut inbox = self.inbox.lock();
        self.arrived.wait_while_for(&mut inbox, |inbox| inbox.is_empty(), timeout);
        std::mem::take(&mut *inbox)
    }

    /// Returns the number of reports and failed records that wait for the sender.
    pub(super) fn depth(&self) -> usize {
        let events = self.inbox.lock();
        events.reports.len() + events.failed.len()
    }
}
