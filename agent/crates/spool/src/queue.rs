//! The queue itself.
//!
//! ```text
//!            done                read             end
//!   ───────────┬───────────────────┬────────────────┬──▶ ids
//!    removed   │ window: sent,     │ not yet read   │ next append
//!              │ failed, done      │                │
//! ```

mod reading;

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    hash::{BuildHasher, Hasher, RandomState},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt, OpenOptionsExt},
    sync::Arc,
};

use tap53_base::{amount::Amount, files::open_own};

use super::{
    ages::Ages,
    checkpoint::Checkpoint,
    config::{Config, Fsync},
    directory::{self, Segment, start},
    error::{AppendError, Error},
    loss::{History, Loss, Losses, Totals, Unsettled},
    reader::{Found, Reader},
    segment::{ENTRY_BYTES, Header, MAX_ENTRY_BYTES, Name, Position, Record, between, push_entry},
    unsynced::Unsynced,
    window::{State, Window},
};

/// A queue of records on disk. See the [module](super).
pub struct Spool {
    config: Config,
    /// Locked while the queue is open.
    _lock: File,
    directory: Arc<File>,
    segments: VecDeque<Segment>,
    /// File of the last segment, if it may be appended to.
    active: Option<Arc<File>>,
    /// Position of the next record.
    end: Position,
    read: Cursor,
    window: Window,
    /// Id from which failed records are sent again, while that continues.
    retry_from: Option<u64>,
    prepared: Option<Prepared>,
    reader: Option<(u64, Reader)>,
    /// Reader for records that are sent again.
    retry_reader: Option<(u64, Reader)>,
    held: Amount,
    /// Records that were in the queue when it was opened: their number, the id after them, and the
    /// number that has been acknowledged since.
    inherited: u64,
    inherited_end: u64,
    inherited_acknowledged: u64,
    ages: Ages,
    losses: Losses,
    /// Totals over all processes that used the queue, including `unsettled`.
    history: History,
    /// Losses that are not written down yet: an older record is still in the queue.
    unsettled: Vec<Unsettled>,
    written: Option<Checkpoint>,
    unsynced: Unsynced,
    buffer: Vec<u8>,
}

/// Position from which the next record is read.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    /// First id of its segment.
    segment: u64,
    offset: u64,
    /// The record that should be at this offset.
    position: Position,
}

/// A record that [`Spool::peek`] has returned.
#[derive(Clone, Copy, Debug)]
struct Prepared {
    found: Found,
    segment: u64,
    is_retry: bool,
}

impl Spool {
    /// Opens the queue of a directory, and truncates an append that a crash left incomplete.
    ///
    /// # Errors
    /// See [`Error`]; nothing has been changed then.
    pub fn open(config: &Config) -> Result<Self, Error> {
        directory::create(&config.directory)?;
        let lock = directory::lock(&config.directory)?;
        let directory = File::open(&config.directory)
            .map_err(Error::io("open directory", &config.directory))?;
        let scan = directory::scan(&config.directory)?;
        let path = config.directory.display();
        if scan.torn_bytes > 0
            && let Some(last) = scan.segments.back()
        {
            tracing::warn!(
                event = "spool_segment_cut",
                segment = %last.path.display(),
                bytes = scan.torn_bytes,
                "the last segment of the spool ends in an unfinished or damaged entry, which is cut off"
            );
            // If it cannot be truncated, it is skipped on each start.
            let cut = open_own(&last.path, OpenOptions::new().write(true));
            let _ = cut.and_then(|file| file.set_len(last.length));
        }
        for path in &scan.empty {
            tracing::warn!(event = "spool_segment_removed", segment = %path.display(), "no record of a spool segment can be read; removed it");
            fs::remove_file(path).map_err(Error::io("remove", path))?;
        }
        let mut spool = Self {
            config: config.clone(),
            _lock: lock,
            directory: Arc::new(directory),
            read: Cursor { segment: 0, offset: 0, position: scan.done },
            segments: scan.segments,
            active: None,
            end: scan.end,
            window: Window::default(),
            retry_from: None,
            prepared: None,
            reader: None,
            retry_reader: None,
            held: between(scan.done, scan.end),
            inherited: between(scan.done, scan.end).records,
            inherited_end: scan.end.id,
            inherited_acknowledged: 0,
            ages: Ages::default(),
            losses: Losses::default(),
            history: scan.history,
            unsettled: Vec::new(),
            written: None,
            unsynced: Unsynced::default(),
            buffer: Vec::new(),
        };
        spool.remove_settled();
        spool.seek();
        // The creation time of a segment with a damaged header is unknown.
        for segment in spool.segments.iter().filter(|segment| segment.created_at_ms < i64::MAX) {
            spool.ages.note(segment.first.id, segment.created_at_ms);
        }
        let records = spool.held.records;
        if records > 0 {
            tracing::info!(event = "spool_inherited", directory = %path, records, "records of an earlier run wait in the spool");
        }
        Ok(spool)
    }

