//! Values that many records share, encoded once: the owner of an address, and the observer.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hasher as _},
    num::NonZeroU64,
    sync::{Arc, OnceLock},
};

use data_encoding::HEXLOWER;
use tap53_transactions::pair::RecordIds;

use super::{
    Profile, SCHEMA_VERSION,
    array::Labels,
    binary::{Binary, Buffer, Encodable, encoded as encoded_fields},
    fields::Fields,
    flat::FlatIdentity,
    symbol::Symbol,
};

/// The kind of owner that an address has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attribution {
    /// No attribution is configured.
    #[default]
    Unattributed,
    /// One pod.
    Pod,
    /// The address of a node, which shares it with its pods in the host network.
    AmbiguousHostNetwork,
    /// The address of a node without known pods in its network.
    Node,
    /// The cluster address of a service.
    Service,
    /// An address of the cluster or a private one, without a known owner.
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

/// The known data of an address's owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Kind of the owner.
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
    /// The configured labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Node of the pod, or node that owns the address.
    pub node_name: Option<String>,
    /// Service name.
    pub service_name: Option<String>,
    /// Service namespace.
    pub service_namespace: Option<String>,
}

/// The owner of an address when the transaction began. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The encoded fields of either side, of which only the names differ. They are stored apart
    /// from the identity, so that an Avro record is written without reading it: with many owners
    /// nearly every read is one of cold memory.
    ///
    /// The last octets are the tags of its workload and namespace, and the [`NodeTag`] of its node, or
    /// zero, for the same reason.
    encoded: Arc<[u8]>,
    known: Arc<KnownOwner>,
}

/// Stands for the name of a node within this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeTag(NonZeroU64);

/// Size of a tag in octets.
const TAG: usize = size_of::<NodeTag>();

/// Size of all tags of an owner in octets.
const TAGS: usize = 3 * TAG;

impl NodeTag {
    /// Returns the tag of the node with this name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let mut hash = DefaultHasher::new();
        hash.write(name.as_bytes());
        Self(NonZeroU64::MIN.saturating_add(hash.finish()))
    }
}

/// An identity, and its fields in the flat profile once they are needed: most agents never need
/// them.
#[derive(Debug)]
struct KnownOwner {
    flat: OnceLock<Box<[u8]>>,
    identity: Identity,
}

impl PartialEq for KnownOwner {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

impl Eq for KnownOwner {}

impl Owner {
    /// Maximum size of its fields in bytes. With the rules of Kubernetes for names and labels, and
    /// the maximum of 32 labels, there are some 14,000.
    pub const MAX_BYTES: usize = 16 * 1_024;

    /// Creates the owner with this identity. If it violates those rules, its names are shortened
    /// and its labels dropped, so that every record has room for it.
    #[must_use]
    pub fn new(mut identity: Identity) -> Self {
        identity.shorten_names();
        let mut encoded = encoded_fields(&identity);
        if encoded.len() + TAGS > Self::MAX_BYTES {
            identity.labels = None;
            encoded = encoded_fields(&identity);
        }
        let node = identity.node_name.as_deref().map_or(0, |name| NodeTag::of(name).0.get());
        let workload = identity.workload();
        for tag in [workload.tag(), workload.namespace_tag(), node] {
            encoded.extend_from_slice(&tag.to_ne_bytes());
        }
        let known = KnownOwner { flat: OnceLock::new(), identity };
        Self { encoded: encoded.into(), known: Arc::new(known) }
    }

    /// Returns the known data.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.known.identity
    }

    /// Returns true if it is on this node, false if it is elsewhere; `None` if that is not known.
    #[inline]
    #[must_use]
    pub fn is_on(&self, node: NodeTag) -> Option<bool> {
        if self.is_of(&[Attribution::External]) {
            return Some(false);
        }
        let own = NonZeroU64::new(u64::from_ne_bytes(*self.encoded.last_chunk()?))?;
        Some(NodeTag(own) == node)
    }

    /// Returns true if it is a pod.
    #[inline]
    #[must_use]
    pub fn is_pod(&self) -> bool {
        self.is_of(&[Attribution::Pod])
    }

    /// Returns true if it is a pod or a node.
    #[inline]
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.is_of(&[Attribution::Pod, Attribution::Node, Attribution::AmbiguousHostNetwork])
    }

    /// Returns true if it has a workload: it is a pod or a service.
    #[inline]
    #[must_use]
    pub fn is_workload(&self) -> bool {
        self.is_of(&[Attribution::Pod, Attribution::Service])
    }

    /// Returns the tag of its [`Workload`](super::Workload): equal for equal ones within this process, and
    /// never 0.
    #[inline]
    #[must_use]
    pub fn workload_tag(&self) -> u64 {
        self.tag(0)
    }

    /// Returns the tag of its namespace, or of its workload if it has no namespace; never 0.
    #[inline]
    #[must_use]
    pub fn namespace_tag(&self) -> u64 {
        self.tag(1)
    }

    #[inline]
    fn tag(&self, number: usize) -> u64 {
        let tags = self.encoded.last_chunk::<TAGS>();
        let tag = tags.and_then(|tags| tags[number * TAG..].first_chunk());
        tag.map_or(0, |tag| u64::from_ne_bytes(*tag))
    }

    /// Returns true if it is of one of these kinds: its first field in Avro.
    #[inline]
    fn is_of(&self, kinds: &[Attribution]) -> bool {
        let first = self.encoded.first();
        kinds.iter().any(|kind| first == Some(&((*kind as u8) << 1)))
    }

    /// Returns its fields in Avro.
    #[inline(always)]
    pub fn encoded(&self, profile: Profile) -> &[u8] {
        match profile {
            Profile::Full => &self.encoded[..self.encoded.len() - TAGS],
            Profile::Flat => self.known.flat.get_or_init(|| {
                encoded_fields(&FlatIdentity(&self.known.identity)).into_boxed_slice()
            }),
        }
    }

    /// Passes the fields of one side to `f`.
    #[inline(always)]
    pub(super) fn fields<F: Fields>(&self, f: &mut F, names: &OwnerNames) -> Result<(), F::Error> {
        if f.accept_encoded(self.encoded(F::PROFILE)) {
            return Ok(());
        }
        self.known.identity.fields(f, names)
    }
}

