//! The endpoints of a message.

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
    /// RFC 2003, RFC 4213.
    Ipip,
}

impl TunnelKind {
    /// Returns its name in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "VXLAN",
            Self::Geneve => "GENEVE",
            Self::Gre => "GRE",
            Self::Ipip => "IPIP",
        }
    }
}

/// The tunnel that contained a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tunnel {
    /// Kind of the tunnel.
    pub kind: TunnelKind,
    /// VXLAN or Geneve network identifier (24 bits), or GRE key; `None` for IPIP, and GRE without one.
    pub id: Option<u32>,
}

impl Tunnel {
    /// Returns a unique number, for hashes.
    pub(crate) const fn number(self) -> u64 {
        let id = match self.id {
            Some(id) => 1 << 32 | id as u64,
            None => 0,
        };
        (self.kind as u64) << 40 | id
    }
}

/// The endpoints of a message, seen from the query: client to server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// UDP or TCP.
    pub transport: Transport,
    /// Sender of the query.
    pub client: SocketAddr,
    /// Receiver of the query.
    pub server: SocketAddr,
    /// Tunnel that contained the message.
    pub tunnel: Option<Tunnel>,
    /// Interface, if transactions are kept per interface; 0 if interfaces are merged.
    pub ifindex: u32,
}

/// Hashes a constant number of words of constant size, which is fast.
impl Hash for Flow {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        for end in [&self.client, &self.server] {
            state.write_u128(match end.ip() {
                // This is not the number of the IPv4-mapped address; equal numbers would only share
                // a bucket.
                IpAddr::V4(address) => address.to_bits().into(),
                IpAddr::V6(address) => address.to_bits(),
            });
        }
        let ports = u32::from(self.client.port()) << 16 | u32::from(self.server.port());
        state.write_u64(u64::from(self.ifindex) << 32 | u64::from(ports));
        state.write_u8(self.transport as u8);
        // Include every field that distinguishes flows: otherwise a sender that chooses tunnels
        // could fill one bucket.
        if let Some(tunnel) = self.tunnel {
            state.write_u64(tunnel.number());
        }
    }
}
