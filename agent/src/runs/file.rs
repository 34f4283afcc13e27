//! The file that a run writes, and the lock that says whose it is.
//!
//! ```text
//!  <directory>/
//!    run.lock     flock(2), exclusive, for as long as the agent runs
//!    run.json     replaced by rename; not forced to the disk, since it is about processes that are
//!                 killed and not about machines
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

/// Version of the file. One of another version is as good as none.
const VERSION: u32 = 1;

/// Bytes of the file that are read at most; some thousands of interfaces take less.
const MAX_BYTES: u64 = 16 << 20;

const LOCK: &str = "run.lock";
const FILE: &str = "run.json";
const NEW_FILE: &str = "run.json.new";

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    Running,
    /// About to detach.
    Stopping,
    /// Delivers what it has.
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

/// Where capture on an interface was.
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

/// What a run leaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Saved {
    pub(super) version: u32,
    /// `/proc/sys/kernel/random/boot_id`.
    pub(super) boot_id: String,
    /// Inode of the network namespace, which the interfaces' numbers belong to.
    pub(super) namespace: u64,
    pub(super) stage: Stage,
    pub(super) written_at: Moment,
    /// When the positions were read.
    pub(super) positions_at: Moment,
    pub(super) positions: Vec<Position>,
    pub(super) standing: Standing,
    /// Of the runs before it.
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

/// The directory.
#[derive(Debug)]
pub(super) struct Place(PathBuf);

impl Place {
    /// Makes the directory where it is missing, and locks it unless somebody else has.
    pub(super) fn open(directory: &Path) -> io::Result<(Self, Option<File>)> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        check_directory(directory)?;
        let place = Self(directory.to_owned());
        // A directory that nobody may write to is found out here and not at the end.
        let lock = place.lock_file()?;
        let lock = lock.try_lock().is_ok().then_some(lock);
        Ok((place, lock))
    }

    pub(super) fn directory(&self) -> &Path {
        &self.0
    }

    fn lock_file(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        open_own(&self.0.join(LOCK), &mut options)
    }

    /// The lock, unless somebody else has it.
    pub(super) fn try_lock(&self) -> Option<File> {
        let lock = self.lock_file().ok()?;
        lock.try_lock().is_ok().then_some(lock)
    }

    /// What the run before left, if it can be read.
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
                    tracing::warn!(%error, path = %path.display(), "cannot read what the run before left");
                }
                return None;
            }
        };
        match serde_json::from_slice::<Saved>(&bytes) {
            Ok(saved) if saved.version == VERSION => Some(saved),
            Ok(Saved { version, .. }) => {
                tracing::warn!(version, path = %path.display(), "the run before was of another version: the gap is not known");
                None
            }
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "what the run before left is damaged: the gap is not known");
                None
            }
        }
    }

    /// Replaces it, whole or not at all.
    pub(super) fn write(&self, saved: &Saved) -> io::Result<()> {
        let new = self.0.join(NEW_FILE);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = open_own(&new, &mut options)?;
        file.write_all(&serde_json::to_vec(saved)?)?;
        fs::rename(&new, self.0.join(FILE))
    }
}
