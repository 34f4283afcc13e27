//! What records show of addresses. Encoders ask here for every address, and for every name and
//! option that may hold one, so that nothing else leaves the process. Pairing, attribution and
//! filters see the true addresses: they come before.
//!
//! | rule | an address | a reverse name |
//! |---|---|---|
//! | keep | `192.0.2.77` | `77.2.0.192.in-addr.arpa` |
//! | truncate, 24 | `192.0.2.0` | `0.2.0.192.in-addr.arpa` |
//! | hash | `h:` and 32 hexadecimal digits | the same, and `.in-addr.arpa` |
//! | drop | empty | `in-addr.arpa` |
//!
//! - **Hash**: the first 128 bits of BLAKE3 under the key, of the address's 4 or 16 octets; of an
//!   IPv4-mapped address (RFC 4291 §2.5.5.2) the 4 of the IPv4 address. Equal addresses have equal
//!   pseudonyms wherever the key is the same: as client, as server and in a reverse name. Without
//!   the key, nobody can try the 2³² IPv4 addresses. `printf '\xc0\x00\x02\x4d' > address; b3sum
//!   --keyed --length 16 address < key` gives that of 192.0.2.77.
//! - **Reverse names** are names in `in-addr.arpa` (RFC 1035 §3.5), `ip6.arpa` (RFC 3596 §2.5) and
//!   its predecessor `ip6.int`, the unusual ones of RFC 2317 included, and such with other labels
//!   behind them, as search lists make them. Names elsewhere that contain an address, as those of block lists and of many providers' hosts do, are not recognised.
//! - **UPDATE** requests (RFC 2136) carry the addresses of those who send them. Where the rule for
//!   clients is not to keep, A and AAAA records in them follow it; so do reverse names, where there
//!   is no rule for these; RDATA that holds nothing but names and numbers stays; all other RDATA is
//!   withheld, as `\# 0`: hints of SVCB, prefixes of APL, text, bytes of unknown types. Addresses in
//!   answers are those of services and stay.
//! - **Texts of extended errors** (RFC 8914) say what servers like, often whom they refused, or which
//!   server failed: they are hidden where any rule hides addresses, their code is not.
//! - **Name server identifiers** (RFC 5001) follow the rule for servers: an address is what many
//!   servers send. They are shown where that is to keep.
//! - **Ports** stay.

pub mod config;
mod key;
mod reverse;

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use tap53_dns::ClientSubnet;

use crate::privacy::config::{AddressRule, PrefixLengths, Presence, PrivacyConfig, SubnetRule};

pub use key::{Key, KeyError, Pseudonym};

/// RDATA that is withheld (RFC 3597 §5).
const WITHHELD: &str = "\\# 0";

/// Option codes of EDNS that have a rule: name server identifier (RFC 5001), client subnet (RFC
/// 7871), cookie (RFC 7873) and extended error (RFC 8914).
const NSID: u16 = 3;
const CLIENT_SUBNET: u16 = 8;
const COOKIE: u16 = 10;
const EXTENDED_ERROR: u16 = 15;

/// Whose address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Sender of the query.
    Client,
    /// Receiver of the query.
    Server,
}

/// An address as records show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShownAddress {
    /// In its usual text; truncated, or as it is.
    Address(IpAddr),
    /// `h:` and 32 hexadecimal digits.
    Pseudonym(Pseudonym),
    /// Not at all: an empty text.
    Nothing,
}

impl fmt::Display for ShownAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Pseudonym(pseudonym) => f.write_str(pseudonym),
            Self::Nothing => Ok(()),
        }
    }
}

/// What encoders ask.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    config: PrivacyConfig,
    error_texts_hidden: bool,
    server_addresses_hidden: bool,
    reverse_names_hidden: bool,
    update_addresses_hidden: bool,
}

impl Policy {
    /// A policy of checked rules.
    #[must_use]
    pub fn new(config: &PrivacyConfig) -> Self {
        Self {
            error_texts_hidden: config.hides_addresses(),
            server_addresses_hidden: config.server_address != AddressRule::Keep,
            reverse_names_hidden: config.reverse_names != AddressRule::Keep,
            update_addresses_hidden: config.client_address != AddressRule::Keep,
            config: config.clone(),
        }
    }

    /// The address of `side`.
    #[inline]
    #[must_use]
    pub fn address(&self, side: Side, address: IpAddr) -> ShownAddress {
        shown(
            match side {
                Side::Client => &self.config.client_address,
                Side::Server => &self.config.server_address,
            },
            address,
        )
    }

    /// True if addresses of `side` are shown, though perhaps truncated.
    #[must_use]
    pub const fn shows_addresses(&self, side: Side) -> bool {
        let rule = match side {
            Side::Client => &self.config.client_address,
            Side::Server => &self.config.server_address,
        };
        matches!(rule, AddressRule::Keep | AddressRule::Truncate(_))
    }

    /// A client subnet; `None` if it is not shown.
    #[inline]
    #[must_use]
    pub fn client_subnet(&self, subnet: ClientSubnet) -> Option<ClientSubnet> {
        match self.config.client_subnet {
            SubnetRule::Keep => Some(subnet),
            SubnetRule::Truncate(lengths) => {
                let length = length_for(subnet.address, lengths).min(subnet.source_prefix);
                let address = truncate_to(subnet.address, length);
                Some(ClientSubnet { address, source_prefix: length, ..subnet })
            }
            SubnetRule::Drop => None,
        }
    }

