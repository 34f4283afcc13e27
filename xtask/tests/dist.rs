//! `cargo xtask dist` with the program of the tests: equal bytes each time, and each file installed and run.
//!
//! The program is the tests' own, so that nothing is compiled again. It is linked with OpenSSL and zlib, which
//! the fresh Debian has therefore; a release is static, which the task requires of what it builds itself.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tap53_harness::{
    agent,
    architecture::Architecture,
    cache,
    cluster::{Cluster, Network, Plan, Plugin, Release},
    cross,
    process::run,
    scratch,
};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// From `helm install` to a pod's first query on the screen, when the nodes have the image.
const FIRST_CONTACT: Duration = Duration::from_secs(120);

/// Makes all files into a new directory, around the programs.
fn dist(programs: &[PathBuf]) -> Result<tempfile::TempDir> {
    let out = tempfile::tempdir()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut task = Command::new(env!("CARGO_BIN_EXE_xtask"));
    task.arg("dist").arg("--out").arg(out.path()).current_dir(root);
    for program in programs {
        task.arg("--program").arg(program);
    }
    run(&mut task)?;
    Ok(out)
}

/// The one file whose name ends so.
fn file(directory: &Path, end: &str) -> Result<PathBuf> {
    let names = fs::read_dir(directory)?.map(|entry| Ok(entry?.path()));
    let mut found = Vec::new();
    for path in names.collect::<Result<Vec<_>>>()? {
        if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    ensure!(found.len() == 1, "{end}: {found:?}");
    found.pop().context("one file")
}

fn digests(directory: &Path) -> Result<BTreeMap<String, String>> {
    let sums = fs::read_to_string(directory.join("SHA256SUMS"))?;
    let lines = sums.lines().filter_map(|line| line.split_once("  "));
    Ok(lines.map(|(digest, name)| (name.to_owned(), digest.to_owned())).collect())
}

/// A fresh Debian, unpacked from the cache.
fn debian() -> Result<tempfile::TempDir> {
    let cached = cache::filled("debian-bookworm-for-packages", |directory| {
        println!("fetching a Debian for the package (a minute, once)");
        run(Command::new("mmdebstrap")
            .args(["--variant=minbase", "--include=systemd,libssl3,zlib1g", "bookworm"])
            .arg(directory.join("root.tar")))
        .map(drop)
    })?;
    let root = tempfile::tempdir()?;
    run(Command::new("tar").arg("-xf").arg(cached.join("root.tar")).arg("-C").arg(root.path()))?;
    Ok(root)
}

/// Runs a command line in a root directory.
fn in_root(root: &Path, line: &[&str]) -> Result<String> {
    run(Command::new("chroot").arg(root).args(line))
}

#[test]
#[ignore = "takes minutes: cargo test -p xtask --test dist -- --ignored"]
fn each_file_is_equal_each_time_and_can_be_installed() -> Result<()> {
    let programs = [agent::binary()?];
    let (first, second) = (dist(&programs)?, dist(&programs)?);
    let first = first.path();
    assert_eq!(digests(first)?, digests(second.path())?);
    run(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(first))?;
    assert_eq!(digests(first)?.len(), 6, "{:?}", digests(first)?);

    the_deb_installs_and_runs(first)?;
    the_rpm_has_the_same_files(first)?;
    the_image_starts_the_agent(first)?;
    the_chart_is_one(first)?;
    the_bill_names_the_crates(first)
}

/// The programs are those of the tests, as above, and the one for arm64 is static.
#[test]
#[ignore = "takes minutes: cargo test -p xtask --test dist -- --ignored"]
fn each_architecture_has_its_packages_and_all_have_one_image() -> Result<()> {
    let programs = [cross::agent(Architecture::X86_64)?, cross::agent(Architecture::Aarch64)?];
    let files = dist(&programs)?;
    let files = files.path();
    assert_eq!(digests(files)?.len(), 5 * programs.len() + 2, "{:?}", digests(files)?);
    for architecture in Architecture::ALL {
        let deb = file(files, &format!("_{}.deb", architecture.debian()))?;
        let field = run(Command::new("dpkg-deb").arg("--field").arg(&deb).arg("Architecture"))?;
        assert_eq!(field.trim(), architecture.debian());
        let rpm = file(files, &format!(".{}.rpm", architecture.rust()))?;
        let field = run(Command::new("rpm").args(["-qp", "--qf", "%{ARCH}"]).arg(rpm))?;
        assert_eq!(field.trim(), architecture.rust());
        the_program_runs_from(&deb, architecture)?;
        the_common_image_has(architecture, files)?;
    }
    Ok(())
}

/// A user's first minutes, without a compiler and without a registry.
#[test]
#[ignore = "takes minutes: cargo test -p xtask --test dist -- --ignored"]
fn a_cluster_runs_the_image_and_shows_a_pods_first_query() -> Result<()> {
    let files = dist(&[agent::binary()?])?;
    let release = Release::find(files.path())?;
    let network = Network::new()?;
    let cluster = Cluster::start_with(&network, Plan::default(), Some(&release))?;
    let started = Instant::now();
    cluster.install(&["--set-json", r#"config.sinks=[{"type": "stdout"}]"#])?;

    let unpacked = scratch::directory("unpacked")?;
    run(Command::new("tar")
        .arg("-xf")
        .arg(file(files.path(), ".tar.gz")?)
        .arg("-C")
        .arg(unpacked.path()))?;
    let program = unpacked.path().join("usr/bin/kubectl-tap53");
    Plugin::install(&cluster, &program)?.require_first_query()?;
    let took = started.elapsed();
    ensure!(took < FIRST_CONTACT, "{took:?} from helm install to the first query");
    Ok(())
}

/// Takes the image of an architecture out of the common one, and runs its program.
fn the_common_image_has(architecture: Architecture, files: &Path) -> Result<()> {
    let storage = tempfile::tempdir()?;
    let archive = format!("oci-archive:{}", file(files, &format!("-{VERSION}.oci.tar"))?.display());
    let wanted = ["from", "--quiet", "--arch", architecture.debian(), &archive];
    let container = run(buildah(storage.path()).args(wanted))?;
    let inspected = run(buildah(storage.path()).args(["inspect", container.trim()]))?;
    let inspected: serde_json::Value = serde_json::from_str(&inspected)?;
    assert_eq!(inspected["OCIv1"]["architecture"], architecture.debian());
    let mounted = run(buildah(storage.path()).args(["mount", container.trim()]))?;
    let version = version_of(&Path::new(mounted.trim()).join("usr/bin/tap53"), architecture);
    run(buildah(storage.path()).args(["umount", container.trim()]))?;
    assert!(version?.contains(VERSION));
    Ok(())
}

/// Unpacks a `.deb`, and runs its program.
fn the_program_runs_from(deb: &Path, architecture: Architecture) -> Result<()> {
    let root = tempfile::tempdir()?;
    run(Command::new("dpkg-deb").arg("--extract").arg(deb).arg(root.path()))?;
    assert!(version_of(&root.path().join("usr/bin/tap53"), architecture)?.contains(VERSION));
    Ok(())
}

/// Runs `tap53 --version`, by QEMU if the program is of another architecture.
fn version_of(program: &Path, architecture: Architecture) -> Result<String> {
    let mut command = if architecture.is_native() {
        Command::new(program)
    } else {
        let mut emulator = Command::new(format!("qemu-{}", architecture.rust()));
        emulator.arg(program);
        emulator
    };
    run(command.arg("--version"))
}

fn the_deb_installs_and_runs(files: &Path) -> Result<()> {
    let root = debian()?;
    let root = root.path();
    fs::copy(file(files, ".deb")?, root.join("tap53.deb"))?;
    in_root(root, &["dpkg", "--install", "/tap53.deb"])?;

    assert!(in_root(root, &["tap53", "--version"])?.contains(VERSION));
    let user = in_root(root, &["getent", "passwd", "tap53"])?;
    assert!(user.contains(":/var/lib/tap53:"), "{user}");
    let owner = in_root(root, &["stat", "--format", "%U %a", "/var/lib/tap53/records"])?;
    assert_eq!(owner.trim(), "tap53 750");
    // As the service's user, who has no capabilities here: the packaged configuration is valid.
    let checked = in_root(
        root,
        &["setpriv", "--reuid", "tap53", "--regid", "tap53", "--clear-groups"]
            .into_iter()
            .chain(["tap53", "check-config", "--config", "/etc/tap53/tap53.yaml"])
            .collect::<Vec<_>>(),
    )?;
    assert!(checked.contains("kind:physical"), "{checked}");
    // There is no man in this root; the page is looked at below.
    let unit = "/usr/lib/systemd/system/tap53.service";
    in_root(root, &["systemd-analyze", "verify", "--man=no", unit])?;
    let page = root.join("usr/share/man/man1/tap53.1.gz");
    assert!(run(Command::new("zcat").arg(page))?.contains(".TH tap53"));

    // An administrator's configuration outlives an upgrade and a removal, not a purge.
    let configuration = root.join("etc/tap53/tap53.yaml");
    fs::write(&configuration, "interfaces: {include: [lo]}\n")?;
    in_root(root, &["dpkg", "--install", "--force-confdef", "/tap53.deb"])?;
    assert!(fs::read_to_string(&configuration)?.contains("[lo]"));
    in_root(root, &["dpkg", "--remove", "tap53"])?;
    assert!(configuration.exists() && !root.join("usr/bin/tap53").exists());
    in_root(root, &["dpkg", "--purge", "tap53"])?;
    assert!(!configuration.exists());
    Ok(())
}

fn the_rpm_has_the_same_files(files: &Path) -> Result<()> {
    let rpm = file(files, ".rpm")?;
    let listed = run(Command::new("rpm").args(["--query", "--list", "--package"]).arg(&rpm))?;
    let of_rpm: Vec<&str> = listed.lines().collect();
    let listed = run(Command::new("dpkg-deb").arg("--contents").arg(file(files, ".deb")?))?;
    // The last word, without the dot of `./usr`.
    let paths = listed.lines().filter_map(|line| line.split_whitespace().last()?.strip_prefix('.'));
    let of_deb = paths.filter(|path| !path.ends_with('/'));
    for path in of_deb {
        assert!(of_rpm.contains(&path), "{path} is not in the .rpm");
    }
    let host = run(Command::new("rpm").args(["-qp", "--qf", "%{BUILDHOST}"]).arg(&rpm))?;
    assert_eq!(host.trim(), "localhost");
    Ok(())
}

/// A buildah with a storage of its own.
fn buildah(storage: &Path) -> Command {
    let mut command = Command::new("buildah");
    command.args(["--storage-driver", "vfs", "--root"]).arg(storage.join("storage"));
    command.arg("--runroot").arg(storage.join("run"));
    command
}

fn the_image_starts_the_agent(files: &Path) -> Result<()> {
    let storage = tempfile::tempdir()?;
    let buildah = || buildah(storage.path());
    let archive = format!("oci-archive:{}", file(files, ".oci.tar")?.display());
    let container = run(buildah().args(["from", "--quiet", &archive]))?;
    let inspected = run(buildah().args(["inspect", container.trim()]))?;
    let inspected: serde_json::Value = serde_json::from_str(&inspected)?;
    let config = &inspected["OCIv1"]["config"];
    assert_eq!(config["Entrypoint"][0], "/usr/bin/tap53");
    assert_eq!(config["User"], "65532:65532");
    let mounted = run(buildah().args(["mount", container.trim()]))?;
    let root = Path::new(mounted.trim());
    let capabilities = run(Command::new("getcap").arg(root.join("usr/bin/tap53")))?;
    for capability in ["cap_bpf", "cap_net_admin", "cap_perfmon", "=p"] {
        assert!(capabilities.contains(capability), "{capabilities}");
    }
    let version = run(Command::new("chroot")
        .args(["--userspec=65532:65532"])
        .arg(root)
        .args(["/usr/bin/tap53", "--version"]))?;
    run(buildah().args(["umount", container.trim()]))?;
    assert!(version.contains(VERSION), "{version}");
    Ok(())
}

fn the_chart_is_one(files: &Path) -> Result<()> {
    let archive = file(files, &format!("tap53-{VERSION}.tgz"))?;
    let shown = tap53_harness::kube::helm(&["show", "chart", &archive.to_string_lossy()])?;
    assert!(shown.contains(&format!("version: {VERSION}")), "{shown}");
    Ok(())
}

fn the_bill_names_the_crates(files: &Path) -> Result<()> {
    let text = fs::read_to_string(file(files, ".cdx.json")?)?;
    let repository = fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))?;
    assert!(!text.contains(&*repository.to_string_lossy()), "a path of this machine");
    let bill: serde_json::Value = serde_json::from_str(&text)?;
    assert_eq!(bill["bomFormat"], "CycloneDX");
    let components = bill["components"].as_array().context("components")?;
    for name in ["aya", "rdkafka", "rdkafka-sys", "tokio"] {
        let component = components.iter().find(|it| it["name"] == name).context(name)?;
        assert!(component["licenses"].is_array(), "{component}");
    }
    Ok(())
}
