//! Tests of the table, message by message.

mod copies;
mod crowds;
mod sightings;
mod signs;

use tap53_dns::{Transport, build::Build};
use tap53_ebpf::settings::Direction;

use super::{expiry::BUFFER_BYTES_PER_QUERY, slots::MAX_FREE_BUFFER_BYTES, *};
use crate::pair::{Anomaly, Outcome, Point, Related, Relation};

const SECOND: u64 = 1_000_000_000;

fn table(capacity: usize) -> Table {
    table_with(capacity, true, &SharedNotes::default())
}

fn table_with(capacity: usize, merge_interfaces: bool, truncations: &SharedNotes) -> Table {
    let config = Config { capacity, merge_interfaces, ..Config::default() };
    config.build(0, RecordIds::new([7; 8], 1), truncations.clone())
}

fn flow(port: u16) -> Flow {
    Flow {
        transport: Transport::Udp,
        client: ([192, 0, 2, 1], port).into(),
        server: ([192, 0, 2, 53], 53).into(),
        tunnel: None,
        ifindex: 7,
    }
}

fn message(at_ns: u64, id: u16, name: &str, response: bool) -> Box<Observation> {
    let direction = if response { Direction::Egress } else { Direction::Ingress };
    Box::new(Observation {
        at_ns,
        point: Point { ifindex: 7, direction },
        message: Build::message(id, response).question(name, 1).parse(),
        ..Observation::default()
    })
}

fn observe_by<'a>(
    table: &'a mut Table,
    flow: Flow,
    seen: &'a mut Box<Observation>,
    wire: &[u8],
) -> Observed<'a> {
    let key = table.key(&flow, seen.message.id);
    table.observe(key, seen, wire)
}

fn observe(
    table: &mut Table,
    flow: Flow,
    mut seen: Box<Observation>,
) -> Option<Transaction<'static>> {
    let wire = seen.message.id.to_be_bytes();
    let key = table.key(&flow, seen.message.id);
    match table.observe(key, &mut seen, &wire) {
        Observed::Done(transaction) => return Some(to_static(&transaction)),
        Observed::Waits => while table.evict().is_some() {},
        _ => {}
    }
    None
}

