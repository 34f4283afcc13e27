//! Addresses of this host's interfaces.

use std::{io, net::IpAddr};

use nix::ifaddrs::getifaddrs;

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
}
