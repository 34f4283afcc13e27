//! The socket's file: created, locked and removed.
//!
//! ```text
//!  /run/tap53/                    created if missing, 0755
//!  ├── control.sock.lock          0600, locked for as long as an agent has the socket
//!  └── control.sock               0600 from its first moment
//! ```
//!
//! - The lock decides which agent owns the socket. It ends with its process, however that ends, so the
//!   agent that gets the lock may remove the socket of a killed one, and no other agent may. A test by
//!   connecting would let two agents that start together remove each other's.
//! - The mode is set on the socket's inode before it is bound: bind(2) creates the file with it, so the
//!   file is never open to others, and the umask, which all threads share, need not change.
//! - If the configuration allows other users than root and the agent's own, file permissions cannot
//!   distinguish them from the rest. Then the file is open to all (0666), and SO_PEERCRED decides.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read, Seek, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::{
        socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket},
        stat::{Mode, fchmod},
    },
    unistd::geteuid,
};
use tap53_base::files::open_own;

use crate::control::config::ControlConfig;

/// Maximum number of connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// An error of opening the socket.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Another agent uses the socket.
    #[error("control socket {}: another agent uses it{}", path.display(), used_by(*.pid))]
    InUse {
        /// The socket.
        path: PathBuf,
        /// The agent's process, if it could be read.
        pid: Option<u32>,
    },
    /// The path is another kind of file.
    #[error("control socket {}: there is a file that is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The directory is missing, and this user does not own its parent.
    #[error(
        "control socket: the directory {} is missing, and this user does not own its parent: create \
         it, or set control.socket",
        .0.display()
    )]
    NoDirectory(PathBuf),
    /// A system call failed.
    #[error("control socket: cannot {action} {}: {cause}", path.display())]
    Refused {
        /// The action that failed.
        action: &'static str,
        /// Its file.
        path: PathBuf,
        /// The operating system's error.
        cause: io::Error,
    },
}

fn used_by(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

/// A socket that listens. Dropping it removes its files.
pub(super) struct Socket {
    /// `None` after it was taken.
    listener: Option<UnixListener>,
    path: PathBuf,
    /// Device and inode: at the end the path may be another agent's socket.
    identity: (u64, u64),
    /// Dropped after the socket's file is removed.
    lock: Lock,
}

impl Socket {
    /// Opens the configured socket.
    ///
    /// # Errors
    /// See [`Error`].
    pub(super) fn open(config: &ControlConfig) -> Result<Self, Error> {
        let path = &config.socket;
        let created_directory = path.parent().map(create_directory).transpose()?.flatten();
        let lock = Lock::take(path, created_directory)?;
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(Error::NotASocket(path.clone()));
            }
            Ok(_) => fs::remove_file(path).map_err(refused("remove the old", path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(refused("look at", path)(cause)),
        }
        let listener = bound(path).map_err(|errno| refused("bind", path)(errno.into()))?;
        let found = fs::symlink_metadata(path).map_err(refused("look at", path))?;
        listener.set_nonblocking(true).map_err(refused("listen at", path))?;
        let socket = Self {
            listener: Some(listener),
            path: path.clone(),
            identity: (found.dev(), found.ino()),
            lock,
        };
        if !config.allow_uids.iter().all(|uid| *uid == 0 || *uid == geteuid().as_raw()) {
            fs::set_permissions(path, Permissions::from_mode(0o666))
                .map_err(refused("open to other users", path))?;
        }
        Ok(socket)
    }

    /// Takes the non-blocking listener; `None` the second time.
    pub(super) fn take_listener(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            // The next agent removes it: it checks the lock, not the file.
            tracing::debug!(
                event = "control_socket_not_removed",
                %error,
                path = %self.path.display(),
                "cannot remove the control socket"
            );
        }
        self.lock.remove();
    }
}

fn refused(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |cause| Error::Refused { action, path, cause }
}

/// Creates the directory if it is missing; returns it if it was created.
fn create_directory(directory: &Path) -> Result<Option<PathBuf>, Error> {
    if directory.exists() {
        return Ok(None);
    }
    let above = directory.parent().and_then(|above| fs::metadata(above).ok());
    if above.is_none_or(|above| above.uid() != geteuid().as_raw()) {
        return Err(Error::NoDirectory(directory.to_owned()));
    }
    match DirBuilder::new().mode(0o755).create(directory) {
        Ok(()) => Ok(Some(directory.to_owned())),
        // Another agent starts at the same time.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(cause) => Err(refused("create", directory)(cause)),
    }
}

