//! What the workers share: which series there are, and the labels of clients and servers.

use std::{
    hash::BuildHasher,
    net::{IpAddr, Ipv4Addr},
};

use hashbrown::DefaultHashBuilder;
use tap53_records::encode::{Attribution, Identity, Record};
use tap53_transactions::privacy::{Policy, Side};

use crate::{
    admission::Admission,
    config::{ClientLabel, DnsMetricsConfig},
    key::{Ends, OTHER, OTHER_TAG, SeriesKey},
};

/// Maximum number of servers with a label of their own. A resolver queries thousands of servers, which must
/// not take the room of everything else.
pub(crate) const MAX_SERVERS: usize = 64;

/// Lines of a histogram of one pair: its buckets, sum and count.
const SERIES_PER_PAIR: usize = 16;

/// Labels of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientLabels {
    pub(crate) namespace: Box<str>,
    pub(crate) workload: Box<str>,
    pub(crate) kind: Option<WorkloadKind>,
}

/// Kind of a client's workload, as far as other systems have a name of their own for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WorkloadKind {
    /// `CronJob`.
    CronJob,
    /// `DaemonSet`.
    DaemonSet,
    /// `Deployment`.
    Deployment,
    /// `Job`.
    Job,
    /// `Pod`, where it has no workload.
    Pod,
    /// `ReplicaSet`.
    ReplicaSet,
    /// `StatefulSet`.
    StatefulSet,
}

impl WorkloadKind {
    fn of(identity: &Identity) -> Option<Self> {
        if identity.attribution != Attribution::Pod {
            return None;
        }
        Some(match identity.workload_kind.as_deref() {
            None => Self::Pod,
            Some("CronJob") => Self::CronJob,
            Some("DaemonSet") => Self::DaemonSet,
            Some("Deployment") => Self::Deployment,
            Some("Job") => Self::Job,
            Some("ReplicaSet") => Self::ReplicaSet,
            Some("StatefulSet") => Self::StatefulSet,
            Some(_) => return None,
        })
    }
}

/// A server, which is shown by its name or, under the privacy rules, by its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// Namespace and name of a workload or service.
    Named(Box<str>),
    Address(IpAddr),
}

impl Server {
    /// Returns the label; that of a hidden address is `~hidden`.
    pub(crate) fn label(&self, policy: &Policy) -> String {
        match self {
            Self::Named(name) => name.to_string(),
            Self::Address(address) => shown_address(policy, Side::Server, *address),
        }
    }
}

/// Returns the text of an address under the privacy rules.
pub(crate) fn shown_address(policy: &Policy, side: Side, address: IpAddr) -> String {
    let shown = policy.address(side, address).to_string();
    if shown.is_empty() { "~hidden".to_owned() } else { shown }
}

/// Number of admitted labels or series, and the maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The counted objects: `transactions`, `pairs` or `servers`.
    pub of: &'static str,
    /// Admitted so far.
    pub used: usize,
    /// Maximum.
    pub limit: usize,
}

/// The series that there are, and their labels.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) config: DnsMetricsConfig,
    pub(crate) clients: Admission<u64, ClientLabels>,
    pub(crate) servers: Admission<u64, Server>,
    series: Admission<SeriesKey, ()>,
    pairs: Admission<Ends, ()>,
    hasher: DefaultHashBuilder,
}

impl Registry {
    pub(crate) fn new(config: DnsMetricsConfig) -> Self {
        let max_series = usize::try_from(config.max_series).unwrap_or(usize::MAX);
        // One series and one pair are those of `~other`.
        let registry = Self {
            clients: Admission::new(max_series),
            servers: Admission::new(MAX_SERVERS),
            series: Admission::new(max_series),
            pairs: Admission::new((max_series / SERIES_PER_PAIR).max(2)),
            hasher: DefaultHashBuilder::default(),
            config,
        };
        registry.series.admit(SeriesKey::OTHER, || ());
        registry.pairs.admit(Ends::OTHER, || ());
        registry
    }

    /// Returns the tag of a record's client and server.
    #[inline]
    pub(crate) fn ends(&self, record: &Record<'_>) -> Ends {
        let client = match self.config.by {
            ClientLabel::Workload => record.client.workload_tag(),
            ClientLabel::Namespace => record.client.namespace_tag(),
        };
        let server = if record.server.is_workload() {
            record.server.workload_tag()
        } else {
            self.address_tag(record.transaction.flow.server.ip())
        };
        Ends { client, server }
    }

    #[inline]
    fn address_tag(&self, address: IpAddr) -> u64 {
        match address {
            // Not 0, which stands for `~other`.
            IpAddr::V4(address) => 1 << 32 | u64::from(Ipv4Addr::to_bits(address)),
            IpAddr::V6(address) => self.hasher.hash_one(address),
        }
    }

    /// Returns the key that a new series may have: its server and codes may be folded into `~other`, or all
    /// of it.
    pub(crate) fn admit(&self, key: SeriesKey, record: &Record<'_>) -> SeriesKey {
        let mut key = SeriesKey { codes: key.codes.folded(), ..key };
        if !self.servers.admit(key.ends.server, || server(record)) {
            key.ends.server = OTHER_TAG;
        }
        let labels = || client_labels(self.config.by, record);
        let is_admitted =
            self.clients.admit(key.ends.client, labels) && self.series.admit(key, || ());
        if is_admitted { key } else { SeriesKey::OTHER }
    }

    /// Returns the pair that a new one counts in.
    pub(crate) fn admit_pair(&self, ends: Ends) -> Ends {
        if self.pairs.admit(ends, || ()) { ends } else { Ends::OTHER }
    }

    pub(crate) fn usage(&self) -> [Usage; 3] {
        let series = self.series.with(hashbrown::HashMap::len);
        let pairs = self.pairs.with(hashbrown::HashMap::len);
        let servers = self.servers.with(hashbrown::HashMap::len);
        [
            Usage { of: "transactions", used: series, limit: self.series.capacity() },
            Usage { of: "pairs", used: pairs, limit: self.pairs.capacity() },
            Usage { of: "servers", used: servers, limit: self.servers.capacity() },
        ]
    }
}

fn client_labels(by: ClientLabel, record: &Record<'_>) -> ClientLabels {
    let identity = record.client.identity();
    let workload = identity.workload();
    let namespace = workload.namespace.into();
    match by {
        ClientLabel::Namespace if !workload.namespace.is_empty() => {
            ClientLabels { namespace, workload: "".into(), kind: None }
        }
        ClientLabel::Namespace | ClientLabel::Workload => {
            let kind = WorkloadKind::of(identity);
            ClientLabels { namespace, workload: workload.name.into(), kind }
        }
    }
}

fn server(record: &Record<'_>) -> Server {
    if !record.server.is_workload() {
        return Server::Address(record.transaction.flow.server.ip());
    }
    let workload = record.server.identity().workload();
    Server::Named(format!("{}/{}", workload.namespace, workload.name).into())
}

/// Returns the labels of a client by its tag.
pub(crate) fn labels_of(clients: &hashbrown::HashMap<u64, ClientLabels>, client: u64) -> [&str; 2] {
    match clients.get(&client) {
        Some(ClientLabels { namespace, workload, .. }) => [namespace, workload],
        None => [OTHER; 2],
    }
}
