//! The `privacy` section: what records show of addresses.

use std::path::PathBuf;

use clap::ValueEnum;
use serde::Serialize;
use tap53_base::settings::{Section, choice, text, whole_number};

use super::Key;

/// What records show of addresses; what each rule does stands in [`crate::privacy`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PrivacyConfig {
    /// Sender of the query; also the addresses and texts of records that an UPDATE request carries.
    pub client_address: AddressRule,
    /// Receiver of the query.
    pub server_address: AddressRule,
    /// Names under `in-addr.arpa` and `ip6.arpa`, wherever they stand.
    pub reverse_names: AddressRule,
    /// EDNS Client Subnet (RFC 7871).
    pub client_subnet: SubnetRule,
    /// DNS cookies (RFC 7873).
    pub cookies: Presence,
    /// EDNS options without a field of their own: some carry addresses of the client's network.
    pub other_options: Presence,
}

/// What becomes of an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressRule {
    /// It is shown.
    Keep,
    /// Bits behind these prefixes are zero.
    Truncate(PrefixLengths),
    /// A pseudonym under a key.
    Hash(KeyFile),
    /// It is not shown.
    Drop,
}

/// What becomes of a client subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SubnetRule {
    /// It is shown.
    Keep,
    /// Shown up to these prefixes.
    Truncate(PrefixLengths),
    /// It is not shown.
    Drop,
}

/// Whether something is in records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// It is.
    Keep,
    /// It is not.
    Drop,
}

/// Bits of an address that are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PrefixLengths {
    /// 0 to 32.
    pub ipv4: u8,
    /// 0 to 128.
    pub ipv6: u8,
}

/// A key and where it was read from. Only the place is ever written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyFile {
    /// The file.
    pub key_file: PathBuf,
    /// What it held when the configuration was read.
    #[serde(skip)]
    pub key: Key,
}

impl Default for PrefixLengths {
    /// What RFC 7871 §11.1 asks resolvers to send at most.
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
    /// True if records show everything.
    #[must_use]
    pub fn keeps_everything(&self) -> bool {
        *self == Self::default()
    }

    /// True if a rule hides addresses, in whatever place.
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
        // What identifies the client goes with its address, unless it is asked for: a key that was
        // forgotten must not undo the one that was set.
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

/// The rules that an address may have, as keys and as texts.
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
    /// As above, without a hash: a subnet is not an address.
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
    section.require(
        "key_file",
        text(|path| {
            let key_file = PathBuf::from(path);
            let key = Key::read(&key_file).map_err(|error| error.to_string())?;
            Ok(KeyFile { key_file, key })
        }),
    )
}
