mod nodes;
mod volume;
mod workers;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tap53_attribution::{Directory, Scripted};
use tap53_base::amount::Amount;
use tap53_capture::interfaces::Names;
use tap53_dns::build::Build;
use tap53_ledger::SinkCounts;
use tap53_records::encode::{Batch, Format};
use tap53_sinks::Sink;
use tap53_transactions::{
    filter::{
        FilterReason,
        config::{FilterConfig, Lists},
    },
    pair::{self, RecordIds, SharedNotes},
    privacy::config::PrivacyConfig,
};

use super::*;
use crate::{
    config::{KeepConfig, RecordFilterConfig},
    worker::{Rules, RulesInForce},
};

mod chains;

/// Keeps the JSON lines that it is given.
#[derive(Default)]
struct Keep {
    lines: Mutex<Vec<serde_json::Value>>,
    counts: Published<SinkCounts>,
}

impl Sink for Keep {
    fn format(&self) -> Format {
        Format::Json
    }

    fn counts(&self) -> &Published<SinkCounts> {
        &self.counts
    }

    fn write(&self, batch: &Batch) {
        let lines = batch.iter().map(|(line, _)| serde_json::from_slice(line).unwrap());
        self.lines.lock().unwrap().extend(lines);
    }

    fn tick(&self, _now: Instant) {}

    fn close(&self, _deadline: Duration) {}
}

fn stages(wire_bytes: bool) -> (Stages, Arc<Keep>) {
    stages_with(wire_bytes, FilterConfig::default())
}

fn stages_with(wire_bytes: bool, filter: FilterConfig) -> (Stages, Arc<Keep>) {
    stages_named(wire_bytes, filter, Directory::default())
}

fn stages_named(wire_bytes: bool, filter: FilterConfig, owners: Directory) -> (Stages, Arc<Keep>) {
    let shared = Shared {
        wire_bytes,
        rules: rules(
            RecordFilterConfig { exchanges: filter, ..Default::default() },
            &KeepConfig::default(),
        ),
        owners,
        ..shared()
    };
    stages_of(&shared, 0, &SharedNotes::default(), CrossWorkerQueue::single_worker())
}

fn rules(filter: RecordFilterConfig, keep: &KeepConfig) -> Arc<RulesInForce> {
    Arc::new(RulesInForce::new(Rules::new(&filter, &PrivacyConfig::default(), keep)))
}

fn shared() -> Shared {
    Shared::new("node-1", Arc::new(Names::of([(3, "eth0".to_owned())])))
}

/// The stages of a worker, and its sink.
fn stages_of(
    shared: &Shared,
    worker: u16,
    notes: &SharedNotes,
    queue: CrossWorkerQueue,
) -> (Stages, Arc<Keep>) {
    let keep = Arc::new(Keep::default());
    let table = pair::Config { capacity: 8, ..pair::Config::default() };
    let table = table.build(0, RecordIds::new([1; 8], worker), notes.clone());
    let sink = Named { name: "keep".into(), sink: keep.clone() };
    let stages = Stages::new(table, &[sink], shared, queue, Clock { utc_offset_ns: 0 });
    (stages.unwrap(), keep)
}

/// A ring record of an IPv4 packet from 192.0.2.1:1000 to 192.0.2.2:53, or back.
fn item(transport: u8, payload: &[u8], back: bool) -> Vec<u8> {
    let transport_header = if transport == 17 { 8 } else { 20 };
    let length = u16::try_from(transport_header + payload.len()).unwrap();
    let mut packet = vec![0x45, 0];
    packet.extend((20 + length).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, transport, 0, 0]);
    let (client, server) = ([192, 0, 2, 1], [192, 0, 2, 2]);
    packet.extend(if back { [server, client] } else { [client, server] }.concat());
    let ports = if back { [53u16, 1_000] } else { [1_000, 53] };
    packet.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
    packet.extend(length.to_be_bytes());
    packet.resize(20 + transport_header, 0);
    if transport == 6 {
        packet[32] = 5 << 4; // its header's length
    }
    packet.extend(payload);
    let captured = u32::try_from(packet.len()).unwrap();
    let mut item = vec![0; RecordHeader::SIZE];
    item[0..8].copy_from_slice(&(1_000 + u64::from(back)).to_ne_bytes());
    item[8..12].copy_from_slice(&captured.to_ne_bytes());
    item[12..16].copy_from_slice(&captured.to_ne_bytes());
    item[16..20].copy_from_slice(&3u32.to_ne_bytes());
    item[30..32].copy_from_slice(&20u16.to_ne_bytes());
    let payload_offset = u16::try_from(20 + transport_header).unwrap();
    item[32..34].copy_from_slice(&payload_offset.to_ne_bytes());
    item[40] = u8::from(back);
    item[42] = 4;
    item[43] = transport;
    item.extend(packet);
    item
}

