//! Chains behind answers, from ring items to records, with one worker and with two.

use tap53_transactions::chain::{self, Chains};

use super::*;

const CLIENT: [u8; 4] = [10, 0, 0, 1];
const RESOLVER: [u8; 4] = [10, 0, 0, 53];
const UPSTREAM: [u8; 4] = [198, 51, 100, 1];

const MS: u64 = 1_000_000;

/// Stages that share their chains.
struct Node {
    workers: Vec<Stages>,
    sinks: Vec<Arc<Keep>>,
}

impl Node {
    fn new(workers: usize, capacity: usize) -> Self {
        let config = chain::Config { hold: Duration::from_millis(300), capacity };
        let chains = Some(Chains::new(config, workers));
        let released = Arc::new(true.into());
        let queues = CrossWorkerQueue::between(workers, &released);
        let (workers, sinks) = (0u16..).zip(queues).map(|it| worker(it, chains.clone())).unzip();
        let mut node = Self { workers, sinks };
        // The resolver becomes known by one answer and one query of its own.
        node.exchange(0, 1, (CLIENT, RESOLVER), 1, "first.test", 1);
        node.exchange(0, 3, (RESOLVER, UPSTREAM), 2, "first.test", 1);
        node.pass(5);
        node
    }

    /// Captures a query at `at_ms` and its response `took_ms` later, or the query alone.
    fn exchange(
        &mut self,
        worker: usize,
        at_ms: u64,
        ends: ([u8; 4], [u8; 4]),
        id: u16,
        name: &str,
        took_ms: u64,
    ) {
        self.take(worker, at_ms, ends, id, name, false);
        self.take(worker, at_ms + took_ms, ends, id, name, true);
    }

    fn take(
        &mut self,
        worker: usize,
        at_ms: u64,
        (client, server): ([u8; 4], [u8; 4]),
        id: u16,
        name: &str,
        response: bool,
    ) {
        let payload = Build::message(id, response).question(name, 1).wire();
        let mut item = item(17, &payload, response);
        item[0..8].copy_from_slice(&(at_ms * MS).to_ne_bytes());
        let addresses = if response { [server, client] } else { [client, server] };
        let at = RecordHeader::SIZE + 12;
        item[at..at + 8].copy_from_slice(&addresses.concat());
        self.workers[worker].take(&item);
    }

    /// Each worker has read up to this time. Twice, since the last one may have been waited for.
    fn pass(&mut self, at_ms: u64) {
        for worker in self.workers.iter_mut().chain([]) {
            worker.expire(at_ms * MS);
        }
        for worker in &mut self.workers {
            worker.expire(at_ms * MS);
            worker.deliver();
        }
    }

    fn counts(&self) -> WorkerCounts {
        let mut sum = WorkerCounts::default();
        for worker in &self.workers {
            let counts = worker.published().read();
            sum.records_created += counts.records_created;
            sum.chains_without_verdict += counts.chains_without_verdict;
            sum.transactions_held += counts.transactions_held;
            sum.messages_pending += counts.messages_pending;
            sum.messages_in_records += counts.messages_in_records;
            sum.messages_decoded += counts.messages_decoded;
        }
        sum
    }

    /// Returns the records for a name: that of the client, and that of the resolver.
    fn records(&self, name: &str) -> [serde_json::Value; 2] {
        let find = |client: [u8; 4]| {
            let address = std::net::Ipv4Addr::from(client).to_string();
            let lines = self.sinks.iter().flat_map(|sink| sink.lines.lock().unwrap().clone());
            let mut found =
                lines.filter(|line| line["qname"] == name && line["client_address"] == *address);
            let first = found.next().unwrap_or_default();
            assert!(found.next().is_none(), "two records of {name}");
            first
        };
        [find(CLIENT), find(RESOLVER)]
    }
}

fn worker((number, queue): (u16, CrossWorkerQueue), chains: Option<Chains>) -> (Stages, Arc<Keep>) {
    let keep = Arc::new(Keep::default());
    let shared = Shared { chains, ..Shared::new("node-1", Arc::default()) };
    let table = pair::Config { capacity: 4_096, ..pair::Config::default() };
    let table = table.build(0, RecordIds::new([1; 8], number), SharedNotes::default());
    let sink = Named { name: "keep".into(), sink: keep.clone() };
    let clock = Clock { utc_offset_ns: 0 };
    (Stages::new(table, &[sink], &shared, queue, clock).unwrap(), keep)
}

