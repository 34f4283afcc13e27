//! Avro object container files in a directory, finished by size and by age.
//!
//! A file is `<prefix>-<UTC time>-<number>.avro.partial` until its last block is on disk, and
//! loses the `.partial` then: what has its final name is whole. A record counts as delivered when
//! its block is written; the disk is forced (fsync) when a file is finished, so a power failure
//! costs at most the file that was open.

use std::{
    fs, io,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use apache_avro::{Codec, DeflateSettings};

use super::{Error, Sink, container::Container};
use crate::{
    config::{FileCodec, FileConfig},
    encode::{Batch, Format},
    ledger::{Amount, Published, SinkCounts, SinkLoss},
};

/// Files one after the other.
pub(super) struct Files {
    config: FileConfig,
    codec: Codec,
    node: String,
    counts: Published<SinkCounts>,
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
}

impl Files {
    /// Checks that the directory can be written to, so that a mistake shows at the start.
    pub(super) fn open(config: &FileConfig, node: &str) -> Result<Self, Error> {
        let refused = |action, cause| Error::File {
            sink: config.name.clone(),
            action,
            path: config.directory.display().to_string(),
            cause,
        };
        let probe = config.directory.join(format!(".{}-{}", config.prefix, std::process::id()));
        fs::write(&probe, []).map_err(|cause| refused("write to", cause))?;
        fs::remove_file(&probe).map_err(|cause| refused("remove a file from", cause))?;
        let entries = fs::read_dir(&config.directory).map_err(|cause| refused("list", cause))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(&config.prefix) && name.ends_with(".avro.partial") {
                tracing::warn!(
                    path = %entry.path().display(),
                    "an earlier run left an unfinished file; its whole blocks can be read"
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
            state: Mutex::default(),
        })
    }

    /// Writes a block; true when the file has reached its size.
    fn append(&self, state: &mut State, batch: &Batch) -> io::Result<bool> {
        let mut open = match state.open.take() {
            Some(open) => open,
            None => self.create(state)?,
        };
        let appended = open.container.append(batch.records(), batch.bytes());
        let full = open.container.length() >= self.config.rotate_bytes;
        state.open = Some(open);
        appended.map(|()| full)
    }

    fn create(&self, state: &mut State) -> io::Result<Open> {
        let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let path = loop {
            state.number += 1;
            let name = format!("{}-{time}-{:06}.avro", self.config.prefix, state.number);
            let path: PathBuf = self.config.directory.join(name);
            if !path.exists() {
                break path;
            }
        };
        let container = Container::create(path, self.codec, &self.node)?;
        Ok(Open { container, since: Instant::now() })
    }

    fn finish(&self, state: &mut State) -> io::Result<()> {
        let Some(open) = state.open.take() else {
            return Ok(());
        };
        let bytes = open.container.length();
        let path = open.container.finish()?;
        tracing::debug!(path = %path.display(), bytes, "file finished");
        Ok(())
    }

    fn with_state(&self, act: impl FnOnce(&mut State)) {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn log_finish(&self, finished: io::Result<()>) {
        if let Err(error) = finished {
            let directory = self.config.directory.display();
            tracing::error!(%error, %directory, "a file could not be finished and keeps its .partial name");
        }
    }
}

impl Sink for Files {
    fn format(&self) -> Format {
        Format::AvroDatum
    }

    fn counts(&self) -> &Published<SinkCounts> {
        &self.counts
    }

    fn write(&self, batch: &Batch) {
        let amount = Amount { records: batch.records(), messages: batch.messages() };
        self.with_state(|state| {
            let appended = self.append(state, batch);
            self.counts.update(|counts| {
                counts.offered += amount;
                match appended {
                    Ok(_) => counts.delivered += amount,
                    Err(_) => counts.lose(SinkLoss::WriteFailed, amount),
                }
            });
            let directory = self.config.directory.display();
            match (appended, state.failing) {
                (Ok(full), failing) => {
                    if failing {
                        tracing::info!(%directory, "writing again");
                    }
                    state.failing = false;
                    if full {
                        self.log_finish(self.finish(state));
                    }
                }
                (Err(error), false) => {
                    state.failing = true;
                    tracing::error!(%error, %directory, "cannot write; records are lost and counted");
                }
                (Err(_), true) => {}
            }
        });
    }

    fn tick(&self, now: Instant) {
        self.with_state(|state| {
            let aged = |open: &Open| now.saturating_duration_since(open.since);
            if state.open.as_ref().is_some_and(|open| aged(open) >= self.config.rotate_after) {
                self.log_finish(self.finish(state));
            }
        });
    }

    fn close(&self, _deadline: Duration) {
        self.with_state(|state| self.log_finish(self.finish(state)));
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::Reader;

    use super::*;
    use crate::encode::{Datum, samples};

    fn config(directory: &std::path::Path, rotate_bytes: u64) -> FileConfig {
        FileConfig {
            name: "file".into(),
            directory: directory.into(),
            prefix: "t".into(),
            rotate_bytes,
            rotate_after: Duration::from_secs(60),
            codec: FileCodec::None,
        }
    }

    fn batch() -> Batch {
        let (mut batch, mut datum) = (Batch::default(), Datum);
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
}
