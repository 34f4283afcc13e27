//! What the kernel programs counted.

use super::{Counter, Family, each, each_hook};

pub(super) const FAMILIES: &[Family] = &[
    // Hooks: seen = captured + ignored + lost.
    Family {
        name: "tap53_hook_packets_seen_total",
        kind: Counter,
        help: "Packets that the program at the hook saw.",
        labels: &["interface", "direction"],
        collect: |r, s| each_hook(r, |of, hook| s.count(&of, hook.seen)),
    },
    Family {
        name: "tap53_hook_packets_captured_total",
        kind: Counter,
        help: "Packets copied into a ring.",
        labels: &["interface", "direction"],
        collect: |r, s| each_hook(r, |of, hook| s.count(&of, hook.captured)),
    },
    Family {
        name: "tap53_hook_captured_bytes_total",
        kind: Counter,
        help: "Bytes copied of captured packets.",
        labels: &["interface", "direction"],
        collect: |r, s| each_hook(r, |of, hook| s.count(&of, hook.bytes_captured)),
    },
    Family {
        name: "tap53_hook_packets_truncated_total",
        kind: Counter,
        help: "Captured packets that the snap length truncated.",
        labels: &["interface", "direction"],
        collect: |r, s| each_hook(r, |of, hook| s.count(&of, hook.truncated)),
    },
    Family {
        name: "tap53_hook_packets_ignored_total",
        kind: Counter,
        help: "Packets that are not DNS to capture, by reason.",
        labels: &["interface", "direction", "reason"],
        collect: |r, s| {
            each_hook(r, |[i, d], hook| {
                each(&hook.ignored, |reason, n| s.count(&[i, d, reason], n))
            })
        },
    },
    Family {
        name: "tap53_hook_packets_lost_total",
        kind: Counter,
        help: "Packets that should have been captured and were not.",
        labels: &["interface", "direction", "reason"],
        collect: |r, s| {
            each_hook(r, |[i, d], hook| each(&hook.lost, |reason, n| s.count(&[i, d, reason], n)))
        },
    },
];
