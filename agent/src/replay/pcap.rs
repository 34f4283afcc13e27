//! The pcap format (draft-ietf-opsawg-pcap).
//!
//! ```text
//!  magic version(2.4) zone accuracy snap_length link_type      24 bytes
//!  seconds fraction captured_length original_length │ frame    16 bytes and the frame, repeated
//! ```

use std::io::Read;

use super::{Fault, Frame, InterfaceOf, bytes::ByteOrder, window::Window};

/// Length of a file header in bytes.
const FILE_HEADER: usize = 24;

/// Length of the header before each frame in bytes.
const FRAME_HEADER: usize = 16;

/// Maximum length of a frame in bytes: the largest snap length of libpcap and Wireshark.
pub(super) const MAX_FRAME_BYTES: u32 = 256 << 10;

/// A pcap file that is being read.
pub(super) struct Pcap {
    order: ByteOrder,
    /// Nanoseconds in a unit of the fraction.
    fraction_ns: u64,
    link_type: u32,
    frames: u64,
}

impl Pcap {
    /// Returns the byte order, and the nanoseconds in a unit of the fraction, for the first bytes of a
    /// file.
    pub(super) fn recognise(magic: [u8; 4]) -> Option<(ByteOrder, u64)> {
        match u32::from_be_bytes(magic) {
            0xa1b2_c3d4 => Some((ByteOrder::Big, 1_000)),
            0xd4c3_b2a1 => Some((ByteOrder::Little, 1_000)),
            0xa1b2_3c4d => Some((ByteOrder::Big, 1)),
            0x4d3c_b2a1 => Some((ByteOrder::Little, 1)),
            _ => None,
        }
    }

    /// Returns the name of a variant of pcap that has a longer header before each frame; `editcap -F
    /// pcap` converts it.
    pub(super) fn recognise_variant(magic: [u8; 4]) -> Option<&'static str> {
        match u32::from_be_bytes(magic) {
            0xa1b2_cd34 | 0x34cd_b2a1 => Some("modified pcap, of old patches to libpcap"),
            0xa1e2_cb12 | 0x12cb_e2a1 => Some("modified pcap, of Nokia's"),
            0x1c00_01ac | 0xac01_001c | 0x1c00_01ab | 0xab01_001c => {
                Some("modified pcap, of Ixia's lcap")
            }
            _ => None,
        }
    }

    /// Reads the header of a file that [`recognise`](Self::recognise) knows.
    pub(super) fn open<R: Read>(window: &mut Window<R>) -> Result<Self, Fault> {
        let offset = window.offset();
        if !window.fill(FILE_HEADER)? {
            return Err(Fault::damaged(offset, "the file ends within its header"));
        }
        let not_pcap = || Fault::damaged(offset, "not the header of a pcap file");
        let header: &[u8; FILE_HEADER] = window.bytes().first_chunk().ok_or_else(not_pcap)?;
        let [m0, m1, m2, m3, ..] = *header;
        let (order, fraction_ns) = Self::recognise([m0, m1, m2, m3]).ok_or_else(not_pcap)?;
        let version = (order.u16(header, 4), order.u16(header, 6));
        if version != (2, 4) {
            let what = format!("pcap version {}.{}, known is 2.4", version.0, version.1);
            return Err(Fault::Refused(what));
        }
        // The upper bits are the length of a frame check sequence after each frame.
        let link_type = order.u32(header, 20) & 0x03ff_ffff;
        window.take(FILE_HEADER);
        Ok(Self { order, fraction_ns, link_type, frames: 0 })
    }

    /// Returns the link type of every frame.
    pub(super) const fn link_type(&self) -> u32 {
        self.link_type
    }

    pub(super) fn next<'a, R: Read>(
        &mut self,
        window: &'a mut Window<R>,
    ) -> Result<Option<Frame<'a>>, Fault> {
        let offset = window.offset();
        if !window.fill(FRAME_HEADER)? {
            return match window.bytes().len() {
                0 => Ok(None),
                left => Err(Fault::damaged(
                    offset,
                    format!("the file ends within a frame's header, after {left} of 16 bytes"),
                )),
            };
        }
        let cut = || Fault::damaged(offset, "the file ends within a frame");
        let header: &[u8; FRAME_HEADER] = window.bytes().first_chunk().ok_or_else(cut)?;
        let field = |at| self.order.u32(header, at);
        let [seconds, fraction, captured, original_length] = [0, 4, 8, 12].map(field);
        if captured > MAX_FRAME_BYTES {
            let what = format!("a frame claims {captured} bytes, more than {MAX_FRAME_BYTES}");
            return Err(Fault::damaged(offset, what));
        }
        let length = FRAME_HEADER + captured as usize;
        if !window.fill(length)? {
            let there = window.bytes().len().saturating_sub(FRAME_HEADER);
            let what = format!("the file ends within a frame, after {there} of {captured} bytes");
            return Err(Fault::damaged(offset, what));
        }
        self.frames += 1;
        Ok(Some(Frame {
            number: self.frames,
            at_ns: u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * self.fraction_ns,
            original_length,
            bytes: window.take(length).get(FRAME_HEADER..).unwrap_or_default(),
            link_type: self.link_type,
            interface: InterfaceOf::default(),
            direction: None,
        }))
    }
}
