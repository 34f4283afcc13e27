//! The side of a worker: an exchange comes in, its signals come out.

use std::{
    hash::{BuildHasher as _, Hasher as _},
    net::IpAddr,
    sync::Arc,
};

use tap53_dns::domain::{Registrable, registrable};

use crate::{
    burst::{is_generated, is_sampled},
    recent::Recent,
    signal::{Signal, Signals},
    state::{Shared, SharedSignals},
    tunnel::Sign,
    window::INTERVAL_S,
};

const NOERROR: u16 = 0;
const NXDOMAIN: u16 = 3;

/// An exchange, as a worker records it.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// Time of its first message, in microseconds since 1970 UTC.
    pub at_us: i64,
    /// Address of the client.
    pub client: IpAddr,
    /// Namespace and name of the client's workload, if they are known.
    pub workload: Option<(&'a str, &'a str)>,
    /// Name of the question in presentation format: in lower case, with escapes, without a trailing dot.
    pub name: &'a str,
    /// Type of the question.
    pub qtype: u16,
    /// Code of the response; `None` if there is none.
    pub rcode: Option<u16>,
    /// Size of the query in bytes; 0 if it was not seen.
    pub query_bytes: u32,
    /// Size of the response in bytes; 0 if there is none.
    pub response_bytes: u32,
    /// True if an answer is a [private](tap53_dns::private_address) address.
    pub has_private_address: bool,
}

/// Looks for signals among the exchanges of one worker.
pub struct Detector {
    shared: Arc<Shared>,
    recent: Recent,
}

impl SharedSignals {
    /// Creates the detector of one more worker.
    #[must_use]
    pub fn detector(&self) -> Detector {
        Detector { shared: self.shared.clone(), recent: Recent::new() }
    }
}

/// The hash of what an exchange and its repetitions have in common: client, name, type and code.
#[derive(Clone, Copy, Debug)]
pub struct Key(u64);

impl Detector {
    /// Returns the signals of an exchange. Never allocates.
    #[inline]
    pub fn observe(&mut self, exchange: &Exchange<'_>) -> Signals {
        let Exchange { client, name, qtype, rcode, .. } = *exchange;
        let key = self.key(client, name, qtype, rcode);
        self.observe_with(exchange, key)
    }

    /// Returns the key of an exchange for [`observe_with`](Self::observe_with). Compute it before other
    /// work: the memory that is read first is prefetched meanwhile.
    #[inline]
    #[must_use]
    pub fn key(&self, client: IpAddr, name: &str, qtype: u16, rcode: Option<u16>) -> Key {
        let hash = self.hash_of(client, name, qtype, rcode);
        self.recent.prefetch(hash);
        Key(hash)
    }

    /// Returns the signals of an exchange that has this [`key`](Self::key). Never allocates.
    #[inline]
    pub fn observe_with(&mut self, exchange: &Exchange<'_>, Key(hash): Key) -> Signals {
        let is_private = self.shared.config.rebinding && exchange.has_private_address;
        let now_s = seconds(exchange.at_us);
        let interval = now_s / INTERVAL_S;
        let signals = match self.recent.get(hash, interval) {
            Some(signals) => signals,
            None => {
                let (signals, repeated) = self.observe_new(exchange, hash, now_s);
                self.recent.put(hash, interval, repeated);
                signals
            }
        };
        signals.with(Signal::Rebinding, is_private && self.is_rebinding(exchange.name))
    }

    /// Returns the hash of a [`Key`]. Two writes for IPv4: what the standard library writes for a tuple of these
    /// is several times as many.
    #[inline]
    fn hash_of(&self, client: IpAddr, name: &str, qtype: u16, rcode: Option<u16>) -> u64 {
        let mut hash = self.shared.hasher.build_hasher();
        // A code has at most 12 bits (RFC 6891 §6.1.3).
        let kind = u32::from(rcode.unwrap_or(u16::MAX)) << 16 | u32::from(qtype);
        match client {
            IpAddr::V4(client) => {
                hash.write_u64(u64::from(client.to_bits()) << 32 | u64::from(kind));
            }
            IpAddr::V6(client) => {
                hash.write_u128(client.to_bits());
                hash.write_u32(kind);
            }
        }
        hash.write(name.as_bytes());
        hash.finish()
    }

