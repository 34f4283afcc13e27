//! Processes the frames of a capture file as the kernel programs process packets at a hook, by the same
//! rules and with the same counters.

use std::{collections::HashMap, mem};

use tap53_ebpf::{
    counter::{Counter, Counters},
    fragments::{self, DatagramContents, DatagramKey},
    headers::{self, Cursor, Fragment, Headers},
    record::{MAX_CAPTURED_LENGTH, RecordHeader, flags, hook},
    settings::{Direction, PortSet, Ports, features},
};

use super::{Frame, link::Link};

/// Maximum number of datagrams in each of two generations, of which the first fragment's decision, the
/// direction and the flow are kept: 64 bytes for each of the three, so 12 MiB.
const REMEMBERED_DATAGRAMS: usize = 32_768;

/// A hook for frames.
pub struct FileHook {
    ports: Box<Ports>,
    snap_length: u32,
    datagrams: Datagrams<u32>,
    /// Directions of datagrams, if the file does not record them.
    directions: Datagrams<Direction>,
    /// Hashes of the datagrams' flows, by the ports of their first fragments.
    flows: Datagrams<u32>,
    /// Counters of the current file, by direction.
    counters: [Counters; 2],
}

impl FileHook {
    /// Creates a hook that captures packets of `ports`, and at most `snap_length` bytes of each frame.
    #[must_use]
    pub fn new(ports: Ports, snap_length: u32) -> Self {
        Self {
            ports: Box::new(ports),
            snap_length: snap_length.min(MAX_CAPTURED_LENGTH),
            datagrams: Datagrams::default(),
            directions: Datagrams::default(),
            flows: Datagrams::default(),
            counters: [Counters::default(); 2],
        }
    }

    /// Returns the counters, by direction.
    #[must_use]
    pub const fn counters(&self) -> &[Counters; 2] {
        &self.counters
    }

    /// Starts another file: its counters start at zero. A datagram can continue in the next file.
    pub(super) fn begin_file(&mut self) {
        self.counters = Default::default();
    }

    /// Counts a frame that cannot be parsed.
    pub fn refuse(&mut self, reason: Counter) {
        self.count(Direction::Ingress, Counter::Seen, 1);
        self.count(Direction::Ingress, reason, 1);
    }

