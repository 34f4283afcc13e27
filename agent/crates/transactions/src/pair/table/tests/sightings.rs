//! Tests of exchanges that are seen before and after address translation.

mod random;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tap53_dns::{Message, Transport, Tunnel, TunnelKind, build::Build};
use tap53_ebpf::{
    record::Sender,
    settings::Direction::{Egress, Ingress},
};

use super::*;
use crate::pair::{Nat, RecordId};

const MS: u64 = 1_000_000;
const US: u64 = 1_000;

/// The interfaces of a node: two pods, a pod that serves, the tunnel device and the NIC.
const POD: u32 = 11;
const OTHER_POD: u32 = 12;
const SERVER_POD: u32 = 13;
const OVERLAY: u32 = 14;
const NIC: u32 = 2;

fn end(address: [u8; 4], port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from(address)), port)
}

fn client() -> SocketAddr {
    end([10, 1, 1, 1], 40_000)
}

fn service() -> SocketAddr {
    end([10, 96, 0, 10], 53)
}

fn backend() -> SocketAddr {
    end([10, 1, 2, 2], 5_353)
}

/// A hop of a query: under which endpoints, where, and with which hop limit.
#[derive(Clone, Copy, Debug)]
struct Hop {
    flow: Flow,
    point: Point,
    hop_limit: u8,
    socket: u64,
    identification: u16,
}

impl Hop {
    fn new(client: SocketAddr, server: SocketAddr, ifindex: u32, direction: Direction) -> Self {
        let flow = Flow { transport: Transport::Udp, client, server, tunnel: None, ifindex };
        let hop_limit = if direction == Ingress { 64 } else { 63 };
        let point = Point { ifindex, direction };
        Self { flow, point, hop_limit, socket: 0, identification: 0 }
    }

    fn enters(client: SocketAddr, server: SocketAddr, ifindex: u32) -> Self {
        Self::new(client, server, ifindex, Ingress)
    }

    fn leaves(client: SocketAddr, server: SocketAddr, ifindex: u32) -> Self {
        Self::new(client, server, ifindex, Egress)
    }

    fn over_tcp(self) -> Self {
        Self { flow: Flow { transport: Transport::Tcp, ..self.flow }, ..self }
    }

    fn in_tunnel(self) -> Self {
        let tunnel = Some(Tunnel { kind: TunnelKind::Vxlan, id: Some(1) });
        Self { flow: Flow { tunnel, ..self.flow }, ..self }
    }

    fn of_socket(self, socket: u64) -> Self {
        Self { socket, ..self }
    }

    fn identified(self, identification: u16) -> Self {
        Self { identification, ..self }
    }
}

/// A record, as far as it concerns sightings.
#[derive(Clone, Debug, PartialEq)]
struct Recorded {
    id: RecordId,
    flow: Flow,
    message_id: u16,
    began_ns: u64,
    outcome: &'static str,
    nat: Nat,
    backend: Option<SocketAddr>,
    translated: Option<SocketAddr>,
    count: u32,
    inner_response_ns: Option<u64>,
    copies: u32,
    query_count: u32,
    related: Option<Related>,
    has_gap: bool,
}

/// A table and what it recorded. Each step checks that every message is accounted for.
struct Node {
    table: Table,
    now_ns: u64,
    observed: u64,
    copies: u64,
    in_records: u64,
    records: Vec<Recorded>,
}

impl Node {
    fn new() -> Self {
        Self {
            table: table(256),
            now_ns: 10 * SECOND,
            observed: 0,
            copies: 0,
            in_records: 0,
            records: Vec::new(),
        }
    }