/// The same packet with another IPv4 identification.
fn numbered(mut item: Vec<u8>, identification: u8) -> Vec<u8> {
    item[RecordHeader::SIZE + 5] = identification;
    item
}

fn message(id: u16, response: bool) -> Vec<u8> {
    Build::message(id, response).question("a.test", 1).wire()
}

#[test]
fn a_query_and_its_response_become_one_record() {
    let (mut stages, keep) = stages(true);
    assert_eq!(stages.take(&item(17, &message(7, false), false)), Some(1_000));
    assert_eq!(stages.take(&item(17, &message(7, true), true)), Some(1_001));
    stages.deliver();
    let lines = keep.lines.lock().unwrap();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["outcome"], "MATCHED");
    assert_eq!(lines[0]["interface"], "eth0");
    assert_eq!(lines[0]["latency_ns"], 1);
    let wire = lines[0]["query_wire"].as_str().unwrap();
    assert!(wire.starts_with("000701") && wire.len() == 2 * message(7, false).len());
    drop(lines);
    let (mut stages, keep) = self::stages(false);
    stages.take(&item(17, &message(7, true), true));
    stages.finish();
    assert!(keep.lines.lock().unwrap()[0]["response_wire"].is_null());
}

#[test]
fn every_item_and_every_message_is_counted_once() {
    let (mut stages, keep) = stages(false);
    let framed = |wire: Vec<u8>| [&[0, u8::try_from(wire.len()).unwrap()], &wire[..]].concat();
    let pipelined = [framed(message(1, false)), framed(message(2, false))].concat();
    for (payload, reason) in [
        (item(17, &message(9, false), false), None),
        (item(6, &pipelined, false), None),
        (item(6, &[], false), Some(PacketLoss::TcpWithoutPayload)),
        (item(17, &[0; 11], false), Some(PacketLoss::ShorterThanHeader)),
        (vec![0; 10], Some(PacketLoss::RecordMismatch)),
    ] {
        let before = stages.datagrams.pairing.counts;
        stages.take(&payload);
        let after = stages.datagrams.pairing.counts;
        assert_eq!(after.packets_received, before.packets_received + 1);
        match reason {
            None => assert_eq!(after.packets_decoded, before.packets_decoded + 1),
            Some(reason) => assert_eq!(after.packets_lost[reason as usize], 1, "{reason:?}"),
        }
    }
    let published = stages.published.clone();
    stages.finish();
    let counts = published.read();
    assert_eq!((counts.messages_decoded, counts.messages_pending), (3, 0));
    assert_eq!((counts.messages_in_records, counts.records_created), (3, 3));
    assert!(keep.lines.lock().unwrap().iter().all(|line| line["capture_gap"] == true));
}

#[test]
fn a_datagram_that_the_snap_length_cut_is_read_as_far_as_it_goes() {
    let (mut stages, keep) = stages(false);
    let answered = Build::message(7, true).question("a.test", 1).answer(1, 60, &[192, 0, 2, 80]);
    let whole = answered.answer(1, 60, &[192, 0, 2, 81]).wire();
    let mut cut = item(17, &whole, true);
    cut.truncate(cut.len() - 6); // into the second answer
    let captured = u32::try_from(cut.len() - RecordHeader::SIZE).unwrap();
    cut[12..16].copy_from_slice(&captured.to_ne_bytes());
    cut[38..40].copy_from_slice(&tap53_ebpf::record::flags::TRUNCATED.to_ne_bytes());
    stages.take(&item(17, &message(7, false), false));
    assert_eq!(stages.take(&cut), Some(1_001));
    // Within the header of the message, there is nothing to read.
    cut.truncate(RecordHeader::SIZE + 28 + 11);
    cut[12..16].copy_from_slice(&39u32.to_ne_bytes());
    stages.take(&cut);
    let published = stages.published();
    stages.finish();
    let counts = published.read();
    assert_eq!(counts.packets_lost[PacketLoss::CutBySnapLength as usize], 1);
    let lines = keep.lines.lock().unwrap();
    assert_eq!(lines.len(), 1);
    let line = &lines[0];
    assert_eq!(
        (&line["outcome"], &line["parse_status"]),
        (&"MATCHED".into(), &"MALFORMED_ANSWER".into())
    );
    assert_eq!(line["answers"].as_array().map(Vec::len), Some(1));
    assert_eq!((&line["answer_count"], &line["capture_gap"]), (&2.into(), &true.into()));
    assert_eq!(line["response_size"], whole.len());
}

