//! Scripted and random traffic of resolvers.

use std::{net::IpAddr, time::Duration};

use hashbrown::{DefaultHashBuilder, HashMap};
use tap53_dns::Question;

use super::{Closed, Config, Event, Names, Opened, Party, Response, Settled, Tracker};
use crate::pair::{AnsweredFrom, Chain, RecordId, Served};

mod search;
mod workers;

const MS: u64 = 1_000_000;
const RESOLVER: [u8; 4] = [192, 0, 2, 53];
const UPSTREAM: [u8; 4] = [198, 51, 100, 1];

/// Resolver, clients and upstream servers, whose messages are captured by several workers.
struct Scene {
    tracker: Tracker,
    hasher: DefaultHashBuilder,
    events: Vec<Event>,
    workers: usize,
    resolver_cgroup: u64,
}

fn record(number: u64) -> RecordId {
    RecordId::new([7; 8], 0, number)
}

fn config() -> Config {
    Config { hold: Duration::from_millis(300), capacity: 4_096 }
}

fn no_response() -> Option<Response> {
    None
}

fn answer(rcode: u16) -> Option<Response> {
    Some(Response {
        cgroup: 0,
        authoritative: false,
        rcode,
        has_answers: rcode == 0,
        targets: Box::default(),
    })
}

impl Scene {
    fn new() -> Self {
        let hasher = DefaultHashBuilder::default();
        let tracker = Tracker::new(config(), 1);
        let mut scene =
            Self { tracker, hasher, events: Vec::new(), workers: 1, resolver_cgroup: 0 };
        // The first upstream exchange makes it a resolver.
        scene.ask_upstream(1_000, 1, "first.example", 1);
        scene.answer_upstream(1_000, 1, answer(0));
        scene
    }

    fn names(&self, name: &str, qtype: u16) -> Names {
        Names::of(Question { name, qtype, qclass: 1 }, &self.hasher)
    }

    fn target(&self, name: &str) -> u64 {
        self.names(name, 1).name
    }

    fn open(&mut self, number: u64, at_ms: u64, client: Party, server: [u8; 4], names: Names) {
        let (record, at_ns, server) = (record(number), at_ms * MS, server.into());
        self.events.push(Event::Opened(Opened { record, at_ns, client, server, names }));
    }

    fn close(&mut self, number: u64, at_ms: u64, server: [u8; 4], response: Option<Response>) {
        let closed = Closed {
            record: record(number),
            at_ns: at_ms * MS,
            answered_ns: at_ms * MS,
            server: server.into(),
            gap: false,
            response,
        };
        self.events.push(Event::Closed(closed));
    }

    fn ask(&mut self, number: u64, at_ms: u64, name: &str, qtype: u16) {
        let client = Party {
            address: [10, 0, 0, 1].into(),
            cgroup: 0,
            answers_by_address: false,
            answers_by_cgroup: false,
        };
        let names = self.names(name, qtype);
        self.open(number, at_ms, client, RESOLVER, names);
    }

    fn answer(&mut self, number: u64, at_ms: u64, response: Option<Response>) {
        self.close(number, at_ms, RESOLVER, response);
    }

    fn ask_upstream(&mut self, number: u64, at_ms: u64, name: &str, qtype: u16) {
        let client = Party {
            address: RESOLVER.into(),
            cgroup: self.resolver_cgroup,
            answers_by_address: true,
            answers_by_cgroup: self.resolver_cgroup != 0,
        };
        let names = self.names(name, qtype);
        self.open(number, at_ms, client, UPSTREAM, names);
    }

    fn answer_upstream(&mut self, number: u64, at_ms: u64, response: Option<Response>) {
        self.close(number, at_ms, UPSTREAM, response);
    }

    /// Has each worker submit the events that `worker_of` gives it, and returns all verdicts.
    fn settle_across(&mut self, worker_of: impl Fn(usize) -> usize) -> HashMap<RecordId, Chain> {
        let mut settled = Vec::new();
        let mut by_worker: Vec<Vec<Event>> = (0..self.workers).map(|_| Vec::new()).collect();
        for (number, event) in self.events.drain(..).enumerate() {
            by_worker[worker_of(number)].push(event);
        }
        for (worker, events) in by_worker.into_iter().enumerate() {
            self.tracker.submit(worker, events.into_iter(), u64::MAX, &mut settled, |_| {});
        }
        // Verdicts of workers that submitted before the last one.
        for worker in 0..self.workers {
            self.tracker.submit(worker, std::iter::empty(), u64::MAX, &mut settled, |_| {});
        }
        settled.into_iter().map(|Settled { record, chain }| (record, chain)).collect()
    }

