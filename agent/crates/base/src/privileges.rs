//! Privileges: what the process gives up before it does anything with them, and what one thread
//! keeps.
//!
//! ```text
//!  main thread  begin: other user, no new privileges, nothing beyond BPF, NET_ADMIN, PERFMON
//!    ├─▶ capture thread ── load ─▶ keep_least: NET_ADMIN, and BPF where the kernel wants it
//!    │
//!  main thread  finish: nothing ─▶ sinks, workers, librdkafka, sockets: nothing
//! ```
//!
//! - **Capabilities belong to threads** on Linux, and a thread inherits those of the thread that
//!   starts it. So the capture thread starts in between, and whatever starts later has none.
//! - **What the threads share is memory.** Whoever takes over another thread by a fault in it could
//!   take over this one, with more effort; what they cannot is open files, sockets or namespaces
//!   with privileges by being that thread. A process apart would keep them out, and hand over every
//!   descriptor and every counter by messages: more code with privileges, not less.
//! - **Nobody reads its memory**: the process cannot be dumped, and other processes of its user cannot
//!   trace it (PR_SET_DUMPABLE 0), so that passwords and keys stay in there.
//! - **The bounding set is emptied**, however the agent is started, where it has CAP_SETPCAP for that:
//!   as root, or as another user by ambient or file capabilities. Without, it stays, which is logged;
//!   no_new_privs keeps it from mattering.
//! - **System calls that a thread never needs are refused to it**; see [`seccomp`].
//! - **Without a user of its own** the process stays user 0 where it was started as that: it owns
//!   what root owns, and can write there, but overrides no permission.
//! - **Kernels before 5.19** want CAP_BPF for every use of a map where unprivileged BPF is disabled;
//!   there the workers could not read their rings' losses, and dropping is refused with a message.

pub mod config;
mod seccomp;

use std::{
    ffi::CString,
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use caps::{CapSet, Capability, CapsHashSet};
use nix::{
    errno::Errno,
    sys::prctl,
    unistd::{self, Gid, Uid, User},
};

use self::seccomp::Filter;
use crate::privileges::config::{PrivilegesConfig, RunAs};

/// What capture needs to load and to attach.
const NEEDED: [Capability; 3] =
    [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];

/// True once this process has begun to give up privileges.
static DROPPING: AtomicBool = AtomicBool::new(false);

/// True if this process could not empty its bounding set.
static BOUNDING_SET_KEPT: AtomicBool = AtomicBool::new(false);

/// Why privileges could not be given up. Nothing goes on then: an agent that was asked to run with
/// few privileges does not run with many.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such user.
    #[error("privileges.user: no user {name:?} on this system; a number works without one")]
    NoSuchUser {
        /// The name.
        name: String,
    },
    /// The kernel refused.
    #[error("privileges: cannot {action}: {cause}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// What the kernel answered.
        cause: io::Error,
    },
}

impl Error {
    fn errno(action: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::Refused { action, cause: errno.into() }
    }

    fn caps(action: &'static str) -> impl FnOnce(caps::errors::CapsError) -> Self {
        move |error| Self::Refused { action, cause: io::Error::other(error) }
    }
}

/// Privileges in the course of being given up.
#[derive(Debug)]
#[must_use = "finish() gives up the rest"]
pub struct Dropping {
    drops: bool,
}

