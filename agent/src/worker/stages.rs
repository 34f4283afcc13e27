//! What a worker does with what comes out of its ring.

use std::{net::SocketAddr, sync::Arc};

use tap53_capture::interfaces::Names;
use tap53_dns::{
    Content, Datagram, Flow, Message, Origin, Packet, PacketLoss, ParseStatus, Transport,
    TransportHeader,
    fragments::{self, FragmentEvent, Fragments},
    stream::{self, Segment, StreamEvent, StreamLoss, Streams},
};
use tap53_ebpf::{headers, record::RecordHeader};
use tap53_ledger::{MessageLoss, Published, WorkerCounts};
use tap53_reasons::Fate;
use tap53_records::encode::{self, Clock};
use tap53_sinks::Named;
use tap53_transactions::pair::{Observation, Observed, Point, RecordIds, Table};

use super::{
    Recorder, Shared,
    handover::{CrossWorkerQueue, Reassembled, Waiting},
};

/// Everything behind the ring, or behind a capture file: packet to record.
pub struct Stages {
    fragments: Fragments,
    handover: CrossWorkerQueue,
    datagrams: Datagrams,
    published: Published<WorkerCounts>,
}

/// Datagram to record.
struct Datagrams {
    streams: Streams<Origin>,
    pairing: Pairing,
}

/// Message to record.
struct Pairing {
    table: Table,
    interfaces: Arc<Names>,
    /// Version of `interfaces` that `table` knows of.
    interfaces_version: u64,
    recorder: Recorder,
    counts: WorkerCounts,
    /// Whether messages carry the bytes that they were read from.
    wire_bytes: bool,
    /// Whether each message makes a record of its own.
    alone: bool,
    /// Messages are read into these. Two, so that the large buffers of responses stay here when a
    /// query goes into the table.
    query: Box<Observation>,
    response: Box<Observation>,
    /// When the latest datagram was captured.
    last_at_ns: u64,
}

impl Stages {
    /// # Errors
    /// When an encoder cannot be made.
    pub fn new(
        table: Table,
        sinks: &[Named],
        shared: &Shared,
        handover: CrossWorkerQueue,
        clock: Clock,
    ) -> Result<Self, encode::Error> {
        let published = Published::default();
        let pairing = Pairing {
            recorder: Recorder::new(sinks, shared, table.ids(), clock, published.clone())?,
            table,
            interfaces: shared.interfaces.clone(),
            interfaces_version: 0,
            counts: WorkerCounts::default(),
            wire_bytes: shared.wire_bytes,
            alone: shared.each_message,
            query: Box::default(),
            response: Box::default(),
            last_at_ns: 0,
        };
        Ok(Self {
            fragments: fragments::Config::default().build(),
            handover,
            datagrams: Datagrams { streams: stream::Config::default().build(), pairing },
            published,
        })
    }

    /// Where the counts are published.
    #[must_use]
    pub fn published(&self) -> Published<WorkerCounts> {
        self.published.clone()
    }

    /// Datagrams from other workers that wait to be taken in.
    pub(super) fn datagrams_waiting(&self) -> Waiting {
        self.handover.waiting()
    }

    /// Sets how capture times become UTC from now on, takes in who has which address by now and rules
    /// that have changed, and looks who follows.
    pub fn begin_batch(&mut self, clock: Clock) {
        self.datagrams.pairing.recorder.begin_batch(clock);
        self.datagrams.pairing.learn_switches();
    }

    /// Names an interface in the records from now on.
    pub fn name_interface(&mut self, ifindex: u32, name: &str) {
        self.datagrams.pairing.recorder.name_interface(ifindex, name);
    }

    /// Names the next replayed file.
    pub fn name_file(&mut self, name: &str) {
        self.datagrams.pairing.recorder.name_file(name);
    }

    /// Takes note of the ring's loss count as of `at_ns`.
    pub const fn note_ring_lost(&mut self, ring_lost: u32, at_ns: u64) {
        self.datagrams.pairing.table.note_ring_lost(ring_lost, at_ns);
    }

