//! Development tasks: `cargo xtask --help`.

mod bench;
mod build_ebpf;
mod cluster;
mod demo;
mod dist;
mod docs;
#[cfg(test)]
mod events;
mod faults;
mod fuzz;
mod inspect;
mod lake;
mod manifests;
mod progress;
mod sample;
mod setup;
mod signals;
mod story;
mod strip;
mod test;
#[cfg(test)]
mod walls;
mod warehouse;
mod workspace;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use workspace::Workspace;

/// Builds, tests and demonstrates tap53.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install missing tools and packages on this machine
    Setup(setup::Arguments),
    /// Build the kernel programs into target/bpf/tap53.bpf.o, and inspect them
    BuildEbpf,
    /// Show the content of a BPF object; fails if the agent or the kernel could not use it
    Inspect {
        /// Object file [default: target/bpf/tap53.bpf.o]
        object: Option<PathBuf>,
    },
    /// Run tap53 with a resolver and a client in network namespaces, and show records and the ledger
    Demo(demo::Arguments),
    /// Run tap53 in a Kubernetes cluster of two nodes on this machine; needs root
    Cluster(cluster::Arguments),
    /// Make what tap53 is installed from: packages, an image, the chart and a bill of materials; needs root
    Dist(dist::Arguments),
    /// Build the manual into target/book/html; fails on warnings and dead links
    Docs,
    /// Record one lookup of a pod in the two-node laboratory, and show it in the README; needs root
    Story,
    /// Make the sample records of the manual, docs/sample
    Sample,
    /// Write the generated files of deploy: manifests from the Helm chart, connectors from the schemas
    Manifests,
    /// Run all checks and tests, as the continuous integration does, or one tier of the tests
    Test(test::Arguments),
    /// Cause real faults during a numbered stream, and write docs/faults.md; needs root
    Faults(faults::Arguments),
    /// Kill each part of the path to the lake once, and write the table in docs/lake.md; needs root
    Lake(lake::Arguments),
    /// Kill loaders of the warehouse during their transactions, and count the rows; needs root
    Warehouse,
    /// Find real tunnels among a million benign lookups, and write docs/signals-evaluation.md; needs root
    Signals,
    /// Fuzz the decoders with libFuzzer, each target for some time
    Fuzz(fuzz::Arguments),
    /// Measure the cost of a packet in the kernel and of a transaction in the agent, or the cost of the
    /// whole system; needs root
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    let outcome = Workspace::find().and_then(|workspace| match Arguments::parse().task {
        Task::Setup(arguments) => setup::run(&workspace, &arguments),
        Task::BuildEbpf => build_ebpf::run(&workspace).map(drop),
        Task::Demo(arguments) => demo::run(&workspace, &arguments),
        Task::Cluster(arguments) => cluster::run(&workspace, &arguments),
        Task::Dist(arguments) => dist::run(&workspace, &arguments),
        Task::Docs => docs::run(&workspace),
        Task::Manifests => manifests::run(),
        Task::Story => story::run(&workspace),
        Task::Sample => sample::run(&workspace),
        Task::Test(arguments) => test::run(&workspace, &arguments),
        Task::Faults(arguments) => faults::run(&workspace, &arguments),
        Task::Lake(arguments) => lake::run(&workspace, &arguments),
        Task::Signals => signals::run(&workspace),
        Task::Warehouse => warehouse::run(&workspace),
        Task::Fuzz(arguments) => fuzz::run(&workspace, &arguments),
        Task::Bench(arguments) => bench::run(&workspace, &arguments),
        Task::Inspect { object } => inspect::run(&object.unwrap_or_else(|| workspace.bpf_object())),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
