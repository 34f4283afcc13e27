//! Errors of capture: each names the operation, the object and the cause in one line.
//!
//! The line contains the cause, which is therefore not returned by `source()` again.

use std::{error, io};

use aya::{EbpfError, maps::MapError, programs::ProgramError};
use nix::errno::Errno;

use super::privilege::{self, denial};
use crate::interfaces;

/// Errors of capture.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process lacks a privilege, or a security mechanism denies it.
    #[error("{what}: not permitted: {reason}")]
    NotPermitted {
        /// The operation that failed.
        what: String,
        /// The missing privilege.
        reason: String,
        /// The kernel's error.
        cause: io::Error,
    },
    /// The verifier refused a program, which does not fit this kernel.
    #[error("program {program}: refused by the kernel's verifier: {reason}")]
    Verifier {
        /// Name of the program.
        program: String,
        /// The last line of the verifier's log.
        reason: String,
        /// The kernel's error.
        cause: io::Error,
    },
    /// The kernel accepts no XDP program, and the configuration asks for XDP.
    #[error(
        "this kernel accepts no XDP program, and capture.hook asks for one (tc and auto capture \
         without it): {reason}"
    )]
    NoXdp {
        /// Why the program with the fewest needs was refused.
        reason: String,
    },
    /// A program or map could not be created or used.
    #[error("{what}: {cause}")]
    Kernel {
        /// The operation that failed.
        what: String,
        /// The kernel's error.
        cause: io::Error,
    },
    /// The object is not the one that this agent was built for.
    #[error("BPF object: {reason}")]
    Object {
        /// The difference.
        reason: String,
    },
    /// The interface does not exist, or no longer.
    #[error("interface {name}: no such interface")]
    NoSuchInterface {
        /// Name of the interface.
        name: String,
    },
    /// The programs read Ethernet headers, and packets of this interface have none.
    #[error("interface {name}: packets of a {kind} device have no Ethernet header to read")]
    NotEthernet {
        /// Name of the interface.
        name: String,
        /// Kind of the device.
        kind: String,
    },
    /// None of the hooks that the configuration allows can be attached.
    #[error("interface {name}: {what}: {cause}")]
    Attach {
        /// Name of the interface.
        name: String,
        /// Hook and direction.
        what: String,
        /// The kernel's error.
        cause: io::Error,
    },
    /// A qdisc or filter could not be listed, created or removed.
    #[error("interface {name}: {what}: {cause}")]
    Netlink {
        /// Name of the interface.
        name: String,
        /// The operation that failed.
        what: String,
        /// The kernel's error.
        cause: interfaces::Error,
    },
    /// The thread that attaches has ended.
    #[error("the capture thread has ended")]
    ThreadEnded,
    /// A thread could not be started.
    #[error("cannot start the capture thread: {cause}")]
    Thread {
        /// The error of the operating system.
        cause: io::Error,
    },
    /// All counter slots are in use.
    #[error(
        "interface {name}: no more than {limit} interfaces can be captured from at a time (capture.max_interfaces)"
    )]
    TooManyInterfaces {
        /// Name of the interface that exceeds the limit.
        name: String,
        /// The limit.
        limit: u32,
    },
}

impl Error {
    /// Returns true if the kernel lacks something that a program needs, so that another program may
    /// do.
    pub(super) const fn is_lack_of_feature(&self) -> bool {
        matches!(self, Self::Verifier { .. } | Self::Kernel { .. })
    }

    /// Converts an error of bpf(2), and names the missing privilege.
    pub(super) fn kernel(what: impl Into<String>, cause: io::Error) -> Self {
        let what = what.into();
        match cause.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                Self::NotPermitted { what, reason: denial(), cause }
            }
            _ => Self::Kernel { what, cause },
        }
    }

    /// Converts an error of attaching to an interface.
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

    /// Converts an error of rtnetlink about an interface.
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

    /// Converts an error of aya about the object as a whole.
    pub(super) fn load(error: &EbpfError) -> Self {
        match error {
            EbpfError::MapError(MapError::CreateError { name, io_error }) => {
                // The kernel denies all of them alike, and the first one is random.
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

    /// Converts an error of aya about a map.
    pub(super) fn map(name: &str, error: &MapError) -> Self {
        match os_error(error) {
            Some(cause) => Self::kernel(format!("map {name}"), cause),
            None => Self::Object { reason: format!("map {name}: {}", chain(error)) },
        }
    }

    /// Converts an error of aya about a program.
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
                match rejection_reason(&log) {
                    // With a verifier log, the cause is the program, or a missing capability that
                    // would let the verifier accept more.
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

/// Returns the explanation in the verifier's log: the last line before its statistics.
fn rejection_reason(log: &str) -> Option<String> {
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

/// Returns the OS error at the root of an error of aya.
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

/// Returns an error of the same number, since [`io::Error`] is not `Clone`.
fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// Formats an error and its sources in one line.
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

/// Returns the symbolic name of an error number, such as `EBUSY`.
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
    fn the_verifiers_reason_precedes_its_statistics() {
        let log = "0: R1=ctx()\nR2 invalid mem access 'scalar'\n\
                   verification time 42 usec\nstack depth 8\nprocessed 7 insns (limit 1000000)\n";
        assert_eq!(rejection_reason(log).unwrap(), "R2 invalid mem access 'scalar'");
        assert_eq!(rejection_reason("\n"), None);
    }

    #[test]
    fn a_removed_interface_is_distinguished_from_a_refusal() {
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