    fn sees(&mut self, at_ns: u64, hop: &Hop, response: bool, wire: &[u8]) {
        self.now_ns = self.now_ns.max(at_ns);
        let direction = match (hop.point.direction, response) {
            (direction, false) => direction,
            (Ingress, true) => Egress,
            (Egress, true) => Ingress,
        };
        let mut seen = Box::new(Observation {
            at_ns,
            point: Point { direction, ..hop.point },
            hop_limit: hop.hop_limit,
            identification: hop.identification,
            sender: Sender { socket: hop.socket, ..Sender::UNKNOWN },
            message: Message::parse(wire).expect("a message"),
            ..Observation::default()
        });
        self.observed += 1;
        let key = self.table.key(&hop.flow, seen.message.id);
        match self.table.observe(key, &mut seen, wire) {
            Observed::Done(transaction) => {
                note(&mut self.records, &mut self.in_records, &mut self.copies, &transaction);
            }
            Observed::Copy => self.copies += 1,
            Observed::Waits => {
                while let Some(transaction) = self.table.evict() {
                    note(&mut self.records, &mut self.in_records, &mut self.copies, &transaction);
                }
            }
            Observed::Repeated | Observed::Held => {}
            Observed::Elsewhere(worker) => panic!("there is no worker {worker}"),
        }
        self.check();
    }

    fn check(&self) {
        let waiting = self.table.pending_messages();
        assert_eq!(self.observed, self.copies + self.in_records + waiting, "{:?}", self.records);
    }

    fn expire(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        while let Some(transaction) = self.table.expire(now_ns) {
            note(&mut self.records, &mut self.in_records, &mut self.copies, &transaction);
        }
        self.check();
    }

    fn end(mut self) -> Vec<Recorded> {
        while let Some(transaction) = self.table.drain() {
            note(&mut self.records, &mut self.in_records, &mut self.copies, &transaction);
        }
        self.check();
        assert_eq!((self.table.pending_messages(), self.table.held_responses()), (0, 0));
        assert_eq!((self.table.index.len(), self.table.buffer_bytes), (0, 0));
        self.records
    }

    /// A query along these hops, 10 µs apart.
    fn query(&mut self, at_ns: u64, hops: &[Hop], id: u16, name: &str) {
        let wire = Build::message(id, false).question(name, 1).wire();
        for (hop, number) in hops.iter().zip(0..) {
            self.sees(at_ns + number * 10 * US, hop, false, &wire);
        }
    }

    /// A response back along these hops.
    fn answer(&mut self, at_ns: u64, hops: &[Hop], id: u16, name: &str, octet: u8) {
        let message = Build::message(id, true).question(name, 1);
        let wire = message.answer(1, 60, &[192, 0, 2, octet]).wire();
        for (hop, number) in hops.iter().rev().zip(0..) {
            self.sees(at_ns + number * 10 * US, hop, true, &wire);
        }
    }

    fn exchange(&mut self, at_ns: u64, hops: &[Hop], id: u16, name: &str) {
        self.query(at_ns, hops, id, name);
        self.answer(at_ns + MS, hops, id, name, 1);
    }
}

fn note(
    records: &mut Vec<Recorded>,
    in_records: &mut u64,
    copies: &mut u64,
    transaction: &Transaction<'_>,
) {
    let sightings = &transaction.sightings;
    *in_records += u64::from(transaction.messages());
    *copies += u64::from(sightings.messages);
    records.push(Recorded {
        id: transaction.id,
        flow: transaction.flow,
        message_id: transaction.first().message.id,
        began_ns: transaction.first().at_ns,
        outcome: transaction.outcome().symbol(),
        nat: sightings.nat,
        backend: sightings.backend(&transaction.flow),
        translated: sightings.translated_client(&transaction.flow),
        count: sightings.count,
        inner_response_ns: sightings.response_ns,
        copies: transaction.copy_count,
        query_count: transaction.query_count,
        related: transaction.related,
        has_gap: transaction.capture_gap,
    });
}

fn destination_nat() -> [Hop; 2] {
    [Hop::enters(client(), service(), POD), Hop::leaves(client(), backend(), NIC)]
}

fn masqueraded() -> SocketAddr {
    end([192, 168, 1, 1], 61_234)
}

