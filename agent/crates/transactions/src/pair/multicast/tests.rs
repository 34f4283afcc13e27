use std::time::Duration;

use tap53_dns::build::Build;
use tap53_ebpf::settings::Direction;

use super::*;
use crate::pair::{
    Config, Exchange, Observation, Observed, Outcome, Point, RecordIds, Related, Relation,
    SharedNotes, Table, Transaction,
};

const SECOND: u64 = 1_000_000_000;
const LLMNR: u16 = 5_355;
const MDNS: u16 = MULTICAST_DNS_PORT;
const A: u16 = 1;
const PTR: u16 = 12;

/// The outcome of a message, as far as the tests check it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Summary {
    outcome: Outcome,
    client: SocketAddr,
    server: SocketAddr,
    messages: u32,
    related: Option<Relation>,
}

impl From<&Transaction<'_>> for Summary {
    fn from(transaction: &Transaction<'_>) -> Self {
        Self {
            outcome: transaction.outcome(),
            client: transaction.flow.client,
            server: transaction.flow.server,
            messages: transaction.messages(),
            related: transaction.related.map(|Related { relation, .. }| relation),
        }
    }
}

struct Link {
    table: Table,
    at_ns: u64,
}

impl Link {
    fn new() -> Self {
        let timeout = Duration::from_secs(5);
        let config = Config {
            udp_timeout: timeout,
            tcp_timeout: timeout,
            capacity: 8,
            merge_interfaces: true,
        };
        let ids = RecordIds::new([7; 8], 1);
        Self { table: config.build(0, ids, SharedNotes::default()), at_ns: SECOND }
    }

    /// Observes a message; returns `None` if it makes no record yet.
    fn sees(&mut self, from: SocketAddr, to: SocketAddr, message: Message) -> Option<Summary> {
        self.sees_at(7, from, to, message)
    }

    fn sees_at(
        &mut self,
        ifindex: u32,
        from: SocketAddr,
        to: SocketAddr,
        message: Message,
    ) -> Option<Summary> {
        self.at_ns += 1;
        let (client, server) = if message.response { (to, from) } else { (from, to) };
        let flow = Flow { transport: Transport::Udp, client, server, tunnel: None, ifindex };
        let wire = format!("{message:?}").into_bytes();
        let mut seen = Box::new(Observation {
            at_ns: self.at_ns,
            point: Point { ifindex, direction: Direction::Ingress },
            message,
            ..Observation::default()
        });
        let key = self.table.key(&flow, seen.message.id);
        match self.table.observe(key, &mut seen, &wire) {
            Observed::Done(transaction) => Some((&transaction).into()),
            _ => None,
        }
    }

    fn expired(&mut self) -> Vec<Summary> {
        self.at_ns += 6 * SECOND;
        let mut expired = Vec::new();
        while let Some(transaction) = self.table.expire(self.at_ns) {
            assert!(matches!(transaction.exchange, Exchange::Query(_)));
            expired.push((&transaction).into());
        }
        expired
    }
}

fn host(number: u8, port: u16) -> SocketAddr {
    ([192, 0, 2, number], port).into()
}

fn group(port: u16) -> SocketAddr {
    ([224, 0, 0, if port == MDNS { 251 } else { 252 }], port).into()
}

fn query(id: u16, name: &str, qtype: u16) -> Message {
    Build::message(id, false).question(name, qtype).parse()
}

fn response(id: u16, name: &str) -> Message {
    Build::message(id, true).question(name, A).answer(A, 30, &[192, 0, 2, 9]).parse()
}

