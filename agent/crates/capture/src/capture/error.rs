//! Why capture failed: what, where, and the cause, in one line each.
//!
//! The line holds the cause, which is therefore not offered as `source()` again.

use std::{error, io};

use aya::{EbpfError, maps::MapError, programs::ProgramError};
use nix::errno::Errno;

use super::privilege::{self, denial};
use crate::interfaces;

/// Why capture failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process lacks a privilege, or something denies it one that it has.
    #[error("{what}: not permitted: {reason}")]
    NotPermitted {
        /// What was tried.
        what: String,
        /// What is missing.
        reason: String,
        /// What the kernel answered.
        cause: io::Error,
    },
    /// The verifier refused a program: it does not fit this kernel.
    #[error("program {program}: refused by the kernel's verifier: {reason}")]
    Verifier {
        /// Name of the program.
        program: String,
        /// The verifier's last words.
        reason: String,
        /// What the kernel answered.
        cause: io::Error,
    },
    /// A program or map could not be made or used.
    #[error("{what}: {cause}")]
    Kernel {
        /// What was tried.
        what: String,
        /// What the kernel answered.
        cause: io::Error,
    },
    /// The object is not what this agent was built for.
    #[error("BPF object: {reason}")]
    Object {
        /// What is wrong with it.
        reason: String,
    },
    /// The interface is not there, or no longer.
    #[error("interface {name}: no such interface")]
    NoSuchInterface {
        /// Its name.
        name: String,
    },
    /// The programs read Ethernet headers, and packets of this interface have none.
    #[error("interface {name}: packets of a {kind} device have no Ethernet header to read")]
    NotEthernet {
        /// Its name.
        name: String,
        /// Kind of device.
        kind: String,
    },
    /// The interface takes none of the hooks that the configuration allows.
    #[error("interface {name}: {what}: {cause}")]
    Attach {
        /// Its name.
        name: String,
        /// Hook and direction.
        what: String,
        /// What the kernel answered.
        cause: io::Error,
    },
    /// A qdisc or filter could not be listed, made or removed.
    #[error("interface {name}: {what}: {cause}")]
    Netlink {
        /// Its name.
        name: String,
        /// What was tried.
        what: String,
        /// What the kernel answered.
        cause: interfaces::Error,
    },
    /// The thread that attaches has ended.
    #[error("the capture thread has ended")]
    ThreadEnded,
    /// A thread could not be started.
    #[error("cannot start the capture thread: {cause}")]
    Thread {
        /// Why not.
        cause: io::Error,
    },
    /// The counter slots are used up.
    #[error(
        "interface {name}: no more than {limit} interfaces can be captured from at a time (capture.max_interfaces)"
    )]
    TooManyInterfaces {
        /// Name of the one too many.
        name: String,
        /// How many there may be.
        limit: u32,
    },
}

