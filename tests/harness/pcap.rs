//! Capture files, written byte by byte, sharing no code with the agent.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};

/// LINKTYPE_RAW: a packet begins with its IP header.
const LINKTYPE_RAW: u32 = 101;
const LINKTYPE_ETHERNET: u32 = 1;
const UDP: u8 = 17;

/// When a file begins, seconds since 1970 UTC.
const BEGIN_S: u32 = 1_700_000_000;

/// A classic pcap file in memory, by default with one packet each millisecond.
pub struct Pcap {
    bytes: Vec<u8>,
    /// Link header before the IP header of each packet.
    link_header: Vec<u8>,
    packets: u32,
}

impl Default for Pcap {
    fn default() -> Self {
        Self::of_link_type(LINKTYPE_RAW)
    }
}

impl Pcap {
    /// A file without packets, of another link type than raw IP.
    #[must_use]
    pub fn of_link_type(link_type: u32) -> Self {
        let mut bytes = Vec::new();
        // Magic of microsecond times, version 2.4, no zone, no accuracy, snap length, link type.
        for word in [0xa1b2_c3d4, 2 | 4 << 16, 0, 0, 65_535, link_type] {
            bytes.extend(u32::to_le_bytes(word));
        }
        Self { bytes, link_header: Vec::new(), packets: 0 }
    }

    /// A file of Ethernet frames that all begin with `header`.
    #[must_use]
    pub fn of_frames(header: Vec<u8>) -> Self {
        Self { link_header: header, ..Self::of_link_type(LINKTYPE_ETHERNET) }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        fs::write(path, &self.bytes).with_context(|| format!("write {}", path.display()))
    }

    /// The file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends a UDP datagram.
    ///
    /// # Panics
    /// When the addresses are of different families, or the payload is too long for a packet: a
    /// mistake in the test.
    pub fn udp(&mut self, source: SocketAddr, destination: SocketAddr, payload: &[u8]) {
        let at = Duration::from_millis(self.packets.into());
        self.udp_at(at, source, destination, payload);
    }

    /// Appends a UDP datagram that was sent this long after the file's beginning.
    ///
    /// # Panics
    /// Does the same as [`udp`](Self::udp), and when that is more than a few decades.
    pub fn udp_at(
        &mut self,
        at: Duration,
        source: SocketAddr,
        destination: SocketAddr,
        payload: &[u8],
    ) {
        let length = u16::try_from(8 + payload.len()).expect("a payload that fits a packet");
        let mut packet = match (source.ip(), destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = vec![0x45, 0];
                header.extend((20 + length).to_be_bytes());
                // Identification, no fragment, hop limit; the checksum is not checked in a file.
                header.extend([0, 0, 0, 0, 64, UDP, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut header = vec![0x60, 0, 0, 0];
                header.extend(length.to_be_bytes());
                header.extend([UDP, 64]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header
            }
            _ => panic!("{source} and {destination} are of different families"),
        };
        for word in [source.port(), destination.port(), length, 0] {
            packet.extend(word.to_be_bytes());
        }
        packet.extend(payload);
        let captured = self.link_header.len() + packet.len();
        let captured = u32::try_from(captured).expect("checked above");
        let seconds = BEGIN_S + u32::try_from(at.as_secs()).expect("some decades at most");
        for word in [seconds, at.subsec_micros(), captured, captured] {
            self.bytes.extend(word.to_le_bytes());
        }
        self.bytes.extend(&self.link_header);
        self.bytes.extend(packet);
        self.packets += 1;
    }
}
