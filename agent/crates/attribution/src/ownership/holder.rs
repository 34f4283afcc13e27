//! A pod or service, and the addresses that it holds or held.

use std::net::IpAddr;

use tap53_records::encode::{Identity, Owner};

use super::{
    super::tenancy::{Claim, End, Micros, Start},
    Counts,
};

/// What a claim is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Pod,
    /// A pod in its node's network: no address is its own.
    HostPod,
    Service,
}

/// An object that has, or had, addresses.
pub(super) struct Holder {
    pub(super) kind: Kind,
    pub(super) owner: Owner,
    pub(super) held: Vec<Held>,
    pub(super) live: bool,
}

#[derive(Clone, Copy)]
pub(super) struct Held {
    pub(super) address: IpAddr,
    pub(super) start: Start,
    pub(super) end: End,
    /// Whether it was among the addresses that were seen first.
    pub(super) first: bool,
}

/// What any object says.
pub(super) struct Object<'a> {
    pub(super) kind: Kind,
    pub(super) uid: &'a str,
    pub(super) identity: Identity,
    pub(super) addresses: &'a [IpAddr],
    pub(super) times: Times,
}

pub(super) struct Times {
    /// When it had its first addresses, if it says so.
    pub(super) told: Option<Micros>,
    /// When it cannot have had them yet.
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

    /// Its claims of one address, or of all.
    pub(super) fn claims(&self, address: Option<IpAddr>) -> impl Iterator<Item = Claim> {
        let held = self.held.iter().filter(move |held| address.is_none_or(|it| held.address == it));
        held.map(|held| Claim { owner: self.owner.clone(), start: held.start, end: held.end })
    }
}

/// Where live objects are counted.
pub(super) const fn live_of(counts: &mut Counts, kind: Kind) -> &mut usize {
    match kind {
        Kind::Pod | Kind::HostPod => &mut counts.pods,
        Kind::Service => &mut counts.services,
    }
}
