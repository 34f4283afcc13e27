//! A flood of spoofed queries and of half-open TCP connections costs records, never memory, and
//! genuine pairs between them still match.
//!
//! `TAP53_FLOOD` sets the number of spoofed queries; unoptimised, the default is what a test run
//! has time for.

#![allow(clippy::unwrap_used, reason = "a test: what fails here fails the test")]

use std::{
    fs,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tap53::worker::{CrossWorkerQueue, Shared, Stages};
use tap53_capture::interfaces::Names;
use tap53_ebpf::record::RecordHeader;
use tap53_ledger::{Published, SinkCounts};
use tap53_records::encode::{Batch, Clock, Format};
use tap53_sinks::{Named, Sink};
use tap53_transactions::pair::{self, RecordIds, SharedNotes};

const SPOOFED: u32 = 100_000;
const HALF_OPEN: u32 = 100_000;
/// The number of spoofed queries for each genuine pair.
const GENUINE_EVERY: u32 = 1_000;
/// Maximum growth of full tables in bytes: memory that an allocator does not return.
const SLACK_BYTES: u64 = 8 << 20;

/// Counts JSON lines.
#[derive(Default)]
struct Count {
    lines: Mutex<Lines>,
    counts: Published<SinkCounts>,
}

#[derive(Default)]
struct Lines {
    matched: u64,
    /// Unanswered, with a capture gap.
    evicted: u64,
    all: u64,
}

impl Sink for Count {
    fn format(&self) -> Format {
        Format::Json
    }

    fn counts(&self) -> &Published<SinkCounts> {
        &self.counts
    }

    fn write(&self, batch: &Batch) {
        let mut lines = self.lines.lock().unwrap();
        for (line, _) in batch.iter() {
            let line = str::from_utf8(line).unwrap();
            let says = |what| u64::from(line.contains(what));
            lines.all += 1;
            lines.matched += says("\"outcome\":\"MATCHED\"");
            lines.evicted += says("\"outcome\":\"UNANSWERED\"") * says("\"capture_gap\":true");
        }
    }

    fn tick(&self, _now: Instant) {}

    fn close(&self, _deadline: Duration) {}
}

/// An IPv4 packet between a client and 192.0.2.53:53, and its record header.
fn packet(
    at_ns: u64,
    client: Ipv4Addr,
    protocol: u8,
    back: bool,
    rest: &[u8],
) -> (RecordHeader, Vec<u8>) {
    let server = Ipv4Addr::new(192, 0, 2, 53);
    let mut bytes = vec![0x45, 0];
    bytes.extend((24 + u16::try_from(rest.len()).unwrap()).to_be_bytes());
    bytes.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
    let ends = if back { [server, client] } else { [client, server] };
    bytes.extend(ends.iter().flat_map(Ipv4Addr::octets));
    let ports: [u16; 2] = if back { [53, 1_024] } else { [1_024, 53] };
    bytes.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
    bytes.extend(rest);
    let length = u32::try_from(bytes.len()).unwrap();
    let header = RecordHeader {
        captured_at_ns: at_ns,
        packet_length: length,
        captured_length: length,
        ifindex: 3,
        transport_offset: 20,
        direction: u8::from(back),
        ip_version: 4,
        transport: protocol,
        ..RecordHeader::default()
    };
    (header, bytes)
}

/// The UDP header after the ports, and a message.
fn message(response: bool) -> Vec<u8> {
    let mut wire = vec![0, 9, if response { 0x81 } else { 1 }, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    wire.extend(b"\x05flood\x04test\0\0\x01\0\x01");
    let length = 8 + u16::try_from(wire.len()).unwrap();
    [&length.to_be_bytes(), &[0, 0][..], &wire].concat()
}

/// The SYN after the ports.
fn syn(number: u32) -> Vec<u8> {
    let mut rest = number.to_be_bytes().to_vec();
    rest.extend([0, 0, 0, 0, 5 << 4, 2, 0xff, 0xff, 0, 0, 0, 0]);
    rest
}

fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}

#[test]
fn a_flood_costs_records_and_no_memory_and_genuine_pairs_match() {
    let spoofed = std::env::var("TAP53_FLOOD").map_or(SPOOFED, |count| count.parse().unwrap());
    let keep = Arc::new(Count::default());
    let shared = Shared::new("node-1", Arc::new(Names::of([(3, "eth0".to_owned())])));
    let config = pair::Config { capacity: 16_384, ..pair::Config::default() };
    let table = config.build(0, RecordIds::new([7; 8], 0), SharedNotes::default());
    let sink = Named { name: "keep".into(), sink: keep.clone() };
    let clock = Clock { utc_offset_ns: 0 };
    let mut stages =
        Stages::new(table, &[sink], &shared, CrossWorkerQueue::single_worker(), clock).unwrap();
    // A microsecond between packets: all of it is within the timeout of the last query.
    let mut at_ns = 1_000_000_000;
    let mut take = |stages: &mut Stages, client: u32, protocol, back, rest: &[u8]| {
        at_ns += 1_000;
        let (header, bytes) = packet(at_ns, client.into(), protocol, back, rest);
        stages.take_packet(&header, &bytes, 0);
    };
    let (query, response) = (message(false), message(true));
    let half_open_every = (spoofed / HALF_OPEN).max(1);
    let mut genuine = 0;
    let mut warm = 0;
    for number in 0..spoofed {
        take(&mut stages, 10 << 24 | number, 17, false, &query);
        if number % half_open_every == 0 {
            take(&mut stages, 11 << 24 | number, 6, false, &syn(number));
        }
        if number % GENUINE_EVERY == 0 {
            take(&mut stages, 172 << 24 | number, 17, false, &query);
            take(&mut stages, 172 << 24 | number, 17, true, &response);
            genuine += 1;
        }
        stages.deliver();
        if number == spoofed / 2 {
            warm = resident_bytes();
        }
    }
    let grown = resident_bytes().saturating_sub(warm);
    println!("{spoofed} spoofed queries: {grown} bytes grown since half of them");
    assert!(grown <= SLACK_BYTES, "{grown} bytes grown by the second half of the flood");
    let counts = stages.published().read();
    assert_eq!(counts.messages_decoded, counts.messages_in_records + counts.messages_pending);
    assert_eq!(counts.queries_evicted, u64::from(spoofed) - 16_384);
    assert_eq!(counts.messages_pending, 16_384);
    assert!(counts.streams.streams_evicted > 0, "{:?}", counts.streams);
    let lines = keep.lines.lock().unwrap();
    assert_eq!((lines.all, lines.matched), (genuine + lines.evicted, genuine));
    assert_eq!(lines.evicted, counts.queries_evicted, "the flood hides none");
}
