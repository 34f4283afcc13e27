//! Receives the messages and losses of one side.

use super::{StreamCounts, StreamEvent, StreamIgnored, StreamLoss};
use crate::{Flow, Message};

/// Receives the output of one side of a connection.
pub(super) trait Outlet {
    fn counts(&mut self) -> &mut StreamCounts;

    /// Passes on a message without its prefix, complete as of `at_ns`.
    fn message(&mut self, message: &[u8], at_ns: u64);

    /// Reports a loss of `bytes` that are in no message because others are missing; 0 for those
    /// others.
    fn loss(&mut self, reason: StreamLoss, bytes: usize, at_ns: u64);

    /// Counts bytes that are in no message, although none are missing.
    fn ignore(&mut self, reason: StreamIgnored, bytes: usize) {
        self.counts().ignore(reason, bytes as u64);
    }
}

/// Counts the output, and passes it on with the flow.
pub(super) struct Sender<'a, C, E> {
    pub(super) flow: Flow,
    pub(super) context: C,
    pub(super) counts: &'a mut StreamCounts,
    pub(super) events: &'a mut E,
}

impl<C: Copy, E: FnMut(StreamEvent<'_, C>)> Outlet for Sender<'_, C, E> {
    fn counts(&mut self) -> &mut StreamCounts {
        self.counts
    }

    #[inline]
    fn message(&mut self, message: &[u8], at_ns: u64) {
        let bytes = 2 + message.len() as u64;
        if message.len() < Message::HEADER_SIZE {
            self.counts.messages_too_short += 1;
            self.counts.lose(StreamLoss::ShorterThanHeader, bytes);
            return;
        }
        self.counts.messages += 1;
        self.counts.bytes_in_messages += bytes;
        let (flow, context) = (self.flow, self.context);
        (self.events)(StreamEvent::Message { flow, context, at_ns, message });
    }

    fn loss(&mut self, reason: StreamLoss, bytes: usize, at_ns: u64) {
        self.counts.lose(reason, bytes as u64);
        let (flow, context) = (self.flow, self.context);
        (self.events)(StreamEvent::Loss { flow, context, at_ns, reason });
    }
}