impl Error {
    /// An error of bpf(2), with the privilege named that is missing.
    pub(super) fn kernel(what: impl Into<String>, cause: io::Error) -> Self {
        let what = what.into();
        match cause.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                Self::NotPermitted { what, reason: denial(), cause }
            }
            _ => Self::Kernel { what, cause },
        }
    }

    /// An error of attaching to an interface.
    pub(super) fn attach(name: &str, what: impl Into<String>, cause: io::Error) -> Self {
        let what = what.into();
        match cause.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted {
                what: format!("interface {name}: {what}"),
                reason: denial(),
                cause,
            },
            Some(libc::ENODEV) => Self::NoSuchInterface { name: name.to_owned() },
            _ => Self::Attach { name: name.to_owned(), what, cause },
        }
    }

    /// An error of rtnetlink about an interface.
    pub(super) fn netlink(name: &str, what: impl Into<String>, cause: interfaces::Error) -> Self {
        let what = what.into();
        match cause.raw_os_error() {
            Some(errno @ (libc::EPERM | libc::EACCES)) => Self::NotPermitted {
                what: format!("interface {name}: {what}"),
                reason: denial(),
                cause: io::Error::from_raw_os_error(errno),
            },
            Some(libc::ENODEV) => Self::NoSuchInterface { name: name.to_owned() },
            _ => Self::Netlink { name: name.to_owned(), what, cause },
        }
    }

    /// An error of aya about the object as a whole.
    pub(super) fn load(error: &EbpfError) -> Self {
        match error {
            EbpfError::MapError(MapError::CreateError { name, io_error }) => {
                // Denied to one is denied to all, and which comes first is chance.
                let what = match io_error.raw_os_error() {
                    Some(libc::EPERM) => "making BPF maps".to_owned(),
                    _ => format!("map {name}"),
                };
                Self::kernel(what, copy(io_error))
            }
            other => match os_error(other) {
                Some(cause) => Self::kernel("loading the BPF object", cause),
                None => Self::Object { reason: chain(other) },
            },
        }
    }

    /// An error of aya about a map.
    pub(super) fn map(name: &str, error: &MapError) -> Self {
        match os_error(error) {
            Some(cause) => Self::kernel(format!("map {name}"), cause),
            None => Self::Object { reason: format!("map {name}: {}", chain(error)) },
        }
    }

    /// An error of aya about a program.
    pub(super) fn program(name: &str, error: &ProgramError) -> Self {
        match error {
            ProgramError::LoadError { io_error, verifier_log } => {
                let log = verifier_log.to_string();
                tracing::debug!(
                    event = "verifier_rejected",
                    program = name,
                    %log,
                    "the verifier rejected a program"
                );
                match last_words(&log) {
                    // The verifier spoke: it is the program, or a capability that would let the
                    // verifier accept more.
                    Some(words) if privilege::missing().is_empty() => Self::Verifier {
                        program: name.to_owned(),
                        reason: words,
                        cause: copy(io_error),
                    },
                    _ => Self::kernel(format!("program {name}"), copy(io_error)),
                }
            }
            other => match os_error(other) {
                Some(cause) => Self::kernel(format!("program {name}"), cause),
                None => Self::Object { reason: format!("program {name}: {}", chain(other)) },
            },
        }
    }
}

/// The line of the verifier's log that says why: the last one before its statistics.
fn last_words(log: &str) -> Option<String> {
    let statistics = |line: &&str| {
        line.starts_with("processed ")
            || line.starts_with("verification time")
            || line.starts_with("stack depth")
    };
    log.lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty() && !statistics(line))
        .map(str::to_owned)
}

/// The error number at the root of an error of aya.
fn os_error(error: &(dyn error::Error + 'static)) -> Option<io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return Some(copy(found));
        }
        next = error.source();
    }
    None
}

/// An error of the same number, since [`io::Error`] is not `Clone`.
fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// An error and its sources in one line.
fn chain(error: &(dyn error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let text = error.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        next = error.source();
    }
    line
}

/// The symbolic name of an error number, such as `EBUSY`.
pub(super) fn errno_name(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => format!("{:?}", Errno::from_raw(errno)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_last_words_come_before_its_statistics() {
        let log = "0: R1=ctx()\nR2 invalid mem access 'scalar'\n\
                   verification time 42 usec\nstack depth 8\nprocessed 7 insns (limit 1000000)\n";
        assert_eq!(last_words(log).unwrap(), "R2 invalid mem access 'scalar'");
        assert_eq!(last_words("\n"), None);
    }

    #[test]
    fn an_interface_that_went_away_is_told_from_one_that_refuses() {
        let error = |errno| {
            let cause = io::Error::from_raw_os_error(errno);
            Error::attach("eth0", "tcx", cause).to_string()
        };
        assert_eq!(error(libc::ENODEV), "interface eth0: no such interface");
        assert_eq!(
            error(libc::ERANGE),
            "interface eth0: tcx: Numerical result out of range (os error 34)"
        );
    }
}
