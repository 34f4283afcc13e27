//! From messages to records.

use super::{Counter, Family, Gauge, each};
use crate::pair::Anomaly;

pub(super) const FAMILIES: &[Family] = &[
    // Messages: decoded = pending + in records + filtered + ignored + lost.
    Family {
        name: "tap53_messages_decoded_total",
        kind: Counter,
        help: "DNS messages found.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.messages.decoded),
    },
    Family {
        name: "tap53_messages_pending",
        kind: Gauge,
        help: "Messages in the pair tables: queries that wait for their response.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.messages.pending),
    },
    Family {
        name: "tap53_messages_in_records_total",
        kind: Counter,
        help: "Messages that records stand for.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.messages.in_records),
    },
    Family {
        name: "tap53_messages_filtered_total",
        kind: Counter,
        help: "Messages of transactions that a filter left out.",
        labels: &["reason"],
        collect: |r, s| {
            each(&r.status.ledger.agent.messages.filtered, |reason, n| s.count(&[reason], n))
        },
    },
    Family {
        name: "tap53_messages_ignored_total",
        kind: Counter,
        help: "Messages that another message stands for.",
        labels: &["reason"],
        collect: |r, s| {
            each(&r.status.ledger.agent.messages.ignored, |reason, n| s.count(&[reason], n))
        },
    },
    Family {
        name: "tap53_messages_lost_total",
        kind: Counter,
        help: "Messages in no record.",
        labels: &["reason"],
        collect: |r, s| {
            each(&r.status.ledger.agent.messages.lost, |reason, n| s.count(&[reason], n))
        },
    },
    Family {
        name: "tap53_messages_flawed_total",
        kind: Counter,
        help: "Messages that could not be read whole, by the parse_status of their record; outside of the sum. WORK_LIMIT: made to cost more than their size warrants. NOT_DNS: of another protocol.",
        labels: &["parse_status"],
        collect: |r, s| {
            each(&r.status.ledger.agent.messages.flawed, |status, n| s.count(&[status], n))
        },
    },
    // Records: created + ahead = offered to each sink + in batches for it + filtered.
    Family {
        name: "tap53_records_created_total",
        kind: Counter,
        help: "Transactions: each a record, or left out by a filter.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.records.created),
    },
    Family {
        name: "tap53_records_ahead",
        kind: Gauge,
        help: "Records that sinks were handed before the batch that they come from is counted as created.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.records.ahead),
    },
    Family {
        name: "tap53_records_filtered_total",
        kind: Counter,
        help: "Transactions that a filter left out.",
        labels: &["reason"],
        collect: |r, s| {
            each(&r.status.ledger.agent.records.filtered, |reason, n| s.count(&[reason], n))
        },
    },
    Family {
        name: "tap53_anomalies_total",
        kind: Counter,
        help: "Records with a sign of tampering.",
        labels: &["kind"],
        collect: |r, s| {
            for kind in Anomaly::ALL {
                let records = r.workers.iter().map(|counts| counts.anomalies[kind as usize]).sum();
                s.count(&[&kind.name().to_lowercase()], records);
            }
        },
    },
];
