//! Nothing from packet to record allocates once the buffers have their size.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::Arc,
    time::{Duration, Instant},
};

use tap53::{
    tail::Tails,
    worker::{CrossWorkerQueue, Shared, Stages},
};
use tap53_capture::interfaces::Names;
use tap53_dns::{Kept, Message};
use tap53_ebpf::record::RecordHeader;
use tap53_insight::{DnsMetrics, config::DnsMetricsConfig};
use tap53_ledger::{Published, SinkCounts};
use tap53_records::encode::{
    Batch, Clock, Format, Profile, frame, read_single_object, single_object_header,
};
use tap53_signals::{SharedSignals, SignalsConfig};
use tap53_sinks::{Named, Sink};
use tap53_transactions::pair::{self, RecordIds, SharedNotes};

/// The system's allocator, counting the calls of each thread.
struct Counting;

thread_local! {
    // Neither allocates nor has a destructor, so that it may be used in an allocator.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
}

// SAFETY: every call goes on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: our caller keeps the contract of this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: our caller keeps the contract of this function.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: our caller keeps the contract of this function.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

fn header(flags: u16, counts: [u16; 4]) -> Vec<u8> {
    let words = [[0x12, 0x34], flags.to_be_bytes()];
    [words.concat(), counts.map(u16::to_be_bytes).concat()].concat()
}

