//! The stages of a worker, from a ring item to a record.

use std::{net::SocketAddr, sync::Arc};

use tap53_capture::interfaces::Names;
use tap53_dns::{
    Content, Datagram, Flow, Kept, Message, Origin, Packet, PacketLoss, ParseStatus, Transport,
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
    cross_worker::{CrossWorkerQueue, ForeignMessage, Handover, Reassembled, Waiting},
};

/// All stages after the ring or the capture file: packet to record.
pub struct Stages {
    fragments: Fragments,
    datagrams: Datagrams,
    published: Published<WorkerCounts>,
}

/// Datagram to record.
struct Datagrams {
    streams: Streams<Origin>,
    pairing: Pairing,
}

/// States if a message may still be handed over to another worker.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ownership {
    /// It came from this worker's ring.
    Open,
    /// Another worker handed it over, or refused it.
    Final,
}

/// Message to record.
struct Pairing {
    table: Table,
    queue: CrossWorkerQueue,
    interfaces: Arc<Names>,
    /// Version of `interfaces` that `table` has.
    interfaces_version: u64,
    recorder: Recorder,
    counts: WorkerCounts,
    /// Set if messages keep the bytes that they were read from.
    wire_bytes: bool,
    /// The records of messages that are kept.
    kept: Kept,
    /// Set if each message becomes a record.
    each_message: bool,
    /// Messages are decoded into these. There are two, so that the large buffers of responses stay here
    /// when a query goes into the table.
    query: Box<Observation>,
    response: Box<Observation>,
    /// Capture time of the latest datagram.
    last_at_ns: u64,
}

impl Stages {
    /// # Errors
    /// When an encoder cannot be created.
    pub fn new(
        table: Table,
        sinks: &[Named],
        shared: &Shared,
        queue: CrossWorkerQueue,
        clock: Clock,
    ) -> Result<Self, encode::Error> {
        let published = Published::default();
        let pairing = Pairing {
            recorder: Recorder::new(sinks, shared, table.ids(), clock, published.clone())?,
            table,
            queue,
            interfaces: shared.interfaces.clone(),
            interfaces_version: 0,
            counts: WorkerCounts::default(),
            wire_bytes: shared.wire_bytes,
            kept: shared.kept,
            each_message: shared.each_message,
            query: Box::default(),
            response: Box::default(),
            last_at_ns: 0,
        };
        Ok(Self {
            fragments: fragments::Config::default().build(),
            datagrams: Datagrams { streams: stream::Config::default().build(), pairing },
            published,
        })
    }

    /// Returns the counts that this worker publishes.
    #[must_use]
    pub fn published(&self) -> Published<WorkerCounts> {
        self.published.clone()
    }

    /// Returns a view of the number of datagrams that other workers have queued for this one.
    pub(super) fn datagrams_waiting(&self) -> Waiting {
        self.datagrams.pairing.queue.waiting()
    }

    /// Begins a batch: sets the clock that converts capture times to UTC, and refreshes attribution,
    /// rules and followers.
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

    /// Notes the ring's loss count as of `at_ns`.
    pub fn note_ring_lost(&mut self, ring_lost: u32, at_ns: u64) {
        let Pairing { table, recorder, .. } = &mut self.datagrams.pairing;
        if table.note_ring_lost(ring_lost, at_ns)
            && let Some(chains) = recorder.chains()
        {
            chains.lost(at_ns);
        }
    }

    /// Processes one ring item. Returns its capture time in nanoseconds of CLOCK_MONOTONIC, or `None` if
    /// the item has no readable header.
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

    /// Processes one captured packet. `frame` is its number in a replayed file (see
    /// [`tap53_dns::frames`]), else 0.
    pub fn take_packet(&mut self, header: &RecordHeader, bytes: &[u8], frame: u64) {
        self.datagrams.pairing.counts.packets_received += 1;
        if let Some(chains) = self.datagrams.pairing.recorder.chains() {
            chains.read(header.captured_at_ns);
            if chains.is_full() {
                self.settle(header.captured_at_ns);
            }
        }
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
        let Self { fragments, datagrams, .. } = self;
        fragments.fragment(&packet.origin, part, |event| match event {
            FragmentEvent::Datagram { origin, protocol, bytes } => {
                let queue = &datagrams.pairing.queue;
                let owner = Datagram::after_extensions(protocol, bytes).ok().and_then(|datagram| {
                    queue.other_owner_of(&origin.flow(&datagram), datagram.payload)
                });
                let Some(worker) = owner else {
                    return datagrams.reassembled(&origin, protocol, bytes);
                };
                let reassembled = Reassembled { origin, protocol, bytes: bytes.to_vec() };
                if !queue.send(worker, Handover::Datagram(reassembled)) {
                    datagrams.pairing.counts.datagrams_not_handed_over += 1;
                }
            }
            FragmentEvent::Loss { .. } => datagrams.pairing.fragment_loss(&event),
        });
        Ok(())
    }

