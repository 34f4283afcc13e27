//! What a worker does with what comes out of its ring.

use tap53_ebpf::record::RecordHeader;

use super::{Recorder, Shared};
use crate::{
    decode::{Content, Datagram, Origin, Packet, PacketLoss, TransportHeader, segment_messages},
    encode::{self, Clock},
    ledger::{MessageLoss, Published, WorkerCounts},
    pair::{Flow, Observation, Observed, Point, Table},
    sink::Named,
};

/// Everything behind the ring, or behind a capture file: packet to record.
pub struct Stages {
    pairing: Pairing,
    published: Published<WorkerCounts>,
}

/// Message to record.
struct Pairing {
    table: Table,
    recorder: Recorder,
    counts: WorkerCounts,
    /// Whether messages carry the bytes that they were read from.
    wire_bytes: bool,
    /// Whether each message makes a record of its own.
    alone: bool,
    /// Messages are read into these. Two, so that the large buffers of responses stay here when a
    /// query's are swapped into the table.
    query: Observation,
    response: Observation,
}

impl Stages {
    /// # Errors
    /// When an encoder cannot be made.
    pub fn new(
        table: Table,
        sinks: &[Named],
        shared: &Shared,
        clock: Clock,
    ) -> Result<Self, encode::Error> {
        let pairing = Pairing {
            table,
            recorder: Recorder::new(sinks, shared, clock)?,
            counts: WorkerCounts::default(),
            wire_bytes: shared.wire_bytes,
            alone: shared.each_message,
            query: Observation::default(),
            response: Observation::default(),
        };
        Ok(Self { pairing, published: Published::default() })
    }

    /// Where the counts are published.
    #[must_use]
    pub fn counts(&self) -> Published<WorkerCounts> {
        self.published.clone()
    }

    /// Sets how capture times become UTC from now on.
    pub const fn set_clock(&mut self, clock: Clock) {
        self.pairing.recorder.set_clock(clock);
    }

    /// Names an interface in the records from now on.
    pub fn name_interface(&mut self, ifindex: u32, name: &str) {
        self.pairing.recorder.name_interface(ifindex, name);
    }

    /// Names the replayed file in the records from now on.
    pub fn name_file(&mut self, name: &str) {
        self.pairing.recorder.name_file(name);
    }

    /// Takes note of the ring's loss count as of `at_ns`.
    pub const fn note_ring_lost(&mut self, ring_lost: u32, at_ns: u64) {
        self.pairing.table.note_ring_lost(ring_lost, at_ns);
    }

    /// Takes in one ring record; returns when it was captured, CLOCK_MONOTONIC nanoseconds, or
    /// `None` where that cannot be told.
    pub fn take(&mut self, item: &[u8]) -> Option<u64> {
        let Some((header, bytes)) = RecordHeader::split(item) else {
            self.pairing.counts.packets_received += 1;
            self.pairing.counts.packets_lost[PacketLoss::RecordMismatch as usize] += 1;
            return None;
        };
        self.note_ring_lost(header.ring_lost, header.captured_at_ns);
        self.take_packet(&header, bytes, 0);
        Some(header.captured_at_ns)
    }

    /// Takes in one captured packet, of the frame with this number in a replayed file, or 0.
    pub fn take_packet(&mut self, header: &RecordHeader, bytes: &[u8], frame: u64) {
        self.pairing.counts.packets_received += 1;
        let decoded = Packet::parse(header, bytes, frame).and_then(|packet| self.decode(&packet));
        match decoded {
            Ok(()) => self.pairing.counts.packets_decoded += 1,
            Err(reason) => {
                self.pairing.counts.packets_lost[reason as usize] += 1;
                if !reason.is_ignored()
                    && let Some(flow) = Packet::flow(header, bytes)
                {
                    self.pairing.table.note_unreadable(flow, header.captured_at_ns);
                }
            }
        }
    }

    fn decode(&mut self, packet: &Packet<'_>) -> Result<(), PacketLoss> {
        match &packet.content {
            Content::Datagram(datagram) => self.datagram(&packet.origin, datagram),
            Content::Fragment(_) => Err(PacketLoss::Fragment),
        }
    }

    fn datagram(&mut self, origin: &Origin, datagram: &Datagram<'_>) -> Result<(), PacketLoss> {
        let flow = origin.flow(datagram);
        match datagram.header {
            TransportHeader::Udp { gso_size } => {
                if datagram.payload.len() < crate::decode::Message::HEADER_SIZE {
                    return Err(PacketLoss::ShorterThanHeader);
                }
                let size = match gso_size {
                    0 => datagram.payload.len(),
                    size => size.into(),
                };
                for wire in datagram.payload.chunks(size) {
                    self.pairing.message(origin, flow, wire);
                }
            }
            TransportHeader::Tcp { .. } => {
                for wire in segment_messages(datagram.payload)? {
                    self.pairing.message(origin, flow, wire);
                }
            }
        }
        Ok(())
    }

    /// Records the queries whose time ran out at `now_ns`.
    pub fn expire(&mut self, now_ns: u64) {
        let Pairing { table, recorder, counts, .. } = &mut self.pairing;
        while let Some(transaction) = table.expire(now_ns) {
            recorder.record(&transaction, counts);
        }
    }

    /// Hands the batches to their sinks and publishes the counts.
    pub fn deliver(&mut self) {
        self.pairing.recorder.deliver();
        self.pairing.counts.messages_pending = self.pairing.table.pending_messages();
        self.published.publish(self.pairing.counts);
    }

    /// The end of capture: what still waits for a response is recorded as it stands.
    pub fn finish(mut self) {
        let Pairing { table, recorder, counts, .. } = &mut self.pairing;
        while let Some(transaction) = table.drain() {
            recorder.record(&transaction, counts);
        }
        self.deliver();
    }
}

impl Pairing {
    /// Takes in a message that was sent along `sent`.
    fn message(&mut self, origin: &Origin, sent: Flow, wire: &[u8]) {
        // QR, RFC 1035 §4.1.1.
        let response = wire.get(2).is_some_and(|flags| flags & 0x80 != 0);
        let (seen, flow) = if response {
            (&mut self.response, Flow { client: sent.server, server: sent.client, ..sent })
        } else {
            (&mut self.query, sent)
        };
        self.counts.messages_decoded += 1;
        if !seen.message.read(wire) {
            self.counts.messages_lost[MessageLoss::ShorterThanHeader as usize] += 1;
            return;
        }
        seen.at_ns = origin.captured_at_ns;
        seen.point = Point { ifindex: origin.ifindex, direction: origin.direction };
        seen.frame = origin.frame;
        seen.vlan_ids = [origin.vlan_id, origin.vlan_inner_id];
        seen.vlan_visible = origin.vlan_visible;
        seen.wire.clear();
        if self.wire_bytes {
            seen.wire.extend_from_slice(wire);
        }
        if self.alone {
            self.recorder.record(&self.table.alone(flow, seen), &mut self.counts);
            return;
        }
        match self.table.observe(flow, seen, wire) {
            Observed::Waits { evicted } => {
                self.counts.messages_lost[MessageLoss::PairTableFull as usize] += evicted;
            }
            Observed::Repeated => {}
            Observed::Copy => self.counts.messages_lost[MessageLoss::Copy as usize] += 1,
            Observed::Done(transaction) => {
                self.recorder.record(&transaction, &mut self.counts);
            }
        }
    }
}

#[cfg(test)]
mod tests;
