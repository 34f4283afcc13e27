//! Drops privileges: those of the process before it uses any, and those of the capture thread after
//! it has loaded the programs.
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
//! - **Threads share memory.** An attacker who takes over another thread through a fault in it
//!   could take over the capture thread too, with more effort. Without that effort they cannot open
//!   files, sockets or namespaces with privileges. A separate process would keep them out, but
//!   would pass every descriptor and every counter by messages: more privileged code, not less.
//! - **No other process reads its memory**: the process cannot be dumped, and other processes of
//!   its user cannot trace it (PR_SET_DUMPABLE 0), so that passwords and keys stay inside.
//! - **The bounding set is emptied** where the agent has CAP_SETPCAP for that: as root, or as
//!   another user by ambient or file capabilities. Otherwise it stays, which is logged;
//!   no_new_privs makes it harmless.
//! - **Each thread is refused the system calls that it never needs**; see [`seccomp`].
//! - **Without `privileges.user`** a process that was started as user 0 remains user 0: it owns
//!   what root owns and can write there, but overrides no permission.
//! - **Kernels before 5.19** require CAP_BPF for every use of a map where unprivileged BPF is
//!   disabled. There the workers could not read the losses of their rings, so dropping privileges
//!   is refused with a message.

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

/// Capabilities that capture needs to load and to attach programs.
const NEEDED: [Capability; 3] =
    [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];

/// True once this process has begun to give up privileges.
static DROPPING: AtomicBool = AtomicBool::new(false);

/// True if this process could not empty its bounding set.
static BOUNDING_SET_KEPT: AtomicBool = AtomicBool::new(false);

/// Errors of dropping privileges. Each ends the start: an agent that is configured to run with few
/// privileges does not run with many.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such user.
    #[error("privileges.user: no user {name:?} on this system; a number works without one")]
    NoSuchUser {
        /// The user name in the configuration.
        name: String,
    },
    /// The kernel refused.
    #[error("privileges: cannot {action}: {cause}")]
    Refused {
        /// The step that failed.
        action: &'static str,
        /// The kernel's error.
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

/// A process that has dropped some of its privileges and drops the rest in [`Dropping::finish`].
#[derive(Debug)]
#[must_use = "finish() gives up the rest"]
pub struct Dropping {
    drops: bool,
}

/// Drops everything that even the capture thread does not need. Call it while this thread is the
/// only one; then start the capture thread, then call [`Dropping::finish`].
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
    let retained_caps = retained(&before);
    limit_bounding_set(&before);
    // Programs executed later, if any, gain no privileges.
    prctl::set_no_new_privs().map_err(Error::errno("set no_new_privs"))?;
    if let Some(user) = &config.user {
        become_user(user)?;
    }
    // Kernels without ambient capabilities refuse this and have none to clear.
    if let Err(error) = caps::clear(None, CapSet::Ambient) {
        tracing::debug!(
            event = "ambient_capabilities_kept",
            %error,
            "cannot clear the ambient capabilities"
        );
    }
    set(&retained_caps)?;
    // Repeat it: the kernel resets the flag when the user changes.
    forbid_dumps();
    let names: Vec<String> = retained_caps.iter().map(ToString::to_string).collect();
    tracing::debug!(
        event = "privileges_dropped",
        retained = names.join(" "),
        uid = %unistd::geteuid(),
        "privileges dropped"
    );
    Ok(Dropping { drops: true })
}

impl Dropping {
    /// Drops the remaining privileges of this thread, and so of every thread that starts from now
    /// on.
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

/// Keeps other processes and core dumps from reading this process's memory, which holds secrets.
/// Every command calls it before it reads a secret.
pub fn forbid_dumps() {
    // Root, and a process with CAP_SYS_PTRACE, can read the memory all the same.
    if let Err(error) = prctl::set_dumpable(false) {
        tracing::warn!(
            event = "dumps_allowed",
            %error,
            "cannot forbid core dumps of this process, whose memory holds secrets"
        );
    }
}

/// Refuses this thread, and those that it starts, the system calls that neither a worker nor a
/// blocking sink needs.
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
            filter = filter.name(),
            "cannot install the seccomp filter"
        );
    }
}

/// Returns true if this process runs as root and has dropped root's privileges.
#[must_use]
pub fn is_root_without_privileges() -> bool {
    DROPPING.load(Ordering::Relaxed) && unistd::geteuid().is_root()
}

/// Makes the permitted capabilities that capture needs effective in this thread. A program whose file
/// has `cap_bpf+p`, as the image's has, starts without them.
///
/// # Errors
/// When the kernel refuses.
pub fn raise_permitted() -> Result<(), Error> {
    let failed = || Error::caps("raise permitted capabilities");
    let permitted = caps::read(None, CapSet::Permitted).map_err(failed())?;
    let mut effective = caps::read(None, CapSet::Effective).map_err(failed())?;
    effective.extend(retained(&permitted));
    caps::set(None, CapSet::Effective, &effective).map_err(failed())
}

/// Drops, in the capture thread and after the programs are loaded, the capabilities that only
/// loading needs. `works` returns true if maps can be used with the capabilities that are left; on
/// a kernel that requires CAP_BPF for that, the thread retains it.
pub fn keep_least(works: impl FnOnce() -> bool) {
    if !DROPPING.load(Ordering::Relaxed) {
        return;
    }
    // Log it here and not where it is found: an operator who may not load programs should see only
    // that error.
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

/// Returns those of the `before` capabilities that capture needs. Where CAP_BPF or CAP_PERFMON is
/// missing, CAP_SYS_ADMIN replaces it, as before kernel 5.8.
fn retained(before: &CapsHashSet) -> CapsHashSet {
    let mut retained_caps: CapsHashSet =
        NEEDED.into_iter().filter(|c| before.contains(c)).collect();
    let split = [Capability::CAP_BPF, Capability::CAP_PERFMON];
    if before.contains(&Capability::CAP_SYS_ADMIN)
        && !split.iter().all(|c| retained_caps.contains(c))
    {
        retained_caps.insert(Capability::CAP_SYS_ADMIN);
    }
    retained_caps
}

/// Sets the permitted and effective capabilities of this thread; none is inheritable.
fn set(retained_caps: &CapsHashSet) -> Result<(), Error> {
    let failed = || Error::caps("give up capabilities");
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).map_err(failed())?;
    // Set the effective set before the permitted one: it must be a subset at any time.
    let permitted = caps::read(None, CapSet::Permitted).map_err(failed())?;
    let usable: CapsHashSet = retained_caps.intersection(&permitted).copied().collect();
    caps::set(None, CapSet::Effective, &usable).map_err(failed())?;
    caps::set(None, CapSet::Permitted, &usable).map_err(failed())
}

/// Empties the bounding set, which requires CAP_SETPCAP. A process without it has few privileges,
/// and gains none by executing a program, since it has set no_new_privs.
fn limit_bounding_set(permitted: &CapsHashSet) {
    // File capabilities may make CAP_SETPCAP permitted but not effective.
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
    // Otherwise the kernel removes every capability when the user changes from 0.
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
    fn only_the_needed_capabilities_are_retained() {
        let root = caps::all();
        assert_eq!(retained(&root), set_of(&NEEDED));
        assert_eq!(retained(&set_of(&NEEDED)), set_of(&NEEDED));
        assert_eq!(retained(&CapsHashSet::new()), CapsHashSet::new());
        let older = [Capability::CAP_SYS_ADMIN, Capability::CAP_NET_ADMIN];
        assert_eq!(retained(&set_of(&older)), set_of(&older), "SYS_ADMIN stands in for BPF");
    }
}
