//! A pod or service, and the addresses that it has or had.

use std::net::IpAddr;

use tap53_records::encode::{Identity, Owner};

use super::{
    super::address_history::{Claim, End, Micros, Start},
    Counts,
};

/// The kind of object that claims an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Pod,
    /// A pod in its node's network, which has no address of its own.
    HostPod,
    Service,
}

/// An object that has or had addresses.
pub(super) struct Holder {
    pub(super) kind: Kind,
    pub(super) owner: Owner,
    pub(super) held: Vec<HeldAddress>,
    pub(super) live: bool,
    /// True if the watch of the DNS servers has it.
    pub(super) is_server: bool,
    /// True if it may be the DNS cache of its node.
    pub(super) is_node_cache: bool,
}

#[derive(Clone, Copy)]
pub(super) struct HeldAddress {
    pub(super) address: IpAddr,
    pub(super) start: Start,
    pub(super) end: End,
    /// True if it was among the first addresses that were seen.
    pub(super) first: bool,
}

/// The state of any kind of object.
pub(super) struct Object<'a> {
    pub(super) kind: Kind,
    pub(super) uid: &'a str,
    pub(super) identity: Identity,
    pub(super) addresses: &'a [IpAddr],
    pub(super) times: Times,
    pub(super) is_node_cache: bool,
}

pub(super) struct Times {
    /// Time since when it had its first addresses, if the object reports it.
    pub(super) reported: Option<Micros>,
    /// Earliest time at which it can have had them.
    pub(super) earliest: Micros,
    pub(super) end: End,
}

impl Holder {
    pub(super) fn holds(&self, address: IpAddr) -> bool {
        self.held.iter().any(|held| held.address == address)
    }

    pub(super) fn ended_at(&self) -> Micros {
        self.held.iter().map(|held| held.end.at()).max().unwrap_or(Micros::MIN)
    }

    /// Returns the claims to one address, or to all with `None`.
    pub(super) fn claims(&self, address: Option<IpAddr>) -> impl Iterator<Item = Claim> {
        let held = self.held.iter().filter(move |held| address.is_none_or(|it| held.address == it));
        held.map(|held| Claim { owner: self.owner.clone(), start: held.start, end: held.end })
    }
}

/// Returns the counter of live objects of a kind.
pub(super) const fn live_of(counts: &mut Counts, kind: Kind, is_server: bool) -> &mut usize {
    match kind {
        Kind::Pod | Kind::HostPod if is_server => &mut counts.server_pods,
        Kind::Pod | Kind::HostPod => &mut counts.pods,
        Kind::Service => &mut counts.services,
    }
}
