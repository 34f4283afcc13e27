//! From the rings to messages.

use super::{Counter, Family, Gauge, each};

pub(super) const FAMILIES: &[Family] = &[
    // Packets: received + joined = decoded + fragments + ignored + lost.
    Family {
        name: "tap53_ring_packets",
        kind: Gauge,
        help: "Packets in the rings, captured and not yet received by a worker.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.packets.in_rings),
    },
    Family {
        name: "tap53_packets_received_total",
        kind: Counter,
        help: "Packets that workers read from the rings.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.packets.received),
    },
    Family {
        name: "tap53_packets_joined_total",
        kind: Counter,
        help: "Datagrams reassembled from fragments, which enter beside the packets.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.packets.joined),
    },
    Family {
        name: "tap53_packets_decoded_total",
        kind: Counter,
        help: "Packets in which messages were found.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.packets.decoded),
    },
    Family {
        name: "tap53_packets_fragments_total",
        kind: Counter,
        help: "Packets that are fragments of datagrams.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.packets.fragments),
    },
    Family {
        name: "tap53_packets_ignored_total",
        kind: Counter,
        help: "Packets without a DNS message, by reason.",
        labels: &["reason"],
        collect: |r, s| {
            each(&r.status.ledger.agent.packets.ignored, |reason, n| s.count(&[reason], n))
        },
    },
    Family {
        name: "tap53_packets_lost_total",
        kind: Counter,
        help: "Packets that could not be read, by reason.",
        labels: &["reason"],
        collect: |r, s| {
            each(&r.status.ledger.agent.packets.lost, |reason, n| s.count(&[reason], n))
        },
    },
    // Fragments: received = joined + waiting + ignored + lost.
    Family {
        name: "tap53_fragments_received_total",
        kind: Counter,
        help: "Fragments passed to reassembly.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.fragments.received),
    },
    Family {
        name: "tap53_fragments_joined_total",
        kind: Counter,
        help: "Fragments that became part of a reassembled datagram.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.fragments.joined),
    },
    Family {
        name: "tap53_fragments_waiting",
        kind: Gauge,
        help: "Fragments that wait for the rest of their datagram.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.fragments.waiting),
    },
    Family {
        name: "tap53_fragments_ignored_total",
        kind: Counter,
        help: "Duplicate fragments.",
        labels: &["reason"],
        collect: |r, s| {
            each(&r.status.ledger.agent.fragments.ignored, |reason, n| s.count(&[reason], n))
        },
    },
    Family {
        name: "tap53_fragments_lost_total",
        kind: Counter,
        help: "Fragments of datagrams that were not reassembled, by reason.",
        labels: &["reason"],
        collect: |r, s| {
            each(&r.status.ledger.agent.fragments.lost, |reason, n| s.count(&[reason], n))
        },
    },
    Family {
        name: "tap53_datagrams_joined_total",
        kind: Counter,
        help: "Datagrams reassembled from fragments.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.fragments.datagrams),
    },
    Family {
        name: "tap53_datagrams_lost_total",
        kind: Counter,
        help: "Reassembled datagrams lost because the queue to their flow's worker was full or closed.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.fragments.datagrams_lost),
    },
    // TCP: received = in messages + waiting + ignored + lost.
    Family {
        name: "tap53_tcp_received_bytes_total",
        kind: Counter,
        help: "Bytes of TCP payload received.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.tcp_bytes.received),
    },
    Family {
        name: "tap53_tcp_in_messages_bytes_total",
        kind: Counter,
        help: "Bytes of TCP payload in messages.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.tcp_bytes.in_messages),
    },
    Family {
        name: "tap53_tcp_waiting_bytes",
        kind: Gauge,
        help: "Bytes of TCP payload that wait for the rest of their message.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.tcp_bytes.waiting),
    },
    Family {
        name: "tap53_tcp_ignored_bytes_total",
        kind: Counter,
        help: "Bytes of TCP payload that are not needed, by reason.",
        labels: &["reason"],
        collect: |r, s| {
            each(&r.status.ledger.agent.tcp_bytes.ignored, |reason, n| s.count(&[reason], n))
        },
    },
    Family {
        name: "tap53_tcp_lost_bytes_total",
        kind: Counter,
        help: "Bytes of TCP payload that are in no message, by reason.",
        labels: &["reason"],
        collect: |r, s| {
            each(&r.status.ledger.agent.tcp_bytes.lost, |reason, n| s.count(&[reason], n))
        },
    },
    Family {
        name: "tap53_tcp_missing_bytes_total",
        kind: Counter,
        help: "Bytes missing from captured streams; not part of the sum.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.tcp_bytes.missing),
    },
];
