//! What a record is keyed by, where a sink has keys: records of one key stay together and in order.

use clap::ValueEnum;
use serde::Serialize;

use super::{Record, address::AddressText, domain::registrable_domain};
use crate::privacy::Side;

/// What a record is keyed by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Key {
    /// Nothing: records are spread evenly.
    #[default]
    None,
    /// The client's address, as far as the record shows it.
    ClientAddress,
    /// The client's pod, by its UID; the client's address where no pod is known.
    ClientPod,
    /// The part of the name that can be registered; the whole name where there is none.
    RegistrableDomain,
}

impl Record<'_> {
    /// Appends the key; nothing where there is none. It says no more than the record shows.
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
