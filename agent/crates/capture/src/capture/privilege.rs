//! The privileges of this process, and the mechanisms that may restrict them.

use std::fs;

use nix::errno::Errno;

/// A capability that capture needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Name, such as `CAP_BPF`.
    pub name: &'static str,
    /// The operation that needs it.
    pub purpose: &'static str,
    /// Bits of linux/capability.h, any of which suffices.
    bits: u64,
}

const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_PERFMON: u64 = 1 << 38;
const CAP_BPF: u64 = 1 << 39;

/// Capabilities that capture needs. CAP_BPF and CAP_PERFMON were added in kernel 5.8 and are part
/// of CAP_SYS_ADMIN.
pub const NEEDED: [Capability; 3] = [
    Capability {
        name: "CAP_BPF",
        purpose: "to load programs and create maps",
        bits: CAP_BPF | CAP_SYS_ADMIN,
    },
    Capability { name: "CAP_NET_ADMIN", purpose: "to attach to interfaces", bits: CAP_NET_ADMIN },
    Capability {
        name: "CAP_PERFMON",
        purpose: "so that the verifier accepts the programs",
        bits: CAP_PERFMON | CAP_SYS_ADMIN,
    },
];

/// Privileges of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Privileges {
    /// Effective capabilities.
    effective: u64,
    /// Permitted capabilities, which it may make effective.
    permitted: u64,
    /// Bounding set: capabilities that it can ever acquire.
    bounding: u64,
    /// True if executing a program can no longer add privileges.
    pub no_new_privileges: bool,
    /// True if a seccomp filter checks system calls.
    pub seccomp_filter: bool,
}

impl Privileges {
    /// Returns those of this thread; `None` if `/proc` does not contain them.
    #[must_use]
    pub fn of_this_thread() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/thread-self/status").ok()?)
    }

    /// Parses the text of `/proc/<pid>/status`.
    #[must_use]
    pub fn parse(status: &str) -> Option<Self> {
        let value =
            |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let set = |key| u64::from_str_radix(value(key)?, 16).ok();
        Some(Self {
            effective: set("CapEff:")?,
            permitted: set("CapPrm:")?,
            bounding: set("CapBnd:")?,
            no_new_privileges: value("NoNewPrivs:") == Some("1"),
            // 1 is the strict mode, in which the agent could not run.
            seccomp_filter: value("Seccomp:") == Some("2"),
        })
    }

    /// Returns those of [`NEEDED`] that are not effective.
    #[must_use]
    pub fn missing(&self) -> Vec<Capability> {
        NEEDED.into_iter().filter(|needed| self.effective & needed.bits == 0).collect()
    }

    /// Returns true if the process can make the capability effective itself.
    #[must_use]
    pub const fn permits(&self, capability: Capability) -> bool {
        self.permitted & capability.bits != 0
    }

    /// Returns true if the capability can be acquired by executing a program that has it.
    #[must_use]
    pub const fn can_get(&self, capability: Capability) -> bool {
        self.bounding & capability.bits != 0
    }
}

/// Returns those of [`NEEDED`] that this thread lacks; empty if that is unknown.
pub(super) fn missing() -> Vec<&'static str> {
    let privileges = Privileges::of_this_thread();
    privileges.iter().flat_map(Privileges::missing).map(|capability| capability.name).collect()
}

/// Explains why the kernel may have denied an operation, as far as it can be found out.
pub(super) fn denial() -> String {
    let missing = missing();
    if !missing.is_empty() {
        return format!("missing {}", missing.join(", "));
    }
    if Lockdown::in_force() == Some(Lockdown::Confidentiality) {
        return "the kernel is locked down (lockdown=confidentiality)".to_owned();
    }
    "the capabilities are there, but a user namespace, a seccomp profile or a security module \
     denies it"
        .to_owned()
}

/// Lifts this process's limit of locked memory, in which kernels before 5.11 include the memory of
/// maps and programs. It needs root or CAP_SYS_RESOURCE; newer kernels do without it, so that a
/// refusal is no error.
pub fn lift_limit_of_locked_memory() {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the pointer is valid for the call, which reads it.
    let lifted = Errno::result(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) });
    if let Err(error) = lifted {
        tracing::debug!(
            event = "locked_memory_limited",
            %error,
            "the limit of locked memory remains: kernels before 5.11 may refuse maps"
        );
    }
}

/// Returns true if this process may lock a limited amount of memory only.
#[must_use]
pub fn limits_locked_memory() -> bool {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the pointer is valid for the call, which writes it.
    let read = Errno::result(unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) });
    read.is_ok() && limit.rlim_cur != libc::RLIM_INFINITY
}

/// The kernel's lockdown mode, which restricts root (kernel 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockdown {
    /// No restriction.
    None,
    /// Root cannot change the kernel.
    Integrity,
    /// Root cannot read secrets from the kernel either; some kernels include BPF.
    Confidentiality,
}

impl Lockdown {
    /// Returns the current mode; `None` if the kernel has no lockdown, or does not expose it.
    #[must_use]
    pub fn in_force() -> Option<Self> {
        Self::parse(&fs::read_to_string("/sys/kernel/security/lockdown").ok()?)
    }

    /// Parses the text of `/sys/kernel/security/lockdown`, which lists all modes with the current
    /// one in brackets.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once('[')?;
        let (level, _) = rest.split_once(']')?;
        match level {
            "none" => Some(Self::None),
            "integrity" => Some(Self::Integrity),
            "confidentiality" => Some(Self::Confidentiality),
            _ => None,
        }
    }
}

/// Returns true if this process is in its own user namespace, where capabilities grant less.
#[must_use]
pub fn in_user_namespace() -> bool {
    // The initial namespace maps every user ID to itself.
    fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().ne(["0", "0", "4294967295"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn privileges(effective: &str, permitted: &str) -> Privileges {
        let status = format!(
            "Name:\ttap53\nCapInh:\t0\nCapPrm:\t{permitted}\nCapEff:\t{effective}\n\
             CapBnd:\t000001ffffffffff\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n"
        );
        Privileges::parse(&status).unwrap()
    }

    #[test]
    fn missing_capabilities_are_named() {
        let missing = |set| -> Vec<_> {
            privileges(set, "0").missing().iter().map(|capability| capability.name).collect()
        };
        assert_eq!(missing("0000000000000000"), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
        assert_eq!(missing("0000008000001000"), ["CAP_PERFMON"]);
        assert_eq!(missing("000000c000000000"), ["CAP_NET_ADMIN"]);
        assert_eq!(missing("0000000000201000"), [""; 0], "CAP_SYS_ADMIN stands for both");
        assert_eq!(Privileges::parse("Name:\ttap53\n"), None);
    }

    #[test]
    fn permitted_and_unavailable_capabilities_are_distinguished() {
        let found = privileges("0", "0000008000000000");
        assert!(found.permits(NEEDED[0]) && !found.permits(NEEDED[1]));
        assert!(found.can_get(NEEDED[1]));
        assert!(found.no_new_privileges && found.seccomp_filter);
    }

    #[test]
    fn the_current_lockdown_mode_is_in_brackets() {
        for (text, expected) in [
            ("[none] integrity confidentiality\n", Some(Lockdown::None)),
            ("none [integrity] confidentiality\n", Some(Lockdown::Integrity)),
            ("none integrity [confidentiality]\n", Some(Lockdown::Confidentiality)),
            ("none integrity\n", None),
            ("", None),
        ] {
            assert_eq!(Lockdown::parse(text), expected, "{text:?}");
        }
    }
}