    /// Takes in one ring record; returns when it was captured, CLOCK_MONOTONIC nanoseconds, or
    /// `None` where that cannot be told.
    pub fn take(&mut self, item: &[u8]) -> Option<u64> {
        let Some((header, bytes)) = RecordHeader::split(item) else {
            self.datagrams.pairing.counts.packets_received += 1;
            self.datagrams.pairing.counts.packets_lost[PacketLoss::RecordMismatch as usize] += 1;
            return None;
        };
        self.note_ring_lost(header.ring_lost, header.captured_at_ns);
        self.take_packet(&header, bytes, 0);
        Some(header.captured_at_ns)
    }

    /// Takes in one captured packet, of this frame in a replayed file (see
    /// [`tap53_dns::frames`]), or 0.
    pub fn take_packet(&mut self, header: &RecordHeader, bytes: &[u8], frame: u64) {
        self.datagrams.pairing.counts.packets_received += 1;
        // By reference: a packet that is moved out of its result is copied piece by piece.
        let taken = match &Packet::parse(header, bytes, frame) {
            Ok(packet) => self.packet(packet),
            Err(reason) => Err(*reason),
        };
        if let Err(reason) = taken {
            self.datagrams.pairing.counts.packets_lost[reason as usize] += 1;
            if reason.fate() == Fate::Lost
                && let Some(flow) = Packet::flow(header, bytes)
            {
                self.datagrams.pairing.table.note_unreadable(flow, header.captured_at_ns);
            }
        }
    }

    fn packet(&mut self, packet: &Packet<'_>) -> Result<(), PacketLoss> {
        let part = match &packet.content {
            Content::Datagram(datagram) => {
                return self.datagrams.datagram(&packet.origin, datagram);
            }
            Content::Fragment(part) => part,
        };
        self.datagrams.pairing.counts.packets_in_fragments += 1;
        let Self { fragments, handover, datagrams, .. } = self;
        fragments.fragment(&packet.origin, part, |event| match event {
            FragmentEvent::Datagram { origin, protocol, bytes } => {
                let datagram = Datagram::after_extensions(protocol, bytes);
                let home =
                    datagram.ok().and_then(|datagram| handover.elsewhere(&origin.flow(&datagram)));
                let Some(worker) = home else {
                    return datagrams.joined(&origin, protocol, bytes);
                };
                let joined = Reassembled { origin, protocol, bytes: bytes.to_vec() };
                if !handover.send(worker, joined) {
                    datagrams.pairing.counts.datagrams_not_handed_over += 1;
                }
            }
            FragmentEvent::Loss { .. } => datagrams.pairing.fragment_loss(&event),
        });
        Ok(())
    }

    /// Takes in the datagrams that other workers have joined for this one.
    pub(super) fn receive(&mut self) {
        while let Some(Reassembled { origin, protocol, bytes }) = self.handover.receive() {
            self.datagrams.joined(&origin, protocol, &bytes);
        }
    }

    /// Gives up what has waited too long at `now_ns`: fragments, gaps in streams, and queries, which
    /// are recorded.
    pub fn expire(&mut self, now_ns: u64) {
        let Datagrams { streams, pairing } = &mut self.datagrams;
        self.fragments.expire(now_ns, |event| pairing.fragment_loss(&event));
        streams.expire(now_ns, |event| pairing.stream_event(event));
        let Pairing { table, recorder, counts, .. } = pairing;
        while let Some(transaction) = table.expire(now_ns) {
            recorder.record(&transaction, counts);
        }
        recorder.release(now_ns, counts);
    }

