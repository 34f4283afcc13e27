//! The programs of a cluster, fetched or built once into the cache.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{cache, debian, kube, laboratory, process::run};

/// Packages with the container runtime and the plugins of pods' networks. They are not installed: containerd
/// would run as a daemon.
const PACKAGES: [&str; 3] = ["containerd", "runc", "containernetworking-plugins"];
const RUNTIME_CACHE: &str = "container-runtime-1";
/// Increased with each change of the program.
const POD_CACHE: &str = "cluster-pod-1";

/// Paths of the programs.
pub(super) struct Programs {
    kube: kube::Programs,
    runtime: PathBuf,
    pub(super) coredns: PathBuf,
    pod: PathBuf,
}

impl Programs {
    pub(super) fn get() -> Result<Self> {
        Ok(Self {
            kube: kube::node_programs()?,
            runtime: cache::filled(RUNTIME_CACHE, fetch_runtime)?,
            coredns: laboratory::cluster_program()?,
            pod: cache::filled(POD_CACHE, compile_pod)?.join("pod"),
        })
    }

    /// A program of Kubernetes.
    pub(super) fn kube(&self, name: &str) -> PathBuf {
        self.kube.path(name)
    }

    /// A directory of programs with containerd, its shims and `ctr`.
    pub(super) fn containerd(&self) -> PathBuf {
        self.runtime.join("usr/bin")
    }

    pub(super) fn runc(&self) -> PathBuf {
        self.runtime.join("usr/sbin/runc")
    }

    /// The directory of the CNI plugins.
    pub(super) fn cni(&self) -> PathBuf {
        self.runtime.join("usr/lib/cni")
    }

    /// The program of test pods, which is static.
    pub(super) fn pod(&self) -> &Path {
        &self.pod
    }
}

/// Fetches and builds what is missing.
///
/// # Errors
/// When apt cannot download the packages, or there is no Go or C compiler.
pub fn prepare() -> Result<()> {
    Programs::get().map(drop)
}

fn fetch_runtime(target: &Path) -> Result<()> {
    for package in PACKAGES {
        debian::unpack(package, target).with_context(|| format!("fetch package {package}"))?;
    }
    Ok(())
}

fn compile_pod(target: &Path) -> Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("harness/cluster/programs/pod.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-static", "-O2", "-s", "-Wall", "-o"]).arg(target.join("pod")).arg(source);
    run(&mut compiler).context("compile the program of pods")?;
    Ok(())
}
