//! Reserves space in a ring, fills it and submits it, or returns the reason why not.

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_log_ebpf::warn;
use tap53_ebpf::{
    counter::Counter,
    headers::{Fragment, Headers, UDP, ring_index},
    record::{MAX_CAPTURED_LENGTH, RecordHeader, SIZE_CLASSES, flags},
    settings::{InterfaceSettings, features},
};

use crate::{
    capture::{Packet, Tally, may_log},
    maps::{RING_COUNT, RING_LOST, RING_WRITTEN, RINGS, Ring, WAKEUP_BYTES},
};

/// Flags of `bpf_ringbuf_submit` (`linux/bpf.h`).
mod ringbuf {
    pub(super) const NO_WAKEUP: u64 = 1;
    pub(super) const FORCE_WAKEUP: u64 = 2;
}

/// A ring item of one size class, with `CAPACITY` bytes of packet.
#[repr(C)]
struct Record<const CAPACITY: usize> {
    header: RecordHeader,
    packet: [MaybeUninit<u8>; CAPACITY],
}

/// Returns the capacity of a size class in bytes of packet.
const fn capacity(class: usize) -> usize {
    SIZE_CLASSES[class] as usize - RecordHeader::SIZE
}

const CAPACITY_0: usize = capacity(0);
const CAPACITY_1: usize = capacity(1);
const CAPACITY_2: usize = capacity(2);
const CAPACITY_3: usize = capacity(3);
const CAPACITY_4: usize = capacity(4);
const CAPACITY_5: usize = capacity(5);
const _: () = assert!(SIZE_CLASSES.len() == 6);
const _: () = assert!(size_of::<Record<CAPACITY_0>>() == SIZE_CLASSES[0] as usize);

/// Hides a value from LLVM.
///
/// LLVM drops or rewrites a check whose outcome it knows, or checks a copy in another register. The
/// verifier, which does not know the outcome, then refuses the access after the check.
#[inline(always)]
pub(crate) fn launder(value: u64) -> u64 {
    let hidden: u64;
    // SAFETY: it moves a register to itself.
    unsafe {
        asm!("{0} = {0}", inlateout(reg) value => hidden, options(pure, nomem, nostack));
    }
    hidden
}

/// Hides a value from the verifier: XOR with an unknown number makes the value unknown, and a
/// second XOR does not make it known again. Paths through the program that differ only in the value
/// are then followed once.
#[inline(always)]
pub(crate) fn scrub(value: u64, unknown: u32) -> u64 {
    let unknown = u64::from(unknown);
    let scrubbed: u64;
    // In assembler, since LLVM would drop both.
    // SAFETY: it changes a register, and back. `inout` keeps the two apart, even if they are equal.
    unsafe {
        asm!(
            "{0} ^= {1}",
            "{0} ^= {1}",
            inout(reg) value => scrubbed,
            in(reg) unknown,
            options(pure, nomem, nostack),
        );
    }
    scrubbed
}

/// Copies a packet into the ring of its flow.
#[inline(always)]
pub(crate) fn emit<P: Packet>(
    packet: &P,
    headers: &Headers,
    settings: &InterfaceSettings,
    tally: &Tally,
) -> Result<(), Counter> {
    let header = record_header(packet, headers, settings);
    let captured_length = header.captured_length;
    let truncated = header.flags & flags::TRUNCATED != 0;
    store(packet, header)?;
    tally.add(Counter::Captured, 1);
    tally.add(Counter::BytesCaptured, u64::from(captured_length));
    if truncated {
        tally.add(Counter::Truncated, 1);
    }
    Ok(())
}

