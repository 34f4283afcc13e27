//! Avro object container files in a directory, finished by size and by age.
//!
//! A file is `<prefix>-<UTC time>-<number>.avro.partial` until its last block is synced to disk
//! (fsync). Then it gets its final name without `.partial`. Its records are in flight until then, and
//! delivered from then on. If the file cannot be finished, or was removed, they are lost and counted.

use std::{
    fs,
    io::{self, ErrorKind},
    time::{Duration, Instant},
};

use apache_avro::{Codec, DeflateSettings};
use parking_lot::Mutex;
use tap53_base::{
    amount::Amount,
    clock::monotonic_ns,
    files::check_directory,
    vitals::{Reached, SinkTimings},
};
use tap53_ledger::{Published, SinkCounts, SinkLoss};
use tap53_records::encode::{Batch, Format};

use super::{OpenError, Sink, container::Container};
use crate::config::{FileCodec, FileConfig};

/// Batches of all workers within this time are one block of a file, unless they are large.
const LINGER: Duration = Duration::from_millis(100);

/// The sink, which writes one file after the other.
pub(super) struct Files {
    config: FileConfig,
    codec: Codec,
    node: String,
    counts: Published<SinkCounts>,
    timings: SinkTimings,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    /// Number of the next file.
    number: u64,
    /// True after a failed write, until one succeeds: each outage is logged once.
    failing: bool,
}

struct Open {
    container: Container,
    since: Instant,
    /// The records in it.
    amount: Amount,
}

impl Files {
    /// Checks that the directory can be written to, so that the start fails if it cannot.
    pub(super) fn open(config: &FileConfig, node: &str) -> Result<Self, OpenError> {
        let refused = |action, cause| OpenError::File {
            action,
            path: config.directory.display().to_string(),
            cause,
        };
        let sink = &config.name;
        if let Err(error) = check_directory(&config.directory) {
            let directory = config.directory.display();
            tracing::warn!(event = "file_directory_unsafe", sink, %error, %directory, "others can remove or rename the files of this sink");
        }
        let probe = tempfile::Builder::new()
            .prefix(&format!(".{}-", config.prefix))
            .tempfile_in(&config.directory)
            .map_err(|cause| refused("write to", cause))?;
        probe.close().map_err(|cause| refused("remove a file from", cause))?;
        let entries = fs::read_dir(&config.directory).map_err(|cause| refused("list", cause))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(&config.prefix) && name.ends_with(".avro.partial") {
                tracing::warn!(
                    event = "file_unfinished",
                    sink,
                    path = %entry.path().display(),
                    "an unfinished file of an earlier run, or of another agent; its whole blocks can be read"
                );
            }
        }
        Ok(Self {
            config: config.clone(),
            codec: match config.codec {
                FileCodec::None => Codec::Null,
                FileCodec::Deflate => Codec::Deflate(DeflateSettings::default()),
            },
            node: node.to_owned(),
            counts: Published::default(),
            timings: SinkTimings::default(),
            state: Mutex::default(),
        })
    }

    /// Writes a block; true when the file has reached its size.
    fn append(&self, state: &mut State, batch: &Batch, amount: Amount) -> io::Result<bool> {
        if state.open.as_ref().is_some_and(|open| !open.container.is_in_place()) {
            // It was removed or moved, so no reader would find its records.
            self.finish(state);
        }
        let mut open = match state.open.take() {
            Some(open) => open,
            None => self.create(state)?,
        };
        let appended = open.container.append(batch.records(), batch.bytes());
        if appended.is_ok() {
            open.amount += amount;
        }
        let full = open.container.length() >= self.config.rotate_bytes;
        state.open = Some(open);
        appended.map(|()| full)
    }

    /// Records show which client queried which name: only the owner may read a file, unless its group
    /// ships it.
    const fn mode(&self) -> u32 {
        if self.config.group_read { 0o640 } else { 0o600 }
    }

    fn create(&self, state: &mut State) -> io::Result<Open> {
        let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        loop {
            state.number += 1;
            let name = format!("{}-{time}-{:06}.avro", self.config.prefix, state.number);
            let path = self.config.directory.join(name);
            match Container::create(path, self.config.profile, self.codec, &self.node, self.mode())
            {
                // It is another agent's, or that of one that was killed within this second: take the next number.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                created => {
                    let since = Instant::now();
                    return created.map(|container| Open {
                        container,
                        since,
                        amount: Amount::default(),
                    });
                }
            }
        }
    }

    /// Gives the open file its final name, and accounts for its records.
    fn finish(&self, state: &mut State) {
        let Some(open) = state.open.take() else { return };
        let finished = open.container.finish();
        self.counts.update(|counts| {
            counts.in_flight -= open.amount;
            match finished {
                Ok(_) => counts.delivered += open.amount,
                Err(_) => counts.lose(SinkLoss::WriteFailed, open.amount),
            }
        });
        match finished {
            Ok(path) => {
                let records = open.amount.records;
                tracing::debug!(
                    event = "file_finished",
                    path = %path.display(),
                    records,
                    "file finished"
                );
            }
            Err(error) => {
                let (sink, directory) = (&self.config.name, self.config.directory.display());
                let records = open.amount.records;
                tracing::error!(event = "file_not_finished", sink, %error, %directory, records, "cannot finish a file; its records are lost and counted");
            }
        }
    }

    /// Leaves the open file under its temporary name: its records are not all that it should have.
    fn leave_unfinished(&self, state: &mut State) {
        let Some(open) = state.open.take() else { return };
        self.counts.update(|counts| {
            counts.in_flight -= open.amount;
            counts.lose(SinkLoss::Unflushed, open.amount);
        });
        let (sink, records) = (&self.config.name, open.amount.records);
        let path = open.container.leave();
        tracing::warn!(
            event = "file_left_unfinished",
            sink,
            records,
            path = %path.display(),
            "interrupted: the last file is incomplete and keeps its temporary name; its whole blocks \
             can be read"
        );
    }

    fn with_state(&self, act: impl FnOnce(&mut State)) {
        act(&mut self.state.lock());
    }
}

