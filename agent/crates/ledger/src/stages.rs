//! The table of the ledger: every stage, and every term of its sum.
//!
//! A term is `field: type = fate, metric, help;`. With `always` after its fate, the text shows it even if
//! it is zero. The check, the text, JSON, summaries, metrics and the table in `docs/ledger.md` derive from
//! it, so a new term is one entry here and the line in `statement/fill.rs` that reads it. Fields of type
//! [`ByReason`] take every reason of the enum that their stage counts by.

use super::stage::{ByReason, ByStatus, stage};

stage! {
    /// Packets at a hook of the kernel, or at all hooks together.
    Hook "hooks" of "packets" {
        seen: u64 = Taken, Some("tap53_hook_packets_seen_total"),
            "Packets that the program at the hook saw.";
        captured: u64 = Passed always, Some("tap53_hook_packets_captured_total"),
            "Packets copied into a ring.";
        bytes_captured: u64 = Outside, Some("tap53_hook_captured_bytes_total"),
            "Bytes copied of captured packets.";
        truncated: u64 = Outside, Some("tap53_hook_packets_truncated_total"),
            "Captured packets that the snap length truncated.";
        ignored: ByReason = Ignored, Some("tap53_hook_packets_ignored_total"),
            "Packets that are not DNS to capture, by reason.";
        lost: ByReason = Lost, Some("tap53_hook_packets_lost_total"),
            "Packets that should have been captured and were not.";
    }
}

stage! {
    /// Packets between the hooks and the workers.
    Rings "rings" of "packets" {
        #[serde(skip)]
        captured: u64 = Taken, None, "Packets that all hooks captured.";
        #[serde(skip)]
        received: u64 = Passed always, None, "Packets that workers read from the rings.";
        in_rings: u64 = Waiting, Some("tap53_ring_packets"),
            "Packets in the rings, captured and not yet received by a worker.";
        abandoned: u64 = Lost, None,
            "At the end, packets in the rings or in unfinished batches of abandoned workers.";
    }
}

stage! {
    /// Packets at the workers.
    Packets "packets" of "packets" {
        received: u64 = Taken, Some("tap53_packets_received_total"),
            "Packets that workers read from the rings.";
        joined: u64 = Taken, Some("tap53_packets_joined_total"),
            "Datagrams reassembled from fragments, which enter beside the packets.";
        decoded: u64 = Passed always, Some("tap53_packets_decoded_total"),
            "Packets in which messages were found.";
        fragments: u64 = Passed, Some("tap53_packets_fragments_total"),
            "Packets that are fragments of datagrams.";
        ignored: ByReason = Ignored, Some("tap53_packets_ignored_total"),
            "Packets without a DNS message, by reason.";
        lost: ByReason = Lost, Some("tap53_packets_lost_total"),
            "Packets that could not be read, by reason.";
    }
}

stage! {
    /// Fragments in the reassembly of datagrams.
    Fragments "fragments" of "fragments" {
        received: u64 = Taken, Some("tap53_fragments_received_total"),
            "Fragments passed to reassembly.";
        joined: u64 = Passed always, Some("tap53_fragments_joined_total"),
            "Fragments that became part of a reassembled datagram.";
        waiting: u64 = Waiting, Some("tap53_fragments_waiting"),
            "Fragments that wait for the rest of their datagram.";
        ignored: ByReason = Ignored, Some("tap53_fragments_ignored_total"),
            "Fragments that are not needed, by reason.";
        lost: ByReason = Lost, Some("tap53_fragments_lost_total"),
            "Fragments of datagrams that were not reassembled, by reason.";
        datagrams: u64 = Outside, Some("tap53_datagrams_joined_total"),
            "Datagrams reassembled from fragments.";
        datagrams_lost: u64 = Outside, Some("tap53_datagrams_lost_total"),
            "Reassembled datagrams lost because the queue to their flow's worker was full or closed.";
    }
}

stage! {
    /// Bytes of TCP payload in the reassembly of streams.
    TcpBytes "tcp_bytes" of "bytes" {
        received: u64 = Taken, Some("tap53_tcp_received_bytes_total"),
            "Bytes of TCP payload received.";
        in_messages: u64 = Passed always, Some("tap53_tcp_in_messages_bytes_total"),
            "Bytes of TCP payload in messages.";
        waiting: u64 = Waiting, Some("tap53_tcp_waiting_bytes"),
            "Bytes of TCP payload that wait for the rest of their message.";
        ignored: ByReason = Ignored, Some("tap53_tcp_ignored_bytes_total"),
            "Bytes of TCP payload that are not needed, by reason.";
        lost: ByReason = Lost, Some("tap53_tcp_lost_bytes_total"),
            "Bytes of TCP payload that are in no message, by reason.";
        missing: u64 = Outside, Some("tap53_tcp_missing_bytes_total"),
            "Bytes missing from captured streams; not part of the sum.";
    }
}

