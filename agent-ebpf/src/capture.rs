//! Processes a packet at any hook: settings → headers → ring, and one counter at the end.

use core::mem::{MaybeUninit, transmute};

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_log_ebpf::warn;
use tap53_ebpf::{
    counter::{Counter, Counters},
    fragments,
    headers::{self, Content, Cursor, Endpoint, Fragment, Frame, Headers, Inner, Outer, VlanTags},
    record::Sender,
    settings::{
        Direction, InterfaceSettings, PortSet, UNCONFIGURED_SLOT, counter_index, features,
        near_index, port_bit,
    },
};

use crate::{
    datagrams::Datagrams,
    emit::{self, launder, scrub},
    maps::{COUNTERS, INTERFACES, INTERFACES_NEAR, KERNEL_LOG, LOGGED_AT, PORTS},
};

/// A packet at a hook.
pub(crate) trait Packet {
    /// True in programs for kernels whose atomic additions return the previous value (5.12).
    const FETCHES: bool;

    /// Returns the direction that the hook sees.
    fn direction(&self) -> Direction;
    /// Returns the number of the hook in [`tap53_ebpf::record::hook`].
    fn hook(&self) -> u8;
    /// Returns the ifindex of the hook.
    fn ifindex(&self) -> u32;
    /// Returns the length from the link layer on, over all buffers, in bytes.
    fn length(&self) -> u32;
    /// Returns start and end of its first buffer, for direct access.
    fn first_buffer(&self) -> (usize, usize);
    /// Returns the payload size of each segment, in bytes, if the packet has several segments; 0 if
    /// it has one, or if the hook does not know.
    fn gso_size(&self) -> u32;
    /// Returns the VLAN tag that the kernel stores beside the packet.
    fn offloaded_tci(&self) -> Option<u16>;
    /// Returns false if the packet may have had a tag on the wire that the hook cannot see.
    fn sees_every_tag(&self) -> bool;
    /// Returns the socket that sent the packet, if the kernel still knows it.
    fn sender(&self) -> Sender;
    /// Copies `length` bytes from `offset` on from all buffers; returns false if the kernel
    /// refuses.
    ///
    /// # Safety
    /// `to` must be writable for `length` bytes, and `length` not zero.
    unsafe fn copy(&self, offset: u32, to: *mut u8, length: u32) -> bool;
}

/// The first buffer of a packet: `data..data_end`.
#[derive(Clone, Copy)]
struct Linear {
    data: usize,
    data_end: usize,
    /// Length of the packet over all buffers, in bytes.
    length: u32,
    /// A number that the verifier does not know.
    unknown: u32,
}

impl Frame for Linear {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let start = self.data + offset as usize;
        // Launder it: otherwise LLVM turns `start + 1 > data_end` into `start >= data_end`, from
        // which the verifier derives no range (`find_good_pkt_pointers`).
        if launder((start + N) as u64) > self.data_end as u64 {
            return None;
        }
        // SAFETY: start + N <= data_end, as checked above and checked again by the verifier; [u8;
        // N] needs no alignment.
        Some(unsafe { *(start as *const [u8; N]) })
    }

    #[inline(always)]
    fn scrub_path(&self, offset: u32) -> u32 {
        scrub_path(offset, self.unknown)
    }

    #[inline(always)]
    fn continues_elsewhere(&self) -> bool {
        self.length as usize > self.data_end - self.data
    }
}

/// A packet whose headers continue after its first buffer, read by helper calls.
struct Scattered<'a, P> {
    packet: &'a P,
    /// A number that the verifier does not know.
    unknown: u32,
}

impl<P: Packet> Frame for Scattered<'_, P> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: `bytes` has room for N bytes, and no caller uses N = 0.
        let copied = unsafe { self.packet.copy(offset, bytes.as_mut_ptr().cast(), N as u32) };
        // SAFETY: the kernel has written all N bytes.
        copied.then(|| unsafe { bytes.assume_init() })
    }

    #[inline(always)]
    fn scrub_path(&self, offset: u32) -> u32 {
        scrub_path(offset, self.unknown)
    }
}

/// Implements [`Frame::scrub_path`]. Without it the verifier takes three times the steps, and the
/// agent three times as long to start.
#[inline(always)]
fn scrub_path(offset: u32, unknown: u32) -> u32 {
    const _: () = assert!((headers::MAX_OFFSET + 1).is_power_of_two());
    (scrub(u64::from(offset), unknown) & u64::from(headers::MAX_OFFSET)) as u32
}

