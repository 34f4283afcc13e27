//! What is the same in many records, encoded once: who owns an address, and who observes.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use data_encoding::HEXLOWER;
use tap53_transactions::pair::RecordIds;

use super::{
    Profile, SCHEMA_VERSION,
    binary::{Binary, Buffer, Written, encoded as encoded_fields},
    fields::Fields,
    flat::FlatIdentity,
    value::{Labels, Symbol},
};

/// What an address names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attribution {
    /// Nobody was asked.
    #[default]
    Unattributed,
    /// One pod.
    Pod,
    /// A node's address, which the node shares with its pods in the host network.
    AmbiguousHostNetwork,
    /// A node's address, without such pods known.
    Node,
    /// The cluster address of a service.
    Service,
    /// An address of the cluster or a private one, of which nobody is known.
    Unknown,
    /// Any other address.
    External,
}

impl Attribution {
    pub(super) const fn symbol(self) -> &'static str {
        match self {
            Self::Unattributed => "UNATTRIBUTED",
            Self::Pod => "POD",
            Self::AmbiguousHostNetwork => "AMBIGUOUS_HOST_NETWORK",
            Self::Node => "NODE",
            Self::Service => "SERVICE",
            Self::Unknown => "UNKNOWN",
            Self::External => "EXTERNAL",
        }
    }
}

/// What is known of an address's owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// What the address names.
    pub attribution: Attribution,
    /// Pod UID.
    pub pod_uid: Option<String>,
    /// Pod name.
    pub pod_name: Option<String>,
    /// Pod namespace.
    pub pod_namespace: Option<String>,
    /// Deployment, StatefulSet, DaemonSet, Job or CronJob.
    pub workload_kind: Option<String>,
    /// Name of that workload.
    pub workload_name: Option<String>,
    /// The labels that the configuration chose.
    pub labels: Option<BTreeMap<String, String>>,
    /// Node that the pod runs on, or whose address it is.
    pub node_name: Option<String>,
    /// Service name.
    pub service_name: Option<String>,
    /// Service namespace.
    pub service_namespace: Option<String>,
}

/// Who owned an address when the transaction began. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The fields of either side: only their names differ. Apart from the identity, so that an Avro
    /// record is written without a look at that: of many owners nearly every look is one at cold
    /// memory.
    encoded: Arc<[u8]>,
    known: Arc<Known>,
}

/// An identity, and its fields in the flat profile once they are needed: most agents never do.
#[derive(Debug)]
struct Known {
    flat: OnceLock<Box<[u8]>>,
    identity: Identity,
}

impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

impl Eq for Known {}

impl Owner {
    /// Bytes of its fields at most. By the rules of Kubernetes for names and labels, and with the
    /// 32 labels that can be chosen, there are some 14,000.
    pub const MAX_BYTES: usize = 16 * 1_024;

    /// The owner with this identity; with the beginnings of its names, and without labels, where
    /// they break those rules, so that every record has room for it.
    #[must_use]
    pub fn new(mut identity: Identity) -> Self {
        identity.shorten_names();
        let mut encoded = encoded_fields(&identity);
        if encoded.len() > Self::MAX_BYTES {
            identity.labels = None;
            encoded = encoded_fields(&identity);
        }
        let known = Known { flat: OnceLock::new(), identity };
        Self { encoded: encoded.into(), known: Arc::new(known) }
    }

    /// What is known of it.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.known.identity
    }

    /// Its fields in Avro.
    #[inline(always)]
    pub fn encoded(&self, profile: Profile) -> &[u8] {
        match profile {
            Profile::Full => &self.encoded,
            Profile::Flat => self.known.flat.get_or_init(|| {
                encoded_fields(&FlatIdentity(&self.known.identity)).into_boxed_slice()
            }),
        }
    }

    /// Hands the fields of one side to `f`.
    #[inline(always)]
    pub(super) fn fields<F: Fields>(&self, f: &mut F, names: &OwnerNames) -> Result<(), F::Error> {
        if f.known(self.encoded(F::PROFILE)) {
            return Ok(());
        }
        self.known.identity.fields(f, names)
    }
}

impl Default for Owner {
    /// Nobody known.
    fn default() -> Self {
        Self::new(Identity::default())
    }
}