/// A response of mDNS: records with the cache-flush bit, and no question.
fn mdns_response(records: &[(&str, u16)]) -> Message {
    let mut wire = vec![0, 0, 0x84, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    wire[7] = records.len().try_into().unwrap();
    for (name, rtype) in records {
        // The question after the header of a message consists of name, type and class.
        let question = Build::message(0, false).question(name, *rtype).wire();
        wire.extend(&question[12..question.len() - 2]);
        wire.extend([0x80, 1, 0, 0, 0, 120, 0, 2, 0, 0]);
    }
    let mut message = Message::parse(&wire).unwrap();
    message.note_multicast_dns();
    message
}

fn matched(client: SocketAddr, server: SocketAddr) -> Option<Summary> {
    Some(Summary { outcome: Outcome::Matched, client, server, messages: 2, related: None })
}

#[test]
fn the_host_that_answers_a_query_to_a_group_is_its_server() {
    for port in [LLMNR, MDNS] {
        let mut link = Link::new();
        let (asker, responder) = (host(1, 40_000), host(2, port));
        assert_eq!(link.sees(asker, group(port), query(9, "printer", A)), None);
        assert_eq!(link.sees(responder, asker, response(9, "printer")), matched(asker, responder));
        assert_eq!(link.expired(), []);
    }
}

#[test]
fn others_that_answer_repeat_the_response() {
    let mut link = Link::new();
    let asker = host(1, 40_000);
    link.sees(asker, group(LLMNR), query(9, "wpad", A));
    link.sees(host(2, LLMNR), asker, response(9, "wpad"));
    let other = link.sees(host(66, LLMNR), asker, response(9, "wpad")).unwrap();
    assert_eq!((other.outcome, other.server), (Outcome::UnmatchedResponse, host(66, LLMNR)));
    assert_eq!(other.related, Some(Relation::RepeatedResponse));
}

#[test]
fn client_identifier_and_question_must_agree() {
    let mut link = Link::new();
    let asker = host(1, 40_000);
    link.sees(asker, group(LLMNR), query(9, "printer", A));
    for (to, message) in [
        (host(3, 40_000), response(9, "printer")),
        (host(1, 40_001), response(9, "printer")),
        (asker, response(8, "printer")),
        (asker, response(9, "scanner")),
    ] {
        let ended = link.sees(host(2, LLMNR), to, message).unwrap();
        assert_eq!((ended.outcome, ended.related), (Outcome::UnmatchedResponse, None));
    }
    // From another port it is no response to a group.
    let ended = link.sees(host(2, 53), asker, response(9, "printer")).unwrap();
    assert_eq!(ended.outcome, Outcome::UnmatchedResponse);
    let unanswered = link.expired();
    assert_eq!((unanswered.len(), unanswered[0].server), (1, group(LLMNR)));
}

#[test]
fn a_response_that_comes_late_names_the_query() {
    let mut link = Link::new();
    let asker = host(1, 40_000);
    link.sees(asker, group(LLMNR), query(9, "printer", A));
    assert_eq!(link.expired()[0].outcome, Outcome::Unanswered);
    let late = link.sees(host(2, LLMNR), asker, response(9, "printer")).unwrap();
    assert_eq!(late.related, Some(Relation::LateResponse));
    link.sees(host(1, MDNS), group(MDNS), query(0, "printer.local", A));
    assert_eq!(link.expired().len(), 1);
    let late =
        link.sees(host(2, MDNS), group(MDNS), mdns_response(&[("printer.local", A)])).unwrap();
    assert_eq!(late.related, Some(Relation::LateResponse));
}

#[test]
fn a_multicast_response_is_paired_by_its_records() {
    for to in [group(MDNS), host(1, MDNS)] {
        let mut link = Link::new();
        let (asker, responder) = (host(1, MDNS), host(2, MDNS));
        link.sees(asker, group(MDNS), query(0, "printer.local", A));
        link.sees(asker, group(MDNS), query(0, "scanner.local", A));
        let records = [("other.local", PTR), ("other.local", A), ("printer.local", A)];
        assert_eq!(link.sees(responder, to, mdns_response(&records)), matched(asker, responder));
        let again = link.sees(host(3, MDNS), to, mdns_response(&records)).unwrap();
        assert_eq!(again.related, Some(Relation::RepeatedResponse));
        assert_eq!(link.expired().len(), 1, "the other query");
    }
}

#[test]
fn a_question_for_any_type_is_answered_by_each() {
    let mut link = Link::new();
    let (asker, responder) = (host(1, MDNS), host(2, MDNS));
    link.sees(asker, group(MDNS), query(0, "printer.local", 255));
    let records = [("printer.local", A)];
    assert_eq!(
        link.sees(responder, group(MDNS), mdns_response(&records)),
        matched(asker, responder)
    );
}

#[test]
fn an_announcement_answers_no_query() {
    let mut link = Link::new();
    link.sees(host(1, MDNS), group(MDNS), query(0, "printer.local", A));
    for records in [&[("printer.local", 28)][..], &[("scanner.local", A)], &[]] {
        let ended = link.sees(host(2, MDNS), group(MDNS), mdns_response(records)).unwrap();
        assert_eq!((ended.outcome, ended.related), (Outcome::UnmatchedResponse, None));
        assert_eq!((ended.client, ended.server), (group(MDNS), host(2, MDNS)));
    }
    assert_eq!(link.expired().len(), 1);
}

#[test]
fn clients_of_one_question_are_distinguished_and_interfaces_are_not() {
    let mut link = Link::new();
    for asker in [host(1, MDNS), host(3, MDNS)] {
        assert_eq!(link.sees(asker, group(MDNS), query(0, "printer.local", A)), None);
    }
    assert_eq!(link.sees_at(8, host(1, MDNS), group(MDNS), query(0, "printer.local", A)), None);
    assert_eq!(link.table.pending_messages(), 2);
    let records = || mdns_response(&[("printer.local", A)]);
    let first = link.sees(host(2, MDNS), group(MDNS), records()).unwrap();
    assert_eq!(first.outcome, Outcome::Matched);
    let second = link.sees(host(2, MDNS), group(MDNS), records()).unwrap();
    assert_eq!((second.outcome, second.messages), (Outcome::Matched, 2));
    assert_ne!(first.client, second.client);
    assert_eq!(link.sees_at(8, host(2, MDNS), group(MDNS), records()), None, "a copy");
}

#[test]
fn hosts_that_serve_dns_at_the_port_are_paired_by_their_address() {
    let mut link = Link::new();
    let asker = host(1, 40_000);
    for server in [host(2, MDNS), host(3, MDNS)] {
        link.sees(asker, server, query(9, "www.test", A));
    }
    assert_eq!(link.table.pending_messages(), 2);
    let ended = link.sees(host(4, MDNS), asker, response(9, "www.test")).unwrap();
    assert_eq!(ended.outcome, Outcome::UnmatchedResponse);
    for server in [host(3, MDNS), host(2, MDNS)] {
        assert_eq!(link.sees(server, asker, response(9, "www.test")), matched(asker, server));
    }
}
