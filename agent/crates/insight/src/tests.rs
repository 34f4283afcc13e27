//! Records in, series out.

mod sample;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use tap53_dns::Transport;
use tap53_records::encode::{Attribution, Identity, Owner};
use tap53_transactions::privacy::{
    Policy,
    config::{AddressRule, PrefixLengths, PrivacyConfig},
};

use super::*;
use crate::config::ClientLabel;
use sample::{Sample, pod};

type Labels = [String; 7];

fn metrics(config: DnsMetricsConfig) -> (DnsMetrics, DnsCounter) {
    let metrics = DnsMetrics::new(config);
    let counter = metrics.counter();
    (metrics, counter)
}

fn count(counter: &mut DnsCounter, sample: &Sample) {
    sample.with(|record| counter.count(record));
}

/// Series with transactions, by their labels.
fn series(reading: &Reading, policy: &Policy) -> BTreeMap<Labels, u64> {
    let mut series = BTreeMap::new();
    reading.each_series(policy, |labels, count| {
        *series.entry(labels.map(str::to_owned)).or_default() += count;
    });
    series.retain(|_, count| *count > 0);
    series
}

fn labels(labels: [&str; 7]) -> Labels {
    labels.map(str::to_owned)
}

fn pairs(reading: &Reading) -> BTreeMap<[String; 3], PairCounts> {
    let mut pairs = BTreeMap::new();
    reading.each_pair(&Policy::default(), |labels, counts| {
        let is_new = pairs.insert(labels.map(str::to_owned), *counts).is_none();
        assert!(is_new, "{labels:?}");
    });
    pairs
}

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

#[test]
fn records_count_by_workload_server_type_code_transport_and_outcome() {
    let (metrics, mut counter) = metrics(DnsMetricsConfig::default());
    let server = Owner::new(Identity {
        attribution: Attribution::Service,
        service_namespace: Some("kube-system".to_owned()),
        service_name: Some("kube-dns".to_owned()),
        ..Identity::default()
    });
    let web = Sample { client: pod("shop", "web"), server, ..Sample::default() };
    count(&mut counter, &web);
    count(&mut counter, &web);
    count(&mut counter, &Sample { qtype: 28, rcode: Some(3), ..web.clone() });
    count(&mut counter, &Sample { transport: Transport::Tcp, rcode: None, ..web });
    count(&mut counter, &Sample::default());
    let before = metrics.read();
    assert_eq!(before.transactions(), 0, "nothing is published yet");
    counter.publish();
    let [a, b, c, d] = [
        ["shop", "web", "kube-system/kube-dns", "A", "NOERROR", "udp", "matched"],
        ["shop", "web", "kube-system/kube-dns", "AAAA", "NXDOMAIN", "udp", "matched"],
        ["shop", "web", "kube-system/kube-dns", "A", "", "tcp", "unanswered"],
        ["", "~unattributed", "192.0.2.53", "A", "NOERROR", "udp", "matched"],
    ]
    .map(labels);
    let expected = BTreeMap::from([(a, 2), (b, 1), (c, 1), (d, 1)]);
    assert_eq!(series(&metrics.read(), &Policy::default()), expected);
    assert_eq!(before.transactions(), 0, "a reading does not change");
}

#[test]
fn namespaces_take_the_place_of_workloads() {
    let config = DnsMetricsConfig { by: ClientLabel::Namespace, ..DnsMetricsConfig::default() };
    let (metrics, mut counter) = metrics(config);
    for workload in ["web", "db"] {
        count(&mut counter, &Sample { client: pod("shop", workload), ..Sample::default() });
    }
    count(&mut counter, &Sample::default());
    counter.publish();
    let [shop, none] = [["shop", ""], ["", "~unattributed"]].map(|[namespace, workload]| {
        labels([namespace, workload, "192.0.2.53", "A", "NOERROR", "udp", "matched"])
    });
    let expected = BTreeMap::from([(shop, 2), (none, 1)]);
    assert_eq!(series(&metrics.read(), &Policy::default()), expected);
}

