mod manual;

use tap53_base::amount::Amount;
use tap53_dns::PacketLoss;
use tap53_ebpf::counter::{Counter, Counters};
use tap53_reasons::Fate;
use tap53_spool::Totals;
use tap53_transactions::filter::FilterReason;

use crate::{
    InterfaceCounts, Ledger, MessageLoss, SUMMARY_SCHEMA_TEXT, SinkCounts, SinkLoss, Sources,
    StageCount, SummaryCounts, WorkerCounts,
};

/// A ledger in which every reason occurred once.
pub(crate) fn every_reason() -> Ledger {
    let one = Amount { records: 1, messages: 1 };
    let mut workers = WorkerCounts {
        packets_lost: [1; PacketLoss::ALL.len()],
        messages_lost: [1; MessageLoss::ALL.len()],
        filtered: [one; FilterReason::ALL.len()],
        ..WorkerCounts::default()
    };
    workers.fragments.received = 1;
    workers.fragments.duplicates = 1;
    workers.fragments.lost.fill(1);
    workers.streams.bytes_received = 1;
    workers.streams.bytes_ignored.fill(1);
    workers.streams.bytes_lost.fill(1);
    let counters = Counters { counts: [1; Counter::COUNT] };
    let mut totals = Totals::default();
    totals.lost.fill(one);
    let sink = SinkCounts {
        lost: [one; SinkLoss::ALL.len()],
        spool_totals: Some(totals),
        ..SinkCounts::default()
    };
    ledger_of(counters, workers, sink)
}

fn ledger_of(counters: Counters, workers: WorkerCounts, sink: SinkCounts) -> Ledger {
    Ledger::new(&Sources {
        node: "node-1".into(),
        run: [7; 8],
        taken_at_us: 0,
        ended: false,
        is_abandoned: false,
        interfaces: vec![InterfaceCounts {
            name: "v0".into(),
            ifindex: 5,
            hooks: ["xdp native".into(), "tcx".into()],
            counters: [counters, Counters::default()],
            is_pair: false,
            is_attached: true,
        }],
        workers,
        last_numbers: vec![1],
        sinks: vec![("kafka".into(), sink)],
    })
}

/// The counts of things that went nowhere, but for packets of abandoned workers, which are a difference.
fn left_out(ledger: &Ledger) -> impl Iterator<Item = StageCount> {
    let counts = ledger.counts(&ledger.agent.sinks[0]).into_iter();
    let fates = [Fate::Filtered, Fate::Ignored, Fate::Lost];
    counts.filter(move |count| fates.contains(&count.fate) && count.stage != "rings")
}

#[test]
fn every_reason_is_in_text_and_json() {
    let ledger = every_reason();
    let (text, json) = (ledger.to_string(), serde_json::to_value(&ledger).unwrap());
    let (interface, agent) = (&json["interfaces"][0], &json["agent"]);
    assert!(left_out(&ledger).count() > 50);
    for StageCount { stage, fate, reason, total, .. } in left_out(&ledger) {
        let object = match stage {
            "hooks" => &interface["ingress"],
            "transactions" => &agent["records"],
            "sink" => &agent["sinks"][0]["records"],
            other => &agent[other],
        };
        assert_eq!(total, 1, "{stage} {reason} does not occur");
        assert_eq!(object[fate.name()][reason], 1, "{stage} {reason} in JSON");
        let term = format!(" + {} {reason} 1", fate.name());
        assert!(text.contains(&term), "{stage} {reason} is not in the text:\n{text}");
    }
    for (reason, count) in
        json["agent"]["sinks"][0]["spool"]["records"]["lost"].as_object().unwrap()
    {
        assert_eq!(*count, 1);
        assert!(text.contains(&format!(" + lost {reason} 1")), "{reason} of the spool:\n{text}");
    }
}

#[test]
fn sql_and_schema_know_every_fate() {
    let sql = include_str!("../../../../../deploy/sql/completeness.sql");
    let warehouse = include_str!("../../../../../deploy/warehouse/completeness.sql");
    for fate in Fate::SUMMED.map(Fate::name) {
        assert!(sql.contains(&format!("entry.fate = '{fate}'")), "{fate} in the SQL");
        let when = if fate == "taken" { "CASE fate WHEN" } else { "sum(CASE fate WHEN" };
        assert!(warehouse.contains(&format!("{when} '{fate}'")), "{fate} in the warehouse's SQL");
        let explained = [format!("{fate}: "), format!(" {fate}. ")];
        let is_explained = explained.iter().any(|form| SUMMARY_SCHEMA_TEXT.contains(form));
        assert!(is_explained, "{fate} in the schema");
    }
}

#[test]
fn the_text_has_every_term_that_is_not_zero_or_always_shown() {
    let mut counters = Counters::default();
    for (counter, count) in [(Counter::Seen, 9), (Counter::Captured, 8), (Counter::RingFull, 1)] {
        counters.counts[counter as usize] = count;
    }
    let mut workers = WorkerCounts {
        packets_received: 6,
        packets_decoded: 4,
        packets_in_fragments: 3,
        datagrams_taken: 1,
        messages_decoded: 4,
        messages_in_records: 3,
        messages_pending: 1,
        records_created: 1,
        ..WorkerCounts::default()
    };
    workers.fragments.received = 3;
    workers.fragments.joined = 2;
    workers.fragments.datagrams = 1;
    workers.fragments.waiting = 1;
    let amount = |records, messages| Amount { records, messages };
    let sink = SinkCounts {
        offered: amount(1, 3),
        carried: amount(2, 2),
        spooled: amount(3, 5),
        summaries: SummaryCounts { written: 2, delivered: 1, lost: 1, ..SummaryCounts::default() },
        ..SinkCounts::default()
    };
    let ledger = ledger_of(counters, workers, sink);
    let text = "\
ledger of node-1 at 1970-01-01T00:00:00.000000Z, run 0707070707070707
  v0 ingress (xdp native)            seen             9 = captured 8 + lost ring_full 1
  v0 egress (tcx)                    seen             0 = captured 0
  packets                            received         6 + joined 1 = decoded 4 + fragments 3, and 2 more in the rings
  fragments                          received         3 = joined 2 (datagrams 1) + waiting 1
  messages                           decoded          4 = in records 3 + pending 1
  records to kafka                   offered          1 + carried 2 = delivered 0 + spooled 3
  summaries to kafka                 written          2 = delivered 1 + lost 1
  balanced: yes
";
    assert_eq!(ledger.to_string(), text, "{ledger}");
}
