//! Sends records, and handles their delivery reports.

use tap53_base::amount::Amount;

use super::{super::segment::between, Prepared, Spool};
use crate::{
    directory::start,
    loss::Loss,
    segment::Entry,
    window::{Slot, State},
};

impl Spool {
    /// Returns the next record to be sent, and the same one until [`mark_sent`](Self::mark_sent) or
    /// another call changes the queue. Returns `None` if there is none, or if the reports on the
    /// sent ones must arrive first: after a failure the order is preserved by sending the failed
    /// one again before any younger one.
    pub fn peek(&mut self) -> Option<Entry<'_>> {
        if self.prepared.is_none() {
            self.prepared = self.prepare();
        }
        let prepared = self.prepared?;
        let reader = if prepared.is_retry { &mut self.retry_reader } else { &mut self.reader };
        let (_, reader) = reader.as_mut()?;
        // It was read a moment ago; an error here recurs in the next call.
        reader.entry(&prepared.found).ok()
    }

    fn prepare(&mut self) -> Option<Prepared> {
        while self.window.failed > 0 {
            if self.retry_from.is_none() {
                if self.window.sent > 0 {
                    return None;
                }
                self.retry_from = Some(0);
            }
            let slot = self.retry_from.and_then(|id| self.window.failed_from(id));
            match slot {
                Some(slot) => match self.prepare_retry(&slot) {
                    Some(prepared) => return Some(prepared),
                    None => self.lose_slot(slot.position.id, State::Failed, Loss::Unreadable),
                },
                // All failed ones are in flight again, and one has failed once more just now.
                None => self.retry_from = None,
            }
        }
        self.retry_from = None;
        self.prepare_new()
    }

    fn prepare_retry(&mut self, slot: &Slot) -> Option<Prepared> {
        let segment = self.segments.iter().find(|segment| segment.first.id == slot.segment)?;
        if self.retry_reader.as_ref().is_none_or(|(first_id, _)| *first_id != slot.segment) {
            self.retry_reader = Some((slot.segment, segment.reader().ok()?));
        }
        let (_, reader) = self.retry_reader.as_mut()?;
        let id = slot.position.id;
        let found = reader.find(slot.offset, segment.length, id..id + 1).ok()??;
        Some(Prepared { found, segment: slot.segment, is_retry: true })
    }

    fn prepare_new(&mut self) -> Option<Prepared> {
        loop {
            let index = self.index_of(self.read.segment)?;
            let segment = self.segments.get(index)?;
            let next = self.segments.get(index + 1).map_or(self.end, |next| next.first);
            let found = match &mut self.reader {
                Some((first_id, reader)) if *first_id == segment.first.id => {
                    reader.find(self.read.offset, segment.length, self.read.position.id..next.id)
                }
                _ => segment.reader().and_then(|mut reader| {
                    let ids = self.read.position.id..next.id;
                    let found = reader.find(self.read.offset, segment.length, ids);
                    self.reader = Some((segment.first.id, reader));
                    found
                }),
            };
            let (length, segment) = (segment.length, segment.first.id);
            match found {
                Ok(Some(found)) => {
                    // Both positions are of readable entries, so neither difference is negative.
                    let position = found.header.position;
                    self.lose(Loss::Unreadable, position.id, between(self.read.position, position));
                    self.read.offset = found.offset;
                    self.read.position = found.header.position;
                    return Some(Prepared { found, segment, is_retry: false });
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(event = "spool_segment_unreadable", %error, segment, "cannot read a segment of the spool; what remains of it is lost and counted");
                }
            }
            self.lose(Loss::Unreadable, next.id, between(self.read.position, next));
            self.read.position = next;
            match self.segments.get(index + 1) {
                Some(following) => {
                    self.read.segment = following.first.id;
                    self.read.offset = start();
                }
                None => {
                    self.read.offset = length;
                    return None;
                }
            }
        }
    }

    /// Marks the record that [`peek`](Self::peek) returns as sent, and returns its id.
    pub fn mark_sent(&mut self) -> Option<u64> {
        let Prepared { found, segment, is_retry } = self.prepared.take()?;
        let position = found.header.position;
        if is_retry {
            self.window.change(position.id, State::Failed, State::Sent);
            self.retry_from = Some(position.id + 1);
            return Some(position.id);
        }
        self.window.push(Slot {
            position,
            messages: found.header.messages,
            state: State::Sent,
            segment,
            offset: found.offset,
            dropped: None,
        });
        self.read.offset = found.end();
        self.read.position = found.header.after();
        Some(position.id)
    }

    /// Removes a delivered record from the queue. Returns `None` if it was not sent.
    pub fn acknowledge(&mut self, id: u64) -> Option<Amount> {
        let amount = self.window.change(id, State::Sent, State::Settled)?.amount();
        self.held -= amount;
        self.inherited_acknowledged += u64::from(id < self.inherited_end);
        self.remove_settled();
        Some(amount)
    }

    /// Requeues a record whose delivery failed.
    pub fn fail(&mut self, id: u64) {
        let Some(slot) = self.window.change(id, State::Sent, State::Failed) else { return };
        self.prepared = None;
        // Resend from the oldest one, once the others are reported on.
        self.retry_from = None;
        if let Some(reason) = slot.dropped {
            self.lose_slot(id, State::Failed, reason);
        }
    }

    /// Requeues all sent records; no more reports on them will arrive.
    pub fn fail_all(&mut self) {
        for id in self.window.all_sent() {
            self.fail(id);
        }
    }

    /// Removes a record that can never be delivered.
    pub fn reject(&mut self, id: u64) {
        self.lose_slot(id, State::Sent, Loss::Rejected);
        self.remove_settled();
    }
}