#[test]
fn beyond_the_cap_records_count_as_other_in_every_worker_and_the_sum_is_exact() {
    let limit = 40;
    let config = DnsMetricsConfig { max_series: limit, ..DnsMetricsConfig::default() };
    let (metrics, mut one) = metrics(config);
    let mut two = metrics.counter();
    let mut total = 0;
    let mut last = BTreeMap::new();
    for round in 0..3 {
        for number in 0..100 {
            let client = pod("shop", &format!("workload-{number}"));
            let sample = Sample { client, ..Sample::default() };
            // Workers meet the workloads in different order.
            count(&mut one, &sample);
            let client = pod("shop", &format!("workload-{}", 99 - number));
            count(&mut two, &Sample { client, ..sample });
            total += 2;
        }
        one.publish();
        two.publish();
        let reading = metrics.read();
        assert_eq!(reading.transactions(), total, "round {round}");
        let series = series(&reading, &Policy::default());
        assert_eq!(series.values().sum::<u64>(), total);
        assert_eq!(series.len(), limit as usize, "round {round}");
        let other = labels([OTHER; 7]);
        assert_eq!(series[&other], 2 * (round + 1) * (100 - (u64::from(limit) - 1)));
        for (labels, count) in &last {
            assert!(series[labels] > *count, "{labels:?} must grow");
        }
        last = series;
        let [transactions, ..] = reading.usage();
        assert_eq!((transactions.used, transactions.limit), (limit as usize, limit as usize));
    }
    let pairs = pairs_merged(&metrics.read());
    assert_eq!(pairs.len(), 2, "a sixteenth, and at least one beside ~other");
    assert_eq!(pairs.values().sum::<u64>(), total, "each latency is in one histogram");
}

/// Latencies of each pair.
fn pairs_merged(reading: &Reading) -> BTreeMap<[String; 3], u64> {
    let mut pairs = BTreeMap::new();
    reading.each_pair(&Policy::default(), |labels, counts| {
        *pairs.entry(labels.map(str::to_owned)).or_default() += counts.latency.count();
    });
    pairs
}

#[test]
fn a_resolver_with_endless_servers_takes_no_more_than_their_labels() {
    let (metrics, mut counter) = metrics(DnsMetricsConfig::default());
    for number in 0..1_000 {
        count(&mut counter, &Sample { server_address: address(number), ..Sample::default() });
    }
    counter.publish();
    let reading = metrics.read();
    let series = series(&reading, &Policy::default());
    let others = labels(["", "~unattributed", OTHER, "A", "NOERROR", "udp", "matched"]);
    assert_eq!(series[&others], 1_000 - 64);
    assert_eq!((series.len(), reading.transactions()), (65, 1_000));
}

#[test]
fn types_and_codes_without_a_name_share_one_label() {
    let (metrics, mut counter) = metrics(DnsMetricsConfig::default());
    for qtype in 60_000..60_100 {
        count(&mut counter, &Sample { qtype, rcode: Some(3_000), ..Sample::default() });
    }
    counter.publish();
    let others = labels(["", "~unattributed", "192.0.2.53", OTHER, OTHER, "udp", "matched"]);
    assert_eq!(series(&metrics.read(), &Policy::default()), BTreeMap::from([(others, 100)]));
}

#[test]
fn latencies_timeouts_retries_truncations_conflicts_and_waste_are_counted() {
    let (metrics, mut counter) = metrics(DnsMetricsConfig::default());
    let usual = Sample { latency_ns: 100_000, ..Sample::default() };
    count(&mut counter, &usual);
    let resolver_ns = Some(300_000);
    count(&mut counter, &Sample { latency_ns: 100_001, resolver_ns, ..usual.clone() });
    count(&mut counter, &Sample { latency_ns: 6_000_000_000, query_count: 3, ..usual.clone() });
    count(&mut counter, &Sample { rcode: None, query_count: 2, ..usual.clone() });
    count(&mut counter, &Sample { is_truncated: true, is_winner: Some(false), ..usual.clone() });
    count(&mut counter, &Sample { is_conflicting: true, is_winner: Some(true), ..usual });
    counter.publish();
    let pairs = pairs(&metrics.read());
    let of = &pairs[&["", "~unattributed", "192.0.2.53"].map(str::to_owned)];
    let mut buckets = [0; 13];
    (buckets[0], buckets[1], buckets[12]) = (3, 1, 1);
    assert_eq!(of.latency, Latencies { buckets, sum_ns: 6_000_400_001 });
    let mut buckets = [0; 13];
    buckets[2] = 1;
    assert_eq!(of.resolver, Latencies { buckets, sum_ns: 300_000 });
    assert_eq!((of.timeouts, of.retries, of.truncated), (1, 3, 1));
    assert_eq!((of.conflicting, of.search_waste), (1, 1));
}

