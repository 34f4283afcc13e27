//! A capture file in the place of a hook: what the kernel programs do with a packet, done with a
//! frame, by the same rules and with the same counters.

use std::{collections::HashMap, mem};

use tap53_ebpf::{
    counter::{Counter, Counters},
    fragments::{self, DatagramKey, Memory},
    headers::{self, Fragment, Headers, Start},
    record::{MAX_CAPTURED_LENGTH, RecordHeader, flags, hook},
    settings::{Direction, PortSet, Ports, features},
};

use super::{
    Frame,
    link::{Link, LinkType},
};

/// Datagrams of which is remembered what their first fragment carries, in each of two generations:
/// 64 bytes each, so 4 MiB.
const REMEMBERED_DATAGRAMS: usize = 32_768;

/// A hook on frames.
pub(super) struct FileHook {
    ports: Box<Ports>,
    snap_length: u32,
    datagrams: Datagrams,
    /// By direction, of the current file.
    counters: [Counters; 2],
}

impl FileHook {
    pub(super) fn new(ports: Ports, snap_length: u32) -> Self {
        Self {
            ports: Box::new(ports),
            snap_length: snap_length.min(MAX_CAPTURED_LENGTH),
            datagrams: Datagrams::default(),
            counters: [Counters::default(); 2],
        }
    }

    /// The counters, by direction.
    pub(super) const fn counters(&self) -> &[Counters; 2] {
        &self.counters
    }

    /// Begins another file.
    pub(super) fn take_counters(&mut self) -> [Counters; 2] {
        mem::take(&mut self.counters)
    }

    /// Counts a frame that cannot be looked into.
    pub(super) fn refuse(&mut self, reason: Counter) {
        self.count(Direction::Ingress, Counter::Seen, 1);
        self.count(Direction::Ingress, reason, 1);
    }

    /// What a kernel program would have put into a ring for this frame, if anything. `wanted` are
    /// bits of [`features`].
    pub(super) fn capture<'a>(
        &mut self,
        frame: &Frame<'a>,
        link: &Link,
        ifindex: u32,
        wanted: u32,
    ) -> Option<(RecordHeader, &'a [u8])> {
        let headers = self.parse(frame.bytes, link, ifindex, wanted);
        let stated = frame.direction.or(link.direction);
        let direction = stated.unwrap_or_else(|| {
            headers.as_ref().map_or(Direction::Ingress, |headers| self.direction(headers))
        });
        self.count(direction, Counter::Seen, 1);
        let headers = match headers {
            Ok(headers) => headers,
            Err(reason) => {
                self.count(direction, reason, 1);
                return None;
            }
        };
        let header = self.record_header(frame, &headers, ifindex, direction, wanted);
        let bytes = frame.bytes.get(..header.captured_length as usize)?;
        self.count(direction, Counter::Captured, 1);
        self.count(direction, Counter::BytesCaptured, u64::from(header.captured_length));
        self.count(direction, Counter::Truncated, u64::from(header.has(flags::TRUNCATED)));
        Some((header, bytes))
    }

    fn parse(
        &mut self,
        bytes: &[u8],
        link: &Link,
        ifindex: u32,
        wanted: u32,
    ) -> Result<Headers, Counter> {
        let start = match link.start {
            Some(start) => start,
            None => Start::ethernet(bytes, None)?,
        };
        let ports = &self.ports;
        let in_set = |set, port| ports.contains(set, port);
        let headers = headers::parse_from(bytes, start, wanted, in_set)?;
        if headers.fragment != Fragment::Whole && wanted & features::FRAGMENTS != 0 {
            fragments::admit(&headers, ifindex, &mut self.datagrams)?;
        }
        Ok(headers)
    }

    /// Where the file does not tell: as at the server, at which queries arrive.
    fn direction(&self, headers: &Headers) -> Direction {
        if self.ports.contains(PortSet::Dns, headers.destination.port) {
            Direction::Ingress
        } else {
            Direction::Egress
        }
    }

    fn record_header(
        &self,
        frame: &Frame<'_>,
        headers: &Headers,
        ifindex: u32,
        direction: Direction,
        wanted: u32,
    ) -> RecordHeader {
        // Limited to what a frame may be, so that it fits.
        let there = u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX);
        let captured_length = there.min(self.snap_length);
        // Some writers state an original length of zero, or less than they stored.
        let packet_length = frame.original_length.max(there);
        let flag = |is_set: bool, flag: u16| if is_set { flag } else { 0 };
        RecordHeader {
            captured_at_ns: frame.at_ns,
            packet_length,
            captured_length,
            ifindex,
            flow_hash: headers.ring_hash(wanted & features::FRAGMENTS != 0),
            ring_lost: 0,
            network_offset: headers.network_offset,
            transport_offset: headers.transport_offset,
            payload_offset: headers.payload_offset,
            vlan_outer_tci: headers.vlan.outer_tci,
            vlan_inner_tci: headers.vlan.inner_tci,
            flags: flag(captured_length < packet_length, flags::TRUNCATED)
                | flag(headers.vlan.depth > 0, flags::VLAN_OUTER)
                | flag(headers.vlan.depth > 1, flags::VLAN_INNER)
                | flag(headers.fragment == Fragment::First, flags::FIRST_FRAGMENT)
                | flag(headers.fragment == Fragment::Later, flags::LATER_FRAGMENT)
                | flag(headers.tunnel_id.is_some(), flags::TUNNEL_ID),
            direction: direction as u8,
            hook: hook::FILE,
            ip_version: headers.ip_version,
            transport: headers.transport,
            generation: 0,
            tunnel_id: headers.tunnel_id.unwrap_or(0),
            gso_size: 0,
            fragment_offset: headers.fragment_offset,
            tunnel: headers.tunnel,
            reserved: [0; 7],
        }
    }

    const fn count(&mut self, direction: Direction, counter: Counter, count: u64) {
        self.counters[direction as usize].counts[counter as usize] += count;
    }
}

/// What the first fragments of datagrams carried. The older generation is forgotten when the
/// younger one is full.
#[derive(Default)]
struct Datagrams {
    young: HashMap<DatagramKey, u32>,
    old: HashMap<DatagramKey, u32>,
}

impl Memory for Datagrams {
    fn remember(&mut self, datagram: &DatagramKey, content: u32) {
        if self.young.len() >= REMEMBERED_DATAGRAMS {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(*datagram, content);
    }

    fn recall(&mut self, datagram: &DatagramKey) -> Option<u32> {
        self.young.get(datagram).or_else(|| self.old.get(datagram)).copied()
    }

    /// There is no ring to protect.
    fn may_speculate(&mut self) -> bool {
        true
    }
}

/// The link layer of a frame, or why it cannot be looked into.
pub(super) fn link(frame: &Frame<'_>) -> Result<Link, Counter> {
    let link_type = LinkType::of(frame.link_type).ok_or(Counter::UnsupportedLinkType)?;
    link_type.read(frame.bytes).ok_or(Counter::MalformedHeader)
}
