//! Transactions that `record.keep` leaves out of the records, and their counts.

use tap53_attribution::pod_selection::config::PodFilterConfig;
use tap53_insight::DnsMetrics;
use tap53_records::encode::{Attribution, Identity};
use tap53_transactions::sampling::Share;

use super::*;
use crate::tail::{Selection, Tails};

const CLIENT: [u8; 4] = [192, 0, 2, 1];

/// Names of plain answers.
const NAMES: u16 = 400;

fn keep_a_tenth() -> KeepConfig {
    KeepConfig { share: Share::new(0.1).unwrap(), ..KeepConfig::default() }
}

/// Counts, records and transactions in the metrics.
struct Outcome {
    counts: WorkerCounts,
    records: Vec<serde_json::Value>,
    in_metrics: Option<u64>,
}

impl Outcome {
    fn names(&self) -> Vec<&str> {
        self.records.iter().filter_map(|record| record["qname"].as_str()).collect()
    }

    fn filtered(&self, reason: FilterReason) -> Amount {
        self.counts.filtered[reason as usize]
    }
}

/// Passes plain answers, an NXDOMAIN, and a query without a response through the stages.
fn observe(rules: Arc<RulesInForce>, owners: Directory, metrics: Option<&DnsMetrics>) -> Outcome {
    let shared = Shared { rules, owners, dns_metrics: metrics.cloned(), ..shared() };
    let outcome = pass(&shared);
    Outcome { in_metrics: metrics.map(|metrics| metrics.read().transactions()), ..outcome }
}

fn pass(shared: &Shared) -> Outcome {
    let queue = CrossWorkerQueue::single_worker();
    let (mut stages, keep) = stages_of(shared, 0, &SharedNotes::default(), queue);
    let wire = |id: u16, rcode: u8, response| {
        let mut wire = Build::message(id, response).question(&format!("n{id}.test"), 1).wire();
        wire[3] |= rcode;
        wire
    };
    stages.begin_batch(Clock { utc_offset_ns: 0 });
    for id in 0..NAMES {
        stages.take(&item(17, &wire(id, 0, false), false));
        stages.take(&item(17, &wire(id, 0, true), true));
    }
    stages.take(&item(17, &wire(NAMES, 0, false), false));
    stages.take(&item(17, &wire(NAMES, 3, true), true));
    stages.take(&item(17, &wire(NAMES + 1, 0, false), false));
    stages.expire(10_000_000_000);
    stages.deliver();
    let counts = stages.published().read();
    let records = keep.lines.lock().unwrap().clone();
    Outcome { counts, records, in_metrics: None }
}

#[test]
fn a_share_and_all_that_is_notable_become_records_and_the_metrics_count_everything() {
    let all = u64::from(NAMES) + 2;
    let rules = || rules(RecordFilterConfig::default(), &keep_a_tenth());
    let metrics = DnsMetrics::new(Default::default());
    let with = observe(rules(), Directory::default(), Some(&metrics));
    let without = observe(rules(), Directory::default(), None);
    assert_eq!(with.names(), without.names(), "the metrics do not change the choice");
    for outcome in [&with, &without] {
        let left_out = outcome.filtered(FilterReason::NotKept);
        assert_eq!(outcome.counts.records_created, all);
        assert_eq!(left_out.records + outcome.records.len() as u64, all);
        assert_eq!(left_out.messages, 2 * left_out.records);
        // 40 are expected, with a standard deviation of 6.
        assert!((10..=70).contains(&(outcome.records.len() - 2)), "{}", outcome.records.len());
        for (record, number) in outcome.records.iter().zip(1..) {
            assert_eq!(record["record_number"], number, "no number is missing");
            let is_notable = record["rcode"] != "NOERROR";
            let expected = if is_notable { 1_000_000 } else { 100_000 };
            assert_eq!(record["kept_per_million"], expected, "{record}");
        }
        let names = outcome.names();
        assert_eq!(
            names[names.len() - 2..],
            [format!("n{NAMES}.test"), format!("n{}.test", NAMES + 1)]
        );
    }
    assert_eq!((with.in_metrics, without.in_metrics), (Some(all), None));
}

/// `tap53 top` has exact counts also where records are few.
#[test]
fn a_follower_that_gets_counts_gets_what_is_left_out_too() {
    let tails = Tails::default();
    let tail = tails.count(&Selection::default()).unwrap();
    let shared =
        Shared { rules: rules(RecordFilterConfig::default(), &keep_a_tenth()), tails, ..shared() };
    let outcome = pass(&shared);
    assert!(outcome.records.len() < usize::from(NAMES) / 2);
    assert_eq!(tail.read().0.transactions(), u64::from(NAMES) + 2);
}

#[test]
fn without_rules_records_do_not_mention_a_share() {
    let outcome = observe(Arc::default(), Directory::default(), None);
    assert_eq!(outcome.records.len(), usize::from(NAMES) + 2);
    assert!(outcome.records.iter().all(|record| record["kept_per_million"].is_null()));
}

fn pods_of(namespace: &str) -> Directory {
    let mut scripted = Scripted::new(Duration::ZERO, "192.0.2.0/24");
    let identity = Identity {
        attribution: Attribution::Pod,
        pod_uid: Some("uid".to_owned()),
        pod_namespace: Some(namespace.to_owned()),
        workload_name: Some("web".to_owned()),
        ..Identity::default()
    };
    scripted.pod_with(identity, CLIENT.into(), 0);
    scripted.directory()
}

#[test]
fn what_a_filter_by_pod_excludes_is_in_no_metric() {
    let namespaces = Lists { allow: vec!["shop".parse().unwrap()], deny: Vec::new() };
    let pods = PodFilterConfig { namespaces, ..PodFilterConfig::default() };
    let filter = RecordFilterConfig { pods, ..RecordFilterConfig::default() };
    let all = u64::from(NAMES) + 2;
    for (owners, excluded) in
        [(pods_of("shop"), 0), (pods_of("bank"), all), (Directory::default(), all)]
    {
        let metrics = DnsMetrics::new(Default::default());
        let keep = keep_a_tenth();
        let outcome = observe(rules(filter.clone(), &keep), owners, Some(&metrics));
        assert_eq!(outcome.filtered(FilterReason::NamespaceNotAllowed).records, excluded);
        assert_eq!(outcome.in_metrics, Some(all - excluded));
        let left_out = outcome.filtered(FilterReason::NotKept).records;
        assert_eq!(outcome.records.len() as u64, all - excluded - left_out);
        assert_eq!(left_out > 0, excluded == 0);
    }
}