    fn settle(&mut self) -> HashMap<RecordId, Chain> {
        self.settle_across(|_| 0)
    }
}

fn from(settled: &HashMap<RecordId, Chain>, number: u64) -> (AnsweredFrom, u32) {
    let source = settled[&record(number)].source.unwrap();
    (source.from, source.upstream_count)
}

fn served(settled: &HashMap<RecordId, Chain>, number: u64) -> Served {
    settled[&record(number)].served.unwrap()
}

#[test]
fn an_answer_is_from_upstream_or_from_the_cache() {
    let mut scene = Scene::new();
    scene.ask(1, 10, "a.example", 1);
    scene.ask_upstream(2, 12, "a.example", 1);
    scene.answer_upstream(2, 40, answer(0));
    scene.answer(1, 41, answer(0));
    scene.ask(3, 50, "a.example", 1);
    scene.answer(3, 51, answer(0));
    let settled = scene.settle();
    let source = settled[&record(1)].source.unwrap();
    assert_eq!((source.from, source.upstream_count), (AnsweredFrom::Upstream, 1));
    assert_eq!((source.upstream_ns, source.resolver_ns), (28 * MS, 3 * MS));
    assert_eq!(settled[&record(1)].served, None);
    assert_eq!(served(&settled, 2), Served { record: Some(record(1)), count: 1 });
    assert_eq!(settled[&record(2)].source, None);
    assert_eq!(from(&settled, 3), (AnsweredFrom::Cache, 0));
}

#[test]
fn clients_that_wait_for_one_exchange_are_all_served_by_it() {
    let mut scene = Scene::new();
    scene.ask(1, 10, "a.example", 1);
    scene.ask_upstream(2, 12, "a.example", 1);
    scene.ask(3, 20, "a.example", 1);
    scene.answer_upstream(2, 40, answer(0));
    scene.answer(3, 41, answer(0));
    scene.answer(1, 42, answer(0));
    let settled = scene.settle();
    assert_eq!(from(&settled, 1), (AnsweredFrom::Upstream, 1));
    assert_eq!(from(&settled, 3), (AnsweredFrom::Upstream, 1));
    assert_eq!(settled[&record(3)].source.unwrap().upstream_ns, 20 * MS);
    assert_eq!(served(&settled, 2), Served { record: Some(record(1)), count: 2 });
}

#[test]
fn cname_records_retries_and_tcp_belong_to_the_chain() {
    let mut scene = Scene::new();
    let target = scene.target("b.example");
    let pointing = |rcode| {
        let targets = Box::from([target]);
        Some(Response { targets, ..answer(rcode).unwrap() })
    };
    scene.ask(1, 10, "a.example", 28);
    scene.ask_upstream(2, 11, "a.example", 28);
    scene.ask_upstream(3, 1_011, "a.example", 28); // a retry
    scene.answer_upstream(3, 1_020, pointing(0));
    scene.ask_upstream(4, 1_021, "b.example", 28);
    scene.answer_upstream(4, 1_030, answer(0)); // truncated
    scene.ask_upstream(5, 1_031, "b.example", 28); // over TCP
    scene.answer_upstream(5, 1_040, answer(0));
    scene.answer(1, 1_041, pointing(0));
    scene.answer_upstream(2, 6_011, no_response());
    let settled = scene.settle();
    assert_eq!(from(&settled, 1), (AnsweredFrom::Upstream, 4));
    // The first one had no response, so it lasts until the last response.
    assert_eq!(settled[&record(1)].source.unwrap().upstream_ns, 1_029 * MS);
    for upstream in 2..=5 {
        assert_eq!(served(&settled, upstream), Served { record: Some(record(1)), count: 1 });
    }
}

#[test]
fn a_cached_cname_record_names_what_was_queried_at_the_end() {
    let mut scene = Scene::new();
    let targets = Box::from([scene.target("b.other")]);
    scene.ask(1, 10, "a.example", 1);
    scene.ask(2, 10, "c.example", 1);
    scene.ask_upstream(3, 11, "c.example", 1);
    scene.ask_upstream(4, 12, "b.other", 1);
    scene.answer_upstream(4, 20, answer(0));
    scene.answer(1, 21, Some(Response { targets, ..answer(0).unwrap() }));
    scene.answer_upstream(3, 30, answer(0));
    scene.answer(2, 31, answer(0));
    let settled = scene.settle();
    assert_eq!(from(&settled, 1), (AnsweredFrom::Upstream, 1));
    assert_eq!(from(&settled, 2), (AnsweredFrom::Upstream, 1));
    assert_eq!(served(&settled, 4), Served { record: Some(record(1)), count: 1 });
}

