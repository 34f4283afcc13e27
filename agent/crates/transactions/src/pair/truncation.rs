//! Relates a truncated response over UDP to the retry over TCP (RFC 7766 §5).
//!
//! The two flows differ in their client port, so different workers may pair them, and either may be
//! first. The first one leaves a note under client, server and question; the second one finds it,
//! and its record refers to the other record.

use std::{
    hash::BuildHasher,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use hashbrown::DefaultHashBuilder;
use tap53_dns::{Flow, Transport};

use super::{Exchange, Observation, RecordId, Related, Relation};

/// Number of slots for notes, a power of two; 48 bytes each, 768 KiB for the agent. As in
/// [`recent`](super::recent), a newer note replaces an older one.
const PLACES: usize = 16_384;

/// Maximum time from a truncated response to the query over TCP, in nanoseconds: the time that a
/// client may take to retry.
const WINDOW_NS: u64 = 10_000_000_000;

/// Notes of truncated responses. Only truncated responses and transactions over TCP take a lock.
#[derive(Clone, Default)]
pub(super) struct Truncations {
    hasher: DefaultHashBuilder,
    notes: Arc<Mutex<Vec<Option<Note>>>>,
}

#[derive(Clone, Copy)]
struct Note {
    key: u64,
    /// Time of the truncated response, or of the query over TCP.
    at_ns: u64,
    transport: Transport,
    record: RecordId,
}

impl Truncations {
    /// Leaves a note of the exchange of a record, or finds that of the other one. It is inlined, since nearly
    /// every transaction ends at the first check, and passing the result through memory stalls.
    #[inline(always)]
    pub(super) fn relate(
        &self,
        record: RecordId,
        flow: &Flow,
        exchange: Exchange<'_>,
    ) -> Option<Related> {
        let seen = match flow.transport {
            Transport::Udp => exchange.response().filter(|seen| seen.message.flags.truncated)?,
            Transport::Tcp => exchange.query()?,
        };
        self.relate_message(record, flow, seen)
    }

    #[cold]
    fn relate_message(&self, record: RecordId, flow: &Flow, seen: &Observation) -> Option<Related> {
        let question = seen.message.question()?;
        let (client, server): (IpAddr, IpAddr) = (flow.client.ip(), flow.server.ip());
        let key = self.hasher.hash_one((client, server, question));
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.is_empty() {
            notes.resize(PLACES, None);
        }
        #[expect(clippy::cast_possible_truncation, reason = "only the low bits count")]
        let place = notes.get_mut(key as usize & (PLACES - 1))?;
        if let Some(note) = *place
            && note.key == key
            && note.transport != flow.transport
        {
            let (cut_ns, again_ns, relation) = match flow.transport {
                Transport::Tcp => (note.at_ns, seen.at_ns, Relation::TcpAfterTruncation),
                Transport::Udp => (seen.at_ns, note.at_ns, Relation::RetriedOverTcp),
            };
            if again_ns.checked_sub(cut_ns).is_some_and(|ns| ns <= WINDOW_NS) {
                *place = None;
                return Some(Related { relation, record: note.record });
            }
        }
        *place = Some(Note { key, at_ns: seen.at_ns, transport: flow.transport, record });
        None
    }
}
