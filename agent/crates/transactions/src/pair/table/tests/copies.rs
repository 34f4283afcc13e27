//! One packet at several interfaces, or shown twice at one, is one message.

use std::collections::HashSet;

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::pair::{Exchange, RecordId, recent::PLACES};

const MS: u64 = 1_000_000;

/// A message on the wire.
#[derive(Clone, Debug)]
struct Sent {
    at_ns: u64,
    port: u16,
    identification: u16,
    wire: Vec<u8>,
}

fn query(at_ns: u64, port: u16, name: &str) -> Sent {
    let wire = Build::message(port, false).question(name, 1).wire();
    Sent { at_ns, port, identification: 0, wire }
}

fn response(at_ns: u64, port: u16, name: &str, last_octet: u8) -> Sent {
    let answer =
        Build::message(port, true).question(name, 1).answer(1, 60, &[192, 0, 2, last_octet]);
    Sent { at_ns, port, identification: 0, wire: answer.wire() }
}

/// A response without a question, such as REFUSED.
fn bare(at_ns: u64, port: u16, rcode: u8) -> Sent {
    let mut wire = Build::message(port, true).wire();
    wire[3] |= rcode;
    Sent { at_ns, port, identification: 0, wire }
}

/// The content of a record, without place and time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Recorded {
    port: u16,
    outcome: &'static str,
    relation: Option<&'static str>,
    /// Position of the related record.
    related: Option<usize>,
    query: Option<Message>,
    response: Option<Message>,
}

/// Identifies a message in these tests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Message {
    name: Option<String>,
    rcode: u16,
    answers: Vec<String>,
}

impl From<&Observation> for Message {
    fn from(seen: &Observation) -> Self {
        let message = &seen.message;
        Self {
            name: message.question().map(|question| question.name.to_owned()),
            rcode: message.rcode,
            answers: message.answers().map(|answer| answer.rdata.to_owned()).collect(),
        }
    }
}

struct Bench {
    table: Table,
    records: Vec<(RecordId, Recorded, [u32; 2])>,
    copies: usize,
    now_ns: u64,
}

impl Bench {
    fn new() -> Self {
        Self { table: table(64), records: Vec::new(), copies: 0, now_ns: 0 }
    }

    /// Observes a message at an interface where packets to the server depart.
    fn sees(&mut self, ifindex: u32, delay_ns: u64, sent: &Sent) {
        let message = tap53_dns::Message::parse(&sent.wire).unwrap();
        let direction = if message.response { Direction::Ingress } else { Direction::Egress };
        let mut seen = Box::new(Observation {
            at_ns: sent.at_ns + delay_ns,
            point: Point { ifindex, direction },
            identification: sent.identification,
            message,
            ..Observation::default()
        });
        self.now_ns = self.now_ns.max(seen.at_ns);
        self.expire(self.now_ns);
        let flow = flow(sent.port);
        let key = self.table.key(&flow, seen.message.id);
        match self.table.observe(key, &mut seen, &sent.wire) {
            Observed::Done(transaction) => record(&mut self.records, &transaction),
            Observed::Copy => self.copies += 1,
            _ => {}
        }
    }

    fn expire(&mut self, now_ns: u64) {
        while let Some(transaction) = self.table.expire(now_ns) {
            record(&mut self.records, &transaction);
        }
    }

    /// Observes all messages at one interface, and ends.
    fn alone(sequence: &[Sent]) -> Self {
        let mut bench = Self::new();
        sequence.iter().for_each(|sent| bench.sees(7, 0, sent));
        bench.end()
    }

    fn end(mut self) -> Self {
        self.expire(self.now_ns + 60 * SECOND);
        self
    }

    /// Returns the content of the records, and the first related one of each, in an order
    /// independent of theirs. Which of two equal responses came before a third differs by
    /// interface.
    fn recorded(&self) -> Vec<(Recorded, Option<Recorded>)> {
        let of = |mut position: usize| {
            while let Some(earlier) = self.records[position].1.related {
                position = earlier;
            }
            self.records[position].1.clone()
        };
        let mut recorded: Vec<_> = self
            .records
            .iter()
            .map(|(_, recorded, _)| {
                let related = recorded.related.map(of);
                let without = |it: Recorded| Recorded { related: None, ..it };
                (without(recorded.clone()), related.map(without))
            })
            .collect();
        recorded.sort();
        recorded
    }

