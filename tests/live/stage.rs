//! Two pairs of interfaces between a client and a server, and a configuration file.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tap53_capture::{
    capture::HookOwners,
    interfaces::{self, InterfaceStatus},
};
use tap53_harness::{bpf, namespace::Namespace, process::run};
use tempfile::TempDir;

use crate::running::Running;

/// The agent runs with the server, on `a0` and `b0`; frames come in from the client's `a1` and `b1`.
/// Nothing else is sent: no addresses, no neighbour discovery.
pub(crate) struct Stage {
    pub(crate) client: Namespace,
    pub(crate) server: Namespace,
    directory: TempDir,
    capture: String,
}

impl Stage {
    /// `capture` is the section of that name; empty for TC with small rings that hold all that these
    /// tests send.
    pub(crate) fn new(capture: &str) -> Result<Self> {
        let client = Namespace::new()?;
        let server = Namespace::new()?;
        for pair in ["a", "b"] {
            pair_between(&server, &client, pair)?;
        }
        let capture = if capture.is_empty() {
            "capture: {hook: tc, workers: 2, ring_bytes: 8388608}"
        } else {
            capture
        };
        let directory = tempfile::Builder::new().prefix("tap53-live-").tempdir()?;
        Ok(Self { client, server, directory, capture: capture.to_owned() })
    }

    /// A configuration that writes Avro files into the stage's directory.
    pub(crate) fn yaml(&self, interfaces: &str, more: &str) -> String {
        let out = self.directory.path().display();
        let (capture, more) = (&self.capture, more.trim());
        format!(
            "interfaces:\n  {interfaces}\n{capture}\nsinks: [{{type: file, directory: {out}}}]\n\
             {more}\n{}",
            if more.contains("pair:") { "" } else { "pair: {timeout_ms: 300}\n" }
        )
    }

    /// Where the configuration is.
    pub(crate) fn config(&self) -> PathBuf {
        self.directory.path().join("tap53.yaml")
    }

    /// Replaces the configuration, as an editor does.
    pub(crate) fn write_config(&self, interfaces: &str, more: &str) -> Result<()> {
        let partial = self.directory.path().join("tap53.yaml.new");
        fs::write(&partial, self.yaml(interfaces, more))?;
        Ok(fs::rename(partial, self.config())?)
    }

    /// Starts the agent in this process.
    pub(crate) fn start(&self, interfaces: &str) -> Result<Running> {
        self.write_config(interfaces, "")?;
        Running::start(&self.server, &self.config())
    }

    /// Who holds the hooks of one of the server's interfaces.
    pub(crate) fn hook_owners(&self, name: &str) -> Result<HookOwners> {
        hook_owners(&self.server, name)
    }

    /// The Avro files written so far, in order.
    pub(crate) fn files(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.directory.path())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "avro") {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    /// Fails unless nothing is attached to either interface.
    pub(crate) fn require_bare(&self) -> Result<()> {
        for name in ["a0", "b0"] {
            require_bare(&self.server, name)?;
        }
        Ok(())
    }

    /// A directory like a ConfigMap's.
    pub(crate) fn config_map(&self) -> Result<ConfigMap> {
        let directory = self.directory.path().join("mount");
        fs::create_dir(&directory)?;
        Ok(ConfigMap { directory, version: AtomicU32::new(0) })
    }
}

/// A veth pair, `<name>0` here and `<name>1` there, that nobody sends anything on.
pub(crate) fn pair_between(here: &Namespace, there: &Namespace, name: &str) -> Result<()> {
    let (near, far) = (format!("{name}0"), format!("{name}1"));
    #[rustfmt::skip]
    run(Command::new("ip").args([
        "link", "add", &near, "netns", here.name(), "type", "veth",
        "peer", "name", &far, "netns", there.name(),
    ]))?;
    for (space, end) in [(here, &near), (there, &far)] {
        space.ip(&["link", "set", end, "arp", "off", "addrgenmode", "none"])?;
        space.ip(&["link", "set", end, "up"])?;
    }
    Ok(())
}

pub(crate) fn hook_owners(namespace: &Namespace, name: &str) -> Result<HookOwners> {
    namespace.enter(|| {
        let found = interfaces::list()?.into_iter().find(|interface| interface.name == name);
        Ok(HookOwners::of(&found.with_context(|| format!("no interface {name}"))?)?)
    })
}

pub(crate) fn require_bare(namespace: &Namespace, name: &str) -> Result<()> {
    bpf::require_bare(namespace, name)?;
    let tcx = hook_owners(namespace, name)?.tcx;
    ensure!(tcx.is_none_or(|tcx| tcx == [[], []]), "TCX programs are left on {name}");
    Ok(())
}

/// Links and directories as kubelet makes them: the file is a link to `..data/tap53.yaml`, `..data`
/// a link to a directory of this version, and a new version exchanges `..data` by a rename.
pub(crate) struct ConfigMap {
    directory: PathBuf,
    version: AtomicU32,
}

impl ConfigMap {
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.directory.join("tap53.yaml")
    }

    pub(crate) fn publish(&self, text: &str) -> Result<()> {
        let version = self.version.fetch_add(1, Ordering::Relaxed);
        let name = |version: u32| format!("..version_{version}");
        let versioned = self.directory.join(name(version));
        fs::create_dir(&versioned)?;
        fs::write(versioned.join("tap53.yaml"), text)?;
        symlink(name(version), self.directory.join("..data_tmp"))?;
        fs::rename(self.directory.join("..data_tmp"), self.directory.join("..data"))?;
        if version == 0 {
            symlink("..data/tap53.yaml", self.file())?;
        } else {
            fs::remove_dir_all(self.directory.join(name(version - 1)))?;
        }
        Ok(())
    }
}

/// The interface of this name.
pub(crate) fn find<'a>(list: &'a [InterfaceStatus], name: &str) -> Result<&'a InterfaceStatus> {
    let found = list.iter().find(|interface| interface.name == name);
    found.with_context(|| format!("no {name} in {list:?}"))
}

/// A count of an interface on ingress, in all its lines; 0 without one.
pub(crate) fn counter(ledger: &Value, name: &str, path: &str) -> u64 {
    let lines = ledger["interfaces"].as_array().into_iter().flatten();
    lines
        .filter(|line| line["name"] == name)
        .filter_map(|line| line["ingress"].pointer(&format!("/{path}"))?.as_u64())
        .sum()
}
