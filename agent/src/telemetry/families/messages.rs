//! From messages to records.

use tap53_transactions::pair::Anomaly;

use super::{Counter, Family, Gauge, each};

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
        help: "Messages that are part of records.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.messages.in_records),
    },
    Family {
        name: "tap53_messages_filtered_total",
        kind: Counter,
        help: "Messages of transactions that a filter excluded, by reason.",
        labels: &["reason"],
        collect: |r, s| {
            each(&r.status.ledger.agent.messages.filtered, |reason, n| s.count(&[reason], n))
        },
    },
    Family {
        name: "tap53_messages_ignored_total",
        kind: Counter,
        help: "Messages that another message already represents, by reason.",
        labels: &["reason"],
        collect: |r, s| {
            each(&r.status.ledger.agent.messages.ignored, |reason, n| s.count(&[reason], n))
        },
    },
    Family {
        name: "tap53_messages_lost_total",
        kind: Counter,
        help: "Messages that are in no record, by reason.",
        labels: &["reason"],
        collect: |r, s| {
            each(&r.status.ledger.agent.messages.lost, |reason, n| s.count(&[reason], n))
        },
    },
    Family {
        name: "tap53_messages_flawed_total",
        kind: Counter,
        help: "Messages that could not be read completely, by the parse_status of their record; not part of the sum. WORK_LIMIT: crafted to cost more than their size warrants. NOT_DNS: another protocol.",
        labels: &["parse_status"],
        collect: |r, s| {
            each(&r.status.ledger.agent.messages.flawed, |status, n| s.count(&[status], n))
        },
    },
    // Records: created + ahead = offered to each sink + in batches for it + filtered.
    Family {
        name: "tap53_records_created_total",
        kind: Counter,
        help: "Transactions: each became a record or was excluded by a filter.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.records.created),
    },
    Family {
        name: "tap53_records_ahead",
        kind: Gauge,
        help: "Records that sinks received before the batch that contains them was counted as created.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.records.ahead),
    },
    Family {
        name: "tap53_records_filtered_total",
        kind: Counter,
        help: "Transactions that a filter excluded, by reason.",
        labels: &["reason"],
        collect: |r, s| {
            each(&r.status.ledger.agent.records.filtered, |reason, n| s.count(&[reason], n))
        },
    },
    Family {
        name: "tap53_anomalies_total",
        kind: Counter,
        help: "Records with a sign of tampering, by kind.",
        labels: &["kind"],
        collect: |r, s| {
            for kind in Anomaly::ALL {
                let records = r.workers.iter().map(|counts| counts.anomalies[kind as usize]).sum();
                s.count(&[&kind.name().to_lowercase()], records);
            }
        },
    },
];
