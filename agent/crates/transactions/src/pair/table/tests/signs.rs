//! Signs of tampering, each with its scenario and with harmless cases.

use std::cell::Cell;

use tap53_dns::ParseStatus;

use super::*;
use crate::pair::{Point, table::signs::answers_hash};

/// Observes a message at interface 7; returns its transaction.
fn sees(table: &mut Table, flow: Flow, at_ns: u64, wire: &[u8]) -> Option<Transaction<'static>> {
    let response = wire[2] & 0x80 != 0;
    let direction = if response { Direction::Egress } else { Direction::Ingress };
    sees_at(table, flow, at_ns, wire, Point { ifindex: 7, direction })
}

fn sees_at(
    table: &mut Table,
    flow: Flow,
    at_ns: u64,
    wire: &[u8],
    point: Point,
) -> Option<Transaction<'static>> {
    let message = tap53_dns::Message::parse(wire).unwrap();
    let mut seen = Box::new(Observation { at_ns, point, message, ..Observation::default() });
    let key = table.key(&flow, seen.message.id);
    match table.observe(key, &mut seen, wire) {
        Observed::Done(transaction) => Some(to_static(&transaction)),
        _ => None,
    }
}

fn query(id: u16, name: &str) -> Vec<u8> {
    Build::message(id, false).question(name, 1).wire()
}

fn answers(id: u16, name: &str, octets: &[u8]) -> Vec<u8> {
    let question = Build::message(id, true).question(name, 1);
    octets.iter().fold(question, |it, octet| it.answer(1, 60, &[192, 0, 2, *octet])).wire()
}

