//! A worker's side of the tracker.

use std::{
    hash::BuildHasher,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use hashbrown::DefaultHashBuilder;
use tap53_dns::Flow;
use tap53_ebpf::{headers::MULTICAST_PORTS, record::Sender};

use super::{
    ChainCounts, Config, Names, Settled, Tracker,
    event::{Closed, Event, Opened, Party, Response},
    names,
    roles::RecentSet,
};
use crate::pair::{AnswerSource, Chain, Observation, RecordId, Transaction};

/// Identifier of the root of cgroups of version 2. Processes of version 1 are in it, and those of the
/// host that nothing else distinguishes.
const ROOT_CGROUP: u64 = 1;

/// A label that the first two names of a pod's search list contain.
const SERVICE_LABEL: &str = ".svc.";

/// Number of events from which on a worker submits them before its batch ends.
const EVENTS: usize = 1_024;

/// The chains of a node, which all workers share.
#[derive(Clone)]
pub struct Chains {
    config: Config,
    shared: Arc<Shared>,
}

struct Shared {
    hasher: DefaultHashBuilder,
    /// Addresses and cgroups that responses came from lately.
    answering: RecentSet,
    /// Addresses and cgroups of resolvers.
    resolving: RecentSet,
    /// Cgroups from which both a query and its response came: they distinguish no process.
    common: RecentSet,
    /// Lookups through search lists: a client and the first label of the name.
    searching: RecentSet,
    tracker: Mutex<Tracker>,
}

/// Reports the exchanges of one worker.
pub struct ChainReporter {
    chains: Chains,
    worker: usize,
    events: Vec<Event>,
    read_up_to_ns: u64,
}

impl Chains {
    /// Creates the chains of this number of workers.
    #[must_use]
    pub fn new(config: Config, workers: usize) -> Self {
        let shared = Shared {
            hasher: DefaultHashBuilder::default(),
            answering: RecentSet::new(),
            resolving: RecentSet::new(),
            common: RecentSet::new(),
            searching: RecentSet::new(),
            tracker: Mutex::new(Tracker::new(config, workers)),
        };
        Self { config, shared: Arc::new(shared) }
    }

    /// Returns the configuration.
    #[must_use]
    pub const fn config(&self) -> Config {
        self.config
    }

    /// Returns the counts of the tracker.
    #[must_use]
    pub fn counts(&self) -> ChainCounts {
        self.shared.tracker.lock().unwrap_or_else(PoisonError::into_inner).counts()
    }

    /// Creates the reporter of a worker.
    #[must_use]
    pub fn reporter(&self, worker: usize) -> ChainReporter {
        ChainReporter { chains: self.clone(), worker, events: Vec::new(), read_up_to_ns: 0 }
    }
}

impl Shared {
    fn hash_address(&self, address: IpAddr) -> u64 {
        self.hasher.hash_one(address)
    }

    fn hash_cgroup(&self, cgroup: u64) -> u64 {
        self.hasher.hash_one((cgroup, "cgroup"))
    }

    /// Returns the cgroup of a socket if it can distinguish a process; otherwise 0.
    fn cgroup(&self, sender: Sender) -> u64 {
        let cgroup = sender.cgroup;
        let is_common = || self.common.contains(self.hash_cgroup(cgroup));
        if cgroup <= ROOT_CGROUP || is_common() { 0 } else { cgroup }
    }

    fn party(&self, flow: &Flow, sender: Sender) -> Party {
        let address = flow.client.ip();
        let cgroup = self.cgroup(sender);
        let is_ambiguous = address.is_loopback() || address == flow.server.ip();
        Party {
            address,
            cgroup,
            answers_by_address: !is_ambiguous
                && self.answering.contains(self.hash_address(address)),
            answers_by_cgroup: cgroup != 0 && self.answering.contains(self.hash_cgroup(cgroup)),
        }
    }

    /// Returns the hash of a lookup: all names of one begin with the same label.
    fn hash_lookup(&self, client: &Party, name: &str) -> u64 {
        let label = name.split('.').next();
        self.hasher.hash_one((client.cgroup, client.address, label, "lookup"))
    }

    fn is_resolver_at(&self, address: IpAddr) -> bool {
        self.resolving.contains(self.hash_address(address))
    }
}

/// Returns true for flows between a client and a server: multicast has neither.
fn has_roles(flow: &Flow) -> bool {
    !flow.server.ip().is_multicast() && !MULTICAST_PORTS.contains(&flow.server.port())
}

impl ChainReporter {
    /// Reports a query that waits for its response, if a resolver sent or received it, or if it may belong to a
    /// lookup through a search list. `record` is the identifier that its record will have.
    pub fn opened(&mut self, record: RecordId, flow: &Flow, query: &Observation) {
        let shared = &self.chains.shared;
        if !has_roles(flow) {
            return;
        }
        let client = shared.party(flow, query.sender);
        let server = flow.server.ip();
        let Some(question) = query.message.question() else { return };
        let lookup = || shared.hash_lookup(&client, question.name);
        let begins = question.name.contains(SERVICE_LABEL);
        if begins {
            shared.searching.note(lookup());
        }
        let sends = client.answers_by_address || client.answers_by_cgroup;
        let is_reported =
            sends || begins || shared.is_resolver_at(server) || shared.searching.contains(lookup());
        if !is_reported {
            return;
        }
        let names = Names::of(question, &shared.hasher);
        let opened = Opened { record, at_ns: query.at_ns, client, server, names };
        self.events.push(Event::Opened(opened));
    }

    /// Reports the end of a transaction. If a verdict on it will follow, returns what its record contains
    /// if it cannot wait for that.
    pub fn closed(&mut self, transaction: &Transaction<'_>) -> Option<Chain> {
        let shared = &self.chains.shared;
        let flow = &transaction.flow;
        if !has_roles(flow) {
            return None;
        }
        let server = transaction.sightings.server.ip();
        let sender = transaction.query().map_or(Sender::UNKNOWN, |query| query.sender);
        let answered = transaction.response().map(|response| {
            let responder = transaction.responder();
            if responder.cgroup > ROOT_CGROUP && responder.cgroup == sender.cgroup {
                shared.common.note(shared.hash_cgroup(sender.cgroup));
            }
            let cgroup = shared.cgroup(responder);
            shared.answering.note(shared.hash_address(server));
            if cgroup != 0 {
                shared.answering.note(shared.hash_cgroup(cgroup));
            }
            (response, cgroup)
        });
        let name = transaction.query()?.message.question().map(|question| question.name);
        let client = shared.party(flow, sender);
        let by_cgroup = answered.is_some_and(|(_, cgroup)| {
            cgroup != 0 && shared.resolving.contains(shared.hash_cgroup(cgroup))
        });
        let by_resolver = by_cgroup || shared.is_resolver_at(server);
        let searches =
            || name.is_some_and(|it| shared.searching.contains(shared.hash_lookup(&client, it)));
        if !by_resolver && !client.answers_by_address && !client.answers_by_cgroup && !searches() {
            return None;
        }
        let at_ns = answered.map_or(self.read_up_to_ns, |(response, _)| response.at_ns);
        let answered_ns = transaction.sightings.response_ns.unwrap_or(at_ns);
        let source = (by_resolver && answered.is_some()).then_some(AnswerSource::UNKNOWN);
        let response = answered.map(|(response, cgroup)| Response {
            cgroup,
            authoritative: response.message.flags.authoritative,
            rcode: response.message.rcode,
            has_answers: response.message.counts[1] > 0,
            targets: names::targets(&response.message, &shared.hasher),
        });
        let (record, gap) = (transaction.id, transaction.capture_gap);
        self.events.push(Event::Closed(Closed {
            record,
            at_ns,
            answered_ns,
            server,
            gap,
            response,
        }));
        Some(Chain { source, ..Chain::default() })
    }

    /// Begins again, with other times: for the next one of several captures.
    pub fn restart(&mut self) {
        *self = Chains::new(self.chains.config, 1).reporter(0);
    }

    /// Reports that capture on an interface began or ended at `at_ns`: until a resolver sends another query,
    /// it is not known whether its queries are captured. With a backlog, the worker has not read so far.
    pub fn switched(&mut self, at_ns: u64) {
        self.events.push(Event::Switched { at_ns });
    }

    /// Returns the maximum time that a record waits for a verdict, in nanoseconds.
    #[must_use]
    pub fn hold_ns(&self) -> u64 {
        self.chains.config.hold_ns()
    }

    /// Returns the time up to which the worker has read.
    #[must_use]
    pub const fn read_up_to_ns(&self) -> u64 {
        self.read_up_to_ns
    }

    /// Reports that packets were lost between the last item that was read and one of `until_ns`.
    pub fn lost(&mut self, until_ns: u64) {
        self.events.push(Event::Gap { from_ns: self.read_up_to_ns, until_ns });
    }

    /// Notes the capture time of an item that was read.
    #[inline]
    pub fn read(&mut self, at_ns: u64) {
        self.read_up_to_ns = self.read_up_to_ns.max(at_ns);
    }

    /// Returns true if enough events wait to be submitted before the batch ends.
    #[inline]
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.events.len() >= EVENTS
    }

    /// Submits the events, all of which were captured up to `read_up_to_ns`, takes the verdicts on
    /// exchanges of this worker, and calls `wake` with each worker that others wait for.
    pub fn submit(
        &mut self,
        read_up_to_ns: u64,
        settled: &mut Vec<Settled>,
        wake: impl FnMut(usize),
    ) {
        let shared = &self.chains.shared;
        let mut tracker = shared.tracker.lock().unwrap_or_else(PoisonError::into_inner);
        let note = |(addresses, cgroup): (&[IpAddr], u64)| {
            for address in addresses {
                shared.resolving.note(shared.hash_address(*address));
            }
            if cgroup != 0 {
                shared.resolving.note(shared.hash_cgroup(cgroup));
            }
        };
        tracker.submit(self.worker, self.events.drain(..), read_up_to_ns, settled, note);
        tracker.late().for_each(wake);
    }
}
