//! Builds capture files, byte by byte.

#[derive(Clone, Copy)]
pub(super) enum Order {
    Little,
    Big,
}

impl Order {
    pub(super) fn u16(self, value: u16) -> [u8; 2] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }

    pub(super) fn u32(self, value: u32) -> [u8; 4] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }

    pub(super) fn words(self, values: &[u32]) -> Vec<u8> {
        values.iter().flat_map(|value| self.u32(*value)).collect()
    }
}

pub(super) fn pcap_header(order: Order, magic: u32, link_type: u32) -> Vec<u8> {
    let mut file = order.u32(magic).to_vec();
    file.extend([order.u16(2), order.u16(4)].concat());
    file.extend(order.words(&[0, 0, 262_144, link_type]));
    file
}

pub(super) fn pcap_frame(
    order: Order,
    seconds: u32,
    fraction: u32,
    original: u32,
    bytes: &[u8],
) -> Vec<u8> {
    let captured = u32::try_from(bytes.len()).unwrap();
    [&order.words(&[seconds, fraction, captured, original])[..], bytes].concat()
}

pub(super) fn pcap(order: Order, magic: u32) -> Vec<u8> {
    [
        pcap_header(order, magic, 1),
        pcap_frame(order, 1_700_000_000, 123_456, 3, b"abc"),
        pcap_frame(order, 1_700_000_001, 0, 900, b"defgh"),
        pcap_frame(order, 1_699_999_999, 7, 0, b""),
    ]
    .concat()
}

pub(super) fn block(order: Order, kind: u32, body: &[u8]) -> Vec<u8> {
    let padded = body.len().next_multiple_of(4);
    let length = order.u32(u32::try_from(12 + padded).unwrap());
    let mut block = [order.u32(kind), length].concat();
    block.extend(body);
    block.resize(8 + padded, 0);
    block.extend(length);
    block
}

pub(super) fn option(order: Order, code: u16, value: &[u8]) -> Vec<u8> {
    let mut option = [order.u16(code), order.u16(u16::try_from(value.len()).unwrap())].concat();
    option.extend(value);
    option.resize(4 + value.len().next_multiple_of(4), 0);
    option
}

pub(super) fn section(order: Order) -> Vec<u8> {
    let version = [order.u16(1), order.u16(0)].concat();
    block(order, 0x0a0d_0d0a, &[&order.u32(0x1a2b_3c4d)[..], &version, &[0xff; 8]].concat())
}

pub(super) fn interface(order: Order, link_type: u16, snap_length: u32, options: &[u8]) -> Vec<u8> {
    let body = [&order.u16(link_type)[..], &[0, 0], &order.u32(snap_length), options].concat();
    block(order, 1, &body)
}

pub(super) fn enhanced(
    order: Order,
    interface: u32,
    time: u64,
    bytes: &[u8],
    options: &[u8],
) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    let (high, low) = (u32::try_from(time >> 32).unwrap(), time & 0xffff_ffff);
    let low = u32::try_from(low).unwrap();
    let mut body = order.words(&[interface, high, low, length, length]);
    body.extend(bytes);
    body.resize(body.len().next_multiple_of(4), 0);
    body.extend(options);
    block(order, 6, &body)
}

pub(super) const SECOND: u64 = 1_000_000_000;

/// Two sections of different byte order, all kinds of packet blocks, and blocks of other kinds.
pub(super) fn pcapng() -> Vec<u8> {
    let (big, little) = (Order::Big, Order::Little);
    let nanoseconds = [option(big, 2, b"eth0"), option(big, 9, &[9]), option(big, 0, &[])].concat();
    let shifted = option(big, 14, &10i64.to_be_bytes());
    let mut obsolete = [big.u16(1), big.u16(9)].concat();
    obsolete.extend(big.words(&[0, 5_000_000, 2, 2]));
    obsolete.extend(b"ob\0\0");
    obsolete.extend(option(big, 2, &big.u32(2)));
    [
        section(big),
        interface(big, 1, 0, &nanoseconds),
        block(big, 4, b"names, of which nobody asks"),
        interface(big, 276, 0, &shifted),
        enhanced(big, 0, 7 * SECOND + 1, b"first", &option(big, 2, &big.u32(1))),
        enhanced(big, 1, 8_000_001, b"second..", &option(big, 1, b"a comment")),
        block(big, 2, &obsolete),
        section(little),
        interface(little, 101, 4, &option(little, 9, &[0x80 | 10])),
        block(little, 0x0bad, b"someone's own"),
        enhanced(little, 0, 1024 * 3 + 512, b"f", &[]),
        block(little, 3, &[&little.u32(6)[..], b"simp"].concat()),
    ]
    .concat()
}
