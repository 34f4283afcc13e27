//! Reassembles IP fragments into datagrams (RFC 791 §3.2, RFC 815, RFC 8200 §4.5).
//!
//! A worker owns one [`Fragments`], created by [`Config::build`]. Each fragment goes into
//! [`Fragments::fragment`]; [`Fragments::expire`] passes the time; [`Fragments::finish`] ends. Each
//! call reports [`FragmentEvent`]s: the datagram that this fragment completes, or losses.
//!
//! A datagram is passed on from its transport header on, in a buffer that is reused, with the
//! origin of its first fragment; the time and the frame number are those of the fragment that
//! completed it. In IPv6 `protocol` is the next header in the first fragment (RFC 8200 §4.5), which
//! may be an extension header: the caller parses it as in a packet.
//!
//! Contract:
//! - No input causes a panic, and time is an argument.
//! - Memory follows the received bytes, not the claimed offsets: a fragment costs its own length
//!   and 64 bytes, whatever its offset.
//! - Work is bounded by the number of fragments, whatever their order
//!   ([`FragmentCounts::most_steps`]).
//! - The key of a datagram: addresses, identification, in IPv4 the protocol (in IPv6 the fragments
//!   may name different ones), and interface, direction and tunnel, so that copies of a packet at
//!   several hooks do not overlap.
//! - A fragment that repeats an earlier one byte for byte is ignored. Any other overlap refuses the
//!   datagram, including fragments that arrive before its timeout (RFC 5722 §4). The same applies
//!   if two fragments disagree on the end.
//! - A fragment at offset 0 without others (RFC 6946) is a datagram of its own, whatever other
//!   fragments have its identification.
//! - An invalid fragment (RFC 8200 §4.5) is refused alone: it may not belong to the datagram.
//! - Checksums are not verified. An identification that is reused within the timeout can combine
//!   unrelated fragments (RFC 4963), unless they overlap, which they usually do.

mod counts;
mod datagram;

use std::{
    cell::Cell,
    hash::{BuildHasher, Hash, Hasher},
    net::IpAddr,
    time::Duration,
};

use hashbrown::DefaultHashBuilder;
use tap53_ebpf::settings::Direction;

use super::{Origin, Part, Tunnel, aged::AgedTable};
use datagram::{Added, Parts};

pub use counts::{FragmentCounts, FragmentIgnored, FragmentLoss};

/// Limits on the stored datagrams of each worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Maximum number of datagrams, including refused ones.
    pub datagrams: usize,
    /// Maximum memory of all datagrams in bytes, with 64 bytes of bookkeeping per fragment.
    pub bytes: usize,
    /// Maximum number of fragments of a datagram.
    pub fragments: usize,
    /// Time that the first received fragment waits for the others.
    pub timeout: Duration,
}

impl Default for Config {
    /// 4,096 datagrams take 0.4 KiB each, so 1.6 MiB, in addition to 8 MiB of bytes. A datagram of
    /// 65,535 bytes has 119 fragments at the 576 bytes that every host accepts (RFC 791 §3.1). The
    /// timeout is that of RFC 791 §3.2; a message that takes longer is no longer answered.
    fn default() -> Self {
        Self { datagrams: 4_096, bytes: 8 << 20, fragments: 128, timeout: Duration::from_secs(15) }
    }
}

impl Config {
    /// Creates an empty reassembly.
    #[must_use]
    pub fn build(self) -> Fragments {
        Fragments {
            config: Self { datagrams: self.datagrams.clamp(1, 1 << 30), ..self },
            timeout_ns: u64::try_from(self.timeout.as_nanos()).unwrap_or(u64::MAX),
            latest_ns: 0,
            datagrams: AgedTable::new(),
            hasher: DefaultHashBuilder::default(),
            memory: 0,
            joined: Vec::new(),
            counts: FragmentCounts::default(),
        }
    }
}

/// The result of a fragment, or of a timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FragmentEvent<'a> {
    /// A complete datagram.
    Datagram {
        /// Origin of the first fragment, with time and frame number of the one that completed it.
        origin: Origin,
        /// Protocol of the first header: a transport header, or in IPv6 an extension header.
        protocol: u8,
        /// The datagram from that header on.
        bytes: &'a [u8],
    },
    /// A datagram that will not be completed, or a refused fragment.
    Loss {
        /// Origin of the first fragment if it has arrived, otherwise of another one.
        origin: Origin,
        /// Protocol in the first fragment if it has arrived, otherwise in another one.
        protocol: u8,
        /// The first four bytes of the datagram if they have arrived: the ports of UDP or TCP.
        ports: Option<[u16; 2]>,
        /// The reason of the loss.
        reason: FragmentLoss,
    },
}