#[test]
fn a_cached_cname_record_may_point_to_what_another_client_waits_for() {
    let mut scene = Scene::new();
    let targets = || Box::from([scene.target("b.other")]);
    let pointing = [(); 2].map(|()| Some(Response { targets: targets(), ..answer(0).unwrap() }));
    let [first, second] = pointing;
    scene.ask(1, 10, "b.other", 1);
    scene.ask_upstream(2, 11, "b.other", 1);
    scene.ask(3, 12, "a.example", 1);
    scene.answer_upstream(2, 20, answer(0));
    scene.answer(1, 21, answer(0));
    scene.answer(3, 22, first);
    // This one came after the response.
    scene.ask(4, 23, "a.example", 1);
    scene.answer(4, 24, second);
    let settled = scene.settle();
    assert_eq!(from(&settled, 3), (AnsweredFrom::Upstream, 1));
    assert_eq!(from(&settled, 4), (AnsweredFrom::Cache, 0));
}

#[test]
fn a_recursive_resolver_asks_for_names_above_and_for_unrelated_ones() {
    let mut scene = Scene::new();
    scene.ask(1, 10, "www.a.example", 1);
    for (number, name) in [(2, "example"), (3, "a.example"), (4, "ns.other"), (5, "www.a.example")]
    {
        scene.ask_upstream(number, 10 * number, name, 1);
        scene.answer_upstream(number, 10 * number + 5, answer(0));
    }
    scene.answer(1, 60, answer(0));
    let settled = scene.settle();
    assert_eq!(from(&settled, 1), (AnsweredFrom::Upstream, 4));
    assert_eq!(settled[&record(1)].source.unwrap().upstream_ns, 20 * MS);
    assert!((2..=5).all(|it| served(&settled, it).record == Some(record(1))));
}

#[test]
fn what_may_be_for_either_of_two_clients_is_ambiguous() {
    let mut scene = Scene::new();
    scene.ask(1, 10, "one.a.example", 1);
    scene.ask(2, 11, "two.a.example", 1);
    scene.ask_upstream(3, 12, "a.example", 2);
    scene.answer_upstream(3, 20, answer(3));
    scene.answer(1, 21, answer(3));
    scene.answer(2, 22, answer(3));
    let settled = scene.settle();
    assert_eq!(from(&settled, 1).0, AnsweredFrom::Ambiguous);
    assert_eq!(from(&settled, 2).0, AnsweredFrom::Ambiguous);
    assert_eq!(served(&settled, 3), Served { record: None, count: 2 });
}

#[test]
fn a_refresh_of_the_cache_serves_nobody() {
    let mut scene = Scene::new();
    scene.ask(1, 10, "a.example", 1);
    scene.answer(1, 11, answer(0));
    scene.ask_upstream(2, 12, "a.example", 1);
    scene.ask(3, 13, "b.example", 1);
    scene.answer(3, 14, answer(0));
    // The old answer, while the new one is on its way.
    scene.ask(6, 13, "a.example", 1);
    scene.answer(6, 14, answer(0));
    scene.answer_upstream(2, 15, answer(0));
    // While another client waits.
    scene.ask(4, 20, "b.example", 1);
    scene.ask_upstream(5, 21, "a.example", 1);
    scene.answer_upstream(5, 22, answer(0));
    scene.answer(4, 23, answer(0));
    let settled = scene.settle();
    for client in [1, 3, 4, 6] {
        assert_eq!(from(&settled, client), (AnsweredFrom::Cache, 0));
    }
    assert_eq!(served(&settled, 2), Served { record: None, count: 0 });
    assert_eq!(served(&settled, 5), Served { record: None, count: 0 });
}

#[test]
fn own_data_and_refusals_are_local() {
    let mut scene = Scene::new();
    let authoritative = || Some(Response { authoritative: true, ..answer(3).unwrap() });
    scene.ask(1, 10, "x.cluster.local", 1);
    scene.answer(1, 11, authoritative());
    scene.ask(2, 20, "refused.example", 1);
    scene.answer(2, 21, answer(5));
    let settled = scene.settle();
    assert_eq!(from(&settled, 1), (AnsweredFrom::Local, 0));
    assert_eq!(from(&settled, 2), (AnsweredFrom::Local, 0));
}