    /// Returns outcome and relation of each record, in their order.
    fn outcomes(&self) -> Vec<(&str, Option<&str>)> {
        self.records.iter().map(|(_, it, _)| (it.outcome, it.relation)).collect()
    }

    /// Returns for each query how often it was sent, and its number of copies.
    fn counts(&self) -> Vec<[u32; 2]> {
        self.records.iter().map(|(.., counts)| *counts).collect()
    }
}

fn record(records: &mut Vec<(RecordId, Recorded, [u32; 2])>, transaction: &Transaction<'_>) {
    let related = transaction.related.map(|related| {
        let named = records.iter().position(|(id, ..)| *id == related.record);
        named.expect("a record names one that was made before")
    });
    let recorded = Recorded {
        port: transaction.flow.client.port(),
        outcome: transaction.outcome().symbol(),
        relation: transaction.related.map(|related| related.relation.symbol()),
        related,
        query: transaction.query().map(Message::from),
        response: transaction.response().map(Message::from),
    };
    if let Exchange::Matched(query, response) = transaction.exchange {
        assert_eq!(query.message.id, response.message.id);
    }
    records.push((transaction.id, recorded, [transaction.query_count, transaction.copy_count]));
}

const MATCHED: (&str, Option<&str>) = ("MATCHED", None);
const UNANSWERED: (&str, Option<&str>) = ("UNANSWERED", None);
const REPEATED: (&str, Option<&str>) = ("UNMATCHED_RESPONSE", Some("REPEATED_RESPONSE"));
const LATE: (&str, Option<&str>) = ("UNMATCHED_RESPONSE", Some("LATE_RESPONSE"));

/// Scenario `14b`: REFUSED and SERVFAIL without a question that are repeated or late at one
/// interface.
#[test]
fn responses_without_a_question_that_repeat_or_come_late_name_the_record_of_their_query() {
    let (refused, servfail) = (5, 2);
    let repeated = [query(0, 2, "dup.test"), bare(MS, 2, refused), bare(301 * MS, 2, refused)];
    let late = [query(20 * SECOND, 3, "late.test"), bare(28 * SECOND, 3, servfail)];
    let bare_last = [
        query(40 * SECOND, 4, "mix.test"),
        response(40 * SECOND + MS, 4, "mix.test", 1),
        bare(41 * SECOND, 4, servfail),
    ];
    let bare_first = [
        query(60 * SECOND, 5, "mix2.test"),
        bare(60 * SECOND + MS, 5, refused),
        response(61 * SECOND, 5, "mix2.test", 1),
    ];
    let all = [&repeated[..], &late, &bare_last, &bare_first].concat();
    let bench = Bench::alone(&all);
    let expected = [MATCHED, REPEATED, UNANSWERED, LATE, MATCHED, REPEATED, MATCHED, REPEATED];
    assert_eq!(bench.outcomes(), expected);
    let named: Vec<_> = bench.records.iter().filter_map(|(_, it, _)| it.related).collect();
    assert_eq!(named, [0, 2, 4, 6], "each the record of its own query");
}

/// Scenario `14c`.
#[test]
fn a_response_without_a_question_at_two_interfaces_is_one() {
    let mut bench = Bench::new();
    for (query, response) in [
        (query(0, 1, "full.test"), response(MS, 1, "full.test", 1)),
        (query(SECOND, 2, "bare.test"), bare(SECOND + MS, 2, 5)),
    ] {
        for (sent, ifindexes) in [(query, [7, 8]), (response, [8, 7])] {
            ifindexes.into_iter().for_each(|ifindex| bench.sees(ifindex, 0, &sent));
        }
    }
    assert_eq!(bench.outcomes(), [MATCHED, MATCHED]);
    assert_eq!((bench.copies, bench.counts()), (4, vec![[1, 1], [1, 1]]));
}