#[test]
fn copies_and_retries_are_distinguished_by_the_ip_identification() {
    let (mut stages, keep) = stages(false);
    for identification in [1, 1, 2] {
        stages.take(&numbered(item(17, &message(7, false), false), identification));
    }
    for identification in [3, 3] {
        stages.take(&numbered(item(17, &message(7, true), true), identification));
    }
    let published = stages.published();
    stages.finish();
    let counts = published.read();
    assert_eq!(counts.messages_lost[MessageLoss::Copy as usize], 2);
    assert_eq!((counts.messages_decoded, counts.messages_in_records), (5, 3));
    let lines = keep.lines.lock().unwrap();
    assert_eq!(lines.len(), 1);
    assert_eq!((&lines[0]["query_count"], &lines[0]["copy_count"]), (&2.into(), &1.into()));
    assert_eq!(lines[0]["latency_from_latest_query_ns"], 1);
}

#[test]
fn a_decoy_in_a_tcp_stream_is_a_conflict_in_ledger_and_records() {
    let (mut stages, keep) = stages(false);
    let asks = |name| Build::message(7, false).question(name, 1).wire();
    let framed = |wire: Vec<u8>| {
        let length = u16::try_from(wire.len()).unwrap().to_be_bytes();
        [&length[..], &wire].concat()
    };
    // At one position of the stream: a decoy that the server never gets, and the query that it answers.
    stages.take(&item(6, &framed(asks("decoy.test")), false));
    stages.take(&item(6, &framed(asks("asked.test")), false));
    let answer = Build::message(7, true).question("asked.test", 1).wire();
    stages.take(&item(6, &framed(answer), true));
    let published = stages.published();
    stages.finish();
    let counts = published.read();
    let conflict = counts.streams.bytes_lost[StreamLoss::Conflict as usize];
    assert_eq!(conflict, framed(asks("asked.test")).len() as u64);
    assert_eq!(counts.anomalies[pair::Anomaly::TcpConflict as usize], 2);
    let lines = keep.lines.lock().unwrap();
    let names: Vec<_> = lines.iter().map(|line| line["qname"].as_str().unwrap()).collect();
    assert_eq!(names, ["asked.test", "decoy.test"]);
    for line in lines.iter() {
        assert_eq!(line["capture_gap"], true);
        assert_eq!(line["anomalies"], serde_json::json!(["TCP_CONFLICT"]));
    }
}

#[test]
fn queries_evicted_from_a_full_table_are_records_with_a_gap() {
    let (mut stages, keep) = stages(false);
    for id in 0..10 {
        stages.take(&item(17, &message(id, false), false));
    }
    stages.deliver();
    let counts = stages.published().read();
    assert_eq!((counts.queries_evicted, counts.queries_pending), (2, 8));
    assert_eq!((counts.messages_in_records, counts.messages_lost), (2, [0; 3]));
    let lines = keep.lines.lock().unwrap();
    for (line, id) in lines.iter().zip(0..) {
        assert_eq!((&line["outcome"], &line["dns_id"]), (&"UNANSWERED".into(), &id.into()));
        assert_eq!(line["capture_gap"], true);
    }
    assert_eq!(lines.len(), 2);
}

#[test]
fn a_filtered_transaction_is_excluded_and_counted_with_its_messages() {
    let qnames = Lists { allow: Vec::new(), deny: vec!["secret.test".to_owned()] };
    let filter = FilterConfig { qnames, ..FilterConfig::default() };
    let (mut stages, keep) = stages_with(false, filter);
    let secret = |id, response| Build::message(id, response).question("a.secret.test", 1).wire();
    // A query, again, and its response; a query without one; a response without one; and others.
    stages.take(&item(17, &secret(1, false), false));
    stages.take(&numbered(item(17, &secret(1, false), false), 1));
    stages.take(&item(17, &secret(1, true), true));
    stages.take(&item(17, &secret(2, false), false));
    stages.take(&item(17, &secret(3, true), true));
    stages.take(&item(17, &message(4, false), false));
    stages.take(&item(17, &message(4, true), true));
    let published = stages.published();
    stages.finish();
    let counts = published.read();
    assert_eq!(counts.records_created, 4);
    let denied = counts.filtered[FilterReason::QnameDenied as usize];
    assert_eq!((denied.records, denied.messages), (3, 5));
    assert_eq!(counts.messages_in_records, 2);
    assert_eq!(counts.messages_decoded, 7);
    let lines = keep.lines.lock().unwrap();
    let names: Vec<_> = lines.iter().map(|line| line["qname"].as_str()).collect();
    assert_eq!(names, [Some("a.test")]);
}

