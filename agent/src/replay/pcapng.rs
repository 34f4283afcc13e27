//! The pcapng format (draft-ietf-opsawg-pcapng).
//!
//! ```text
//!  section header ─ interface description … ─ packets, statistics, names, secrets … ─ section header ─ …
//!  type length │ body │ length         each block; byte order as its section header's magic says
//! ```
//!
//! Blocks that hold no packet are skipped by their length. Interfaces are numbered from 0 in each
//! section and have their own link type and clock.

use std::io::Read;

use tap53_ebpf::settings::Direction;

use super::{
    Fault, Frame, InterfaceOf,
    bytes::ByteOrder,
    pcap::MAX_FRAME_BYTES,
    window::{MAX_RECORD_BYTES, Window},
};

/// Type of a section header block, the same in both byte orders.
pub(super) const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// Interfaces of a section at most: each takes some 40 bytes and its name.
const MAX_INTERFACES: usize = 65_536;

/// Bytes of an interface's name that are kept; those of Linux have up to 15.
const MAX_NAME_BYTES: usize = 256;

mod block {
    //! Block types.
    pub(super) const INTERFACE: u32 = 1;
    /// Obsolete, of the format's first years.
    pub(super) const PACKET: u32 = 2;
    pub(super) const SIMPLE_PACKET: u32 = 3;
    pub(super) const ENHANCED_PACKET: u32 = 6;

    /// Blocks without a packet that Wireshark (4.0) numbers as frames all the same: entries of a
    /// journal, custom blocks, events of system calls.
    pub(super) const OTHER_FRAMES: [u32; 9] =
        [9, 0x0bad, 0x4000_0bad, 0x204, 0x208, 0x216, 0x217, 0x221, 0x222];
}

mod option {
    //! Option codes.
    pub(super) const END: u16 = 0;
    /// `if_name` of an interface, and `epb_flags` of a packet.
    pub(super) const NAME_OR_FLAGS: u16 = 2;
    pub(super) const TIME_RESOLUTION: u16 = 9;
    pub(super) const TIME_OFFSET: u16 = 14;
}

/// An interface of the current section.
struct Interface {
    link_type: u32,
    name: Option<String>,
    snap_length: u32,
    /// `if_tsresol`: a power of ten, or of two with the upper bit.
    resolution: u8,
    /// `if_tsoffset`: to be added to each time, seconds.
    offset_s: i64,
}

/// A pcapng file, read up to some block.
pub(super) struct PcapNg {
    order: ByteOrder,
    interfaces: Vec<Interface>,
    sections: u64,
    frames: u64,
    /// Time of the last frame that had one: simple packet blocks have none.
    at_ns: u64,
    /// Blocks and options looked at.
    steps: u64,
}

impl PcapNg {
    pub(super) const fn new() -> Self {
        // The byte order is that of the section header, which comes first.
        let order = ByteOrder::Little;
        Self { order, interfaces: Vec::new(), sections: 0, frames: 0, at_ns: 0, steps: 0 }
    }