/// Captures a packet, or counts the reason why it does not. It never modifies the packet.
#[inline(always)]
pub(crate) fn capture<P: Packet>(packet: &P) {
    let Some(settings) = settings(packet.ifindex()) else {
        if let Some(tally) = Tally::of(UNCONFIGURED_SLOT, packet.direction()) {
            tally.add(Counter::Seen, 1);
            tally.add(Counter::Unconfigured, 1);
        }
        log_unconfigured(packet);
        return;
    };
    // `None` if the agent assigned a slot beyond the size of the map, which it never does.
    let Some(tally) = Tally::of(settings.counter_slot, packet.direction()) else {
        return;
    };
    tally.add(Counter::Seen, 1);
    if let Err(reason) = capture_configured(packet, &settings, &tally) {
        tally.add_reason(reason);
    }
}

/// Returns the current settings of an interface. They are read once, so that a change in between
/// cannot affect half a packet.
#[inline(always)]
fn settings(ifindex: u32) -> Option<InterfaceSettings> {
    if let Some(near) = INTERFACES_NEAR.get(near_index(ifindex))
        && near.ifindex == ifindex
    {
        return Some(near.settings);
    }
    // SAFETY: the value is copied at once, and every bit pattern of it is valid. An update replaces
    // the element; if the old one was reused within these few nanoseconds, the packet would be
    // processed with another interface's settings.
    unsafe { INTERFACES.get(&ifindex) }.copied()
}

#[inline(always)]
fn capture_configured<P: Packet>(
    packet: &P,
    settings: &InterfaceSettings,
    tally: &Tally,
) -> Result<(), Counter> {
    if !settings.wants(packet.direction()) {
        return Err(Counter::Disabled);
    }
    let headers = parse(packet, settings)?;
    if !matches!(headers.fragment, Fragment::Whole) && settings.features & features::FRAGMENTS != 0
    {
        fragments::check_fragment(&headers, packet.ifindex(), &mut Datagrams)?;
    }
    emit::emit(packet, &headers, settings, tally)
}

/// Runs [`headers::parse`] in the kernel: most packets are parsed by direct access to their first
/// buffer, and packets in tunnels by helper calls, so that the verifier follows the code of inner
/// headers once, and without packet pointers.
#[inline(always)]
fn parse<P: Packet>(packet: &P, settings: &InterfaceSettings) -> Result<Headers, Counter> {
    let (data, data_end) = packet.first_buffer();
    let unknown = settings.generation;
    let linear = Linear { data, data_end, length: packet.length(), unknown };
    let scattered = Scattered { packet, unknown };
    let outer = match parse_outer(&linear, packet, settings) {
        // The headers may continue in another buffer.
        Err(Counter::MalformedHeader) if linear.continues_elsewhere() => {
            parse_outer(&scattered, packet, settings)?
        }
        parsed => parsed?,
    };
    let headers = match outer {
        Outer::Packet(headers) => headers,
        Outer::Tunnel(tunnel) => {
            let tunnel = scrub_tunnel(tunnel, unknown);
            headers::inner(&scattered, &tunnel, settings.features, &in_set)?
        }
    };
    Ok(scrub_kind(headers, unknown))
}

/// Makes the verifier forget which path led to these headers, like [`scrub_path`] does for offsets:
/// it then follows the later code once, and not per path. It covers all fields, since kernels
/// before 6.2 compare every number in programs that call functions.
#[inline(always)]
fn scrub_kind(headers: Headers, unknown: u32) -> Headers {
    let scrub_u8 = |value: u8| scrub(u64::from(value), unknown) as u8;
    let scrub_u16 = |value: u16| scrub(u64::from(value), unknown) as u16;
    let scrub_end = |end: Endpoint| Endpoint {
        address: end.address.map(|word| scrub(word, unknown)),
        port: scrub_u16(end.port),
    };
    Headers {
        vlan: scrub_tags(headers.vlan, unknown),
        ip_version: scrub_u8(headers.ip_version),
        transport: scrub_u8(headers.transport),
        // SAFETY: the value is unchanged.
        fragment: unsafe { transmute::<u8, Fragment>(scrub_u8(headers.fragment as u8)) },
        // SAFETY: as above.
        content: unsafe { transmute::<u8, Content>(scrub_u8(headers.content as u8)) },
        network_offset: scrub_u16(headers.network_offset),
        transport_offset: scrub_u16(headers.transport_offset),
        payload_offset: scrub_u16(headers.payload_offset),
        fragment_offset: scrub_u16(headers.fragment_offset),
        identification: scrub(u64::from(headers.identification), unknown) as u32,
        source: scrub_end(headers.source),
        destination: scrub_end(headers.destination),
        tunnel: scrub_u8(headers.tunnel),
        tunnel_id: scrub_id(headers.tunnel_id, unknown),
        message_id: scrub_u16(headers.message_id),
    }
}