/// Scenario `50`: all messages of the transfer at one interface, then all of them at the other.
#[test]
fn a_zone_transfer_at_two_interfaces_is_recorded_once() {
    let over_tcp = Flow { transport: Transport::Tcp, ..flow(1) };
    let mut table = table(8);
    let query = Build::message(9, false).question("example.test", 252).wire();
    let response = |octet: u8| {
        let message = Build::message(9, true);
        let message = if octet == 0 { message.question("example.test", 252) } else { message };
        message.answer(1, 60, &[192, 0, 2, octet]).wire()
    };
    // More than are stored for one flow and identifier, without two that share a slot: the second
    // one would replace the first.
    let key = table.key(&over_tcp, 9).hash;
    let mut slots = HashSet::new();
    let messages: Vec<u8> = (0..=255)
        .filter(|octet| {
            let content = table.hash_content(key, &response(*octet));
            slots.insert(content % PLACES as u64)
        })
        .take(50)
        .collect();
    let mut see = |ifindex, wire: Vec<u8>| {
        let message = tap53_dns::Message::parse(&wire).unwrap();
        let direction = if message.response { Direction::Ingress } else { Direction::Egress };
        let point = Point { ifindex, direction };
        let mut seen =
            Box::new(Observation { at_ns: SECOND, point, message, ..Default::default() });
        let key = table.key(&over_tcp, seen.message.id);
        match table.observe(key, &mut seen, &wire) {
            Observed::Done(transaction) => Some((transaction.id, transaction.related)),
            _ => None,
        }
    };
    for ifindex in [7, 8] {
        assert_eq!(see(ifindex, query.clone()), None);
    }
    let mut latest = None;
    for &octet in &messages {
        let (id, related) = see(7, response(octet)).expect("a record");
        let relation = Relation::RepeatedResponse;
        assert_eq!(related, latest.map(|record| Related { relation, record }));
        latest = Some(id);
    }
    for &octet in &messages {
        assert_eq!(see(8, response(octet)), None);
    }
    // In a file whose interfaces follow each other, the query is a copy too.
    assert_eq!(see(9, query.clone()), None);
    for octet in messages {
        assert_eq!(see(9, response(octet)), None);
    }
}

#[test]
fn two_racing_answers_at_two_interfaces_are_two() {
    let (asked, forged) = (query(0, 1, "a.test"), response(MS, 1, "a.test", 66));
    let genuine = response(2 * MS, 1, "a.test", 1);
    for order in [[7, 8, 7, 8], [7, 7, 8, 8], [8, 7, 7, 8]] {
        let mut bench = Bench::new();
        bench.sees(7, 0, &asked);
        bench.sees(8, 1_000, &asked);
        let mut seen = [0; 2];
        for ifindex in order {
            let times = &mut seen[ifindex as usize - 7];
            bench.sees(ifindex, 0, if *times == 0 { &forged } else { &genuine });
            *times += 1;
        }
        assert_eq!((bench.outcomes(), bench.copies), (vec![MATCHED, REPEATED], 3), "{order:?}");
    }
}

/// Scenario `30`: IPv4 with an identification, and IPv6, which has none.
#[test]
fn a_mirror_port_that_shows_each_packet_twice_makes_copies() {
    for identification in [0x1234u16, 0] {
        let numbered = |sent: Sent, number| {
            let identification = if identification == 0 { 0 } else { identification + number };
            Sent { identification, ..sent }
        };
        let asked = numbered(query(0, 1, "span.test"), 0);
        let answered = numbered(response(5 * MS, 1, "span.test", 1), 1);
        let mut bench = Bench::new();
        for sent in [&asked, &answered] {
            bench.sees(7, 0, sent);
            bench.sees(7, 2_000, sent);
        }
        assert_eq!(bench.outcomes(), [MATCHED]);
        assert_eq!((bench.copies, bench.counts()), (2, vec![[1, 1]]));
    }
}

