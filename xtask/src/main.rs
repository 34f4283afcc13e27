//! Development tasks: `cargo xtask --help`.

mod bench;
mod build_ebpf;
mod demo;
mod docs;
#[cfg(test)]
mod events;
mod faults;
mod fuzz;
mod inspect;
mod lake;
mod manifests;
mod progress;
mod setup;
mod strip;
mod test;
#[cfg(test)]
mod walls;
mod warehouse;
mod workspace;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use workspace::Workspace;

/// Builds, tests and shows tap53.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing on this machine; does nothing where nothing is.
    Setup(setup::Arguments),
    /// Build the kernel programs into target/bpf/tap53.bpf.o and inspect them.
    BuildEbpf,
    /// Show what is in a BPF object; fail if the agent or the kernel could not use it.
    Inspect {
        /// The object file [default: the one that build-ebpf wrote].
        object: Option<PathBuf>,
    },
    /// Show tap53 at work: a resolver and a client in namespaces, records, and a ledger to match.
    Demo(demo::Arguments),
    /// Build the manual into target/book/html; fail on warnings and on dead links.
    Docs,
    /// Write what is generated in deploy: manifests from the Helm chart, connectors from the schemas.
    Manifests,
    /// Check and test everything, as the continuous integration does; or one tier of the tests.
    Test(test::Arguments),
    /// Try real faults under a numbered stream, and write docs/faults.md from it; as root.
    Faults(faults::Arguments),
    /// Kill each part on the way to the lake once, and write the table in docs/lake.md; as root.
    Lake(lake::Arguments),
    /// Kill loaders of the warehouse in the middle of their transactions, and count; as root.
    Warehouse,
    /// Give the decoders hostile bytes (libFuzzer), each target for some time.
    Fuzz(fuzz::Arguments),
    /// Measure what a packet costs in the kernel and a transaction in the agent, or what the whole
    /// system costs; as root.
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    let outcome = Workspace::find().and_then(|workspace| match Arguments::parse().task {
        Task::Setup(arguments) => setup::run(&workspace, &arguments),
        Task::BuildEbpf => build_ebpf::run(&workspace).map(drop),
        Task::Demo(arguments) => demo::run(&workspace, &arguments),
        Task::Docs => docs::run(&workspace),
        Task::Manifests => manifests::run(),
        Task::Test(arguments) => test::run(&workspace, &arguments),
        Task::Faults(arguments) => faults::run(&workspace, &arguments),
        Task::Lake(arguments) => lake::run(&workspace, &arguments),
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
