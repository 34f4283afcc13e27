//! Generates records of every kind.

use std::{collections::BTreeMap, net::SocketAddr};

use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::select,
};
use tap53_dns::{Flow, Kept, Message, Transport, Tunnel, TunnelKind};
use tap53_ebpf::{record::Sender, settings::Direction};
use tap53_signals::Signal;
use tap53_transactions::{
    pair::{
        Anomaly, AnswerSource, AnsweredFrom, Chain, Exchange, Nat, Observation, Point, RecordId,
        RecordIds, Related, Relation, SearchStep, Served, Sightings, Transaction,
    },
    privacy::{
        Policy,
        config::{AddressRule, PrefixLengths, Presence, PrivacyConfig, SubnetRule},
    },
};

use crate::encode::{
    Attribution, Clock, Identity, Observer, Owner, OwnerSource, Portion, Process, Provenance,
    Record,
};

/// The data that a record borrows.
#[derive(Debug)]
pub(super) struct Parts {
    observer: Observer,
    number: u64,
    policy: Policy,
    clock: Clock,
    transaction: Transaction<'static>,
    query: Option<Observation>,
    response: Option<Observation>,
    owners: [Owner; 2],
    provenance: [ProvenanceParts; 2],
}

/// An [`Provenance`] that owns its texts.
#[derive(Debug)]
struct ProvenanceParts {
    source: Option<OwnerSource>,
    conflict: bool,
    container_id: Option<String>,
    container_name: Option<String>,
    user_id: Option<u32>,
    process: Option<(u32, String)>,
}

impl ProvenanceParts {
    fn whole(&self) -> Provenance<'_> {
        Provenance {
            source: self.source,
            conflict: self.conflict,
            container_id: self.container_id.as_deref(),
            container_name: self.container_name.as_deref(),
            user_id: self.user_id,
            process: self.process.as_ref().map(|(pid, command)| Process { pid: *pid, command }),
        }
    }
}

fn provenance() -> impl Strategy<Value = ProvenanceParts> {
    let source = select(vec![None, Some(OwnerSource::Address), Some(OwnerSource::Socket)]);
    let texts = any::<[Option<String>; 2]>();
    let process = option::of((any::<u32>(), "\\PC{0,11}"));
    (source, any::<bool>(), texts, any::<Option<u32>>(), process).prop_map(
        |(source, conflict, [container_id, container_name], user_id, process)| ProvenanceParts {
            source,
            conflict,
            container_id,
            container_name,
            user_id,
            process,
        },
    )
}

impl Parts {
    /// Returns a chain that depends on other random parts.
    fn chain(&self) -> Option<Chain> {
        let Transaction { id, query_count, copy_count, latest_query_ns, .. } = self.transaction;
        let from = AnsweredFrom::ALL[query_count as usize % AnsweredFrom::ALL.len()];
        let source = AnswerSource {
            from,
            upstream_count: copy_count,
            upstream_ns: latest_query_ns,
            resolver_ns: latest_query_ns / 2,
        };
        let record = (query_count & 8 != 0).then_some(id);
        let search = SearchStep { group: id, step: query_count, is_winner: copy_count & 1 != 0 };
        (query_count & 1 != 0).then_some(Chain {
            source: (query_count & 2 != 0).then_some(source),
            served: (query_count & 4 != 0).then_some(Served { record, count: copy_count }),
            search: (query_count & 16 != 0).then_some(search),
        })
    }

    /// Returns a number that depends on another random part.
    fn kept_per_million(&self) -> Option<u32> {
        let number = self.transaction.copy_count;
        (number & 1 != 0).then_some(number % 1_000_000 + 1)
    }