impl Default for Owner {
    /// Returns the owner without known data.
    fn default() -> Self {
        Self::new(Identity::default())
    }
}

/// The kind of evidence for an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerSource {
    /// By the address.
    Address,
    /// By the cgroup of the socket that sent the packet.
    Socket,
}

impl OwnerSource {
    pub(super) const fn symbol(self) -> &'static str {
        match self {
            Self::Address => "ADDRESS",
            Self::Socket => "SOCKET",
        }
    }
}

/// A process that sent a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process<'a> {
    /// Its number in the first PID namespace of the machine.
    pub pid: u32,
    /// Name of its thread.
    pub command: &'a str,
}

/// The evidence for the owner of one end, and the container, user and process of its socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Provenance<'a> {
    /// Kind of evidence; `None` if attribution is off.
    pub source: Option<OwnerSource>,
    /// True if the address is another pod's than the socket.
    pub conflict: bool,
    /// Identifier of the container, as its runtime has it.
    pub container_id: Option<&'a str>,
    /// Name of the container in its pod.
    pub container_name: Option<&'a str>,
    /// User of the socket.
    pub user_id: Option<u32>,
    /// Process that uses the socket; of a client only.
    pub process: Option<Process<'a>>,
}

/// Names of the fields that tell the provenance of one side.
pub(super) type ProvenanceNames = [&'static str; 5];

pub(super) const CLIENT_PROVENANCE: ProvenanceNames = [
    "client_attribution_source",
    "client_attribution_conflict",
    "client_container_id",
    "client_container_name",
    "client_user_id",
];

pub(super) const SERVER_PROVENANCE: ProvenanceNames = [
    "server_attribution_source",
    "server_attribution_conflict",
    "server_container_id",
    "server_container_name",
    "server_user_id",
];

impl Provenance<'_> {
    /// Hands the fields of one side to `f`.
    #[inline(always)]
    pub(super) fn fields<F: Fields>(
        &self,
        f: &mut F,
        names: &ProvenanceNames,
    ) -> Result<(), F::Error> {
        f.field(names[0], self.source.map(Symbol::of_owner_source))?;
        f.field(names[1], self.conflict)?;
        f.field(names[2], self.container_id.map(shortened))?;
        f.field(names[3], self.container_name.map(shortened))?;
        f.field(names[4], self.user_id.map(i64::from))
    }

    /// Hands the fields of the client's process to `f`.
    #[inline(always)]
    pub(super) fn process_fields<F: Fields>(&self, f: &mut F) -> Result<(), F::Error> {
        f.field("client_pid", self.process.map(|process| i64::from(process.pid)))?;
        f.field("client_command", self.process.map(|process| process.command))
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

/// Maximum size of a name in bytes (RFC 1123 in Kubernetes; interfaces of Linux have 15).
const MAX_NAME: usize = 253;

/// Shortens a name that exceeds the maximum.
fn shortened(name: &str) -> &str {
    let end = (0..=MAX_NAME.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
    name.get(..end.unwrap_or(0)).unwrap_or_default()
}

impl Identity {
    /// Shortens all names that exceed the maximum.
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

impl Encodable for Identity {
    fn write<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        let Ok(()) = self.fields(out, &CLIENT);
    }
}

/// The observer: a worker of a run on a node, at one of its interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observer {
    node: String,
    interface: String,
    run_id: String,
    worker: u16,
    encoded: Vec<u8>,
}

impl Observer {
    /// Creates an observer with the names of node and interface, and the worker of `ids`. A capture
    /// file may contain an interface name of any length, which is shortened.
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

    /// Returns the name of the node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Returns the name of the interface.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Passes the schema's version, the names and the worker's identifiers to `f`.
    #[inline(always)]
    pub(super) fn fields<F: Fields>(&self, f: &mut F) -> Result<(), F::Error> {
        // Both profiles have the same fields.
        if f.accept_encoded(&self.encoded) { Ok(()) } else { self.each(f) }
    }

    fn each<F: Fields>(&self, f: &mut F) -> Result<(), F::Error> {
        f.field("schema_version", SCHEMA_VERSION)?;
        f.field("node", self.node.as_str())?;
        f.field("interface", self.interface.as_str())?;
        f.field("run_id", self.run_id.as_str())?;
        f.field("worker", self.worker)
    }
}

impl Encodable for Observer {
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
