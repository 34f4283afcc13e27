//! One resolver: its clients' open exchanges, and what it sends upstream for them.
//!
//! An upstream query serves the clients that wait for the same question, also after CNAME records;
//! else those that wait for its name; else those that wait for a name below it. If the last are
//! several with different questions, it is ambiguous. A name that is related to no client's is taken to
//! serve the only client that waits; a forwarder that refreshes its cache sends such queries too, so
//! they count, and are no evidence. A client that comes later with a question that is open upstream
//! waits for it too.
//!
//! An answer is from upstream if the response of such an exchange came between the client's query and
//! its answer.

use std::{collections::VecDeque, net::IpAddr};

use hashbrown::HashMap;

use super::{
    Names, Related,
    event::{Closed, Response},
    fetched::Fetched,
    names::{MAX_TARGETS, question},
    upstream::{MAX_CLIENTS, Upstream, Upstreams},
};
use crate::pair::{AnswerSource, AnsweredFrom, RecordId, Served};

/// Maximum number of open clients' exchanges that are compared with an upstream query whose name none
/// of them has.
const MAX_COMPARED: usize = 128;

/// Number of questions of clients that were answered last.
const RECENT_QUESTIONS: usize = 64;

/// Maximum number of upstream exchanges that are counted for one client.
const MAX_SPANS: usize = 256;

/// Time after the last upstream query for which the upstream side counts as captured, in nanoseconds.
const CAPTURED_NS: u64 = 600_000_000_000;

/// Response codes of a server that answers by its own rules: FORMERR, NOTIMP and REFUSED.
const REFUSALS: [u16; 3] = [1, 4, 5];

/// The response code SERVFAIL.
const SERVFAIL: u16 = 2;

/// A resolver.
#[derive(Debug)]
pub(super) struct Resolver {
    /// Cgroup of its sockets; 0 if unknown.
    pub(super) cgroup: u64,
    /// Addresses at which it answers.
    pub(super) addresses: Vec<IpAddr>,
    /// Time of its last upstream query.
    pub(super) last_upstream_ns: u64,
    clients: HashMap<RecordId, Client>,
    clients_by_question: HashMap<u64, Vec<RecordId>>,
    clients_by_name: HashMap<u64, Vec<RecordId>>,
    upstreams: Upstreams,
    /// Questions that were answered last: a refresh of the cache repeats one of them.
    answered: VecDeque<u64>,
    fetched: Fetched,
    /// Messages may have been missed up to this time.
    gap_until_ns: u64,
    /// It has sent a query since capture on an interface last began or ended.
    is_captured: bool,
}

/// A client's exchange that waits for its answer.
#[derive(Debug)]
struct Client {
    opened_ns: u64,
    names: Names,
    /// Hashes of the names that CNAME records upstream pointed to.
    targets: Vec<u64>,
    spans: Vec<Span>,
    /// Upstream exchanges beyond the maximum, or that could not refer to it.
    is_partial: bool,
}

/// An upstream exchange, as its client sees it.
#[derive(Clone, Copy, Debug)]
struct Span {
    upstream: RecordId,
    related: Related,
    ambiguous: bool,
    /// The client came after its query.
    is_joined: bool,
    opened_ns: u64,
    closed_ns: Option<u64>,
}

impl Resolver {
    /// Creates a resolver that was seen to send a query at `now_ns`.
    pub(super) fn new(now_ns: u64) -> Self {
        Self {
            cgroup: 0,
            addresses: Vec::new(),
            last_upstream_ns: now_ns,
            clients: HashMap::new(),
            clients_by_question: HashMap::new(),
            clients_by_name: HashMap::new(),
            upstreams: Upstreams::default(),
            answered: VecDeque::new(),
            fetched: Fetched::default(),
            gap_until_ns: 0,
            is_captured: true,
        }
    }

    pub(super) fn note_gap(&mut self, until_ns: u64) {
        self.gap_until_ns = self.gap_until_ns.max(until_ns);
    }

    /// Capture on an interface began or ended: its queries may not be captured any more, unless one was
    /// since then.
    pub(super) fn note_switched(&mut self, at_ns: u64) {
        self.note_gap(at_ns);
        self.is_captured &= at_ns < self.last_upstream_ns;
    }

