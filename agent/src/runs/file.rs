//! The file that a run writes, and the lock of its owner.
//!
//! ```text
//!  <directory>/
//!    run.lock     flock(2), exclusive, for as long as the agent runs
//!    run.json     replaced by rename; without fsync(2), since it has to survive a killed process and
//!                 not a crash of the machine
//! ```

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tap53_base::files::{check_directory, open_own, read_own};
use tap53_ledger::{EarlierRuns, Standing};

/// Version of the file. A file of another version is ignored.
const VERSION: u32 = 1;

/// Maximum size of the file, in bytes; some thousands of interfaces take less.
const MAX_BYTES: u64 = 16 << 20;

const LOCK: &str = "run.lock";
const FILE: &str = "run.json";
const NEW_FILE: &str = "run.json.new";

/// Stage of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    Running,
    /// The programs are about to be detached.
    Stopping,
    /// The programs are detached, and the rest is delivered.
    Detached,
    Ended,
}

/// A moment by two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Moment {
    /// Microseconds since 1970 UTC.
    pub(super) utc_us: i64,
    /// CLOCK_BOOTTIME, since the machine started.
    pub(super) boot_us: u64,
}

/// The packet counters of an interface at one moment of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    pub(super) name: String,
    pub(super) ifindex: u32,
    /// Ingress and egress.
    pub(super) captured: [bool; 2],
    /// Packets that the device had received and sent.
    pub(super) packets: [u64; 2],
    /// The same after everything was detached.
    #[serde(default)]
    pub(super) packets_after: Option<[u64; 2]>,
}

/// The state of a run, as it is saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Saved {
    pub(super) version: u32,
    /// `/proc/sys/kernel/random/boot_id`.
    pub(super) boot_id: String,
    /// Inode of the network namespace, which the interfaces' numbers belong to.
    pub(super) namespace: u64,
    pub(super) stage: Stage,
    pub(super) written_at: Moment,
    /// Time at which the positions were read.
    pub(super) positions_at: Moment,
    pub(super) positions: Vec<Position>,
    pub(super) standing: Standing,
    /// Sums over the runs before it.
    pub(super) earlier: EarlierRuns,
}

impl Saved {
    pub(super) fn new(now: Moment) -> Self {
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self {
            version: VERSION,
            boot_id: boot_id.trim().to_owned(),
            namespace: fs::metadata("/proc/self/ns/net").map_or(0, |found| found.ino()),
            stage: Stage::Running,
            written_at: now,
            positions_at: now,
            positions: Vec::new(),
            standing: Standing::default(),
            earlier: EarlierRuns::default(),
        }
    }
}

impl Moment {
    pub(super) fn now() -> Self {
        let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
        Self {
            utc_us: jiff::Timestamp::now().as_microsecond(),
            boot_us: u64::try_from(boot.as_micros()).unwrap_or(0),
        }
    }

    pub(super) fn text(self) -> String {
        let timestamp = jiff::Timestamp::from_microsecond(self.utc_us);
        timestamp.map_or_else(|_| "unknown".to_owned(), |timestamp| format!("{timestamp:.6}"))
    }
}

/// The directory of the state.
#[derive(Debug)]
pub(super) struct StateDirectory(PathBuf);

impl StateDirectory {
    /// Creates the directory if it is missing, and locks it unless another agent has locked it.
    ///
    /// # Errors
    /// If the directory cannot be created or written to, or other users can write to it.
    pub(super) fn open(directory: &Path) -> io::Result<(Self, Option<File>)> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        check_directory(directory)?;
        let directory = Self(directory.to_owned());
        // A directory that cannot be written to is refused here and not at the end.
        let lock = directory.lock_file()?;
        let lock = lock.try_lock().is_ok().then_some(lock);
        Ok((directory, lock))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    fn lock_file(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        open_own(&self.0.join(LOCK), &mut options)
    }

    /// Returns the lock, unless another agent holds it.
    pub(super) fn try_lock(&self) -> Option<File> {
        let lock = self.lock_file().ok()?;
        lock.try_lock().is_ok().then_some(lock)
    }

    /// Reads the state of the previous run, if there is one.
    pub(super) fn read(&self) -> Option<Saved> {
        let path = self.0.join(FILE);
        let read = read_own(&path).and_then(|file| {
            let mut bytes = Vec::new();
            file.take(MAX_BYTES).read_to_end(&mut bytes).map(|_| bytes)
        });
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(
                        event = "state_unreadable",
                        %error,
                        path = %path.display(),
                        "cannot read the state of the previous run: the capture gap is unknown"
                    );
                }
                return None;
            }
        };
        match serde_json::from_slice::<Saved>(&bytes) {
            Ok(saved) if saved.version == VERSION => Some(saved),
            Ok(Saved { version, .. }) => {
                tracing::warn!(
                    event = "state_version_unknown",
                    version,
                    path = %path.display(),
                    "the state of the previous run has another version: the capture gap is unknown"
                );
                None
            }
            Err(error) => {
                tracing::warn!(
                    event = "state_damaged",
                    %error,
                    path = %path.display(),
                    "the state of the previous run is damaged: the capture gap is unknown"
                );
                None
            }
        }
    }

    /// Replaces the file, as a whole or not at all.
    pub(super) fn write(&self, saved: &Saved) -> io::Result<()> {
        let new = self.0.join(NEW_FILE);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = open_own(&new, &mut options)?;
        file.write_all(&serde_json::to_vec(saved)?)?;
        fs::rename(&new, self.0.join(FILE))
    }
}
