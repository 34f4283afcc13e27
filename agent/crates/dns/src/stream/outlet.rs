//! Where one side's messages and losses go.

use super::{StreamCounts, StreamEvent, StreamIgnored, StreamLoss};
use crate::{Flow, Message};

/// Takes what one side of a connection yields.
pub(super) trait Outlet {
    fn counts(&mut self) -> &mut StreamCounts;

    /// A message without its prefix, whole as of `at_ns`.
    fn message(&mut self, message: &[u8], at_ns: u64);

    /// Bytes in no message, because others are missing; also none at all, where those are.
    fn loss(&mut self, reason: StreamLoss, bytes: usize, at_ns: u64);

    /// Bytes in no message, although none are missing.
    fn ignore(&mut self, reason: StreamIgnored, bytes: usize) {
        self.counts().ignore(reason, bytes as u64);
    }
}

/// Counts, and hands on with the flow.
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
