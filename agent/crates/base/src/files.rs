//! Opens files in places where another user may have put something.
//!
//! An agent started as root writes to directories of root. A user who can write to one of them
//! could use a link to have it overwrite another file, block it for ever on a pipe, or make it read
//! forged data. So:
//!
//! - **A directory that the agent owns** (spool, state) is refused if others can write to it; see
//!   [`check_directory`].
//! - **A file in it** is opened without following a link and without blocking, and only if it is a
//!   regular file; see [`open_own`].
//! - **A secret** may be a link, as Kubernetes mounts them, but must be a regular file of bounded
//!   size; see [`read_secret`]. A secret that is meant for this agent alone is refused if every
//!   user has access to it; see [`read_key`].

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use nix::unistd::{Gid, Uid, getegid, geteuid, getgroups};

/// Maximum size of a secret, in bytes. A bundle of certificates has some hundred KiB.
const MAX_SECRET: u64 = 4 << 20;

/// Refuses a directory in which a user other than root and that of this process can write or
/// replace files: it belongs to another user, or all users or another group may write to it.
/// Kubernetes gives volumes to the pod's group (fsGroup), which is one of the agent's own groups,
/// usually a supplementary one.
///
/// # Errors
/// Fails with the reason for the refusal and the remedy, or with the error of stat(2).
pub fn check_directory(path: &Path) -> io::Result<()> {
    let groups = [vec![getegid()], getgroups()?].concat();
    check(path, geteuid(), &groups)
}

/// Checks a directory like [`check_directory`], for a process of another user.
///
/// # Errors
/// The same as [`check_directory`].
pub fn check_directory_for(path: &Path, uid: Uid, gid: Gid) -> io::Result<()> {
    check(path, uid, &[gid])
}

fn check(path: &Path, uid: Uid, groups: &[Gid]) -> io::Result<()> {
    let is_trusted = |owner: u32| owner == 0 || owner == uid.as_raw();
    let named = fs::symlink_metadata(path)?;
    if named.is_symlink() && !is_trusted(named.uid()) {
        return Err(io::Error::other(format!("it is a link of user {}", named.uid())));
    }
    let found = fs::metadata(path)?;
    if !found.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    if !is_trusted(found.uid()) {
        let owner = found.uid();
        return Err(io::Error::other(format!("it belongs to user {owner}: chown {uid} it")));
    }
    let mode = found.mode() & 0o7777;
    let others = mode & 0o002 != 0;
    let is_own = |gid: u32| gid == 0 || groups.iter().any(|own| own.as_raw() == gid);
    let group = mode & 0o020 != 0 && !is_own(found.gid());
    if others || group {
        let who = if others { "everybody" } else { "its group" };
        return Err(io::Error::other(format!(
            "{who} can write in it (mode {mode:04o}): chmod go-w it, or name a directory below it"
        )));
    }
    Ok(())
}

/// Opens a file in a directory that the agent owns, with `options`.
///
/// # Errors
/// Returns the kernel's error, such as ELOOP for a link. [`is_foreign`] recognizes the error for a
/// file that is not regular.
pub fn open_own(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    // O_NONBLOCK has no effect on a regular file, and keeps open(2) from blocking on a pipe.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    regular(options.custom_flags(flags).open(path)?)
}

/// Opens a file in a directory that the agent owns for reading.
///
/// # Errors
/// The same as [`open_own`].
pub fn read_own(path: &Path) -> io::Result<File> {
    open_own(path, OpenOptions::new().read(true))
}

/// Reads a whole secret.
///
/// # Errors
/// Returns the kernel's error, or an error of this function if it is not a regular file or larger
/// than 4 MiB.
pub fn read_secret(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    regular(open_secret(path)?)?.take(MAX_SECRET + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SECRET {
        return Err(io::Error::other(format!("it is longer than {} MiB", MAX_SECRET >> 20)));
    }
    Ok(bytes)
}

/// Reads a secret as text, without the line feed that editors append.
///
/// # Errors
/// The same as [`read_secret`]; also fails if the secret is not UTF-8.
pub fn read_secret_text(path: &Path) -> io::Result<String> {
    let text = String::from_utf8(read_secret(path)?).map_err(io::Error::other)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

/// Reasons to refuse a key file. No message contains any of the file's content.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The kernel refuses to open or read it.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// It is a directory, a pipe or a device.
    #[error("is not a regular file")]
    NotAFile,
    /// Users other than its owner and group have access to it.
    #[error(
        "is open to every user (mode {mode:04o}): take the others' rights away (chmod o=; \
         defaultMode: 0440 for a Kubernetes secret)"
    )]
    Open {
        /// Its permission bits.
        mode: u32,
    },
}

/// Reads the first `max_bytes` of a key file. With `is_private`, a file that every user has access
/// to is refused.
///
/// # Errors
/// Returns the reason for the refusal, with the remedy where there is one.
pub fn read_key(path: &Path, max_bytes: u64, is_private: bool) -> Result<Vec<u8>, KeyFileError> {
    let file = open_secret(path).map_err(KeyFileError::Unreadable)?;
    // Check the open file and not the path: an open file cannot be replaced.
    let metadata = file.metadata().map_err(KeyFileError::Unreadable)?;
    if !metadata.is_file() {
        return Err(KeyFileError::NotAFile);
    }
    let mode = metadata.mode() & 0o7777;
    if is_private && mode & 0o007 != 0 {
        return Err(KeyFileError::Open { mode });
    }
    let mut content = Vec::new();
    file.take(max_bytes).read_to_end(&mut content).map_err(KeyFileError::Unreadable)?;
    Ok(content)
}