fn privacy(change: impl FnOnce(&mut PrivacyConfig)) -> Policy {
    let mut config = PrivacyConfig::default();
    change(&mut config);
    Policy::new(&config)
}

#[test]
fn addresses_and_names_are_shown_by_the_rules_at_the_reading() {
    let config = DnsMetricsConfig { names: true, clients: true, ..DnsMetricsConfig::default() };
    let (metrics, mut counter) = metrics(config);
    for number in [1, 2, 2] {
        count(
            &mut counter,
            &Sample {
                name: format!("{number}.2.0.192.in-addr.arpa"),
                rcode: Some(3),
                client_address: address(number),
                server_address: address(number),
                ..Sample::default()
            },
        );
    }
    counter.publish();
    let truncated = AddressRule::Truncate(PrefixLengths::default());
    let rules = privacy(|it| {
        it.server_address = truncated.clone();
        it.client_address = AddressRule::Drop;
        it.reverse_names = truncated;
    });
    let (reading, top) = (metrics.read(), metrics.read_top());
    let hidden = labels(["", "~unattributed", "10.0.0.0", "A", "NXDOMAIN", "udp", "matched"]);
    assert_eq!(series(&reading, &rules), BTreeMap::from([(hidden, 3)]));
    assert_eq!(series(&reading, &Policy::default()).len(), 2);
    let counter = |item: &str, count| Counter { item: item.to_owned(), count, error: 0 };
    assert_eq!(top.names(&rules), [counter("0.2.0.192.in-addr.arpa", 3)]);
    assert_eq!(top.nxdomain_names(&rules), [counter("0.2.0.192.in-addr.arpa", 3)]);
    assert_eq!(top.clients(&rules), [counter("~hidden", 3)]);
    let all = [counter("2.2.0.192.in-addr.arpa", 2), counter("1.2.0.192.in-addr.arpa", 1)];
    assert_eq!(top.names(&Policy::default()), all);
}

#[test]
fn names_and_clients_are_not_even_stored_unless_they_are_enabled() {
    let (metrics, mut counter) = metrics(DnsMetricsConfig::default());
    count(&mut counter, &Sample { rcode: Some(3), ..Sample::default() });
    counter.publish();
    let (top, all) = (metrics.read_top(), Policy::default());
    assert!(top.names(&all).is_empty() && top.nxdomain_names(&all).is_empty());
    assert!(top.clients(&all).is_empty());
}

#[test]
fn the_most_frequent_names_of_all_workers_are_shown_and_no_more() {
    let config = DnsMetricsConfig { names: true, top: 2, ..DnsMetricsConfig::default() };
    let (metrics, mut one) = metrics(config);
    let mut two = metrics.counter();
    for (name, here, there) in [("a.test", 1, 4), ("b.test", 3, 3), ("c.test", 2, 0)] {
        let sample = Sample { name: name.to_owned(), ..Sample::default() };
        (0..here).for_each(|_| count(&mut one, &sample));
        (0..there).for_each(|_| count(&mut two, &sample));
    }
    one.publish();
    two.publish();
    let counter = |item: &str, count| Counter { item: item.to_owned(), count, error: 0 };
    let top = metrics.read_top();
    assert_eq!(top.names(&Policy::default()), [counter("b.test", 6), counter("a.test", 5)]);
    assert_eq!(top.errors(), [("names", 0), ("nxdomain_names", 0), ("clients", 0)]);
}
