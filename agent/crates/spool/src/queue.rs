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
    segment::{ENTRY_BYTES, Header, LONGEST, Name, Place, Record, between, push_entry},
    unsynced::Unsynced,
    window::{State, Window},
};

/// A queue of records on disk. See the [module](super).
pub struct Spool {
    config: Config,
    /// Locked for as long as it is open.
    _lock: File,
    directory: Arc<File>,
    segments: VecDeque<Segment>,
    /// The last segment's file, where it may be appended to.
    active: Option<Arc<File>>,
    /// Where the next record goes.
    end: Place,
    read: Cursor,
    window: Window,
    /// Where those that failed are sent again from, while that goes on.
    retry_from: Option<u64>,
    prepared: Option<Prepared>,
    reader: Option<(u64, Reader)>,
    /// For those that are sent again.
    retry_reader: Option<(u64, Reader)>,
    held: Amount,
    /// Records that were there when it was opened: how many, the id after them, and how many of them
    /// have been acknowledged.
    inherited: u64,
    inherited_end: u64,
    inherited_acknowledged: u64,
    ages: Ages,
    losses: Losses,
    /// Of all processes that had the queue, what is unsettled included.
    history: History,
    /// Lost, and not written down: something older has not left the queue.
    unsettled: Vec<Unsettled>,
    written: Option<Checkpoint>,
    unsynced: Unsynced,
    buffer: Vec<u8>,
}

/// Where the next record is read.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    /// First id of the segment.
    segment: u64,
    offset: u64,
    /// The record that should be there.
    place: Place,
}

/// A record that [`Spool::peek`] has shown.
#[derive(Clone, Copy, Debug)]
struct Prepared {
    found: Found,
    segment: u64,
    is_retry: bool,
}

impl Spool {
    /// Opens the queue of a directory, and cuts what a crash left unfinished.
    ///
    /// # Errors
    /// See [`Error`]; nothing has been changed then.
    pub fn open(config: &Config) -> Result<Self, Error> {
        directory::make(&config.directory)?;
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
            // If it cannot be cut, it is passed over each time.
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
            read: Cursor { segment: 0, offset: 0, place: scan.done },
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
        spool.remove_done();
        spool.seek();
        // Of one whose beginning cannot be read it is not known.
        for segment in spool.segments.iter().filter(|segment| segment.created_at_ms < i64::MAX) {
            spool.ages.note(segment.first.id, segment.created_at_ms);
        }
        let records = spool.held.records;
        if records > 0 {
            tracing::info!(event = "spool_inherited", directory = %path, records, "records of an earlier run wait in the spool");
        }
        Ok(spool)
    }

    /// Records that were appended and are neither acknowledged nor lost.
    #[must_use]
    pub const fn held(&self) -> Amount {
        self.held
    }

    /// Since when the oldest that is held waits, milliseconds since 1970 UTC; of one that an
    /// earlier run has left, since when its segment is there.
    pub fn oldest_at_ms(&mut self) -> Option<i64> {
        let oldest = self.done().id;
        self.ages.since(oldest).filter(|_| self.held.records > 0)
    }

    /// Id of the next record to be appended.
    #[must_use]
    pub const fn next_id(&self) -> u64 {
        self.end.id
    }

    /// Records that were there when it was opened, and have been lost since.
    #[must_use]
    pub fn inherited_lost(&self) -> u64 {
        let unread = self.inherited_end.saturating_sub(self.read.place.id);
        let left = self.window.undone_below(self.inherited_end) + unread;
        self.inherited.saturating_sub(self.inherited_acknowledged + left)
    }

