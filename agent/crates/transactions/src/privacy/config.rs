//! The `privacy` section: what records show of addresses.

use std::path::PathBuf;

use clap::ValueEnum;
use serde::Serialize;
use tap53_base::settings::{Machine, Section, choice, text, whole_number};

use super::Key;

/// Configures what records show of addresses; [`crate::privacy`] describes each rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PrivacyConfig {
    /// Rule for the sender of the query, and for the addresses and texts in records of an UPDATE
    /// request.
    pub client_address: AddressRule,
    /// Rule for the receiver of the query.
    pub server_address: AddressRule,
    /// Rule for names under `in-addr.arpa` and `ip6.arpa` in any field.
    pub reverse_names: AddressRule,
    /// Rule for EDNS Client Subnet (RFC 7871).
    pub client_subnet: SubnetRule,
    /// Rule for DNS cookies (RFC 7873).
    pub cookies: Presence,
    /// Rule for EDNS options without their own field: some contain addresses of the client's
    /// network.
    pub other_options: Presence,
}

/// The rule for an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressRule {
    /// Records contain it.
    Keep,
    /// Bits after these prefixes are zero.
    Truncate(PrefixLengths),
    /// A keyed pseudonym replaces it.
    Hash(KeyFile),
    /// Records do not contain it.
    Drop,
}

/// The rule for a client subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SubnetRule {
    /// Records contain it.
    Keep,
    /// Records contain it up to these prefixes.
    Truncate(PrefixLengths),
    /// Records do not contain it.
    Drop,
}

/// The rule for a field that can only be kept or dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// Records contain it.
    Keep,
    /// Records do not contain it.
    Drop,
}

/// Number of bits of an address that are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PrefixLengths {
    /// 0 to 32.
    pub ipv4: u8,
    /// 0 to 128.
    pub ipv6: u8,
}

/// A key, and the path that it was read from. Only the path is ever written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyFile {
    /// Path of the file.
    pub key_file: PathBuf,
    /// Content of the file when the configuration was read.
    #[serde(skip)]
    pub key: Key,
}

impl Default for PrefixLengths {
    /// The maximum that RFC 7871 §11.1 recommends to resolvers.
    fn default() -> Self {
        Self { ipv4: 24, ipv6: 56 }
    }
}

impl Default for PrivacyConfig {
    fn default() -> Self {
        Self {
            client_address: AddressRule::Keep,
            server_address: AddressRule::Keep,
            reverse_names: AddressRule::Keep,
            client_subnet: SubnetRule::Keep,
            cookies: Presence::Keep,
            other_options: Presence::Keep,
        }
    }
}

impl PrivacyConfig {
    /// Returns true if records contain everything.
    #[must_use]
    pub fn keeps_everything(&self) -> bool {
        *self == Self::default()
    }

    /// Returns true if any rule hides addresses.
    #[must_use]
    pub fn hides_addresses(&self) -> bool {
        let keep = &AddressRule::Keep;
        [&self.client_address, &self.server_address, &self.reverse_names] != [keep; 3]
            || self.client_subnet != SubnetRule::Keep
    }

    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        let mut address = |key| address_rule(section, key).unwrap_or(AddressRule::Keep);
        let client_address = address("client_address");
        let server_address = address("server_address");
        let reverse_names = address("reverse_names");
        // Fields that identify the client follow its address, unless they are configured: a
        // forgotten key must not undo the configured one.
        let (subnet, presence) = match client_address {
            AddressRule::Keep => (SubnetRule::Keep, Presence::Keep),
            _ => (SubnetRule::Drop, Presence::Drop),
        };
        Self {
            client_address,
            server_address,
            reverse_names,
            client_subnet: subnet_rule(section, "client_subnet").unwrap_or(subnet),
            cookies: section.read("cookies", choice).unwrap_or(presence),
            other_options: section.read("other_options", choice).unwrap_or(presence),
        }
    }
}

/// The rules for an address, as keys and as texts.
#[derive(Clone, Copy, ValueEnum)]
enum RuleName {
    Keep,
    Truncate,
    Hash,
    Drop,
}

fn address_rule(section: &mut Section<'_>, key: &str) -> Option<AddressRule> {
    if !section.has_section(key) {
        return match section.read(key, choice)? {
            RuleName::Keep => Some(AddressRule::Keep),
            RuleName::Truncate => Some(AddressRule::Truncate(PrefixLengths::default())),
            RuleName::Hash => {
                section.refuse(key, None, "needs a key: write {hash: {key_file: PATH}}");
                None
            }
            RuleName::Drop => Some(AddressRule::Drop),
        };
    }
    section.section(key, |section| match (section.has("truncate"), section.has("hash")) {
        (true, false) => Some(AddressRule::Truncate(prefix_lengths(section))),
        (false, true) => section.section("hash", key_file).map(AddressRule::Hash),
        _ => {
            section.skip_rest();
            section.refuse_all("must be keep, drop, or one of truncate and hash");
            None
        }
    })
}

fn subnet_rule(section: &mut Section<'_>, key: &str) -> Option<SubnetRule> {
    /// The rules for a subnet: as above, without a hash, since a subnet is not an address.
    #[derive(Clone, Copy, ValueEnum)]
    enum Name {
        Keep,
        Truncate,
        Drop,
    }
    if !section.has_section(key) {
        return section.read(key, choice).map(|name| match name {
            Name::Keep => SubnetRule::Keep,
            Name::Truncate => SubnetRule::Truncate(PrefixLengths::default()),
            Name::Drop => SubnetRule::Drop,
        });
    }
    section.section(key, |section| {
        if section.has("truncate") {
            return Some(SubnetRule::Truncate(prefix_lengths(section)));
        }
        section.skip_rest();
        section.refuse_all("must be keep, drop or truncate");
        None
    })
}

fn prefix_lengths(section: &mut Section<'_>) -> PrefixLengths {
    let usual = PrefixLengths::default();
    section.section("truncate", |section| PrefixLengths {
        ipv4: section.read("ipv4", whole_number(0..=32)).unwrap_or(usual.ipv4),
        ipv6: section.read("ipv6", whole_number(0..=128)).unwrap_or(usual.ipv6),
    })
}

fn key_file(section: &mut Section<'_>) -> Option<KeyFile> {
    let machine = section.machine();
    section.require(
        "key_file",
        text(|path| {
            let key_file = PathBuf::from(path);
            let key = match machine {
                Machine::Agent => Key::read(&key_file).map_err(|error| error.to_string())?,
                Machine::Other => Key::placeholder(),
            };
            Ok(KeyFile { key_file, key })
        }),
    )
}
