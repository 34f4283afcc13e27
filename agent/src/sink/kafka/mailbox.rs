//! From librdkafka's thread to the sender: delivery reports, and records that come back. The
//! callback must not wait for the disk.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::encode::Ticket;

/// What became of a record of the spool that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Arrived,
    /// Perhaps it arrived all the same, which nobody can know.
    Failed,
    /// It came with one that the broker refuses, which is why it was refused as well.
    Again,
    /// The broker refuses its batch as too long, which librdkafka does not divide: it is refused for
    /// ever only if it was sent alone.
    TooLarge,
    /// It never will.
    Rejected,
}

/// A record that was in memory alone, and comes back.
#[derive(Debug)]
pub(super) struct Returned {
    pub(super) ticket: Ticket,
    pub(super) timestamp_ms: i64,
    pub(super) messages: u32,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    /// Whether it comes back for nothing that is wrong with the broker: see [`Outcome::Again`].
    pub(super) is_again: bool,
    /// Whether its batch was too long: see [`Outcome::TooLarge`].
    pub(super) is_too_large: bool,
}

/// All that came since the last look.
#[derive(Debug, Default)]
pub(super) struct Mail {
    pub(super) reports: Vec<(u64, Outcome)>,
    /// At most what the producer's queue holds.
    pub(super) returned: Vec<Returned>,
    /// Records that were appended to the spool.
    pub(super) appended: usize,
    pub(super) stop: bool,
}

impl Mail {
    fn is_empty(&self) -> bool {
        self.reports.is_empty() && self.returned.is_empty() && self.appended == 0 && !self.stop
    }
}

#[derive(Debug, Default)]
pub(super) struct Mailbox {
    mail: Mutex<Mail>,
    came: Condvar,
}

impl Mailbox {
    /// Adds to the mail.
    pub(super) fn put(&self, add: impl FnOnce(&mut Mail)) {
        let mut mail = self.lock();
        let was_empty = mail.is_empty();
        add(&mut mail);
        if was_empty {
            self.came.notify_one();
        }
    }

    /// Takes the mail, waiting for some for as long as `timeout`.
    pub(super) fn take(&self, timeout: Duration) -> Mail {
        let mail = self.lock();
        let (mut mail, _) = self
            .came
            .wait_timeout_while(mail, timeout, |mail| mail.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut mail)
    }

    /// Reports and records that wait to be taken in.
    pub(super) fn depth(&self) -> usize {
        let mail = self.lock();
        mail.reports.len() + mail.returned.len()
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        // Mail is only added and taken whole.
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
