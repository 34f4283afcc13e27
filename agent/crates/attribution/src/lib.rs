//! Names the owner of an address at a time: pods, services and nodes, from the Kubernetes API.
//!
//! ```text
//!  API server ─ list, watch ─▶ watch ─▶ object ─▶ ownership ─ snapshot ─▶ directory ─▶ workers
//!   pods of this node (or all)           the few    by time     immutable    one lookup per record
//!   DNS servers' pods elsewhere          fields     and UID
//!   services, nodes
//! ```
//!
//! - Capture never waits for the API server and never ends because of it: the watches run in a
//!   thread of their own. Without a response the known state stays in use, and [`Status`] states
//!   since when it may be stale.
//! - An address is resolved by the time of the transaction: [`address_history`].
//! - A delete ends the claims of one UID, memory is bounded, evictions are counted: [`ownership`].
//! - Workers read without locks: [`directory`].
//!
//! The requests and the rights that they need (verbs list and watch): `pods` with `spec.nodeName`
//! of this node, or all of them; `pods` of the DNS servers by their labels; `services`; `nodes`, all
//! or this one. Each Job with pods here is
//! requested once (its metadata), to find its CronJob. Deployments follow from the pods' own
//! fields.

#![forbid(unsafe_code)]

mod address_history;
mod client;
pub mod config;
mod containers;
mod directory;
mod endpoint;
mod index;
mod object;
mod ownership;
pub mod pod_selection;
mod pods;
pub mod rights;
mod selection;
mod selector;
mod status;
mod tasks;
mod watch;
mod watch_coordinator;

use std::{
    net::IpAddr,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use tap53_records::encode::Identity;
use tokio::sync::{mpsc, oneshot, watch as latest};

pub use containers::{ContainerDirectory, Containers, ContainersStatus, Hierarchy, find_tree};
pub use directory::{Directory, Reader};
pub use endpoint::Endpoint;
pub use ownership::Limits;
pub use selector::LabelSelector;
pub use status::{Moment, Status, WatchStatus};

use crate::config::{KubernetesConfig, Scope};
use address_history::End;
use client::Timeouts;
use directory::Published;
use ownership::{Hold, Ownership, PodClaim};
use selection::Selections;
use watch_coordinator::{MAX_PENDING_JOBS, WatchCoordinator};

/// The annotation of a Node object that selects the interfaces to capture from.
pub const CAPTURE_ANNOTATION: &str = "tap53.io/capture";

/// Maximum time that the start waits for the first lists.
const INITIAL_LIST_TIMEOUT: Duration = Duration::from_secs(3);

/// The running watches.
#[derive(Debug)]
pub struct Kubernetes {
    directory: Directory,
    annotation: latest::Receiver<Option<String>>,
    /// Ends the thread when it is dropped.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Kubernetes {
    /// Starts the watches if the configuration enables them, and waits briefly for the first lists:
    /// nothing is captured yet, and without them the first records would name no owner.
    ///
    /// # Errors
    /// See [`Kubernetes::start`].
    pub fn start_if_enabled(
        config: &KubernetesConfig,
        node: &str,
    ) -> std::io::Result<Option<Self>> {
        if !config.enabled {
            return Ok(None);
        }
        let kubernetes = Self::start(config, node)?;
        let listed = |status: &Status| status.watches.iter().all(|watch| watch.lists > 0);
        if !kubernetes.directory.wait(INITIAL_LIST_TIMEOUT, listed) {
            let reason = kubernetes.directory.status().reason;
            tracing::warn!(
                event = "kubernetes_not_ready",
                reason,
                "capturing without attribution until the Kubernetes API has listed its objects"
            );
        }
        Ok(Some(kubernetes))
    }

    /// Starts the watches. An API server that is unreachable is no error; the status reports it.
    ///
    /// # Errors
    /// Fails if the thread cannot be started.
    pub fn start(config: &KubernetesConfig, node: &str) -> std::io::Result<Self> {
        Self::start_with(config, node, Timeouts::default())
    }

    fn start_with(
        config: &KubernetesConfig,
        node: &str,
        timeouts: Timeouts,
    ) -> std::io::Result<Self> {
        let status = Status {
            enabled: true,
            node: node.to_owned(),
            scope: config.scope,
            ..Default::default()
        };
        let selections = Selections::new(config, node);
        let published = Arc::new(Published::new(status));
        published.change_status(|status| {
            for (_, selection) in selections.iter() {
                status.watch(selection.watch);
            }
            status.summarize();
        });
        let (queries, received_queries) = mpsc::channel(MAX_PENDING_JOBS);
        let limits = Limits { claims: config.max_addresses };
        let hold = Hold {
            ns: u64::try_from(config.hold.as_nanos()).unwrap_or(u64::MAX),
            node: (config.scope == Scope::Node).then(|| node.to_owned()),
        };
        let coordinator = Arc::new(WatchCoordinator::new(
            config,
            timeouts,
            Ownership::new(node, limits, &config.cidrs, hold)
                .with_node_cache(&config.node_local_dns.addresses),
            published.clone(),
            queries,
        ));
        let (send_annotation, annotation) = latest::channel(None);
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let node = node.to_owned();
        let thread = thread::Builder::new().name("kubernetes".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::spawn(tasks::run(
                    coordinator,
                    selections,
                    node,
                    send_annotation,
                    received_queries,
                ));
                // The sender was dropped.
                let _ = stopped.await;
            });
            // Do not wait for a name that is being resolved.
            runtime.shutdown_background();
        })?;
        let directory = Directory::new(&published);
        Ok(Self { directory, annotation, stop: Some(stop), thread: Some(thread) })
    }

    /// Returns the directory of owners, which workers read.
    #[must_use]
    pub fn directory(&self) -> Directory {
        self.directory.clone()
    }

    /// Returns the changing value of [`CAPTURE_ANNOTATION`] of this node's object.
    #[must_use]
    pub fn capture_annotation(&self) -> latest::Receiver<Option<String>> {
        self.annotation.clone()
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(
                event = "kubernetes_panicked",
                "the thread of the Kubernetes watches panicked"
            );
        }
    }
}