/// Identifies a datagram.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    source: IpAddr,
    destination: IpAddr,
    identification: u32,
    ifindex: u32,
    direction: Direction,
    /// 0 in IPv6.
    protocol: u8,
    tunnel: Option<Tunnel>,
}

impl Key {
    const fn new(origin: &Origin, part: &Part<'_>) -> Self {
        Self {
            source: origin.source,
            destination: origin.destination,
            identification: part.identification,
            ifindex: origin.ifindex,
            direction: origin.direction,
            protocol: if origin.source.is_ipv4() { part.protocol } else { 0 },
            tunnel: origin.tunnel,
        }
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for address in [self.source, self.destination] {
            match address {
                IpAddr::V4(address) => state.write_u64(address.to_bits().into()),
                IpAddr::V6(address) => state.write_u128(address.to_bits()),
            }
        }
        state.write_u64(u64::from(self.ifindex) << 32 | u64::from(self.identification));
        state.write_u16(u16::from(self.direction as u8) << 8 | u16::from(self.protocol));
        if let Some(tunnel) = self.tunnel {
            state.write_u64(tunnel.number());
        }
    }
}

/// An incomplete datagram.
struct Waiting {
    key: Key,
    /// Capture time of its first received fragment, or a later time that was already reached: a
    /// datagram of a slow clock (set back, or of another host in a capture file) gets its full
    /// timeout too.
    since_ns: u64,
    origin: Origin,
    protocol: u8,
    /// The reason of the refusal (`Err`), if it is refused.
    parts: Result<Parts, FragmentLoss>,
}

/// The incomplete datagrams of a worker, in the order of their first received fragments.
pub struct Fragments {
    config: Config,
    timeout_ns: u64,
    /// The latest time of any call.
    latest_ns: u64,
    datagrams: AgedTable<Waiting, 1>,
    /// The seed is random: senders choose identifications.
    hasher: DefaultHashBuilder,
    /// Memory of the stored datagrams in bytes, including bookkeeping.
    memory: usize,
    /// Buffer of the datagram that is passed on.
    joined: Vec<u8>,
    counts: FragmentCounts,
}

impl Fragments {
    /// Returns the counts of all fragments so far.
    #[must_use]
    pub const fn counts(&self) -> FragmentCounts {
        self.counts
    }

    /// Returns the memory in bytes, as charged against the limits.
    #[must_use]
    pub const fn memory(&self) -> usize {
        self.datagrams.slots() * AgedTable::<Waiting, 1>::ENTRY_BYTES
            + self.memory
            + self.joined.capacity()
    }

