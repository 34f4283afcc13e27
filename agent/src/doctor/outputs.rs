//! Checks the directories that the agent writes to.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    thread,
};

use nix::{
    sys::statvfs::statvfs,
    unistd::{Gid, Uid, User, getegid, geteuid, setfsgid, setfsuid},
};
use tap53_base::files::check_directory_for;

use super::Check;
use crate::config::{FileConfig, PrivilegesConfig, RunAs};

const AREA: &str = "outputs";

/// Size of the test file in bytes: a small block of an Avro file.
const TRIAL_BYTES: usize = 4 << 10;

/// The user and group that will write.
#[derive(Clone, Copy)]
pub(super) struct Writer {
    uid: Uid,
    gid: Gid,
}

impl Writer {
    /// Returns the user that the agent changes to if root starts it, else the current one.
    pub(super) fn of(config: &PrivilegesConfig) -> Self {
        let becomes = match &config.user {
            Some(RunAs::Number { uid, gid }) => Some((Uid::from_raw(*uid), Gid::from_raw(*gid))),
            Some(RunAs::Name(name)) => {
                User::from_name(name).ok().flatten().map(|user| (user.uid, user.gid))
            }
            None => None,
        };
        let (uid, gid) =
            becomes.filter(|_| geteuid().is_root()).unwrap_or_else(|| (geteuid(), getegid()));
        Self { uid, gid }
    }

    /// Writes a file without a name (O_TMPFILE), which is removed with its descriptor.
    fn write(self, directory: &Path) -> io::Result<()> {
        // On a separate thread: the user for file access belongs to a thread (setfsuid(2)), and changing
        // it from root drops the capabilities that override permissions.
        let trial = || {
            if self.uid != geteuid() {
                setfsgid(self.gid);
                setfsuid(self.uid);
            }
            let mut file = tempfile::tempfile_in(directory)?;
            file.write_all(&[0; TRIAL_BYTES])?;
            file.sync_all()?;
            // Finished files are renamed in this directory.
            fs::read_dir(directory).map(drop)
        };
        thread::scope(|scope| scope.spawn(trial).join())
            .unwrap_or_else(|_| Err(io::Error::other("the test panicked")))
    }
}

pub(super) fn look(number: usize, config: &FileConfig, writer: Writer) -> Vec<Check> {
    let directory = &config.directory;
    let what = format!("sinks[{number}]: {}", directory.display());
    let wrong = match writer.write(directory) {
        Ok(()) => return vec![room(what, config)],
        Err(error) => error,
    };
    let directory = directory.display();
    let fix = match wrong.raw_os_error() {
        Some(libc::EROFS) => format!("mount -o remount,rw {directory}   # a pod: a volume there"),
        Some(libc::ENOSPC | libc::EDQUOT) => {
            format!("df -h {directory}   # free space, or set another sinks[{number}].directory")
        }
        _ => format!("chown {} {directory}", writer.uid),
    };
    vec![Check::fail(AREA, what, format!("cannot be written to: {wrong}"), fix)]
}

/// Checks a directory that the agent creates at the start if it is missing: a spool's or the state's.
pub(super) fn look_own(
    what: &str,
    directory: &Path,
    bytes: Option<u64>,
    writer: Writer,
) -> Vec<Check> {
    let what = format!("{what}: {}", directory.display());
    // The directory in which it will be created.
    let there = directory.ancestors().find(|path| path.exists()).unwrap_or(directory);
    let shown = directory.display();
    if there == directory
        && let Err(wrong) = check_directory_for(directory, writer.uid, writer.gid)
    {
        let fix = format!("chown {} {shown} && chmod go-w {shown}", writer.uid);
        return vec![Check::fail(AREA, what, format!("is refused: {wrong}"), fix)];
    }
    let Err(wrong) = writer.write(there) else {
        let free = free_bytes(there);
        let (Some(bytes), Some(free)) = (bytes, free) else { return vec![Check::ok(AREA, what)] };
        // The files that it has count as used already.
        let files = fs::read_dir(directory).into_iter().flatten().flatten();
        let used: u64 = files.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum();
        if free.saturating_add(used) >= bytes {
            return vec![Check::ok(AREA, format!("{what}: writable, {} free", mebibytes(free)))];
        }
        let wrong = format!("{} free, but it may use {}", mebibytes(free), mebibytes(bytes));
        let fix = format!(
            "df -h {shown}   # free space, or lower max_bytes: a full disk loses the oldest records"
        );
        return vec![Check::warn(AREA, what, wrong, fix)];
    };
    let Writer { uid: user, gid: group } = writer;
    let fix = match wrong.raw_os_error() {
        Some(libc::EROFS) => {
            format!("mount -o remount,rw {}   # a pod: a volume there", there.display())
        }
        Some(libc::ENOSPC | libc::EDQUOT) => format!("df -h {shown}   # free space"),
        _ => format!("install -d -o {user} -g {group} -m 0750 {shown}   # a pod: on the node"),
    };
    let wrong = match there == directory {
        true => format!("cannot be written to: {wrong}"),
        false => format!("is missing, and cannot be created in {}: {wrong}", there.display()),
    };
    vec![Check::fail(AREA, what, wrong, fix)]
}

fn free_bytes(directory: &Path) -> Option<u64> {
    let found = statvfs(directory).ok()?;
    // The types differ between architectures.
    #[allow(clippy::useless_conversion, reason = "u32 on some architectures")]
    let free = u64::from(found.blocks_available()).saturating_mul(u64::from(found.fragment_size()));
    Some(free)
}

fn room(what: String, config: &FileConfig) -> Check {
    let directory = config.directory.display();
    let Some(free_bytes) = free_bytes(&config.directory) else {
        return Check::ok(AREA, what);
    };
    let free = mebibytes(free_bytes);
    if free_bytes < config.rotate_bytes {
        return Check::warn(
            AREA,
            what,
            format!("{free} free, less than one file ({})", mebibytes(config.rotate_bytes)),
            format!("df -h {directory}   # free space, or lower rotate_bytes"),
        );
    }
    Check::ok(AREA, format!("{what}: writable, {free} free"))
}

pub(super) fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
