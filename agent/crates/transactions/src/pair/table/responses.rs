//! Observes responses: finds their queries, copies, earlier exchanges and signs of tampering.

use std::hash::{BuildHasher, Hasher};

use hashbrown::DefaultHashBuilder;
use tap53_dns::{Flow, ParseStatus, Question, Transport};

use super::{
    Observed, Table, question_hash,
    signs::{answers_hash, case_hash},
    slots::Slot,
};
use crate::pair::{
    Anomalies, Anomaly, Exchange, Observation, Related, Relation, Transaction, multicast,
    recent::{EndedExchange, MIRRORED_NS, Recent, RecordedResponse, Sighting},
};

/// Hashes of a response's bytes.
#[derive(Clone, Copy)]
pub(super) struct ResponseHashes {
    /// Hash of all bytes, flow and identifier.
    pub(super) content: u64,
    /// Hash of the question's name in its original case.
    case: u32,
}

impl Table {
    /// Processes a response whose flow and identifier have this `hash`.
    pub(super) fn observe_response<'a>(
        &'a mut self,
        hash: u64,
        flow: &Flow,
        response: &'a Observation,
        wire: &[u8],
    ) -> Observed<'a> {
        let hashes = self.hash_response(hash, wire);
        let (slots, recent, hasher) = (&self.slots, &self.recent, &self.hasher);
        let question = response.message.question();
        let answers = |slot: &u32| {
            slots.get(*slot as usize).is_some_and(|slot| {
                slot.is_answered_by(flow, response)
                    && !(slot.again && is_of_earlier(recent, hasher, slot, question, response))
            })
        };
        let found = match self.index.find_entry(hash, answers) {
            Ok(entry) => {
                let (slot, _) = entry.remove();
                self.unlink(slot);
                Some(slot)
            }
            Err(_) => None,
        };
        self.conclude(found, hash, hashes, response.message.question(), flow, response)
    }

    /// Processes a response to a query that may have gone to a group.
    #[cold]
    pub(super) fn observe_group_response<'a>(
        &'a mut self,
        hash: u64,
        flow: &Flow,
        response: &'a Observation,
        wire: &[u8],
    ) -> Observed<'a> {
        let question = response.message.question();
        let slots = &self.slots;
        let to_host = |slot: &u32| {
            slots.get(*slot as usize).is_some_and(|slot| slot.is_answered_by(flow, response))
        };
        if self.index.find(hash, to_host).is_some() {
            return self.observe_response(hash, flow, response, wire);
        }
        let hashes = self.hash_response(hash, wire);
        // The key to remember it by if no query is pending: preferably that of an earlier exchange.
        let mut fallback = None;
        for (key, question) in multicast::Key::of_response(*flow, &response.message) {
            let hash = self.hasher.hash_one(key);
            let to_group = |slot: &u32| {
                self.pending(*slot).is_some_and(|pending| {
                    let asked = pending.query.message.question();
                    key.is_of(&pending.flow, &pending.query.message)
                        && (question.is_none() || question == asked)
                        && !(pending.again
                            && is_of_earlier(
                                &self.recent,
                                &self.hasher,
                                pending,
                                question,
                                response,
                            ))
                })
            };
            if let Some(&slot) = self.index.find(hash, to_group) {
                let pending = &self.slots[slot as usize];
                let flow = Flow { client: pending.flow.client, ..*flow };
                self.remove_slot(slot);
                return self.conclude(Some(slot), hash, hashes, question, &flow, response);
            }
            let asked = self.question_hash(question);
            let known = self.recent.exchange(hash, asked, response.at_ns).is_some();
            match fallback {
                Some((_, _, true)) => {}
                Some(_) if !known => {}
                _ => fallback = Some((hash, question, known)),
            }
        }
        let (hash, question, _) = fallback.unwrap_or((hash, question, false));
        self.conclude(None, hash, hashes, question, flow, response)
    }

    /// Returns the hash of a response's content, to compare with others to the same query; 0 if
    /// several may differ: to a multicast query, or truncated. A response that was not read
    /// completely is not compared.
    #[inline]
    fn comparable_answers(&self, flow: &Flow, response: &Observation) -> u32 {
        let message = &response.message;
        let is_whole = !response.cut
            && message.answers_omitted == 0
            && matches!(message.parse_status, ParseStatus::Ok | ParseStatus::TrailingBytes);
        if !is_whole
            || message.flags.truncated
            || multicast::is_possible(flow)
            || message.question().is_some_and(|question| question.is_transfer())
        {
            return 0;
        }
        answers_hash(&self.hasher, message)
    }

    /// Returns the earliest possible time of a response's query: the timeout before it.
    fn query_since_ns(&self, flow: &Flow, response: &Observation) -> u64 {
        response.at_ns.saturating_sub(self.lists[flow.transport as usize].timeout_ns)
    }

    /// Returns true if the query of a response may have been missed while capture ran, so that the
    /// response need not belong to another query. The time before the start does not count:
    /// otherwise the first seconds of each capture file would have no signs.
    #[cold]
    fn may_miss_query(&self, flow: &Flow, response: &Observation) -> bool {
        let since_ns = self.query_since_ns(flow, response);
        self.gaps.any_lost_since(flow, since_ns)
            || self.gaps.is_switched(response.point.ifindex, since_ns)
    }

    /// Returns the record of the pending query that a forged response was sent for. Its sequence
    /// number is reserved from now on.
    #[cold]
    fn find_target(
        &mut self,
        flow: &Flow,
        question: Option<Question<'_>>,
        response: &Observation,
    ) -> Option<(Anomaly, Related)> {
        let hash = self.question_hash(question);
        let slot = self.question_index.slot(&self.hasher, flow, hash)?;
        let slot = self.slots.get_mut(slot as usize).filter(|slot| slot.pending)?;
        let same_client = Flow { server: flow.server, ..slot.flow } == *flow;
        if !same_client
            || slot.query.message.question() != question
            || slot.flow.server.ip().is_multicast()
            // A query after the response in a file is neither answered nor attacked by it.
            || response.at_ns < slot.query.at_ns
        {
            return None;
        }
        let (anomaly, relation) = if slot.flow.server == flow.server {
            (Anomaly::WrongId, Relation::WrongId)
        } else {
            (Anomaly::WrongServer, Relation::WrongServer)
        };
        slot.anomalies.add(Anomaly::ForgedResponseSeen);
        if slot.sequence == 0 {
            slot.sequence = self.ids.next();
        }
        Some((anomaly, Related { relation, record: self.ids.of(slot.sequence) }))
    }

    /// Returns the hashes of a response's bytes; `hash` is that of its flow and identifier.
    #[inline]
    pub(super) fn hash_response(&self, hash: u64, wire: &[u8]) -> ResponseHashes {
        let mut content = self.hasher.build_hasher();
        content.write_u64(hash);
        content.write(wire);
        ResponseHashes { content: content.finish(), case: case_hash(&self.hasher, wire) }
    }

    /// Creates a transaction of a response, and of the query that was `found` for it. Both have the
    /// same `key`.
    #[inline]
    fn conclude<'a>(
        &'a mut self,
        found: Option<u32>,
        key: u64,
        hashes: ResponseHashes,
        question: Option<Question<'a>>,
        flow: &Flow,
        response: &'a Observation,
    ) -> Observed<'a> {
        let seen = Sighting::of(response);
        let content = hashes.content;
        let answered = RecordedResponse { content, seen };
        let mut ended = EndedExchange {
            key,
            question: 0,
            at_ns: response.at_ns,
            sequence: 0,
            query: None,
            response: Some(answered),
            answers: self.comparable_answers(flow, response),
        };
        let mut earlier = None;
        let mut forgery = None;
        let mut anomalies = Anomalies::NONE;
        if let Some(slot) = found {
            let slot = &self.slots[slot as usize];
            let asked = slot.query.message.question();
            ended.question = slot.question;
            ended.query = Some(Sighting::of(&slot.query));
            ended.sequence = slot.sequence;
            if asked.is_some_and(|question| question.is_transfer()) {
                ended.answers = 0;
            }
            anomalies = slot.anomalies;
            if question.is_some() && slot.has_other_case(hashes.case) {
                anomalies.add(Anomaly::CaseMismatch);
            }
            if slot.has_two_sides() && self.sides.is_from_client(slot.query.point, response.point) {
                anomalies.add(Anomaly::ResponseFromClientSide);
            }
        } else {
            let datagram = flow.transport == Transport::Udp;
            if self.recent.is_copy_of_response(key, content, &seen, datagram) {
                return Observed::Copy;
            }
            ended.question = self.question_hash(question);
            earlier = self.recent.exchange(key, ended.question, response.at_ns);
            if let Some(earlier) = &earlier {
                // The next message finds this exchange, which must contain the earlier query.
                ended.query = earlier.query;
                if ended.question == 0 {
                    ended.question = earlier.question;
                }
                if earlier.response.is_some() {
                    if earlier.answers == 0 {
                        // A zone transfer continues.
                        ended.answers = 0;
                    } else if ended.answers != 0 && ended.answers != earlier.answers {
                        anomalies.add(Anomaly::ConflictingResponse);
                    }
                }
            } else if question.is_some() && !self.may_miss_query(flow, response) {
                forgery = self.find_target(flow, question, response);
            }
        }
        if ended.sequence == 0 {
            ended.sequence = self.ids.next();
        }
        self.recent.insert(&ended);
        let related = match (&earlier, forgery) {
            (Some(earlier), _) => Some(Related {
                relation: match earlier.response {
                    Some(_) => Relation::RepeatedResponse,
                    None => Relation::LateResponse,
                },
                record: self.ids.of(earlier.sequence),
            }),
            (None, Some((anomaly, related))) => {
                anomalies.add(anomaly);
                Some(related)
            }
            (None, None) => None,
        };
        let conflict = self.gaps.is_conflicting(flow, response.at_ns);
        if conflict {
            anomalies.add(Anomaly::TcpConflict);
        }
        let id = self.ids.of(ended.sequence);
        let mut transaction = match found {
            Some(slot) => {
                let pending = &self.slots[slot as usize];
                Transaction {
                    id,
                    flow: *flow,
                    query_count: pending.query_count,
                    latest_query_ns: pending.latest.at_ns,
                    copy_count: pending.copy_count,
                    capture_gap: pending.gaps != self.gaps.known()
                        || pending.query.cut
                        || response.cut
                        || conflict,
                    exchange: Exchange::Matched(&pending.query, response),
                    related,
                    anomalies,
                    chain: None,
                }
            }
            None => {
                let since_ns = self.query_since_ns(flow, response);
                Transaction {
                    id,
                    flow: *flow,
                    query_count: 0,
                    latest_query_ns: 0,
                    copy_count: 0,
                    capture_gap: response.cut
                        || conflict
                        || earlier.is_none()
                            && (self.gaps.any_since(flow, since_ns)
                                || self.gaps.is_switched(response.point.ifindex, since_ns)),
                    exchange: Exchange::Response(response),
                    related,
                    anomalies,
                    chain: None,
                }
            }
        };
        if related.is_none() {
            transaction.related = self.truncations.relate(&transaction);
        }
        Observed::Done(transaction)
    }
}

/// Returns true if a response that could answer `pending` was captured before it, and belongs to a
/// recently recorded exchange with the same identifier and `question`, or one of them without a
/// question, that had begun by then. This happens in a file whose interfaces were written one after
/// the other. Clocks may differ slightly.
#[cold]
fn is_of_earlier(
    recent: &Recent,
    hasher: &DefaultHashBuilder,
    pending: &Slot,
    question: Option<Question<'_>>,
    response: &Observation,
) -> bool {
    let latest_ns = response.at_ns.saturating_add(MIRRORED_NS);
    latest_ns < pending.query.at_ns
        && recent
            .exchange(pending.hash, question_hash(hasher, question), response.at_ns)
            .is_some_and(|earlier| earlier.began_ns() <= latest_ns)
}