fn bound(path: &Path) -> Result<UnixListener, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // unix_bind creates the file with the mode of the socket's inode, less the umask.
    fchmod(socket.as_fd(), Mode::S_IRUSR | Mode::S_IWUSR)?;
    let address = UnixAddr::new(path)?;
    {
        use std::os::fd::AsRawFd;
        bind(socket.as_raw_fd(), &address)?;
    }
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(UnixListener::from(socket))
}

/// The file whose lock decides which agent owns the socket.
struct Lock {
    file: File,
    path: PathBuf,
    /// The directory, if this agent created it.
    created_directory: Option<PathBuf>,
}

impl Lock {
    fn take(socket: &Path, created_directory: Option<PathBuf>) -> Result<Self, Error> {
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let mut file = open_own(&path, &mut options).map_err(refused("open", &path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut text = String::new();
                    // It may be about to be written.
                    let _ = Read::take(&file, 16).read_to_string(&mut text);
                    let pid = text.trim().parse().ok();
                    return Err(Error::InUse { path: socket.to_owned(), pid });
                }
                Err(TryLockError::Error(cause)) => return Err(refused("lock", &path)(cause)),
            }
            // The previous owner may have removed the file after we opened it and before we locked it:
            // then this lock is on a file that no other agent will find.
            let found = fs::symlink_metadata(&path).ok();
            let locked = file.metadata().map_err(refused("look at", &path))?;
            if found.is_none_or(|found| (found.dev(), found.ino()) != (locked.dev(), locked.ino()))
            {
                continue;
            }
            let written = file
                .set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| writeln!(file, "{}", std::process::id()));
            written.map_err(refused("write", &path))?;
            return Ok(Self { file, path, created_directory });
        }
    }

    /// Removes the file while it is locked, and the directory if this agent created it and it is empty.
    fn remove(&mut self) {
        let _ = fs::remove_file(&self.path);
        if let Some(directory) = &self.created_directory {
            let _ = fs::remove_dir(directory);
        }
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn config(path: &Path) -> ControlConfig {
        ControlConfig { socket: path.to_owned(), ..ControlConfig::default() }
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn the_file_is_its_owners_alone_from_the_moment_it_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("plain.sock");
        // The umask is not involved: this process's would leave the file open.
        let listener = bound(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        drop(listener);
        let beside = directory.path().join("beside.sock");
        let _open = UnixListener::bind(&beside).unwrap();
        assert_ne!(mode(&beside), 0o600, "this test could not fail under this umask");
    }

    #[test]
    fn other_users_in_the_list_open_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let own = geteuid().as_raw();
        let allow = |allow_uids| ControlConfig { allow_uids, ..config(&path) };
        let socket = Socket::open(&allow(vec![0, own])).unwrap();
        assert_eq!(mode(&path), 0o600);
        drop(socket);
        let _socket = Socket::open(&allow(vec![own + 1])).unwrap();
        assert_eq!(mode(&path), 0o666);
    }

    #[test]
    fn the_directory_is_created_and_everything_is_removed() {
        let above = tempfile::tempdir().unwrap();
        let path = above.path().join("tap53/control.sock");
        let socket = Socket::open(&config(&path)).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        assert_eq!(socket.path(), path);
        drop(socket);
        assert_eq!(fs::read_dir(above.path()).unwrap().count(), 0);
        let deeper = above.path().join("a/b/control.sock");
        assert!(matches!(Socket::open(&config(&deeper)), Err(Error::NoDirectory(_))));
    }

    #[test]
    fn a_live_agents_socket_is_left_alone_and_a_dead_ones_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let mut live = Socket::open(&config(&path)).unwrap();
        let error = Socket::open(&config(&path)).err().unwrap();
        assert!(matches!(error, Error::InUse { pid: Some(pid), .. } if pid == std::process::id()));
        assert!(UnixStream::connect(&path).is_ok());
        // This is the state after SIGKILL: the files exist, and the kernel has dropped lock and listener.
        drop(live.take_listener());
        live.lock.file.unlock().unwrap();
        std::mem::forget(live);
        let next = Socket::open(&config(&path)).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        drop(next);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_socket_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(Socket::open(&config(&path)), Err(Error::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn somebody_elses_file_in_its_place_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let socket = Socket::open(&config(&path)).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists());
    }
}
