//! The DNS itself, see [`tap53_insight`]: transactions, latencies, names.

use tap53_insight::{BOUNDS_NS, Counter as TopCounter, Latencies, PairCounts};

use super::{Counter, Family, Gauge, Kind, Reading};
use crate::telemetry::text::Series;

/// Labels of a client and a server.
const PAIR: &[&str] = &["client_namespace", "client_workload", "server"];

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "tap53_dns_transactions_total",
        kind: Counter,
        help: "Transactions: records, and what record.keep leaves out. The sum over all series is tap53_records_created_total less the sum of tap53_records_filtered_total with other reasons than not_kept. What exceeds dns_metrics.max_series has the labels ~other.",
        labels: &[
            "client_namespace",
            "client_workload",
            "server",
            "qtype",
            "rcode",
            "transport",
            "outcome",
        ],
        collect: |r, s| {
            if let Some(dns) = &r.status.dns {
                dns.each_series(r.policy, |labels, count| s.count(&labels, count));
            }
        },
    },
    Family {
        name: "tap53_dns_latency_seconds",
        kind: Kind::Histogram,
        help: "Time from the first query of a transaction to its response.",
        labels: PAIR,
        collect: |r, s| histogram(r, s, |pair| &pair.latency),
    },
    Family {
        name: "tap53_dns_resolver_seconds",
        kind: Kind::Histogram,
        help: "Time that a resolver spent itself, without its upstream servers, where the chain behind its answer is known; empty unless chains are enabled.",
        labels: PAIR,
        collect: |r, s| histogram(r, s, |pair| &pair.resolver),
    },
    Family {
        name: "tap53_dns_timeouts_total",
        kind: Counter,
        help: "Queries without a response.",
        labels: PAIR,
        collect: |r, s| count(r, s, |pair| pair.timeouts),
    },
    Family {
        name: "tap53_dns_retries_total",
        kind: Counter,
        help: "Queries that the client repeated while it waited for the response.",
        labels: PAIR,
        collect: |r, s| count(r, s, |pair| pair.retries),
    },
    Family {
        name: "tap53_dns_truncated_responses_total",
        kind: Counter,
        help: "Truncated responses.",
        labels: PAIR,
        collect: |r, s| count(r, s, |pair| pair.truncated),
    },
    Family {
        name: "tap53_dns_conflicting_responses_total",
        kind: Counter,
        help: "Responses that contradict an earlier one to the same query.",
        labels: PAIR,
        collect: |r, s| count(r, s, |pair| pair.conflicting),
    },
    Family {
        name: "tap53_dns_search_waste_total",
        kind: Counter,
        help: "Queries of a search list whose name was not the one that the lookup ended with; 0 unless chains are enabled.",
        labels: PAIR,
        collect: |r, s| count(r, s, |pair| pair.search_waste),
    },
    Family {
        name: "tap53_dns_series",
        kind: Gauge,
        help: "Series of transactions, pairs of client and server, and servers that have labels of their own.",
        labels: &["of"],
        collect: |r, s| {
            for usage in r.status.dns.iter().flat_map(|dns| dns.usage()) {
                s.count(&[usage.of], usage.used as u64);
            }
        },
    },
    Family {
        name: "tap53_dns_series_limit",
        kind: Gauge,
        help: "Maximum of tap53_dns_series; what comes later is counted as ~other.",
        labels: &["of"],
        collect: |r, s| {
            for usage in r.status.dns.iter().flat_map(|dns| dns.usage()) {
                s.count(&[usage.of], usage.limit as u64);
            }
        },
    },
    Family {
        name: "tap53_dns_top_name_transactions",
        kind: Gauge,
        help: "Records of the most frequent names since the start, at most tap53_dns_top_error too many; empty unless dns_metrics.names is set.",
        labels: &["name"],
        collect: |r, s| top(s, &r.dns_top.names(r.policy)),
    },
    Family {
        name: "tap53_dns_top_nxdomain_name_transactions",
        kind: Gauge,
        help: "The same of names that do not exist.",
        labels: &["name"],
        collect: |r, s| top(s, &r.dns_top.nxdomain_names(r.policy)),
    },
    Family {
        name: "tap53_dns_top_client_transactions",
        kind: Gauge,
        help: "The same of clients' addresses; empty unless dns_metrics.clients is set.",
        labels: &["client"],
        collect: |r, s| top(s, &r.dns_top.clients(r.policy)),
    },
    Family {
        name: "tap53_dns_top_error",
        kind: Gauge,
        help: "By how much the numbers of a list of most frequent names or clients may be too large.",
        labels: &["list"],
        collect: |r, s| {
            for (list, error) in r.dns_top.errors() {
                s.count(&[list], error);
            }
        },
    },
];

/// Adds a counter of each pair of client and server.
fn count(reading: &Reading<'_>, series: &mut Series, of: fn(&PairCounts) -> u64) {
    if let Some(dns) = &reading.status.dns {
        dns.each_pair(reading.policy, |labels, pair| series.count(&labels, of(pair)));
    }
}

/// Adds a histogram of each pair of client and server that has observations.
fn histogram(reading: &Reading<'_>, series: &mut Series, of: fn(&PairCounts) -> &Latencies) {
    let Some(dns) = &reading.status.dns else { return };
    dns.each_pair(reading.policy, |labels, pair| {
        let Latencies { buckets, sum_ns } = of(pair);
        if of(pair).count() > 0 {
            series.observations(&labels, BOUNDS_NS, buckets, *sum_ns);
        }
    });
}

fn top(series: &mut Series, counters: &[TopCounter<String>]) {
    for counter in counters {
        series.count(&[&counter.item], counter.count);
    }
}
