//! IP fragments become datagrams (RFC 791 §3.2, RFC 815, RFC 8200 §4.5).
//!
//! A worker owns one [`Fragments`], made by [`Config::build`]. Each fragment goes into
//! [`Fragments::fragment`]; [`Fragments::expire`] passes the time; [`Fragments::finish`] ends. What
//! comes of it is a [`FragmentEvent`] in the call: the datagram that this fragment completes, or
//! what is lost.
//!
//! A datagram is handed out from its transport header on, in a buffer that is used again, with the
//! origin of its first fragment; the time and the frame number are those of the fragment that
//! completed it. In IPv6 `protocol` is the next header that the first fragment names (RFC 8200
//! §4.5), which may be an extension header: the caller walks from there, as it does in a packet.
//!
//! Contract:
//! - Nothing panics on any input, time is passed in.
//! - Memory follows the bytes received, not the offsets claimed: a fragment costs its own length
//!   and 64 bytes wherever it says it belongs.
//! - Work is bounded by the fragments that come, whatever their order
//!   ([`FragmentCounts::most_steps`]).
//! - What tells datagrams apart: addresses, identification, in IPv4 the protocol (in IPv6 the
//!   fragments may name different ones), and interface, direction and tunnel, so that the copies of
//!   a packet at several hooks are not taken for overlaps.
//! - A fragment that is there already, byte for byte, is ignored. Any other overlap refuses the
//!   datagram, and until its time is up all that comes of it (RFC 5722 §4). The same holds where
//!   two fragments disagree on the end.
//! - A fragment at offset 0 with none to follow (RFC 6946) is a datagram by itself, whatever else
//!   bears its identification.
//! - What is not possible (RFC 8200 §4.5) is refused alone: it cannot be told to be of the datagram.
//! - Checksums are not looked at. An identification that is used again within the timeout can join
//!   what does not belong together (RFC 4963), unless it overlaps, which it mostly does.

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

use super::{Origin, Part, Tunnel, aged::Aged};
use datagram::{Added, Parts};

pub use counts::{FragmentCounts, FragmentIgnored, FragmentLoss};

/// How much is kept of datagrams, by each worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Datagrams at most, refused ones included.
    pub datagrams: usize,
    /// Bytes kept at most, of all datagrams, with 64 bytes of bookkeeping for each fragment.
    pub bytes: usize,
    /// Fragments of a datagram at most.
    pub fragments: usize,
    /// How long the first fragment that comes waits for the others.
    pub timeout: Duration,
}

impl Default for Config {
    /// 4,096 datagrams take 0.4 KiB each, so 1.6 MiB, besides 8 MiB of bytes. A datagram of 65,535
    /// bytes has 119 fragments at the 576 bytes that every host takes (RFC 791 §3.1). The timeout
    /// is the one RFC 791 §3.2 recommends; a message that takes longer is answered no more.
    fn default() -> Self {
        Self { datagrams: 4_096, bytes: 8 << 20, fragments: 128, timeout: Duration::from_secs(15) }
    }
}

impl Config {
    /// No fragments yet.
    #[must_use]
    pub fn build(self) -> Fragments {
        Fragments {
            config: Self { datagrams: self.datagrams.clamp(1, 1 << 30), ..self },
            timeout_ns: u64::try_from(self.timeout.as_nanos()).unwrap_or(u64::MAX),
            latest_ns: 0,
            datagrams: Aged::new(),
            hasher: DefaultHashBuilder::default(),
            memory: 0,
            joined: Vec::new(),
            counts: FragmentCounts::default(),
        }
    }
}