/// Times are those of [`item`]: a microsecond after 1970, by a clock without an offset.
const HOLD: Duration = Duration::from_secs(3);

fn stages_that_defer(range: &str) -> (Scripted, Stages, Arc<Keep>) {
    let scripted = Scripted::new(HOLD, range);
    let (stages, keep) = stages_named(false, FilterConfig::default(), scripted.directory());
    (scripted, stages, keep)
}

fn exchange(stages: &mut Stages, id: u16) {
    stages.begin_batch(Clock { utc_offset_ns: 0 });
    stages.take(&item(17, &message(id, false), false));
    stages.take(&item(17, &message(id, true), true));
}

fn uids(keep: &Keep) -> Vec<serde_json::Value> {
    keep.lines.lock().unwrap().iter().map(|line| line["client_pod_uid"].clone()).collect()
}

#[test]
fn a_record_waits_for_attribution_to_a_new_pod() {
    let (mut scripted, mut stages, keep) = stages_that_defer("192.0.2.0/31");
    exchange(&mut stages, 1);
    stages.expire(1_000_000);
    stages.deliver();
    let counts = stages.published().read();
    assert_eq!((counts.records_created, counts.messages_pending), (0, 2));
    assert!(uids(&keep).is_empty());
    // The pod is reported late, and had the address at the time of the query.
    scripted.pod("a", [192, 0, 2, 1].into(), 0);
    stages.begin_batch(Clock { utc_offset_ns: 0 });
    stages.expire(2_000_000);
    stages.deliver();
    assert_eq!(uids(&keep), ["a"]);
    // From now on nothing waits.
    exchange(&mut stages, 2);
    stages.deliver();
    assert_eq!(uids(&keep), ["a", "a"]);
    let counts = stages.published().read();
    assert_eq!((counts.records_created, counts.messages_in_records), (2, 4));
    assert_eq!(counts.messages_pending, 0);
}

#[test]
fn a_record_waits_until_its_deadline_only() {
    let (mut scripted, mut stages, keep) = stages_that_defer("192.0.2.0/31");
    exchange(&mut stages, 1);
    let end_ns = u64::try_from(HOLD.as_nanos()).unwrap() + 1_000;
    // Another pod is reported meanwhile.
    scripted.pod("other", [192, 0, 2, 9].into(), 0);
    stages.begin_batch(Clock { utc_offset_ns: 0 });
    stages.expire(end_ns - 1);
    stages.deliver();
    assert!(uids(&keep).is_empty());
    stages.expire(end_ns);
    stages.deliver();
    assert_eq!(uids(&keep), [serde_json::Value::Null]);
    // At the end of capture nothing keeps waiting.
    exchange(&mut stages, 2);
    let published = stages.published();
    stages.finish();
    assert_eq!(uids(&keep).len(), 2);
    assert_eq!(published.read().messages_pending, 0);
}

#[test]
fn addresses_outside_of_the_nodes_range_do_not_wait() {
    // The range of another node, and an unused one.
    for range in ["198.51.100.0/24", "192.0.2.8/29"] {
        let (_scripted, mut stages, keep) = stages_that_defer(range);
        exchange(&mut stages, 1);
        stages.deliver();
        assert_eq!(uids(&keep).len(), 1, "{range}");
    }
}

#[test]
fn records_beyond_the_limit_do_not_wait() {
    let (_scripted, mut stages, keep) = stages_that_defer("192.0.2.0/31");
    for id in 0..1_034 {
        exchange(&mut stages, id);
    }
    stages.deliver();
    assert_eq!(uids(&keep).len(), 10);
    let counts = stages.published().read();
    assert_eq!((counts.records_created, counts.messages_pending), (10, 2_048));
}