    pub(super) fn with_record<T>(&self, each: impl FnOnce(&Record<'_>) -> T) -> T {
        let empty = Observation::default();
        let exchange = match (&self.query, &self.response) {
            (Some(query), Some(response)) => Exchange::Matched(query, response),
            (Some(query), None) => Exchange::Query(query),
            (None, Some(response)) => Exchange::Response(response),
            (None, None) => Exchange::Response(&empty),
        };
        let chain = self.chain();
        each(&Record {
            observer: &self.observer,
            response_observer: &self.observer,
            number: self.number,
            files: &["1.pcap".to_owned(), "2.pcapng".to_owned()],
            policy: &self.policy,
            clock: self.clock,
            transaction: &Transaction { exchange, chain: chain.as_ref(), ..self.transaction },
            client: &self.owners[0],
            server: &self.owners[1],
            client_provenance: self.provenance[0].whole(),
            server_provenance: self.provenance[1].whole(),
            node_role: crate::encode::NodeRole::Transit,
            signals: Some(Signal::ALL.into_iter().collect()),
            kept_per_million: self.kept_per_million(),
            portion: &Portion::ALL,
        })
    }
}

pub(super) fn parts() -> impl Strategy<Value = Parts> {
    let message = |response| option::weighted(0.8, observation(response));
    (
        (
            "[a-z0-9.-]{0,70}",
            "[a-z0-9.@-]{0,15}",
            any::<i64>(),
            (any::<[u8; 8]>(), any::<u16>(), 1..u64::MAX >> 1),
        ),
        transaction(),
        message(false),
        message(true),
        ([owner(), owner()], [provenance(), provenance()]),
        policy(),
    )
        .prop_map(
            |(
                (node, interface, utc_offset_ns, (run, worker, number)),
                transaction,
                query,
                response,
                (owners, provenance),
                policy,
            )| {
                Parts {
                    observer: Observer::new(&node, &interface, RecordIds::new(run, worker)),
                    number,
                    policy,
                    clock: Clock { utc_offset_ns },
                    transaction,
                    query,
                    response,
                    owners,
                    provenance,
                }
            },
        )
}

/// A policy that usually shows everything.
fn policy() -> impl Strategy<Value = Policy> {
    let lengths = PrefixLengths::default();
    let truncated = PrivacyConfig {
        client_address: AddressRule::Truncate(lengths),
        server_address: AddressRule::Truncate(lengths),
        reverse_names: AddressRule::Truncate(lengths),
        client_subnet: SubnetRule::Truncate(lengths),
        ..Default::default()
    };
    let hidden = PrivacyConfig {
        client_address: AddressRule::Drop,
        server_address: AddressRule::Drop,
        reverse_names: AddressRule::Drop,
        client_subnet: SubnetRule::Drop,
        cookies: Presence::Drop,
        other_options: Presence::Drop,
    };
    prop_oneof![
        6 => Just(PrivacyConfig::default()),
        1 => Just(truncated),
        1 => Just(hidden),
    ]
    .prop_map(|config| Policy::new(&config))
}

fn transaction() -> impl Strategy<Value = Transaction<'static>> {
    let relation = select(vec![
        Relation::LateResponse,
        Relation::RepeatedResponse,
        Relation::TcpAfterTruncation,
        Relation::RetriedOverTcp,
        Relation::WrongId,
        Relation::WrongServer,
        Relation::Translated,
    ]);
    let related = (relation, any::<[u8; 16]>())
        .prop_map(|(relation, record)| Related { relation, record: RecordId(record) });
    let kind =
        select(vec![TunnelKind::Vxlan, TunnelKind::Geneve, TunnelKind::Gre, TunnelKind::Ipip]);
    let tunnel = (kind, any::<Option<u32>>()).prop_map(|(kind, id)| Tunnel { kind, id });
    let transport = select(vec![Transport::Udp, Transport::Tcp]);
    let flow = (transport, any::<[SocketAddr; 2]>(), option::of(tunnel)).prop_map(
        |(transport, [client, server], tunnel)| Flow {
            transport,
            client,
            server,
            tunnel,
            ifindex: 0,
        },
    );
    let times = any::<u64>();
    (any::<[u8; 16]>(), flow, any::<[u32; 2]>(), times, any::<bool>(), option::of(related))
        .prop_map(|(id, flow, [query_count, copy_count], latest_query_ns, capture_gap, related)| {
            Transaction {
                id: RecordId(id),
                flow,
                // Replaced by a random one.
                exchange: Exchange::Query(NO_MESSAGE.get_or_init(Observation::default)),
                query_count,
                latest_query_ns,
                copy_count,
                capture_gap,
                related,
                anomalies: Anomaly::ALL
                    .into_iter()
                    .filter(|kind| query_count & 1 << *kind as u8 != 0)
                    .collect(),
                sightings: Sightings {
                    nat: NATS[query_count as usize % NATS.len()],
                    client: if copy_count % 2 == 0 { flow.client } else { flow.server },
                    server: if copy_count % 3 == 0 { flow.server } else { flow.client },
                    count: copy_count,
                    ..Sightings::single(&flow)
                },
                chain: None,
            }
        })
}

