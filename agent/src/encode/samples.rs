//! Transactions to test encoders and sinks with.

use super::{Clock, Owner, Record, RecordId};
use crate::{
    decode::{Answer, Edns, ExtendedError, Message, Question, Transport},
    pair::{Exchange, Flow, Observation, Transaction},
};
use tap53_ebpf::settings::Direction;

pub(crate) const NAMES: [&str; 3] = ["matched", "unanswered", "response"];

fn observation(at_ns: u64, response: bool) -> Observation {
    let question = Question { name: "www.example.test".into(), qtype: 1, qclass: 1 };
    let answer = Answer {
        name: "www.example.test".into(),
        rtype: 1,
        class: 1,
        ttl: u32::MAX,
        rdata: "192.0.2.80".into(),
    };
    let edns = Edns {
        version: 0,
        udp_payload_size: 1232,
        dnssec_ok: true,
        client_subnet: Some(([198, 51, 100, 0].into(), 24)),
        nsid: Some(b"ns1".to_vec()),
        cookie: Some(vec![0xc0, 0xff, 0xee]),
        extended_error: Some(ExtendedError { code: 18, text: "blocked".into() }),
    };
    Observation {
        at_ns,
        direction: if response { Direction::Egress } else { Direction::Ingress },
        vlan_ids: [Some(100), None],
        vlan_visible: true,
        message: Message {
            id: 0xbeef,
            response,
            question: Some(question),
            counts: [1, u16::from(response), 0, 1],
            answers: if response { vec![answer] } else { Vec::new() },
            edns: Some(edns),
            size: 60,
            ..Default::default()
        },
        wire: response.then(|| vec![0, 255]),
    }
}

/// Hands `each` the record called `name`.
pub(crate) fn with_record(name: &str, each: impl FnOnce(&Record<'_>)) {
    let (query, response) = (observation(1_000_000, false), observation(1_250_000, true));
    let (exchange, query_count, capture_gap) = match name {
        "matched" => (Exchange::Matched(query, response), 1, false),
        "unanswered" => (Exchange::Query(query), 2, true),
        "response" => (Exchange::Response(response), 0, false),
        other => panic!("no sample {other}"),
    };
    let flow = Flow {
        ifindex: 3,
        transport: Transport::Udp,
        client: ([192, 0, 2, 1], 40_000).into(),
        server: ([192, 0, 2, 53], 53).into(),
    };
    each(&Record {
        id: RecordId::new([7; 8], 1, 2),
        node: "node-1",
        interface: "eth0",
        clock: Clock { utc_offset_ns: 1_700_000_000_000_000_000 },
        transaction: &Transaction { flow, exchange, query_count, capture_gap },
        client: &Owner::default(),
        server: &Owner::default(),
    });
}