/// Builds a ring item's header, except for `ring_lost`.
#[inline(always)]
fn record_header<P: Packet>(
    packet: &P,
    headers: &Headers,
    settings: &InterfaceSettings,
) -> RecordHeader {
    let packet_length = packet.length();
    let snap_length = settings.snap_length.min(MAX_CAPTURED_LENGTH);
    let captured_length = packet_length.min(snap_length);
    let mut record_flags = 0;
    if captured_length < packet_length {
        record_flags |= flags::TRUNCATED;
    }
    if headers.vlan.depth > 0 {
        record_flags |= flags::VLAN_OUTER;
    } else if !packet.sees_every_tag() {
        record_flags |= flags::VLAN_UNKNOWN;
    }
    if headers.vlan.depth > 1 {
        record_flags |= flags::VLAN_INNER;
    }
    record_flags |= match headers.fragment {
        Fragment::Whole => 0,
        Fragment::First => flags::FIRST_FRAGMENT,
        Fragment::Later => flags::LATER_FRAGMENT,
    };
    if headers.tunnel_id.is_some() {
        record_flags |= flags::TUNNEL_ID;
    }
    // The size of a TCP segment says nothing about its messages.
    let gso_size = if headers.transport == UDP { packet.gso_size() } else { 0 };
    let sender = packet.sender();
    RecordHeader {
        // SAFETY: a helper without arguments.
        captured_at_ns: unsafe { bpf_ktime_get_ns() },
        packet_length,
        captured_length,
        ifindex: packet.ifindex(),
        flow_hash: headers.ring_hash(settings.features & features::FRAGMENTS != 0),
        ring_lost: 0,
        network_offset: headers.network_offset,
        transport_offset: headers.transport_offset,
        payload_offset: headers.payload_offset,
        vlan_outer_tci: headers.vlan.outer_tci,
        vlan_inner_tci: headers.vlan.inner_tci,
        flags: scrub(u64::from(record_flags), settings.generation) as u16,
        direction: packet.direction() as u8,
        hook: packet.hook(),
        ip_version: headers.ip_version,
        transport: headers.transport,
        generation: settings.generation,
        tunnel_id: headers.tunnel_id.unwrap_or(0),
        gso_size: gso_size as u16,
        fragment_offset: headers.fragment_offset,
        tunnel: headers.tunnel,
        reserved: 0,
        reserved_2: 0,
        sender_uid: sender.uid,
        sender_cgroup: sender.cgroup,
        sender_socket: sender.socket,
    }
}

/// Stores the item in the smallest size class that fits.
#[inline(always)]
fn store<P: Packet>(packet: &P, mut header: RecordHeader) -> Result<(), Counter> {
    let index = ring_index(header.flow_hash, RING_COUNT.load());
    let lost = RING_LOST.get_ptr_mut(index).ok_or(Counter::RingFull)?;
    // SAFETY: the map value is a u64, valid while the program runs.
    header.ring_lost = unsafe { lost.read_volatile() } as u32;
    let stored = match RINGS.get(index) {
        Some(ring) => match header.captured_length as usize {
            ..=CAPACITY_0 => fill::<P, CAPACITY_0>(ring, index, packet, &header),
            ..=CAPACITY_1 => fill::<P, CAPACITY_1>(ring, index, packet, &header),
            ..=CAPACITY_2 => fill::<P, CAPACITY_2>(ring, index, packet, &header),
            ..=CAPACITY_3 => fill::<P, CAPACITY_3>(ring, index, packet, &header),
            ..=CAPACITY_4 => fill::<P, CAPACITY_4>(ring, index, packet, &header),
            _ => fill::<P, CAPACITY_5>(ring, index, packet, &header),
        },
        // The agent fills every slot before it attaches.
        None => Err(Counter::RingFull),
    };
    if stored == Err(Counter::RingFull) {
        // SAFETY: as above.
        unsafe { atomic_add(lost, 1) };
    }
    stored
}

/// Adds to a counter that all CPUs share. Rust has no `AtomicU64::fetch_add` for BPF, whose oldest
/// version lacks compare-and-swap.
///
/// # Safety
/// `counter` must point to a live map value.
#[inline(always)]
unsafe fn atomic_add(counter: *mut u64, added: u64) {
    // SAFETY: the caller guarantees it.
    unsafe {
        asm!(
            "lock *(u64 *)({1} + 0) += {0}",
            in(reg) added,
            in(reg) counter,
            options(nostack),
        );
    }
}

/// Adds like [`atomic_add`]; returns the previous value (kernel 5.12).
///
/// # Safety
/// As [`atomic_add`].
#[inline(always)]
unsafe fn atomic_fetch_add(counter: *mut u64, added: u64) -> u64 {
    let before: u64;
    // SAFETY: the caller guarantees it.
    unsafe {
        asm!(
            "{0} = atomic_fetch_add((u64 *)({1} + 0), {0})",
            inlateout(reg) added => before,
            in(reg) counter,
            options(nostack),
        );
    }
    before
}

