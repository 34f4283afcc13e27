use tap53_base::amount::Amount;
use tap53_dns::PacketLoss;
use tap53_ebpf::counter::{Counter, Counters};
use tap53_transactions::filter::FilterReason;

use crate::{InterfaceCounts, Ledger, SinkCounts, Sources, WorkerCounts};

fn sources() -> Sources {
    let mut counters = [Counters::default(); 2];
    counters[0].counts[Counter::Seen as usize] = 7;
    counters[0].counts[Counter::Captured as usize] = 4;
    counters[0].counts[Counter::NotDns as usize] = 2;
    counters[0].counts[Counter::RingFull as usize] = 1;
    let interfaces = vec![InterfaceCounts {
        name: "v0".into(),
        ifindex: 5,
        hooks: ["xdp native".into(), "tcx".into()],
        counters,
        is_pair: false,
        is_attached: true,
    }];
    let mut workers = WorkerCounts {
        packets_received: 4,
        packets_decoded: 3,
        messages_decoded: 5,
        messages_pending: 1,
        messages_in_records: 2,
        records_created: 2,
        ..Default::default()
    };
    workers.packets_lost[PacketLoss::MalformedPacket as usize] = 1;
    workers.filtered[FilterReason::SampledOut as usize] = Amount { records: 1, messages: 2 };
    let amount = Amount { records: 1, messages: 2 };
    let sink = SinkCounts { offered: amount, delivered: amount, ..Default::default() };
    Sources {
        node: "node-1".into(),
        run: [7; 8],
        taken_at_us: 0,
        ended: true,
        is_abandoned: false,
        interfaces,
        workers,
        last_numbers: vec![1],
        sinks: vec![("file".into(), sink)],
    }
}

#[test]
fn a_ledger_that_adds_up_is_balanced() {
    let ledger = Ledger::new(&sources());
    assert!(ledger.balanced(), "{:?}", ledger.imbalances);
    let json = serde_json::to_value(&ledger).unwrap();
    assert_eq!(json["interfaces"][0]["ingress"]["lost"]["ring_full"], 1);
    assert_eq!(json["agent"]["sinks"][0]["records"]["delivered"], 1);
    assert_eq!(json["balanced"], true);
}

#[test]
fn one_missing_unit_anywhere_unbalances_it() {
    let changes: [fn(&mut Sources); 16] = [
        |s| s.interfaces[0].counters[0].counts[Counter::Seen as usize] += 1,
        |s| s.interfaces[0].counters[1].counts[Counter::Captured as usize] += 1,
        |s| s.workers.packets_received -= 1,
        |s| s.workers.packets_decoded -= 1,
        |s| s.workers.messages_decoded += 1,
        |s| s.workers.messages_pending = 0,
        |s| s.workers.records_created += 1,
        |s| s.last_numbers[0] += 1,
        |s| s.workers.filtered[FilterReason::QnameDenied as usize].records = 1,
        |s| s.workers.filtered[FilterReason::QnameDenied as usize].messages = 1,
        |s| s.workers.ahead.records += 1,
        |s| s.workers.ahead.messages += 1,
        |s| s.sinks[0].1.offered.messages += 1,
        |s| s.sinks[0].1.delivered.records = 0,
        |s| s.sinks[0].1.carried.records += 1,
        |s| s.sinks[0].1.spooled.messages += 1,
    ];
    for (position, change) in changes.into_iter().enumerate() {
        let mut sources = sources();
        change(&mut sources);
        assert!(!Ledger::new(&sources).balanced(), "change {position}");
    }
}

#[test]
fn rings_may_hold_packets_while_it_runs_but_not_at_the_end() {
    let mut sources = sources();
    sources.interfaces[0].counters[0].counts[Counter::Seen as usize] += 3;
    sources.interfaces[0].counters[0].counts[Counter::Captured as usize] += 3;
    assert!(!Ledger::new(&sources).balanced());
    sources.ended = false;
    assert!(Ledger::new(&sources).balanced());
}

#[test]
fn what_abandoned_workers_hold_is_counted_and_nothing_else_is_excused() {
    let held = |sources: &mut Sources| {
        // In the ring, and in the unfinished batch.
        sources.interfaces[0].counters[0].counts[Counter::Seen as usize] += 3;
        sources.interfaces[0].counters[0].counts[Counter::Captured as usize] += 3;
        let workers = &mut sources.workers;
        // A fragment that waits, a datagram on its way to another worker, bytes of a stream.
        workers.packets_received += 3;
        sources.interfaces[0].counters[0].counts[Counter::Seen as usize] += 3;
        sources.interfaces[0].counters[0].counts[Counter::Captured as usize] += 3;
        workers.packets_in_fragments += 3;
        workers.fragments.received += 3;
        workers.fragments.joined += 2;
        workers.fragments.datagrams += 1;
        workers.fragments.waiting += 1;
        workers.streams.bytes_received += 9;
        workers.streams.bytes_waiting += 9;
        let sink = &mut sources.sinks[0].1;
        sink.in_batches = std::mem::take(&mut sink.offered);
        sink.delivered = Amount::default();
    };
    let mut left = sources();
    held(&mut left);
    assert!(!Ledger::new(&left).balanced(), "nobody has abandoned anything");
    let pending = left.workers.messages_pending;
    assert!(pending > 0);
    left.abandon();
    let ledger = Ledger::new(&left);
    assert!(ledger.balanced(), "{:?}", ledger.imbalances);
    let json = serde_json::to_value(&ledger).unwrap();
    let agent = &json["agent"];
    assert_eq!(agent["packets"]["abandoned"], 3);
    assert_eq!(agent["packets"]["in_rings"], 0);
    assert_eq!(agent["messages"]["lost"]["abandoned"], pending);
    assert_eq!(agent["messages"]["pending"], 0);
    assert_eq!(agent["fragments"]["lost"]["ended"], 1);
    assert_eq!(agent["fragments"]["datagrams_lost"], 1);
    assert_eq!(agent["tcp_bytes"]["lost"]["ended"], 9);
    assert_eq!(agent["sinks"][0]["records"]["lost"]["abandoned"], 1);
    assert!(ledger.lost_records());
    // The counts that the workers have published must add up as before.
    let defects: [fn(&mut Sources); 5] = [
        |s| s.workers.packets_received += 100,
        |s| s.workers.packets_decoded += 1,
        |s| s.workers.messages_decoded += 1,
        |s| s.workers.records_created += 1,
        |s| s.sinks[0].1.delivered.records += 1,
    ];
    for (position, defect) in defects.into_iter().enumerate() {
        let mut sources = left.clone();
        defect(&mut sources);
        assert!(!Ledger::new(&sources).balanced(), "defect {position}");
    }
}

#[test]
fn batches_may_be_on_their_way_to_a_sink_but_not_at_the_end() {
    let mut sources = sources();
    let sink = &mut sources.sinks[0].1;
    sink.in_batches = std::mem::take(&mut sink.offered);
    sink.delivered = Amount::default();
    assert!(!Ledger::new(&sources).balanced());
    sources.ended = false;
    assert!(Ledger::new(&sources).balanced());
    sources.workers.ahead = Amount { records: 2, messages: 5 };
    assert!(!Ledger::new(&sources).balanced(), "a part of a batch that no sink was handed");
    sources.sinks[0].1.in_batches += Amount { records: 2, messages: 5 };
    assert!(Ledger::new(&sources).balanced());
}
