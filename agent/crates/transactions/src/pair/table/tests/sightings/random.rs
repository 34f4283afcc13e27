//! Random traffic of a node against what is known about each packet: two exchanges are never merged,
//! and one without a rival always is.

use std::collections::{HashMap, HashSet};

use proptest::{collection::vec, prelude::*};

use super::*;

/// An exchange, as it is drawn.
#[derive(Clone, Debug)]
struct Drawn {
    /// 0 and 1 are pods, 2 is a process of the node.
    client: u8,
    port: u16,
    service: u8,
    path: u8,
    id: u16,
    name: u8,
    transport: Transport,
    /// IPv4 identification; often 0.
    identification: u16,
    start_us: u64,
    hop_us: Vec<u64>,
    latency_us: u64,
    answered: bool,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    (
        (0..3u8, 40_000..40_002u16, 0..3u8, 0..6u8, 7..9u16, 0..2u8),
        prop_oneof![3 => Just(Transport::Udp), 1 => Just(Transport::Tcp)],
        prop_oneof![2 => Just(0), 1 => any::<u16>()],
        0..3_000u64,
        vec(1..300u64, 8),
        100..3_000u64,
        prop::bool::weighted(0.9),
    )
        .prop_map(
            |(
                (client, port, service, path, id, name),
                transport,
                identification,
                start_us,
                hop_us,
                latency_us,
                answered,
            )| Drawn {
                client,
                port,
                service,
                path,
                id,
                name,
                transport,
                identification,
                start_us,
                hop_us,
                latency_us,
                answered,
            },
        )
}

impl Drawn {
    fn client(&self) -> SocketAddr {
        end([10, 1, 1, self.client + 1], self.port)
    }

    fn name(&self) -> &'static str {
        ["a.test", "b.test"][usize::from(self.name)]
    }

    /// Returns the hops of its query. `number` makes the masqueraded port unique.
    fn hops(&self, number: u16) -> Vec<Hop> {
        let service = end([10, 96, 0, 10 + self.service], 53);
        let backend = end([10, 1, 2, 2 + self.service], 53);
        let masqueraded = end([192, 168, 1, 1], 50_000 + number);
        let client = self.client();
        let hops = if self.client == 2 {
            // Translated before any interface, if at all.
            let client = end([192, 168, 1, 1], self.port);
            vec![Hop { hop_limit: 64, ..Hop::leaves(client, service, NIC) }]
        } else {
            let enters = Hop::enters(client, service, 11 + u32::from(self.client));
            let leaves = |client, server, ifindex| Hop::leaves(client, server, ifindex);
            match self.path {
                0 => vec![enters, leaves(client, service, NIC)],
                1 => vec![enters, leaves(client, backend, NIC)],
                2 => vec![enters, leaves(client, backend, SERVER_POD)],
                3 => vec![enters, leaves(masqueraded, service, NIC)],
                4 => vec![enters, leaves(masqueraded, backend, NIC)],
                _ => {
                    let overlay = leaves(client, backend, OVERLAY);
                    let on_wire = leaves(client, backend, NIC).in_tunnel();
                    vec![enters, overlay, on_wire]
                }
            }
        };
        let set = |hop: Hop| {
            let hop = if self.transport == Transport::Tcp { hop.over_tcp() } else { hop };
            let is_udp = self.transport == Transport::Udp;
            hop.identified(if is_udp { self.identification } else { 0 })
        };
        hops.into_iter().map(set).collect()
    }

    fn has_equal_query(&self, other: &Self) -> bool {
        (self.id, self.name, self.transport) == (other.id, other.name, other.transport)
    }
}

/// One message at one hop: time, hop, whether it is a response, and its bytes.
type Event = (u64, Hop, bool, Vec<u8>);

fn events(drawn: &Drawn, hops: &[Hop]) -> Vec<Event> {
    let mut at_ns = 20 * SECOND + drawn.start_us * US;
    let mut hop_us = drawn.hop_us.iter().cycle();
    let mut events = Vec::new();
    let query = Build::message(drawn.id, false).question(drawn.name(), 1).wire();
    for hop in hops {
        at_ns += hop_us.next().unwrap() * US;
        events.push((at_ns, *hop, false, query.clone()));
    }
    if !drawn.answered {
        return events;
    }
    // All servers give the same answer, so that only the path distinguishes responses.
    let message = Build::message(drawn.id, true).question(drawn.name(), 1);
    let response = message.answer(1, 60, &[192, 0, 2, 1]).wire();
    at_ns += drawn.latency_us * US;
    for hop in hops.iter().rev() {
        at_ns += hop_us.next().unwrap() * US;
        events.push((at_ns, *hop, true, response.clone()));
    }
    events
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn exchanges_are_never_merged_with_others(all in vec(drawn(), 1..14)) {
        let mut used = HashSet::new();
        let all: Vec<(Drawn, Vec<Hop>)> = all
            .into_iter()
            .zip(0..)
            .map(|(drawn, number)| { let hops = drawn.hops(number); (drawn, hops) })
            // One flow with one identifier and question is one exchange, whoever sent it.
            .filter(|(drawn, hops)| {
                let keys: Vec<_> = hops.iter().map(|hop| (hop.flow.client, hop.flow.server, hop.flow.transport, drawn.id)).collect();
                let is_new = keys.iter().all(|key| !used.contains(key));
                used.extend(keys);
                is_new
            })
            .collect();
        let mut traffic: Vec<Event> =
            all.iter().flat_map(|(drawn, hops)| events(drawn, hops)).collect();
        traffic.sort_by_key(|(at_ns, ..)| *at_ns);
        let mut node = Node::new();
        for (at_ns, hop, response, wire) in &traffic {
            node.sees(*at_ns, hop, *response, wire);
            node.expire(*at_ns);
        }
        node.expire(40 * SECOND);
        let records = node.end();
        let of_flow: HashMap<_, _> = all
            .iter()
            .enumerate()
            .flat_map(|(number, (_, hops))| {
                hops.iter().map(move |hop| ((Flow { ifindex: 0, ..hop.flow }, number), number))
            })
            .collect();
        for record in &records {
            let owners: Vec<usize> = of_flow
                .keys()
                .filter(|(flow, number)| {
                    *flow == record.flow && all[*number].1.iter().any(|hop| hop.flow.client == record.flow.client)
                })
                .map(|(_, number)| *number)
                .collect();
            let innermost = (record.translated.unwrap_or(record.flow.client), record.backend.unwrap_or(record.flow.server));
            prop_assert!(
                owners.iter().any(|owner| {
                    all[*owner].1.iter().any(|hop| (hop.flow.client, hop.flow.server) == innermost)
                }),
                "{record:?} is merged with another exchange"
            );
        }
        for (number, (drawn, hops)) in all.iter().enumerate() {
            let outer = Flow { ifindex: 0, ..hops[0].flow };
            let own = records.iter().filter(|it| it.flow == outer).count();
            prop_assert!(own >= 1, "{drawn:?} has no record");
            let has_rival = all.iter().enumerate().any(|(other, (it, _))| other != number && it.has_equal_query(drawn));
            if !has_rival {
                let flows: HashSet<_> = hops.iter().map(|hop| hop.flow.client).collect();
                prop_assert!(flows.len() <= 2);
                let sightings = records.iter().filter(|it| hops.iter().any(|hop| Flow { ifindex: 0, ..hop.flow } == it.flow) ).count();
                prop_assert_eq!(sightings, own, "{:?} is in several records: {:?}", drawn, records);
            }
        }
    }
}
