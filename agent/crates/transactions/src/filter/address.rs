//! Allow and deny lists of address prefixes.

use std::net::IpAddr;

use hashbrown::HashMap;
use ipnet::IpNet;

use super::{List, Refusal};
use crate::filter::config::Lists;

/// Prefixes of one address family, searched longest first: one lookup per length in use.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    prefixes: HashMap<IpNet, List>,
    /// Prefix lengths in use, longest first, for IPv4 and IPv6.
    lengths: [Box<[u8]>; 2],
    has_allow: bool,
}

impl Addresses {
    /// Creates the lists from prefixes without bits after their length.
    pub(super) fn new(lists: &Lists<IpNet>) -> Self {
        let entry = |list: List| move |prefix: &IpNet| (*prefix, list);
        let allow = lists.allow.iter().map(entry(List::Allow));
        let prefixes: HashMap<_, _> =
            allow.chain(lists.deny.iter().map(entry(List::Deny))).collect();
        let lengths = [true, false].map(|ipv4| {
            let of_family = prefixes.keys().filter(|prefix| prefix.addr().is_ipv4() == ipv4);
            let mut lengths: Vec<u8> = of_family.map(IpNet::prefix_len).collect();
            lengths.sort_unstable_by(|a, b| b.cmp(a));
            lengths.dedup();
            lengths.into_boxed_slice()
        });
        Self { prefixes, lengths, has_allow: !lists.allow.is_empty() }
    }

    pub(super) fn refusal(&self, address: IpAddr) -> Option<Refusal> {
        if self.prefixes.is_empty() {
            return None;
        }
        // ::ffff:10.0.0.1 is 10.0.0.1 (RFC 4291 §2.5.5.2). A prefix of either form may contain it;
        // one of the shorter form is more specific.
        let canonical = address.to_canonical();
        let list = self.longest(canonical).or_else(|| {
            let mapped = canonical != address;
            mapped.then(|| self.longest(address)).flatten()
        });
        List::refusal(list, self.has_allow)
    }

    fn longest(&self, address: IpAddr) -> Option<List> {
        let lengths = &self.lengths[usize::from(address.is_ipv6())];
        lengths.iter().find_map(|length| {
            let prefix = IpNet::new(address, *length).ok()?.trunc();
            self.prefixes.get(&prefix).copied()
        })
    }
}