impl Directory {
    /// Creates a directory of pods that have had these addresses for ever, of an agent on `node`, for
    /// benchmarks.
    #[must_use]
    pub fn of_pods(node: &str, pods: impl IntoIterator<Item = (Identity, Vec<IpAddr>)>) -> Self {
        let mut ownership =
            Ownership::new(node, Limits { claims: usize::MAX }, &[], Hold::default());
        for (identity, addresses) in pods {
            let claim = PodClaim {
                uid: identity.pod_uid.clone().unwrap_or_default(),
                identity,
                addresses,
                host_network: false,
                is_node_cache: false,
                start: Some(0),
                earliest: 0,
                end: End::Open,
                containers: Vec::new(),
                manifest_hash: None,
            };
            ownership.pod(claim, 0);
        }
        let published = Arc::new(Published::new(Status::default()));
        if let Some(snapshot) = ownership.snapshot() {
            published.publish(snapshot);
        }
        Self::new(&published)
    }

    /// Waits until the status is as `wanted`. Returns false if `timeout` expires first.
    pub fn wait(&self, timeout: Duration, wanted: impl Fn(&Status) -> bool) -> bool {
        self.published().is_some_and(|published| published.wait(timeout, wanted))
    }
}

/// A directory with scripted content, for tests.
#[cfg(any(test, feature = "testing"))]
pub struct Scripted {
    ownership: Ownership,
    published: Arc<Published>,
}

#[cfg(any(test, feature = "testing"))]
#[allow(clippy::unwrap_used, reason = "only tests use it")]
impl Scripted {
    /// Creates a directory that waits for the names of pods in a range.
    pub fn new(hold: Duration, range: &str) -> Self {
        let ns = u64::try_from(hold.as_nanos()).unwrap();
        let hold = Hold { ns, node: Some("node-1".to_owned()) };
        let mut ownership = Ownership::new("node-1", Limits { claims: 100 }, &[], hold);
        for (name, range) in [("node-1", range), ("node-2", "203.0.113.0/24")] {
            let ranges = vec![range.parse().unwrap()];
            let node = ownership::NodeClaim { name: name.to_owned(), addresses: vec![], ranges };
            ownership.node(node);
        }
        let published = Arc::new(Published::new(Status::default()));
        published.publish(ownership.snapshot().unwrap());
        Self { ownership, published }
    }

    /// Returns the directory that workers read.
    pub fn directory(&self) -> Directory {
        Directory::new(&self.published)
    }

    /// Gives a pod an address from a time on, in UTC microseconds since 1970.
    pub fn pod(&mut self, uid: &str, address: IpAddr, start_us: i64) {
        self.pod_on(None, uid, address, start_us);
    }

    /// Does the same for a pod whose node is known.
    pub fn pod_on(&mut self, node: Option<&str>, uid: &str, address: IpAddr, start_us: i64) {
        let identity = Identity {
            attribution: tap53_records::encode::Attribution::Pod,
            pod_uid: Some(uid.to_owned()),
            node_name: node.map(str::to_owned),
            ..Default::default()
        };
        self.pod_with(identity, address, start_us);
    }

    /// Does the same for a pod with this identity, which has a UID.
    pub fn pod_with(&mut self, identity: Identity, address: IpAddr, start_us: i64) {
        let claim = PodClaim {
            uid: identity.pod_uid.clone().unwrap(),
            identity,
            addresses: vec![address],
            host_network: false,
            is_node_cache: false,
            start: Some(start_us),
            earliest: start_us,
            end: End::Open,
            containers: Vec::new(),
            manifest_hash: None,
        };
        self.ownership.pod(claim, start_us);
        self.published.publish(self.ownership.snapshot().unwrap());
    }
}

#[cfg(test)]
#[path = "../tests/stub_api/mod.rs"]
mod stub;
#[cfg(test)]
mod tests;
