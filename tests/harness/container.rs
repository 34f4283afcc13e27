//! A process as a container runtime starts it: what runc does with a Kubernetes security context,
//! short of namespaces of its own and of seccomp.
//!
//! In runc's order (`finalizeNamespace`): mounts, bounding set, user with capabilities kept, then
//! exactly the container's capabilities as permitted and effective, none inheritable or ambient,
//! and no_new_privs. Of these the kernel leaves a user other than root, when it executes the
//! program, what the program's file capabilities name as well (capabilities(7)).

use std::{
    ffi::CStr,
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::{prctl, stat::Mode},
    unistd::{Gid, Uid, chown, mkdir, setgroups, setresgid, setresuid},
};
use serde_json::Value;

use crate::{namespace::Namespace, process::run, scratch};

/// Numbers of the capabilities that are used here (`linux/capability.h`).
const CAPABILITIES: [(&str, u32); 4] =
    [("NET_ADMIN", 12), ("SYS_ADMIN", 21), ("PERFMON", 38), ("BPF", 39)];
/// `CAP_CHECKPOINT_RESTORE`, the last one of Linux 5.9 and of those since.
const LAST_CAPABILITY: u32 = 40;
/// `_LINUX_CAPABILITY_VERSION_3`: 64 bits in two halves.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// What a pod says of a container's privileges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Privileges {
    /// User and group.
    pub user: u32,
    /// Capabilities, one a bit.
    pub capabilities: u64,
    /// Whether a program may be given more than its caller has.
    pub no_new_privileges: bool,
    /// Whether files can be changed only where a volume is.
    pub read_only_root: bool,
}

impl Privileges {
    /// Those of the first container of a pod's `spec`.
    ///
    /// # Errors
    /// When it leaves a part open, or names a capability that is not known here.
    pub fn of_pod(spec: &Value) -> Result<Self> {
        let container = &spec["containers"][0]["securityContext"];
        let user = spec["securityContext"]["runAsUser"].as_u64().context("no runAsUser")?;
        ensure!(container["capabilities"]["drop"][0] == "ALL", "not all capabilities are dropped");
        let mut capabilities = 0;
        for name in container["capabilities"]["add"].as_array().context("no capabilities")? {
            capabilities |= 1 << number(name.as_str().unwrap_or_default())?;
        }
        let flag = |name: &str| container[name].as_bool().with_context(|| format!("no {name}"));
        Ok(Self {
            user: user.try_into()?,
            capabilities,
            no_new_privileges: !flag("allowPrivilegeEscalation")?,
            read_only_root: flag("readOnlyRootFilesystem")?,
        })
    }

    /// A command that will run `program` with these privileges, in the network namespace
    /// `namespace`. The file system is the host's, read-only but for an empty directory
    /// `/run/tap53`, which is the user's.
    ///
    /// # Errors
    /// When the namespace's descriptor cannot be cloned.
    pub fn command(&self, namespace: &Namespace, program: &Path) -> Result<Command> {
        let network = namespace.file().try_clone()?;
        let privileges = self.clone();
        let mut command = Command::new(program);
        command.current_dir("/");
        // SAFETY: the closure makes system calls and neither allocates nor takes a lock: paths are
        // C strings, and nix passes those on as they are.
        unsafe {
            command.pre_exec(move || {
                setns(&network, CloneFlags::CLONE_NEWNET)?;
                privileges.mount_root()?;
                privileges.take()
            });
        }
        Ok(command)
    }

    fn mount_root(&self) -> io::Result<()> {
        const ROOT: &CStr = c"/";
        const RUN: &CStr = c"/run";
        const VOLUME: &CStr = c"/run/tap53";
        let none = None::<&CStr>;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(none, ROOT, none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some(c"tmpfs"), RUN, Some(c"tmpfs"), MsFlags::empty(), none)?;
        mkdir(VOLUME, Mode::S_IRWXU | Mode::S_IRWXG)?;
        chown(VOLUME, Some(Uid::from_raw(0)), Some(Gid::from_raw(self.user)))?;
        if self.read_only_root {
            // With MS_BIND, only the mount in this namespace changes.
            let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
            mount(none, ROOT, none, read_only, none)?;
        }
        Ok(())
    }

    fn take(&self) -> io::Result<()> {
        for capability in 0..=LAST_CAPABILITY {
            if self.capabilities & (1 << capability) == 0 {
                // SAFETY: it takes numbers alone.
                check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) })?;
            }
        }
        prctl::set_keepcaps(true)?;
        let (user, group) = (Uid::from_raw(self.user), Gid::from_raw(self.user));
        setgroups(&[group])?;
        setresgid(group, group, group)?;
        setresuid(user, user, user)?;
        prctl::set_keepcaps(false)?;
        let header = [CAPABILITY_VERSION, 0];
        let halves = [self.capabilities, self.capabilities >> 32]
            .map(|half| u32::try_from(half & u64::from(u32::MAX)).unwrap_or_default());
        // Each half: effective, permitted, inheritable.
        let sets = [halves[0], halves[0], 0, halves[1], halves[1], 0];
        // SAFETY: the kernel reads a header of two and sets of six 32-bit numbers, which these are.
        let done = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
        check(i32::try_from(done).unwrap_or(-1))?;
        if self.no_new_privileges {
            prctl::set_no_new_privs()?;
        }
        Ok(())
    }
}

/// A copy of `program` with file capabilities, as `setcap` writes them (`cap_bpf+p`), that every
/// user may execute; the directory is the copy's and goes when it is dropped.
///
/// # Errors
/// When `setcap` is not installed, or the file system holds no capabilities.
pub fn with_file_capabilities(
    program: &Path,
    capabilities: &str,
) -> Result<(tempfile::TempDir, PathBuf)> {
    use std::{fs, os::unix::fs::PermissionsExt as _};
    let directory = scratch::directory("container")?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    let copy = directory.path().join("tap53");
    fs::copy(program, &copy).with_context(|| format!("copy {}", program.display()))?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    run(Command::new("setcap").arg(capabilities).arg(&copy)).context("package libcap2-bin")?;
    Ok((directory, copy))
}

fn number(name: &str) -> Result<u32> {
    let known = CAPABILITIES.iter().find(|(known, _)| *known == name);
    known.map(|(_, number)| *number).with_context(|| format!("capability {name} is not known here"))
}

fn check(returned: i32) -> io::Result<()> {
    if returned == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