/// Gives up what not even the capture thread needs. To be called while this thread is the only one;
/// start the capture thread next, then [`Dropping::finish`].
///
/// # Errors
/// See [`Error`].
pub fn begin(config: &PrivilegesConfig) -> Result<Dropping, Error> {
    if config.keep {
        tracing::warn!(
            event = "privileges_kept",
            "privileges.keep is set: every thread keeps all privileges"
        );
        return Ok(Dropping { drops: false });
    }
    DROPPING.store(true, Ordering::Relaxed);
    let read = |set| caps::read(None, set).map_err(Error::caps("read capabilities"));
    let before = read(CapSet::Permitted)?;
    let kept = kept(&before);
    limit_bounding_set(&before);
    // What is executed later, if anything is, gains nothing by it.
    prctl::set_no_new_privs().map_err(Error::errno("set no_new_privs"))?;
    if let Some(user) = &config.user {
        become_user(user)?;
    }
    // Refused on kernels without ambient capabilities, which have none to clear.
    if let Err(error) = caps::clear(None, CapSet::Ambient) {
        tracing::debug!(
            event = "ambient_capabilities_kept",
            %error,
            "cannot clear the ambient capabilities"
        );
    }
    set(&kept)?;
    // Again: the kernel decides anew with each change of the user.
    forbid_dumps();
    let names: Vec<String> = kept.iter().map(ToString::to_string).collect();
    tracing::debug!(
        event = "privileges_dropped",
        kept = names.join(" "),
        uid = %unistd::geteuid(),
        "privileges dropped"
    );
    Ok(Dropping { drops: true })
}

impl Dropping {
    /// Gives up the rest in this thread, and so in every thread that starts from now on.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn finish(self) -> Result<(), Error> {
        if self.drops {
            set(&CapsHashSet::new())?;
            confine(Filter::Common);
        }
        Ok(())
    }
}

/// Keeps other processes, and a core dump, from reading this one's memory, which holds secrets. For
/// every command, before it reads any.
pub fn forbid_dumps() {
    // Root, or a process with CAP_SYS_PTRACE, reads it all the same.
    if let Err(error) = prctl::set_dumpable(false) {
        tracing::warn!(
            event = "dumps_allowed",
            %error,
            "cannot forbid core dumps of this process, whose memory holds secrets"
        );
    }
}

/// Refuses to this thread, and to those that it starts, the system calls that neither a worker nor a
/// sink that blocks needs.
pub fn confine_to_work() {
    if DROPPING.load(Ordering::Relaxed) {
        confine(Filter::Work);
    }
}

fn confine(filter: Filter) {
    if let Err(error) = filter.apply() {
        tracing::warn!(
            event = "seccomp_unavailable",
            %error,
            ?filter,
            "cannot install the seccomp filter"
        );
    }
}

/// True if this process is root's and has given up what makes root what it is.
#[must_use]
pub fn is_root_without_privileges() -> bool {
    DROPPING.load(Ordering::Relaxed) && unistd::geteuid().is_root()
}

/// Gives up, in the capture thread once it has loaded the programs, what only loading needs.
/// `works` tells whether maps can be used with what is left. A kernel that wants CAP_BPF for that
/// gets it.
pub fn keep_least(works: impl FnOnce() -> bool) {
    if !DROPPING.load(Ordering::Relaxed) {
        return;
    }
    // Here and not where it is found: an agent that may not load programs either logs that alone.
    if BOUNDING_SET_KEPT.load(Ordering::Relaxed) {
        tracing::info!(
            event = "bounding_set_kept",
            "cannot empty the capability bounding set without CAP_SETPCAP; no_new_privs is set"
        );
    }
    let outcome = (|| {
        let permitted = caps::read(None, CapSet::Permitted)?;
        let mut least = permitted.clone();
        least.retain(|capability| *capability == Capability::CAP_NET_ADMIN);
        caps::set(None, CapSet::Effective, &least)?;
        if !works() {
            least = permitted;
            caps::set(None, CapSet::Effective, &least)?;
        }
        caps::set(None, CapSet::Permitted, &least)
    })();
    if let Err(error) = outcome {
        tracing::error!(
            event = "capture_privileges_kept",
            %error,
            "the capture thread keeps more privileges than it needs"
        );
    }
}

