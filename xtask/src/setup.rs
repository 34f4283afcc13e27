//! `cargo xtask setup`: installs the missing tools and packages on this machine.
//!
//! A need is met when its file or program is there, however it came there, so that a second run
//! takes milliseconds and machines without apt work if their owner installed things. What apt
//! installs starts no daemon: `apt.sh` forbids it while packages are set up.

mod apt;
mod needs;

use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use tap53_harness::{kube, laboratory, lake, opentelemetry, postgres, python, spark};

use crate::{
    build_ebpf::{Toolchain, linker},
    dist,
    docs::mdbook,
    workspace::{Workspace, run as run_command},
};
use needs::Need;

/// Its LLVM must be at least as new as rustc's: 22, as in Debian's rustc-web.
const BPF_LINKER_VERSION: &str = "0.13.0";
const LLVM_MAJOR: u32 = 22;

/// Arguments of `setup`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Purpose to install for [default: all]
    #[arg(long = "for", value_name = "PURPOSE")]
    purpose: Option<Purpose>,
    /// With `--for demo`: also the needs of its Kafka variant, including Java
    #[arg(long)]
    kafka: bool,
    /// With `--for demo`: also the needs of its variant with a lake
    #[arg(long)]
    lake: bool,
}

/// Purpose of a machine; each includes the ones before it, but only `Test` includes `Dist`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Purpose {
    /// Building the BPF object and the agent.
    Build,
    /// The files of a release: packages and an image as well.
    Dist,
    /// The demo: a resolver and a client as well.
    Demo,
    /// The demo with Kafka: a broker's Java and independent readers as well.
    #[value(skip)]
    DemoKafka,
    /// The demo with all that comes after Kafka: Connect, a registry, an S3 server, DuckDB.
    #[value(skip)]
    DemoLake,
    /// All tests and benchmarks.
    Test,
}

impl Purpose {
    /// Returns true if this purpose has the needs of `other` too.
    fn includes(self, other: Self) -> bool {
        match (self, other) {
            (Self::Dist, _) => other <= Self::Dist,
            (_, Self::Dist) => self == Self::Test,
            _ => other <= self,
        }
    }
}

/// Installs the needs of the purpose that `arguments` select.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let purpose = match arguments.purpose {
        Some(Purpose::Demo) if arguments.lake => Purpose::DemoLake,
        Some(Purpose::Demo) if arguments.kafka => Purpose::DemoKafka,
        Some(purpose) => purpose,
        None => Purpose::Test,
    };
    if install_missing(workspace, purpose)? == 0 {
        println!("nothing is missing");
    }
    Ok(())
}

/// Installs the missing needs of `purpose` and prints them; returns their number.
pub(crate) fn install_missing(workspace: &Workspace, purpose: Purpose) -> Result<usize> {
    let mut missing: Vec<&Need> = needs::NEEDS
        .iter()
        .filter(|need| purpose.includes(need.purpose) && !need.is_met())
        .collect();
    if Toolchain::find().is_err() {
        missing.push(&needs::BPF_COMPILER);
    }
    let needs_linker = linker(workspace).is_err();
    if needs_linker && !needs::LLVM.is_met() {
        missing.push(&needs::LLVM);
    }
    let needs_kube = purpose >= Purpose::Test && !kube::are_built()?;
    let needs_coredns = purpose >= Purpose::Test && !laboratory::is_built()?;
    let needs_collector = purpose >= Purpose::Test && !opentelemetry::is_built()?;
    let needs_nfpm = purpose.includes(Purpose::Dist) && !dist::is_nfpm_built()?;
    let needs_go = needs_kube || needs_coredns || needs_collector || needs_nfpm;
    if needs_go && kube::go().is_err() {
        missing.push(&needs::GO);
    }
    let needs_mdbook = purpose >= Purpose::Test && !mdbook::is_ready(workspace)?;
    let needs_lake = purpose >= Purpose::DemoLake && !lake::are_ready()?;
    if purpose >= Purpose::Test && postgres::programs().is_err() {
        missing.push(&needs::POSTGRESQL);
    }
    let needs_spark = purpose >= Purpose::Test && !spark::is_ready()?;
    let needs_python = purpose >= Purpose::DemoKafka && !python::is_ready()?;

    apt::install(workspace, &missing)?;
    if needs_linker {
        install_linker(workspace)?;
    }
    if needs_python {
        println!("setup: installing Python packages into {}", workspace.cache.display());
        python::python()?;
    }
    if needs_mdbook {
        mdbook::program(workspace)?;
    }
    if needs_lake {
        println!("setup: fetching Kafka Connect, Iceberg, SeaweedFS and DuckDB (600 MB on disk)");
        lake::jars()?;
        lake::environment()?;
    }
    if needs_spark {
        println!("setup: installing Spark into {} (870 MB)", workspace.cache.display());
        spark::Spark::get()?;
    }
    if needs_kube {
        // Prints what it builds, or reports that apt's Go is too old.
        kube::programs()?;
    }
    if needs_coredns {
        println!("setup: building CoreDNS into {} (half a minute)", workspace.cache.display());
        laboratory::program()?;
    }
    if needs_collector {
        let cache = workspace.cache.display();
        println!("setup: building the OpenTelemetry Collector into {cache} (two minutes)");
        opentelemetry::program()?;
    }
    let built = [
        needs_linker,
        needs_python,
        needs_mdbook,
        needs_lake,
        needs_spark,
        needs_kube,
        needs_coredns,
        needs_collector,
    ];
    Ok(missing.len() + built.map(usize::from).iter().sum::<usize>())
}

fn install_linker(workspace: &Workspace) -> Result<()> {
    let tools = workspace.tools();
    println!(
        "setup: building bpf-linker {BPF_LINKER_VERSION} into {} (a minute or two)",
        tools.display()
    );
    let started = Instant::now();
    let mut cargo = workspace.cargo();
    cargo
        .args(["install", "bpf-linker", "--version", BPF_LINKER_VERSION])
        .args(["--locked", "--no-default-features", "--features"])
        .arg(format!("llvm-{LLVM_MAJOR}"))
        .arg("--root")
        .arg(&tools)
        .env("LLVM_PREFIX", format!("/usr/lib/llvm-{LLVM_MAJOR}"))
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR");
    run_command(&mut cargo).context("cannot build bpf-linker")?;
    println!("setup: bpf-linker built in {} s", started.elapsed().as_secs());
    Ok(())
}