fn signs(transaction: &Transaction<'_>) -> Vec<&'static str> {
    transaction.anomalies.iter().map(Anomaly::name).collect()
}

/// A usual query and its response.
fn usual(table: &mut Table, flow: Flow, at_ns: u64) {
    sees(table, flow, at_ns, &query(1, "usual.test"));
    let found = done(sees(table, flow, at_ns + 1, &answers(1, "usual.test", &[1])));
    assert_eq!((found.outcome(), signs(&found)), (Outcome::Matched, vec![]));
}

#[test]
fn a_response_that_comes_from_the_side_of_its_query_is_a_sign() {
    let mut table = table(8);
    let arrives = Point { ifindex: 7, direction: Direction::Ingress };
    usual(&mut table, flow(1), SECOND);
    sees(&mut table, flow(2), 2 * SECOND, &query(2, "a.test"));
    let forged = answers(2, "a.test", &[66]);
    let forged = done(sees_at(&mut table, flow(2), 2 * SECOND + 1, &forged, arrives));
    assert_eq!(forged.outcome(), Outcome::Matched);
    assert_eq!(signs(&forged), ["RESPONSE_FROM_CLIENT_SIDE"]);
    // By another interface, as with asymmetric paths.
    sees(&mut table, flow(3), 3 * SECOND, &query(3, "a.test"));
    let elsewhere = Point { ifindex: 8, direction: Direction::Ingress };
    let answer = answers(3, "a.test", &[1]);
    let other_way = done(sees_at(&mut table, flow(3), 3 * SECOND + 1, &answer, elsewhere));
    assert_eq!(signs(&other_way), [""; 0]);
}

#[test]
fn interfaces_with_one_direction_give_no_sign() {
    let arrives = Point { ifindex: 7, direction: Direction::Ingress };
    let leaves = Point { ifindex: 7, direction: Direction::Egress };
    // At a mirror port everything arrives.
    let mut mirror = table(8);
    for port in 1..100 {
        sees_at(&mut mirror, flow(port), SECOND, &query(port, "a.test"), arrives);
        let answer = answers(port, "a.test", &[1]);
        let found = done(sees_at(&mut mirror, flow(port), 2 * SECOND, &answer, arrives));
        assert_eq!(signs(&found), [""; 0]);
    }
    // Packets on lo, and those that a router turns back, depart and arrive.
    let mut hairpin = table(8);
    usual(&mut hairpin, flow(1), SECOND);
    for point in [leaves, arrives] {
        sees_at(&mut hairpin, flow(2), 2 * SECOND, &query(2, "a.test"), point);
    }
    let answer = answers(2, "a.test", &[1]);
    let found = done(sees_at(&mut hairpin, flow(2), 2 * SECOND + 1, &answer, leaves));
    assert_eq!(signs(&found), [""; 0]);
    // On lo with one captured direction.
    let own = Flow { client: ([127, 0, 0, 1], 9).into(), ..flow(2) };
    sees_at(&mut hairpin, own, 3 * SECOND, &query(2, "a.test"), leaves);
    let found = done(sees_at(&mut hairpin, own, 3 * SECOND + 1, &answer, leaves));
    assert_eq!(signs(&found), [""; 0]);
}

#[test]
fn a_response_in_other_case_than_its_query_is_a_sign() {
    let mut table = table(8);
    for (port, asked, answered, expected) in [
        (1, "wWw.ExAmple.test", "wWw.ExAmple.test", vec![]),
        (2, "wWw.ExAmple.test", "www.example.test", vec!["CASE_MISMATCH"]),
        (3, "www.example.test", "www.exAmple.test", vec!["CASE_MISMATCH"]),
    ] {
        sees(&mut table, flow(port), SECOND, &query(9, asked));
        let found = done(sees(&mut table, flow(port), 2 * SECOND, &answers(9, answered, &[1])));
        assert_eq!((found.outcome(), signs(&found)), (Outcome::Matched, expected), "{answered}");
    }
    // Without a question there is nothing to compare.
    sees(&mut table, flow(4), SECOND, &query(9, "wWw.test"));
    let found = done(sees(&mut table, flow(4), 2 * SECOND, &Build::message(9, true).wire()));
    assert_eq!((found.outcome(), signs(&found)), (Outcome::Matched, vec![]));
}

#[test]
fn a_further_response_with_other_content_is_a_sign() {
    let mut table = table(8);
    let mut refused = answers(9, "a.test", &[]);
    refused[3] |= 5;
    let mut slower = answers(9, "a.test", &[2, 1]);
    let ttl = slower.len() - 7;
    slower[ttl] = 9;
    for (second, expected) in [
        (answers(9, "a.test", &[1, 66]), vec!["CONFLICTING_RESPONSE"]),
        (answers(9, "a.test", &[1]), vec!["CONFLICTING_RESPONSE"]),
        (refused, vec!["CONFLICTING_RESPONSE"]),
        // In another order, and with another TTL.
        (slower, vec![]),
        (answers(9, "a.test", &[1, 2]), vec![]),
    ] {
        let flow = flow(table.ids.next().try_into().unwrap());
        sees(&mut table, flow, SECOND, &query(9, "a.test"));
        let first = done(sees(&mut table, flow, SECOND + 1, &answers(9, "a.test", &[1, 2])));
        let second = done(sees(&mut table, flow, 2 * SECOND, &second));
        let related = Related { relation: Relation::RepeatedResponse, record: first.id };
        assert_eq!(second.related, Some(related));
        assert_eq!((signs(&first), signs(&second)), (vec![], expected));
    }
}

#[test]
fn the_messages_of_a_zone_transfer_do_not_contradict_each_other() {
    let mut table = table(8);
    let over_tcp = Flow { transport: Transport::Tcp, ..flow(1) };
    let query = Build::message(9, false).question("example.test", 252).wire();
    sees(&mut table, over_tcp, SECOND, &query);
    for octet in 0..4 {
        let message = Build::message(9, true);
        let message = if octet == 2 { message } else { message.question("example.test", 252) };
        let wire = message.answer(1, 60, &[192, 0, 2, octet]).wire();
        let response = done(sees(&mut table, over_tcp, SECOND + u64::from(octet), &wire));
        assert_eq!(signs(&response), [""; 0], "{octet}");
    }
}

#[test]
fn a_response_with_a_wrong_identifier_names_the_query_that_it_aims_at() {
    let mut table = table(8);
    sees(&mut table, flow(1), SECOND, &query(9, "a.test"));
    let guesses: Vec<_> = [10, 11]
        .into_iter()
        .map(|id| done(sees(&mut table, flow(1), SECOND + 1, &answers(id, "a.test", &[66]))))
        .collect();
    let genuine = done(sees(&mut table, flow(1), SECOND + 2, &answers(9, "a.test", &[1])));
    assert_eq!(genuine.outcome(), Outcome::Matched);
    assert_eq!(signs(&genuine), ["FORGED_RESPONSE_SEEN"]);
    for guess in &guesses {
        let related = Related { relation: Relation::WrongId, record: genuine.id };
        assert_eq!((guess.related, signs(guess)), (Some(related), vec!["WRONG_ID"]));
        assert_eq!(guess.outcome(), Outcome::UnmatchedResponse);
    }
    assert_ne!(guesses[0].id, guesses[1].id);
    assert!(guesses.iter().all(|guess| guess.id != genuine.id));
    // After it was answered, or for another name, there is no pending query.
    for (id, name) in [(12, "a.test"), (13, "b.test")] {
        let late = done(sees(&mut table, flow(1), SECOND + 3, &answers(id, name, &[66])));
        assert_eq!((late.related, signs(&late)), (None, vec![]));
    }
}

#[test]
fn a_response_from_a_wrong_address_names_its_query_even_if_that_stays_unanswered() {
    let mut table = table(8);
    sees(&mut table, flow(1), SECOND, &query(9, "a.test"));
    let elsewhere = Flow { server: ([203, 0, 113, 9], 53).into(), ..flow(1) };
    let forged = done(sees(&mut table, elsewhere, SECOND + 1, &answers(9, "a.test", &[66])));
    let other_client = Flow { client: ([192, 0, 2, 99], 1).into(), ..elsewhere };
    let stray = done(sees(&mut table, other_client, SECOND + 1, &answers(9, "a.test", &[66])));
    assert_eq!((stray.related, signs(&stray)), (None, vec![]));
    let unanswered = to_static(&table.expire(10 * SECOND).unwrap());
    let related = Related { relation: Relation::WrongServer, record: unanswered.id };
    assert_eq!((forged.related, signs(&forged)), (Some(related), vec!["WRONG_SERVER"]));
    assert_eq!(signs(&unanswered), ["FORGED_RESPONSE_SEEN"]);
    // A genuine late response names the same record.
    let late = done(sees(&mut table, flow(1), 11 * SECOND, &answers(9, "a.test", &[1])));
    let related = Related { relation: Relation::LateResponse, record: unanswered.id };
    assert_eq!(late.related, Some(related));
    // The next query of the slot is not marked.
    usual(&mut table, flow(2), 12 * SECOND);
}

#[test]
fn bytes_that_differ_in_a_connection_mark_its_transactions() {
    let mut table = table(8);
    let over_tcp = |port| Flow { transport: Transport::Tcp, ..flow(port) };
    let back = |flow: Flow| Flow { client: flow.server, server: flow.client, ..flow };
    for port in [1, 2, 3] {
        sees(&mut table, over_tcp(port), SECOND, &query(9, "a.test"));
    }
    // For both sides.
    table.note_conflict(over_tcp(1), SECOND + 1);
    table.note_conflict(back(over_tcp(3)), SECOND + 1);
    for (port, expected) in [(1, true), (2, false)] {
        let wire = answers(9, "a.test", &[1]);
        let found = done(sees(&mut table, over_tcp(port), SECOND + 2, &wire));
        assert_eq!(found.capture_gap, expected);
        assert_eq!(signs(&found).contains(&"TCP_CONFLICT"), expected);
    }
    let unanswered = to_static(&table.expire(20 * SECOND).unwrap());
    assert_eq!((signs(&unanswered), unanswered.capture_gap), (vec!["TCP_CONFLICT"], true));
    // The response may answer the query in the other bytes.
    let other = done(sees(&mut table, over_tcp(1), 21 * SECOND, &answers(8, "b.test", &[1])));
    assert_eq!((signs(&other), other.capture_gap), (vec!["TCP_CONFLICT"], true));
    // Much later another connection has the ports.
    sees(&mut table, over_tcp(1), 200 * SECOND, &query(7, "a.test"));
    let later = done(sees(&mut table, over_tcp(1), 201 * SECOND, &answers(7, "a.test", &[1])));
    assert_eq!((signs(&later), later.capture_gap), (vec![], false));
    for port in 0..10_000 {
        table.note_conflict(over_tcp(port), 202 * SECOND);
    }
    assert!(table.gaps.conflicts() <= 4_098);
}

fn sees_changed(
    table: &mut Table,
    flow: Flow,
    at_ns: u64,
    wire: &[u8],
    change: impl FnOnce(&mut Observation),
) -> Option<Transaction<'static>> {
    let message = tap53_dns::Message::parse(wire).unwrap();
    let direction = if message.response { Direction::Egress } else { Direction::Ingress };
    let point = Point { ifindex: 7, direction };
    let mut seen = Box::new(Observation { at_ns, point, message, ..Observation::default() });
    change(&mut seen);
    let key = table.key(&flow, seen.message.id);
    match table.observe(key, &mut seen, wire) {
        Observed::Done(transaction) => Some(to_static(&transaction)),
        _ => None,
    }
}