/// Some resolvers keep the flag AA in their cache.
#[test]
fn authoritative_answers_that_were_fetched_once_are_cached() {
    let authoritative = || Some(Response { authoritative: true, ..answer(0).unwrap() });
    let mut scene = Scene::new();
    let shared = 1..=40;
    for number in shared.clone() {
        scene.ask_upstream(number, 10, &format!("s{number}.zone.example"), 1);
        scene.answer_upstream(number, 11, authoritative());
    }
    // In a table of fixed size, some of them would take the places of some of the shared ones.
    for number in 10_000..13_000 {
        scene.ask_upstream(number, 20, &format!("n{number}.example"), 1);
        scene.answer_upstream(number, 21, authoritative());
    }
    for number in shared.clone() {
        scene.ask(100 + number, 40, &format!("s{number}.zone.example"), 1);
        scene.answer(100 + number, 41, authoritative());
    }
    // Fetched before the resolver was known, or its own.
    scene.ask(203, 42, "b.zone.example", 1);
    scene.answer(203, 43, authoritative());
    scene.ask(204, 44, "x.cluster.local", 1);
    scene.answer(204, 45, authoritative());
    let settled = scene.settle();
    assert!(shared.into_iter().all(|it| from(&settled, 100 + it).0 == AnsweredFrom::Cache));
    assert_eq!(from(&settled, 203).0, AnsweredFrom::Ambiguous);
    assert_eq!(from(&settled, 204).0, AnsweredFrom::Local);
}

/// Behind a service, the response leaves the resolver before its client has it.
#[test]
fn exchanges_after_the_resolver_has_answered_are_not_for_its_client() {
    let mut scene = Scene::new();
    let answer_translated = |scene: &mut Scene, number, (answered_ms, at_ms)| {
        scene.answer(number, at_ms, answer(0));
        if let Some(Event::Closed(closed)) = scene.events.last_mut() {
            closed.answered_ns = answered_ms * MS;
        }
    };
    // From the cache, while another client's query goes upstream: sent before the answer, and after it.
    scene.ask(1, 10, "a.example", 1);
    scene.ask_upstream(2, 11, "a.example", 1);
    scene.ask(3, 12, "a.example", 1);
    scene.answer_upstream(2, 14, answer(0));
    answer_translated(&mut scene, 3, (13, 15));
    answer_translated(&mut scene, 1, (16, 17));
    scene.ask(4, 20, "b.example", 1);
    scene.ask_upstream(5, 22, "b.example", 1);
    scene.answer_upstream(5, 23, answer(0));
    answer_translated(&mut scene, 4, (21, 24));
    let settled = scene.settle();
    assert_eq!(from(&settled, 1), (AnsweredFrom::Upstream, 1));
    assert_eq!(settled[&record(1)].source.unwrap().resolver_ns, 3 * MS);
    assert_eq!(from(&settled, 3), (AnsweredFrom::Cache, 0));
    assert_eq!(from(&settled, 4), (AnsweredFrom::Cache, 0));
}

#[test]
fn a_gap_makes_a_cached_answer_unknown_and_leaves_evidence() {
    let mut scene = Scene::new();
    scene.ask(1, 10, "a.example", 1);
    scene.ask(2, 10, "b.example", 1);
    scene.ask_upstream(3, 11, "b.example", 1);
    scene.events.push(Event::Gap { from_ns: 11 * MS, until_ns: 12 * MS });
    scene.answer_upstream(3, 13, answer(0));
    scene.answer(1, 14, answer(0));
    scene.answer(2, 14, answer(0));
    scene.ask(4, 20, "a.example", 1);
    scene.answer(4, 21, answer(0));
    let settled = scene.settle();
    assert_eq!(from(&settled, 1).0, AnsweredFrom::Unknown);
    assert_eq!(from(&settled, 2).0, AnsweredFrom::Upstream);
    assert_eq!(from(&settled, 4).0, AnsweredFrom::Cache);
}

