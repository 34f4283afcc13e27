//! Samples for the measurements: transactions as ring items.

use tap53_ebpf::record::RecordHeader;

/// Content of a query and its response.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// EDNS without options, as most clients send it.
    Plain,
    /// EDNS with DO, a client subnet, cookies and padding.
    Options,
}

/// A query and its response as ring records.
pub(crate) struct Sample {
    /// The query.
    pub(crate) query: Vec<u8>,
    /// The response.
    pub(crate) response: Vec<u8>,
}

/// The server of all clients.
pub(crate) const SERVER: [u8; 4] = [192, 0, 2, 53];

/// Client subnet (RFC 7871), cookies (RFC 7873), padding (RFC 7830).
const OPTIONS: [&[u8]; 3] = [
    b"\0\x08\0\x07\0\x01\x18\0\xc6\x33\x64",
    b"\0\x0a\0\x18abcdefghijklmnopqrstuvwx",
    b"\0\x0c\0\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
];

impl Sample {
    /// A transaction over UDP and IPv4, of a question for A and a response with three answers.
    /// Clients differ in address and port, names in their first label.
    pub(crate) fn new(number: usize, kind: Kind) -> Self {
        Self::of_client(number, u32::try_from(number).unwrap_or_default(), kind)
    }

    /// The same, whose query was sent by a socket of a cgroup.
    #[allow(dead_code, reason = "only one of the benchmarks has sockets")]
    pub(crate) fn sent_by(mut self, cgroup: u64) -> Self {
        let fields = [
            (std::mem::offset_of!(RecordHeader, sender_cgroup), cgroup),
            // Any cookie but 0 stands for a socket.
            (std::mem::offset_of!(RecordHeader, sender_socket), 1),
        ];
        for (offset, value) in fields {
            if let Some(field) = self.query.get_mut(offset..offset + size_of::<u64>()) {
                field.copy_from_slice(&value.to_ne_bytes());
            }
        }
        self
    }

    /// Creates a sample of the client with this number.
    pub(crate) fn of_client(number: usize, client: u32, kind: Kind) -> Self {
        let client = (u32::from_be_bytes([10, 0, 0, 0]) + client).to_be_bytes();
        Self::between(number, client, SERVER, kind)
    }

    /// Creates a sample between two addresses.
    pub(crate) fn between(number: usize, client: [u8; 4], server: [u8; 4], kind: Kind) -> Self {
        let id = u16::try_from(number & 0xffff).unwrap_or_default();
        let name = format!("host-{number:05}");
        let mut question = vec![u8::try_from(name.len()).unwrap_or_default()];
        question.extend(name.as_bytes());
        question.extend(b"\x07example\x04test\x00\x00\x01\x00\x01");
        let opt = opt(kind);
        let header = |flags: [u8; 2], answers: u8| {
            let [high, low] = id.to_be_bytes();
            vec![high, low, flags[0], flags[1], 0, 1, 0, answers, 0, 0, 0, 1]
        };
        let mut query = header([0x01, 0x20], 0);
        query.extend(&question);
        query.extend(&opt);
        let mut response = header([0x85, 0x80], 3);
        response.extend(&question);
        for last in 1..=3 {
            response.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x01\x2c\x00\x04\xc0\x00\x02");
            response.push(last);
        }
        response.extend(&opt);
        let port = 1_024 + id % 60_000;
        Self {
            query: ring_record(&query, (client, port), (server, 53), 0),
            response: ring_record(&response, (server, 53), (client, port), 1),
        }
    }
}

impl Sample {
    /// Moves the transaction to the time at which its client uses port and identifier again: a
    /// forwarder with one socket and 20,000 queries a second has used all identifiers after 3 s.
    pub(crate) fn advance(&mut self) {
        for item in [&mut self.query, &mut self.response] {
            let (time, _) = item.split_first_chunk_mut().expect("a record header");
            *time = (u64::from_ne_bytes(*time) + 3_000_000_000).to_ne_bytes();
        }
    }
}

const _: () = assert!(std::mem::offset_of!(RecordHeader, captured_at_ns) == 0);

/// An OPT record: 1,232 bytes, version 0.
fn opt(kind: Kind) -> Vec<u8> {
    let (dnssec_ok, options) = match kind {
        Kind::Plain => (0, Vec::new()),
        Kind::Options => (0x80, OPTIONS.concat()),
    };
    let [high, low] = u16::try_from(options.len()).unwrap_or_default().to_be_bytes();
    let mut opt = b"\x00\x00\x29\x04\xd0\x00\x00".to_vec();
    opt.extend([dnssec_ok, 0, high, low]);
    opt.extend(options);
    opt
}

/// Returns a ring item: a header, and Ethernet, IPv4 and UDP around `message`.
pub(crate) fn ring_record(
    message: &[u8],
    from: ([u8; 4], u16),
    to: ([u8; 4], u16),
    direction: u8,
) -> Vec<u8> {
    let udp_length = u16::try_from(8 + message.len()).unwrap_or_default();
    let mut packet = vec![0; 12];
    packet.extend([0x08, 0x00, 0x45, 0]);
    packet.extend((20 + udp_length).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(from.0);
    packet.extend(to.0);
    packet.extend(from.1.to_be_bytes());
    packet.extend(to.1.to_be_bytes());
    packet.extend(udp_length.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(message);
    let length = u32::try_from(packet.len()).unwrap_or_default();
    let header = RecordHeader {
        captured_at_ns: 1_000_000 + 250_000 * u64::from(direction),
        packet_length: length,
        captured_length: length,
        ifindex: 3,
        network_offset: 14,
        transport_offset: 34,
        payload_offset: 42,
        direction,
        ip_version: 4,
        transport: 17,
        ..Default::default()
    };
    // SAFETY: RecordHeader is integers only, without padding, and lives while it is copied.
    let header =
        unsafe { std::slice::from_raw_parts((&raw const header).cast::<u8>(), RecordHeader::SIZE) };
    [header, &packet].concat()
}
