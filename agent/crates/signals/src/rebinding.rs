//! Private addresses of public names.

use tap53_dns::below;

/// Returns true if the text of an address is private: RFC 1918, shared (RFC 6598), link-local, unique
/// local (RFC 4193), `127.0.0.1` or `::1`. Other addresses of the host are not: block lists answer with
/// `127.0.0.2` and above, and filters with `0.0.0.0`.
#[inline]
pub(crate) fn is_private(address: &str) -> bool {
    match address.as_bytes() {
        [b'1', ..] => is_private_ipv4(address),
        [b':', b':', b'f', ..] => address.strip_prefix("::ffff:").is_some_and(is_private_ipv4),
        b"::1" => true,
        [b'f', b'c' | b'd', _, _, b':', ..] => true,
        [b'f', b'e', b'8' | b'9' | b'a' | b'b', _, b':', ..] => true,
        _ => false,
    }
}

fn is_private_ipv4(address: &str) -> bool {
    let second = |rest: &str| rest.split('.').next().and_then(|octet| octet.parse::<u8>().ok());
    if address.starts_with("10.")
        || address.starts_with("192.168.")
        || address.starts_with("169.254.")
        || address == "127.0.0.1"
    {
        return true;
    }
    if let Some(rest) = address.strip_prefix("172.") {
        return second(rest).is_some_and(|octet| (16..32).contains(&octet));
    }
    address
        .strip_prefix("100.")
        .is_some_and(|rest| second(rest).is_some_and(|octet| (64..128).contains(&octet)))
}

/// Suffixes of names.
pub(crate) struct Suffixes(Box<[String]>);

impl Suffixes {
    pub(crate) fn new<'a>(suffixes: impl IntoIterator<Item = &'a String>) -> Self {
        Self(suffixes.into_iter().cloned().collect())
    }

    /// Returns true if `name` is one of the suffixes, or below one.
    pub(crate) fn contain(&self, name: &str) -> bool {
        self.0.iter().any(|suffix| below(name, suffix).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_recognised_by_their_text() {
        for address in [
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
        ] {
            assert!(is_private(address), "{address}");
        }
        for address in [
            "",
            "1",
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
            "172.",
            "100.x",
            "fd",
        ] {
            assert!(!is_private(address), "{address}");
        }
    }

    /// The standard library agrees, for the kinds that it knows.
    #[test]
    fn all_private_prefixes_are_those_of_the_standard_library() {
        for number in 0..=u16::MAX {
            let [one, two] = number.to_be_bytes();
            let address = std::net::Ipv4Addr::new(one, two, 9, 9);
            let is_shared = one == 100 && two & 0xc0 == 64;
            let expected = address.is_private() || address.is_link_local() || is_shared;
            assert_eq!(is_private(&address.to_string()), expected, "{address}");
        }
    }

    #[test]
    fn suffixes_contain_themselves_and_what_is_below() {
        let suffixes = Suffixes::new(&["corp.example.com".to_owned()]);
        assert!(suffixes.contain("corp.example.com"));
        assert!(suffixes.contain("a.corp.example.com"));
        assert!(!suffixes.contain("notcorp.example.com"));
        assert!(!suffixes.contain("example.com"));
    }
}