/// A chain, a cached answer, and an exchange that has nothing to do with the resolver.
fn show(node: &mut Node, upstream_worker: usize) {
    node.take(0, 10, (CLIENT, RESOLVER), 3, "a.test", false);
    node.pass(10);
    node.exchange(upstream_worker, 11, (RESOLVER, UPSTREAM), 4, "a.test", 20);
    node.take(0, 32, (CLIENT, RESOLVER), 3, "a.test", true);
    node.exchange(0, 40, (CLIENT, RESOLVER), 5, "b.test", 1);
    node.exchange(0, 42, (CLIENT, UPSTREAM), 6, "c.test", 1);
    node.pass(50);
    let [client, upstream] = node.records("a.test");
    assert_eq!(client["answered_from"], "UPSTREAM", "{client}");
    assert_eq!(client["upstream_count"], 1);
    assert_eq!(client["upstream_time_ns"], 20 * MS);
    assert_eq!(client["resolver_time_ns"], 2 * MS);
    assert_eq!(client["served_count"], serde_json::Value::Null);
    assert_eq!(upstream["served_record_id"], client["record_id"]);
    assert_eq!(upstream["served_count"], 1);
    assert_eq!(upstream["answered_from"], serde_json::Value::Null);
    let [client, _] = node.records("b.test");
    assert_eq!(client["answered_from"], "CACHE");
    assert_eq!(client["upstream_count"], 0);
    let [client, _] = node.records("c.test");
    assert_eq!(client["answered_from"], serde_json::Value::Null);
    assert_eq!(node.counts().chains_without_verdict, 0);
}

#[test]
fn a_record_says_where_its_answer_came_from() {
    show(&mut Node::new(1, 1_024), 0);
}

#[test]
fn the_two_sides_of_a_resolver_meet_across_workers() {
    show(&mut Node::new(2, 1_024), 1);
}

#[test]
fn a_worker_that_has_not_read_so_far_is_waited_for() {
    let mut node = Node::new(2, 1_024);
    node.exchange(0, 10, (CLIENT, RESOLVER), 3, "a.test", 1);
    node.workers[0].expire(20 * MS);
    node.workers[0].deliver();
    assert_eq!(node.records("a.test")[0], serde_json::Value::Null);
    assert_eq!(node.counts().transactions_held, 1);
    assert_eq!(node.counts().messages_pending, 2);
    // It wakes the other one; a worker that never reads costs the verdict, not the record.
    node.workers[0].expire(500 * MS);
    node.workers[0].deliver();
    assert_eq!(node.records("a.test")[0]["answered_from"], "UNKNOWN");
    assert_eq!(node.counts().transactions_held, 0);
}

#[test]
fn a_flood_is_recorded_whole_and_at_once_where_there_is_no_room() {
    let mut node = Node::new(2, 64);
    let before = node.counts().records_created;
    for id in 0..1_000 {
        node.exchange(0, 10, (CLIENT, RESOLVER), id, &format!("n{id}.test"), 1);
    }
    for worker in &mut node.workers {
        worker.deliver();
    }
    let counts = node.counts();
    assert!(counts.transactions_held <= 64, "{}", counts.transactions_held);
    assert!(counts.chains_without_verdict >= 800, "{}", counts.chains_without_verdict);
    node.pass(1_000);
    let counts = node.counts();
    assert_eq!(counts.records_created - before, 1_000);
    assert_eq!(counts.messages_in_records, counts.messages_decoded);
    assert_eq!((counts.transactions_held, counts.messages_pending), (0, 0));
    assert_eq!(node.records("n999.test")[0]["answered_from"], "UNKNOWN");
}

#[test]
fn what_waits_at_the_end_is_recorded_with_its_verdict() {
    let mut node = Node::new(1, 1_024);
    node.take(0, 10, (CLIENT, RESOLVER), 3, "a.test", false);
    node.exchange(0, 11, (RESOLVER, UPSTREAM), 4, "a.test", 20);
    node.take(0, 32, (CLIENT, RESOLVER), 3, "a.test", true);
    node.workers.remove(0).finish();
    let [client, upstream] = node.records("a.test");
    assert_eq!(client["answered_from"], "UPSTREAM");
    assert_eq!(upstream["served_record_id"], client["record_id"]);
}
