//! The `spool` section: records wait there while the broker does not accept them.

use std::{path::PathBuf, time::Duration};

use clap::ValueEnum;
use serde::Serialize;
use tap53_base::settings::{Section, choice, milliseconds, own_directory, seconds, whole_number};
use tap53_records::encode::SCHEMA_VERSION;
use tap53_spool::{self as spool, Fsync};

/// A queue on disk between the agent and a broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SpoolConfig {
    /// Selects the records to spool.
    pub mode: SpoolMode,
    /// Its directory, which no other sink uses.
    pub directory: PathBuf,
    /// The most bytes that it holds; the oldest records are dropped for more.
    pub max_bytes: u64,
    /// The age at which records are dropped, if there is a limit.
    #[serde(rename = "max_age_s", serialize_with = "seconds_or_zero")]
    pub max_age: Option<Duration>,
    /// The policy that syncs records to the disk.
    pub fsync: FsyncChoice,
    /// The interval of [`FsyncChoice::Interval`].
    #[serde(
        rename = "fsync_interval_ms",
        serialize_with = "tap53_base::settings::as_milliseconds"
    )]
    pub fsync_interval: Duration,
    /// The rate at which waiting records are sent in addition to new ones, if there is a limit.
    #[serde(serialize_with = "number_or_zero")]
    pub replay_records_per_s: Option<u32>,
}

impl SpoolConfig {
    /// Returns the configuration of the spool of records.
    pub(crate) fn of_records(&self) -> spool::Config {
        spool::Config {
            directory: self.directory.clone(),
            max_bytes: self.max_bytes,
            max_age: self.max_age,
            fsync: match self.fsync {
                FsyncChoice::Batch => Fsync::Batch,
                FsyncChoice::Interval => Fsync::Interval(self.fsync_interval),
                FsyncChoice::Never => Fsync::Never,
            },
            schema_version: SCHEMA_VERSION.unsigned_abs(),
        }
    }
}

/// Selects the records that go to the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum SpoolMode {
    /// Those that the broker does not accept, or not in time.
    Fast,
    /// All, before they count as accepted.
    Durable,
}

/// When records in the spool are forced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum FsyncChoice {
    /// Each batch, before it counts as accepted.
    Batch,
    /// At intervals.
    Interval,
    /// Whenever the kernel likes.
    Never,
}

impl SpoolConfig {
    /// Reads the section; `None` if the spool is off, or something is missing.
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        /// The `mode` key.
        #[derive(Clone, Copy, PartialEq, ValueEnum)]
        enum Mode {
            Fast,
            Durable,
            Off,
        }

        let mode = section.read("mode", choice::<Mode>).unwrap_or(Mode::Fast);
        let directory = match mode {
            Mode::Off => section.read("directory", section.path(own_directory)),
            _ => section.require("directory", section.path(own_directory)),
        };
        let max_bytes = section.read("max_bytes", whole_number(spool::Config::MIN_BYTES..=1 << 42));
        // Ten years, or no limit.
        let max_age = section.read("max_age_s", seconds(0..=10 * 365 * 24 * 3600));
        let fsync = section.read("fsync", choice);
        let fsync_interval = section.read("fsync_interval_ms", milliseconds(10..=3_600_000));
        let replay = section.read("replay_records_per_s", whole_number(0..=10_000_000));
        let mode = match mode {
            Mode::Fast => SpoolMode::Fast,
            Mode::Durable => SpoolMode::Durable,
            Mode::Off => return None,
        };
        Some(Self {
            mode,
            directory: directory?,
            max_bytes: max_bytes.unwrap_or(1 << 30),
            max_age: max_age.filter(|age| !age.is_zero()),
            fsync: fsync.unwrap_or(match mode {
                SpoolMode::Fast => FsyncChoice::Interval,
                SpoolMode::Durable => FsyncChoice::Batch,
            }),
            fsync_interval: fsync_interval.unwrap_or(Duration::from_secs(1)),
            replay_records_per_s: match replay {
                None => Some(10_000),
                Some(0) => None,
                limit => limit,
            },
        })
    }
}

fn seconds_or_zero<S: serde::Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    tap53_base::settings::as_seconds(&duration.unwrap_or_default(), serializer)
}

fn number_or_zero<S: serde::Serializer>(
    number: &Option<u32>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_u32(number.unwrap_or(0))
}