    /// Processes what other workers have handed over to this one.
    pub(super) fn receive(&mut self) {
        while let Some(item) = self.datagrams.pairing.queue.receive() {
            self.datagrams.handed_over(item);
        }
    }

    /// Expires fragments, gaps in streams and queries that have waited too long at `now_ns`. Expired
    /// queries are recorded.
    pub fn expire(&mut self, now_ns: u64) {
        let Datagrams { streams, pairing } = &mut self.datagrams;
        self.fragments.expire(now_ns, |event| pairing.fragment_loss(&event));
        streams.expire(now_ns, |event| pairing.stream_event(event));
        let Pairing { table, recorder, counts, .. } = pairing;
        while let Some(transaction) = table.expire(now_ns) {
            recorder.record(&transaction, counts);
        }
        if let Some(chains) = recorder.chains() {
            chains.read(now_ns);
        }
        self.settle(now_ns);
    }

    /// Exchanges chain events and verdicts with the other workers at `now_ns`, and records what waits no
    /// more.
    fn settle(&mut self, now_ns: u64) {
        let Pairing { recorder, counts, queue, .. } = &mut self.datagrams.pairing;
        recorder.settle(now_ns, |worker| queue.wake(worker));
        recorder.release(now_ns, counts);
    }

    /// Publishes the counts and passes the batches to their sinks.
    pub fn deliver(&mut self) {
        let Datagrams { streams, pairing } = &mut self.datagrams;
        let pending = pairing.recorder.pending_messages();
        pairing.counts.messages_pending = pairing.table.pending_messages() + pending;
        pairing.counts.queries_pending = pairing.table.pending_queries() as u64;
        pairing.counts.transactions_held = pairing.recorder.pending() as u64;
        pairing.counts.fragments = self.fragments.counts();
        pairing.counts.streams = streams.counts();
        pairing.recorder.deliver(pairing.counts);
    }

    /// Returns true if nothing was waiting at the last [`deliver`](Self::deliver): no query for its
    /// response, no fragment or stream for missing bytes, no record for attribution.
    pub(super) const fn is_quiet(&self) -> bool {
        let counts = &self.datagrams.pairing.counts;
        counts.messages_pending == 0
            && counts.queries_pending == 0
            && counts.transactions_held == 0
            && counts.fragments.waiting == 0
            && counts.streams.bytes_waiting == 0
    }

    /// Ends capture: queries that still wait for a response are recorded without one.
    pub fn finish(mut self) {
        let queue = &mut self.datagrams.pairing.queue;
        let queue = std::mem::replace(queue, CrossWorkerQueue::single_worker());
        queue.end(|item| self.datagrams.handed_over(item));
        self.drain();
        self.deliver();
    }

    /// Ends one capture and starts another, whose times do not continue from it: waiting queries are
    /// recorded. All buffers are kept, so this costs no more than those queries, and an empty `table`.
    pub fn restart(&mut self, table: impl FnOnce(RecordIds) -> Table) {
        self.drain();
        let Datagrams { streams, pairing } = &mut self.datagrams;
        self.fragments.restart();
        streams.restart();
        if let Some(chains) = pairing.recorder.chains() {
            chains.restart();
        }
        pairing.last_at_ns = 0;
        pairing.table = table(pairing.table.ids());
        // The new table has no interfaces yet.
        pairing.interfaces_version = 0;
    }

    /// Records transactions that still wait for a response, or for attribution.
    fn drain(&mut self) {
        let Datagrams { streams, pairing } = &mut self.datagrams;
        self.fragments.finish(|event| pairing.fragment_loss(&event));
        streams.finish(pairing.last_at_ns, |event| pairing.stream_event(event));
        let Pairing { table, recorder, counts, .. } = pairing;
        while let Some(transaction) = table.drain() {
            recorder.record(&transaction, counts);
        }
        recorder.settle(u64::MAX, |_| {});
        recorder.release(u64::MAX, counts);
    }
}

impl Datagrams {
    /// Processes what another worker has handed over.
    fn handed_over(&mut self, item: Handover) {
        match item {
            Handover::Datagram(Reassembled { origin, protocol, bytes }) => {
                self.reassembled(&origin, protocol, &bytes);
            }
            Handover::Message(ForeignMessage { origin, sent, wire, missing }) => {
                self.pairing.message(&origin, &sent, &wire, missing, Ownership::Final);
            }
        }
    }

