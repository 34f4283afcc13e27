//! Defines every map, with the meaning of its keys and values, and its writer.
//!
//! The sizes here are placeholders: the agent sets each one when it loads the object. For W workers
//! and I interfaces:
//!
//! | map               | entries   | bytes                    | written by                     |
//! |-------------------|-----------|--------------------------|--------------------------------|
//! | `INTERFACES`      | I         | 20 I                     | agent                          |
//! | `INTERFACES_NEAR` | 4,096     | 96 Ki                    | agent                          |
//! | `PORTS`           | 3,072     | 24 Ki                    | agent                          |
//! | `COUNTERS`        | 2 (I + 1) | 256 (I + 1) for each CPU | kernel                         |
//! | `RINGS`           | W         | W rings of the set size  | kernel; the slots by the agent |
//! | `RING_LOST`       | W         | 8 W                      | kernel                         |
//! | `RING_WRITTEN`    | W         | 8 W                      | kernel; set by a worker that is going to sleep |
//! | `DATAGRAMS`       | 4,096     | 512 Ki                   | kernel                         |
//! | `PROCESSES`       | 1, or 65,536 | some 90 each          | kernel                         |
//! | `SPECULATION`     | 1         | 16 for each CPU          | kernel                         |
//! | `LOGGED_AT`       | 1         | 8                        | kernel                         |

use aya_ebpf::{
    Global,
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, ArrayOfMaps, HashMap, LruHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use tap53_ebpf::{
    counter::Counters,
    fragments::DatagramKey,
    process::Process,
    settings::{InterfaceSettings, NEAR_ENTRIES, NearSettings, PORT_WORDS},
};

/// A ring of items: [`tap53_ebpf::record`].
pub(crate) type Ring = RingBuf<u8, RING_TEMPLATE_BYTES>;

/// Only the type of the template inner map matters, not its size (`bpf_map_meta_equal`); but the
/// kernel must accept the size with any page size up to 64 KiB.
const RING_TEMPLATE_BYTES: usize = 65_536;

/// Settings by ifindex. Not preallocated, so that only existing interfaces take memory.
#[btf_map]
pub(crate) static INTERFACES: HashMap<u32, InterfaceSettings, 256, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

/// Settings by [`tap53_ebpf::settings::near_index`], as a cache of [`INTERFACES`].
#[btf_map]
pub(crate) static INTERFACES_NEAR: Array<NearSettings, { NEAR_ENTRIES as usize }> = Array::new();

/// The port sets, one bit for each port: [`tap53_ebpf::settings::port_bit`].
#[btf_map]
pub(crate) static PORTS: Array<u64, { PORT_WORDS as usize }> = Array::new();

/// Counters by [`tap53_ebpf::settings::counter_index`].
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<Counters, 2> = PerCpuArray::new();

/// The rings by worker. It is an array of maps (kernel 5.8 for rings as inner maps), so that their
/// number and size are configurable; the agent creates them and fills the slots before it attaches.
#[btf_map]
pub(crate) static RINGS: ArrayOfMaps<Ring, 1> = ArrayOfMaps::new();

/// Ring items that each ring lost because it was full.
#[btf_map]
pub(crate) static RING_LOST: Array<u64, 1> = Array::new();

/// Bytes written to each ring, which decide when its worker is woken. A worker that is about to
/// sleep sets it to [`tap53_ebpf::record::WAKE_WITH_NEXT`].
#[btf_map]
pub(crate) static RING_WRITTEN: Array<u64, 1> = Array::new();

/// Content of the datagrams whose first fragment has passed: [`tap53_ebpf::fragments::carries`].
/// Their other fragments follow within milliseconds, so that thousands of entries outlast any of
/// them. The kernel evicts the least recently used one.
#[btf_map]
pub(crate) static DATAGRAMS: LruHashMap<DatagramKey, u32, 4_096> = LruHashMap::new();

/// Processes by the cookie of their socket. The agent reads an entry when it writes the record. The
/// kernel evicts the oldest one.
#[btf_map]
pub(crate) static PROCESSES: LruHashMap<u64, Process, 1> = LruHashMap::new();

/// Number of fragments of unknown datagrams that this CPU has captured recently.
#[repr(C)]
pub(crate) struct Speculation {
    /// The current second of CLOCK_MONOTONIC.
    pub(crate) second: u64,
    /// Fragments captured in that second.
    pub(crate) count: u64,
}

/// See [`Speculation`].
#[btf_map]
pub(crate) static SPECULATION: PerCpuArray<Speculation, 1> = PerCpuArray::new();

/// CLOCK_MONOTONIC nanoseconds of the last log message.
#[btf_map]
pub(crate) static LOGGED_AT: Array<u64, 1> = Array::new();

/// Number of rings in use: 1 to the number of entries of [`RINGS`].
#[unsafe(no_mangle)]
pub(crate) static RING_COUNT: Global<u32> = Global::new(1);

/// A worker is woken each time this many bytes have been written to its ring, rounded up to a power
/// of two; 0 wakes it for each item.
#[unsafe(no_mangle)]
pub(crate) static WAKEUP_BYTES: Global<u32> = Global::new(0);

/// 1 to send messages about rare conditions to the agent's log, 0 to send none.
#[unsafe(no_mangle)]
pub(crate) static KERNEL_LOG: Global<u8> = Global::new(0);