stage! {
    /// DNS messages, until they are in records.
    Messages "messages" of "messages" {
        decoded: u64 = Taken, Some("tap53_messages_decoded_total"),
            "DNS messages found.";
        pending: u64 = Waiting always, Some("tap53_messages_pending"),
            "Messages in the pair tables: queries that wait for their response.";
        in_records: u64 = Passed always, Some("tap53_messages_in_records_total"),
            "Messages that are part of records.";
        ahead: u64 = Outside, None,
            "Messages in records that sinks received before their batch was counted.";
        filtered: ByReason = Filtered, Some("tap53_messages_filtered_total"),
            "Messages of transactions that a filter excluded, by reason.";
        ignored: ByReason = Ignored, Some("tap53_messages_ignored_total"),
            "Messages that another message already represents, by reason.";
        lost: ByReason = Lost, Some("tap53_messages_lost_total"),
            "Messages that are in no record, by reason.";
        flawed: ByStatus = Outside, Some("tap53_messages_flawed_total"),
            "Messages that could not be read completely, by the parse_status of their record; not part of the sum. WORK_LIMIT: crafted to cost more than their size warrants. NOT_DNS: another protocol.";
    }
}

stage! {
    /// Transactions, until they are records.
    Records "transactions" of "records" {
        created: u64 = Taken, Some("tap53_records_created_total"),
            "Transactions: each became a record or was excluded by a filter.";
        ahead: u64 = Outside, Some("tap53_records_ahead"),
            "Records that sinks received before the batch that contains them was counted as created.";
        filtered: ByReason = Filtered, Some("tap53_records_filtered_total"),
            "Transactions that a filter excluded, by reason.";
        last_numbers as "in_records": Vec<u64> = Passed always, None,
            "Number of each worker's last record: all from 1 on have been offered to the sinks.";
    }
}

stage! {
    /// Records at a sink, or the messages that they stand for.
    Deliveries "sink" of "records" {
        offered: u64 = Taken, Some("tap53_sink_records_offered_total"),
            "Records that the sink has accepted for delivery.";
        in_batches: u64 = Outside, Some("tap53_sink_records_in_batches"),
            "Records that the sink has not accepted yet: in batches of workers, or in the queue of a sink that may block.";
        delivered: u64 = Passed always, Some("tap53_sink_records_delivered_total"),
            "Records that are acknowledged, or written.";
        in_flight: u64 = Waiting, Some("tap53_sink_records_in_flight"),
            "Records accepted and not yet acknowledged.";
        carried: u64 = Taken, Some("tap53_sink_records_carried"),
            "Records that were in the spool when this run started. offered + carried = delivered + in flight + spooled + lost.";
        spooled: u64 = Waiting, Some("tap53_sink_records_spooled"),
            "Records in the spool that are not acknowledged yet.";
        lost: ByReason = Lost, Some("tap53_sink_records_lost_total"),
            "Records that the sink will not deliver, by reason.";
    }
}

stage! {
    /// Records that ever were in a sink's spool, over all runs, killed ones included; or the messages that
    /// they stand for.
    SpoolHistory "spool" of "records" {
        appended: u64 = Taken, None, "Records that were appended.";
        waiting: u64 = Waiting always, None, "Records that are not acknowledged yet.";
        arrived: u64 = Passed always, None, "Records that were acknowledged.";
        lost: ByReason = Lost, Some("tap53_spool_records_lost_total"),
            "Records lost in the spool, in this run and in earlier ones, including killed runs.";
    }
}

stage! {
    /// Summaries of the ledger at a sink.
    Summaries "summaries" of "summaries" {
        written: u64 = Taken, Some("tap53_summaries_written_total"),
            "Summaries of the ledger that this run created for the sink's summary topic.";
        carried: u64 = Taken, Some("tap53_summaries_carried"),
            "Summaries of earlier runs that waited when this one started. written + carried = delivered + waiting + lost.";
        delivered: u64 = Passed always, Some("tap53_summaries_delivered_total"),
            "Summaries that were acknowledged, including those of earlier runs.";
        waiting: u64 = Waiting, Some("tap53_summaries_waiting"),
            "Summaries that are not acknowledged yet.";
        lost: u64 = Lost, Some("tap53_summaries_lost_total"),
            "Summaries that were lost. Sums downstream stay right, because later summaries count from the start of the run.";
    }
}

#[cfg(test)]
pub(crate) mod tests;