const NATS: [Nat; 5] = [Nat::None, Nat::Destination, Nat::Source, Nat::Both, Nat::Undecided];

static NO_MESSAGE: std::sync::OnceLock<Observation> = std::sync::OnceLock::new();

fn observation(response: bool) -> impl Strategy<Value = Observation> {
    let direction = select(vec![Direction::Ingress, Direction::Egress]);
    let vlan_ids = [option::of(0u16..4_096), option::of(0u16..4_096)];
    let frame = select(vec![
        0,
        1,
        u64::from(u32::MAX),
        tap53_dns::frames::of(1, 7),
        tap53_dns::frames::of(2, 7),
    ]);
    (any::<u64>(), direction, frame, vlan_ids, any::<bool>(), wire(response), any::<bool>())
        .prop_map(|(at_ns, direction, frame, vlan_ids, vlan_visible, wire, kept)| Observation {
            at_ns,
            point: Point { ifindex: 3, direction },
            frame,
            identification: 0,
            // Any will do.
            hop_limit: at_ns.to_le_bytes()[0],
            sender: Sender::UNKNOWN,
            vlan_ids,
            vlan_visible,
            cut: false,
            message: Message::parse_keeping(&wire, Kept::All).unwrap_or_default(),
            wire: if kept { wire } else { Vec::new() },
        })
}

fn owner() -> impl Strategy<Value = Owner> {
    let attribution = select(vec![
        Attribution::Unattributed,
        Attribution::Pod,
        Attribution::AmbiguousHostNetwork,
        Attribution::Node,
        Attribution::Service,
        Attribution::Unknown,
        Attribution::External,
    ]);
    let name = || any::<Option<String>>();
    let labels = option::of(btree_map(any::<String>(), any::<String>(), 0..4));
    let pod = (name(), name(), name(), name(), name());
    (attribution, pod, labels, [name(), name(), name()]).prop_map(
        |(attribution, pod, labels, [node_name, service_name, service_namespace])| {
            let (pod_uid, pod_name, pod_namespace, workload_kind, workload_name) = pod;
            let labels: Option<BTreeMap<String, String>> = labels;
            Owner::new(Identity {
                attribution,
                pod_uid,
                pod_name,
                pod_namespace,
                workload_kind,
                workload_name,
                labels,
                node_name,
                service_name,
                service_namespace,
            })
        },
    )
}

/// A message, usually complete, sometimes truncated or with trailing bytes.
fn wire(response: bool) -> impl Strategy<Value = Vec<u8>> {
    let opcode = prop_oneof![4 => Just(0u8), 2 => Just(5), 1 => 0u8..16];
    let questions = vec((name(), code(), code()), 0..4);
    let authorities = vec(prop_oneof![3 => record(), 1 => soa()], 0..3);
    let additionals = vec(record(), 0..2);
    let sections = (questions, vec(record(), 0..6), authorities, additionals, option::of(opt()));
    let ending = prop_oneof![8 => Just(None), 1 => any::<u8>().prop_map(Some)];
    (any::<[u8; 4]>(), opcode, sections, ending).prop_map(
        move |(header, opcode, (questions, answers, authorities, additionals, opt), ending)| {
            let count = |entries: usize| [0, u8::try_from(entries).unwrap()];
            let mut wire = header.to_vec();
            wire[2] = header[2] & 0x07 | opcode << 3 | u8::from(response) << 7;
            wire.extend(
                [
                    questions.len(),
                    answers.len(),
                    authorities.len(),
                    additionals.len() + opt.iter().len(),
                ]
                .map(count)
                .concat(),
            );
            for (name, qtype, qclass) in questions {
                wire.extend(name);
                wire.extend([qtype.to_be_bytes(), qclass.to_be_bytes()].concat());
            }
            wire.extend(answers.concat());
            wire.extend(authorities.concat());
            wire.extend(additionals.concat());
            wire.extend(opt.unwrap_or_default());
            match ending {
                None => {}
                Some(byte) if byte < 128 => wire.push(byte),
                Some(cut) => wire.truncate(wire.len().saturating_sub(usize::from(cut - 127))),
            }
            wire
        },
    )
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let label = prop_oneof![
        4 => "[a-zA-Z0-9_-]{1,20}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 1..=63),
    ];
    vec(label, 0..4).prop_map(|labels| {
        let mut wire = Vec::new();
        for label in labels {
            wire.push(u8::try_from(label.len()).unwrap());
            wire.extend(label);
        }
        wire.push(0);
        wire
    })
}

