//! Directories that files are written to.

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

/// Written on trial: a small block of an Avro file.
const TRIAL_BYTES: usize = 4 << 10;

/// Who will write.
#[derive(Clone, Copy)]
pub(super) struct Writer {
    uid: Uid,
    gid: Gid,
}

impl Writer {
    /// Whom the agent becomes where root starts it, or who asks.
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

    /// Writes a file without a name (O_TMPFILE), which goes with its descriptor.
    fn write(self, directory: &Path) -> io::Result<()> {
        // Of a thread of its own: who it is for files is a thread's (setfsuid(2)), and with another
        // user than root the capabilities go that would let it past the permissions.
        let trial = || {
            if self.uid != geteuid() {
                setfsgid(self.gid);
                setfsuid(self.uid);
            }
            let mut file = tempfile::tempfile_in(directory)?;
            file.write_all(&[0; TRIAL_BYTES])?;
            file.sync_all()?;
            // Finished files get a name here.
            fs::read_dir(directory).map(drop)
        };
        thread::scope(|scope| scope.spawn(trial).join())
            .unwrap_or_else(|_| Err(io::Error::other("the trial panicked")))
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
            format!("df -h {directory}   # make room, or name another sinks[{number}].directory")
        }
        _ => format!("chown {} {directory}", writer.uid),
    };
    vec![Check::fail(AREA, what, format!("cannot be written to: {wrong}"), fix)]
}

/// A directory that is made at the start if it is missing: of a spool, or of the state.
pub(super) fn look_kept(
    what: &str,
    directory: &Path,
    bytes: Option<u64>,
    writer: Writer,
) -> Vec<Check> {
    let what = format!("{what}: {}", directory.display());
    // Where it will be made.
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
        // What it holds is its part of the room already.
        let held = fs::read_dir(directory).into_iter().flatten().flatten();
        let held: u64 = held.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum();
        if free.saturating_add(held) >= bytes {
            return vec![Check::ok(AREA, format!("{what}: writable, {} free", mebibytes(free)))];
        }
        let wrong = format!("{} free, and it may take {}", mebibytes(free), mebibytes(bytes));
        let fix = format!(
            "df -h {shown}   # make room, or lower max_bytes: a full disk costs the oldest records"
        );
        return vec![Check::warn(AREA, what, wrong, fix)];
    };
    let Writer { uid: user, gid: group } = writer;
    let fix = match wrong.raw_os_error() {
        Some(libc::EROFS) => {
            format!("mount -o remount,rw {}   # a pod: a volume there", there.display())
        }
        Some(libc::ENOSPC | libc::EDQUOT) => format!("df -h {shown}   # make room"),
        _ => format!("install -d -o {user} -g {group} -m 0750 {shown}   # a pod: on the node"),
    };
    let wrong = match there == directory {
        true => format!("cannot be written to: {wrong}"),
        false => format!("is missing, and cannot be made in {}: {wrong}", there.display()),
    };
    vec![Check::fail(AREA, what, wrong, fix)]
}

fn free_bytes(directory: &Path) -> Option<u64> {
    let found = statvfs(directory).ok()?;
    // The types differ between architectures.
    #[allow(clippy::useless_conversion, reason = "u32 on some")]
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
            format!("df -h {directory}   # make room, or lower rotate_bytes"),
        );
    }
    Check::ok(AREA, format!("{what}: writable, {free} free"))
}

pub(super) fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
