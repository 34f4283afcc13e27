//! Keys of records: records with the same key stay together and in order.

use clap::ValueEnum;
use serde::Serialize;
use tap53_dns::domain::registrable_domain;
use tap53_transactions::privacy::Side;

use super::{Record, address::AddressText};

/// The field that records are keyed by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Key {
    /// No key: records are spread evenly.
    #[default]
    None,
    /// The client's address, as shown in the record.
    ClientAddress,
    /// The UID of the client's pod, or the client's address if no pod is known.
    ClientPod,
    /// The registrable domain of the name, or the whole name if there is none.
    RegistrableDomain,
}

impl Record<'_> {
    /// Appends the key, if there is one. It reveals no more than the record.
    pub(super) fn push_key(&self, key: Key, out: &mut Vec<u8>) {
        match key {
            Key::None => {}
            Key::ClientAddress => self.push_client_address(out),
            Key::ClientPod => match &self.client.identity().pod_uid {
                Some(uid) => out.extend_from_slice(uid.as_bytes()),
                None => self.push_client_address(out),
            },
            Key::RegistrableDomain => {
                let Some(question) = self.transaction.first().message.question() else { return };
                let name = self.policy.name(question.name);
                let domain = registrable_domain(&name).unwrap_or(&name);
                out.extend_from_slice(domain.as_bytes());
            }
        }
    }

    fn push_client_address(&self, out: &mut Vec<u8>) {
        let address = self.policy.address(Side::Client, self.transaction.flow.client.ip());
        out.extend_from_slice(AddressText::shown(&address).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::{Batch, Datum, samples};
    use tap53_transactions::{
        privacy::Policy,
        privacy::config::{AddressRule, PrefixLengths, PrivacyConfig},
    };

    /// Returns the keys of the samples, in the order of their names.
    fn keys(key: Key, policy: &Policy) -> Vec<String> {
        let (mut batch, mut datum) = (Batch::keyed(key), Datum::default());
        for name in samples::NAMES {
            samples::with_record(name, |record| {
                batch.push(&mut datum, &Record { policy, ..*record }).unwrap();
            });
        }
        let keys = batch.iter_keyed().map(|(key, _, _)| String::from_utf8(key.to_vec()).unwrap());
        let keys = keys.collect();
        batch.clear();
        assert_eq!(batch.iter_keyed().count(), 0);
        keys
    }

    #[test]
    fn keys_equal_the_fields_of_the_record() {
        let hidden = AddressRule::Truncate(PrefixLengths::default());
        for client_address in [AddressRule::Keep, hidden, AddressRule::Drop] {
            let config = PrivacyConfig { client_address, ..PrivacyConfig::default() };
            require_keys_as_shown(&Policy::new(&config));
        }
    }

    fn require_keys_as_shown(policy: &Policy) {
        let mut shown = Vec::new();
        for name in samples::NAMES {
            samples::with_record(name, |record| {
                let json = serde_json::to_value(Record { policy, ..*record }).unwrap();
                let text = |field: &str| json[field].as_str().map(str::to_owned);
                let address = text("client_address").unwrap_or_default();
                let name = text("qname_registrable_domain").or(text("qname")).unwrap_or_default();
                shown.push((text("client_pod_uid").unwrap_or(address.clone()), address, name));
            });
        }
        assert!(shown.iter().any(|(_, _, name)| !name.is_empty()));
        assert_eq!(keys(Key::None, policy), vec![String::new(); shown.len()]);
        let column = |of: fn(&(String, String, String)) -> &String| -> Vec<String> {
            shown.iter().map(|row| of(row).clone()).collect()
        };
        assert_eq!(keys(Key::ClientPod, policy), column(|row| &row.0));
        assert_eq!(keys(Key::ClientAddress, policy), column(|row| &row.1));
        assert_eq!(keys(Key::RegistrableDomain, policy), column(|row| &row.2));
    }
}