/// Adds like [`atomic_fetch_add`] on kernels without it: the returned value may lack what other
/// CPUs add at the same moment.
///
/// # Safety
/// As [`atomic_add`].
#[inline(always)]
unsafe fn add_and_fetch_before(counter: *mut u64, added: u64) -> u64 {
    // SAFETY: the caller guarantees it. The first addition changes nothing, but on x86 it keeps the
    // processor from reading the counter before it has written what comes before.
    unsafe {
        atomic_add(counter, 0);
        let before = counter.read_volatile();
        atomic_add(counter, added);
        before
    }
}

/// Reserves, fills and submits an item.
#[inline(always)]
fn fill<P: Packet, const CAPACITY: usize>(
    ring: &Ring,
    index: u32,
    packet: &P,
    header: &RecordHeader,
) -> Result<(), Counter> {
    let mut record = ring.reserve_untyped::<Record<CAPACITY>>(0).ok_or(Counter::RingFull)?;
    let room = record.as_mut_ptr();
    // SAFETY: `room` points to a reserved Record, which this program owns until it submits it.
    let to = unsafe {
        (*room).header = *header;
        (&raw mut (*room).packet).cast::<u8>()
    };
    // Compare one below the length, where LLVM cannot combine the check with others, then add one:
    // so the verifier knows both bounds of `length` itself, even on kernels that do not propagate a
    // check of `length - 1` to `length` (before 6.8).
    let below = launder(u64::from(header.captured_length).wrapping_sub(1));
    let copied = below < CAPACITY as u64 && {
        let length = launder(below) + 1;
        // SAFETY: `to` has room for CAPACITY bytes, and 0 < length <= CAPACITY, as checked above.
        unsafe { packet.copy(0, to, length as u32) }
    };
    if !copied {
        record.discard(ringbuf::NO_WAKEUP);
        log_copy_failed(packet);
        return Err(Counter::CopyFailed);
    }
    record.submit(wakeup::<P>(index, size_of::<Record<CAPACITY>>() as u64));
    Ok(())
}

/// Returns the flag that decides whether to wake the worker with this item.
///
/// A wake-up per item would cost more than ten times the item. The worker polls on a timer, and is
/// woken each time that the bytes written pass a multiple of `WAKEUP_BYTES`: by exactly one CPU,
/// whatever the others do, and again after as much, in case it went to sleep although another CPU
/// had reserved an item but not submitted it. Querying the unread bytes (`bpf_ringbuf_query`) would
/// save few wake-ups and cost a helper call per item. A worker that is about to sleep sets the
/// bytes written to `record::WAKE_WITH_NEXT`, so that the next item wakes it. The space is reserved
/// before this function reads that value, and the atomic addition orders the two.
///
/// Without an addition that fetches (before 5.12), two CPUs may both miss a multiple that only their
/// sum passes: the worker then polls by itself some milliseconds later. Both see that value of a
/// sleeping worker, and both wake it.
#[inline(always)]
fn wakeup<P: Packet>(index: u32, bytes: u64) -> u64 {
    let Some(written) = RING_WRITTEN.get_ptr_mut(index) else {
        return ringbuf::FORCE_WAKEUP;
    };
    // SAFETY: the map value is a u64, valid while the program runs.
    let before = unsafe {
        if P::FETCHES {
            atomic_fetch_add(written, bytes)
        } else {
            add_and_fetch_before(written, bytes)
        }
    };
    // Check the highest bit that the addition has changed.
    if before ^ (before + bytes) >= u64::from(WAKEUP_BYTES.load()) {
        ringbuf::FORCE_WAKEUP
    } else {
        ringbuf::NO_WAKEUP
    }
}

/// The length comes from the kernel itself, so a refusal means that the packet is inconsistent.
#[inline(always)]
fn log_copy_failed<P: Packet>(packet: &P) {
    if may_log() {
        warn!(
            packet,
            "the kernel refused to copy {} bytes of a packet on interface {}",
            packet.length(),
            packet.ifindex()
        );
    }
}
