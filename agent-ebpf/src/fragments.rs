//! Selects the fragments to capture. Only the first fragment of a datagram has ports, so its
//! content is stored for the later ones.
//!
//! ```text
//!  first fragment ─▶ store ────┬─ DNS ────▶ captured
//!                              └─ other ──▶ ignored
//!  later fragment ─▶ load ─────┬─ DNS ────▶ captured
//!                              ├─ other ──▶ ignored
//!                              └─ unknown ▶ captured within a budget: fragments may be out of order
//! ```

use crate::{
    counter::Counter,
    headers::{Content, Headers},
};

/// Identifies a datagram by fields that all its fragments have. Key of the `DATAGRAMS` map.
///
/// Interfaces and tunnels are part of the key: the same fragments may pass several interfaces, and
/// several tunnels may use the same addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DatagramKey {
    /// Sender, in the format of [`Endpoint::address`](crate::headers::Endpoint::address).
    pub source: [u64; 2],
    /// Receiver.
    pub destination: [u64; 2],
    /// Identification of the IPv4 header or the IPv6 Fragment header.
    pub identification: u32,
    /// Ifindex of the hook.
    pub ifindex: u32,
    /// Identifier of the tunnel; 0 without a tunnel.
    pub tunnel_id: u32,
    /// Number of the tunnel in [`crate::record::tunnel`].
    pub tunnel: u8,
    /// Protocol of the IPv4 header; 0 for IPv6, whose fragments may disagree (RFC 8200 §4.5).
    pub protocol: u8,
    /// 4 or 6.
    pub ip_version: u8,
    /// Zero.
    pub padding: u8,
}

const _: () = assert!(size_of::<DatagramKey>() == 48);

impl DatagramKey {
    /// Returns the key of a fragment's datagram.
    #[inline(always)]
    #[must_use]
    pub fn new(headers: &Headers, ifindex: u32) -> Self {
        Self {
            source: headers.source.address,
            destination: headers.destination.address,
            identification: headers.identification,
            ifindex,
            tunnel_id: headers.tunnel_id.unwrap_or(0),
            tunnel: headers.tunnel,
            protocol: headers.datagram_protocol(),
            ip_version: headers.ip_version,
            padding: 0,
        }
    }
}

/// The content of a datagram, by its first fragment: value of the `DATAGRAMS` map.
pub mod carries {
    /// Anything but DNS.
    pub const OTHER: u32 = 0;
    /// DNS.
    pub const DNS: u32 = 1;
    /// A tunnel's packet.
    pub const TUNNEL: u32 = 2;
}

/// Stores the content of datagrams whose first fragment has passed. It may drop any entry.
pub trait DatagramContents {
    /// Stores a number of [`carries`] for a datagram.
    fn store(&mut self, datagram: &DatagramKey, content: u32);
    /// Returns the number stored for a datagram, if any.
    fn load(&mut self, datagram: &DatagramKey) -> Option<u32>;
    /// Returns true if another fragment of an unknown datagram may be captured.
    fn may_speculate(&mut self) -> bool;
}

/// Maximum number of later fragments of unknown datagrams that a CPU captures per second: a burst
/// of reordered responses, and little compared with the capacity of a ring.
pub const SPECULATIVE_PER_SECOND: u32 = 1_000;

/// Decides whether to capture a fragment that [`parse`](crate::headers::parse) has found.
///
/// # Errors
/// Returns the counter of the reason why it is not captured.
#[inline(always)]
pub fn check_fragment<M: DatagramContents>(
    headers: &Headers,
    ifindex: u32,
    contents: &mut M,
) -> Result<(), Counter> {
    let datagram = DatagramKey::new(headers, ifindex);
    let content = match headers.content {
        Content::Unknown => match contents.load(&datagram) {
            Some(content) => content,
            None if contents.may_speculate() => carries::DNS,
            None => return Err(Counter::LaterFragment),
        },
        first => {
            let content = match first {
                Content::Dns => carries::DNS,
                Content::Tunnel => carries::TUNNEL,
                _ => carries::OTHER,
            };
            contents.store(&datagram, content);
            content
        }
    };
    match content {
        carries::DNS => Ok(()),
        carries::TUNNEL => Err(Counter::TunnelFragment),
        _ => Err(Counter::NotDns),
    }
}