/// What comes of a fragment, or of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FragmentEvent<'a> {
    /// A whole datagram.
    Datagram {
        /// Of the first fragment, with time and frame number of the one that completed it.
        origin: Origin,
        /// What the bytes begin with: a transport header, or in IPv6 an extension header.
        protocol: u8,
        /// The datagram from there on.
        bytes: &'a [u8],
    },
    /// A datagram that will not be whole, or a fragment that is not taken.
    Loss {
        /// Of the first fragment if it came, else of another one.
        origin: Origin,
        /// As the first fragment says if it came, else another one.
        protocol: u8,
        /// The first four bytes of the datagram if they came: the ports of UDP or TCP.
        ports: Option<[u16; 2]>,
        /// Why.
        reason: FragmentLoss,
    },
}

/// What tells datagrams apart.
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

/// A datagram that is not whole.
struct Waiting {
    key: Key,
    /// When its first fragment to come was captured, or, where time had been further already, that
    /// time: a clock that is behind (set back, another host's in a capture file) has its time too.
    since_ns: u64,
    origin: Origin,
    protocol: u8,
    /// Why it is refused, once it is.
    parts: Result<Parts, FragmentLoss>,
}

/// The fragmented datagrams that a worker sees, in order of their first fragment to come.
pub struct Fragments {
    config: Config,
    timeout_ns: u64,
    /// The latest time heard of.
    latest_ns: u64,
    datagrams: Aged<Waiting, 1>,
    /// Keyed at random: senders choose identifications.
    hasher: DefaultHashBuilder,
    /// Bytes that the datagrams keep, with bookkeeping.
    memory: usize,
    /// A datagram on its way out.
    joined: Vec<u8>,
    counts: FragmentCounts,
}

impl Fragments {
    /// What became of every fragment up to now.
    #[must_use]
    pub const fn counts(&self) -> FragmentCounts {
        self.counts
    }

    /// Bytes of memory, by the arithmetic of the limits.
    #[must_use]
    pub const fn memory(&self) -> usize {
        self.datagrams.slots() * Aged::<Waiting, 1>::ENTRY_BYTES
            + self.memory
            + self.joined.capacity()
    }

    /// Takes in a fragment.
    pub fn fragment(
        &mut self,
        origin: &Origin,
        part: &Part<'_>,
        mut events: impl FnMut(FragmentEvent<'_>),
    ) {
        self.counts.received += 1;
        if part.offset == 0 && !part.more {
            // RFC 6946 §4.
            self.counts.joined += 1;
            self.counts.datagrams += 1;
            let (origin, protocol, bytes) = (*origin, part.protocol, part.data);
            return events(FragmentEvent::Datagram { origin, protocol, bytes });
        }
        if let Some(reason) = impossible(part) {
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
        // Found or inserted just now.
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

    /// Gives up the datagrams whose time has run out at `now_ns`: the time up to which fragments
    /// were handed in.
    pub fn expire(&mut self, now_ns: u64, mut events: impl FnMut(FragmentEvent<'_>)) {
        self.latest_ns = self.latest_ns.max(now_ns);
        while let Some(number) = self.datagrams.oldest(0)
            && self.is_due(number, now_ns)
        {
            self.remove(number, FragmentLoss::TimedOut, &mut events);
        }
    }

    /// The end of capture: gives up all datagrams.
    pub fn finish(&mut self, mut events: impl FnMut(FragmentEvent<'_>)) {
        while let Some(number) = self.datagrams.oldest(0) {
            self.remove(number, FragmentLoss::Ended, &mut events);
        }
    }

    /// Forgets the time, after [`finish`](Self::finish): what comes next is another capture.
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
            // Refused: what it had was counted then.
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

/// Why a fragment can be of no datagram (RFC 8200 §4.5; RFC 791 §3.2 has the same units).
fn impossible(part: &Part<'_>) -> Option<FragmentLoss> {
    /// The most that the length field of IP can state.
    const LONGEST: usize = 65_535;
    let end = usize::try_from(part.offset).ok().and_then(|at| at.checked_add(part.data.len()));
    if part.data.is_empty()
        || !part.offset.is_multiple_of(8)
        || (part.more && !part.data.len().is_multiple_of(8))
    {
        Some(FragmentLoss::Malformed)
    } else if end.is_none_or(|end| end > LONGEST) {
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
