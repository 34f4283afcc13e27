use std::time::Duration;

use tap53_ebpf::settings::Direction;

use super::*;
use crate::{
    decode::{Transport, build::Build},
    pair::Outcome,
};

const SECOND: u64 = 1_000_000_000;

fn table(capacity: usize) -> Table {
    Config { timeout: Duration::from_secs(5), capacity }.build(0)
}

fn flow(port: u16) -> Flow {
    Flow {
        ifindex: 7,
        transport: Transport::Udp,
        client: ([192, 0, 2, 1], port).into(),
        server: ([192, 0, 2, 53], 53).into(),
    }
}

fn message(at_ns: u64, id: u16, name: &str, response: bool) -> Observation {
    Observation {
        at_ns,
        direction: if response { Direction::Egress } else { Direction::Ingress },
        vlan_ids: [None; 2],
        vlan_visible: true,
        message: Build::message(id, response).question(name, 1).parse(),
        wire: None,
    }
}

fn done(observed: Observed) -> Transaction {
    match observed {
        Observed::Done(transaction) => transaction,
        other => panic!("expected a transaction, got {other:?}"),
    }
}

#[test]
fn a_response_finds_its_query() {
    let mut table = table(8);
    let waits = table.observe(flow(1_000), message(SECOND, 9, "a.test", false));
    assert_eq!(waits, Observed::Waits { evicted: 0 });
    let found = done(table.observe(flow(1_000), message(SECOND + 70, 9, "a.test", true)));
    assert_eq!((found.outcome(), found.messages()), (Outcome::Matched, 2));
    assert!(!found.capture_gap);
    assert_eq!((table.pending_messages(), table.index.len()), (0, 0));
}

#[test]
fn flow_identifier_and_question_must_all_agree() {
    let mut table = table(8);
    table.observe(flow(1_000), message(10 * SECOND, 9, "a.test", false));
    for (port, id, name) in [(1_001, 9, "a.test"), (1_000, 8, "a.test"), (1_000, 9, "b.test")] {
        let other = done(table.observe(flow(port), message(11 * SECOND, id, name, true)));
        assert_eq!(other.outcome(), Outcome::UnmatchedResponse);
        assert!(!other.capture_gap);
    }
    let mut bare = message(11 * SECOND, 9, "", true);
    bare.message = Build::message(9, true).parse();
    assert_eq!(done(table.observe(flow(1_000), bare)).outcome(), Outcome::Matched);
}

#[test]
fn a_repeated_query_is_one_transaction_with_a_count() {
    let mut table = table(8);
    table.observe(flow(1), message(0, 1, "a.test", false));
    assert_eq!(table.observe(flow(1), message(SECOND, 1, "a.test", false)), Observed::Repeated);
    assert_eq!(table.pending_messages(), 2);
    let found = done(table.observe(flow(1), message(2 * SECOND, 1, "a.test", true)));
    assert_eq!((found.query_count, found.messages()), (2, 3));
    assert_eq!(found.query().unwrap().at_ns, 0, "latency counts from the first query");
}

#[test]
fn late_response_is_unmatched_after_timeout() {
    let mut table = table(8);
    table.observe(flow(1), message(20 * SECOND, 1, "a.test", false));
    assert_eq!(table.expire(25 * SECOND - 1), None);
    let expired = table.expire(25 * SECOND).unwrap();
    assert_eq!(expired.outcome(), Outcome::Unanswered);
    assert!(!expired.capture_gap);
    assert_eq!(table.expire(25 * SECOND), None);
    let late = done(table.observe(flow(1), message(26 * SECOND, 1, "a.test", true)));
    assert_eq!((late.outcome(), late.messages()), (Outcome::UnmatchedResponse, 1));
}

#[test]
fn a_full_table_evicts_the_oldest_and_says_how_much() {
    let mut table = table(2);
    table.observe(flow(1), message(1, 1, "a.test", false));
    table.observe(flow(1), message(2, 1, "a.test", false));
    table.observe(flow(2), message(3, 1, "a.test", false));
    let third = table.observe(flow(3), message(4, 1, "a.test", false));
    assert_eq!(third, Observed::Waits { evicted: 2 });
    assert_eq!((table.pending_messages(), table.index.len()), (2, 2));
    let genuine = done(table.observe(flow(2), message(5, 1, "a.test", true)));
    assert_eq!(genuine.outcome(), Outcome::Matched);
}

#[test]
fn slots_are_used_again_so_a_flood_stays_within_capacity() {
    let mut table = table(16);
    for round in 0..10_000u32 {
        let port = u16::try_from(round % 60_000).unwrap();
        table.observe(flow(port), message(u64::from(round), 1, "flood.test", false));
    }
    assert_eq!(table.slots.len(), 16);
    assert_eq!((table.pending_messages(), table.index.len()), (16, 16));
    let order: Vec<u64> =
        std::iter::from_fn(|| table.drain()).map(|transaction| transaction.first().at_ns).collect();
    assert_eq!(order, (9_984..10_000).collect::<Vec<u64>>());
    assert_eq!(table.pending_messages(), 0);
}

#[test]
fn a_loss_between_query_and_response_is_a_gap() {
    let mut table = table(8);
    table.observe(flow(1), message(20 * SECOND, 1, "a.test", false));
    table.observe(flow(2), message(20 * SECOND, 1, "a.test", false));
    table.note_ring_lost(3, 21 * SECOND);
    assert!(done(table.observe(flow(1), message(21 * SECOND, 1, "a.test", true))).capture_gap);
    let orphan = done(table.observe(flow(9), message(22 * SECOND, 1, "a.test", true)));
    assert!(orphan.capture_gap, "its query may be among the lost");
    assert!(table.expire(30 * SECOND).unwrap().capture_gap);
    let orphan = done(table.observe(flow(9), message(40 * SECOND, 1, "a.test", true)));
    assert!(!orphan.capture_gap, "the loss was longer ago than any query waits");
}

#[test]
fn an_unreadable_packet_is_a_gap_for_its_flow_alone() {
    let mut table = table(8);
    for port in [1, 2] {
        table.observe(flow(port), message(20 * SECOND, 1, "a.test", false));
    }
    // The answer came in fragments: from the server to the client.
    let back = Flow { client: flow(1).server, server: flow(1).client, ..flow(1) };
    table.note_unreadable(back, 21 * SECOND);
    assert!(table.expire(25 * SECOND).unwrap().capture_gap);
    assert!(!table.expire(25 * SECOND).unwrap().capture_gap);
    let orphan = |at: u64| message(at * SECOND, 2, "b.test", true);
    assert!(done(table.observe(flow(1), orphan(26))).capture_gap);
    assert!(!done(table.observe(flow(1), orphan(27))).capture_gap, "too long ago");
    for number in 0..10_000u16 {
        table.note_unreadable(flow(number), 30 * SECOND);
    }
    assert!(table.damaged.len() <= DAMAGED_FLOWS + 1);
    assert!(done(table.observe(flow(50_000), orphan(31))).capture_gap, "any may be damaged");
}