    /// Returns the ring item that a kernel program would have written for this frame, if any. `wanted`
    /// are bits of [`features`].
    pub fn capture<'a>(
        &mut self,
        frame: &Frame<'a>,
        link: &Link,
        ifindex: u32,
        wanted: u32,
    ) -> Option<(RecordHeader, &'a [u8])> {
        let headers = self.parse(frame.bytes, link, ifindex, wanted);
        let direction = match (frame.direction.or(link.direction), &headers) {
            (Some(stated), _) => stated,
            (None, Ok(headers)) => self.direction(headers, ifindex),
            (None, Err(_)) => Direction::Ingress,
        };
        self.count(direction, Counter::Seen, 1);
        let headers = match headers {
            Ok(headers) => headers,
            Err(reason) => {
                self.count(direction, reason, 1);
                return None;
            }
        };
        let flow_hash = self.flow_hash(&headers, ifindex);
        let header = self.record_header(frame, &headers, ifindex, direction, flow_hash);
        let bytes = frame.bytes.get(..header.captured_length as usize)?;
        self.count(direction, Counter::Captured, 1);
        self.count(direction, Counter::BytesCaptured, u64::from(header.captured_length));
        self.count(direction, Counter::Truncated, u64::from(header.has(flags::TRUNCATED)));
        Some((header, bytes))
    }

    /// Returns true if a captured packet is from a server, as far as it shows: a response over UDP, a
    /// segment from a DNS port, a later fragment.
    pub(super) fn is_from_server(&self, header: &RecordHeader, bytes: &[u8]) -> bool {
        if header.has(flags::LATER_FRAGMENT) {
            return true;
        }
        if header.transport == headers::UDP {
            // QR, RFC 1035 §4.1.1.
            let flags = bytes.get(usize::from(header.payload_offset) + 2);
            return flags.is_some_and(|flags| flags & 0x80 != 0);
        }
        let at = usize::from(header.transport_offset);
        let Some([a, b, c, d]) = bytes.get(at..).and_then(<[u8]>::first_chunk) else {
            return false;
        };
        let is_dns = |port| self.ports.contains(PortSet::Dns, port);
        is_dns(u16::from_be_bytes([*a, *b])) && !is_dns(u16::from_be_bytes([*c, *d]))
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
            None => Cursor::ethernet(bytes, None)?,
        };
        let ports = &self.ports;
        let in_set = |set, port| ports.contains(set, port);
        let headers = headers::parse_from(bytes, start, wanted, in_set)?;
        if headers.fragment != Fragment::Whole && wanted & features::FRAGMENTS != 0 {
            fragments::check_fragment(&headers, ifindex, &mut self.datagrams)?;
        }
        Ok(headers)
    }

    /// Returns the direction of a frame for which the file has none: as at the server, at which queries
    /// arrive. Later fragments have no ports. All fragments of a datagram get the direction of the one
    /// that came first, since fragments are reassembled for each direction separately. If that one is a
    /// later fragment, the datagram is assumed to be a response, as most are.
    fn direction(&mut self, headers: &Headers, ifindex: u32) -> Direction {
        let by_port = if self.ports.contains(PortSet::Dns, headers.destination.port) {
            Direction::Ingress
        } else {
            Direction::Egress
        };
        if headers.fragment == Fragment::Whole {
            return by_port;
        }
        let datagram = DatagramKey::new(headers, ifindex);
        match self.directions.get(&datagram) {
            Some(direction) => direction,
            None => {
                self.directions.insert(datagram, by_port);
                by_port
            }
        }
    }

    /// Returns the hash of a packet's flow, also where the kernel programs use the datagram's: there is
    /// one ring, and a fragmented response must have the flow of its query. A later fragment has the flow
    /// of the first one, if that came before it.
    fn flow_hash(&mut self, headers: &Headers, ifindex: u32) -> u32 {
        let hash = headers::flow_hash(&headers.source, &headers.destination);
        match headers.fragment {
            Fragment::Whole => hash,
            Fragment::First => {
                self.flows.insert(DatagramKey::new(headers, ifindex), hash);
                hash
            }
            Fragment::Later => self.flows.get(&DatagramKey::new(headers, ifindex)).unwrap_or(hash),
        }
    }

    fn record_header(
        &self,
        frame: &Frame<'_>,
        headers: &Headers,
        ifindex: u32,
        direction: Direction,
        flow_hash: u32,
    ) -> RecordHeader {
        // Limited to the maximum size of a frame, so it fits.
        let there = u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX);
        let captured_length = there.min(self.snap_length);
        // Some writers store an original length of zero, or less than the captured length.
        let packet_length = frame.original_length.max(there);
        let flag = |is_set: bool, flag: u16| if is_set { flag } else { 0 };
        RecordHeader {
            captured_at_ns: frame.at_ns,
            packet_length,
            captured_length,
            ifindex,
            flow_hash,
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
            reserved: 0,
            reserved_2: 0,
            // A capture file does not know which socket sent a packet.
            sender_uid: 0,
            sender_cgroup: 0,
            sender_socket: 0,
        }
    }

    const fn count(&mut self, direction: Direction, counter: Counter, count: u64) {
        self.counters[direction as usize].counts[counter as usize] += count;
    }
}

/// A value for each recent datagram. When the younger generation is full, the older one is dropped.
struct Datagrams<T> {
    young: HashMap<DatagramKey, T>,
    old: HashMap<DatagramKey, T>,
}

