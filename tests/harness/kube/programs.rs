//! etcd, kube-apiserver, kubectl and helm, and the programs of a cluster with nodes, built once from their
//! Go modules.
//!
//! `programs/go.mod` names the versions of everything that goes in, `programs/go.sum` the checksums.
//! Kubernetes is no module to depend on as it is: its go.mod takes its parts from folders beside it.
//! Ours takes the same parts as the modules that they are published as, at the release's version.
//!
//! To move to another release, change the three versions and those of `replace`, and run
//! `go mod tidy` there.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    cache,
    process::{die_with_parent, run},
};

const GO_MOD: &str = include_str!("programs/go.mod");
const KUBERNETES: &str = "k8s.io/kubernetes";
const ETCD: &str = "go.etcd.io/etcd/server/v3";
const HELM: &str = "helm.sh/helm/v4";

/// Directory in which distributions and Go's archive install it, in addition to PATH.
const GO_DIRECTORIES: &str = "/usr/local/go/bin";
const GO_BY_VERSION: &str = "/usr/lib";

/// The programs, in a directory of the cache.
#[derive(Clone, Debug)]
pub struct Programs {
    directory: PathBuf,
}

impl Programs {
    /// Path of the program `name`.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// The programs of a cluster with nodes, beside kube-apiserver.
const OF_NODES: [&str; 4] = ["kube-controller-manager", "kube-proxy", "kube-scheduler", "kubelet"];

/// etcd, kube-apiserver, kubectl and helm; built now if they are not in the cache yet, which takes minutes.
///
/// # Errors
/// When there is no Go new enough, or it cannot build them.
pub fn programs() -> Result<Programs> {
    built(&cache_name()?, build)
}

/// kubelet, kube-proxy, kube-scheduler and kube-controller-manager; built now if they are not in the cache
/// yet, which takes minutes.
///
/// # Errors
/// See [`programs`].
pub fn node_programs() -> Result<Programs> {
    built(&node_cache_name()?, build_for_nodes)
}

fn built(name: &str, build: fn(&Path) -> Result<()>) -> Result<Programs> {
    let cache = cache::directory()?;
    if !cache.join(name).is_dir() {
        fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
        // Several test programs may come here at once; two builds would take twice as long as one.
        let lock = cache.join(format!(".{name}.lock"));
        let lock = File::create(&lock).with_context(|| format!("create {}", lock.display()))?;
        lock.lock().context("wait for another process that builds the same programs")?;
        let directory = cache::filled(name, build)?;
        return Ok(Programs { directory });
    }
    Ok(Programs { directory: cache.join(name) })
}

/// True if nothing is left to build.
///
/// # Errors
/// Without a cache directory.
pub fn are_built() -> Result<bool> {
    Ok(cache::directory()?.join(cache_name()?).is_dir())
}

/// Go from which on it fetches a newer one by itself, as a module with a checksum.
const FETCHES_NEWER: (u32, u32) = (1, 21);

/// A Go that can build the programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Go {
    program: PathBuf,
    /// Value of GOTOOLCHAIN.
    toolchain: &'static str,
}

impl Go {
    /// Builds `package` of the module in `sources` into the file `target`.
    ///
    /// # Errors
    /// When Go cannot, with its message.
    pub fn build(
        &self,
        sources: &Path,
        package: &str,
        target: &Path,
        linker_flags: &str,
    ) -> Result<()> {
        let mut command = Command::new(&self.program);
        command
            .args(["build", "-trimpath", "-buildvcs=false", "-ldflags", linker_flags, "-o"])
            .arg(target)
            .arg(package)
            .current_dir(sources)
            .env("GOTOOLCHAIN", self.toolchain)
            .env("GOWORK", "off")
            .env("GOFLAGS", "-mod=readonly")
            .env("CGO_ENABLED", "0");
        die_with_parent(&mut command, nix::sys::signal::Signal::SIGKILL);
        run(&mut command).with_context(|| format!("build {package}"))?;
        ensure!(target.is_file(), "go build wrote no {}", target.display());
        Ok(())
    }
}

/// A Go that can build the programs, by itself or by fetching a newer one.
///
/// # Errors
/// If there is none; the message has the found and the needed version.
pub fn go() -> Result<Go> {
    let needed = required_go()?;
    let mut found = Vec::new();
    for program in go_candidates() {
        let mut command = Command::new(&program);
        // Its own version, not that of one that it fetches.
        command.args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local").current_dir("/");
        let Ok(version) = run(&mut command) else { continue };
        if let Some(version) = major_minor(version.trim().trim_start_matches("go")) {
            found.push((program, version));
        }
    }
    if let Some(go) = choose(&found, needed) {
        return Ok(go);
    }
    let mut names: Vec<String> = found
        .iter()
        .map(|(program, (major, minor))| format!("{} is {major}.{minor}", program.display()))
        .collect();
    if names.is_empty() {
        names.push("there is none".to_owned());
    }
    let ((major, minor), (least_major, least_minor)) = (needed, FETCHES_NEWER);
    bail!(
        "Go {major}.{minor} or newer is needed, to build the Kubernetes API server that tests run, \
         or {least_major}.{least_minor} or newer, which fetches it: {}. Install it under \
         /usr/local/go, or Debian 13's golang-go (that of Debian 12 is older)",
        names.join(", ")
    )
}

/// One that is new enough; else one that fetches such a one.
fn choose(found: &[(PathBuf, (u32, u32))], needed: (u32, u32)) -> Option<Go> {
    [(needed, "local"), (FETCHES_NEWER, "auto")].into_iter().find_map(|(least, toolchain)| {
        let (program, _) = found.iter().find(|(_, version)| *version >= least)?;
        Some(Go { program: program.clone(), toolchain })
    })
}

