//! The resolvers, by the cgroups and addresses that they answer from.
//!
//! An upstream query belongs to the resolver whose responses come from the same cgroup: a cache in
//! the node's network listens at an address that is not the source address of its queries. Where no
//! cgroup is known, the source address decides. Where both cgroups are known and differ, it is another
//! process at the same address.

use std::net::IpAddr;

use hashbrown::HashMap;

use super::{event::Party, resolver::Resolver};

/// Maximum number of resolvers.
const MAX_RESOLVERS: usize = 256;

/// Maximum number of addresses of one resolver.
const MAX_ADDRESSES: usize = 16;

/// Time without an upstream query after which another resolver may replace one, in nanoseconds.
const IDLE_NS: u64 = 60_000_000_000;

/// Number of a resolver.
pub(super) type Number = u32;

/// All known resolvers.
#[derive(Debug, Default)]
pub(super) struct Resolvers {
    by_address: HashMap<IpAddr, Number>,
    by_cgroup: HashMap<u64, Number>,
    states: HashMap<Number, Resolver>,
    last: Number,
}

impl Resolvers {
    pub(super) fn get(&self, number: Number) -> Option<&Resolver> {
        self.states.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: Number) -> Option<&mut Resolver> {
        self.states.get_mut(&number)
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Resolver> {
        self.states.values_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.states.len()
    }

    /// Returns the resolver that answers at an address.
    pub(super) fn at(&self, address: &IpAddr) -> Option<Number> {
        self.by_address.get(address).copied()
    }

    /// Returns the resolver that sent a query; a sender that also answers becomes one.
    pub(super) fn sender_of(&mut self, party: &Party, now_ns: u64) -> Option<Number> {
        let by_cgroup = self.by_cgroup.get(&party.cgroup).filter(|_| party.cgroup != 0).copied();
        let by_address = self.at(&party.address).filter(|number| {
            let cgroup = self.states.get(number).map_or(0, |resolver| resolver.cgroup);
            cgroup == 0 || party.cgroup == 0 || cgroup == party.cgroup
        });
        if let Some(number) = by_cgroup {
            return Some(number);
        }
        if party.cgroup != 0 && party.answers_by_cgroup {
            let number = by_address.or_else(|| self.create(now_ns))?;
            self.bind_cgroup(number, party.cgroup);
            if party.answers_by_address {
                self.bind_address(number, party.address);
            }
            return Some(number);
        }
        if by_address.is_some() || !party.answers_by_address || self.at(&party.address).is_some() {
            return by_address;
        }
        let number = self.create(now_ns)?;
        self.bind_address(number, party.address);
        Some(number)
    }

    /// Learns the cgroup that answers at an address.
    pub(super) fn note_response(&mut self, address: IpAddr, cgroup: u64) {
        if cgroup == 0 {
            return;
        }
        let at = self.at(&address);
        match (self.by_cgroup.get(&cgroup).copied(), at) {
            (Some(by_cgroup), by_address) if Some(by_cgroup) != by_address => {
                self.bind_address(by_cgroup, address);
            }
            (None, Some(number)) => match self.states.get(&number).map(|it| it.cgroup) {
                Some(0) => self.bind_cgroup(number, cgroup),
                // Another process has the address now. It is a resolver once it sends queries.
                _ => self.unbind_address(&address),
            },
            _ => {}
        }
    }

    /// Returns the addresses and the cgroup of a resolver.
    pub(super) fn identities(&self, number: Number) -> (&[IpAddr], u64) {
        self.get(number).map_or((&[], 0), |it| (it.addresses.as_slice(), it.cgroup))
    }

    fn create(&mut self, now_ns: u64) -> Option<Number> {
        if self.states.len() >= MAX_RESOLVERS {
            let oldest = self.states.iter().min_by_key(|(_, it)| it.last_upstream_ns);
            let (number, last_ns) = oldest.map(|(number, it)| (*number, it.last_upstream_ns))?;
            if last_ns.saturating_add(IDLE_NS) > now_ns {
                return None;
            }
            self.remove(number);
        }
        self.last += 1;
        self.states.insert(self.last, Resolver::new(now_ns));
        Some(self.last)
    }

    fn remove(&mut self, number: Number) {
        if let Some(resolver) = self.states.remove(&number) {
            for address in &resolver.addresses {
                self.by_address.remove(address);
            }
            self.by_cgroup.remove(&resolver.cgroup);
        }
    }

    fn bind_cgroup(&mut self, number: Number, cgroup: u64) {
        if let Some(resolver) = self.states.get_mut(&number) {
            resolver.cgroup = cgroup;
            self.by_cgroup.insert(cgroup, number);
        }
    }

    fn bind_address(&mut self, number: Number, address: IpAddr) {
        self.unbind_address(&address);
        if let Some(resolver) = self.states.get_mut(&number)
            && resolver.addresses.len() < MAX_ADDRESSES
        {
            resolver.addresses.push(address);
            self.by_address.insert(address, number);
        }
    }

    fn unbind_address(&mut self, address: &IpAddr) {
        if let Some(number) = self.by_address.remove(address)
            && let Some(resolver) = self.states.get_mut(&number)
        {
            resolver.addresses.retain(|other| other != address);
        }
    }
}
