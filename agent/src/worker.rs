//! A worker: one thread that owns a ring, a table of pending queries and a buffer for each sink,
//! and runs a batch from the ring to the sinks before it takes the next. Workers share nothing on
//! that way: the kernel programs put both directions of a flow into one ring.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use nix::time::{ClockId, clock_gettime};
use tap53_ebpf::record::RecordHeader;

use crate::{
    capture::RingLost,
    decode::{Message, Packet, PacketLoss, Transport, segment_messages},
    encode::{self, Batch, Clock, Encode, Owner, Record, RecordId},
    ledger::{Amount, MessageLoss, Published, SinkLoss, WorkerCounts},
    pair::{Flow, Observation, Observed, Table, Transaction},
    ring::Drain,
    sink::Named,
};

/// Bytes of a sink's batch from which on it is delivered without waiting for the ring's batch to
/// end: a full table that expires at once makes 65,536 records.
const BATCH_BYTES: usize = 1 << 20;

/// What every worker is told.
#[derive(Clone)]
pub struct Shared {
    /// Name of this node.
    pub node: Arc<str>,
    /// Names of the interfaces, by ifindex.
    pub interfaces: Arc<HashMap<u32, String>>,
    /// Whether records carry their messages as they were sent.
    pub wire_bytes: bool,
    /// Drawn once for the run: the first half of each record's identifier.
    pub run: [u8; 8],
    /// Set once nothing enters the rings any more.
    pub ending: Arc<AtomicBool>,
}

/// One sink, as a worker sees it.
struct Output {
    sink: Named,
    encoder: Box<dyn Encode>,
    batch: Batch,
}

/// One worker.
pub(crate) struct Worker {
    number: u16,
    drain: Drain,
    ring_lost: RingLost,
    stages: Stages,
}

/// Everything behind the ring.
pub struct Stages {
    shared: Shared,
    number: u16,
    sequence: u64,
    table: Table,
    clock: Clock,
    outputs: Vec<Output>,
    counts: WorkerCounts,
    published: Published<WorkerCounts>,
    /// Nobody is named until a source of names is there.
    nobody: Owner,
}

impl Worker {
    /// # Errors
    /// When an encoder cannot be made.
    pub(crate) fn new(
        number: u16,
        drain: Drain,
        ring_lost: RingLost,
        table: Table,
        sinks: &[Named],
        shared: Shared,
    ) -> Result<Self, encode::Error> {
        let stages = Stages::new(number, table, sinks, shared)?;
        Ok(Self { number, drain, ring_lost, stages })
    }

    /// Where this worker publishes its counts.
    pub(crate) fn counts(&self) -> Published<WorkerCounts> {
        self.stages.published.clone()
    }

    /// Runs until [`Shared::ending`] is set and the ring is empty.
    pub(crate) fn run(mut self) {
        loop {
            // In this order: once `ending` is set the ring gets nothing more, so what is found
            // empty after that stays empty.
            let ending = self.stages.shared.ending.load(Ordering::Acquire);
            let now_ns = monotonic_ns();
            self.stages.clock = read_clock();
            let mut read_up_to_ns = 0;
            let stages = &mut self.stages;
            let taken = self.drain.batch(|item| {
                read_up_to_ns = stages.take(item).unwrap_or(read_up_to_ns);
            });
            if taken == 0 {
                // Losses with nothing behind them in the ring show in the map alone.
                match self.ring_lost.get(u32::from(self.number)) {
                    // Records carry the lower half of the count.
                    Ok(lost) => stages.table.note_ring_lost((lost & 0xffff_ffff) as u32, now_ns),
                    Err(error) => tracing::error!(%error, "cannot read the ring's losses"),
                }
                read_up_to_ns = now_ns;
            }
            self.stages.expire(read_up_to_ns);
            self.stages.deliver();
            if taken == 0 && ending {
                break;
            }
            if taken == 0
                && let Err(error) = self.drain.wait()
            {
                tracing::error!(%error, "cannot wait for the ring");
                break;
            }
        }
        self.stages.finish();
    }
}

impl Stages {
    /// # Errors
    /// When an encoder cannot be made.
    pub fn new(
        number: u16,
        table: Table,
        sinks: &[Named],
        shared: Shared,
    ) -> Result<Self, encode::Error> {
        let outputs = sinks
            .iter()
            .map(|sink| {
                let encoder = sink.sink.format().build()?;
                Ok(Output { sink: sink.clone(), encoder, batch: Batch::default() })
            })
            .collect::<Result<_, encode::Error>>()?;
        Ok(Self {
            shared,
            number,
            sequence: 0,
            table,
            clock: read_clock(),
            outputs,
            counts: WorkerCounts::default(),
            published: Published::default(),
            nobody: Owner::default(),
        })
    }

