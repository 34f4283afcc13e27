//! Directories that files are written to.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use nix::{sys::statvfs::statvfs, unistd::geteuid};

use super::Check;
use crate::config::FileConfig;

const AREA: &str = "outputs";

/// Written on trial: a small block of an Avro file.
const TRIAL_BYTES: usize = 4 << 10;

pub(super) fn look(number: usize, config: &FileConfig) -> Vec<Check> {
    let directory = &config.directory;
    let what = format!("sinks[{number}]: {}", directory.display());
    let wrong = match write(directory) {
        Ok(()) => return vec![room(what, config)],
        Err(error) => error,
    };
    let directory = directory.display();
    let fix = match wrong.raw_os_error() {
        Some(libc::EROFS) => format!("mount -o remount,rw {directory}   # a pod: a volume there"),
        Some(libc::ENOSPC | libc::EDQUOT) => {
            format!("df -h {directory}   # make room, or name another sinks[{number}].directory")
        }
        _ => format!("chown {} {directory}", geteuid()),
    };
    vec![Check::fail(AREA, what, format!("cannot be written to: {wrong}"), fix)]
}

/// Writes a file without a name (O_TMPFILE), which goes with its descriptor.
fn write(directory: &Path) -> io::Result<()> {
    let mut file = tempfile::tempfile_in(directory)?;
    file.write_all(&[0; TRIAL_BYTES])?;
    file.sync_all()?;
    // Finished files get a name here.
    fs::read_dir(directory).map(drop)
}

fn room(what: String, config: &FileConfig) -> Check {
    let directory = config.directory.display();
    let Ok(found) = statvfs(&config.directory) else {
        return Check::ok(AREA, what);
    };
    // The types differ between architectures.
    #[allow(clippy::useless_conversion, reason = "u32 on some")]
    let free_bytes =
        u64::from(found.blocks_available()).saturating_mul(u64::from(found.fragment_size()));
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
