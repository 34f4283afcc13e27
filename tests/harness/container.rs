//! A container as a runtime starts it: what runc does with a Kubernetes security context, short of
//! process namespaces and seccomp.
//!
//! In runc's order (`finalizeNamespace`): mounts, bounding set, user with capabilities kept, then
//! exactly the container's capabilities as permitted and effective, none inheritable or ambient,
//! and no_new_privs. Of these the kernel leaves a user other than root, when it executes the
//! program, what the program's file capabilities name as well (capabilities(7)).

use std::{
    ffi::{CStr, CString},
    fs, io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::prctl,
    unistd::{Gid, Uid, chdir, chroot, setgroups, setresgid, setresuid},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{namespace::Namespace, process::run, scratch};

const PROGRAM: &str = "/usr/bin/tap53";
/// Numbers of the capabilities that are used here (`linux/capability.h`).
const CAPABILITIES: [(&str, u32); 5] =
    [("CHOWN", 0), ("NET_ADMIN", 12), ("SYS_ADMIN", 21), ("PERFMON", 38), ("BPF", 39)];
/// `CAP_CHECKPOINT_RESTORE`, the last one of Linux 5.9 and of those since.
const LAST_CAPABILITY: u32 = 40;
/// `_LINUX_CAPABILITY_VERSION_3`: 64 bits in two halves.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// The files of the image, as `deploy/image.sh` lays them out; dropping it removes them.
pub struct Image {
    directory: TempDir,
}

impl Image {
    /// Lays out an image of `program`.
    ///
    /// # Errors
    /// When the script fails; with its message.
    pub fn of(program: &Path) -> Result<Self> {
        let directory = scratch::directory("image")?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("deploy/image.sh");
        run(Command::new("sh").arg(script).arg(program).arg(directory.path()))
            .context("lay out the image (setcap: package libcap2-bin)")?;
        // Private directories are created with mode 0700; a container's root is open.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        Ok(Self { directory })
    }

    /// Gives the program other file capabilities, as setcap(8) takes them: `cap_bpf+ep`.
    ///
    /// # Errors
    /// When setcap refuses.
    pub fn set_capabilities(&self, capabilities: &str) -> Result<()> {
        run(Command::new("setcap").arg(capabilities).arg(self.path(PROGRAM)))?;
        Ok(())
    }

    /// Returns the path on this host of a path in the image.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path.trim_start_matches('/'))
    }

    fn root(&self) -> &Path {
        self.directory.path()
    }
}

/// Something that is mounted in a container.
#[derive(Clone, Debug)]
pub enum Volume {
    /// Files of this host, to be read: a ConfigMap, a Secret, a token.
    Files(PathBuf),
    /// An empty directory that the container's group may write to, and which its processes share.
    Empty(Arc<TempDir>),
    /// Creates a directory of the node, as the kubelet does for a missing one: root owns it.
    Node(Arc<TempDir>),
}

impl Volume {
    /// Creates an `emptyDir` as the kubelet does with `fsGroup`.
    ///
    /// # Errors
    /// When the directory cannot be created.
    pub fn empty(group: u32) -> Result<Self> {
        let directory = scratch::directory("volume")?;
        chown(directory.path(), None, Some(group)).context("change the volume's group")?;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o2770))?;
        Ok(Self::Empty(Arc::new(directory)))
    }

    /// A `hostPath` of type `DirectoryOrCreate` that is not there yet.
    ///
    /// # Errors
    /// When the directory cannot be created.
    pub fn node() -> Result<Self> {
        let directory = scratch::directory("volume")?;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        Ok(Self::Node(Arc::new(directory)))
    }

    /// Returns its path on this host.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Files(path) => path,
            Self::Empty(directory) | Self::Node(directory) => directory.path(),
        }
    }
}

/// The privileges of a container, from its pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Privileges {
    /// User and group.
    pub user: u32,
    /// Capabilities, one a bit.
    pub capabilities: u64,
    /// Set if a program cannot gain more privileges than its caller has.
    pub no_new_privileges: bool,
    /// Set if files can be changed in volumes only.
    pub read_only_root: bool,
}

impl Privileges {
    /// Those of a container of a pod's `spec`.
    ///
    /// # Errors
    /// When they leave a part open, or name a capability that is not known here.
    pub fn of(spec: &Value, container: &Value) -> Result<Self> {
        let container = &container["securityContext"];
        let own = container["runAsUser"].as_u64();
        let user = own.or_else(|| spec["securityContext"]["runAsUser"].as_u64());
        let user = user.context("no runAsUser")?;
        ensure!(container["capabilities"]["drop"][0] == "ALL", "not all capabilities are dropped");
        let mut capabilities = 0;
        for name in container["capabilities"]["add"].as_array().into_iter().flatten() {
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

    /// A command that will run the image's program with these privileges, in the network namespace
    /// `namespace`, with each volume at its path.
    ///
    /// # Errors
    /// When a mount point cannot be created.
    pub fn command(
        &self,
        namespace: &Namespace,
        image: &Image,
        volumes: &[(&str, Volume)],
    ) -> Result<Command> {
        let network = namespace.file().try_clone()?;
        let root = Root::new(image, volumes, self)?;
        let privileges = self.clone();
        let mut command = Command::new(PROGRAM);
        // SAFETY: the closure makes system calls and neither allocates nor takes a lock: paths are
        // C strings, and nix passes those on as they are.
        unsafe {
            command.pre_exec(move || {
                setns(&network, CloneFlags::CLONE_NEWNET)?;
                root.enter()?;
                privileges.take()
            });
        }
        Ok(command)
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

/// The file system of a container: paths that are ready for mount(2).
struct Root {
    root: CString,
    /// Sources and targets of the mounts.
    mounts: Vec<(CString, CString)>,
    read_only: bool,
}

impl Root {
    fn new(image: &Image, volumes: &[(&str, Volume)], privileges: &Privileges) -> Result<Self> {
        let kernel = ["/proc", "/sys", "/dev"].map(|path| (path, Volume::Files(path.into())));
        let mut mounts = Vec::new();
        for (to, volume) in kernel.iter().chain(volumes) {
            let to = image.path(to);
            // The runtime creates these if the image has none.
            fs::create_dir_all(&to).with_context(|| format!("make {}", to.display()))?;
            mounts.push((c_string(volume.path())?, c_string(&to)?));
        }
        Ok(Self { root: c_string(image.root())?, mounts, read_only: privileges.read_only_root })
    }

    fn enter(&self) -> io::Result<()> {
        let none = None::<&CStr>;
        let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
        let root = self.root.as_c_str();
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(none, c"/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some(root), root, none, bind, none)?;
        for (from, to) in &self.mounts {
            mount(Some(from.as_c_str()), to.as_c_str(), none, bind, none)?;
        }
        if self.read_only {
            // With MS_BIND, only the mount in this namespace changes.
            let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
            mount(none, root, none, read_only, none)?;
        }
        chroot(root)?;
        chdir(c"/")?;
        Ok(())
    }
}

fn c_string(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).with_context(|| format!("path {}", path.display()))
}

fn number(name: &str) -> Result<u32> {
    let known = CAPABILITIES.iter().find(|(known, _)| *known == name);
    known.map(|(_, number)| *number).with_context(|| format!("capability {name} is not known here"))
}

fn check(returned: i32) -> io::Result<()> {
    if returned == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