/// A type, class or other code: often a known one.
fn code() -> impl Strategy<Value = u16> {
    prop_oneof![4 => 1u16..4, 3 => 0u16..300, 1 => any::<u16>()]
}

/// A SOA record of class IN (RFC 1035 §3.3.13).
fn soa() -> impl Strategy<Value = Vec<u8>> {
    (name(), any::<[u8; 20]>()).prop_map(|(name, numbers)| {
        let length = u16::try_from(2 * name.len() + numbers.len()).unwrap().to_be_bytes();
        let fixed = b"\0\x06\0\x01\0\0\x0e\x10";
        [&name[..], fixed, &length, &name, &name, &numbers].concat()
    })
}

fn record() -> impl Strategy<Value = Vec<u8>> {
    let text = vec(any::<u8>(), 0..80).prop_map(|text| {
        let length = u8::try_from(text.len()).unwrap();
        [vec![length], text].concat()
    });
    let rdata = prop_oneof![
        any::<[u8; 4]>().prop_map(|address| (1, address.to_vec())),
        any::<[u8; 16]>().prop_map(|address| (28, address.to_vec())),
        name().prop_map(|name| (5, name)),
        text.prop_map(|text| (16, text)),
        (60_000u16..61_000, vec(any::<u8>(), 0..40)),
    ];
    (name(), rdata, code(), any::<u32>()).prop_map(|(name, (rtype, rdata), class, ttl)| {
        let length = u16::try_from(rdata.len()).unwrap();
        let fixed = [rtype.to_be_bytes(), class.to_be_bytes()].concat();
        [name, fixed, ttl.to_be_bytes().to_vec(), length.to_be_bytes().to_vec(), rdata].concat()
    })
}

/// An OPT record with options of every supported kind, and others.
fn opt() -> impl Strategy<Value = Vec<u8>> {
    let option = prop_oneof![
        // Client subnet: family, prefix lengths, address (RFC 7871 §6).
        any::<[u8; 2]>().prop_map(|[a, b]| (8, vec![0, 1, 16, 24, a, b])),
        any::<[u8; 3]>().prop_map(|[a, b, c]| (8, vec![0, 2, 24, 0, a, b, c])),
        vec(any::<u8>(), 0..20).prop_map(|nsid| (3, nsid)),
        vec(any::<u8>(), 8..=40).prop_map(|cookie| (10, cookie)),
        // Extended error: code and text (RFC 8914 §2).
        (any::<[u8; 2]>(), any::<String>())
            .prop_map(|(code, text)| (15, [&code, text.as_bytes()].concat())),
        (0usize..300).prop_map(|length| (12, vec![0; length])),
        (any::<u16>(), vec(any::<u8>(), 0..20)),
    ];
    (any::<[u8; 6]>(), vec(option, 0..6)).prop_map(|(fixed, options)| {
        let options: Vec<u8> = options
            .into_iter()
            .flat_map(|(code, data): (u16, Vec<u8>)| {
                let length = u16::try_from(data.len()).unwrap();
                [code.to_be_bytes().to_vec(), length.to_be_bytes().to_vec(), data].concat()
            })
            .collect();
        let length = u16::try_from(options.len()).unwrap();
        [&b"\0\0\x29"[..], &fixed, &length.to_be_bytes(), &options].concat()
    })
}
