//! The two ends of a message's way.

use std::{
    hash::{Hash, Hasher},
    net::{IpAddr, SocketAddr},
};

/// Transport protocol of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// IP protocol 17.
    Udp,
    /// IP protocol 6.
    Tcp,
}

/// Kind of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TunnelKind {
    /// RFC 7348.
    Vxlan,
    /// RFC 8926.
    Geneve,
    /// RFC 2784.
    Gre,
}

impl TunnelKind {
    /// Name in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "VXLAN",
            Self::Geneve => "GENEVE",
            Self::Gre => "GRE",
        }
    }
}

/// The tunnel that a packet was found in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tunnel {
    /// Kind.
    pub kind: TunnelKind,
    /// VXLAN or Geneve network identifier (24 bits), or GRE key; `None` for GRE without one.
    pub id: Option<u32>,
}

impl Tunnel {
    /// A number of its own, for hashes.
    pub(crate) const fn number(self) -> u64 {
        let id = match self.id {
            Some(id) => 1 << 32 | id as u64,
            None => 0,
        };
        (self.kind as u64) << 40 | id
    }
}

/// Where a message travelled, seen from the query: client to server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// UDP or TCP.
    pub transport: Transport,
    /// Sender of the query.
    pub client: SocketAddr,
    /// Receiver of the query.
    pub server: SocketAddr,
    /// Tunnel that both are inside of.
    pub tunnel: Option<Tunnel>,
    /// Interface, where each has transactions of its own; 0 where interfaces are merged.
    pub ifindex: u32,
}

/// In words of constant size and number, which is what makes a hash quick.
impl Hash for Flow {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        for end in [&self.client, &self.server] {
            state.write_u128(match end.ip() {
                // Not the number of an IPv4-mapped address; an equal one would only share a bucket.
                IpAddr::V4(address) => address.to_bits().into(),
                IpAddr::V6(address) => address.to_bits(),
            });
        }
        let ports = u32::from(self.client.port()) << 16 | u32::from(self.server.port());
        state.write_u64(u64::from(self.ifindex) << 32 | u64::from(ports));
        state.write_u8(self.transport as u8);
        // All that tells flows apart, or whoever chooses tunnels could fill one bucket.
        if let Some(tunnel) = self.tunnel {
            state.write_u64(tunnel.number());
        }
    }
}
