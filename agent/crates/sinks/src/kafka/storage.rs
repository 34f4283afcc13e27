//! The part of the [machine](super::delivery) that opens and syncs the spool, and handles failures of
//! the disk.

use std::{sync::atomic::Ordering, time::Instant};

use tap53_ledger::SinkLoss;
use tap53_spool::{self as spool, Fsync, Spool};

use super::{
    backlog::{Backlog, Owner, QueuedMessage, move_piece},
    delivery::{Delivery, Guard},
    flight::Flight,
    producer::{Refusal, Transport},
    route::Event,
};

impl<P: Transport> Delivery<P> {
    /// Wakes the sender, and syncs the spool if that is due with each batch.
    pub(super) fn appended(&self, mut backlog: Guard<'_>, records: usize) {
        let unsynced = match &mut *backlog {
            Backlog::Disk(spool) => {
                if self.health.disk_fails.swap(false, Ordering::Relaxed) {
                    let sink = &self.context.sink;
                    tracing::info!(
                        event = "spool_write_resumed",
                        sink,
                        "writing to the spool again"
                    );
                }
                let fsync = self.spool_config.as_ref().map(|config| config.fsync);
                (fsync == Some(Fsync::Batch)).then(|| spool.take_unsynced())
            }
            Backlog::Memory(_) => None,
        };
        drop(backlog);
        self.context.events.put(|events| events.appended += records);
        unsynced.iter().for_each(|unsynced| self.sync(unsynced));
    }

    pub(super) fn sync(&self, unsynced: &spool::Unsynced) {
        if unsynced.is_empty() {
            return;
        }
        let began = Instant::now();
        let synced = unsynced.sync();
        self.context.timings.sync.observe(began.elapsed());
        if let Err(error) = synced {
            let directory = self.directory();
            tracing::error!(event = "spool_sync_failed", %error, directory, "cannot sync the spool to disk: records may be lost with the node's power");
            if let Backlog::Disk(spool) = &mut *self.lock() {
                spool.seal_active();
            }
        }
    }

    pub(super) fn disk_failed(&self, error: &dyn std::fmt::Display) {
        if !self.health.disk_fails.swap(true, Ordering::Relaxed) {
            let directory = self.directory();
            tracing::error!(event = "spool_write_failed", %error, directory, "cannot write to the spool: records are sent without it, and lost and counted where that fails");
        }
    }

    pub(super) fn directory(&self) -> String {
        let config = self.spool_config.as_ref();
        config.map_or(String::new(), |config| config.directory.display().to_string())
    }

    pub(super) fn log_lock_wait(&self) {
        let (sink, directory) = (&self.context.sink, self.directory());
        tracing::warn!(
            event = "spool_locked",
            sink,
            directory,
            "another agent has locked the spool: until it ends, records are sent without it, and \
             those that do not arrive wait in memory"
        );
    }

    /// Opens the spool, and moves the records in memory to it.
    ///
    /// # Errors
    /// [`Locked`](spool::Error::Locked) while another agent has it, and others of the spool.
    pub(super) fn acquire_spool(&self) -> Result<(), spool::Error> {
        let Some(config) = &self.spool_config else { return Ok(()) };
        let mut spool = Spool::open(config)?;
        let accounts = &self.context.accounts;
        let mut backlog = self.lock();
        let Backlog::Memory(buffer) = &mut *backlog else { return Ok(()) };
        let inherited = spool.held();
        if inherited.records > 0 {
            accounts.windows.inherit(spool.next_id());
        }
        self.want_schemas_of(&spool);
        accounts.reconcile(&mut spool, |counts| counts.carried = inherited);
        let mut waiting = buffer.take_all();
        let count = waiting.len();
        let mut outcome = Ok(());
        while outcome.is_ok() && !waiting.is_empty() {
            outcome = move_piece(&mut waiting, &mut spool, accounts, self.now_ms());
        }
        let is_empty = spool.held().records == 0;
        *backlog = Backlog::Disk(Box::new(spool));
        self.router.apply(Event::SpoolAcquired { is_empty }, &mut backlog);
        match outcome {
            Ok(()) if count > 0 => self.appended(backlog, count),
            Ok(()) => {}
            Err(error) => {
                drop(backlog);
                self.disk_failed(&error);
                waiting.into_iter().for_each(|record| self.send_or_lose(record));
            }
        }
        Ok(())
    }

    /// Requests the ids of older schemas that the spool has records of.
    fn want_schemas_of(&self, spool: &Spool) {
        let Some(ids) = &self.context.schema_ids else { return };
        let versions = spool.schema_versions();
        for schema in &self.schemas {
            if schema.is_expected_in(&versions) {
                ids.want(schema.fingerprint);
            }
        }
    }

    fn send_or_lose(&self, record: QueuedMessage<Flight>) {
        let producer = self.producer.current();
        let (origin, version) = (record.owner.in_memory(), Flight::SCHEMA_VERSION);
        match self.producer.send(&producer, origin, version, &record.message()) {
            Ok(()) => Owner::hand_over(record.owner),
            Err(Refusal::Never) => record.owner.reject(),
            Err(_) => record.owner.lost(SinkLoss::SpoolFailed),
        }
    }
}