    pub(super) fn next<'a, R: Read>(
        &'a mut self,
        window: &'a mut Window<R>,
    ) -> Result<Option<Frame<'a>>, Fault> {
        loop {
            self.steps += 1;
            let offset = window.offset();
            if !window.fill(12)? {
                return if window.bytes().is_empty() && !window.is_skipping() {
                    Ok(None)
                } else {
                    Err(Fault::damaged(offset, "the file ends within a block"))
                };
            }
            let cut = || Fault::damaged(offset, "the file ends within a block");
            let header: [u8; 12] = *window.bytes().first_chunk().ok_or_else(cut)?;
            let [t0, t1, t2, t3, ..] = header;
            if [t0, t1, t2, t3] == SECTION_HEADER {
                self.order = byte_order(&header).ok_or_else(|| {
                    Fault::damaged(offset, "a section header without its byte-order magic")
                })?;
            }
            let kind = self.order.u32(&header, 0);
            let length = self.order.u32(&header, 4);
            if length < 12 || !length.is_multiple_of(4) {
                let what = format!("a block claims {length} bytes: less than 12, or not in words");
                return Err(Fault::damaged(offset, what));
            }
            let section_header = [t0, t1, t2, t3] == SECTION_HEADER;
            let known = section_header
                || matches!(
                    kind,
                    block::INTERFACE
                        | block::PACKET
                        | block::SIMPLE_PACKET
                        | block::ENHANCED_PACKET
                );
            if !known {
                self.frames += u64::from(block::OTHER_FRAMES.contains(&kind));
                window.skip(u64::from(length));
                continue;
            }
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if length > MAX_RECORD_BYTES {
                let what = format!("a block of type {kind} claims {length} bytes");
                return Err(Fault::damaged(offset, what));
            }
            if !window.fill(length)? {
                let there = window.bytes().len();
                let what = format!("the file ends within a block, after {there} of {length} bytes");
                return Err(Fault::damaged(offset, what));
            }
            self.check_end(window.bytes().get(length - 4..length), length, offset)?;
            let body = 8..length - 4;
            if section_header {
                let body = window.take(length).get(body).unwrap_or_default();
                self.begin_section(body, offset)?;
            } else if kind == block::INTERFACE {
                let body = window.take(length).get(body).unwrap_or_default();
                self.add_interface(body, offset)?;
            } else {
                let body = window.take(length).get(body).unwrap_or_default();
                return self.packet(kind, body, offset).map(Some);
            }
        }
    }

    /// The length at the end of a block repeats the one at its beginning.
    fn check_end(&self, end: Option<&[u8]>, length: usize, offset: u64) -> Result<(), Fault> {
        let repeated = end.and_then(|end| Some(self.order.u32::<4>(end.try_into().ok()?, 0)));
        if repeated.and_then(|repeated| usize::try_from(repeated).ok()) == Some(length) {
            return Ok(());
        }
        let what = format!("a block begins with length {length} and does not end with it");
        Err(Fault::damaged(offset, what))
    }

    fn begin_section(&mut self, body: &[u8], offset: u64) -> Result<(), Fault> {
        let short = || Fault::damaged(offset, "a section header too short for its fields");
        let fields: &[u8; 8] = body.first_chunk().ok_or_else(short)?;
        let version = (self.order.u16(fields, 4), self.order.u16(fields, 6));
        if version.0 != 1 {
            let what = format!("pcapng version {}.{}, known is 1.0", version.0, version.1);
            return Err(Fault::Refused(what));
        }
        self.interfaces.clear();
        self.sections += 1;
        Ok(())
    }

    fn add_interface(&mut self, body: &[u8], offset: u64) -> Result<(), Fault> {
        let short = || Fault::damaged(offset, "an interface description too short for its fields");
        let (fields, rest) = body.split_first_chunk::<8>().ok_or_else(short)?;
        if self.interfaces.len() == MAX_INTERFACES {
            let what = format!("more than {MAX_INTERFACES} interfaces in a section");
            return Err(Fault::damaged(offset, what));
        }
        let mut interface = Interface {
            link_type: u32::from(self.order.u16(fields, 0)),
            name: None,
            snap_length: self.order.u32(fields, 4),
            // Microseconds, unless stated otherwise.
            resolution: 6,
            offset_s: 0,
        };
        for (code, value) in Options::new(self.order, rest) {
            self.steps += 1;
            match (code, value) {
                (option::NAME_OR_FLAGS, name) if !name.is_empty() => {
                    let name = &name[..name.len().min(MAX_NAME_BYTES)];
                    // Printed to terminals: nothing that moves the cursor.
                    let printable = |c: char| if c.is_control() { '\u{fffd}' } else { c };
                    let name = String::from_utf8_lossy(name).chars().map(printable).collect();
                    interface.name = Some(name);
                }
                (option::TIME_RESOLUTION, [resolution, ..]) => interface.resolution = *resolution,
                (option::TIME_OFFSET, value) => {
                    interface.offset_s =
                        value.first_chunk().map_or(0, |seconds| self.order.i64(*seconds));
                }
                _ => {}
            }
        }
        self.interfaces.push(interface);
        Ok(())
    }

    /// A frame out of the body of its block.
    fn packet<'a>(
        &'a mut self,
        kind: u32,
        body: &'a [u8],
        offset: u64,
    ) -> Result<Frame<'a>, Fault> {
        self.frames += 1;
        let fields = self.fields(kind, body).ok_or_else(|| {
            Fault::damaged(offset, format!("frame {} is too short for its fields", self.frames))
        })?;
        let damaged = |what| Err(Fault::damaged(offset, format!("frame {} {what}", self.frames)));
        let Some(interface) = self.interfaces.get(fields.interface) else {
            return damaged(format!(
                "is of interface {}, of which there is no description",
                fields.interface
            ));
        };
        // A simple packet block leaves the captured length to be worked out.
        let captured = fields.captured.unwrap_or_else(|| match interface.snap_length {
            0 => fields.original_length,
            snap_length => fields.original_length.min(snap_length),
        });
        if captured > MAX_FRAME_BYTES {
            return damaged(format!("claims {captured} bytes, more than {MAX_FRAME_BYTES}"));
        }
        let Some((bytes, rest)) = fields.rest.split_at_checked(captured as usize) else {
            return damaged(format!(
                "claims {captured} bytes, and its block has room for {}",
                fields.rest.len()
            ));
        };
        if let Some(units) = fields.time {
            self.at_ns = time_ns(units, interface.resolution, interface.offset_s);
        }
        let options = match kind {
            block::SIMPLE_PACKET => &[][..],
            // Frames are padded to words.
            _ => rest.get(captured.wrapping_neg() as usize % 4..).unwrap_or_default(),
        };
        Ok(Frame {
            number: self.frames,
            at_ns: self.at_ns,
            original_length: fields.original_length,
            bytes,
            link_type: interface.link_type,
            interface: InterfaceOf {
                section: self.sections,
                number: fields.interface,
                name: interface.name.as_deref(),
            },
            direction: direction(self.order, options, &mut self.steps),
        })
    }

    /// The fields before a frame; `None` if the block is too short for them.
    fn fields<'a>(&self, kind: u32, body: &'a [u8]) -> Option<Fields<'a>> {
        if kind == block::SIMPLE_PACKET {
            let (fields, rest) = body.split_first_chunk::<4>()?;
            let original_length = self.order.u32(fields, 0);
            return Some(Fields {
                interface: 0,
                time: None,
                captured: None,
                original_length,
                rest,
            });
        }
        let (fields, rest) = body.split_first_chunk::<20>()?;
        let word = |at| self.order.u32(fields, at);
        let interface = match kind {
            // The other half counts packets that were dropped.
            block::PACKET => u32::from(self.order.u16(fields, 0)),
            _ => word(0),
        };
        Some(Fields {
            interface: usize::try_from(interface).ok()?,
            // The upper half comes first in either byte order.
            time: Some(u64::from(word(4)) << 32 | u64::from(word(8))),
            captured: Some(word(12)),
            original_length: word(16),
            rest,
        })
    }

    /// Blocks and options looked at so far.
    pub(super) const fn steps(&self) -> u64 {
        self.steps
    }
}