#[inline(always)]
fn scrub_tags(vlan: VlanTags, unknown: u32) -> VlanTags {
    VlanTags {
        depth: scrub(u64::from(vlan.depth), unknown) as u8,
        outer_tci: scrub(u64::from(vlan.outer_tci), unknown) as u16,
        inner_tci: scrub(u64::from(vlan.inner_tci), unknown) as u16,
    }
}

#[inline(always)]
fn scrub_id(id: Option<u32>, unknown: u32) -> Option<u32> {
    let is_there = scrub(u64::from(id.is_some()), unknown) != 0;
    let id = scrub(u64::from(id.unwrap_or(0)), unknown) as u32;
    is_there.then_some(id)
}

/// Applies [`scrub_kind`] to the properties of a tunnel before its inner packet is parsed.
#[inline(always)]
fn scrub_tunnel(tunnel: Inner, unknown: u32) -> Inner {
    Inner {
        kind: scrub(u64::from(tunnel.kind), unknown) as u8,
        has_id: scrub(u64::from(tunnel.has_id), unknown) != 0,
        id: scrub(u64::from(tunnel.id), unknown) as u32,
        ethertype: scrub(u64::from(tunnel.ethertype), unknown) as u16,
        offset: scrub_path(tunnel.offset, unknown),
        vlan: scrub_tags(tunnel.vlan, unknown),
    }
}

#[inline(always)]
fn parse_outer<F: Frame, P: Packet>(
    frame: &F,
    packet: &P,
    settings: &InterfaceSettings,
) -> Result<Outer, Counter> {
    let start = Cursor::ethernet(frame, packet.offloaded_tci())?;
    headers::outer(frame, start, settings.features, &in_set)
}

#[inline(always)]
pub(crate) fn in_set(set: PortSet, port: u16) -> bool {
    let (word, bit) = port_bit(set, port);
    PORTS.get(word).is_some_and(|bits| bits & bit != 0)
}

/// The counters of an interface and direction on this CPU.
///
/// Plain additions suffice: only one hook writes to a slot, and programs at a hook run with bottom
/// halves disabled, so that the same hook does not run on this CPU in between.
pub(crate) struct Tally(*mut Counters);

impl Tally {
    #[inline(always)]
    fn of(slot: u32, direction: Direction) -> Option<Self> {
        COUNTERS.get_ptr_mut(counter_index(slot, direction)).map(Self)
    }

    /// Adds to a counter that is known at compile time.
    #[inline(always)]
    pub(crate) fn add(&self, counter: Counter, count: u64) {
        // SAFETY: the map value is a Counters, valid while the program runs.
        unsafe { (*self.0).counts[counter as usize] += count };
    }

    /// Counts a packet that is not captured.
    #[inline(always)]
    fn add_reason(&self, reason: Counter) {
        // Launder it: otherwise LLVM drops the check, since every Counter is a valid index, which
        // the verifier does not know.
        let index = launder(reason as u64) as usize;
        if index < Counter::COUNT {
            // SAFETY: as above, and index < COUNT.
            unsafe { *(&raw mut (*self.0).counts).cast::<u64>().add(index) += 1 };
        }
    }
}

/// Logs a packet of an interface without settings, which indicates a defect: every hook has
/// settings while it is attached.
#[inline(always)]
fn log_unconfigured<P: Packet>(packet: &P) {
    if may_log() {
        warn!(
            packet,
            "interface {} has no settings: its packets are not captured",
            packet.ifindex()
        );
    }
}

/// Returns true at most once per second, and only if the agent has enabled messages: a logged
/// condition may apply to many packets.
#[inline(always)]
pub(crate) fn may_log() -> bool {
    const INTERVAL_NS: u64 = 1_000_000_000;
    if KERNEL_LOG.load() == 0 {
        return false;
    }
    let Some(logged_at_ns) = LOGGED_AT.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: a helper without arguments.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: the map value is a u64, valid while the program runs. Two CPUs may both log.
    unsafe {
        if now_ns.wrapping_sub(*logged_at_ns) < INTERVAL_NS {
            return false;
        }
        *logged_at_ns = now_ns;
    }
    true
}
