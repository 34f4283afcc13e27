//! A sink that passes the records of a replay to another thread.

use std::{
    sync::{Arc, mpsc::SyncSender},
    time::{Duration, Instant},
};

use tap53_base::amount::Amount;
use tap53_ledger::{Published, SinkCounts, SinkLoss};
use tap53_records::encode::{Batch, Format};
use tap53_sinks::{Named, Sink};
use tokio::sync::Notify;

/// Records of one batch.
pub(super) struct Block {
    pub(super) records: u64,
    pub(super) bytes: Vec<u8>,
}

/// Passes batches on, and waits while the other thread has not taken earlier ones.
pub(super) struct Collector {
    blocks: SyncSender<Block>,
    counts: Published<SinkCounts>,
    /// Notified when the receiver of blocks is gone.
    stop: Arc<Notify>,
}

impl Collector {
    pub(super) fn sink(blocks: SyncSender<Block>, stop: &Arc<Notify>) -> Named {
        let collector = Self { blocks, counts: Published::default(), stop: stop.clone() };
        Named { name: "query".to_owned(), sink: Arc::new(collector) }
    }
}

impl Sink for Collector {
    fn format(&self) -> Format {
        Format::AvroDatum
    }

    fn counts(&self) -> &Published<SinkCounts> {
        &self.counts
    }

    fn write(&self, batch: &Batch) {
        let amount = Amount { records: batch.records(), messages: batch.messages() };
        let block = Block { records: batch.records(), bytes: batch.bytes().to_vec() };
        let is_taken = self.blocks.send(block).is_ok();
        self.counts.update(|counts| {
            counts.offer(amount);
            match is_taken {
                true => counts.delivered += amount,
                false => counts.lose(SinkLoss::Closed, amount),
            }
        });
        if !is_taken {
            self.stop.notify_one();
        }
    }

    fn tick(&self, _now: Instant) {}

    fn close(&self, _deadline: Duration) {}
}