/// Bits 0 and 1 of the flags option: inbound, outbound, or not known. Adds the options looked at to
/// `steps`.
fn direction(order: ByteOrder, options: &[u8], steps: &mut u64) -> Option<Direction> {
    let mut options = Options::new(order, options).inspect(|_| *steps += 1);
    let (_, flags) = options.find(|(code, _)| *code == option::NAME_OR_FLAGS)?;
    match order.u32::<4>(flags.try_into().ok()?, 0) & 0b11 {
        0b01 => Some(Direction::Ingress),
        0b10 => Some(Direction::Egress),
        _ => None,
    }
}

/// The fields before a frame.
struct Fields<'a> {
    interface: usize,
    /// Time in units of the interface's clock.
    time: Option<u64>,
    captured: Option<u32>,
    original_length: u32,
    /// Frame, padding and options.
    rest: &'a [u8],
}

/// Byte order of a section by the magic in its header.
fn byte_order(header: &[u8; 12]) -> Option<ByteOrder> {
    match header[8..] {
        [0x1a, 0x2b, 0x3c, 0x4d] => Some(ByteOrder::Big),
        [0x4d, 0x3c, 0x2b, 0x1a] => Some(ByteOrder::Little),
        _ => None,
    }
}

/// A time as nanoseconds since 1970 UTC; what lies outside of the range of a `u64` (1970 to 2554)
/// becomes its end.
fn time_ns(units: u64, resolution: u8, offset_s: i64) -> u64 {
    const SECOND_NS: u128 = 1_000_000_000;
    let exponent = u32::from(resolution & 0x7f);
    let scaled = u128::from(units) * SECOND_NS; // below 2^94
    let ns = if resolution & 0x80 != 0 {
        scaled.checked_shr(exponent).unwrap_or(0)
    } else {
        10u128.checked_pow(exponent).map_or(0, |units| scaled / units)
    };
    let ns = i128::try_from(ns).unwrap_or(i128::MAX);
    let ns = ns + i128::from(offset_s) * i128::try_from(SECOND_NS).unwrap_or(0);
    u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
}

/// Options of a block, up to the one that ends them or is cut.
struct Options<'a> {
    order: ByteOrder,
    rest: &'a [u8],
}

impl<'a> Options<'a> {
    const fn new(order: ByteOrder, rest: &'a [u8]) -> Self {
        Self { order, rest }
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (header, rest) = self.rest.split_first_chunk::<4>()?;
        let (code, length) = (self.order.u16(header, 0), usize::from(self.order.u16(header, 2)));
        if code == option::END {
            return None;
        }
        let value = rest.get(..length)?;
        // Values are padded to words; the padding of the last one may be missing.
        self.rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((code, value))
    }
}