type Change = fn(&mut Observation);

#[test]
fn a_response_that_was_not_read_whole_contradicts_no_other() {
    let mut table = table(8);
    let whole = answers(9, "a.test", &[1, 2]);
    let broken = &whole[..whole.len() - 2];
    assert_eq!(
        tap53_dns::Message::parse(broken).unwrap().parse_status,
        ParseStatus::MalformedAnswer
    );
    let other = answers(9, "a.test", &[1]);
    let trailing = [&other[..], b"\0"].concat();
    let unchanged = |_: &mut Observation| {};
    let cut = |seen: &mut Observation| seen.cut = true;
    let omitted = |seen: &mut Observation| seen.message.answers_omitted = 1;
    let cases: [(u16, [&[u8]; 2], Change, bool); 6] = [
        (1, [&whole, broken], unchanged, false),
        (2, [broken, &whole], unchanged, false),
        (3, [&whole, &other], cut, false),
        (4, [&whole, &other], omitted, false),
        (5, [&whole, &other], unchanged, true),
        (6, [&whole, &trailing], unchanged, true),
    ];
    for (port, [first, second], change, conflicting) in cases {
        sees(&mut table, flow(port), SECOND, &query(9, "a.test"));
        done(sees(&mut table, flow(port), SECOND + 1, first));
        let second = done(sees_changed(&mut table, flow(port), 2 * SECOND, second, change));
        assert_eq!(second.related.map(|it| it.relation), Some(Relation::RepeatedResponse));
        let sign = signs(&second).contains(&"CONFLICTING_RESPONSE");
        assert_eq!(sign, conflicting, "case {port}");
    }
}

