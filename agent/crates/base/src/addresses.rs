//! Addresses of this host's interfaces, and their changes.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
    },
};
use tokio::io::{Interest, unix::AsyncFd};

/// Returns the addresses of the interfaces of this network namespace, each with its interface.
///
/// # Errors
/// When the kernel does not list them.
pub fn of_interfaces() -> io::Result<impl Iterator<Item = (String, IpAddr)>> {
    Ok(getifaddrs()?.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        let ip =
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))?;
        Some((interface.interface_name, ip))
    }))
}

/// A subscription to changes of the addresses of a network namespace (rtnetlink).
#[derive(Debug)]
pub struct AddressChanges(AsyncFd<OwnedFd>);

/// Size in bytes of the buffer for notifications, of which each has some 80.
const RECEIVE_BYTES: usize = 8 << 10;

impl AddressChanges {
    /// Subscribes in this thread's network namespace. Read the addresses after it, or changes in
    /// between are missed. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the kernel refuses the socket.
    pub fn open() -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )?;
        let groups = libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups.cast_unsigned()))?;
        // SAFETY: the descriptor is owned by the registered value, which keeps it open.
        let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        Ok(Self(registered.map_err(io::Error::from)?))
    }

    /// Waits until an address has been added or removed, also if it was before the call. Link-local
    /// addresses of IPv6 do not count: each device of a pod gets one.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut buffer = [0; RECEIVE_BYTES];
            let mut has_changed = false;
            loop {
                match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                    Ok(length) => {
                        has_changed |= buffer.get(..length).is_none_or(is_about_addresses);
                    }
                    Err(Errno::EINTR) => {}
                    Err(Errno::EAGAIN) => break,
                    // Notifications were lost.
                    Err(Errno::ENOBUFS) => has_changed = true,
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
            if has_changed {
                return Ok(());
            }
        }
    }
}

/// Returns true if one of the messages is about an address other than a link-local one of IPv6, or
/// cannot be read.
///
/// Each message is a `nlmsghdr` of 16 bytes, whose first word is its length, then `ifaddrmsg`: family,
/// length of the prefix, flags and scope, of one byte each.
fn is_about_addresses(mut messages: &[u8]) -> bool {
    const HEADER_BYTES: usize = 16;
    const ALIGNMENT: usize = 4;
    while let Some(length) = messages.first_chunk() {
        let length = u32::from_ne_bytes(*length) as usize;
        let Some([family, _, _, scope, ..]) = messages.get(HEADER_BYTES..length) else {
            return true;
        };
        let is_ipv6 = libc::c_int::from(*family) == libc::AF_INET6;
        if !is_ipv6 || *scope != libc::RT_SCOPE_LINK {
            return true;
        }
        messages = messages.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_loopback_interface_has_its_address() {
        let addresses: Vec<_> = of_interfaces().unwrap().collect();
        assert!(
            addresses.contains(&("lo".to_owned(), Ipv4Addr::LOCALHOST.into())),
            "{addresses:?}"
        );
    }

    #[test]
    fn only_link_local_addresses_of_ipv6_do_not_count() {
        let message = |family: libc::c_int, scope: u8| {
            let mut bytes = vec![0; 24];
            bytes[..4].copy_from_slice(&24_u32.to_ne_bytes());
            bytes[16] = u8::try_from(family).unwrap();
            bytes[19] = scope;
            bytes
        };
        let link_local = message(libc::AF_INET6, libc::RT_SCOPE_LINK);
        let global = message(libc::AF_INET6, libc::RT_SCOPE_UNIVERSE);
        let ipv4 = message(libc::AF_INET, libc::RT_SCOPE_LINK);
        assert!(!is_about_addresses(&[]));
        assert!(!is_about_addresses(&link_local));
        for other in [&global, &ipv4] {
            assert!(is_about_addresses(other));
            assert!(is_about_addresses(&[&link_local[..], other].concat()));
        }
        // Rather one reading of the addresses too many.
        assert!(is_about_addresses(&link_local[..18]));
        assert!(is_about_addresses(&[1, 0, 0, 0]));
    }

    #[test]
    fn a_subscription_does_not_block() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut changes = AddressChanges::open().unwrap();
            // Other processes use the namespace too: it is only certain that this ends.
            let waited = std::time::Duration::from_millis(10);
            if let Ok(changed) = tokio::time::timeout(waited, changes.changed()).await {
                changed.unwrap();
            }
        });
    }
}