    /// Returns the signals of an exchange that the client has not had in this interval, and those that its
    /// repetitions have.
    fn observe_new(&self, exchange: &Exchange<'_>, hash: u64, now_s: u32) -> (Signals, Signals) {
        let Some(Registrable { domain, is_listed }) = registrable(exchange.name) else {
            return (Signals::NONE, Signals::NONE);
        };
        // The list has reverse zones, of which each network is a "domain".
        if domain.ends_with(".arpa") {
            return (Signals::NONE, Signals::NONE);
        }
        let config = &self.shared.config;
        let repeated = Signals::NONE
            .with(Signal::Tunnel, config.tunnels && self.is_tunnel(exchange, domain, hash, now_s))
            .with(Signal::Dga, config.dga && is_listed && self.is_burst(exchange, domain, now_s));
        (repeated.union(self.first_seen(exchange, domain)), repeated)
    }

    fn first_seen(&self, exchange: &Exchange<'_>, domain: &str) -> Signals {
        let Shared { config, domains, learned_at_us, .. } = &*self.shared;
        // A domain is seen first when it resolves: misspelled and generated names do not fill the table.
        if !config.new_domains || exchange.rcode != Some(NOERROR) {
            return Signals::NONE;
        }
        let day = self.shared.day(exchange.at_us);
        let is_new = domains.note(self.shared.hash(domain, None), day);
        let is_new_to_workload = exchange.workload.is_some()
            && domains.note(self.shared.hash(domain, exchange.workload), day);
        let is_marked = exchange.at_us >= *learned_at_us;
        Signals::NONE
            .with(Signal::NewDomainNode, is_new && is_marked)
            .with(Signal::NewDomainWorkload, is_new_to_workload && is_marked)
    }

    fn is_tunnel(&self, exchange: &Exchange<'_>, domain: &str, hash: u64, now_s: u32) -> bool {
        let Exchange { name, qtype, rcode, query_bytes, response_bytes, .. } = *exchange;
        let labels = name.len().checked_sub(domain.len() + 1).and_then(|end| name.get(..end));
        let labels = labels.unwrap_or_default();
        let Some(sign) = Sign::of(labels, qtype, rcode, query_bytes, response_bytes) else {
            return false;
        };
        let key = self.shared.hasher.hash_one((exchange.client, domain));
        self.shared.tunnels.update(key, now_s, |tunnel| tunnel.count(hash, sign, now_s))
            && !self.shared.lookup_services.contain(name)
    }

    fn is_burst(&self, exchange: &Exchange<'_>, domain: &str, now_s: u32) -> bool {
        let is_missing = match exchange.rcode {
            Some(NOERROR) => false,
            Some(NXDOMAIN) if is_whole_domain(exchange.name, domain) => true,
            _ => return false,
        };
        let hasher = &self.shared.hasher;
        let domain_hash = hasher.hash_one(domain);
        if !is_missing && !is_sampled(domain_hash) {
            return false;
        }
        let key = hasher.hash_one(exchange.client);
        if !is_missing {
            self.shared.bursts.update(key, now_s, |it| it.count_resolved(domain_hash, now_s));
            return false;
        }
        let is_generated = is_generated(domain);
        self.shared.bursts.update(key, now_s, |it| it.count(domain_hash, is_generated, now_s))
    }

    #[cold]
    fn is_rebinding(&self, name: &str) -> bool {
        let Shared { internal, private_zones, .. } = &*self.shared;
        registrable(name).is_some_and(|found| found.is_listed && !found.domain.ends_with(".arpa"))
            && !internal.contain(name)
            && !private_zones.contain(name)
    }
}

/// Returns true if the registrable domain does not exist where the name does not: the name is the domain, or a
/// host below it. A service or policy that a domain does not have (`_mta-sts`, `_25._tcp`) says nothing about
/// the domain, nor does an address that a block list does not have.
#[inline]
fn is_whole_domain(name: &str, domain: &str) -> bool {
    let labels = name.len().checked_sub(domain.len()).and_then(|end| name.get(..end));
    labels.is_some_and(|labels| {
        let host = labels.strip_suffix('.').unwrap_or(labels);
        !host.starts_with('_') && !host.contains('.')
    })
}

/// Returns the seconds since 1970 UTC; they fit until 2106.
#[inline]
fn seconds(at_us: i64) -> u32 {
    u32::try_from(at_us / 1_000_000).unwrap_or_default()
}

#[cfg(test)]
mod tests;