impl Sink for Files {
    fn format(&self) -> Format {
        self.config.profile.datum()
    }

    fn counts(&self) -> &Published<SinkCounts> {
        &self.counts
    }

    fn timings(&self) -> Option<&SinkTimings> {
        Some(&self.timings)
    }

    fn linger(&self) -> Duration {
        LINGER
    }

    fn write(&self, batch: &Batch) {
        let amount = super::amount(batch);
        self.with_state(|state| {
            let appended = self.append(state, batch, amount);
            self.counts.update(|counts| {
                counts.offer(amount);
                match appended {
                    Ok(_) => counts.in_flight += amount,
                    Err(_) => counts.lose(SinkLoss::WriteFailed, amount),
                }
            });
            let (sink, directory) = (&self.config.name, self.config.directory.display());
            match (appended, state.failing) {
                (Ok(full), failing) => {
                    self.timings.all_reached(Reached::Written, batch.answered_at_ns(), monotonic_ns());
                    if failing {
                        tracing::info!(event = "file_write_resumed", sink, %directory, "writing again");
                    }
                    state.failing = false;
                    if full {
                        self.finish(state);
                    }
                }
                (Err(error), false) => {
                    state.failing = true;
                    tracing::error!(event = "file_write_failed", sink, %error, %directory, "cannot write; records are lost and counted");
                }
                (Err(_), true) => {}
            }
        });
    }

    fn tick(&self, now: Instant) {
        self.with_state(|state| {
            let aged = |open: &Open| now.saturating_duration_since(open.since);
            if state.open.as_ref().is_some_and(|open| aged(open) >= self.config.rotate_after) {
                self.finish(state);
            }
        });
    }

    fn close(&self, _deadline: Duration) {
        self.with_state(|state| self.finish(state));
    }