fn source_nat() -> [Hop; 2] {
    [Hop::enters(client(), service(), POD), Hop::leaves(masqueraded(), service(), NIC)]
}

fn nats(records: &[Recorded]) -> Vec<(&str, Nat, u32)> {
    records.iter().map(|it| (it.outcome, it.nat, it.count)).collect()
}

#[test]
fn a_service_and_its_backend_are_one_record() {
    for over_tcp in [false, true] {
        let mut node = Node::new();
        let hops = destination_nat().map(|hop| if over_tcp { hop.over_tcp() } else { hop });
        node.exchange(20 * SECOND, &hops, 7, "a.test");
        let [record] = &node.end()[..] else { panic!("several records") };
        assert_eq!((record.flow.client, record.flow.server), (client(), service()));
        assert_eq!((record.outcome, record.nat, record.count), ("MATCHED", Nat::Destination, 2));
        assert_eq!((record.backend, record.translated), (Some(backend()), None));
        assert_eq!((record.query_count, record.copies, record.has_gap), (1, 1, false));
        assert_eq!(record.inner_response_ns, Some(20 * SECOND + MS));
    }
}

#[test]
fn a_masqueraded_client_is_one_record() {
    let mut node = Node::new();
    node.exchange(20 * SECOND, &source_nat(), 7, "a.test");
    let both = [Hop::enters(client(), service(), POD), Hop::leaves(masqueraded(), backend(), NIC)];
    node.exchange(21 * SECOND, &both, 8, "b.test");
    let records = node.end();
    assert_eq!(nats(&records), [("MATCHED", Nat::Source, 2), ("MATCHED", Nat::Both, 2)]);
    assert_eq!((records[0].backend, records[0].translated), (None, Some(masqueraded())));
    assert_eq!((records[1].backend, records[1].translated), (Some(backend()), Some(masqueraded())));
}

#[test]
fn three_nested_sightings_and_copies_at_any_number_of_interfaces_are_one_record() {
    let mut node = Node::new();
    let [outer, inner] = destination_nat();
    let at = |hop: Hop, ifindex, direction| Hop { point: Point { ifindex, direction }, ..hop };
    let hops = [
        outer,
        at(outer, 20, Ingress),
        at(inner, OVERLAY, Egress),
        inner.in_tunnel(),
        at(inner.in_tunnel(), 30, Egress),
    ];
    node.exchange(20 * SECOND, &hops, 7, "a.test");
    let records = node.end();
    assert_eq!(nats(&records), [("MATCHED", Nat::Destination, 3)]);
    assert_eq!(records[0].copies, 4);
    // The node of the server sees the tunnel first, and translates nothing.
    let mut node = Node::new();
    let arriving = Hop::enters(client(), backend(), NIC);
    let hops = [
        arriving.in_tunnel(),
        Hop::enters(client(), backend(), OVERLAY),
        Hop::leaves(client(), backend(), SERVER_POD),
    ];
    node.exchange(20 * SECOND, &hops, 7, "a.test");
    let records = node.end();
    assert_eq!(nats(&records), [("MATCHED", Nat::None, 2)]);
    assert_eq!(records[0].flow.tunnel, arriving.in_tunnel().flow.tunnel);
}

/// Two tenants may use the same addresses. A mirror port sees both.
#[test]
fn equal_flows_of_two_tenants_stay_apart() {
    let [plain, _] = destination_nat();
    let tenant = |id| {
        let tunnel = Some(Tunnel { kind: TunnelKind::Vxlan, id: Some(id) });
        Hop { flow: Flow { tunnel, ..plain.flow }, ..Hop::leaves(client(), service(), NIC) }
    };
    let mirrored = Hop { point: tenant(1).point, ..plain };
    for hops in [[mirrored, tenant(1)], [tenant(1), tenant(2)]] {
        let mut node = Node::new();
        node.exchange(20 * SECOND, &hops, 7, "a.test");
        assert_eq!(nats(&node.end()), [("MATCHED", Nat::None, 1); 2]);
    }
}