    /// Returns the records that were appended and are neither acknowledged nor lost.
    #[must_use]
    pub const fn held(&self) -> Amount {
        self.held
    }

    /// Returns the time since when the oldest record waits, in milliseconds since 1970 UTC. For a
    /// record of an earlier run that is the creation time of its segment.
    pub fn oldest_at_ms(&mut self) -> Option<i64> {
        let oldest = self.done().id;
        self.ages.since(oldest).filter(|_| self.held.records > 0)
    }

    /// Returns the id of the next record to be appended.
    #[must_use]
    pub const fn next_id(&self) -> u64 {
        self.end.id
    }

    /// Returns the number of records that were in the queue when it was opened, and have been lost
    /// since.
    #[must_use]
    pub fn inherited_lost(&self) -> u64 {
        let unread = self.inherited_end.saturating_sub(self.read.position.id);
        let left = self.window.pending_below(self.inherited_end) + unread;
        self.inherited.saturating_sub(self.inherited_acknowledged + left)
    }

    /// Returns the id below which all entries have left the queue.
    #[must_use]
    pub fn acknowledged_id(&self) -> u64 {
        self.done().id
    }

    /// Returns the size of all segments in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.length).sum()
    }

    /// Returns the schema versions that the segments' records may have, oldest segment first.
    #[must_use]
    pub fn schema_versions(&self) -> Vec<u32> {
        let mut versions: Vec<_> =
            self.segments.iter().map(|segment| segment.schema_version).collect();
        versions.dedup();
        versions
    }

    /// Returns true if every record has been sent, and none is to be sent again.
    #[must_use]
    pub const fn is_read(&self) -> bool {
        self.read.position.id >= self.end.id && self.window.failed == 0
    }

    /// Returns the number of records that were sent and not yet reported on.
    #[must_use]
    pub const fn sent(&self) -> usize {
        self.window.sent
    }

    /// Returns the losses since the last call.
    pub fn take_losses(&mut self) -> Losses {
        std::mem::take(&mut self.losses)
    }

    /// Returns the totals of all records that ever were in the queue.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals::new(&self.history, self.end, self.held)
    }

    /// Appends all of `records` or none, and drops the oldest segments if that makes room.
    ///
    /// With [`Fsync::Batch`] they are on the disk once [`take_unsynced`](Self::take_unsynced) has
    /// been synced.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append<'a>(
        &mut self,
        records: impl Iterator<Item = Record<'a>> + Clone,
        now_ms: i64,
    ) -> Result<Amount, AppendError> {
        let (mut bytes, mut amount) = (0, Amount::default());
        for record in records.clone() {
            let length = record.key.len() + record.value.len();
            if length > MAX_ENTRY_BYTES {
                return Err(AppendError::TooLong(length));
            }
            bytes += (ENTRY_BYTES + length) as u64;
            amount += Amount::record(u64::from(record.messages));
        }
        if amount.records == 0 {
            return Ok(amount);
        }
        self.close_if_due(bytes, now_ms);
        while self.bytes() + bytes > self.config.max_bytes && self.drop_oldest(Loss::DroppedOldest)
        {
        }
        while let Err((action, cause)) = self.write(records.clone(), now_ms) {
            let is_full = matches!(cause.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
            if !is_full {
                let path = self.config.directory.clone();
                return Err(Error::Io { action, path, cause }.into());
            }
            if !self.drop_oldest(Loss::DroppedOldest) {
                return Err(AppendError::NoSpace);
            }
        }
        self.ages.note(self.end.id, now_ms);
        self.end.id += amount.records;
        self.end.messages += amount.messages;
        self.held += amount;
        Ok(amount)
    }

    /// Writes entries to the active segment, or leaves it unchanged.
    fn write<'a>(
        &mut self,
        records: impl Iterator<Item = Record<'a>>,
        now_ms: i64,
    ) -> Result<(), (&'static str, io::Error)> {
        let file = match &self.active {
            Some(file) => file.clone(),
            None => self.begin_segment(now_ms).map_err(|cause| ("begin a segment in", cause))?,
        };
        let Some(segment) = self.segments.back_mut() else {
            return Err(("write to", ErrorKind::NotFound.into()));
        };
        let (seed, mut position) = (segment.name.seed(), self.end);
        self.buffer.clear();
        for record in records {
            push_entry(&mut self.buffer, seed, position, now_ms, &record);
            position.id += 1;
            position.messages += u64::from(record.messages);
        }
        if let Err(cause) = file.write_all_at(&self.buffer, segment.length) {
            // Some bytes may have been written. If they cannot be truncated, readers skip them,
            // since their ids are those of the next segment.
            let is_cut = file.set_len(segment.length).is_ok();
            if segment.length == start() {
                // A segment must have its first record: its name contains the id.
                self.active = None;
                if let Some(segment) = self.segments.pop_back() {
                    self.remove_unsynced(&segment);
                }
            } else if !is_cut {
                self.active = None;
            }
            return Err(("write to", cause));
        }
        segment.length += self.buffer.len() as u64;
        segment.newest_at_ms = segment.newest_at_ms.max(Some(now_ms));
        // A batch has a megabyte or so at most, unless a single record is longer.
        self.buffer.shrink_to(2 << 20);
        if self.config.fsync != Fsync::Never {
            self.unsynced.push(segment.first.id, file);
        }
        Ok(())
    }

    fn begin_segment(&mut self, now_ms: i64) -> io::Result<Arc<File>> {
        let salt = RandomState::new().build_hasher().finish();
        let name = Name { first_id: self.end.id, salt: (salt & 0xffff_ffff) as u32 };
        let path = self.config.directory.join(name.to_string());
        let header = Header {
            first: self.end,
            created_at_ms: now_ms,
            schema_version: self.config.schema_version,
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = open_own(&path, &mut options)?;
        if let Err(error) = file.write_all_at(&header.encode(), 0) {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        let file = Arc::new(file);
        self.segments.push_back(Segment {
            name,
            path,
            first: self.end,
            schema_version: header.schema_version,
            created_at_ms: now_ms,
            newest_at_ms: None,
            length: start(),
        });
        self.active = Some(file.clone());
        if self.config.fsync != Fsync::Never {
            self.unsynced.directory = Some(self.directory.clone());
        }
        self.seek();
        Ok(file)
    }

    /// Closes the active segment if it has reached its maximum size or age.
    fn close_if_due(&mut self, more_bytes: u64, now_ms: i64) {
        if self.active.is_none() {
            return;
        }
        let Some(last) = self.segments.back() else { return };
        let is_full = last.length + more_bytes > self.config.segment_bytes();
        let age_ms = now_ms.saturating_sub(last.created_at_ms);
        let is_old = self.config.segment_age_ms().is_some_and(|limit_ms| age_ms >= limit_ms);
        if is_full || is_old {
            self.active = None;
        }
    }

    /// Closes the active segment after a failed sync: nothing more is written to the same file.
    pub fn seal_active(&mut self) {
        self.active = None;
    }

    /// Returns the files to be synced now.
    pub fn take_unsynced(&mut self) -> Unsynced {
        std::mem::take(&mut self.unsynced)
    }

    /// Drops records that exceed the maximum age.
    pub fn drop_old(&mut self, now_ms: i64) {
        let Some(max_age_ms) = self.config.max_age_ms() else { return };
        self.close_if_due(0, now_ms);
        while let Some(oldest) = self.segments.front() {
            let next_began_ms = self.segments.get(1).map(|next| next.created_at_ms);
            let newest_ms = oldest.newest_at_ms.or(next_began_ms);
            let is_old = newest_ms.is_some_and(|at_ms| now_ms.saturating_sub(at_ms) > max_age_ms);
            if !is_old || !self.drop_oldest(Loss::TooOld) {
                break;
            }
        }
    }

    /// Drops the oldest segment; returns false if there is none. Its records in flight may still be
    /// delivered.
    fn drop_oldest(&mut self, reason: Loss) -> bool {
        let Some(oldest) = self.segments.pop_front() else { return false };
        let after = self.segments.front().map_or(self.end, |next| next.first);
        if self.segments.is_empty() {
            self.active = None;
        }
        let mut lost = Amount::default();
        for slot in self.window.take_failed_below(after.id) {
            lost += slot.amount();
            self.lose(reason, slot.position.id + 1, slot.amount());
        }
        self.window.mark_dropped_below(after.id, reason);
        if self.read.position.id < after.id {
            let unread = between(self.read.position, after);
            lost += unread;
            self.read.position = after;
            self.read.offset = start();
            self.lose(reason, after.id, unread);
        }
        self.prepared = None;
        // Write the checkpoint first, so that a crash in between loses no loss. If that fails, as
        // on a full disk, deliveries since the last checkpoint count as lost after a crash, and not
        // the other way round.
        let _ = self.checkpoint(false);
        self.remove_unsynced(&oldest);
        self.seek();
        if lost.records > 0 {
            let directory = self.config.directory.display();
            tracing::warn!(event = "spool_dropped", %directory, records = lost.records, ?reason, "dropped the oldest records of the spool");
        }
        true
    }

    fn lose_slot(&mut self, id: u64, state: State, reason: Loss) {
        if let Some(slot) = self.window.change(id, state, State::Settled) {
            self.lose(reason, id + 1, slot.amount());
        }
    }

    /// Counts the records before `after_id` as lost.
    fn lose(&mut self, reason: Loss, after_id: u64, amount: Amount) {
        if amount == Amount::default() {
            return;
        }
        self.losses[reason as usize] += amount;
        self.history.lost[reason as usize] += amount;
        self.unsettled.push(Unsettled { after_id, reason, amount });
        self.held -= amount;
    }

    /// Returns the history with the losses before `done`; later ones are read again after a crash,
    /// and counted again.
    fn settle(&mut self, done: Position) -> History {
        self.unsettled.retain(|unsettled| unsettled.after_id > done.id);
        let mut history = self.history;
        for Unsettled { reason, amount, .. } in &self.unsettled {
            history.lost[*reason as usize] -= *amount;
        }
        history
    }

    /// Returns the position before which all entries have left the queue.
    fn done(&self) -> Position {
        self.window.front().map_or(self.read.position, |slot| slot.position)
    }

    /// Removes segments whose entries have all left the queue, except for the active one.
    fn remove_settled(&mut self) {
        let done = self.done();
        let is_done = |spool: &Self| {
            let next = spool.segments.get(1).map(|next| next.first.id);
            next.or_else(|| spool.active.is_none().then_some(spool.end.id))
                .is_some_and(|next| next <= done.id)
        };
        if self.segments.is_empty() || !is_done(self) {
            return;
        }
        // Write the checkpoint first, so that a crash in between leaves too much and not too
        // little. If that fails, as on a full disk, the removal still makes room.
        let _ = self.checkpoint(false);
        while !self.segments.is_empty() && is_done(self) {
            if let Some(segment) = self.segments.pop_front() {
                self.remove_unsynced(&segment);
            }
        }
        self.seek();
    }

    fn remove_unsynced(&mut self, segment: &Segment) {
        self.unsynced.remove(segment.first.id);
        if let Err(error) = fs::remove_file(&segment.path) {
            let path = segment.path.display();
            tracing::error!(event = "spool_segment_not_removed", %error, %path, "cannot remove a segment of the spool");
        }
        for reader in [&mut self.reader, &mut self.retry_reader] {
            if reader.as_ref().is_some_and(|(first_id, _)| *first_id == segment.first.id) {
                *reader = None;
            }
        }
    }

    /// Moves the cursor to the segment of the next record to read, unless it is in one already.
    fn seek(&mut self) {
        if self.index_of(self.read.segment).is_some() && self.read.offset > 0 {
            return;
        }
        let position = self.read.position;
        // The last segment that begins at or before the record, or else the first one.
        let index = self.segments.partition_point(|segment| segment.first.id <= position.id);
        if let Some(segment) = self.segments.get(index.saturating_sub(1)) {
            self.read.segment = segment.first.id;
            self.read.offset = start();
        }
    }

    fn index_of(&self, first_id: u64) -> Option<usize> {
        self.segments.binary_search_by_key(&first_id, |segment| segment.first.id).ok()
    }

    /// Writes the checkpoint if it has changed.
    ///
    /// # Errors
    /// Returns the error of the file system; records may be sent again after a crash then.
    pub fn checkpoint(&mut self, sync: bool) -> Result<(), Error> {
        let done = self.done();
        let history = Some(self.settle(done));
        let checkpoint = Checkpoint { done, end: self.end, history };
        if self.written == Some(checkpoint) && !sync {
            return Ok(());
        }
        checkpoint.write(&self.config.directory, sync)?;
        self.written = Some(checkpoint);
        Ok(())
    }

    /// Writes all that the next start needs, and syncs it to the disk.
    ///
    /// # Errors
    /// Returns the error of the file system.
    pub fn close(&mut self) -> Result<(), Error> {
        self.active = None;
        self.remove_settled();
        let sync = self.config.fsync != Fsync::Never;
        let synced = self.take_unsynced().sync();
        synced.map_err(Error::io("sync", &self.config.directory))?;
        self.checkpoint(sync)?;
        if sync {
            // Sync the rename of the checkpoint.
            let synced = self.directory.sync_all();
            synced.map_err(Error::io("sync", &self.config.directory))?;
        }
        Ok(())
    }
}