/// Names of the fields of one side.
pub(super) type OwnerNames = [&'static str; 10];

pub(super) const CLIENT: OwnerNames = [
    "client_attribution",
    "client_pod_uid",
    "client_pod_name",
    "client_pod_namespace",
    "client_workload_kind",
    "client_workload_name",
    "client_labels",
    "client_node_name",
    "client_service_name",
    "client_service_namespace",
];

pub(super) const SERVER: OwnerNames = [
    "server_attribution",
    "server_pod_uid",
    "server_pod_name",
    "server_pod_namespace",
    "server_workload_kind",
    "server_workload_name",
    "server_labels",
    "server_node_name",
    "server_service_name",
    "server_service_namespace",
];

/// Bytes of a name at most (RFC 1123 as Kubernetes has it; interfaces of Linux have 15).
const LONGEST_NAME: usize = 253;

/// The beginning of a name that is longer than any can be.
fn shortened(name: &str) -> &str {
    let end = (0..=LONGEST_NAME.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
    name.get(..end.unwrap_or(0)).unwrap_or_default()
}

impl Identity {
    /// No name is longer than any can be.
    fn shorten_names(&mut self) {
        let names = [
            &mut self.pod_uid,
            &mut self.pod_name,
            &mut self.pod_namespace,
            &mut self.workload_kind,
            &mut self.workload_name,
            &mut self.node_name,
            &mut self.service_name,
            &mut self.service_namespace,
        ];
        for name in names.into_iter().flatten() {
            name.truncate(shortened(name).len());
        }
    }

    pub(super) fn fields<F: Fields>(&self, f: &mut F, names: &OwnerNames) -> Result<(), F::Error> {
        f.field(names[0], Symbol::of_attribution(self.attribution))?;
        f.field(names[1], self.pod_uid.as_deref())?;
        f.field(names[2], self.pod_name.as_deref())?;
        f.field(names[3], self.pod_namespace.as_deref())?;
        f.field(names[4], self.workload_kind.as_deref())?;
        f.field(names[5], self.workload_name.as_deref())?;
        f.field(names[6], self.labels.as_ref().map(Labels))?;
        f.field(names[7], self.node_name.as_deref())?;
        f.field(names[8], self.service_name.as_deref())?;
        f.field(names[9], self.service_namespace.as_deref())
    }
}

impl Written for Identity {
    fn write<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        let Ok(()) = self.fields(out, &CLIENT);
    }
}

/// Who observes: a worker of a run on a node, at one of its interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observer {
    node: String,
    interface: String,
    run_id: String,
    worker: u16,
    encoded: Vec<u8>,
}

impl Observer {
    /// The node and interface with these names, and the worker that `ids` are of. A name that a
    /// capture file gives an interface may be of any length: its beginning is taken.
    #[must_use]
    pub fn new(node: &str, interface: &str, ids: RecordIds) -> Self {
        let mut observer = Self {
            node: shortened(node).to_owned(),
            interface: shortened(interface).to_owned(),
            run_id: HEXLOWER.encode(&ids.run()),
            worker: ids.worker(),
            encoded: Vec::new(),
        };
        observer.encoded = encoded_fields(&observer);
        observer
    }

    /// Name of the interface.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Hands the schema's version, the names and whose numbers the record has to `f`.
    #[inline(always)]
    pub(super) fn fields<F: Fields>(&self, f: &mut F) -> Result<(), F::Error> {
        // The same in either profile.
        if f.known(&self.encoded) { Ok(()) } else { self.each(f) }
    }

    fn each<F: Fields>(&self, f: &mut F) -> Result<(), F::Error> {
        f.field("schema_version", SCHEMA_VERSION)?;
        f.field("node", self.node.as_str())?;
        f.field("interface", self.interface.as_str())?;
        f.field("run_id", self.run_id.as_str())?;
        f.field("worker", self.worker)
    }
}

impl Written for Observer {
    fn write<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        let Ok(()) = self.each(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_of_endless_names_is_shortened_and_one_of_allowed_ones_is_whole() {
        let longest = |length: usize| Some("é".repeat(length / 2));
        let labels = |value: usize| {
            let label = |number: usize| (format!("{number:0317}"), "v".repeat(value));
            Some((0..32).map(label).collect())
        };
        let identity = |name, value| Identity {
            attribution: Attribution::Pod,
            pod_uid: longest(name),
            pod_name: longest(name),
            pod_namespace: longest(name),
            workload_kind: longest(name),
            workload_name: longest(name),
            labels: labels(value),
            node_name: longest(name),
            service_name: longest(name),
            service_namespace: longest(name),
        };
        let allowed = Owner::new(identity(253, 63));
        assert_eq!(*allowed.identity(), identity(253, 63));
        let endless = Owner::new(identity(1 << 20, 1 << 20));
        assert!(endless.encoded(Profile::Full).len() < Owner::MAX_BYTES);
        assert_eq!(endless.identity().pod_name.as_ref().map(String::len), Some(252));
        assert_eq!(endless.identity().labels, None);
    }
}
