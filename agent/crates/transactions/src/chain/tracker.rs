//! Puts the events of all workers in the order of their capture, and decides.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use hashbrown::HashMap;

use super::{
    Config, Settled,
    event::{Closed, Event, Opened, Response},
    resolvers::{Number, Resolvers},
    search::{Outcome, Searches},
};
use crate::pair::{AnswerSource, Chain, RecordId, SearchStep, Served};

/// Difference in nanoseconds by which the items of a ring may be out of order.
const DISORDER_NS: u64 = 100_000;

/// Maximum time in nanoseconds that an upstream exchange waits for a client that names it: a client whose
/// cached CNAME record points to its name, which only the answer shows.
const UNDECIDED_NS: u64 = 150_000_000;

/// Counts of the tracker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChainCounts {
    /// Resolvers known now.
    pub resolvers: usize,
    /// Events that wait until every worker has read up to their time.
    pub events_waiting: usize,
    /// Times that events were processed although a worker had not read up to their time.
    pub forced: u64,
}

/// The chains of a whole node.
#[derive(Debug)]
pub struct Tracker {
    config: Config,
    /// Time up to which each worker has read.
    read_up_to_ns: Vec<u64>,
    queue: BinaryHeap<Reverse<Queued>>,
    /// Number of the last queued event.
    queued: u64,
    resolvers: Resolvers,
    /// Open exchanges.
    open: HashMap<RecordId, Roles>,
    /// Upstream exchanges that may still turn out to serve a client, by the time of their decision.
    undecided: VecDeque<Undecided>,
    searches: Searches,
    /// Exchanges that are the first of a lookup if the next name is queried soon, by that time.
    first_steps: VecDeque<(u64, FirstStep)>,
    /// Verdicts by worker.
    settled: Vec<Vec<Settled>>,
    forced: u64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Queued {
    at_ns: u64,
    number: u64,
    worker: usize,
    event: QueuedEvent,
}

/// An event, which does not take part in the order.
#[derive(Debug)]
struct QueuedEvent(Event);

impl PartialEq for QueuedEvent {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for QueuedEvent {}

impl PartialOrd for QueuedEvent {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for QueuedEvent {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

#[derive(Debug)]
struct FirstStep {
    worker: usize,
    settled: Settled,
    /// The group that it belongs to if there is one.
    group: RecordId,
}

/// The resolvers that take part in an exchange.
#[derive(Clone, Copy, Debug)]
struct Roles {
    server: Option<Number>,
    client: Option<Number>,
}

#[derive(Debug)]
struct Undecided {
    due_ns: u64,
    worker: usize,
    record: RecordId,
    resolver: Number,
    source: Option<AnswerSource>,
}

impl Tracker {
    /// Creates the tracker of this number of workers.
    #[must_use]
    pub fn new(config: Config, workers: usize) -> Self {
        Self {
            config,
            read_up_to_ns: vec![0; workers],
            queue: BinaryHeap::new(),
            queued: 0,
            resolvers: Resolvers::default(),
            open: HashMap::new(),
            undecided: VecDeque::new(),
            searches: Searches::new(config.hold_ns()),
            first_steps: VecDeque::new(),
            settled: (0..workers).map(|_| Vec::new()).collect(),
            forced: 0,
        }
    }

    /// Returns its counts.
    #[must_use]
    pub fn counts(&self) -> ChainCounts {
        ChainCounts {
            resolvers: self.resolvers.len(),
            events_waiting: self.queue.len(),
            forced: self.forced,
        }
    }

    /// Takes the events of a worker, which has read up to `read_up_to_ns`, and moves the verdicts on its
    /// exchanges to `settled`. Calls `note` with each resolver whose addresses the workers have to know.
    pub(super) fn submit(
        &mut self,
        worker: usize,
        events: impl Iterator<Item = Event>,
        read_up_to_ns: u64,
        settled: &mut Vec<Settled>,
        mut note: impl FnMut((&[std::net::IpAddr], u64)),
    ) {
        for event in events {
            self.queued += 1;
            let (at_ns, number) = (event.at_ns(), self.queued);
            self.queue.push(Reverse(Queued { at_ns, number, worker, event: QueuedEvent(event) }));
        }
        if let Some(own) = self.read_up_to_ns.get_mut(worker) {
            *own = read_up_to_ns.max(*own);
        }
        self.process(&mut note);
        if let Some(own) = self.settled.get_mut(worker) {
            settled.append(own);
        }
    }

