//! Real parts for the tests and the demo, each with a guard that removes it.
//!
//! ```text
//!  client's namespace                      server's namespace
//!  ┌──────────────────┐   veth pair        ┌──────────────────────────────────────────┐
//!  │ client, dnsperf  │ c0 ───────────▶ s0 │ unbound          Apache Kafka on 127.0.0.1│
//!  └──────────────────┘                 ▲  │                       ▲         │        │
//!                                       └──┼── tap53 run ──────────┘         ▼        │
//!                                          │   file ──▶ fastavro     kcat ──▶ fastavro │
//!                                          └──────────────────────────────────────────┘
//! ```
//!
//! Rules that every part keeps:
//! - what it starts or creates, its `Drop` ends or removes, also while a test panics;
//! - a child process dies with this one (`PR_SET_PDEATHSIG`), and a namespace that a killed run left
//!   is removed by the next run;
//! - nothing waits for a fixed time: it waits for an event, up to a deadline, and names the missing event;
//! - no packet leaves the namespaces that are created here.
//!
//! Everything needs root and network namespaces; [`require_root`] reports it in one line.

pub mod account;
pub mod agent;
pub mod architecture;
pub mod avro;
pub mod bpf;
pub mod cache;
pub mod captures;
pub mod cgroups;
pub mod client;
pub mod cluster;
pub mod completeness;
pub mod container;
pub mod cross;
mod debian;
pub mod delay;
pub mod dns;
pub mod dnsperf;
pub mod dumpcap;
pub mod evaluation;
pub mod fastavro;
pub mod faults;
pub mod frames;
pub mod guest;
pub mod http;
pub mod kafka;
pub mod kube;
pub mod lab;
pub mod laboratory;
pub mod lake;
pub mod limit;
pub mod lookups;
mod maven;
pub mod mount;
pub mod namespace;
pub mod numbered;
pub mod opentelemetry;
pub mod pcap;
pub mod piped;
pub mod postgres;
pub mod process;
pub mod prometheus;
pub mod pty;
pub mod python;
pub mod registry;
pub mod scratch;
pub mod spark;
pub mod system;
pub mod tables;
pub mod tunnel;
pub mod unbound;
pub mod usage;
pub mod varied;
pub mod wait;

use anyhow::{Result, bail};

/// Fails unless this process may create network namespaces and load BPF programs.
///
/// # Errors
/// When the effective user is not root; the message has the remedy.
pub fn require_root() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "these tests create network namespaces and load BPF programs, which needs root: \
             run `cargo xtask test`, which uses sudo, or this program as root"
        );
    }
    Ok(())
}
