//! The `capture` section: hooks, ports and rings.

use std::{num::NonZero, thread};

use clap::ValueEnum;
use nix::unistd::{SysconfVar, sysconf};
use serde::Serialize;
use tap53_ebpf::record::MAX_CAPTURED_LENGTH;

use super::{
    Overrides,
    tree::{Section, Value, boolean, choice, whole_number},
};

/// Workers at most. Each costs a thread and a ring; beyond a few dozen, sharding by flow hash
/// gains nothing for DNS.
const MAX_WORKERS: u32 = 64;

/// Workers at most when the number is left to us: on a node whose purpose is another, capture must
/// not spread over every CPU.
const MAX_AUTOMATIC_WORKERS: u32 = 8;

/// Smallest ring: the smallest power of two with room for the largest record (65,664 bytes and
/// the 8 of the ring's own header).
const MIN_RING_BYTES: u32 = 128 << 10;

/// Largest ring: the kernel takes more, but nobody wants a packet to wait behind a gibibyte.
const MAX_RING_BYTES: u32 = 1 << 30;

/// Ring unless set: at 192 bytes for a query and 384 for an answer, 29,000 transactions.
const DEFAULT_RING_BYTES: u32 = 8 << 20;

/// How packets are captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CaptureConfig {
    /// Hook for arriving packets.
    pub hook: HookChoice,
    /// Mode of XDP.
    pub xdp_mode: XdpMode,
    /// How TC programs are attached.
    pub tc: TcChoice,
    /// UDP and TCP ports that carry DNS; sorted, without duplicates, none is 0, at least one.
    pub ports: Vec<u16>,
    /// Longest part of a packet to copy, bytes from the link layer on;
    /// 1 to [`MAX_CAPTURED_LENGTH`](tap53_ebpf::record::MAX_CAPTURED_LENGTH).
    pub snap_length: u32,
    /// Worker threads, each with a ring of its own; at least 1.
    pub workers: u32,
    /// Bytes of each worker's ring: a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// Whether the kernel programs write log messages on rare conditions.
    pub kernel_log: bool,
}

/// Hook for arriving packets. Packets that leave are always captured at TC egress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum HookChoice {
    /// XDP on physical devices, TC elsewhere.
    Auto,
    /// XDP on every device, TC where XDP cannot be had.
    Xdp,
    /// TC on every device.
    Tc,
}

/// Mode of XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// Native where the driver has it, generic elsewhere.
    Auto,
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
}

/// How TC programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TcChoice {
    /// TCX links where the kernel has them (6.6), filters of a clsact qdisc elsewhere.
    Auto,
    /// TCX links.
    Tcx,
    /// Filters of a clsact qdisc (kernel 4.5).
    Clsact,
}

impl CaptureConfig {
    pub(super) fn read(section: &mut Section<'_>, overrides: &Overrides) -> Self {
        let hook = section.read("hook", choice);
        let ports = section.read_some("ports", whole_number(1..=u16::MAX));
        let mut ports = ports.unwrap_or_else(|| vec![53]);
        ports.sort_unstable();
        ports.dedup();
        Self {
            hook: overrides.hook.or(hook).unwrap_or(HookChoice::Auto),
            xdp_mode: section.read("xdp_mode", choice).unwrap_or(XdpMode::Auto),
            tc: section.read("tc", choice).unwrap_or(TcChoice::Auto),
            ports,
            snap_length: section
                .read("snap_length", whole_number(1..=MAX_CAPTURED_LENGTH))
                .unwrap_or(MAX_CAPTURED_LENGTH),
            workers: section
                .read("workers", whole_number(0..=MAX_WORKERS))
                .filter(|workers| *workers != 0)
                .unwrap_or_else(automatic_workers),
            ring_bytes: section.read("ring_bytes", ring_bytes).unwrap_or(DEFAULT_RING_BYTES),
            kernel_log: section.read("kernel_log", boolean).unwrap_or(false),
        }
    }
}

fn automatic_workers() -> u32 {
    let cpus = thread::available_parallelism().map_or(1, NonZero::get);
    u32::try_from(cpus).map_or(MAX_AUTOMATIC_WORKERS, |cpus| cpus.min(MAX_AUTOMATIC_WORKERS))
}

/// What the kernel demands of a ring (`ringbuf_map_alloc`): a power of two, in whole pages.
fn ring_bytes(value: &Value) -> Result<u32, String> {
    let bytes = whole_number(MIN_RING_BYTES..=MAX_RING_BYTES)(value)?;
    if !bytes.is_power_of_two() {
        return Err(format!(
            "must be a power of two, such as {}",
            bytes.next_power_of_two().min(MAX_RING_BYTES)
        ));
    }
    let page_bytes = sysconf(SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|bytes| u32::try_from(bytes).ok())
        .unwrap_or(4096);
    if !bytes.is_multiple_of(page_bytes) {
        return Err(format!("must be a multiple of the page size, {page_bytes}"));
    }
    Ok(bytes)
}