    /// Returns the workers that have not read up to the time of all events.
    pub(super) fn late(&self) -> impl Iterator<Item = usize> {
        let latest_ns = self.read_up_to_ns.iter().copied().filter(|it| *it != u64::MAX).max();
        let is_waited_for =
            !self.queue.is_empty() || !self.undecided.is_empty() || !self.first_steps.is_empty();
        let late =
            self.read_up_to_ns.iter().enumerate().filter(move |(_, read_up_to_ns)| {
                is_waited_for && Some(**read_up_to_ns) < latest_ns
            });
        late.map(|(worker, _)| worker)
    }

    /// Processes what every worker has read up to, and what waited too long for a worker that has not.
    fn process(&mut self, note: &mut impl FnMut((&[std::net::IpAddr], u64))) {
        let least_ns = self.read_up_to_ns.iter().copied().min().unwrap_or(u64::MAX);
        let most_ns = self.read_up_to_ns.iter().copied().filter(|it| *it != u64::MAX).max();
        let complete_ns = match least_ns {
            u64::MAX => u64::MAX,
            least_ns => least_ns.saturating_sub(DISORDER_NS),
        };
        let overdue_ns = most_ns.and_then(|most| most.checked_sub(self.config.hold_ns()));
        while let Some(Reverse(first)) = self.queue.peek() {
            let at_ns = first.at_ns;
            let is_complete = at_ns <= complete_ns;
            let is_overdue = overdue_ns.is_some_and(|overdue_ns| at_ns <= overdue_ns);
            if !is_complete && !is_overdue && self.queue.len() <= self.config.max_events() {
                break;
            }
            if !is_complete {
                self.forced += 1;
                self.note_gap(at_ns);
            }
            self.decide(at_ns);
            let Some(Reverse(Queued { worker, event: QueuedEvent(event), .. })) = self.queue.pop()
            else {
                break;
            };
            self.apply(worker, event, note);
        }
        self.decide(complete_ns.max(overdue_ns.unwrap_or(0)));
    }

    fn apply(
        &mut self,
        worker: usize,
        event: Event,
        note: &mut impl FnMut((&[std::net::IpAddr], u64)),
    ) {
        match event {
            Event::Opened(opened) => self.open(opened, note),
            Event::Closed(closed) => self.close(worker, &closed, note),
            Event::Gap { until_ns, .. } => self.note_gap(until_ns),
            Event::Switched { at_ns } => {
                self.resolvers.all_mut().for_each(|resolver| resolver.note_switched(at_ns));
            }
        }
    }

    /// Messages of any resolver may have been missed up to this time.
    fn note_gap(&mut self, until_ns: u64) {
        self.resolvers.all_mut().for_each(|resolver| resolver.note_gap(until_ns));
    }

    fn open(&mut self, opened: Opened, note: &mut impl FnMut((&[std::net::IpAddr], u64))) {
        let capacity = self.config.capacity;
        let Opened { record, at_ns, client, server, names } = opened;
        let sender = self.resolvers.sender_of(&client, at_ns);
        let server = self.resolvers.at(&server).filter(|server| Some(*server) != sender);
        if let Some(roles) = self.open.get_mut(&record) {
            // A further sighting of an exchange, after address translation: its server may be known
            // only here.
            if let (None, Some(number)) = (roles.server, server)
                && Some(number) != roles.client
                && let Some(resolver) = self.resolvers.get_mut(number)
            {
                roles.server = server;
                resolver.open_client(record, at_ns, names, capacity);
            }
            return;
        }
        if self.open.len() >= capacity {
            self.note_gap(at_ns);
            return;
        }
        // The client first: a resolver that forwards to another may answer from both sides at once.
        if let Some(resolver) = server.and_then(|server| self.resolvers.get_mut(server)) {
            resolver.open_client(record, at_ns, names.clone(), capacity);
        }
        // Also if the resolver is on another node.
        if sender.is_none() {
            let client = (client.cgroup, client.address);
            if let Some(group) = self.searches.open((record, at_ns), client, &names) {
                self.settle_first_steps(|first| first.group == group);
            }
        }
        if let Some(number) = sender {
            if let Some(resolver) = self.resolvers.get_mut(number) {
                resolver.open_upstream(record, at_ns, names, capacity);
            }
            note(self.resolvers.identities(number));
        }
        if sender.is_some() || server.is_some() {
            self.open.insert(record, Roles { server, client: sender });
        }
    }