    /// Publishes the counts and hands the batches to their sinks.
    pub fn deliver(&mut self) {
        let Datagrams { streams, pairing } = &mut self.datagrams;
        let held = pairing.recorder.held_messages();
        pairing.counts.messages_pending = pairing.table.pending_messages() + held;
        pairing.counts.queries_pending = pairing.table.pending_queries() as u64;
        pairing.counts.transactions_held = pairing.recorder.held() as u64;
        pairing.counts.fragments = self.fragments.counts();
        pairing.counts.streams = streams.counts();
        pairing.recorder.deliver(pairing.counts);
    }

    /// Whether nothing waits for its time as of the last [`deliver`](Self::deliver): a query for its
    /// response, a fragment or a gap in a stream for what is missing, a record for a name.
    pub(super) const fn is_quiet(&self) -> bool {
        let counts = &self.datagrams.pairing.counts;
        counts.messages_pending == 0
            && counts.queries_pending == 0
            && counts.transactions_held == 0
            && counts.fragments.waiting == 0
            && counts.streams.bytes_waiting == 0
    }

    /// The end of capture: what still waits for a response is recorded as it stands.
    pub fn finish(mut self) {
        let handover = std::mem::replace(&mut self.handover, CrossWorkerQueue::single_worker());
        handover.end(|joined| {
            self.datagrams.joined(&joined.origin, joined.protocol, &joined.bytes);
        });
        self.drain();
        self.deliver();
    }

    /// The end of one capture and the beginning of another, whose times do not go on from it: what
    /// waits is recorded as it stands. Everything else goes on, so this costs no more than what
    /// waited, and a `table` that is empty.
    pub fn restart(&mut self, table: impl FnOnce(RecordIds) -> Table) {
        self.drain();
        let Datagrams { streams, pairing } = &mut self.datagrams;
        self.fragments.restart();
        streams.restart();
        pairing.last_at_ns = 0;
        pairing.table = table(pairing.table.ids());
        // The new table knows of no interface.
        pairing.interfaces_version = 0;
    }

    /// Records what still waits for a response, or for a name, as it stands.
    fn drain(&mut self) {
        let Datagrams { streams, pairing } = &mut self.datagrams;
        self.fragments.finish(|event| pairing.fragment_loss(&event));
        streams.finish(pairing.last_at_ns, |event| pairing.stream_event(event));
        let Pairing { table, recorder, counts, .. } = pairing;
        while let Some(transaction) = table.drain() {
            recorder.record(&transaction, counts);
        }
        recorder.release(u64::MAX, counts);
    }
}

impl Datagrams {
    /// Takes in a datagram that was joined from fragments.
    fn joined(&mut self, origin: &Origin, protocol: u8, bytes: &[u8]) {
        self.pairing.counts.datagrams_taken += 1;
        let taken = Datagram::after_extensions(protocol, bytes)
            .and_then(|datagram| self.datagram(origin, &datagram));
        if let Err(reason) = taken {
            self.pairing.counts.packets_lost[reason as usize] += 1;
        }
    }

    fn datagram(&mut self, origin: &Origin, datagram: &Datagram<'_>) -> Result<(), PacketLoss> {
        let flow = origin.flow(datagram);
        let payload = datagram.payload;
        let Self { streams, pairing } = self;
        pairing.last_at_ns = origin.captured_at_ns;
        match datagram.header {
            TransportHeader::Udp { gso_size } => {
                let missing = datagram.missing;
                if missing > 0 && (payload.len() < Message::HEADER_SIZE || gso_size > 0) {
                    return Err(PacketLoss::CutBySnapLength);
                }
                if payload.len() < Message::HEADER_SIZE {
                    return Err(PacketLoss::ShorterThanHeader);
                }
                let size = if gso_size == 0 { payload.len() } else { gso_size.into() };
                for wire in payload.chunks(size) {
                    pairing.message(origin, &flow, wire, missing);
                }
            }
            TransportHeader::Tcp { sequence, acknowledgement, flags } => {
                let segment = Segment {
                    flow,
                    at_ns: origin.captured_at_ns,
                    sequence,
                    acknowledgement,
                    flags,
                    payload,
                    context: *origin,
                };
                streams.segment(&segment, |event| pairing.stream_event(event));
                if payload.is_empty() {
                    return Err(PacketLoss::TcpWithoutPayload);
                }
            }
        }
        pairing.counts.packets_decoded += 1;
        Ok(())
    }
}