    /// Takes in one ring record; returns when it was captured, CLOCK_MONOTONIC nanoseconds, or
    /// `None` where it held no message.
    pub fn take(&mut self, item: &[u8]) -> Option<u64> {
        self.counts.packets_received += 1;
        let Some((header, bytes)) = RecordHeader::split(item) else {
            self.counts.packets_lost[PacketLoss::RecordMismatch as usize] += 1;
            return None;
        };
        self.table.note_ring_lost(header.ring_lost, header.captured_at_ns);
        let decoded = Packet::parse(&header, bytes).and_then(|packet| self.decode(&packet));
        match decoded {
            Ok(()) => {
                self.counts.packets_decoded += 1;
                Some(header.captured_at_ns)
            }
            Err(reason) => {
                self.counts.packets_lost[reason as usize] += 1;
                if !reason.is_ignored()
                    && let Some(endpoints) = Packet::endpoints(&header, bytes)
                {
                    let flow = Flow {
                        ifindex: header.ifindex,
                        transport: endpoints.transport,
                        client: endpoints.source,
                        server: endpoints.destination,
                    };
                    self.table.note_unreadable(flow, header.captured_at_ns);
                }
                None
            }
        }
    }

    fn decode(&mut self, packet: &Packet<'_>) -> Result<(), PacketLoss> {
        match packet.transport {
            Transport::Udp => {
                let message = Message::parse(packet.payload);
                let message = message.ok_or(PacketLoss::ShorterThanHeader)?;
                self.pair(packet, message, packet.payload);
            }
            Transport::Tcp => {
                for wire in segment_messages(packet.payload)? {
                    // segment_messages lets nothing shorter than a header through.
                    if let Some(message) = Message::parse(wire) {
                        self.pair(packet, message, wire);
                    }
                }
            }
        }
        Ok(())
    }

    fn pair(&mut self, packet: &Packet<'_>, message: Message, wire: &[u8]) {
        self.counts.messages_decoded += 1;
        let wire = self.shared.wire_bytes.then(|| wire.to_vec());
        let (flow, observation) = Observation::new(packet, message, wire);
        match self.table.observe(flow, observation) {
            Observed::Waits { evicted } => {
                let lost = &mut self.counts.messages_lost[MessageLoss::PairTableFull as usize];
                *lost += u64::from(evicted);
            }
            Observed::Repeated => {}
            Observed::Done(transaction) => self.record(&transaction),
        }
    }

    /// Records the queries whose time ran out at `now_ns`.
    pub fn expire(&mut self, now_ns: u64) {
        while let Some(transaction) = self.table.expire(now_ns) {
            self.record(&transaction);
        }
    }

    fn record(&mut self, transaction: &Transaction) {
        self.counts.records_created += 1;
        self.counts.messages_in_records += u64::from(transaction.messages());
        self.sequence += 1;
        let interface = self.shared.interfaces.get(&transaction.flow.ifindex);
        let record = Record {
            id: RecordId::new(self.shared.run, self.number, self.sequence),
            node: &self.shared.node,
            interface: interface.map_or("", String::as_str),
            clock: self.clock,
            transaction,
            client: &self.nobody,
            server: &self.nobody,
        };
        for output in &mut self.outputs {
            output.push(&record);
        }
    }

    /// Hands the batches to their sinks and publishes the counts.
    pub fn deliver(&mut self) {
        for output in &mut self.outputs {
            output.deliver();
        }
        self.counts.messages_pending = self.table.pending_messages();
        self.published.publish(self.counts);
    }

    /// The end of capture: what still waits for a response is recorded as it stands.
    pub fn finish(mut self) {
        while let Some(transaction) = self.table.drain() {
            self.record(&transaction);
        }
        self.deliver();
    }
}

impl Output {
    fn push(&mut self, record: &Record<'_>) {
        if let Err(error) = self.batch.push(self.encoder.as_mut(), record) {
            let amount = Amount::record(u64::from(record.transaction.messages()));
            self.sink.sink.counts().update(|counts| {
                counts.offered += amount;
                counts.lose(SinkLoss::EncodeFailed, amount);
            });
            tracing::debug!(%error, sink = self.sink.name, "record lost");
        }
        if self.batch.bytes().len() >= BATCH_BYTES {
            self.deliver();
        }
    }

    fn deliver(&mut self) {
        if !self.batch.is_empty() {
            self.sink.sink.write(&self.batch);
            self.batch.clear();
        }
    }
}

/// CLOCK_MONOTONIC nanoseconds, the clock of `bpf_ktime_get_ns`.
pub(crate) fn monotonic_ns() -> u64 {
    u64::try_from(clock_ns(ClockId::CLOCK_MONOTONIC)).unwrap_or(0)
}

fn read_clock() -> Clock {
    let utc_offset_ns = clock_ns(ClockId::CLOCK_REALTIME) - clock_ns(ClockId::CLOCK_MONOTONIC);
    Clock { utc_offset_ns }
}

fn clock_ns(clock: ClockId) -> i64 {
    // Linux has both clocks, so reading them does not fail.
    clock_gettime(clock).map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}

#[cfg(test)]
mod tests;