fn go_candidates() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = env::split_paths(&path).collect();
    directories.push(GO_DIRECTORIES.into());
    let by_version = fs::read_dir(GO_BY_VERSION).into_iter().flatten().flatten();
    directories.extend(
        by_version
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("go-"))
            .map(|entry| entry.path().join("bin")),
    );
    let mut programs: Vec<PathBuf> =
        directories.iter().map(|directory| directory.join("go")).collect();
    programs.retain(|program| program.is_file());
    programs
}

/// Returns the version that our go.mod requires, the highest one that its modules require.
fn required_go() -> Result<(u32, u32)> {
    let line = GO_MOD.lines().find_map(|line| line.strip_prefix("go "));
    line.and_then(major_minor).context("programs/go.mod has no go line")
}

fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    let major = parts.next()?.parse().ok()?;
    // "1.27rc1" is not 1.27 yet, but builds what 1.27 builds.
    let minor = parts.next()?;
    let digits = minor.find(|c: char| !c.is_ascii_digit()).unwrap_or(minor.len());
    Some((major, minor[..digits].parse().ok()?))
}

/// One directory for each set of versions.
fn cache_name() -> Result<String> {
    Ok(format!(
        "kubernetes-{}-etcd-{}-helm-{}",
        version(KUBERNETES)?,
        version(ETCD)?,
        version(HELM)?
    ))
}

/// Apart, so that tests that need an API server only do not wait for these.
fn node_cache_name() -> Result<String> {
    Ok(format!("kubernetes-nodes-{}", version(KUBERNETES)?))
}

/// The version of `module` in our go.mod, as `v1.2.3`.
fn version(module: &str) -> Result<&'static str> {
    GO_MOD
        .lines()
        .find_map(|line| line.trim().strip_prefix(module)?.strip_prefix(' '))
        .and_then(|rest| rest.split(' ').next())
        .with_context(|| format!("programs/go.mod does not require {module}"))
}

fn build(target: &Path) -> Result<()> {
    eprintln!(
        "building kube-apiserver, kubectl {}, etcd {} and helm {} (ten minutes on two cores, once)",
        version(KUBERNETES)?,
        version(ETCD)?,
        version(HELM)?,
    );
    build_all(
        target,
        &[
            ("kube-apiserver", of_kubernetes("kube-apiserver")),
            ("kubectl", of_kubernetes("kubectl")),
            ("helm", format!("{HELM}/cmd/helm")),
            ("etcd", ETCD.to_owned()),
        ],
    )
}

fn build_for_nodes(target: &Path) -> Result<()> {
    eprintln!("building kubelet and others {} (three minutes, once)", version(KUBERNETES)?);
    build_all(target, &OF_NODES.map(|program| (program, of_kubernetes(program))))
}

fn of_kubernetes(program: &str) -> String {
    format!("{KUBERNETES}/cmd/{program}")
}

/// Builds programs, each from the package beside its name.
fn build_all(target: &Path, packages: &[(&str, String)]) -> Result<()> {
    let go = go()?;
    let started = Instant::now();
    let flags = linker_flags()?;
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("harness/kube/programs");
    for (program, package) in packages {
        go.build(&sources, package, &target.join(program), &flags)?;
    }
    eprintln!("built with {} in {} s", go.program.display(), started.elapsed().as_secs());
    Ok(())
}

/// Returns the linker flags of Kubernetes' own build, which set the versions. Without them the server reports
/// v0.0.0, and clients that check the version refuse it.
fn linker_flags() -> Result<String> {
    let kubernetes = version(KUBERNETES)?;
    let (major, minor) = major_minor(kubernetes.trim_start_matches('v'))
        .with_context(|| format!("{kubernetes} is not a version of Kubernetes"))?;
    let stamp = "k8s.io/component-base/version";
    Ok(format!(
        "-s -w -X {stamp}.gitVersion={kubernetes} -X {stamp}.gitMajor={major} \
         -X {stamp}.gitMinor={minor} -X {HELM}/internal/version.version={}",
        version(HELM)?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_from_go_mod_and_old_compilers_are_detected() {
        for module in [KUBERNETES, ETCD, HELM] {
            let version = version(module).expect("required");
            assert!(version.starts_with('v') && version.contains('.'), "{module} {version}");
        }
        assert!(version("example.test/none").is_err());
        assert!(required_go().expect("a go line") >= (1, 26));
        assert_eq!(major_minor("1.19.8"), Some((1, 19)));
        assert_eq!(major_minor("1.27rc1"), Some((1, 27)));
        assert_eq!(major_minor("devel"), None);
    }

    #[test]
    fn an_old_go_fetches_a_newer_one_where_it_can() {
        let found = |versions: &[(u32, u32)]| -> Vec<(PathBuf, (u32, u32))> {
            versions.iter().map(|version| (format!("go{}", version.1).into(), *version)).collect()
        };
        let go = |program: &str, toolchain| Some(Go { program: program.into(), toolchain });
        assert_eq!(choose(&found(&[(1, 24), (1, 27)]), (1, 26)), go("go27", "local"));
        assert_eq!(choose(&found(&[(1, 19), (1, 24)]), (1, 26)), go("go24", "auto"));
        assert_eq!(choose(&found(&[(1, 19)]), (1, 26)), None);
    }

    #[test]
    fn the_parts_of_kubernetes_are_of_the_same_release() {
        let release = version(KUBERNETES).expect("required").replacen("v1.", "v0.", 1);
        let replaced = GO_MOD.lines().filter(|line| line.contains(" => "));
        let mut count = 0;
        for line in replaced {
            assert!(line.ends_with(&format!(" {release}")), "{line}");
            count += 1;
        }
        assert!(count > 20, "{count} replaced");
    }
}