    /// A client's query.
    pub(super) fn open_client(
        &mut self,
        record: RecordId,
        at_ns: u64,
        names: Names,
        capacity: usize,
    ) {
        if self.clients.len() >= capacity {
            return;
        }
        let joined = self.upstreams.open_with(&names);
        index(&mut self.clients_by_question, question(names.name, names.kind), record);
        index(&mut self.clients_by_name, names.name, record);
        let (targets, spans) = (Vec::new(), Vec::new());
        let client = Client { opened_ns: at_ns, names, targets, spans, is_partial: false };
        self.clients.insert(record, client);
        for upstream in joined {
            self.attach(record, upstream, Related::Question);
        }
    }

    /// A query of the resolver.
    pub(super) fn open_upstream(
        &mut self,
        record: RecordId,
        at_ns: u64,
        names: Names,
        capacity: usize,
    ) {
        self.last_upstream_ns = self.last_upstream_ns.max(at_ns);
        self.is_captured = true;
        let (clients, related) = self.waiting_for(&names);
        let is_ambiguous = related == Related::Ancestor && self.differ(&clients);
        let upstream = Upstream {
            opened_ns: at_ns,
            closed_ns: None,
            names,
            clients: Vec::new(),
            ambiguous: is_ambiguous,
            more: 0,
        };
        if !self.upstreams.insert(record, upstream, capacity) {
            self.note_gap(at_ns);
        }
        for client in clients {
            self.attach(client, record, related);
        }
    }

    /// The end of an upstream exchange. Returns `None` if it serves no client that is known by now, and
    /// clients wait whose answers may still name it.
    pub(super) fn close_upstream(
        &mut self,
        record: &RecordId,
        at_ns: u64,
        response: Option<&Response>,
    ) -> Option<Served> {
        let upstream = self.upstreams.get_mut(record)?;
        upstream.closed_ns = Some(at_ns);
        let (served, clients) = (upstream.served(), upstream.clients.clone());
        if let Some(response) = response {
            if response.authoritative {
                self.fetched.note(&upstream.names);
            }
            for client in &clients {
                self.note_upstream_response(client, record, at_ns, &response.targets);
            }
        }
        (served.count > 0 || self.clients.is_empty()).then_some(served)
    }

    /// Returns what an upstream exchange serves by now.
    pub(super) fn served(&self, record: &RecordId) -> Option<Served> {
        self.upstreams.get(record).map(Upstream::served)
    }

    /// The end of a client's exchange. Returns `None` if there was no response.
    pub(super) fn close_client(&mut self, closed: &Closed) -> Option<AnswerSource> {
        let response = closed.response.as_ref();
        for target in response.iter().flat_map(|response| &response.targets) {
            self.attach_named(&closed.record, *target, closed.answered_ns);
        }
        let client = self.remove_client(&closed.record);
        let response = response?;
        let Some(mut client) = client else { return Some(AnswerSource::UNKNOWN) };
        self.leave_unfinished(&closed.record, closed.answered_ns, &mut client);
        let is_captured = !closed.gap
            && !client.is_partial
            && client.opened_ns > self.gap_until_ns
            && self.is_captured
            && closed.at_ns.saturating_sub(self.last_upstream_ns) <= CAPTURED_NS;
        let stored = self.stored(&client.names, response);
        Some(client.source(closed.answered_ns, response.rcode, is_captured, stored))
    }

    /// Returns where an answer came from if the resolver queried no other server for it.
    fn stored(&mut self, names: &Names, response: &Response) -> AnsweredFrom {
        if REFUSALS.contains(&response.rcode) {
            AnsweredFrom::Local
        } else if !response.authoritative || self.fetched.contains(names) {
            AnsweredFrom::Cache
        } else if self.fetched.contains_sibling(names) {
            // Fetched before the resolver was known, or a name of its own in a zone of others.
            AnsweredFrom::Ambiguous
        } else {
            AnsweredFrom::Local
        }
    }

    /// Detaches a client from upstream exchanges that it would have waited for, but was answered at
    /// `answered_ns` before they were: from the cache, while that was refreshed.
    fn leave_unfinished(&mut self, record: &RecordId, answered_ns: u64, client: &mut Client) {
        client.spans.retain(|span| {
            let is_answered = span.closed_ns.is_some_and(|closed_ns| closed_ns <= answered_ns);
            let has_left = span.opened_ns > answered_ns || span.is_joined && !is_answered;
            if has_left && let Some(upstream) = self.upstreams.get_mut(&span.upstream) {
                upstream.clients.retain(|other| other != record);
            }
            !has_left
        });
    }