#[test]
fn a_retransmission_is_no_mirrored_packet() {
    let numbered = |sent: Sent, identification| Sent { identification, ..sent };
    // Another packet just as soon; or the same bytes after more than a millisecond.
    for (number, delay) in [(2, 1_000), (1, MS + 1)] {
        let bench = Bench::alone(&[
            numbered(query(0, 1, "a.test"), 1),
            numbered(query(delay, 1, "a.test"), number),
            numbered(response(5 * MS, 1, "a.test", 1), 1),
            numbered(response(5 * MS + delay, 1, "a.test", 1), number),
        ]);
        assert_eq!((bench.outcomes(), bench.copies), (vec![MATCHED, REPEATED], 0));
        assert_eq!(bench.counts(), [[2, 0], [0, 0]]);
    }
    // The same identification, other bytes.
    let mut other = query(1_000, 1, "a.test");
    other.wire[2] ^= 1;
    let bench = Bench::alone(&[query(0, 1, "a.test"), other]);
    assert_eq!(bench.counts(), [[2, 0]]);
    // A client on the same host that reuses port and identifier faster than a mirror port repeats.
    let bench = Bench::alone(&[
        query(0, 1, "a.test"),
        response(10, 1, "a.test", 1),
        query(20, 1, "a.test"),
        response(30, 1, "a.test", 1),
    ]);
    assert_eq!((bench.outcomes(), bench.copies), (vec![MATCHED, MATCHED], 0));
}

/// Scenario `15`: the query is repeated with the same identifier and port.
#[test]
fn a_transaction_contains_the_time_of_its_latest_query() {
    let mut table = table(8);
    for (ifindex, at_ms) in [(7, 0), (7, 2_000), (8, 2_001)] {
        let mut seen = message(at_ms * MS, 1, "poll.test", false);
        seen.point.ifindex = ifindex;
        observe(&mut table, flow(1), seen);
    }
    let found = done(observe(&mut table, flow(1), message(2_015 * MS, 1, "poll.test", true)));
    assert_eq!((found.query_count, found.copy_count), (2, 1));
    assert_eq!((found.query().unwrap().at_ns, found.latest_query_ns), (0, 2_000 * MS));
    let mut again = message(3_000 * MS, 1, "poll.test", false);
    assert!(matches!(observe_by(&mut table, flow(1), &mut again, &[]), Observed::Waits));
    assert_eq!(table.expire(8_000 * MS).unwrap().latest_query_ns, 3_000 * MS);
}

#[test]
fn a_query_that_leaves_again_by_another_interface_is_a_repetition() {
    let mut table = table(8);
    let mut sees = |ifindex, at_ms: u64| {
        let mut seen = message(at_ms * MS, 1, "poll.test", false);
        seen.point.ifindex = ifindex;
        let flow = flow(1);
        let key = table.key(&flow, seen.message.id);
        match table.observe(key, &mut seen, &[]) {
            Observed::Waits => "waits",
            Observed::Repeated => "repeated",
            Observed::Copy => "copy",
            Observed::Held | Observed::Elsewhere(_) => "other",
            Observed::Done(_) => "done",
        }
    };
    assert_eq!([sees(7, 10_000), sees(8, 10_900)], ["waits", "copy"]);
    assert_eq!([sees(8, 12_000), sees(9, 12_001)], ["repeated", "copy"]);
    assert_eq!(sees(9, 11_500), "copy", "between the two, in a file behind them");
    assert_eq!(sees(9, 14_500), "repeated");
    let found = done(observe(&mut table, flow(1), message(14_600 * MS, 1, "poll.test", true)));
    assert_eq!((found.query_count, found.copy_count), (3, 3));
    assert_eq!(found.latest_query_ns, 14_500 * MS);
}