#[test]
fn a_transaction_is_attributed_at_its_own_time() {
    let (mut scripted, mut stages, keep) = stages_that_defer("192.0.2.0/31");
    // The address has passed on since: at half a second.
    scripted.pod("a", [192, 0, 2, 1].into(), 0);
    scripted.pod("b", [192, 0, 2, 1].into(), 500_000);
    exchange(&mut stages, 1);
    stages.expire(900_000_000);
    stages.deliver();
    assert_eq!(uids(&keep), ["a"]);
}

/// A sink that lets the test look at each of its steps: before it has taken a batch, and after, as
/// while it waits for a disk.
struct Slow {
    counts: Published<SinkCounts>,
    steps: std::sync::mpsc::SyncSender<()>,
}

impl Sink for Slow {
    fn format(&self) -> Format {
        Format::Json
    }

    fn counts(&self) -> &Published<SinkCounts> {
        &self.counts
    }

    fn write(&self, batch: &Batch) {
        let amount = Amount { records: batch.records(), messages: batch.messages() };
        self.steps.send(()).unwrap();
        self.counts.update(|counts| {
            counts.offer(amount);
            counts.delivered += amount;
        });
        self.steps.send(()).unwrap();
    }

    fn tick(&self, _now: Instant) {}

    fn close(&self, _deadline: Duration) {}
}

#[test]
fn the_ledger_balances_at_every_step_of_a_slow_sink_even_within_a_batch() {
    // The records of ten queries are handed over at once, those of five thousand in parts.
    for (queries, least_early) in [(10_u16, 0), (5_000, 2)] {
        let (steps, look) = std::sync::mpsc::sync_channel(0);
        let sinks = [0, 1].map(|number| {
            let sink = Arc::new(Slow { counts: Published::default(), steps: steps.clone() });
            Named { name: format!("slow{number}"), sink }
        });
        drop(steps);
        let counts: Vec<_> = sinks.iter().map(|sink| sink.sink.counts().clone()).collect();
        let dns_metrics = tap53_insight::DnsMetrics::new(Default::default());
        let shared = Shared {
            node: "node-1".into(),
            interfaces: Arc::default(),
            wire_bytes: true,
            kept: Kept::Answers,
            client_node_only: false,
            max_record_bytes: encode::DEFAULT_MAX_BYTES,
            rules: Arc::default(),
            owners: Directory::default(),
            processes: None,
            each_message: false,
            chains: None,
            tails: Default::default(),
            dns_metrics: Some(dns_metrics.clone()),
            signals: None,
            selection: None,
            ending: Arc::default(),
        };
        let table = pair::Config { capacity: 8_192, ..pair::Config::default() };
        let table = table.build(0, RecordIds::new([1; 8], 0), SharedNotes::default());
        let clock = Clock { utc_offset_ns: 0 };
        let mut stages =
            Stages::new(table, &sinks, &shared, CrossWorkerQueue::single_worker(), clock).unwrap();
        drop(sinks);
        let published = stages.published();
        let worker = std::thread::spawn(move || {
            for id in 0..queries {
                stages.take(&item(17, &message(id, false), false));
            }
            stages.deliver();
            stages.expire(10_000_000_000);
            stages.finish();
        });
        let (mut looks, mut early) = (0, 0);
        loop {
            // Until the worker has ended, and its sinks with it.
            let ended = look.recv().is_err();
            let ((workers, last_numbers, sinks), dns) =
                tap53_ledger::snapshot_with([&published], &counts, || dns_metrics.read());
            assert_eq!(dns.transactions(), workers.records_created, "step {looks}");
            early += usize::from(workers.ahead.records > 0);
            looks += 1;
            let mut sources = tap53_ledger::Sources {
                node: String::new(),
                run: [7; 8],
                taken_at_us: 0,
                ended,
                is_abandoned: false,
                interfaces: Vec::new(),
                workers,
                last_numbers,
                sinks: sinks.into_iter().map(|counts| ("slow".to_owned(), counts)).collect(),
            };
            // There are no hooks here.
            sources.workers.packets_received = 0;
            sources.workers.packets_decoded = 0;
            let ledger = tap53_ledger::Ledger::new(&sources);
            assert!(ledger.balanced(), "step {looks}: {ledger}");
            if ended {
                assert_eq!(sources.workers.records_created, u64::from(queries));
                break;
            }
        }
        worker.join().unwrap();
        assert!(looks > 4 && early >= least_early, "{looks} {early}");
    }
}