#[test]
fn repetitions_and_reuse_of_identifier_and_port_are_followed() {
    let mut node = Node::new();
    let hops = destination_nat();
    node.query(20 * SECOND, &hops, 7, "a.test");
    node.query(21 * SECOND, &hops, 7, "a.test");
    node.answer(21 * SECOND + MS, &hops, 7, "a.test", 1);
    // The answer to the first of the two queries, with the same bytes.
    node.exchange(23 * SECOND, &hops, 7, "a.test");
    node.exchange(23 * SECOND + 5 * MS, &hops, 7, "a.test");
    node.exchange(24 * SECOND, &hops, 7, "b.test");
    let records = node.end();
    assert_eq!(nats(&records), [("MATCHED", Nat::Destination, 2); 4]);
    assert_eq!((records[0].query_count, records[0].copies), (2, 2));
}

#[test]
fn without_any_response_it_is_one_unanswered_record() {
    for hops in [destination_nat(), source_nat()] {
        let mut node = Node::new();
        node.query(20 * SECOND, &hops, 7, "a.test");
        node.expire(25 * SECOND - 1);
        assert!(node.records.is_empty());
        node.expire(26 * SECOND);
        assert_eq!(
            nats(&node.records),
            [("UNANSWERED", Nat::between(&hops[0].flow, &hops[1].flow), 2)]
        );
        // Late responses name its record.
        node.answer(27 * SECOND, &hops, 7, "a.test", 1);
        let records = node.end();
        let late = Related { relation: Relation::LateResponse, record: records[0].id };
        assert_eq!(records[1].related, Some(late));
        assert_eq!(records[2].related, Some(late));
    }
}

#[test]
fn a_response_that_is_lost_on_its_way_back_leaves_two_related_records() {
    let mut node = Node::new();
    let hops = destination_nat();
    node.query(20 * SECOND, &hops, 7, "a.test");
    node.answer(20 * SECOND + MS, &hops[1..], 7, "a.test", 1);
    node.expire(20 * SECOND + 50 * MS);
    assert!(node.records.is_empty(), "it still waits");
    node.expire(20 * SECOND + 101 * MS);
    assert_eq!(nats(&node.records), [("MATCHED", Nat::None, 1)]);
    node.expire(26 * SECOND);
    let records = node.end();
    assert_eq!(nats(&records)[1..], [("UNANSWERED", Nat::None, 1)]);
    let translated = |record| Some(Related { relation: Relation::Translated, record });
    assert_eq!(records[0].related, translated(records[1].id));
    assert_eq!(records[1].related, translated(records[0].id));
}

#[test]
fn the_end_of_capture_records_what_still_waits() {
    let mut node = Node::new();
    let hops = destination_nat();
    node.query(20 * SECOND, &hops, 7, "a.test");
    node.answer(20 * SECOND + MS, &hops[1..], 7, "a.test", 1);
    let mut records = node.end();
    records.sort_by_key(|record| record.outcome);
    assert_eq!(nats(&records), [("MATCHED", Nat::None, 1), ("UNANSWERED", Nat::None, 1)]);
}

#[test]
fn an_inner_query_without_a_captured_response_is_part_of_the_record() {
    let mut node = Node::new();
    let hops = destination_nat();
    node.query(20 * SECOND, &hops, 7, "a.test");
    node.answer(20 * SECOND + MS, &hops[..1], 7, "a.test", 1);
    assert_eq!(nats(&node.end()), [("MATCHED", Nat::Destination, 2)]);
    // If only the bytes connect them, they stay apart.
    let mut node = Node::new();
    node.query(20 * SECOND, &source_nat(), 7, "a.test");
    node.answer(20 * SECOND + MS, &source_nat()[..1], 7, "a.test", 1);
    let records = node.end();
    assert_eq!(
        nats(&records)[..],
        [("MATCHED", Nat::Undecided, 1), ("UNANSWERED", Nat::Undecided, 1)]
    );
}