#[test]
fn a_switch_of_capture_counts_from_its_time_on() {
    let mut scene = Scene::new();
    // Reported before a worker with a backlog has read so far, as when the agent ends.
    scene.events.push(Event::Switched { at_ns: 30 * MS });
    scene.ask(1, 10, "a.example", 1);
    scene.answer(1, 11, answer(0));
    scene.ask(2, 40, "a.example", 1);
    scene.answer(2, 41, answer(0));
    scene.ask_upstream(3, 50, "b.example", 1);
    scene.answer_upstream(3, 51, answer(0));
    // Reported late.
    scene.events.push(Event::Switched { at_ns: 45 * MS });
    scene.ask(4, 60, "a.example", 1);
    scene.answer(4, 61, answer(0));
    let settled = scene.settle();
    assert_eq!(from(&settled, 1).0, AnsweredFrom::Cache);
    assert_eq!(from(&settled, 2).0, AnsweredFrom::Unknown);
    assert_eq!(from(&settled, 4).0, AnsweredFrom::Cache);
}

#[test]
fn the_first_exchange_and_one_long_after_the_last_upstream_query_are_unknown() {
    let mut scene = Scene::new();
    // Its query was seen before the resolver was known.
    scene.answer(1, 10, answer(0));
    scene.ask(2, 700_000, "a.example", 1);
    scene.answer(2, 700_001, answer(0));
    let settled = scene.settle();
    assert_eq!(from(&settled, 1).0, AnsweredFrom::Unknown);
    assert_eq!(from(&settled, 2).0, AnsweredFrom::Unknown);
}

#[test]
fn a_resolution_that_fails_is_from_upstream() {
    let mut scene = Scene::new();
    scene.ask(1, 10, "a.example", 1);
    scene.ask_upstream(2, 11, "a.example", 1);
    scene.ask_upstream(3, 1_011, "a.example", 1);
    scene.answer(1, 2_000, answer(2));
    let settled = scene.settle();
    assert_eq!(from(&settled, 1), (AnsweredFrom::Upstream, 2));
    assert_eq!(settled[&record(1)].source.unwrap().upstream_ns, 1_989 * MS);
}

#[test]
fn a_cache_in_the_nodes_network_is_recognised_by_its_cgroup() {
    let mut scene = Scene::new();
    let node: IpAddr = [203, 0, 113, 1].into();
    let (cache, other) = (9, 10);
    let party = |cgroup| Party {
        address: node,
        cgroup,
        answers_by_address: false,
        answers_by_cgroup: cgroup == cache,
    };
    let link_local = [169, 254, 20, 10];
    let of_cache = || Some(Response { cgroup: cache, ..answer(0).unwrap() });
    let names = scene.names("a.example", 1);
    // Its first query makes it a resolver, its first response names its address.
    scene.open(1, 10, party(cache), UPSTREAM, names.clone());
    scene.answer_upstream(1, 11, answer(0));
    scene.close(2, 12, link_local, of_cache());
    let client = Party { cgroup: 11, address: [10, 0, 0, 1].into(), ..party(11) };
    scene.open(3, 20, client, link_local, names.clone());
    scene.open(4, 21, party(cache), UPSTREAM, names.clone());
    // Another process of the node has the same question.
    scene.open(5, 22, party(other), UPSTREAM, names);
    scene.answer_upstream(5, 23, answer(0));
    scene.answer_upstream(4, 24, answer(0));
    scene.close(3, 25, link_local, of_cache());
    let settled = scene.settle();
    assert_eq!(from(&settled, 3), (AnsweredFrom::Upstream, 1));
    assert_eq!(served(&settled, 4), Served { record: Some(record(3)), count: 1 });
    assert_eq!(settled[&record(5)], Chain::default());
}

#[test]
fn another_process_at_the_address_of_a_resolver_is_not_it() {
    let mut scene = Scene::new();
    scene.ask(1, 10, "a.example", 1);
    scene.answer(1, 11, Some(Response { cgroup: 9, ..answer(0).unwrap() }));
    scene.ask(2, 20, "b.example", 1);
    scene.resolver_cgroup = 10;
    let names = scene.names("b.example", 1);
    let other = Party {
        address: RESOLVER.into(),
        cgroup: 10,
        answers_by_address: true,
        answers_by_cgroup: false,
    };
    scene.open(3, 21, other, UPSTREAM, names);
    scene.answer_upstream(3, 22, answer(0));
    scene.answer(2, 23, answer(0));
    let settled = scene.settle();
    assert_eq!(from(&settled, 2), (AnsweredFrom::Cache, 0));
    assert_eq!(settled[&record(3)], Chain::default());
}
