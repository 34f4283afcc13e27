//! The `capture` section: hooks, ports and rings.

use clap::ValueEnum;
use serde::Serialize;

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
