//! Addresses that no public name should have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Returns true if an address is private: RFC 1918, shared (RFC 6598), link-local, unique local (RFC 4193),
/// `127.0.0.1` or `::1`, also as IPv4-mapped address. Other addresses of the host are not: block lists
/// answer with `127.0.0.2` and above, and filters with `0.0.0.0`.
#[inline]
#[must_use]
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_private_v4(address.octets()),
        IpAddr::V6(address) => is_private_v6(address),
    }
}

#[inline]
pub(crate) const fn is_private_v4(octets: [u8; 4]) -> bool {
    matches!(
        octets,
        [10, ..]
            | [172, 16..=31, ..]
            | [192, 168, ..]
            | [169, 254, ..]
            | [100, 64..=127, ..]
            | [127, 0, 0, 1]
    )
}

#[inline]
pub(crate) fn is_private_v6(address: Ipv6Addr) -> bool {
    address == Ipv6Addr::LOCALHOST
        || address.is_unique_local()
        || address.is_unicast_link_local()
        || address.to_ipv4_mapped().is_some_and(|mapped: Ipv4Addr| is_private_v4(mapped.octets()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_told_from_others() {
        for (addresses, expected) in [
            (
                &[
                    "10.0.0.1",
                    "172.16.0.1",
                    "172.31.255.255",
                    "192.168.1.1",
                    "169.254.169.254",
                    "127.0.0.1",
                    "100.64.0.1",
                    "100.127.0.1",
                    "::1",
                    "fc00::1",
                    "fd12:3456::1",
                    "fe80::1",
                    "febf::1",
                    "::ffff:10.0.0.1",
                    "::ffff:192.168.0.1",
                ][..],
                true,
            ),
            (
                &[
                    "1.1.1.1",
                    "100.63.0.1",
                    "100.128.0.1",
                    "172.15.0.1",
                    "172.32.0.1",
                    "192.0.2.1",
                    "127.0.0.2",
                    "0.0.0.0",
                    "::",
                    "::ffff:1.1.1.1",
                    "2001:db8::1",
                    "fec0::1",
                    "ff02::1",
                    "fc::1",
                ],
                false,
            ),
        ] {
            for address in addresses {
                assert_eq!(is_private(address.parse().unwrap()), expected, "{address}");
            }
        }
    }

    /// The standard library agrees, for the kinds that it knows.
    #[test]
    fn all_private_prefixes_are_those_of_the_standard_library() {
        for number in 0..=u16::MAX {
            let [one, two] = number.to_be_bytes();
            let address = Ipv4Addr::new(one, two, 9, 9);
            let is_shared = one == 100 && two & 0xc0 == 64;
            let expected = address.is_private() || address.is_link_local() || is_shared;
            assert_eq!(is_private(address.into()), expected, "{address}");
        }
    }
}
