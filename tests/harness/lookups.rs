//! Lookups made from seeds, for everything that judges names: a client, a question, the answer to it, and
//! the time. The names, rules and proportions are ours; no data of others is in them.
//!
//! ```text
//!  seed ─┬▶ Benign    web, CDNs, antivirus, DNSBL, telemetry, cluster, reverse, mail, …  ─┐
//!        ├▶ dga       NXDOMAIN bursts of four families of algorithms                      ├▶ lookups by time
//!        └▶ rebinding public names that turn to private addresses                         ─┘
//! ```
//!
//! The labels of domains are made up. Their suffixes are those of the public suffix list, since what judges
//! names depends on it. No lookup of a stream is sent anywhere.

mod benign;
pub mod dga;
mod mail;
mod network;
mod random;
pub mod rebinding;
mod reputation;
mod universe;
mod web;
mod wire;

use std::{net::IpAddr, time::Duration};

pub use benign::Benign;
pub use random::Random;
pub use wire::{labels, name_of, text_of};

/// Types of resource records (RFC 1035 §3.2.2 and later).
pub mod rtype {
    #![allow(missing_docs, reason = "these are the mnemonics of the registry")]

    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const NULL: u16 = 10;
    pub const PTR: u16 = 12;
    pub const MX: u16 = 15;
    pub const TXT: u16 = 16;
    pub const KEY: u16 = 25;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const DS: u16 = 43;
    pub const DNSKEY: u16 = 48;
    pub const TLSA: u16 = 52;
    pub const HTTPS: u16 = 65;
}

/// The response code of a name that exists.
pub const NOERROR: u8 = 0;
/// The response code of a name that does not exist.
pub const NXDOMAIN: u8 = 3;

/// The cause of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Pages, with the third parties in them.
    Web,
    /// Long, hashed host labels of content delivery networks.
    Cdn,
    /// Hashes of files and of addresses of pages, asked of a reputation service.
    Antivirus,
    /// Reversed addresses, names and hashes, asked of lists of senders of spam.
    Dnsbl,
    /// Identifiers of devices and sessions in labels.
    Telemetry,
    /// Names of services with search lists.
    Cluster,
    /// Names of addresses.
    Reverse,
    /// SPF, DKIM, DMARC, MTA-STS, TLSA and MX.
    Mail,
    /// Challenges of certificates.
    Acme,
    /// Service discovery (RFC 6763).
    DnsSd,
    /// A resolver that minimizes names (RFC 9156) and validates.
    Resolver,
    /// Misspelled names.
    Typo,
    /// Beacons of mobile devices and of things.
    Mobile,
    /// Internationalized names.
    International,
    /// Random names that a browser tries at its start, and those of a monitor that avoids caches.
    Probe,
    /// Lists of nodes as trees of TXT records, as peer-to-peer networks publish them (EIP-1459).
    NodeList,
    /// Domain controllers and their clients.
    Directory,
    /// A tunnel.
    Tunnel,
    /// An algorithm that generates domains.
    Dga,
    /// A public name that turns to a private address.
    Rebinding,
}

/// A record in a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Type of the record.
    pub rtype: u16,
    /// Its data, names in it uncompressed.
    pub rdata: Vec<u8>,
}

/// A question, and the response to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// Time of the query since the beginning of the stream.
    pub at: Duration,
    /// Address of the client.
    pub client: IpAddr,
    /// The name in wire format, uncompressed, as it was sent.
    pub name: Vec<u8>,
    /// Type in the question.
    pub qtype: u16,
    /// Code in the response.
    pub rcode: u8,
    /// The answer section. A record after a CNAME record has the name that the CNAME record names.
    pub answers: Vec<Answer>,
    /// Bytes of the query's and of the response's DNS message, where they were captured; else they follow
    /// from the fields.
    pub captured_sizes: Option<(usize, usize)>,
    /// Its cause.
    pub kind: Kind,
}

impl Lookup {
    /// Returns the size of the query's DNS message in bytes.
    #[must_use]
    pub fn query_size(&self) -> usize {
        self.captured_sizes.map_or_else(|| wire::query_size(self), |(query, _)| query)
    }

    /// Returns the size of the response's DNS message in bytes.
    #[must_use]
    pub fn response_size(&self) -> usize {
        self.captured_sizes.map_or_else(|| wire::response_size(self), |(_, response)| response)
    }

    /// Creates the messages of the query and of the response.
    #[must_use]
    pub fn messages(&self, id: u16) -> (Vec<u8>, Vec<u8>) {
        (wire::query(self, id), wire::response(self, id))
    }

    /// Returns the registrable domain by the suffixes in use here, or the whole name if it is shorter.
    #[must_use]
    pub fn domain(&self) -> String {
        let all: Vec<&[u8]> = labels(&self.name).collect();
        let is_two = universe::SUFFIXES_OF_TWO.iter().any(|suffix| {
            let suffix: Vec<&[u8]> = suffix.split('.').map(str::as_bytes).collect();
            all.ends_with(&suffix)
        });
        let count = if is_two { 3 } else { 2 };
        text_of(all[all.len().saturating_sub(count)..].iter().copied()).to_ascii_lowercase()
    }
}