    /// Returns the clients that an upstream query serves, the first that waited first.
    fn waiting_for(&self, names: &Names) -> (Vec<RecordId>, Related) {
        let asked = question(names.name, names.kind);
        let found = |index: &HashMap<u64, Vec<RecordId>>, key| index.get(&key).cloned();
        if let Some(clients) = found(&self.clients_by_question, asked) {
            return (clients, Related::Question);
        }
        if let Some(clients) = found(&self.clients_by_name, names.name) {
            return (clients, Related::Name);
        }
        if self.clients.len() > MAX_COMPARED {
            return (Vec::new(), Related::Ancestor);
        }
        let is_below = |client: &Client| client.names.ancestors.contains(&names.name);
        let mut below: Vec<(u64, RecordId)> = self
            .clients
            .iter()
            .filter(|(_, client)| is_below(client))
            .map(|(record, client)| (client.opened_ns, *record))
            .collect();
        if !below.is_empty() {
            below.sort_unstable_by_key(|(opened_ns, record)| (*opened_ns, record.0));
            return (below.into_iter().map(|(_, record)| record).collect(), Related::Ancestor);
        }
        let is_alone = self.clients.len() == 1 && !self.answered.contains(&asked);
        let alone = self.clients.keys().filter(|_| is_alone).copied().collect();
        (alone, Related::Alone)
    }

    /// Returns true if these clients have different questions.
    fn differ(&self, clients: &[RecordId]) -> bool {
        let mut questions = clients
            .iter()
            .filter_map(|client| self.clients.get(client))
            .map(|client| question(client.names.name, client.names.kind));
        let first = questions.next();
        questions.any(|other| Some(other) != first)
    }

    fn attach(&mut self, record: RecordId, upstream: RecordId, related: Related) {
        let Some(client) = self.clients.get_mut(&record) else { return };
        let Some(to) = self.upstreams.get_mut(&upstream) else { return };
        if to.clients.len() >= MAX_CLIENTS || client.spans.len() >= MAX_SPANS {
            to.more += 1;
            client.is_partial = true;
            return;
        }
        to.clients.push(record);
        client.spans.push(Span {
            upstream,
            related,
            ambiguous: to.ambiguous,
            is_joined: to.opened_ns < client.opened_ns,
            opened_ns: to.opened_ns,
            closed_ns: to.closed_ns,
        });
    }

    /// Attaches upstream exchanges with a name that a client's answer points to.
    fn attach_named(&mut self, record: &RecordId, target: u64, at_ns: u64) {
        let Some(client) = self.clients.get(record) else { return };
        let known = |upstream: &RecordId| client.spans.iter().any(|it| it.upstream == *upstream);
        let names = Names { name: target, ..client.names.clone() };
        let relation = |upstream: &RecordId| {
            let candidate = self.upstreams.get(upstream)?;
            let related = candidate.relation_to(&names);
            let is_inside = match candidate.closed_ns {
                // Another client's, which this one waited for too.
                Some(closed_ns) if related == Related::Question => {
                    (client.opened_ns..=at_ns).contains(&closed_ns)
                }
                Some(closed_ns) => candidate.opened_ns >= client.opened_ns && closed_ns <= at_ns,
                None => candidate.opened_ns >= client.opened_ns,
            };
            is_inside.then_some(related)
        };
        let named: Vec<(RecordId, Related)> = self
            .upstreams
            .named(target)
            .iter()
            .filter(|upstream| !known(upstream))
            .filter_map(|upstream| Some((*upstream, relation(upstream)?)))
            .collect();
        for (upstream, related) in named {
            self.attach(*record, upstream, related);
        }
        // One that was taken to serve this client because it was alone is related to it now.
        let Some(client) = self.clients.get_mut(record) else { return };
        for span in &mut client.spans {
            let candidate = self.upstreams.get(&span.upstream);
            if let Some(candidate) = candidate.filter(|it| it.names.name == target) {
                span.related = span.related.min(candidate.relation_to(&names));
            }
        }
    }

