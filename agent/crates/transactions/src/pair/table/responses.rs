//! Observes responses: finds their queries, copies, earlier exchanges and signs of tampering.

use std::hash::{BuildHasher, Hasher};

use hashbrown::DefaultHashBuilder;
use tap53_dns::{Flow, ParseStatus, Question, Transport};

use super::{
    Observed, Table, question_hash,
    signs::{answers_hash, case_hash, target_hash},
    slots::Slot,
};
use crate::pair::{
    Anomalies, Anomaly, Exchange, Observation, Related, Relation, Sightings, Transaction,
    multicast,
    recent::{EndedExchange, MIRRORED_NS, Recent, RecordedResponse, Sighting},
};

/// Hashes of a response's bytes.
#[derive(Clone, Copy)]
pub(super) struct ResponseHashes<'a> {
    /// The bytes.
    wire: &'a [u8],
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
        response: &'a mut Box<Observation>,
        wire: &[u8],
    ) -> Observed<'a> {
        let hashes = self.hash_response(hash, response, wire);
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
                if self.has_outer(slot) && self.may_hold() {
                    self.detach(slot);
                    self.hold_response(slot, hashes, response);
                    return Observed::Held;
                }
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
        response: &'a mut Box<Observation>,
        wire: &[u8],
    ) -> Observed<'a> {
        let slots = &self.slots;
        let to_host = |slot: &u32| {
            slots.get(*slot as usize).is_some_and(|slot| slot.is_answered_by(flow, response))
        };
        if self.index.find(hash, to_host).is_some() {
            return self.observe_response(hash, flow, response, wire);
        }
        let response: &'a Observation = response;
        let question = response.message.question();
        // Some clusters run their resolvers at port 5353.
        let asked = self.question_hash(question);
        if self.recent.exchange(hash, asked, response.at_ns).is_some() {
            let hashes = self.hash_response(hash, response, wire);
            return self.conclude(None, hash, hashes, question, flow, response);
        }
        let hashes = self.hash_response(hash, response, wire);
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
        let number = self.question_index.slot(target_hash(&self.hasher, flow, hash))?;
        let number = self.sighting_of_server(number, flow);
        let slot = self.slots.get(number as usize).filter(|slot| slot.pending)?;
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
        self.slots[number as usize].anomalies.add(Anomaly::ForgedResponseSeen);
        let sequence = self.reserve_outermost(number);
        Some((anomaly, Related { relation, record: self.ids.of(sequence) }))
    }

    /// Returns the other worker that may have the query that a forged response was sent for: its ring
    /// was selected by another identifier.
    #[cold]
    fn worker_of_target(&self, flow: &Flow, question: u32) -> Option<u16> {
        if self.is_final || flow.transport == Transport::Tcp || multicast::is_possible(flow) {
            return None;
        }
        let worker = self.shared.worker(target_hash(&self.hasher, flow, question))?;
        (worker != self.ids.worker()).then_some(worker)
    }

    /// Returns the hashes of a response's bytes; `hash` is that of its flow and identifier.
    #[inline]
    fn hash_response<'b>(
        &self,
        hash: u64,
        response: &Observation,
        wire: &'b [u8],
    ) -> ResponseHashes<'b> {
        let case = case_hash(&self.hasher, &response.message, wire);
        ResponseHashes { wire, content: self.hash_content(hash, wire), case }
    }

    /// Returns the hash of a response's bytes and of `hash`.
    #[inline]
    pub(super) fn hash_content(&self, hash: u64, wire: &[u8]) -> u64 {
        let mut content = self.hasher.build_hasher();
        content.write_u64(hash);
        content.write(wire);
        content.finish()
    }

    /// Returns the signs of tampering at a query and its response.
    #[inline]
    fn signs(
        &mut self,
        number: u32,
        hashes: ResponseHashes<'_>,
        has_question: bool,
        response: &Observation,
    ) -> Anomalies {
        let slot = &self.slots[number as usize];
        let mut anomalies = slot.anomalies;
        if has_question && slot.has_other_case(hashes.case) {
            anomalies.add(Anomaly::CaseMismatch);
        }
        if slot.has_two_sides() && self.sides.is_from_client(slot.query.point, response.point) {
            anomalies.add(Anomaly::ResponseFromClientSide);
        }
        anomalies
    }

    /// Keeps the response to a query that is a later sighting of another one. From now on it is
    /// remembered like a recorded one, so that copies of it are recognised.
    #[cold]
    fn hold_response(
        &mut self,
        number: u32,
        hashes: ResponseHashes<'_>,
        response: &mut Box<Observation>,
    ) {
        let has_question = response.message.question().is_some();
        let mut anomalies = self.signs(number, hashes, has_question, response);
        let flow = self.slots[number as usize].flow;
        let conflict = self.gaps.is_conflicting(&flow, response.at_ns);
        if conflict {
            anomalies.add(Anomaly::TcpConflict);
        }
        let slot = &self.slots[number as usize];
        let capture_gap =
            slot.gaps != self.gaps.known() || slot.query.cut || response.cut || conflict;
        let mut ended = EndedExchange {
            key: slot.hash,
            question: 0,
            at_ns: response.at_ns,
            sequence: 0,
            query: None,
            response: Some(RecordedResponse {
                content: hashes.content,
                seen: Sighting::of(response),
                is_inner: true,
            }),
            answers: self.comparable_answers(&flow, response),
        };
        slot.describe(&mut ended);
        ended.sequence = self.reserve_outermost(number);
        self.recent.insert(&ended);
        self.hold(number, response, hashes.wire, capture_gap, anomalies);
    }

    /// Creates a transaction of a response, and of the query that was `found` for it. Both have the
    /// same `key`.
    #[inline]
    fn conclude<'a>(
        &'a mut self,
        found: Option<u32>,
        key: u64,
        hashes: ResponseHashes<'_>,
        question: Option<Question<'a>>,
        flow: &Flow,
        response: &'a Observation,
    ) -> Observed<'a> {
        let seen = Sighting::of(response);
        let content = hashes.content;
        let answered = RecordedResponse { content, seen, is_inner: false };
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
        let mut merged = None;
        if let Some(number) = found {
            let has_question = question.is_some();
            let added = self.merge(number, Some(hashes.wire));
            anomalies = self.signs(number, hashes, has_question, response).union(added.anomalies);
            merged = Some(added);
            self.slots[number as usize].describe(&mut ended);
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
                if forgery.is_none()
                    && let Some(worker) = self.worker_of_target(flow, ended.question)
                {
                    return Observed::Elsewhere(worker);
                }
            }
        }
        if ended.sequence == 0 {
            ended.sequence = self.ids.next();
        }
        self.recent.insert(&ended);
        let translated = merged.as_ref().and_then(|merged| merged.related);
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
            (None, None) => translated,
        };
        let conflict = self.gaps.is_conflicting(flow, response.at_ns);
        if conflict {
            anomalies.add(Anomaly::TcpConflict);
        }
        let id = self.ids.of(ended.sequence);
        let pending = found.map(|slot| &self.slots[slot as usize]);
        let exchange = match pending {
            Some(pending) => Exchange::Matched(&pending.query, response),
            None => Exchange::Response(response),
        };
        let related = related.or_else(|| self.shared.truncations.relate(id, flow, exchange));
        // In place: a transaction is some 400 bytes, and a copy stalls on the stores of its parts.
        match pending.zip(merged) {
            Some((pending, merged)) => Observed::Done(Transaction {
                id,
                flow: *flow,
                exchange,
                query_count: pending.query_count,
                latest_query_ns: pending.latest.at_ns,
                copy_count: pending.copy_count + merged.copies,
                capture_gap: pending.gaps != self.gaps.known()
                    || pending.query.cut
                    || response.cut
                    || conflict,
                related,
                anomalies,
                sightings: merged.sightings,
                chain: None,
            }),
            None => {
                let since_ns = self.query_since_ns(flow, response);
                Observed::Done(Transaction {
                    id,
                    flow: *flow,
                    exchange,
                    query_count: 0,
                    latest_query_ns: 0,
                    copy_count: 0,
                    capture_gap: response.cut
                        || conflict
                        || earlier.is_none()
                            && (self.gaps.any_since(flow, since_ns)
                                || self.gaps.is_switched(response.point.ifindex, since_ns)),
                    related,
                    anomalies,
                    sightings: Sightings::single(flow),
                    chain: None,
                })
            }
        }
    }
}

impl Slot {
    /// Describes its query in the exchange that ends with its response.
    #[inline]
    fn describe(&self, ended: &mut EndedExchange) {
        ended.question = self.question;
        ended.query = Some(Sighting::of(&self.query));
        ended.sequence = self.sequence;
        if self.query.message.question().is_some_and(|question| question.is_transfer()) {
            ended.answers = 0;
        }
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