/// Messages of one client and its server, in order of time; identifiers and ports are equal.
fn conversation(port: u16) -> impl Strategy<Value = Vec<Sent>> {
    // Responses arrive 10 ms apart, from 5 ms on or too late; some equal others.
    let answers = vec((0..4u8, any::<bool>()), 0..4);
    let exchange = (select(vec!["a.test", "b.test"]), answers, 0..8u8);
    vec(exchange, 1..4).prop_map(move |exchanges| {
        let mut sent = Vec::new();
        for (number, (name, answers, late)) in (0..).zip(exchanges) {
            // The interval exceeds the timeout: an unanswered query is not repeated.
            let began_ns = (number * 20 + 1) * SECOND + u64::from(port) * 3 * MS;
            sent.push(query(began_ns, port, name));
            let first_ns = began_ns + if late == 0 { 7 * SECOND } else { 5 * MS };
            for (number, (kind, bare_one)) in (0..).zip(answers) {
                let at_ns = first_ns + number * 10 * MS;
                sent.push(if bare_one {
                    bare(at_ns, port, kind)
                } else {
                    response(at_ns, port, name, kind)
                });
            }
        }
        sent
    })
}

fn conversations() -> impl Strategy<Value = Vec<Sent>> {
    (conversation(1), conversation(2), conversation(3)).prop_map(|(one, two, three)| {
        let mut all = [one, two, three].concat();
        all.sort_by_key(|sent| sent.at_ns);
        all
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Each interface sees everything in order; the interleaving of the interfaces is random.
    #[test]
    fn any_interleaving_of_copies_gives_the_records_of_one_interface(
        sequence in conversations(),
        interfaces in 1..5usize,
        turns in vec(0..4usize, 1..64),
    ) {
        let alone = Bench::alone(&sequence);
        let mut bench = Bench::new();
        let mut next = vec![0; interfaces];
        let total = interfaces * sequence.len();
        for turn in turns.iter().cycle() {
            if next.iter().sum::<usize>() == total {
                break;
            }
            // The first interface from the drawn one on that has not seen everything.
            let with_more = (0..interfaces).map(|step| (turn + step) % interfaces);
            let Some(interface) = with_more.into_iter().find(|it| next[*it] < sequence.len()) else {
                break;
            };
            let ifindex = u32::try_from(interface).unwrap();
            bench.sees(ifindex, u64::from(ifindex) * 20_000, &sequence[next[interface]]);
            next[interface] += 1;
        }
        let bench = bench.end();
        prop_assert_eq!(bench.recorded(), alone.recorded());
        prop_assert_eq!(bench.copies, (interfaces - 1) * sequence.len());
    }

    /// Each packet passes the interfaces in random order before the next one; clients repeat
    /// queries.
    #[test]
    fn copies_and_repetitions_are_counted_apart(
        sequence in conversations(),
        again in vec(0..3u64, 16),
        interfaces in 1..5usize,
        orders in vec(any::<u64>(), 1..32),
    ) {
        let mut again = again.into_iter().cycle();
        let mut repeated: Vec<_> = sequence
            .into_iter()
            .flat_map(|sent| {
                let is_query = sent.wire[2] & 0x80 == 0;
                let times = if is_query { again.next().unwrap_or_default() } else { 0 };
                (0..=times).map(move |time| Sent { at_ns: sent.at_ns + time * 400 * MS, ..sent.clone() })
            })
            .collect();
        repeated.sort_by_key(|sent| sent.at_ns);
        let alone = Bench::alone(&repeated);
        let mut bench = Bench::new();
        for (sent, order) in repeated.iter().zip(orders.iter().cycle()) {
            let mut path: Vec<usize> = (0..interfaces).collect();
            path.rotate_left(usize::try_from(order % 4).unwrap() % interfaces);
            for (hop, interface) in (0..).zip(path) {
                // The query's first interface is that of its repetitions.
                let interface = if sent.wire[2] & 0x80 == 0 { hop } else { interface as u64 };
                bench.sees(u32::try_from(interface).unwrap(), hop * 20_000, sent);
            }
        }
        let bench = bench.end();
        prop_assert_eq!(bench.recorded(), alone.recorded());
        let counts = |bench: &Bench| bench.counts().iter().map(|[count, _]| *count).collect::<Vec<_>>();
        prop_assert_eq!(counts(&bench), counts(&alone));
        prop_assert_eq!(bench.copies, (interfaces - 1) * repeated.len());
    }
}
