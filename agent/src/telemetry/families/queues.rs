//! Length and capacity of each queue.

use super::{Counter, Family, Gauge, each_state};
use crate::worker::QUEUED;

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "tap53_ring_used_bytes",
        kind: Gauge,
        help: "Bytes in the ring that its worker has not read yet.",
        labels: &["worker"],
        collect: |r, s| {
            for worker in &r.path.workers {
                if let Some(ring) = &worker.ring {
                    s.count(&[&worker.number.to_string()], ring.bytes());
                }
            }
        },
    },
    Family {
        name: "tap53_ring_size_bytes",
        kind: Gauge,
        help: "Bytes that the ring can hold.",
        labels: &["worker"],
        collect: |r, s| {
            for worker in &r.path.workers {
                if let Some(ring) = &worker.ring {
                    s.count(&[&worker.number.to_string()], ring.size_bytes().into());
                }
            }
        },
    },
    Family {
        name: "tap53_handover_datagrams",
        kind: Gauge,
        help: "Reassembled datagrams in the queue from other workers.",
        labels: &["worker"],
        collect: |r, s| {
            for worker in &r.path.workers {
                let waiting = worker.datagrams_waiting.datagrams() as u64;
                s.count(&[&worker.number.to_string()], waiting);
            }
        },
    },
    Family {
        name: "tap53_handover_datagrams_limit",
        kind: Gauge,
        help: "Reassembled datagrams that the queue of a worker can hold.",
        labels: &[],
        collect: |_, s| s.count(&[], QUEUED as u64),
    },
    Family {
        name: "tap53_pair_queries",
        kind: Gauge,
        help: "Queries in the table of a worker that wait for a response.",
        labels: &["worker"],
        collect: |r, s| {
            for (worker, counts) in r.path.workers.iter().zip(&r.workers) {
                s.count(&[&worker.number.to_string()], counts.queries_pending);
            }
        },
    },
    Family {
        name: "tap53_pair_queries_evicted_total",
        kind: Counter,
        help: "Queries recorded as unanswered, with capture_gap, because the table of a worker, or one key of it, was full.",
        labels: &["worker"],
        collect: |r, s| {
            for (worker, counts) in r.path.workers.iter().zip(&r.workers) {
                s.count(&[&worker.number.to_string()], counts.queries_evicted);
            }
        },
    },
    Family {
        name: "tap53_transactions_held",
        kind: Gauge,
        help: "Transactions that wait for the name of a pod, or for the chain behind their answer.",
        labels: &["worker"],
        collect: |r, s| {
            for (worker, counts) in r.path.workers.iter().zip(&r.workers) {
                s.count(&[&worker.number.to_string()], counts.transactions_held);
            }
        },
    },
    Family {
        name: "tap53_tcp_streams",
        kind: Gauge,
        help: "TCP connections that a worker follows.",
        labels: &["worker"],
        collect: |r, s| {
            for (worker, counts) in r.path.workers.iter().zip(&r.workers) {
                s.count(&[&worker.number.to_string()], counts.streams.streams);
            }
        },
    },
    Family {
        name: "tap53_sink_spool_limit_bytes",
        kind: Gauge,
        help: "Limit of the spool's size in bytes; absent without a spool.",
        labels: &["sink"],
        collect: |r, s| {
            each_state(r, |of, state| {
                if let Some(spool) = &state.spool {
                    s.count(&[of], spool.limit_bytes);
                }
            })
        },
    },
    Family {
        name: "tap53_sink_spool_oldest_timestamp_seconds",
        kind: Gauge,
        help: "When the oldest record in the spool was stored, seconds since 1970 UTC; absent while the spool is empty.",
        labels: &["sink"],
        collect: |r, s| {
            each_state(r, |of, state| {
                let oldest_at_ms = state.spool.as_ref().and_then(|spool| spool.oldest_at_ms);
                if let Some(at_ms) = oldest_at_ms {
                    s.measure(&[of], at_ms as f64 / 1e3);
                }
            })
        },
    },
    Family {
        name: "tap53_sink_reports_waiting",
        kind: Gauge,
        help: "Delivery reports and returned records that the spool's thread has not processed yet.",
        labels: &["sink"],
        collect: |r, s| {
            each_state(r, |of, state| {
                if let Some(spool) = &state.spool {
                    s.count(&[of], spool.reports_waiting as u64);
                }
            })
        },
    },
    Family {
        name: "tap53_follower_waiting_bytes",
        kind: Gauge,
        help: "Bytes of lines that followers have not read yet.",
        labels: &[],
        collect: |r, s| s.count(&[], r.follower_bytes as u64),
    },
];