impl Pairing {
    /// Tells the table on which interfaces capture has begun or ended since it was last told.
    fn learn_switches(&mut self) {
        if self.interfaces.version() != self.interfaces_version {
            let switched = self.interfaces.switched_since(self.interfaces_version);
            self.interfaces_version = switched.version;
            for (ifindex, at_ns) in switched.interfaces {
                if let Some(at_ns) = at_ns {
                    self.table.note_switched(ifindex, at_ns);
                }
            }
        }
    }

    /// Takes in what comes of a stream.
    fn stream_event(&mut self, event: StreamEvent<'_, Origin>) {
        match event {
            StreamEvent::Message { flow, context, at_ns, message } => {
                self.message(&Origin { captured_at_ns: at_ns, ..context }, &flow, message, 0);
            }
            StreamEvent::Loss { flow, at_ns, reason: StreamLoss::Conflict, .. } => {
                self.table.note_conflict(flow, at_ns);
            }
            StreamEvent::Loss { flow, at_ns, .. } => self.table.note_unreadable(flow, at_ns),
        }
    }

    /// Takes note of a datagram that will not be whole, where it is known whose it was.
    fn fragment_loss(&mut self, event: &FragmentEvent<'_>) {
        if let FragmentEvent::Loss {
            origin, protocol, ports: Some([source, destination]), ..
        } = event
        {
            let transport = match *protocol {
                headers::UDP => Transport::Udp,
                headers::TCP => Transport::Tcp,
                _ => return,
            };
            let flow = Flow {
                transport,
                client: SocketAddr::new(origin.source, *source),
                server: SocketAddr::new(origin.destination, *destination),
                tunnel: origin.tunnel,
                ifindex: origin.ifindex,
            };
            self.table.note_unreadable(flow, origin.captured_at_ns);
        }
    }

    /// Takes in a message that was `sent` along a flow. So many bytes behind `wire` are `missing`.
    fn message(&mut self, origin: &Origin, sent: &Flow, wire: &[u8], missing: usize) {
        // QR, RFC 1035 §4.1.1.
        let response = wire.get(2).is_some_and(|flags| flags & 0x80 != 0);
        // Put together piece by piece: loaded whole, what was just stored in pieces has to wait.
        let (flow, seen) = if response {
            (Flow { client: sent.server, server: sent.client, ..*sent }, &mut self.response)
        } else {
            (*sent, &mut self.query)
        };
        if !response {
            self.recorder.fetch(&flow);
        }
        self.counts.messages_decoded += 1;
        let id = wire.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
        let key = self.table.key(flow, id);
        if !seen.message.read(wire) {
            self.counts.messages_lost[MessageLoss::ShorterThanHeader as usize] += 1;
            return;
        }
        if flow.server.port() == headers::MULTICAST_DNS_PORT && flow.transport == Transport::Udp {
            seen.message.note_multicast_dns();
        }
        if missing > 0 {
            seen.message.note_cut(missing);
        }
        let status = seen.message.parse_status;
        if status != ParseStatus::Ok {
            self.counts.messages_flawed[status as usize] += 1;
        }
        seen.cut = missing > 0;
        seen.at_ns = origin.captured_at_ns;
        seen.point = Point { ifindex: origin.ifindex, direction: origin.direction };
        seen.identification = match flow.transport {
            Transport::Udp => origin.identification,
            Transport::Tcp => 0,
        };
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
        match self.table.observe(key, seen, wire) {
            Observed::Waits => {
                while let Some(transaction) = self.table.evict() {
                    self.counts.queries_evicted += 1;
                    self.recorder.record(&transaction, &mut self.counts);
                }
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
