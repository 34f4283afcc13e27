//! DNS rebinding: a name of a public domain that first has a public address, and then a private one.

use std::{net::IpAddr, time::Duration};

use super::{Answer, Kind, Lookup, NOERROR, rtype, universe::public_v4, wire::name_of};

/// Addresses that a page from outside must not reach.
///
/// `0.0.0.0` reaches the host itself on some systems, but is also what filters of advertising answer, so it
/// is not among them.
pub const TARGETS: [&str; 7] =
    ["10.0.0.1", "172.16.3.4", "192.168.1.1", "127.0.0.1", "169.254.169.254", "::1", "fd00::1"];

/// Returns the two lookups of an attack on a target: the second comes a second after the first. The number
/// makes the domain.
///
/// # Panics
/// When the target is no address.
#[must_use]
pub fn attack(number: usize, target: &str, client: IpAddr, begin: Duration) -> [Lookup; 2] {
    let target: IpAddr = target.parse().expect("an address");
    let name = name_of(&format!("rebind.attacker{number}-t53.com"));
    let lookup = |at, address: IpAddr| Lookup {
        at,
        client,
        name: name.clone(),
        qtype: if address.is_ipv4() { rtype::A } else { rtype::AAAA },
        rcode: NOERROR,
        answers: vec![Answer::address(address)],
        captured_sizes: None,
        kind: Kind::Rebinding,
    };
    [lookup(begin, public_v4(number)), lookup(begin + Duration::from_secs(1), target)]
}
