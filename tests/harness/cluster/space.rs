//! The namespaces of a node: network, mounts, processes, and host name.
//!
//! Its first process is `pod pause`; the kernel ends all others with it, also those of containers. Mounts
//! are the machine's, with these differences:
//!
//! ```text
//!  /run                     empty
//!  /var/lib, /var/log       directories of the node
//!  /sys                     that of the node's network, with the machine's trees of cgroups
//!  /proc                    that of the node's processes
//!  /proc/sys/{fs,kernel,vm} read-only: these settings are the machine's. The ones that the kubelet sets are
//!                           files with the values that it wants
//! ```

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

use crate::{namespace::Namespace, process::Process, wait};

const DEADLINE: Duration = Duration::from_secs(20);

/// Settings of the whole machine, with the values that the kubelet sets.
const SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];
const PROTECTED: [&str; 3] = ["fs", "kernel", "vm"];
/// Settings of a node's network.
const OF_NETWORK: [(&str, &str); 3] = [
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/bridge/bridge-nf-call-iptables", "1"),
];
/// The node's own directories that it sees elsewhere.
pub(super) const BOUND: [(&str, &str); 2] = [("lib", "/var/lib"), ("log", "/var/log")];

/// Running namespaces; dropping it ends the processes in them.
pub(super) struct Space {
    first: u32,
    _process: Process,
}

impl Space {
    /// Creates the namespaces of a node, whose own files are in `directory`.
    pub(super) fn create(
        namespace: &Namespace,
        node: &str,
        directory: &Path,
        pod: &Path,
    ) -> Result<Self> {
        // The kernel will give it this name.
        let pod = &fs::canonicalize(pod)?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", namespace.name()));
        command.args(["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child"]);
        command.arg("--mount-proc").arg(pod).arg("pause");
        let process = Process::spawn(node, command)?;
        let first = wait::until("a node's first process", DEADLINE, || Ok(child_of(&process, pod)))
            .with_context(|| process.stderr().text())?;
        let space = Self { first, _process: process };
        space.enter(|| {
            fs::write("/proc/sys/kernel/hostname", node).context("set the host name")?;
            set_up_mounts(directory)
        })?;
        Ok(space)
    }

    /// A command that will run in the node.
    pub(super) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.first.to_string(), "--mount", "--uts", "--net", "--pid"]);
        command.arg("--").arg(program);
        command
    }

    /// Calls `work` on a thread that sees the node's mounts, network and host name.
    fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let open = |name: &str| -> Result<File> {
            let path = format!("/proc/{}/ns/{name}", self.first);
            File::open(&path).with_context(|| format!("open {path}"))
        };
        let spaces = [open("net")?, open("uts")?, open("mnt")?];
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // A thread that shares its root directory with others cannot enter other mounts.
                unshare(CloneFlags::CLONE_FS)?;
                for space in &spaces {
                    setns(space, CloneFlags::empty()).context("enter a node's namespaces")?;
                }
                work()
            });
            thread.join().map_err(|_| anyhow!("a thread in a node panicked"))?
        })
    }
}

/// Process id of the child of `unshare`, once it is `program`.
fn child_of(process: &Process, program: &Path) -> Option<u32> {
    let parent = process.pid();
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    let child = children.split_whitespace().next()?.parse().ok()?;
    // Before, it has the mounts and processes of its parent.
    (fs::read_link(format!("/proc/{child}/exe")).ok()? == program).then_some(child)
}

fn set_up_mounts(directory: &Path) -> Result<()> {
    let none = None::<&str>;
    move_cgroups_to_own_sysfs(&directory.join("cgroups"))?;
    mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), none).context("mount bpf")?;
    mount(Some("run"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .context("mount /run")?;
    fs::create_dir_all("/run/netns")?;
    for (own, path) in BOUND {
        bind(&directory.join(own), Path::new(path))?;
    }
    protect_settings(&directory.join("settings"))?;
    for (name, value) in OF_NETWORK {
        fs::write(format!("/proc/sys/{name}"), value)
            .with_context(|| format!("set {name} (a module of the kernel may be missing)"))?;
    }
    // The kubelet mounts volumes that containers then see.
    mount(none, "/", none, MsFlags::MS_SHARED | MsFlags::MS_REC, none).context("share mounts")
}

/// The `/sys` of the node's network has the trees of cgroups of the machine's.
fn move_cgroups_to_own_sysfs(aside: &Path) -> Result<()> {
    let (none, trees) = (None::<&str>, "/sys/fs/cgroup");
    bind(Path::new(trees), aside)?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).context("mount /sys")?;
    mount(Some(aside), trees, none, MsFlags::MS_MOVE, none).context("move the trees of cgroups")
}

fn protect_settings(files: &Path) -> Result<()> {
    let none = None::<&str>;
    for (name, value) in SETTINGS {
        let target = PathBuf::from(format!("/proc/sys/{name}"));
        if target.exists() {
            let file = files.join(name.replace('/', "_"));
            fs::write(&file, value)?;
            bind(&file, &target)?;
        }
    }
    for name in PROTECTED {
        let path = format!("/proc/sys/{name}");
        let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        bind(Path::new(&path), Path::new(&path))?;
        mount(none, path.as_str(), none, read_only, none).context("protect settings")?;
    }
    Ok(())
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .with_context(|| format!("mount {} at {}", from.display(), to.display()))
}
