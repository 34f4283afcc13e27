//! Applies the privacy rules to addresses. Encoders call it for every address, and for every name
//! and option that may contain one, so that nothing else leaves the process. Pairing, attribution
//! and filters run before and see the true addresses.
//!
//! | rule | an address | a reverse name |
//! |---|---|---|
//! | keep | `192.0.2.77` | `77.2.0.192.in-addr.arpa` |
//! | truncate, 24 | `192.0.2.0` | `0.2.0.192.in-addr.arpa` |
//! | hash | `h:` and 32 hexadecimal digits | the same, and `.in-addr.arpa` |
//! | drop | empty | `in-addr.arpa` |
//!
//! - **Hash**: the first 128 bits of keyed BLAKE3 of the address's 4 or 16 octets; for an
//!   IPv4-mapped address (RFC 4291 §2.5.5.2) of the 4 octets of the IPv4 address. Equal addresses
//!   have equal pseudonyms under the same key: as client, as server and in a reverse name. Without
//!   the key, the 2³² IPv4 addresses cannot be tried. `printf '\xc0\x00\x02\x4d' > address; b3sum
//!   --keyed --length 16 address < key` prints that of 192.0.2.77.
//! - **Reverse names** are names in `in-addr.arpa` (RFC 1035 §3.5), `ip6.arpa` (RFC 3596 §2.5) and
//!   its predecessor `ip6.int`, including those of RFC 2317, and names with further labels after
//!   the zone, which search lists create. Other names that contain an address, such as those of
//!   block lists and of many providers' hosts, are not recognised.
//! - **UPDATE** requests (RFC 2136) contain the addresses of their senders. Unless the rule for
//!   clients is to keep, it applies to their A and AAAA records, and to reverse names that have no
//!   rule of their own; RDATA with only names and numbers stays; all other RDATA is withheld, as
//!   `\# 0`: hints of SVCB, prefixes of APL, text, bytes of unknown types. Addresses in answers are
//!   those of services and stay.
//! - **Texts of extended errors** (RFC 8914) are free-form, and often name a refused client or a
//!   failed server: they are hidden if any rule hides addresses; their code is not.
//! - **Name server identifiers** (RFC 5001) follow the rule for servers, since many servers send an
//!   address. They are shown if that rule is to keep.
//! - **Identifiers of exchanges** depend on addresses: see [`exchange`].
//! - **Ports** are kept.

pub mod config;
mod exchange;
mod key;
mod reverse;

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use tap53_dns::ClientSubnet;

use crate::{
    pair::Transaction,
    privacy::config::{AddressRule, PrefixLengths, Presence, PrivacyConfig, SubnetRule},
};
use exchange::ExchangeKey;

pub use exchange::ExchangeId;
pub use key::{Key, KeyError, Pseudonym};

/// Text of withheld RDATA (RFC 3597 §5).
const WITHHELD: &str = "\\# 0";

/// Option codes of EDNS with their own rule: name server identifier (RFC 5001), client subnet (RFC
/// 7871), cookie (RFC 7873) and extended error (RFC 8914).
const NSID: u16 = 3;
const CLIENT_SUBNET: u16 = 8;
const COOKIE: u16 = 10;
const EXTENDED_ERROR: u16 = 15;

/// The side of a transaction that an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Sender of the query.
    Client,
    /// Receiver of the query.
    Server,
}

/// The form of an address in records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShownAddress {
    /// The usual text of an address, which may be truncated.
    Address(IpAddr),
    /// `h:` and 32 hexadecimal digits.
    Pseudonym(Pseudonym),
    /// An empty text.
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

/// The privacy rules, as encoders apply them.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    config: PrivacyConfig,
    error_texts_hidden: bool,
    server_addresses_hidden: bool,
    reverse_names_hidden: bool,
    update_addresses_hidden: bool,
    exchange_key: ExchangeKey,
}

impl Policy {
    /// Creates a policy from checked rules.
    #[must_use]
    pub fn new(config: &PrivacyConfig) -> Self {
        Self {
            error_texts_hidden: config.hides_addresses(),
            server_addresses_hidden: config.server_address != AddressRule::Keep,
            reverse_names_hidden: config.reverse_names != AddressRule::Keep,
            update_addresses_hidden: config.client_address != AddressRule::Keep,
            exchange_key: ExchangeKey::of(config),
            config: config.clone(),
        }
    }

