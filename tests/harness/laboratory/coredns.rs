//! CoreDNS, built once from its Go module with the plugins that its configuration here names.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{
    Plan,
    logs::{FORMAT, Served},
    paired,
};
use crate::{cache, kube::go, namespace::Namespace, process::Process, scratch};

const GO_MOD: &str = include_str!("programs/go.mod");
const MAIN: &str = include_str!("programs/coredns/main.go");
const CLUSTER_MAIN: &str = include_str!("programs/cluster/main.go");
const MODULE: &str = "github.com/coredns/coredns ";
const START_DEADLINE: Duration = Duration::from_secs(20);
/// Logged once its sockets are bound.
const READY: &str = "CoreDNS-";

/// The program; built now if it is not in the cache yet, which takes half a minute.
///
/// # Errors
/// When there is no Go new enough, a module cannot be fetched, or it does not compile.
pub fn program() -> Result<PathBuf> {
    built("coredns", "./coredns", MAIN)
}

/// The program of a cluster with an API server, with the plugin `kubernetes`; built now if it is not in the
/// cache yet, which takes a minute.
///
/// # Errors
/// See [`program`].
pub fn cluster_program() -> Result<PathBuf> {
    built("coredns-cluster", "./cluster", CLUSTER_MAIN)
}

fn built(name: &str, package: &str, main: &str) -> Result<PathBuf> {
    let name = cache_name(name, main)?;
    let cache = cache::directory()?;
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    // Several tests may come here at once; two builds would take twice as long as one.
    let lock = File::create(cache.join(format!(".{name}.lock")))?;
    lock.lock().context("wait for another process that builds CoreDNS")?;
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("harness/laboratory/programs");
    let directory = cache::filled(&name, |target| {
        go()?.build(&sources, package, &target.join("coredns"), "-s -w")
    })?;
    Ok(directory.join("coredns"))
}

/// True if [`program`] has nothing to build.
///
/// # Errors
/// Without a cache directory.
pub fn is_built() -> Result<bool> {
    Ok(cache::directory()?.join(cache_name("coredns", MAIN)?).is_dir())
}

/// Ends with the number of plugins: more of them are another program.
fn cache_name(name: &str, main: &str) -> Result<String> {
    let plugins = main.lines().filter(|line| line.contains("/plugin/")).count();
    Ok(format!("{name}-{}-{plugins}", version()?))
}

fn version() -> Result<&'static str> {
    let line = GO_MOD.lines().find_map(|line| line.split_once(MODULE));
    let version = line.and_then(|(_, rest)| rest.split_whitespace().next());
    version.context("programs/go.mod does not require CoreDNS")
}

/// A running CoreDNS that caches and forwards; dropping it ends it.
pub(super) struct CoreDns {
    process: Process,
    address: Ipv4Addr,
    _directory: TempDir,
}

impl CoreDns {
    /// Starts it on port 53 of `address` and the one that goes with it, which exist in `namespace`, and
    /// waits until it serves.
    pub(super) fn start(
        program: &Path,
        namespace: &Namespace,
        address: Ipv4Addr,
        upstream: Ipv4Addr,
        plan: &Plan,
    ) -> Result<Self> {
        let directory = scratch::directory("coredns")?;
        let file = directory.path().join("Corefile");
        let zone = directory.path().join("zone");
        fs::write(&zone, OWN_ZONE)?;
        let own = if plan.own_domain {
            format!("  file {} cluster.local\n", zone.display())
        } else {
            String::new()
        };
        let mut servers = upstream.to_string();
        if plan.both_families {
            servers.push_str(&format!(" {}", paired(upstream)));
        }
        fs::write(&file, configuration(address, &servers, &own))?;
        let mut command = namespace.command(program);
        command.arg("-conf").arg(&file);
        let process = Process::spawn("coredns", command)?;
        process
            .stdout()
            .wait_for_line(READY, 0, START_DEADLINE)
            .with_context(|| format!("coredns: {}", process.stderr().text()))?;
        Ok(Self { process, address, _directory: directory })
    }

    /// The queries that it has served so far.
    pub(super) fn served(&self) -> Result<Vec<Served>> {
        Served::read_all(self.address, &self.process.stdout().lines())
    }
}

/// The lowest time to live is 1 s: by default, `cache` raises shorter ones to 5 s.
fn configuration(address: Ipv4Addr, upstream: &str, own: &str) -> String {
    let address6 = paired(address);
    format!(
        ". {{\n  bind {address} {address6}\n  errors\n  metadata\n  log . \"{FORMAT}\"\n{own}  cache {{\n    \
         success 9984 30 1\n    denial 9984 30 1\n  }}\n  forward . {upstream}\n}}\n"
    )
}

/// The cluster's domain without names, in place of the plugin `kubernetes`.
const OWN_ZONE: &str = "\
cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
cluster.local. 5 IN NS ns.dns.cluster.local.
ns.dns.cluster.local. 5 IN A 10.96.0.10
";
