//! One sink's batch of records.

use std::{sync::Arc, time::Instant};

use tap53_base::amount::Amount;
use tap53_ledger::{SinkLoss, chain::Chain};
use tap53_records::encode::{self, Batch, Encode, Format, Record, read_single_object};
use tap53_sinks::Named;
use tap53_transactions::pair::RecordIds;

/// One sink, as a worker sees it.
pub(super) struct Output {
    pub(super) sink: Named,
    format: Format,
    encoder: Box<dyn Encode>,
    pub(super) batch: Batch,
    /// Records that could not be encoded, since the batch was last delivered.
    failed: Amount,
    /// Digests of the records, if the sink's summaries contain them.
    chain: Option<Arc<Chain>>,
}

impl Output {
    pub(super) fn new(sink: &Named, ids: RecordIds) -> Result<Self, encode::Error> {
        let format = sink.sink.format();
        Ok(Self {
            sink: sink.clone(),
            format,
            encoder: format.build()?,
            batch: Batch::keyed(sink.sink.key()),
            failed: Amount::default(),
            chain: chain(sink, ids),
        })
    }

    /// Adds the batch, whose first record has the number `first`, to the chain. If a record could not be
    /// encoded, the numbers of the batch are unknown, and stay without a link.
    pub(super) fn chain(&self, first: u64) {
        if let Some(chain) = &self.chain
            && self.failed.records == 0
            && !self.batch.is_empty()
        {
            chain.add(first, &self.batch);
        }
    }

    /// Returns the Avro datum of the last record, if this sink has encoded it in the full profile.
    #[inline]
    pub(super) fn last_datum(&self) -> Option<&[u8]> {
        if self.failed.records > 0 {
            return None;
        }
        let last = self.batch.last()?;
        match self.format {
            Format::AvroDatum => Some(last),
            Format::AvroSingleObject => read_single_object(last).map(|(_, datum)| datum),
            _ => None,
        }
    }

    pub(super) fn push(&mut self, record: &Record<'_>) {
        if let Err(error) = self.batch.push(self.encoder.as_mut(), record) {
            self.failed += Amount::record(u64::from(record.transaction.messages()));
            tracing::debug!(
                event = "record_not_encoded",
                %error,
                sink = self.sink.name,
                "cannot encode a record"
            );
        }
    }

    pub(super) fn deliver(&mut self) {
        let failed = std::mem::take(&mut self.failed);
        if failed.records > 0 {
            self.sink.sink.counts().update(|counts| {
                counts.offer(failed);
                counts.lose(SinkLoss::EncodeFailed, failed);
            });
        }
        if !self.batch.is_empty() {
            let began = Instant::now();
            self.sink.sink.write(&self.batch);
            if let Some(timings) = self.sink.sink.timings() {
                timings.write.observe(began.elapsed());
            }
            self.batch.clear();
        }
    }
}

/// Returns the chain that the worker of these records adds to, if the sink has chains.
fn chain(sink: &Named, ids: RecordIds) -> Option<Arc<Chain>> {
    let evidence = sink.sink.summaries()?.evidence()?;
    let run_id = data_encoding::HEXLOWER.encode(&ids.run());
    Some(evidence.chains.begin(&run_id, ids.worker()))
}