#[test]
fn responses_of_different_bytes_are_never_merged() {
    let mut node = Node::new();
    let hops = destination_nat();
    node.query(20 * SECOND, &hops, 7, "a.test");
    node.answer(20 * SECOND + MS, &hops[1..], 7, "a.test", 1);
    node.answer(20 * SECOND + 2 * MS, &hops[..1], 7, "a.test", 2);
    node.expire(20 * SECOND + 3 * MS);
    let records = node.end();
    assert_eq!(nats(&records), [("MATCHED", Nat::Undecided, 1); 2]);
    assert_eq!((records[0].flow.server, records[1].flow.server), (service(), backend()));
}

/// musl queries all servers at once, from one socket, with one identifier.
#[test]
fn two_servers_that_one_socket_queries_at_once_are_two_records() {
    let second_service = end([10, 96, 0, 11], 53);
    let second_backend = end([10, 1, 2, 3], 53);
    let one = destination_nat().map(|hop| hop.of_socket(5));
    let other = [
        Hop::enters(client(), second_service, POD).of_socket(5),
        Hop::leaves(client(), second_backend, NIC),
    ];
    let in_pod = [other[0], Hop::leaves(client(), second_backend, SERVER_POD)];
    let untranslated = [other[0], Hop::leaves(client(), second_service, NIC)];
    for (second, nat) in
        [(other, Nat::Destination), (in_pod, Nat::Destination), (untranslated, Nat::None)]
    {
        let mut node = Node::new();
        node.query(20 * SECOND, &one, 7, "a.test");
        node.query(20 * SECOND + 100 * US, &second, 7, "a.test");
        node.answer(20 * SECOND + MS, &second, 7, "a.test", 1);
        node.answer(20 * SECOND + 2 * MS, &one, 7, "a.test", 1);
        let records = node.end();
        assert_eq!(
            nats(&records),
            [("MATCHED", nat, 1 + u32::from(nat != Nat::None)), ("MATCHED", Nat::Destination, 2)]
        );
        assert_eq!(records[1].backend, Some(backend()));
        if nat != Nat::None {
            assert_eq!(records[0].backend, Some(second_backend));
        }
    }
    // If both enter before one leaves, the order does not say which is which.
    let mut node = Node::new();
    for (hop, at_ns) in [one[0], other[0], one[1], other[1]].iter().zip(0..) {
        node.query(20 * SECOND + at_ns * US, &[*hop], 7, "a.test");
    }
    for hops in [one, other] {
        node.answer(20 * SECOND + MS, &hops, 7, "a.test", 1);
    }
    assert_eq!(nats(&node.end()), [("MATCHED", Nat::Undecided, 1); 4]);
    // Connected sockets number their packets, which does.
    let mut node = Node::new();
    let numbered = |hops: [Hop; 2], number| hops.map(|hop| hop.identified(number));
    let (one, other) = (numbered(one, 77), numbered(other, 99));
    for (hop, at_ns) in [one[0], other[0], one[1], other[1]].iter().zip(0..) {
        node.query(20 * SECOND + at_ns * US, &[*hop], 7, "a.test");
    }
    for hops in [one, other] {
        node.answer(20 * SECOND + MS, &hops, 7, "a.test", 1);
    }
    assert_eq!(nats(&node.end()), [("MATCHED", Nat::Destination, 2); 2]);
}

