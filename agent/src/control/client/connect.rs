//! Connections to an agent.

use std::{
    fmt,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{fs::MetadataExt, net::UnixStream},
    },
    path::PathBuf,
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt,
        },
        time::TimeVal,
    },
    unistd::geteuid,
};

use super::{Error, TIMEOUT};

/// A place where an agent answers. Its text names it in errors.
pub trait Connect: fmt::Debug + fmt::Display + Send + Sync {
    /// Connects, with a timeout if the agent does not accept. A read of the connection has the same
    /// timeout.
    ///
    /// # Errors
    /// When no agent answers.
    fn connect(&self) -> Result<UnixStream, Error>;
}

/// The control socket of an agent on this machine.
#[derive(Debug)]
pub(super) struct Socket(pub(super) PathBuf);

impl fmt::Display for Socket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(formatter)
    }
}

impl Connect for Socket {
    fn connect(&self) -> Result<UnixStream, Error> {
        let connected = || -> Result<UnixStream, Errno> {
            let socket: OwnedFd =
                socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
            let timeout = TimeVal::new(TIMEOUT.as_secs().try_into().unwrap_or(1), 0);
            // Also the timeout of connect(2) (unix(7)).
            setsockopt(&socket, sockopt::SendTimeout, &timeout)?;
            setsockopt(&socket, sockopt::ReceiveTimeout, &timeout)?;
            connect(socket.as_raw_fd(), &UnixAddr::new(&self.0)?)?;
            Ok(UnixStream::from(socket))
        };
        connected().map_err(|cause| match cause {
            Errno::EACCES | Errno::EPERM => Error::NotPermitted {
                agent: self.to_string(),
                own: geteuid().as_raw(),
                owner: std::fs::metadata(&self.0).ok().map(|found| found.uid()),
            },
            Errno::EAGAIN => Error::Timeout { agent: self.to_string() },
            cause => Error::Unreachable { agent: self.to_string(), cause },
        })
    }
}