/// Counts the hashed bytes.
#[derive(Default)]
struct CountingHasher<'a>(Option<&'a Cell<usize>>);

impl Hasher for CountingHasher<'_> {
    fn finish(&self) -> u64 {
        7
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(count) = self.0 {
            count.set(count.get() + bytes.len());
        }
    }
}

struct CountingBuilder(Cell<usize>);

impl<'a> BuildHasher for &'a CountingBuilder {
    type Hasher = CountingHasher<'a>;

    fn build_hasher(&self) -> Self::Hasher {
        CountingHasher(Some(&self.0))
    }
}

#[test]
fn an_owner_that_many_answers_share_is_hashed_once() {
    let name = format!("{}.{}.{}.test", "a".repeat(63), "b".repeat(63), "c".repeat(63));
    let one = answers(9, &name, &[1; 200]);
    // Every other answer has another owner, which is written out once.
    let mut two = Build::message(9, true).question(&name, 1).wire();
    two[7] = 200;
    let written_at = u16::try_from(two.len()).unwrap() | 0xc000;
    let label = [&[63][..], &[b'd'; 63]].concat();
    for number in 0..200 {
        match number {
            0 => two.extend([label.repeat(3), vec![0]].concat()),
            _ if number % 2 == 0 => two.extend(written_at.to_be_bytes()),
            _ => two.extend([0xc0, 12]),
        }
        two.extend([0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
    }
    for wire in [one, two] {
        let message = tap53_dns::Message::parse(&wire).unwrap();
        assert_eq!((message.answers().len(), message.answers_omitted), (200, 0));
        assert!(message.answers().all(|answer| answer.name.len() > 190));
        let hashed = &CountingBuilder(Cell::new(0));
        answers_hash(&hashed, &message);
        let hashed = hashed.0.get();
        assert!(hashed < 200 * 64, "{hashed} bytes for 200 answers");
    }
}

#[test]
fn the_sides_of_one_interface_do_not_affect_another() {
    let arrives = |ifindex| Point { ifindex, direction: Direction::Ingress };
    let leaves = |ifindex| Point { ifindex, direction: Direction::Egress };
    let pair = |table: &mut Table, flow: Flow, asked: Point, answered: Point| {
        sees_at(table, flow, SECOND, &query(9, "a.test"), asked);
        let answer = answers(9, "a.test", &[1]);
        signs(&done(sees_at(table, flow, SECOND + 1, &answer, answered)))
    };
    // A mirror port, and an interface with two sides whose ifindex ends in the same bits.
    let mut table = table(8);
    assert_eq!(pair(&mut table, flow(1), arrives(71), leaves(71)), [""; 0]);
    assert_eq!(pair(&mut table, flow(2), arrives(7), arrives(7)), [""; 0]);
    assert_eq!(pair(&mut table, flow(3), arrives(7), leaves(7)), [""; 0]);
    assert_eq!(pair(&mut table, flow(4), arrives(7), arrives(7)), ["RESPONSE_FROM_CLIENT_SIDE"]);
    // A host's exchange with itself has no sides, so it proves nothing about them.
    let own = Flow { client: ([127, 0, 0, 1], 9).into(), ..flow(5) };
    assert_eq!(pair(&mut table, own, arrives(8), leaves(8)), [""; 0]);
    assert_eq!(pair(&mut table, flow(6), arrives(8), arrives(8)), [""; 0]);
    for port in 10..30 {
        let own = Flow { client: ([127, 0, 0, 1], port).into(), ..flow(port) };
        assert_eq!(pair(&mut table, own, arrives(9), arrives(9)), [""; 0]);
    }
    assert_eq!(pair(&mut table, flow(7), arrives(9), leaves(9)), [""; 0]);
    assert_eq!(pair(&mut table, flow(8), arrives(9), arrives(9)), ["RESPONSE_FROM_CLIENT_SIDE"]);
}

#[test]
fn where_a_query_may_have_been_missed_its_response_is_no_wrong_one() {
    let mut table = table(8);
    let mut guessed = |at_s: u64, port: u16, note: fn(&mut Table, u64)| {
        let at_ns = at_s * SECOND;
        note(&mut table, at_ns - SECOND);
        sees(&mut table, flow(port), at_ns, &query(9, "a.test"));
        let other = done(sees(&mut table, flow(port), at_ns + 1, &answers(8, "a.test", &[1])));
        let genuine = done(sees(&mut table, flow(port), at_ns + 2, &answers(9, "a.test", &[1])));
        assert_eq!(genuine.outcome(), Outcome::Matched);
        let marked = signs(&genuine).contains(&"FORGED_RESPONSE_SEEN");
        assert_eq!(signs(&other).contains(&"WRONG_ID"), marked);
        (marked, other.related.is_some(), other.capture_gap)
    };
    assert_eq!(
        guessed(20, 1, |table, at_ns| {
            assert!(table.note_ring_lost(3, at_ns));
        }),
        (false, false, true)
    );
    assert_eq!(guessed(40, 2, |_, _| {}), (true, true, false), "long after the loss");
    assert_eq!(guessed(60, 3, |table, at_ns| table.note_switched(7, at_ns)), (false, false, true));
    assert_eq!(guessed(80, 4, |table, at_ns| table.note_switched(8, at_ns)), (true, true, false));
    let unreadable = |table: &mut Table, at_ns| table.note_unreadable(flow(5), at_ns);
    assert_eq!(guessed(100, 5, unreadable), (false, false, true));
}