fn done(observed: Option<Transaction<'static>>) -> Transaction<'static> {
    observed.expect("a transaction")
}

/// Copies a transaction, so that it outlives its table.
fn to_static(transaction: &Transaction<'_>) -> Transaction<'static> {
    let keep = |seen: &Observation| -> &'static Observation { Box::leak(Box::new(seen.clone())) };
    let exchange = match transaction.exchange {
        Exchange::Matched(query, response) => Exchange::Matched(keep(query), keep(response)),
        Exchange::Query(query) => Exchange::Query(keep(query)),
        Exchange::Response(response) => Exchange::Response(keep(response)),
    };
    Transaction { exchange, chain: None, ..*transaction }
}

#[test]
fn a_response_finds_its_query() {
    let mut table = table(8);
    let mut query = message(SECOND, 9, "a.test", false);
    assert_eq!(observe_by(&mut table, flow(1_000), &mut query, &[]), Observed::Waits);
    let found = done(observe(&mut table, flow(1_000), message(SECOND + 70, 9, "a.test", true)));
    assert_eq!((found.outcome(), found.messages()), (Outcome::Matched, 2));
    assert!(!found.capture_gap);
    assert_eq!((table.pending_messages(), table.index.len()), (0, 0));
}

#[test]
fn flow_identifier_and_question_must_all_agree() {
    let mut table = table(8);
    observe(&mut table, flow(1_000), message(10 * SECOND, 9, "a.test", false));
    for (port, id, name) in [(1_001, 9, "a.test"), (1_000, 8, "a.test"), (1_000, 9, "b.test")] {
        let other = done(observe(&mut table, flow(port), message(11 * SECOND, id, name, true)));
        assert_eq!(other.outcome(), Outcome::UnmatchedResponse);
        assert!(!other.capture_gap);
    }
    let mut bare = message(11 * SECOND, 9, "", true);
    bare.message = Build::message(9, true).parse();
    assert_eq!(done(observe(&mut table, flow(1_000), bare)).outcome(), Outcome::Matched);
}

#[test]
fn a_repeated_query_is_one_transaction_with_a_count() {
    let mut table = table(8);
    observe(&mut table, flow(1), message(0, 1, "a.test", false));
    let mut again = message(SECOND, 1, "a.test", false);
    assert_eq!(observe_by(&mut table, flow(1), &mut again, &[]), Observed::Repeated);
    assert_eq!(table.pending_messages(), 2);
    let found = done(observe(&mut table, flow(1), message(2 * SECOND, 1, "a.test", true)));
    assert_eq!((found.query_count, found.messages()), (2, 3));
    assert_eq!(found.query().unwrap().at_ns, 0, "latency counts from the first query");
}

#[test]
fn late_response_is_unmatched_after_timeout() {
    let mut table = table(8);
    observe(&mut table, flow(1), message(20 * SECOND, 1, "a.test", false));
    assert_eq!(table.expire(25 * SECOND - 1), None);
    let expired = to_static(&table.expire(25 * SECOND).unwrap());
    assert_eq!(expired.outcome(), Outcome::Unanswered);
    assert!(!expired.capture_gap);
    assert_eq!(table.expire(25 * SECOND), None);
    let late = done(observe(&mut table, flow(1), message(26 * SECOND, 1, "a.test", true)));
    assert_eq!((late.outcome(), late.messages()), (Outcome::UnmatchedResponse, 1));
    assert_eq!(
        late.related,
        Some(Related { relation: Relation::LateResponse, record: expired.id })
    );
}

#[test]
fn a_second_response_names_the_record_of_the_first() {
    let mut table = table(8);
    observe(&mut table, flow(1), message(20 * SECOND, 1, "a.test", false));
    let first = done(observe(&mut table, flow(1), message(20 * SECOND, 1, "a.test", true)));
    let mut forged = message(20 * SECOND, 1, "a.test", true);
    let Observed::Done(second) = observe_by(&mut table, flow(1), &mut forged, b"another") else {
        panic!("no transaction");
    };
    let related = Related { relation: Relation::RepeatedResponse, record: first.id };
    assert_eq!((second.outcome(), second.related), (Outcome::UnmatchedResponse, Some(related)));
}

#[test]
fn one_packet_on_its_way_over_several_interfaces_is_one_message() {
    let mut table = table(8);
    let elsewhere = |ifindex, mut seen: Box<Observation>| {
        seen.point.ifindex = ifindex;
        seen
    };
    let query = || message(20 * SECOND, 1, "a.test", false);
    let response = || message(20 * SECOND + 5, 1, "a.test", true);
    observe(&mut table, flow(1), query());
    for ifindex in [8, 9] {
        let mut copy = elsewhere(ifindex, query());
        assert_eq!(observe_by(&mut table, flow(1), &mut copy, &[]), Observed::Copy);
    }
    let found = done(observe(&mut table, flow(1), elsewhere(9, response())));
    assert_eq!((found.query_count, found.copy_count, found.messages()), (1, 2, 2));
    assert_eq!(found.query().unwrap().point.ifindex, 7, "where it was seen first");
    for ifindex in [8, 7] {
        let mut copy = elsewhere(ifindex, response());
        assert_eq!(observe_by(&mut table, flow(1), &mut copy, &[0, 1]), Observed::Copy);
    }
    let mut again = elsewhere(9, response());
    again.at_ns += SECOND;
    let again = done(observe(&mut table, flow(1), again));
    assert_eq!(again.related.unwrap().relation, Relation::RepeatedResponse);
}

#[test]
fn interfaces_that_are_not_merged_have_transactions_of_their_own() {
    let mut table = table_with(8, false, &SharedNotes::default());
    for ifindex in [7, 8] {
        let flow = Flow { ifindex, ..flow(1) };
        assert!(observe(&mut table, flow, message(1, 1, "a.test", false)).is_none());
    }
    for ifindex in [7, 8] {
        let flow = Flow { ifindex, ..flow(1) };
        let found = done(observe(&mut table, flow, message(2, 1, "a.test", true)));
        assert_eq!(found.outcome(), Outcome::Matched);
    }
}

#[test]
fn an_identifier_may_be_used_again_for_another_question() {
    let mut table = table(8);
    let over_tcp = Flow { transport: Transport::Tcp, ..flow(1) };
    for name in ["a.test", "b.test"] {
        observe(&mut table, over_tcp, message(20 * SECOND, 1, name, false));
    }
    for name in ["b.test", "a.test"] {
        let found = done(observe(&mut table, over_tcp, message(20 * SECOND, 1, name, true)));
        assert_eq!(found.outcome(), Outcome::Matched);
        assert_eq!(found.query().unwrap().message.question().unwrap().name, name);
        assert_eq!(found.related, None);
    }
}

#[test]
fn a_response_before_its_query_is_of_an_earlier_exchange_only_if_one_can_be_its() {
    let ms = 1_000_000;
    let mut table = table(8);
    // Another question was asked and answered, and the server's clock is slightly slow.
    observe(&mut table, flow(1), message(20 * SECOND, 1, "a.test", false));
    done(observe(&mut table, flow(1), message(20 * SECOND + ms, 1, "a.test", true)));
    observe(&mut table, flow(1), message(21 * SECOND, 1, "b.test", false));
    let found =
        done(observe(&mut table, flow(1), message(21 * SECOND - 5 * ms, 1, "b.test", true)));
    assert_eq!(found.outcome(), Outcome::Matched, "the earlier question was another");
    // The same question, but the earlier exchange began after the response.
    observe(&mut table, flow(2), message(30 * SECOND, 1, "c.test", false));
    done(observe(&mut table, flow(2), message(30 * SECOND + ms, 1, "c.test", true)));
    observe(&mut table, flow(2), message(31 * SECOND, 1, "c.test", false));
    let mut before = message(30 * SECOND - 5 * ms, 1, "c.test", true);
    let found = match observe_by(&mut table, flow(2), &mut before, b"other") {
        Observed::Done(transaction) => to_static(&transaction),
        other => panic!("{other:?}"),
    };
    assert_eq!(found.outcome(), Outcome::Matched, "no earlier exchange had begun");
    // An exchange that had begun keeps its response.
    observe(&mut table, flow(3), message(40 * SECOND, 1, "d.test", false));
    assert!(table.expire(45 * SECOND).is_some());
    observe(&mut table, flow(3), message(46 * SECOND, 1, "d.test", false));
    let late = done(observe(&mut table, flow(3), message(45 * SECOND, 1, "d.test", true)));
    assert_eq!(late.related.map(|it| it.relation), Some(Relation::LateResponse));
}

#[test]
fn each_transport_has_its_timeout() {
    let mut table = table(8);
    let over_tcp = Flow { transport: Transport::Tcp, ..flow(1) };
    observe(&mut table, over_tcp, message(20 * SECOND, 1, "a.test", false));
    observe(&mut table, flow(1), message(21 * SECOND, 1, "a.test", false));
    assert_eq!(table.expire(26 * SECOND).unwrap().flow.transport, Transport::Udp);
    assert_eq!(table.expire(30 * SECOND - 1), None);
    assert_eq!(table.expire(30 * SECOND).unwrap().flow.transport, Transport::Tcp);
}

#[test]
fn a_truncated_response_and_its_retry_over_tcp_name_each_other_whoever_comes_first() {
    let truncated = |at_ns| {
        let mut seen = message(at_ns, 1, "a.test", true);
        seen.message.flags.truncated = true;
        seen
    };
    let over_tcp = Flow { transport: Transport::Tcp, ..flow(2) };
    for tcp_first in [false, true] {
        // Two workers.
        let truncations = SharedNotes::default();
        let [mut udp, mut tcp] = [(); 2].map(|()| table_with(8, true, &truncations));
        observe(&mut udp, flow(1), message(20 * SECOND, 1, "a.test", false));
        observe(&mut tcp, over_tcp, message(21 * SECOND, 2, "a.test", false));
        let mut cut = || done(observe(&mut udp, flow(1), truncated(20 * SECOND)));
        let mut whole =
            || done(observe(&mut tcp, over_tcp, message(21 * SECOND, 2, "a.test", true)));
        let (first, second, relation) = if tcp_first {
            (whole(), cut(), Relation::RetriedOverTcp)
        } else {
            (cut(), whole(), Relation::TcpAfterTruncation)
        };
        assert_eq!(first.related, None);
        assert_eq!(second.related, Some(Related { relation, record: first.id }));
    }
    let mut table = table(8);
    done(observe(&mut table, flow(1), truncated(20 * SECOND)));
    observe(&mut table, over_tcp, message(31 * SECOND, 2, "a.test", false));
    let late = done(observe(&mut table, over_tcp, message(31 * SECOND, 2, "a.test", true)));
    assert_eq!(late.related, None, "a question of its own");
}

#[test]
fn large_queries_are_bounded_by_bytes_and_free_their_buffers() {
    let mut table = table(64);
    let large = |port: u16| {
        let mut query = message(u64::from(port), 1, "a.test", false);
        query.wire = vec![0; 65_535];
        query
    };
    for port in 1..1_000 {
        observe(&mut table, flow(port), large(port));
        assert!(table.buffer_bytes <= 64 * BUFFER_BYTES_PER_QUERY + 70_000);
    }
    while table.drain().is_some() {}
    table.shrink_buffers();
    assert_eq!(table.buffer_bytes, 0);
    let held: usize = table.slots.iter().map(|slot| slot.query.buffer_bytes()).sum();
    assert!(held <= 64 * MAX_FREE_BUFFER_BYTES, "{held} bytes");
}

#[test]
fn a_full_table_records_the_oldest_as_unanswered_with_a_gap() {
    let mut table = table(2);
    let at = |at_s: u64| message(at_s * SECOND, 1, "a.test", false);
    observe(&mut table, flow(1), at(1));
    observe(&mut table, flow(1), at(2));
    observe(&mut table, flow(2), at(3));
    assert_eq!(table.evict(), None, "there is room for two");
    assert_eq!(observe_by(&mut table, flow(3), &mut at(4), &[]), Observed::Waits);
    let evicted = to_static(&table.evict().unwrap());
    assert_eq!((evicted.outcome(), evicted.flow.client.port()), (Outcome::Unanswered, 1));
    assert_eq!((evicted.query_count, evicted.capture_gap), (2, true));
    assert_eq!(table.evict(), None);
    assert_eq!((table.pending_messages(), table.index.len()), (2, 2));
    let genuine = done(observe(&mut table, flow(2), message(4 * SECOND, 1, "a.test", true)));
    assert_eq!(genuine.outcome(), Outcome::Matched);
    let late = done(observe(&mut table, flow(1), message(5 * SECOND, 1, "a.test", true)));
    let related = Related { relation: Relation::LateResponse, record: evicted.id };
    assert_eq!(late.related, Some(related), "its answer names it");
}

#[test]
fn the_query_that_has_just_come_is_never_the_one_that_leaves() {
    let mut table = table(1);
    // Over TCP, with a slow clock, and larger than the table may be.
    let over_tcp = Flow { transport: Transport::Tcp, ..flow(2) };
    observe(&mut table, flow(1), message(20 * SECOND, 1, "a.test", false));
    let mut large = message(SECOND, 1, "a.test", false);
    large.wire = vec![0; 65_535];
    assert_eq!(observe_by(&mut table, over_tcp, &mut large, &[]), Observed::Waits);
    assert_eq!(table.evict().map(|evicted| evicted.flow.client.port()), Some(1));
    assert_eq!(table.evict(), None);
}

#[test]
fn slots_are_used_again_so_a_flood_stays_within_capacity() {
    let mut table = table(16);
    for round in 0..10_000u32 {
        let port = u16::try_from(round % 60_000).unwrap();
        observe(&mut table, flow(port), message(u64::from(round), 1, "flood.test", false));
    }
    assert_eq!(table.slots.len(), 17);
    assert_eq!((table.pending_messages(), table.index.len()), (16, 16));
    let order: Vec<u64> =
        std::iter::from_fn(|| table.drain().map(|transaction| transaction.first().at_ns)).collect();
    assert_eq!(order, (9_984..10_000).collect::<Vec<u64>>());
    assert_eq!(table.pending_messages(), 0);
}

#[test]
fn a_loss_between_query_and_response_is_a_gap() {
    let mut table = table(8);
    observe(&mut table, flow(1), message(20 * SECOND, 1, "a.test", false));
    observe(&mut table, flow(2), message(20 * SECOND, 1, "a.test", false));
    table.note_ring_lost(3, 21 * SECOND);
    assert!(
        done(observe(&mut table, flow(1), message(21 * SECOND, 1, "a.test", true))).capture_gap
    );
    let orphan = done(observe(&mut table, flow(9), message(22 * SECOND, 1, "a.test", true)));
    assert!(orphan.capture_gap, "its query may be among the lost");
    assert!(table.expire(30 * SECOND).unwrap().capture_gap);
    let orphan = done(observe(&mut table, flow(9), message(40 * SECOND, 1, "a.test", true)));
    assert!(!orphan.capture_gap, "the loss was longer ago than any query waits");
}

#[test]
fn an_unreadable_packet_is_a_gap_for_its_flow_alone() {
    let mut table = table(8);
    for port in [1, 2] {
        observe(&mut table, flow(port), message(20 * SECOND, 1, "a.test", false));
    }
    // The response arrived in fragments: from the server to the client.
    let back = Flow { client: flow(1).server, server: flow(1).client, ..flow(1) };
    table.note_unreadable(back, 21 * SECOND);
    assert!(table.expire(25 * SECOND).unwrap().capture_gap);
    assert!(!table.expire(25 * SECOND).unwrap().capture_gap);
    let orphan = |at: u16| message(u64::from(at) * SECOND, at, "b.test", true);
    assert!(done(observe(&mut table, flow(1), orphan(26))).capture_gap);
    assert!(!done(observe(&mut table, flow(1), orphan(27))).capture_gap, "too long ago");
    for number in 0..10_000u16 {
        table.note_unreadable(flow(number), 30 * SECOND);
    }
    assert!(table.gaps.damaged_flows() <= 4_097);
    assert!(done(observe(&mut table, flow(50_000), orphan(31))).capture_gap, "any may be damaged");
}

#[test]
fn switching_an_interface_is_a_gap_for_that_interface_only() {
    let mut table = table(8);
    let at = |ifindex, at_s: u64, response| {
        let mut seen = message(at_s * SECOND, 1, "a.test", response);
        seen.point.ifindex = ifindex;
        seen
    };
    observe(&mut table, flow(1), at(7, 20, false));
    observe(&mut table, flow(2), at(8, 20, false));
    table.note_switched(7, 21 * SECOND);
    assert!(table.expire(25 * SECOND).unwrap().capture_gap);
    assert!(!table.expire(25 * SECOND).unwrap().capture_gap);
    observe(&mut table, flow(3), at(7, 22, false));
    assert!(!table.expire(31 * SECOND).unwrap().capture_gap, "it was asked afterwards");
    // The same for a response whose query was sent before.
    table.note_switched(8, 40 * SECOND);
    assert!(done(observe(&mut table, flow(4), at(8, 41, true))).capture_gap);
    assert!(!done(observe(&mut table, flow(5), at(7, 41, true))).capture_gap);
    assert!(!done(observe(&mut table, flow(6), at(8, 46, true))).capture_gap, "too long ago");
    for ifindex in 0..10_000 {
        table.note_switched(ifindex, 50 * SECOND);
    }
    assert!(table.gaps.switched_interfaces() <= 4_096);
    assert!(done(observe(&mut table, flow(7), at(20_000, 51, true))).capture_gap, "it may be any");
}

#[test]
fn a_query_of_a_slow_clock_waits_as_long() {
    let mut table = table(8);
    observe(&mut table, flow(1_000), message(100 * SECOND, 1, "a.test", false));
    observe(&mut table, flow(1_001), message(10 * SECOND, 2, "b.test", false));
    assert!(table.expire(104 * SECOND).is_none());
    let found = done(observe(&mut table, flow(1_001), message(10 * SECOND + 3, 2, "b.test", true)));
    assert_eq!(found.outcome(), Outcome::Matched);
    observe(&mut table, flow(1_002), message(11 * SECOND, 3, "c.test", false));
    assert_eq!(
        table.expire(105 * SECOND).map(|gone| gone.flow),
        Some(Flow { ifindex: 0, ..flow(1_000) })
    );
    assert!(table.expire(108 * SECOND).is_none());
    assert!(table.expire(109 * SECOND).is_some());
}

#[test]
fn the_messages_of_a_zone_transfer_name_each_other_with_and_without_their_question() {
    let mut table = table(8);
    let over_tcp = Flow { transport: Transport::Tcp, ..flow(1) };
    let transfer = |at_ns, response| {
        let message = Build::message(9, response).question("example.test", 252).parse();
        Box::new(Observation { message, ..message_of(at_ns, response) })
    };
    let message = Build::message(9, true).parse();
    let further = Box::new(Observation { message, ..message_of(SECOND + 3, true) });
    assert!(observe(&mut table, over_tcp, transfer(SECOND, false)).is_none());
    let first = done(observe(&mut table, over_tcp, transfer(SECOND + 1, true)));
    assert_eq!((first.outcome(), first.related), (Outcome::Matched, None));
    let mut latest = first.id;
    for seen in [transfer(SECOND + 2, true), further] {
        let next = done(observe(&mut table, over_tcp, seen));
        let relation = Relation::RepeatedResponse;
        assert_eq!(next.related, Some(Related { relation, record: latest }));
        latest = next.id;
    }
}

fn message_of(at_ns: u64, response: bool) -> Observation {
    *message(at_ns, 9, "example.test", response)
}