impl<T> Default for Datagrams<T> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<T: Copy> Datagrams<T> {
    fn insert(&mut self, datagram: DatagramKey, about: T) {
        if self.young.len() >= REMEMBERED_DATAGRAMS {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(datagram, about);
    }

    fn get(&self, datagram: &DatagramKey) -> Option<T> {
        self.young.get(datagram).or_else(|| self.old.get(datagram)).copied()
    }
}

/// Stores the decisions about first fragments for later fragments.
impl DatagramContents for Datagrams<u32> {
    fn store(&mut self, datagram: &DatagramKey, content: u32) {
        self.insert(*datagram, content);
    }

    fn load(&mut self, datagram: &DatagramKey) -> Option<u32> {
        self.get(datagram)
    }

    /// Returns true: there is no ring to protect.
    fn may_speculate(&mut self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use tap53_ebpf::record::tunnel;

    use super::*;
    use crate::replay::InterfaceOf;

    const PORTS: [(PortSet, u16); 2] = [(PortSet::Dns, 53), (PortSet::Vxlan, 4789)];
    const VXLAN: u32 = features::FRAGMENTS | features::VXLAN;

    fn hook() -> FileHook {
        let mut ports = Ports::default();
        for (set, port) in PORTS {
            ports.insert(set, port);
        }
        FileHook::new(ports, MAX_CAPTURED_LENGTH)
    }

    fn udp(source_port: u16, destination_port: u16, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(8 + payload.len()).unwrap();
        let words = [source_port, destination_port, length, 0];
        [&words.map(u16::to_be_bytes).concat()[..], payload].concat()
    }

    /// `fragment` is the field of flags and offset.
    fn ipv4(fragment: u16, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(20 + payload.len()).unwrap();
        let mut packet = [&[0x45, 0][..], &length.to_be_bytes(), &[1, 1]].concat();
        packet.extend(fragment.to_be_bytes());
        packet.extend([64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 53]);
        packet.extend(payload);
        packet
    }

    fn ethernet(packet: &[u8]) -> Vec<u8> {
        [&[0; 12][..], &[8, 0], packet].concat()
    }

    fn frame(link_type: u32, bytes: &[u8]) -> Frame<'_> {
        Frame {
            number: 1,
            at_ns: 7,
            original_length: u32::try_from(bytes.len()).unwrap(),
            bytes,
            link_type,
            interface: InterfaceOf::default(),
            direction: None,
        }
    }

    /// Returns the header of a frame's ring item, or the counter that has counted the frame.
    fn fate(hook: &mut FileHook, frame: &Frame<'_>, wanted: u32) -> Result<RecordHeader, Counter> {
        let before = hook.counters;
        let captured = match Link::of(frame) {
            Ok(link) => hook.capture(frame, &link, 3, wanted),
            Err(reason) => {
                hook.refuse(reason);
                None
            }
        };
        assert!(hook.counters.iter().all(Counters::balanced));
        if let Some((header, bytes)) = captured {
            assert_eq!(header.captured_length as usize, bytes.len());
            return Ok(header);
        }
        let grew = |counter: &Counter| {
            let sum = |counters: &[Counters; 2]| counters.map(|of| of.get(*counter)).iter().sum();
            let (before, after): (u64, u64) = (sum(&before), sum(&hook.counters));
            after > before && *counter != Counter::Seen
        };
        Err(Counter::ALL.into_iter().find(grew).expect("a frame is counted"))
    }

