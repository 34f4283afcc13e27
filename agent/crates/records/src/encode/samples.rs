//! Sample transactions for tests of encoders and sinks.

use tap53_dns::{Flow, Transport, build::Build};
use tap53_ebpf::{record::Sender, settings::Direction};
use tap53_signals::Signals;
use tap53_transactions::{
    pair::{
        Anomalies, Anomaly, AnswerSource, AnsweredFrom, Chain, Exchange, Nat, Observation, Point,
        RecordId, RecordIds, SearchStep, Served, Sightings, Transaction,
    },
    privacy::Policy,
};

use super::{Clock, NodeRole, Observer, Owner, OwnerSource, Portion, Process, Provenance, Record};

/// Names of the samples.
pub const NAMES: [&str; 3] = ["matched", "unanswered", "response"];

/// Identifier of the client's container.
const CONTAINER: &str = "9c0ffee0000000000000000000000000000000000000000000000000000000aa";

fn observation(at_ns: u64, response: bool) -> Observation {
    let mut message = Build::message(0xbeef, response).question("www.example.test", 1);
    if response {
        message = message.answer(1, u32::MAX, &[192, 0, 2, 80]);
    }
    let client_subnet = [0, 8, 0, 7, 0, 1, 24, 0, 198, 51, 100];
    let nsid = b"\0\x03\0\x03ns1";
    let cookie = [0, 10, 0, 8, 0xc0, 0xff, 0xee, 1, 2, 3, 4, 5];
    let extended_error = b"\0\x0f\0\x09\0\x12blocked";
    let options = [&client_subnet[..], nsid, &cookie, extended_error].concat();
    Observation {
        at_ns,
        point: Point {
            ifindex: 3,
            direction: if response { Direction::Egress } else { Direction::Ingress },
        },
        hop_limit: 63,
        sender: Sender { socket: 9, cgroup: 77, uid: 65_532 },
        frame: 0,
        vlan_ids: [Some(100), None],
        vlan_visible: true,
        cut: false,
        identification: 0,
        message: message.opt(&options).parse(),
        wire: if response { vec![0, 255] } else { Vec::new() },
    }
}

/// The chain of a resolver's query that another resolver answers.
const CHAIN: Chain = Chain {
    source: Some(AnswerSource {
        from: AnsweredFrom::Upstream,
        upstream_count: 2,
        upstream_ns: 150_000,
        resolver_ns: 100_000,
    }),
    served: Some(Served { record: Some(RecordId([9; 16])), count: 3 }),
    search: Some(SearchStep { group: RecordId([8; 16]), step: 4, is_winner: true }),
};

/// Passes the record called `name` to `each`.
pub fn with_record<T>(name: &str, each: impl FnOnce(&Record<'_>) -> T) -> T {
    let (query, response) = (observation(1_000_000, false), observation(1_250_000, true));
    let (exchange, query_count, capture_gap) = match name {
        "matched" => (Exchange::Matched(&query, &response), 1, false),
        "unanswered" => (Exchange::Query(&query), 2, true),
        "response" => (Exchange::Response(&response), 0, false),
        other => panic!("no sample {other}"),
    };
    let flow = Flow {
        transport: Transport::Udp,
        client: ([192, 0, 2, 1], 40_000).into(),
        server: ([192, 0, 2, 53], 53).into(),
        tunnel: None,
        ifindex: 0,
    };
    let transaction = Transaction {
        id: RecordId::new([7; 8], 1, 2),
        flow,
        exchange,
        query_count,
        latest_query_ns: if query_count == 0 { 0 } else { 1_000_000 + u64::from(query_count) },
        copy_count: 0,
        capture_gap,
        related: None,
        anomalies: match name {
            "unanswered" => {
                [Anomaly::ForgedResponseSeen, Anomaly::TcpConflict].into_iter().collect()
            }
            _ => Anomalies::NONE,
        },
        sightings: match name {
            "unanswered" => Sightings {
                nat: Nat::Both,
                client: ([198, 51, 100, 1], 61_234).into(),
                server: ([203, 0, 113, 53], 5_353).into(),
                count: 2,
                messages: 1,
                ..Sightings::single(&flow)
            },
            _ => Sightings::single(&flow),
        },
        chain: (name == "matched").then_some(&CHAIN),
    };
    each(&Record {
        observer: &Observer::new("node-1", "eth0", RecordIds::new([7; 8], 1)),
        response_observer: &Observer::new("node-1", "eth1", RecordIds::new([7; 8], 1)),
        number: 2,
        files: &["1.pcap".to_owned(), "2.pcapng".to_owned()],
        policy: &Policy::default(),
        clock: Clock { utc_offset_ns: 1_700_000_000_000_000_000 },
        transaction: &transaction,
        client: &Owner::default(),
        server: &Owner::default(),
        client_provenance: match name {
            "response" => Provenance::default(),
            _ => Provenance {
                source: Some(OwnerSource::Socket),
                conflict: name == "unanswered",
                container_id: Some(CONTAINER),
                container_name: Some("app"),
                user_id: Some(65_532),
                process: Some(Process { pid: 4_711, command: "app" }),
            },
        },
        server_provenance: Provenance {
            source: Some(OwnerSource::Address),
            ..Provenance::default()
        },
        node_role: match name {
            "matched" => NodeRole::ClientNode,
            _ => NodeRole::Unknown,
        },
        signals: (name == "matched").then_some(Signals::NONE),
        kept_per_million: (name == "matched").then_some(50_000),
        portion: &Portion::ALL,
    })
}