    fn close(
        &mut self,
        worker: usize,
        closed: &Closed,
        note: &mut impl FnMut((&[std::net::IpAddr], u64)),
    ) {
        let Closed { record, at_ns, server, .. } = *closed;
        let roles = self.open.remove(&record);
        if let Some(response) = &closed.response {
            self.resolvers.note_response(server, response.cgroup);
        }
        let number = roles.map_or_else(|| self.resolvers.at(&server), |roles| roles.server);
        let resolver = number.and_then(|number| self.resolvers.get_mut(number));
        let source = resolver.and_then(|resolver| resolver.close_client(closed));
        let sender = roles.and_then(|roles| roles.client);
        let served = match sender.and_then(|number| self.resolvers.get_mut(number)) {
            None => None,
            Some(resolver) => {
                if closed.gap {
                    resolver.note_gap(at_ns);
                }
                let served = resolver.close_upstream(&record, at_ns, closed.response.as_ref());
                if served.is_none()
                    && self.undecided.len() < self.config.capacity
                    && let Some(resolver) = sender
                {
                    let wait_ns = UNDECIDED_NS.min(self.config.hold_ns() / 2);
                    let due_ns = at_ns.saturating_add(wait_ns);
                    self.undecided.push_back(Undecided {
                        due_ns,
                        worker,
                        record,
                        resolver,
                        source,
                    });
                    return;
                }
                Some(served.unwrap_or(Served { record: None, count: 0 }))
            }
        };
        if let Some(number) = number {
            note(self.resolvers.identities(number));
        }
        let mut settled = Settled { record, chain: Chain { source, served, search: None } };
        let has_records = closed.response.as_ref().and_then(Response::has_records);
        match self.searches.close(&record, at_ns, has_records) {
            Outcome::None => {}
            Outcome::Step(step) => settled.chain.search = Some(step),
            Outcome::Waits { until_ns, group } if self.first_steps.len() < self.config.capacity => {
                self.first_steps.push_back((until_ns, FirstStep { worker, settled, group }));
                return;
            }
            Outcome::Waits { .. } => {}
        }
        self.settle(worker, settled);
    }

    /// Settles the first steps of a lookup whose second name is queried.
    fn settle_first_steps(&mut self, is_of_group: impl Fn(&FirstStep) -> bool) {
        let mut at = 0;
        while let Some((_, first)) = self.first_steps.get(at) {
            if !is_of_group(first) {
                at += 1;
                continue;
            }
            if let Some((_, FirstStep { worker, mut settled, group })) = self.first_steps.remove(at)
            {
                settled.chain.search = Some(SearchStep { group, step: 1, is_winner: false });
                self.settle(worker, settled);
            }
        }
    }

    /// Decides on upstream exchanges that no client has named by `now_ns`.
    fn decide(&mut self, now_ns: u64) {
        while self.first_steps.front().is_some_and(|(until_ns, _)| *until_ns <= now_ns) {
            let Some((_, FirstStep { worker, settled, .. })) = self.first_steps.pop_front() else {
                break;
            };
            self.settle(worker, settled);
        }
        while self.undecided.front().is_some_and(|first| first.due_ns <= now_ns) {
            let Some(undecided) = self.undecided.pop_front() else { break };
            let Undecided { worker, record, resolver, source, .. } = undecided;
            let served = self.resolvers.get(resolver).and_then(|it| it.served(&record));
            let served = Some(served.unwrap_or(Served { record: None, count: 0 }));
            self.settle(worker, Settled { record, chain: Chain { source, served, search: None } });
        }
    }

    fn settle(&mut self, worker: usize, settled: Settled) {
        if let Some(of) = self.settled.get_mut(worker) {
            of.push(settled);
        }
    }
}
