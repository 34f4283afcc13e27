//! Which fragments to capture. Only the first fragment of a datagram has ports, so what it carries is
//! remembered for the later ones.
//!
//! ```text
//!  first fragment ─▶ remember ─┬─ DNS ────▶ captured
//!                              └─ other ──▶ left alone
//!  later fragment ─▶ recall ───┬─ DNS ────▶ captured
//!                              ├─ other ──▶ left alone
//!                              └─ unknown ▶ captured within a budget: fragments may be out of order
//! ```

use crate::{
    counter::Counter,
    headers::{Content, Headers},
};

/// A datagram as its fragments name it. Key of the `DATAGRAMS` map.
///
/// Interfaces and tunnels are kept apart: the same fragments may pass several, and addresses may be
/// the same in several tunnels.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DatagramKey {
    /// Sender, as in [`Endpoint::address`](crate::headers::Endpoint::address).
    pub source: [u64; 2],
    /// Receiver.
    pub destination: [u64; 2],
    /// Identification of the IPv4 header or the IPv6 Fragment header.
    pub identification: u32,
    /// Interface that sees the fragments.
    pub ifindex: u32,
    /// Identifier of the tunnel; 0 where there is none.
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
    /// The datagram of a fragment.
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

/// What a datagram carries, by its first fragment: value of the `DATAGRAMS` map.
pub mod carries {
    /// Something else than DNS.
    pub const OTHER: u32 = 0;
    /// DNS.
    pub const DNS: u32 = 1;
    /// A tunnel's packet.
    pub const TUNNEL: u32 = 2;
}

/// What is known of datagrams whose first fragment passed. It may forget any of them.
pub trait Memory {
    /// Keeps a number of [`carries`] for a datagram.
    fn remember(&mut self, datagram: &DatagramKey, content: u32);
    /// The number kept for a datagram, if any.
    fn recall(&mut self, datagram: &DatagramKey) -> Option<u32>;
    /// True if one more fragment of an unknown datagram may be captured.
    fn may_speculate(&mut self) -> bool;
}

/// Later fragments of unknown datagrams that a CPU captures in a second: a burst of reordered
/// answers, and little beside what a ring takes.
pub const SPECULATIVE_PER_SECOND: u32 = 1_000;

/// Decides whether to capture a fragment that [`parse`](crate::headers::parse) found.
///
/// # Errors
/// The counter to count the fragment in: why it is not captured.
#[inline(always)]
pub fn check_fragment<M: Memory>(
    headers: &Headers,
    ifindex: u32,
    memory: &mut M,
) -> Result<(), Counter> {
    let datagram = DatagramKey::new(headers, ifindex);
    let content = match headers.content {
        Content::Unknown => match memory.recall(&datagram) {
            Some(content) => content,
            None if memory.may_speculate() => carries::DNS,
            None => return Err(Counter::LaterFragment),
        },
        first => {
            let content = match first {
                Content::Dns => carries::DNS,
                Content::Tunnel => carries::TUNNEL,
                _ => carries::OTHER,
            };
            memory.remember(&datagram, content);
            content
        }
    };
    match content {
        carries::DNS => Ok(()),
        carries::TUNNEL => Err(Counter::TunnelFragment),
        _ => Err(Counter::NotDns),
    }
}