    /// Returns the shown form of the address of `side`.
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

    /// Returns the identifier of a transaction's exchange; `None` if there is no question, or if it
    /// would reveal what the rules hide.
    #[inline]
    #[must_use]
    pub fn exchange_id(&self, transaction: &Transaction<'_>) -> Option<ExchangeId> {
        self.exchange_key.id_of(transaction)
    }

    /// Returns true if addresses of `side` are shown, even if truncated.
    #[must_use]
    pub const fn shows_addresses(&self, side: Side) -> bool {
        let rule = match side {
            Side::Client => &self.config.client_address,
            Side::Server => &self.config.server_address,
        };
        matches!(rule, AddressRule::Keep | AddressRule::Truncate(_))
    }

    /// Returns the shown part of a client subnet; `None` if it is not shown.
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

    /// Returns true if cookies are shown.
    #[inline]
    #[must_use]
    pub fn shows_cookies(&self) -> bool {
        self.config.cookies == Presence::Keep
    }

    /// Returns the text of an extended error; `None` if it is not shown.
    #[inline]
    #[must_use]
    pub fn error_text<'a>(&self, text: &'a str) -> Option<&'a str> {
        (!self.error_texts_hidden).then_some(text)
    }

    /// Returns true if a name server identifier is shown. An empty one is a request and always
    /// shown.
    #[inline]
    #[must_use]
    pub const fn shows_nsid(&self, nsid: &[u8]) -> bool {
        nsid.is_empty() || !self.server_addresses_hidden
    }

    /// Returns true if the EDNS option `code` is shown in the list of options without their own
    /// field, which also contains malformed and repeated subnets and cookies.
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

    /// Returns the shown form of a question's name, or of an answer's owner. Derive other values,
    /// such as the registrable domain, from this one.
    #[inline]
    #[must_use]
    pub fn name<'a>(&self, name: &'a str) -> Cow<'a, str> {
        if !self.reverse_names_hidden {
            return Cow::Borrowed(name);
        }
        reverse::rewritten(&self.config.reverse_names, name).map_or(Cow::Borrowed(name), Cow::Owned)
    }

    /// Returns the shown form of an answer's RDATA.
    #[inline]
    #[must_use]
    pub fn answer_rdata<'a>(&self, rdata: &'a str) -> Cow<'a, str> {
        if !self.reverse_names_hidden {
            return Cow::Borrowed(rdata);
        }
        reverse::rewritten_rdata(&self.config.reverse_names, rdata)
            .map_or(Cow::Borrowed(rdata), Cow::Owned)
    }

    /// Returns the shown form of a record's owner in an UPDATE request.
    #[must_use]
    pub fn update_name<'a>(&self, name: &'a str) -> Cow<'a, str> {
        let rule = self.update_reverse_rule();
        reverse::rewritten(rule, name).map_or(Cow::Borrowed(name), Cow::Owned)
    }

    /// Returns the shown form of RDATA of type `rtype` in an UPDATE request.
    #[must_use]
    pub fn update_rdata<'a>(&self, rtype: u16, rdata: &'a str) -> Cow<'a, str> {
        /// A and AAAA.
        const ADDRESS_TYPES: [u16; 2] = [1, 28];
        /// NS, CNAME, SOA, PTR, MX, SRV and DNAME.
        const NAME_TYPES: [u16; 7] = [2, 5, 6, 12, 15, 33, 39];
        if !self.update_addresses_hidden {
            return self.answer_rdata(rdata);
        }
        // It is empty in a deletion (RFC 2136 §2.5.2).
        if rdata.is_empty() {
            return Cow::Borrowed(rdata);
        }
        match rdata.parse() {
            Ok(address) if ADDRESS_TYPES.contains(&rtype) => {
                Cow::Owned(self.address(Side::Client, address).to_string())
            }
            // Malformed RDATA may contain anything.
            _ if NAME_TYPES.contains(&rtype) && !rdata.starts_with("\\#") => {
                let rule = self.update_reverse_rule();
                reverse::rewritten_rdata(rule, rdata).map_or(Cow::Borrowed(rdata), Cow::Owned)
            }
            _ => Cow::Borrowed(WITHHELD),
        }
    }

    /// Returns the rule for reverse names in an UPDATE request, which are those of the sender.
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

/// Returns the first `length` bits of `address`.
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