/// A query, a response with records of many kinds, and one that is broken.
fn messages() -> [Vec<u8>; 3] {
    let question = b"\x03www\x04test\0\0\x01\0\x01";
    let opt = b"\0\0\x29\x04\xd0\0\0\x80\0\0\x1d\
        \0\x0a\0\x08cookies!\0\x0f\0\x05\0\x12why\0\x14\0\x00\0\x63\0\0";
    let mut response = [&header(0x8180, [1, 6, 0, 1])[..], question].concat();
    for (rtype, rdata) in [
        (1_u16, &[192, 0, 2, 1][..]),
        (28, &[0x20, 1, 13, 184, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        (16, b"\x04text\x03\"\\\x07"),
        (46, b"\0\x01\x08\x02\0\0\x0e\x10\x70\xdb\xd8\x80\0\0\0\x01\x30\x39\0signature"),
        (65, b"\0\x01\0\0\x01\0\x03\x02h2\0\x04\0\x04\xc0\0\x02\x01"),
        (1, b"short"),
    ] {
        response.extend(b"\xc0\x0c");
        response.extend(rtype.to_be_bytes());
        response.extend(b"\0\x01\0\0\0\x3c");
        response.extend([0, u8::try_from(rdata.len()).unwrap_or(u8::MAX)]);
        response.extend(rdata);
    }
    response.extend(opt);
    let broken = [&header(0x8180, [1, u16::MAX, 0, 0])[..], question, b"\xc0"].concat();
    [[&header(0x0100, [1, 0, 0, 1])[..], question, opt].concat(), response, broken]
}

#[test]
fn messages_are_read_without_allocation() {
    let messages = messages();
    let mut message = Message::default();
    let mut read_all =
        || messages.iter().for_each(|wire| assert!(message.read(wire, Kept::Answers)));
    assert!(allocations(&mut read_all) > 0, "the allocator does not count");
    assert_eq!(allocations(&mut read_all), 0);
}

#[test]
fn announced_counts_cost_no_memory() {
    let wire = header(0x8180, [u16::MAX; 4]);
    let mut message = Message::default();
    assert_eq!(allocations(|| assert!(message.read(&wire, Kept::All))), 0);
}

#[test]
fn records_are_framed_for_a_registry_without_allocation() {
    let record = [&single_object_header([7; 8])[..], &[1; 700]].concat();
    let mut framed = Vec::new();
    let mut frame_it = || {
        let (_, datum) = read_single_object(&record).unwrap_or_default();
        frame(7, datum, &mut framed);
    };
    assert!(allocations(&mut frame_it) > 0);
    assert_eq!(allocations(&mut frame_it), 0);
    assert_eq!(framed.len(), 705);
}

/// Counts what it is given.
struct Discard(Format, Published<SinkCounts>);

impl Sink for Discard {
    fn format(&self) -> Format {
        self.0
    }

    fn counts(&self) -> &Published<SinkCounts> {
        &self.1
    }

    fn write(&self, batch: &Batch) {
        self.1.update(|counts| counts.delivered.records += batch.records());
    }

    fn tick(&self, _now: Instant) {}

    fn close(&self, _deadline: Duration) {}
}

/// `message` in a UDP datagram between 192.0.2.`client` and 192.0.2.53, and its record header.
fn packet(client: u8, back: bool, message: &[u8]) -> Option<(RecordHeader, Vec<u8>)> {
    let udp_length = u16::try_from(8 + message.len()).ok()?;
    let mut bytes = vec![0x45, 0];
    bytes.extend((20 + udp_length).to_be_bytes());
    bytes.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    let ends = if back { [53, client] } else { [client, 53] };
    bytes.extend(ends.iter().flat_map(|last| [192, 0, 2, *last]));
    let ports: [u16; 2] = if back { [53, 1_024] } else { [1_024, 53] };
    bytes.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
    bytes.extend([udp_length.to_be_bytes(), [0, 0]].concat());
    bytes.extend(message);
    let length = u32::try_from(bytes.len()).ok()?;
    let header = RecordHeader {
        packet_length: length,
        captured_length: length,
        ifindex: 3,
        transport_offset: 20,
        direction: u8::from(back),
        ip_version: 4,
        transport: 17,
        ..RecordHeader::default()
    };
    Some((header, bytes))
}

#[test]
fn transactions_are_recorded_without_allocation() {
    for profile in Profile::ALL {
        require_recorded_without_allocation(profile.single_object());
    }
}

fn require_recorded_without_allocation(format: Format) {
    let config = pair::Config { capacity: 1_024, ..pair::Config::default() };
    let table = config.build(0, RecordIds::new([7; 8], 0), SharedNotes::default());
    let counted = DnsMetricsConfig { names: true, clients: true, ..DnsMetricsConfig::default() };
    let looked_for = SignalsConfig { enabled: true, max_memory_mib: 4, ..SignalsConfig::default() };
    let shared = Shared {
        dns_metrics: Some(DnsMetrics::new(counted)),
        signals: Some(SharedSignals::open(&looked_for, 1, 0)),
        // Recent records, which are full after a few rounds.
        tails: Tails::new(32 << 10),
        ..Shared::new("node-1", Arc::new(Names::of([(3, "eth0".to_owned())])))
    };
    let discard = Arc::new(Discard(format, Published::default()));
    let sink = Named { name: "discard".into(), sink: discard.clone() };
    let clock = Clock { utc_offset_ns: 1_700_000_000_000_000_000 };
    let stages = Stages::new(table, &[sink], &shared, CrossWorkerQueue::single_worker(), clock);
    let mut stages = stages.unwrap_or_else(|error| panic!("{error}"));
    let [query, response, _] = messages();
    // Twenty queries wait at a time, so that they change places with each other's buffers.
    let packets: Vec<_> = [(false, &query), (true, &response)]
        .into_iter()
        .flat_map(|(back, message)| (0..20).filter_map(move |last| packet(last, back, message)))
        .collect();
    let mut records = 0;
    let mut record_all = || {
        for (header, bytes) in &packets {
            stages.take_packet(header, bytes, 0);
        }
        stages.deliver();
        records += 20;
    };
    assert!(allocations(&mut record_all) > 0);
    // A query's place and the buffers of responses each have their size after a few rounds.
    (0..5).for_each(|_| record_all());
    for _ in 0..100 {
        assert_eq!(allocations(&mut record_all), 0);
    }
    assert_eq!(discard.1.read().delivered.records, records);
}