    /// True if cookies are shown.
    #[inline]
    #[must_use]
    pub fn shows_cookies(&self) -> bool {
        self.config.cookies == Presence::Keep
    }

    /// The text of an extended error; `None` if it is not shown.
    #[inline]
    #[must_use]
    pub fn error_text<'a>(&self, text: &'a str) -> Option<&'a str> {
        (!self.error_texts_hidden).then_some(text)
    }

    /// True if a name server identifier is shown: an empty one asks for it.
    #[inline]
    #[must_use]
    pub const fn shows_nsid(&self, nsid: &[u8]) -> bool {
        nsid.is_empty() || !self.server_addresses_hidden
    }

    /// True if the EDNS option `code` is shown among those without a field of their own, where
    /// malformed and repeated subnets and cookies stand too.
    #[inline]
    #[must_use]
    pub fn shows_option(&self, code: u16) -> bool {
        match code {
            CLIENT_SUBNET => self.config.client_subnet == SubnetRule::Keep,
            COOKIE => self.shows_cookies(),
            EXTENDED_ERROR if self.error_texts_hidden => false,
            NSID if self.server_addresses_hidden => false,
            _ => self.config.other_options == Presence::Keep,
        }
    }

    /// A name: of a question, or the owner of a record. What is derived from a name, such as its
    /// registrable domain, is to be derived from this one.
    #[inline]
    #[must_use]
    pub fn name<'a>(&self, name: &'a str) -> Cow<'a, str> {
        if !self.reverse_names_hidden {
            return Cow::Borrowed(name);
        }
        reverse::rewritten(&self.config.reverse_names, name).map_or(Cow::Borrowed(name), Cow::Owned)
    }

    /// RDATA of an answer.
    #[inline]
    #[must_use]
    pub fn answer_rdata<'a>(&self, rdata: &'a str) -> Cow<'a, str> {
        if !self.reverse_names_hidden {
            return Cow::Borrowed(rdata);
        }
        reverse::rewritten_rdata(&self.config.reverse_names, rdata)
            .map_or(Cow::Borrowed(rdata), Cow::Owned)
    }

    /// The owner of a record in an UPDATE request.
    #[must_use]
    pub fn update_name<'a>(&self, name: &'a str) -> Cow<'a, str> {
        let rule = self.update_reverse_rule();
        reverse::rewritten(rule, name).map_or(Cow::Borrowed(name), Cow::Owned)
    }

    /// RDATA of a record of type `rtype` in an UPDATE request.
    #[must_use]
    pub fn update_rdata<'a>(&self, rtype: u16, rdata: &'a str) -> Cow<'a, str> {
        /// A and AAAA.
        const ADDRESS_TYPES: [u16; 2] = [1, 28];
        /// NS, CNAME, SOA, PTR, MX, SRV and DNAME.
        const NAME_TYPES: [u16; 7] = [2, 5, 6, 12, 15, 33, 39];
        if !self.update_addresses_hidden {
            return self.answer_rdata(rdata);
        }
        // As in a deletion (RFC 2136 §2.5.2).
        if rdata.is_empty() {
            return Cow::Borrowed(rdata);
        }
        match rdata.parse() {
            Ok(address) if ADDRESS_TYPES.contains(&rtype) => {
                Cow::Owned(self.address(Side::Client, address).to_string())
            }
            // RDATA of another form than its type's may hold anything.
            _ if NAME_TYPES.contains(&rtype) && !rdata.starts_with("\\#") => {
                let rule = self.update_reverse_rule();
                reverse::rewritten_rdata(rule, rdata).map_or(Cow::Borrowed(rdata), Cow::Owned)
            }
            _ => Cow::Borrowed(WITHHELD),
        }
    }

    /// The rule for reverse names in an UPDATE request: they are the sender's.
    fn update_reverse_rule(&self) -> &AddressRule {
        if self.reverse_names_hidden {
            &self.config.reverse_names
        } else {
            &self.config.client_address
        }
    }
}

#[inline]
fn shown(rule: &AddressRule, address: IpAddr) -> ShownAddress {
    match rule {
        AddressRule::Keep => ShownAddress::Address(address),
        AddressRule::Truncate(lengths) => ShownAddress::Address(truncate(address, *lengths)),
        AddressRule::Hash(hash) => ShownAddress::Pseudonym(hash.key.pseudonym_of_address(address)),
        AddressRule::Drop => ShownAddress::Nothing,
    }
}

fn truncate(address: IpAddr, lengths: PrefixLengths) -> IpAddr {
    truncate_to(address, length_for(address, lengths))
}

const fn length_for(address: IpAddr, lengths: PrefixLengths) -> u8 {
    match address {
        IpAddr::V4(_) => lengths.ipv4,
        IpAddr::V6(_) => lengths.ipv6,
    }
}

/// The first `length` bits of `address`.
fn truncate_to(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let hidden = u32::MAX.checked_shr(length.into()).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & !hidden).into()
        }
        IpAddr::V6(address) => {
            let hidden = u128::MAX.checked_shr(length.into()).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & !hidden).into()
        }
    }
}

#[cfg(test)]
mod tests;