    /// Processes a fragment.
    pub fn fragment(
        &mut self,
        origin: &Origin,
        part: &Part<'_>,
        mut events: impl FnMut(FragmentEvent<'_>),
    ) {
        self.counts.received += 1;
        if part.offset == 0 && !part.more {
            // A fragment without others, RFC 6946 §4.
            self.counts.joined += 1;
            self.counts.datagrams += 1;
            let (origin, protocol, bytes) = (*origin, part.protocol, part.data);
            return events(FragmentEvent::Datagram { origin, protocol, bytes });
        }
        if let Some(reason) = invalid_reason(part) {
            self.counts.lost[reason as usize] += 1;
            let ports = Some(part.data).filter(|_| part.offset == 0).and_then(ports);
            let (origin, protocol) = (*origin, part.protocol);
            return events(FragmentEvent::Loss { origin, protocol, ports, reason });
        }
        let key = Key::new(origin, part);
        let hash = self.hasher.hash_one(key);
        let steps = Cell::new(1);
        let is_it = |waiting: &Waiting| {
            steps.set(steps.get() + 1);
            waiting.key == key
        };
        let found = self.datagrams.find(hash, is_it);
        self.counts.steps += steps.get();
        let number = match found {
            Some(number) if !self.is_due(number, origin.captured_at_ns) => number,
            found => {
                if let Some(number) = found {
                    self.remove(number, FragmentLoss::TimedOut, &mut events);
                } else if self.datagrams.len() >= self.config.datagrams {
                    self.evict_oldest(&mut events);
                }
                let waiting = Waiting {
                    key,
                    since_ns: origin.captured_at_ns.max(self.latest_ns),
                    origin: *origin,
                    protocol: part.protocol,
                    parts: Ok(Parts::default()),
                };
                self.datagrams.insert(hash, 0, waiting)
            }
        };
        self.add(number, origin, part, &mut events);
        while self.memory > self.config.bytes && self.datagrams.len() > 0 {
            self.evict_oldest(&mut events);
        }
    }

    fn add(
        &mut self,
        number: u32,
        origin: &Origin,
        part: &Part<'_>,
        events: &mut impl FnMut(FragmentEvent<'_>),
    ) {
        // It was just found or inserted.
        let Some(waiting) = self.datagrams.get_mut(number) else {
            return;
        };
        let parts = match &mut waiting.parts {
            Ok(parts) => parts,
            Err(reason) => {
                self.counts.lost[*reason as usize] += 1;
                return;
            }
        };
        if part.offset == 0 {
            (waiting.origin, waiting.protocol) = (*origin, part.protocol);
        }
        let before = parts.memory();
        let reason = match parts.add(part, self.config.fragments, &mut self.counts.steps) {
            Added::Duplicate => {
                self.counts.duplicates += 1;
                return;
            }
            Added::Waits => {
                self.counts.waiting += 1;
                self.memory = self.memory + parts.memory() - before;
                return;
            }
            Added::Completes => {
                let fragments = parts.len() as u64;
                self.counts.waiting -= fragments - 1;
                self.counts.joined += fragments;
                self.counts.datagrams += 1;
                self.memory -= before;
                self.counts.steps += fragments;
                parts.join(&mut self.joined);
                let first = Origin {
                    captured_at_ns: origin.captured_at_ns,
                    frame: origin.frame,
                    ..waiting.origin
                };
                let protocol = waiting.protocol;
                self.datagrams.remove(number);
                let bytes = &self.joined;
                return events(FragmentEvent::Datagram { origin: first, protocol, bytes });
            }
            Added::Overlaps => FragmentLoss::Overlap,
            Added::TooMany => FragmentLoss::TooMany,
        };
        let ports = parts.first().and_then(ports);
        let fragments = parts.len() as u64;
        self.counts.waiting -= fragments;
        self.counts.lost[reason as usize] += fragments + 1;
        self.counts.datagrams_refused += 1;
        self.memory -= before;
        waiting.parts = Err(reason);
        let (origin, protocol) = (waiting.origin, waiting.protocol);
        events(FragmentEvent::Loss { origin, protocol, ports, reason });
    }

    /// Drops the datagrams whose timeout has expired at `now_ns`, the time up to which fragments
    /// were processed.
    pub fn expire(&mut self, now_ns: u64, mut events: impl FnMut(FragmentEvent<'_>)) {
        self.latest_ns = self.latest_ns.max(now_ns);
        while let Some(number) = self.datagrams.oldest(0)
            && self.is_due(number, now_ns)
        {
            self.remove(number, FragmentLoss::TimedOut, &mut events);
        }
    }

    /// Drops all datagrams at the end of the capture.
    pub fn finish(&mut self, mut events: impl FnMut(FragmentEvent<'_>)) {
        while let Some(number) = self.datagrams.oldest(0) {
            self.remove(number, FragmentLoss::Ended, &mut events);
        }
    }

    /// Resets the time after [`finish`](Self::finish), for another capture.
    pub const fn restart(&mut self) {
        self.latest_ns = 0;
    }

    fn is_due(&self, number: u32, now_ns: u64) -> bool {
        let waiting = self.datagrams.get(number);
        waiting.is_some_and(|waiting| waiting.since_ns.saturating_add(self.timeout_ns) <= now_ns)
    }

    fn evict_oldest(&mut self, events: &mut impl FnMut(FragmentEvent<'_>)) {
        if let Some(number) = self.datagrams.oldest(0) {
            self.counts.datagrams_evicted += 1;
            self.remove(number, FragmentLoss::Evicted, events);
        }
    }

    fn remove(
        &mut self,
        number: u32,
        reason: FragmentLoss,
        events: &mut impl FnMut(FragmentEvent<'_>),
    ) {
        let Some(Waiting { origin, protocol, parts: Ok(parts), .. }) =
            self.datagrams.remove(number)
        else {
            // It was refused, and its fragments were counted then.
            return;
        };
        self.memory -= parts.memory();
        self.counts.steps += parts.len() as u64;
        self.counts.waiting -= parts.len() as u64;
        self.counts.lost[reason as usize] += parts.len() as u64;
        let ports = parts.first().and_then(ports);
        events(FragmentEvent::Loss { origin, protocol, ports, reason });
    }
}

/// Returns the reason why a fragment is invalid (RFC 8200 §4.5; RFC 791 §3.2 has the same units).
fn invalid_reason(part: &Part<'_>) -> Option<FragmentLoss> {
    /// The maximum of IP's length field.
    const MAX_DATAGRAM: usize = 65_535;
    let end = usize::try_from(part.offset).ok().and_then(|at| at.checked_add(part.data.len()));
    if part.data.is_empty()
        || !part.offset.is_multiple_of(8)
        || (part.more && !part.data.len().is_multiple_of(8))
    {
        Some(FragmentLoss::Malformed)
    } else if end.is_none_or(|end| end > MAX_DATAGRAM) {
        Some(FragmentLoss::TooLong)
    } else {
        None
    }
}

fn ports(bytes: &[u8]) -> Option<[u16; 2]> {
    let &[a, b, c, d] = bytes.first_chunk()?;
    Some([u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])])
}

#[cfg(test)]
mod tests;