#[test]
fn two_clients_that_send_equal_queries_at_once_are_never_exchanged() {
    let other_client = end([10, 1, 1, 9], 40_000);
    let masqueraded_other = end([192, 168, 1, 1], 50_505);
    let other = [
        Hop::enters(other_client, service(), OTHER_POD),
        Hop::leaves(masqueraded_other, service(), NIC),
    ];
    let one = source_nat();
    let translations = |hops: &[Hop]| {
        let mut node = Node::new();
        for (hop, at_ns) in hops.iter().zip(0..) {
            node.query(20 * SECOND + at_ns * US, &[*hop], 7, "a.test");
        }
        for hops in [one, other] {
            node.answer(20 * SECOND + MS, &hops, 7, "a.test", 1);
        }
        let records = node.end();
        records.iter().map(|it| (it.flow.client, it.translated, it.nat)).collect::<Vec<_>>()
    };
    assert_eq!(
        translations(&[one[0], one[1], other[0], other[1]]),
        [
            (client(), Some(masqueraded()), Nat::Source),
            (other_client, Some(masqueraded_other), Nat::Source),
        ]
    );
    let undecided = |client| (client, None, Nat::Undecided);
    assert_eq!(
        translations(&[one[0], other[0], one[1], other[1]]),
        [masqueraded(), client(), masqueraded_other, other_client].map(undecided)
    );
    // With destination NAT alone, the client says which is which.
    let [one, other] = [(client(), POD), (other_client, OTHER_POD)].map(|(client, ifindex)| {
        [Hop::enters(client, service(), ifindex), Hop::leaves(client, backend(), NIC)]
    });
    let mut node = Node::new();
    for (hop, at_ns) in [one[0], other[0], other[1], one[1]].iter().zip(0..) {
        node.query(20 * SECOND + at_ns * US, &[*hop], 7, "a.test");
    }
    for hops in [one, other] {
        node.answer(20 * SECOND + MS, &hops, 7, "a.test", 1);
    }
    assert_eq!(nats(&node.end()), [("MATCHED", Nat::Destination, 2); 2]);
}

#[test]
fn a_forwarder_is_not_address_translation() {
    let upstream = end([192, 0, 2, 53], 53);
    let pod_resolver = end([10, 1, 2, 2], 53);
    let from_pod = Hop::enters(end([10, 1, 2, 2], 50_000), upstream, SERVER_POD);
    let out_of_pod = Hop::leaves(end([10, 1, 2, 2], 50_000), upstream, NIC);
    let from_node =
        Hop { hop_limit: 64, ..Hop::leaves(end([192, 168, 1, 1], 50_000), upstream, NIC) };
    let link_local = end([169, 254, 20, 10], 53);
    for (hops, forwarded) in [
        (vec![Hop::enters(client(), pod_resolver, POD)], vec![from_pod, out_of_pod]),
        (vec![Hop::enters(client(), pod_resolver, POD)], vec![out_of_pod]),
        (destination_nat().to_vec(), vec![from_pod, out_of_pod]),
        (vec![Hop::enters(client(), link_local, POD)], vec![from_node]),
        // The kernel no longer knows the socket of a translated packet, but that of a new one.
        (
            vec![Hop::enters(client(), link_local, POD).of_socket(5)],
            vec![Hop { hop_limit: 63, ..from_node }.of_socket(6)],
        ),
        (
            vec![Hop::enters(client(), link_local, POD).identified(5)],
            vec![Hop { hop_limit: 63, ..from_node }.identified(6)],
        ),
    ] {
        let mut node = Node::new();
        node.query(20 * SECOND, &hops, 7, "a.test");
        node.query(20 * SECOND + 100 * US, &forwarded, 7, "a.test");
        node.answer(20 * SECOND + MS, &forwarded, 7, "a.test", 1);
        node.answer(20 * SECOND + 2 * MS, &hops, 7, "a.test", 1);
        let records = node.end();
        assert_eq!(records.len(), 2, "{hops:?} {forwarded:?}: {records:?}");
        assert!(records.iter().all(|it| it.nat != Nat::Source && it.nat != Nat::Both));
        assert_eq!(records[0].count, 1);
    }
}