    #[test]
    fn a_frame_becomes_what_a_hook_would_have_delivered() {
        let mut hook = hook();
        let packet = ipv4(0, &udp(1_000, 53, b"0123456789ab"));
        let header = fate(&mut hook, &frame(1, &ethernet(&packet)), 0).unwrap();
        assert_eq!((header.captured_at_ns, header.ifindex, header.hook), (7, 3, hook::FILE));
        assert_eq!(header.direction, Direction::Ingress as u8);
        assert_eq!((header.network_offset, header.payload_offset), (14, 42));
        assert_eq!((header.flags, header.packet_length), (0, 54));
        // The same without a link layer, and the way back.
        let header = fate(&mut hook, &frame(101, &packet), 0).unwrap();
        assert_eq!((header.network_offset, header.payload_offset), (0, 28));
        let back = ipv4(0, &udp(53, 1_000, b"0123456789ab"));
        let header = fate(&mut hook, &frame(101, &back), 0).unwrap();
        assert_eq!(header.direction, Direction::Egress as u8);
        assert_eq!(hook.counters()[1].get(Counter::Captured), 1);
        hook.begin_file();
        assert_eq!(hook.counters()[0], Counters::default());
    }

    #[test]
    fn all_fragments_of_a_datagram_go_one_way() {
        let wanted = features::FRAGMENTS;
        let directions = |datagram: &[u8], cuts: [usize; 2]| {
            let mut hook = hook();
            let [first, later] = cuts.map(|at| {
                let more = if at == 0 { 0x2000 } else { 0 };
                ipv4(more | u16::try_from(at / 8).unwrap(), &datagram[at..])
            });
            [first, later]
                .map(|packet| fate(&mut hook, &frame(101, &packet), wanted).unwrap().direction)
        };
        let (query, response) = (udp(1_000, 53, &[0; 16]), udp(53, 1_000, &[0; 16]));
        let (ingress, egress) = (Direction::Ingress as u8, Direction::Egress as u8);
        assert_eq!(directions(&query, [0, 16]), [ingress; 2]);
        assert_eq!(directions(&response, [0, 16]), [egress; 2]);
        assert_eq!(directions(&response, [16, 0]), [egress; 2]);
        // Wrong, and together.
        assert_eq!(directions(&query, [16, 0]), [egress; 2]);
    }

    #[test]
    fn a_direction_that_the_file_states_counts_before_the_link_layer_and_the_ports() {
        let mut hook = hook();
        let packet = ipv4(0, &udp(1_000, 53, b"0123456789ab"));
        let cooked = [&[0, 4][..], &[0; 12], &[8, 0], &packet].concat();
        let header = fate(&mut hook, &frame(113, &cooked), 0).unwrap();
        assert_eq!(header.direction, Direction::Egress as u8);
        let stated = Frame { direction: Some(Direction::Ingress), ..frame(113, &cooked) };
        let header = fate(&mut hook, &stated, 0).unwrap();
        assert_eq!(header.direction, Direction::Ingress as u8);
    }

    #[test]
    fn what_was_cut_off_when_it_was_captured_is_marked() {
        let mut hook = hook();
        let packet = ipv4(0, &udp(1_000, 53, b"0123456789ab"));
        let cut = Frame { original_length: 99, ..frame(101, &packet) };
        let header = fate(&mut hook, &cut, 0).unwrap();
        assert_eq!((header.has(flags::TRUNCATED), header.packet_length), (true, 99));
        assert_eq!(hook.counters()[0].get(Counter::Truncated), 1);
        // Some writers state no length.
        let unstated = Frame { original_length: 0, ..frame(101, &packet) };
        let header = fate(&mut hook, &unstated, 0).unwrap();
        assert_eq!((header.has(flags::TRUNCATED), header.packet_length), (false, 40));
        hook.snap_length = 30;
        let header = fate(&mut hook, &frame(101, &packet), 0).unwrap();
        assert_eq!((header.has(flags::TRUNCATED), header.captured_length), (true, 30));
    }

