//! The counts that a ledger is made from.

use tap53_dns::{fragments::FragmentLoss, stream::StreamLoss};
use tap53_ebpf::counter::Counters;

use super::{MessageLoss, SinkCounts, SinkLoss, WorkerCounts};

/// The counters of the kernel programs for one interface.
#[derive(Clone, Debug)]
pub struct InterfaceCounts {
    /// Interface name.
    pub name: String,
    /// Interface index.
    pub ifindex: u32,
    /// Hook in use for each direction, and its mode.
    pub hooks: [String; 2],
    /// Counters for each direction.
    pub counters: [Counters; 2],
    /// True for ends of pairs, of which there is one for each pod.
    pub is_pair: bool,
    /// False once it is detached.
    pub is_attached: bool,
}

/// Everything that a ledger is made from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Name of the node.
    pub node: String,
    /// Id of the run.
    pub run: [u8; 8],
    /// Time of the ledger, microseconds since 1970 UTC.
    pub taken_at_us: i64,
    /// True after the workers and sinks have ended: nothing may be left in the rings.
    pub ended: bool,
    /// True once [`abandon`](Self::abandon) has counted what workers hold that did not come to their
    /// end.
    pub is_abandoned: bool,
    /// Kernel counters.
    pub interfaces: Vec<InterfaceCounts>,
    /// Sum of the workers' counts.
    pub workers: WorkerCounts,
    /// Number of each worker's last record.
    pub last_numbers: Vec<u64>,
    /// Name and counts of each sink.
    pub sinks: Vec<(String, SinkCounts)>,
}

impl Sources {
    /// Counts everything as lost that workers hold which did not come to their end, at the end of a run.
    ///
    /// All other workers hold nothing by then, so whatever waits anywhere is theirs. Only the packets of
    /// their unfinished batches, and those left in their rings, were counted by nobody: they are the
    /// difference to what the hooks captured. A run without abandoned workers must never call this, since
    /// it would hide defects.
    pub fn abandon(&mut self) {
        self.is_abandoned = true;
        let workers = &mut self.workers;
        let messages = std::mem::take(&mut workers.messages_pending);
        workers.messages_lost[MessageLoss::Abandoned as usize] += messages;
        workers.queries_pending = 0;
        workers.transactions_held = 0;
        let fragments = &mut workers.fragments;
        fragments.lost[FragmentLoss::Ended as usize] += std::mem::take(&mut fragments.waiting);
        // On their way to one of those workers.
        let taken = workers.datagrams_taken + workers.datagrams_not_handed_over;
        workers.datagrams_not_handed_over += fragments.datagrams.saturating_sub(taken);
        let streams = &mut workers.streams;
        let bytes = std::mem::take(&mut streams.bytes_waiting);
        streams.bytes_lost[StreamLoss::Ended as usize] += bytes;
        for (_, sink) in &mut self.sinks {
            let in_batches = sink.in_batches;
            sink.offer(in_batches);
            sink.lose(SinkLoss::Abandoned, in_batches);
        }
    }
}