#[test]
fn packets_in_the_wrong_order_stay_apart() {
    let [outer, inner] = destination_nat();
    let mut node = Node::new();
    node.query(20 * SECOND, &[inner, outer], 7, "a.test");
    node.answer(20 * SECOND + MS, &[inner, outer], 7, "a.test", 1);
    assert_eq!(nats(&node.end()), [("MATCHED", Nat::None, 1); 2]);
    // The response of the outer one first: it cannot come of the inner one.
    let mut node = Node::new();
    node.query(20 * SECOND, &[outer, inner], 7, "a.test");
    node.answer(20 * SECOND + MS, &[outer], 7, "a.test", 1);
    node.answer(20 * SECOND + 2 * MS, &[inner], 7, "a.test", 1);
    let records = node.end();
    assert_eq!(records[1].related.map(|it| it.relation), Some(Relation::LateResponse));
}

#[test]
fn a_client_that_floods_equal_queries_changes_no_record_of_another() {
    let mut node = Node::new();
    let attacker = |port: u16| end([10, 1, 1, 66], port);
    let flood = 300;
    for number in 0..flood {
        let hop = Hop::enters(attacker(10_000 + number), service(), OTHER_POD);
        node.query(20 * SECOND + u64::from(number) * US, &[hop], 7, "a.test");
    }
    let hops = source_nat();
    node.exchange(20 * SECOND + MS, &hops, 7, "a.test");
    node.exchange(20 * SECOND + 3 * MS, &destination_nat(), 8, "a.test");
    node.expire(30 * SECOND);
    let records = node.end();
    assert!(
        records.iter().all(|it| it.nat == Nat::None || it.nat == Nat::Undecided || it.count == 2)
    );
    let of = |server| {
        records
            .iter()
            .filter(move |it| it.flow.client.ip() == client().ip() && it.flow.server == server)
    };
    assert_eq!(of(service()).filter(|it| it.nat == Nat::Destination).count(), 1);
    let masqueraded: Vec<_> = records.iter().filter(|it| it.flow.client == masqueraded()).collect();
    assert_eq!(masqueraded.len(), 1, "it stays apart");
    assert_eq!(masqueraded[0].nat, Nat::Undecided);
    assert_eq!(records.len(), usize::from(flood) + 3);
}

#[test]
fn a_gap_of_the_capture_prevents_what_only_bytes_support() {
    let mut node = Node::new();
    for (id, hops) in [(7, source_nat()), (8, destination_nat())] {
        let wire = Build::message(id, false).question("a.test", 1).wire();
        node.sees(20 * SECOND, &hops[0], false, &wire);
        node.table.note_ring_lost(id.into(), 20 * SECOND + 1);
        node.sees(20 * SECOND + 2, &hops[1], false, &wire);
        node.answer(20 * SECOND + MS, &hops, id, "a.test", 1);
    }
    let records = node.end();
    assert_eq!(
        nats(&records),
        [("MATCHED", Nat::None, 1), ("MATCHED", Nat::None, 1), ("MATCHED", Nat::Destination, 2)]
    );
    assert!(records.iter().all(|it| it.has_gap || it.flow.client == masqueraded()));
}

#[test]
fn a_forged_response_after_translation_marks_the_one_record() {
    let mut node = Node::new();
    let hops = destination_nat();
    node.query(20 * SECOND, &hops, 7, "a.test");
    node.answer(20 * SECOND + 100 * US, &hops[1..], 9, "a.test", 6);
    node.answer(20 * SECOND + 200 * US, &hops[..1], 10, "a.test", 6);
    node.answer(20 * SECOND + MS, &hops, 7, "a.test", 1);
    let records = node.end();
    let related = Related { relation: Relation::WrongId, record: records[2].id };
    assert_eq!(records[0].related, Some(related));
    assert_eq!(records[1].related, Some(related));
    assert_eq!((records.len(), records[2].count), (3, 2));
}

#[test]
fn interfaces_that_are_kept_apart_are_not_merged() {
    let mut node = Node::new();
    node.table = table_with(8, false, &SharedNotes::default());
    node.exchange(20 * SECOND, &destination_nat(), 7, "a.test");
    assert_eq!(nats(&node.end()), [("MATCHED", Nat::None, 1); 2]);
}