    fn note_upstream_response(
        &mut self,
        record: &RecordId,
        upstream: &RecordId,
        at_ns: u64,
        targets: &[u64],
    ) {
        let Some(client) = self.clients.get_mut(record) else { return };
        if let Some(span) = client.spans.iter_mut().find(|span| span.upstream == *upstream) {
            span.closed_ns = Some(at_ns);
            if span.related > Related::Name {
                return;
            }
        }
        for target in targets {
            if client.targets.len() < MAX_TARGETS && !client.targets.contains(target) {
                client.targets.push(*target);
                let asked = question(*target, client.names.kind);
                index(&mut self.clients_by_question, asked, *record);
                index(&mut self.clients_by_name, *target, *record);
            }
        }
    }

    fn remove_client(&mut self, record: &RecordId) -> Option<Client> {
        let client = self.clients.remove(record)?;
        let names = [client.names.name].into_iter().chain(client.targets.iter().copied());
        for name in names {
            unindex(&mut self.clients_by_question, question(name, client.names.kind), record);
            unindex(&mut self.clients_by_name, name, record);
        }
        if self.answered.len() == RECENT_QUESTIONS {
            self.answered.pop_front();
        }
        self.answered.push_back(question(client.names.name, client.names.kind));
        Some(client)
    }
}

impl Client {
    /// `is_captured` says that all of the resolver's messages were, and `stored` where the answer came from
    /// if it queried no other server for it.
    fn source(
        &self,
        at_ns: u64,
        rcode: u16,
        is_captured: bool,
        stored: AnsweredFrom,
    ) -> AnswerSource {
        let is_evidence = |span: &&Span| {
            span.closed_ns
                .is_some_and(|closed_ns| closed_ns <= at_ns && closed_ns >= self.opened_ns)
        };
        let evidence = || self.spans.iter().filter(is_evidence);
        let is_sure = |span: &Span| span.related < Related::Alone && !span.ambiguous;
        let has_failed = rcode == SERVFAIL && self.spans.iter().any(is_sure);
        let from = if evidence().any(is_sure) || has_failed {
            AnsweredFrom::Upstream
        } else if !is_captured {
            AnsweredFrom::Unknown
        } else if evidence().next().is_some() {
            AnsweredFrom::Ambiguous
        } else {
            stored
        };
        let upstream_ns = self.covered_ns(at_ns);
        AnswerSource {
            from,
            upstream_count: u32::try_from(self.spans.iter().filter(|it| !it.ambiguous).count())
                .unwrap_or(u32::MAX),
            upstream_ns,
            resolver_ns: at_ns.saturating_sub(self.opened_ns).saturating_sub(upstream_ns),
        }
    }

    /// Returns the nanoseconds that the upstream exchanges cover between the query and its answer. One
    /// without a response lasts until the last response of another, or else until the answer.
    fn covered_ns(&self, at_ns: u64) -> u64 {
        let last_ns = self.spans.iter().filter_map(|span| span.closed_ns).max();
        let mut spans: Vec<(u64, u64)> = self
            .spans
            .iter()
            .filter(|span| !span.ambiguous)
            .map(|span| {
                let open_until = last_ns.filter(|last| *last > span.opened_ns).unwrap_or(at_ns);
                let closed_ns = span.closed_ns.unwrap_or(open_until).min(at_ns);
                (span.opened_ns.max(self.opened_ns), closed_ns)
            })
            .collect();
        spans.sort_unstable();
        let mut covered_until_ns = self.opened_ns;
        let mut covered_ns = 0;
        for (from_ns, to_ns) in spans {
            covered_ns += to_ns.saturating_sub(from_ns.max(covered_until_ns));
            covered_until_ns = covered_until_ns.max(to_ns);
        }
        covered_ns
    }
}

fn index(map: &mut HashMap<u64, Vec<RecordId>>, key: u64, record: RecordId) {
    map.entry(key).or_default().push(record);
}

fn unindex(map: &mut HashMap<u64, Vec<RecordId>>, key: u64, record: &RecordId) {
    if let Some(records) = map.get_mut(&key) {
        if let Some(at) = records.iter().position(|other| other == record) {
            records.remove(at);
        }
        if records.is_empty() {
            map.remove(&key);
        }
    }
}