/// Of what there is, what capture needs. Where CAP_BPF or CAP_PERFMON was not given, CAP_SYS_ADMIN
/// stands in for it, as before kernel 5.8.
fn kept(before: &CapsHashSet) -> CapsHashSet {
    let mut kept: CapsHashSet = NEEDED.into_iter().filter(|c| before.contains(c)).collect();
    let split = [Capability::CAP_BPF, Capability::CAP_PERFMON];
    if before.contains(&Capability::CAP_SYS_ADMIN) && !split.iter().all(|c| kept.contains(c)) {
        kept.insert(Capability::CAP_SYS_ADMIN);
    }
    kept
}

/// Sets this thread's permitted and effective capabilities; nothing is inheritable.
fn set(kept: &CapsHashSet) -> Result<(), Error> {
    let failed = || Error::caps("give up capabilities");
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).map_err(failed())?;
    // First what may be used, then what may be had: the first must be part of the second.
    let permitted = caps::read(None, CapSet::Permitted).map_err(failed())?;
    let usable: CapsHashSet = kept.intersection(&permitted).copied().collect();
    caps::set(None, CapSet::Effective, &usable).map_err(failed())?;
    caps::set(None, CapSet::Permitted, &usable).map_err(failed())
}

/// Empties the bounding set, which takes CAP_SETPCAP. A process without that was not given much, and
/// gains nothing by executing, since it has no_new_privs.
fn limit_bounding_set(permitted: &CapsHashSet) {
    // File capabilities may permit it without making it effective.
    if permitted.contains(&Capability::CAP_SETPCAP)
        && let Err(error) = caps::raise(None, CapSet::Effective, Capability::CAP_SETPCAP)
    {
        tracing::debug!(event = "setpcap_unavailable", %error, "cannot raise CAP_SETPCAP");
    }
    for capability in caps::all() {
        match caps::has_cap(None, CapSet::Bounding, capability) {
            Ok(true) => {}
            _ => continue,
        }
        if let Err(error) = caps::drop(None, CapSet::Bounding, capability) {
            tracing::debug!(
                event = "bounding_set_drop_failed",
                %error,
                "cannot drop a capability from the bounding set"
            );
            BOUNDING_SET_KEPT.store(true, Ordering::Relaxed);
            return;
        }
    }
}

fn become_user(run_as: &RunAs) -> Result<(), Error> {
    let (uid, gid) = match run_as {
        RunAs::Number { uid, gid } => (Uid::from_raw(*uid), Gid::from_raw(*gid)),
        RunAs::Name(name) => {
            let found = User::from_name(name).map_err(Error::errno("look up privileges.user"))?;
            let user = found.ok_or_else(|| Error::NoSuchUser { name: name.clone() })?;
            (user.uid, user.gid)
        }
    };
    if uid == unistd::geteuid() && gid == unistd::getegid() {
        return Ok(());
    }
    // Otherwise the kernel takes every capability away with user 0.
    prctl::set_keepcaps(true).map_err(Error::errno("keep capabilities"))?;
    let groups = match run_as {
        RunAs::Number { .. } => unistd::setgroups(&[gid]),
        RunAs::Name(name) => {
            let name = CString::new(name.as_str()).unwrap_or_default();
            unistd::initgroups(&name, gid)
        }
    };
    groups.map_err(Error::errno("change groups"))?;
    unistd::setgid(gid).map_err(Error::errno("change the group"))?;
    unistd::setuid(uid).map_err(Error::errno("change the user"))?;
    prctl::set_keepcaps(false).map_err(Error::errno("stop keeping capabilities"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_of(capabilities: &[Capability]) -> CapsHashSet {
        capabilities.iter().copied().collect()
    }

    #[test]
    fn what_is_kept_is_what_capture_needs_and_no_more() {
        let root = caps::all();
        assert_eq!(kept(&root), set_of(&NEEDED));
        assert_eq!(kept(&set_of(&NEEDED)), set_of(&NEEDED));
        assert_eq!(kept(&CapsHashSet::new()), CapsHashSet::new());
        let older = [Capability::CAP_SYS_ADMIN, Capability::CAP_NET_ADMIN];
        assert_eq!(kept(&set_of(&older)), set_of(&older), "SYS_ADMIN stands in for BPF");
    }
}