    /// Id below which all entries have left.
    #[must_use]
    pub fn acknowledged_id(&self) -> u64 {
        self.done().id
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.length).sum()
    }

    /// Versions of the schema that the segments' records may be of, oldest segment first.
    #[must_use]
    pub fn schema_versions(&self) -> Vec<u32> {
        let mut versions: Vec<_> =
            self.segments.iter().map(|segment| segment.schema_version).collect();
        versions.dedup();
        versions
    }

    /// True if every record has been handed out, and none is to be handed out again.
    #[must_use]
    pub const fn is_read(&self) -> bool {
        self.read.place.id >= self.end.id && self.window.failed == 0
    }

    /// Records that were handed out and not yet reported on.
    #[must_use]
    pub const fn sent(&self) -> usize {
        self.window.sent
    }

    /// What was lost since this was last called.
    pub fn take_losses(&mut self) -> Losses {
        std::mem::take(&mut self.losses)
    }

    /// What became of all records that ever were in the queue.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals::new(&self.history, self.end, self.held)
    }

    /// Appends all of `records` or none, dropping the oldest where that makes room.
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
            if length > LONGEST {
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

    /// Writes entries to the active segment, or leaves it as it was.
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
        let (seed, mut place) = (segment.name.seed(), self.end);
        self.buffer.clear();
        for record in records {
            push_entry(&mut self.buffer, seed, place, now_ms, &record);
            place.id += 1;
            place.messages += u64::from(record.messages);
        }
        if let Err(cause) = file.write_all_at(&self.buffer, segment.length) {
            // Part of it may be there. If it cannot be cut it is passed over, since its ids are the
            // next segment's.
            let is_cut = file.set_len(segment.length).is_ok();
            if segment.length == start() {
                // Each segment has a first record: its name says so.
                self.active = None;
                if let Some(segment) = self.segments.pop_back() {
                    self.forget(&segment);
                }
            } else if !is_cut {
                self.active = None;
            }
            return Err(("write to", cause));
        }
        segment.length += self.buffer.len() as u64;
        segment.newest_at_ms = segment.newest_at_ms.max(Some(now_ms));
        // A batch is at most a megabyte or so, unless a record alone is longer.
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

    /// Closes the active segment where it has reached its size or age.
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

    /// Closes the active segment, after what was appended could not be synced: nothing more goes to the
    /// same file.
    pub fn seal_active(&mut self) {
        self.active = None;
    }

    /// What is to be synced now.
    pub fn take_unsynced(&mut self) -> Unsynced {
        std::mem::take(&mut self.unsynced)
    }

    /// Drops what is older than records may get.
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

    /// Drops the oldest segment; false if there is none. What of it is in flight may yet arrive.
    fn drop_oldest(&mut self, reason: Loss) -> bool {
        let Some(oldest) = self.segments.pop_front() else { return false };
        let after = self.segments.front().map_or(self.end, |next| next.first);
        if self.segments.is_empty() {
            self.active = None;
        }
        let mut lost = Amount::default();
        for slot in self.window.give_up_failed_below(after.id) {
            lost += slot.amount();
            self.lose(reason, slot.place.id + 1, slot.amount());
        }
        self.window.segments_gone_below(after.id, reason);
        if self.read.place.id < after.id {
            let unread = between(self.read.place, after);
            lost += unread;
            self.read.place = after;
            self.read.offset = start();
            self.lose(reason, after.id, unread);
        }
        self.prepared = None;
        // First, so that a crash in between loses no loss. Where that fails, as on a full disk, what
        // had arrived since the last one counts as lost after a crash, and not the other way round.
        let _ = self.checkpoint(false);
        self.forget(&oldest);
        self.seek();
        if lost.records > 0 {
            let directory = self.config.directory.display();
            tracing::warn!(event = "spool_dropped", %directory, records = lost.records, ?reason, "dropped the oldest records of the spool");
        }
        true
    }

    fn lose_slot(&mut self, id: u64, state: State, reason: Loss) {
        if let Some(slot) = self.window.change(id, state, State::Done) {
            self.lose(reason, id + 1, slot.amount());
        }
    }

    /// Counts as lost what lies before `after_id`.
    fn lose(&mut self, reason: Loss, after_id: u64, amount: Amount) {
        if amount == Amount::default() {
            return;
        }
        self.losses[reason as usize] += amount;
        self.history.lost[reason as usize] += amount;
        self.unsettled.push(Unsettled { after_id, reason, amount });
        self.held -= amount;
    }

    /// What was lost before `done`: the rest is read again after a crash, and lost again.
    fn settle(&mut self, done: Place) -> History {
        self.unsettled.retain(|unsettled| unsettled.after_id > done.id);
        let mut history = self.history;
        for Unsettled { reason, amount, .. } in &self.unsettled {
            history.lost[*reason as usize] -= *amount;
        }
        history
    }

    /// All entries before it have left.
    fn done(&self) -> Place {
        self.window.front().map_or(self.read.place, |slot| slot.place)
    }

    /// Removes segments that all entries have left, but not the one that is appended to.
    fn remove_done(&mut self) {
        let done = self.done();
        let is_done = |spool: &Self| {
            let next = spool.segments.get(1).map(|next| next.first.id);
            next.or_else(|| spool.active.is_none().then_some(spool.end.id))
                .is_some_and(|next| next <= done.id)
        };
        if self.segments.is_empty() || !is_done(self) {
            return;
        }
        // First, so that a crash in between leaves too much and not too little. Where that fails,
        // as on a full disk, the removal is what makes room.
        let _ = self.checkpoint(false);
        while !self.segments.is_empty() && is_done(self) {
            if let Some(segment) = self.segments.pop_front() {
                self.forget(&segment);
            }
        }
        self.seek();
    }

    fn forget(&mut self, segment: &Segment) {
        self.unsynced.forget(segment.first.id);
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

    /// Moves the cursor to the segment of the record that is to be read, where it is in none.
    fn seek(&mut self) {
        if self.index_of(self.read.segment).is_some() && self.read.offset > 0 {
            return;
        }
        let place = self.read.place;
        // The last one that begins at or before it, else the first one.
        let index = self.segments.partition_point(|segment| segment.first.id <= place.id);
        if let Some(segment) = self.segments.get(index.saturating_sub(1)) {
            self.read.segment = segment.first.id;
            self.read.offset = start();
        }
    }

    fn index_of(&self, first_id: u64) -> Option<usize> {
        self.segments.binary_search_by_key(&first_id, |segment| segment.first.id).ok()
    }

    /// Writes which entries have left the queue, where that has changed.
    ///
    /// # Errors
    /// When the file system refuses; records may be sent again after a crash then.
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

    /// Writes down all that a next start wants to know, and syncs it to the disk.
    ///
    /// # Errors
    /// What the file system says.
    pub fn close(&mut self) -> Result<(), Error> {
        self.active = None;
        self.remove_done();
        let sync = self.config.fsync != Fsync::Never;
        let synced = self.take_unsynced().sync();
        synced.map_err(Error::io("sync", &self.config.directory))?;
        self.checkpoint(sync)?;
        if sync {
            // The checkpoint's new name.
            let synced = self.directory.sync_all();
            synced.map_err(Error::io("sync", &self.config.directory))?;
        }
        Ok(())
    }
}