fn open_secret(path: &Path) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn regular(file: File) -> io::Result<File> {
    // Check the open file and not the path: an open file cannot be replaced.
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
    }
}

/// Returns true for the error of [`open_own`] for a link, a pipe or a device in place of a file.
pub fn is_foreign(error: &io::Error) -> bool {
    // Opening a pipe without a reader, or a socket, for writing fails with ENXIO.
    error.kind() == io::ErrorKind::InvalidInput
        || matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO))
}

#[cfg(test)]
mod tests {
    use std::{
        fs::Permissions,
        os::unix::fs::{PermissionsExt, chown, symlink},
    };

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    #[test]
    fn a_directory_that_others_can_write_in_is_refused() {
        let above = tempfile::tempdir().unwrap();
        let path = above.path().join("own");
        fs::create_dir(&path).unwrap();
        let with_mode = |mode| {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            check_directory(&path).map_err(|error| error.to_string())
        };
        for fine in [0o700, 0o750, 0o755, 0o2770] {
            assert_eq!(with_mode(fine), Ok(()), "{fine:o}");
        }
        // In a directory with the sticky bit others cannot replace files, but can create them.
        for open in [0o777, 0o1777, 0o702] {
            let refused = with_mode(open).unwrap_err();
            assert!(refused.starts_with("everybody can write in it"), "{refused}");
        }
        with_mode(0o700).unwrap();
        let link = above.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(check_directory(&link).is_ok(), "an operator's own link");
        assert!(check_directory(&above.path().join("absent")).is_err());
        // The same check for an agent that becomes another user.
        let other = (Uid::from_raw(4_000), Gid::from_raw(4_000));
        assert!(check_directory_for(&path, other.0, other.1).is_ok(), "root's");
        with_mode(0o770).unwrap();
        chown(&path, None, Some(4_001)).unwrap();
        let refused = check_directory_for(&path, other.0, other.1).unwrap_err().to_string();
        assert!(refused.starts_with("its group can write in it"), "{refused}");
        // A volume's group (fsGroup) is among the agent's supplementary ones.
        assert!(check(&path, other.0, &[other.1, Gid::from_raw(4_001)]).is_ok());
        chown(&path, Some(4_000), Some(4_000)).unwrap();
        assert!(check_directory_for(&path, other.0, other.1).is_ok());
        let refused = check_directory(&path).unwrap_err().to_string();
        assert!(refused.starts_with("it belongs to user 4000"), "{refused}");
    }

    #[test]
    fn neither_links_nor_pipes_nor_devices_are_opened_and_none_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("file"), "precious").unwrap();
        symlink(at("file"), at("link")).unwrap();
        symlink(at("absent"), at("dangling")).unwrap();
        symlink("/dev/zero", at("device")).unwrap();
        mkfifo(&at("pipe"), Mode::S_IRWXU).unwrap();
        fs::create_dir(at("directory")).unwrap();
        for name in ["link", "dangling", "device", "pipe"] {
            let error = read_own(&at(name)).unwrap_err();
            assert!(is_foreign(&error), "{name}: {error}");
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true);
            let error = open_own(&at(name), &mut options).unwrap_err();
            assert!(is_foreign(&error), "{name}: {error}");
        }
        assert!(read_own(&at("directory")).is_err());
        assert!(!at("absent").exists());
        assert_eq!(fs::read(at("file")).unwrap(), b"precious");
        assert!(read_own(&at("file")).is_ok());
    }

    #[test]
    fn a_secret_may_be_a_link_but_not_a_pipe_or_endless() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("..data"), "hunter2\n").unwrap();
        symlink("..data", at("password")).unwrap();
        assert_eq!(read_secret(&at("password")).unwrap(), b"hunter2\n");
        mkfifo(&at("pipe"), Mode::S_IRWXU).unwrap();
        assert!(read_secret(&at("pipe")).is_err());
        assert!(read_secret(Path::new("/dev/zero")).is_err());
        let long = File::create(at("long")).unwrap();
        long.set_len(MAX_SECRET + 1).unwrap();
        assert!(read_secret(&at("long")).is_err());
    }

    #[test]
    fn a_key_is_refused_where_every_user_has_a_right_to_it_or_it_is_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("key"), "0123456789").unwrap();
        symlink("key", at("link")).unwrap();
        mkfifo(&at("pipe"), Mode::S_IRWXU).unwrap();
        let with_mode = |mode, is_private| {
            fs::set_permissions(at("key"), Permissions::from_mode(mode)).unwrap();
            read_key(&at("link"), 4, is_private)
        };
        for mode in [0o604, 0o602, 0o644, 0o601] {
            let refused = with_mode(mode, true).unwrap_err();
            assert!(matches!(refused, KeyFileError::Open { mode: found } if found == mode));
            assert_eq!(with_mode(mode, false).unwrap(), b"0123", "a public key");
        }
        assert_eq!(with_mode(0o440, true).unwrap(), b"0123");
        for path in [directory.path(), Path::new("/dev/zero"), &at("pipe")] {
            let refused = read_key(path, 4, true).unwrap_err();
            assert!(matches!(refused, KeyFileError::NotAFile), "{refused}");
        }
        let missing = read_key(&at("missing"), 4, true).unwrap_err().to_string();
        assert!(missing.starts_with("cannot be read: "), "{missing}");
    }
}