    fn close_interrupted(&self, _deadline: Duration) {
        self.with_state(|state| self.leave_unfinished(state));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use apache_avro::Reader;

    use super::*;
    use tap53_records::encode::{Datum, Profile, samples};

    fn config(directory: &std::path::Path, rotate_bytes: u64) -> FileConfig {
        FileConfig {
            name: "file".into(),
            directory: directory.into(),
            prefix: "t".into(),
            rotate_bytes,
            rotate_after: Duration::from_secs(60),
            codec: FileCodec::None,
            group_read: false,
            profile: Profile::Full,
        }
    }

    fn batch() -> Batch {
        let (mut batch, mut datum) = (Batch::default(), Datum::default());
        samples::with_record("matched", |record| batch.push(&mut datum, record).unwrap());
        batch
    }

    /// Records in files with a final name, and the number of other files.
    fn content(directory: &std::path::Path) -> (usize, usize) {
        let (mut records, mut others) = (0, 0);
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "avro") {
                records += Reader::new(fs::File::open(path).unwrap()).unwrap().count();
            } else {
                others += 1;
            }
        }
        (records, others)
    }

    #[test]
    fn a_file_is_finished_by_size() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::open(&config(directory.path(), 1), "n").unwrap();
        files.write(&batch());
        files.write(&batch());
        assert_eq!(content(directory.path()), (2, 0));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
        assert_eq!(files.counts().read().delivered, Amount { records: 2, messages: 4 });
    }

    #[test]
    fn a_file_is_finished_by_age_and_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::open(&config(directory.path(), u64::MAX), "n").unwrap();
        files.write(&batch());
        files.tick(Instant::now());
        assert_eq!(content(directory.path()), (0, 1));
        files.tick(Instant::now() + Duration::from_secs(61));
        assert_eq!(content(directory.path()), (1, 0));
        files.write(&batch());
        files.close(Duration::ZERO);
        assert_eq!(content(directory.path()), (2, 0));
    }

    #[test]
    fn an_interruption_leaves_the_last_file_under_its_temporary_name() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::open(&config(directory.path(), u64::MAX), "n").unwrap();
        files.write(&batch());
        files.close_interrupted(Duration::ZERO);
        assert_eq!(content(directory.path()), (0, 1));
        let counts = files.counts().read();
        assert_eq!((counts.in_flight, counts.delivered), Default::default());
        assert_eq!(counts.lost[SinkLoss::Unflushed as usize], Amount { records: 1, messages: 2 });
        let partial = fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
        assert_eq!(Reader::new(fs::File::open(partial).unwrap()).unwrap().count(), 1);
        files.close(Duration::ZERO);
        assert_eq!(content(directory.path()), (0, 1));
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_refused_and_one_that_goes_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gone");
        assert!(Files::open(&config(&path, 1), "n").is_err());
        fs::create_dir(&path).unwrap();
        let files = Files::open(&config(&path, 1), "n").unwrap();
        fs::remove_dir(&path).unwrap();
        files.write(&batch());
        let counts = files.counts().read();
        assert_eq!((counts.offered.records, counts.delivered.records), (1, 0));
        assert_eq!(counts.lost[SinkLoss::WriteFailed as usize].records, 1);
        fs::create_dir(&path).unwrap();
        files.write(&batch());
        assert_eq!(files.counts().read().delivered.records, 1);
    }

    #[test]
    fn a_file_that_went_away_is_lost_and_a_new_one_begun() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::open(&config(directory.path(), u64::MAX), "n").unwrap();
        files.write(&batch());
        for entry in fs::read_dir(directory.path()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        files.write(&batch());
        files.close(Duration::ZERO);
        let counts = files.counts().read();
        assert_eq!((counts.offered.records, counts.delivered.records), (2, 1));
        assert_eq!(counts.lost[SinkLoss::WriteFailed as usize].records, 1);
        assert_eq!((counts.in_flight, content(directory.path())), (Amount::default(), (1, 0)));
    }

    #[test]
    fn files_are_their_owners_alone_unless_the_group_is_to_read_them() {
        for (group_read, expected) in [(false, 0o600), (true, 0o640)] {
            let directory = tempfile::tempdir().unwrap();
            let config = FileConfig { group_read, ..config(directory.path(), u64::MAX) };
            let files = Files::open(&config, "n").unwrap();
            files.write(&batch());
            let modes = || {
                let mut entries = fs::read_dir(directory.path()).unwrap();
                let found = entries.next().unwrap().unwrap().metadata().unwrap();
                (found.permissions().mode() & 0o7777, entries.next().is_none())
            };
            assert_eq!(modes(), (expected, true), "while it is written");
            files.close(Duration::ZERO);
            assert_eq!(modes(), (expected, true), "finished");
        }
    }

    #[test]
    fn a_link_in_the_place_of_a_file_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let precious = directory.path().join("precious");
        fs::write(&precious, "x").unwrap();
        // The names of the next files, for as long as this test may take.
        let now = jiff::Timestamp::now();
        for second in 0..30 {
            let time = now + jiff::SignedDuration::from_secs(second);
            let name = time.strftime("t-%Y%m%dT%H%M%SZ-000001.avro.partial").to_string();
            std::os::unix::fs::symlink(&precious, directory.path().join(name)).unwrap();
        }
        let files = Files::open(&config(directory.path(), u64::MAX), "n").unwrap();
        files.write(&batch());
        files.close(Duration::ZERO);
        assert_eq!(files.counts().read().delivered.records, 1);
        assert_eq!(fs::read(&precious).unwrap(), b"x");
    }

    #[test]
    fn a_name_that_is_taken_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let sinks = [0, 1].map(|_| Files::open(&config(directory.path(), u64::MAX), "n").unwrap());
        for files in &sinks {
            files.write(&batch());
        }
        for files in &sinks {
            files.close(Duration::ZERO);
            assert_eq!(files.counts().read().delivered.records, 1);
        }
        assert_eq!(content(directory.path()), (2, 0));
    }
}