    /// Processes a datagram that was reassembled from fragments.
    fn reassembled(&mut self, origin: &Origin, protocol: u8, bytes: &[u8]) {
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
                if gso_size == 0 {
                    pairing.message(origin, &flow, payload, missing, Ownership::Open);
                } else {
                    pairing.segments(origin, &flow, payload.chunks(gso_size.into()));
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
    /// Passes the interfaces on which capture has started or ended since the last call to the table.
    fn learn_switches(&mut self) {
        if self.interfaces.version() != self.interfaces_version {
            let switched = self.interfaces.switched_since(self.interfaces_version);
            self.interfaces_version = switched.version;
            for (ifindex, at_ns) in switched.interfaces {
                let Some(at_ns) = at_ns else { continue };
                self.table.note_switched(ifindex, at_ns);
                if let Some(chains) = self.recorder.chains() {
                    chains.switched(at_ns);
                }
            }
        }
    }

    /// Processes an event of a TCP stream.
    fn stream_event(&mut self, event: StreamEvent<'_, Origin>) {
        match event {
            StreamEvent::Message { flow, context, at_ns, message } => {
                let origin = Origin { captured_at_ns: at_ns, ..context };
                self.message(&origin, &flow, message, 0, Ownership::Open);
            }
            StreamEvent::Loss { flow, at_ns, reason: StreamLoss::Conflict, .. } => {
                self.table.note_conflict(flow, at_ns);
            }
            StreamEvent::Loss { flow, at_ns, .. } => self.table.note_unreadable(flow, at_ns),
        }
    }

    /// Notes the loss of a datagram whose fragments did not all arrive, if its flow is known.
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

    /// Processes the messages of a packet with several, which went to the ring of the first.
    #[cold]
    fn segments<'a>(
        &mut self,
        origin: &Origin,
        sent: &Flow,
        messages: impl Iterator<Item = &'a [u8]>,
    ) {
        for wire in messages {
            let owner = self.queue.other_owner_of(sent, wire);
            if owner.is_some_and(|worker| self.hand_over(worker, origin, sent, wire, 0)) {
                continue;
            }
            self.message(origin, sent, wire, 0, Ownership::Open);
        }
    }

    /// Sends a message to another worker. If its queue is full or closed, returns false: the message
    /// is then processed here, where it may find no partner.
    #[cold]
    fn hand_over(
        &self,
        worker: usize,
        origin: &Origin,
        sent: &Flow,
        wire: &[u8],
        missing: usize,
    ) -> bool {
        let message = ForeignMessage { origin: *origin, sent: *sent, wire: wire.to_vec(), missing };
        self.queue.send(worker, Handover::Message(message))
    }

    /// Processes a message that was `sent` along a flow; `missing` bytes after `wire` were not captured.
    fn message(
        &mut self,
        origin: &Origin,
        sent: &Flow,
        wire: &[u8],
        missing: usize,
        ownership: Ownership,
    ) {
        // QR, RFC 1035 §4.1.1.
        let response = wire.get(2).is_some_and(|flags| flags & 0x80 != 0);
        // Assembled field by field: a load of the whole would stall on the stores of its parts.
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
        let key = self.table.key(&flow, id);
        let key = if ownership == Ownership::Final { key.final_here() } else { key };
        if !seen.message.read(wire, self.kept) {
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
        seen.sender = origin.sender;
        seen.hop_limit = origin.hop_limit;
        seen.frame = origin.frame;
        seen.vlan_ids = [origin.vlan_id, origin.vlan_inner_id];
        seen.vlan_visible = origin.vlan_visible;
        seen.wire.clear();
        if self.wire_bytes {
            seen.wire.extend_from_slice(wire);
        }
        if self.each_message {
            self.recorder.record(&self.table.alone(flow, seen), &mut self.counts);
            return;
        }
        // By reference: a transaction that is moved out of its result is copied piece by piece.
        let elsewhere = match &self.table.observe(key, seen, wire) {
            Observed::Done(transaction) => {
                return self.recorder.record(transaction, &mut self.counts);
            }
            Observed::Repeated | Observed::Held => return,
            Observed::Copy => {
                self.counts.messages_lost[MessageLoss::Copy as usize] += 1;
                return;
            }
            Observed::Waits => None,
            Observed::Elsewhere(worker) => Some(*worker),
        };
        match elsewhere {
            None => {
                if let Some(chains) = self.recorder.chains()
                    && let Some((record, flow, query)) = self.table.newest(flow.transport)
                {
                    chains.opened(record, flow, query);
                }
                while let Some(transaction) = self.table.evict() {
                    self.counts.queries_evicted += 1;
                    self.recorder.record(&transaction, &mut self.counts);
                }
            }
            Some(worker) => {
                // It is counted where it is processed.
                self.counts.messages_decoded -= 1;
                if status != ParseStatus::Ok {
                    self.counts.messages_flawed[status as usize] -= 1;
                }
                if !self.hand_over(worker.into(), origin, sent, wire, missing) {
                    self.message(origin, sent, wire, missing, Ownership::Final);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