    #[test]
    fn what_is_not_captured_is_counted_as_a_hook_counts_it() {
        let mut hook = hook();
        let other = ipv4(0, &udp(1_000, 2_000, b"0123456789ab"));
        for (link_type, bytes, counter) in [
            (1, ethernet(&other), Counter::NotDns),
            (1, [&[0; 12][..], &[8, 6]].concat(), Counter::NotIp),
            (1, vec![0; 13], Counter::MalformedHeader),
            (101, vec![], Counter::MalformedHeader),
            (101, vec![0x10; 40], Counter::NotIp),
            (113, vec![0; 15], Counter::MalformedHeader),
            (105, vec![0; 40], Counter::UnsupportedLinkType),
            (1, [&[0; 12][..], &[0x88, 0x64], &[0; 40]].concat(), Counter::UnreadEncapsulation),
        ] {
            assert_eq!(fate(&mut hook, &frame(link_type, &bytes), 0), Err(counter));
        }
    }

    #[test]
    fn later_fragments_are_captured_where_the_first_one_was() {
        let mut hook = hook();
        let wanted = features::FRAGMENTS;
        let first = |port| ipv4(0x2000, &udp(port, 2_000, b"0123456789abcdef"));
        let later = ipv4(3, b"the rest");
        let header = fate(&mut hook, &frame(101, &first(53)), wanted).unwrap();
        assert!(header.has(flags::FIRST_FRAGMENT));
        let header = fate(&mut hook, &frame(101, &later), wanted).unwrap();
        assert!(header.has(flags::LATER_FRAGMENT));
        assert_eq!(fate(&mut hook, &frame(101, &first(1_000)), wanted), Err(Counter::NotDns));
        assert_eq!(fate(&mut hook, &frame(101, &later), wanted), Err(Counter::NotDns));
        assert_eq!(fate(&mut hook, &frame(101, &later), 0), Err(Counter::LaterFragment));
    }

    #[test]
    fn fragments_have_the_flow_of_their_datagram_and_of_its_query() {
        let mut hook = hook();
        let wanted = features::FRAGMENTS;
        let mut flow =
            |packet: &[u8]| fate(&mut hook, &frame(101, packet), wanted).unwrap().flow_hash;
        let back = |mut packet: Vec<u8>| {
            packet[12..20].rotate_left(4);
            packet
        };
        let query = flow(&ipv4(0, &udp(1_000, 53, b"0123456789ab")));
        let first = back(ipv4(0x2000, &udp(53, 1_000, b"0123456789abcdef")));
        assert_eq!(flow(&first), query);
        assert_eq!(flow(&back(ipv4(3, b"the rest"))), query);
        assert_ne!(flow(&ipv4(0, &udp(1_001, 53, b"0123456789ab"))), query);
    }

    #[test]
    fn tunnels_are_looked_into_where_that_is_wanted() {
        let mut hook = hook();
        let inner = ethernet(&ipv4(0, &udp(1_000, 53, b"0123456789ab")));
        let vxlan = [&[8, 0, 0, 0, 0, 0, 42, 0][..], &inner].concat();
        let outer = ipv4(0, &udp(5_000, 4_789, &vxlan));
        assert_eq!(fate(&mut hook, &frame(101, &outer), 0), Err(Counter::NotDns));
        let header = fate(&mut hook, &frame(101, &outer), VXLAN).unwrap();
        assert_eq!((header.tunnel, header.tunnel_id), (tunnel::VXLAN, 42));
        assert!(header.has(flags::TUNNEL_ID));
    }

    #[test]
    fn memory_of_datagrams_is_bounded_and_forgets_the_oldest() {
        let mut datagrams = Datagrams::default();
        let key = |identification| DatagramKey { identification, ..DatagramKey::default() };
        let count = u32::try_from(3 * REMEMBERED_DATAGRAMS).unwrap();
        for identification in 0..count {
            datagrams.store(&key(identification), identification);
        }
        assert!(datagrams.young.len() + datagrams.old.len() <= 2 * REMEMBERED_DATAGRAMS);
        assert_eq!(datagrams.load(&key(0)), None);
        assert_eq!(datagrams.load(&key(count - 1)), Some(count - 1));
    }
}
