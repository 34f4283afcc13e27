//! Frames sent as they are, for packets that no network stack would make.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;

use crate::namespace::{CLIENT_END, Namespace, SERVER_END};

/// A packet socket on an interface (packet(7)).
pub struct FrameSocket {
    socket: OwnedFd,
}

impl FrameSocket {
    /// Opens a packet socket bound to `interface` of `namespace`.
    ///
    /// # Errors
    /// Without root, or without the interface.
    pub fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        namespace.enter(|| {
            let index = i32::try_from(if_nametoindex(interface)?)?;
            // Protocol 0: it sends only, and receives nothing.
            // SAFETY: a plain system call without pointers.
            let socket =
                unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
            if socket < 0 {
                return Err(io::Error::last_os_error()).context("open a packet socket");
            }
            // SAFETY: socket(2) succeeded, so this is a new descriptor that nobody else owns.
            let socket = unsafe { OwnedFd::from_raw_fd(socket) };
            // SAFETY: an all-zero sockaddr_ll is a valid value.
            let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            address.sll_family = u16::try_from(libc::AF_PACKET)?;
            address.sll_ifindex = index;
            let size = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>())?;
            // SAFETY: the address is a live sockaddr_ll of the size given.
            let result = unsafe {
                libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), size)
            };
            if result < 0 {
                return Err(io::Error::last_os_error()).context("bind a packet socket");
            }
            Ok(Self { socket })
        })
    }

    /// Sends one frame, link layer included.
    ///
    /// # Errors
    /// When the kernel refuses it, as it does frames longer than the MTU.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        nix::unistd::write(&self.socket, frame).context("send a frame")?;
        Ok(())
    }
}

/// An Ethernet header from the client's end to the server's.
#[must_use]
pub fn ethernet(ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(64);
    frame.extend(SERVER_END.mac);
    frame.extend(CLIENT_END.mac);
    frame.extend(ethertype.to_be_bytes());
    frame
}

/// An Ethernet frame with IPv4 and UDP to the server's port 53, whatever the payload. No UDP
/// checksum (RFC 768 allows it over IPv4).
///
/// # Panics
/// When the payload does not fit into a packet.
#[must_use]
pub fn udp_to_port_53(source_port: u16, payload: &[u8]) -> Vec<u8> {
    let udp_length = u16::try_from(payload.len() + 8).expect("fits into a datagram");
    let mut frame = ethernet(0x0800);
    let header_at = frame.len();
    frame.extend([0x45, 0]);
    frame.extend((udp_length + 20).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend(CLIENT_END.ipv4.octets());
    frame.extend(SERVER_END.ipv4.octets());
    let checksum = internet_checksum(&frame[header_at..]);
    frame[header_at + 10..header_at + 12].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(source_port.to_be_bytes());
    frame.extend(53u16.to_be_bytes());
    frame.extend(udp_length.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

/// RFC 1071, over an even number of bytes.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    #[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits above")]
    let folded = sum as u16;
    !folded
}
