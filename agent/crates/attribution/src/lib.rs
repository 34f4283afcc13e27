//! Names the owner of an address at a time: pods, services and nodes, from the Kubernetes API.
//!
//! ```text
//!  API server ─ list, watch ─▶ watch ─▶ object ─▶ ownership ─ snapshot ─▶ directory ─▶ workers
//!   pods of this node (or all)           the few    by time     immutable    one lookup per record
//!   services, nodes                      fields     and UID
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
//! of this node, or all of them; `services`; `nodes`, all or this one. Each Job with pods here is
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
mod pods;
pub mod rights;
mod status;
mod watch;
mod watch_coordinator;

use std::{
    collections::HashSet,
    net::IpAddr,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::ifaddrs::getifaddrs;
use tap53_records::encode::Identity;
use tokio::{
    sync::{mpsc, oneshot, watch as latest},
    time::{MissedTickBehavior, interval, sleep},
};

pub use containers::{ContainerDirectory, Containers, ContainersStatus, Hierarchy};
pub use directory::{Directory, Reader};
pub use endpoint::Endpoint;
pub use ownership::Limits;
pub use status::{Moment, Status, WatchStatus};

use crate::config::{KubernetesConfig, Scope};
use address_history::End;
use client::{RequestError, Timeouts};
use directory::Published;
use object::{Node, Object, Pod, Service};
use ownership::{Hold, Ownership, PodClaim};
use watch::{Backoff, Change, follow};
use watch_coordinator::{JobQuery, MAX_PENDING_JOBS, WatchCoordinator, now_us};

/// The annotation of a Node object that selects the interfaces to capture from.
pub const CAPTURE_ANNOTATION: &str = "tap53.io/capture";

/// Interval at which expired claims are removed and the addresses of this host are read.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// Maximum time that the start waits for the first lists.
const INITIAL_LIST_TIMEOUT: Duration = Duration::from_secs(3);

/// Interval between two Job queries.
const JOB_QUERY_INTERVAL: Duration = Duration::from_millis(50);

/// The interface that has the addresses of all services if kube-proxy uses IPVS.
const IPVS_INTERFACE: &str = "kube-ipvs0";

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
        let published = Arc::new(Published::new(status));
        published.change_status(|status| {
            status.watch(Pod::RESOURCE);
            status.watch(Node::RESOURCE);
            if config.services {
                status.watch(Service::RESOURCE);
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
            config.kubeconfig.clone(),
            config.labels.clone(),
            timeouts,
            Ownership::new(node, limits, &config.cidrs, hold),
            published.clone(),
            queries,
        ));
        let (send_annotation, annotation) = latest::channel(None);
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (config, node) = (config.clone(), node.to_owned());
        let thread = thread::Builder::new().name("kubernetes".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::spawn(run(coordinator, config, node, send_annotation, received_queries));
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

async fn run(
    coordinator: Arc<WatchCoordinator>,
    config: KubernetesConfig,
    node: String,
    annotation: latest::Sender<Option<String>>,
    queries: mpsc::Receiver<JobQuery>,
) {
    let this_node = format!("spec.nodeName={node}");
    let pods = (config.scope == Scope::Node).then_some(this_node);
    let nodes = (!config.nodes).then(|| format!("metadata.name={node}"));
    // Spawn each separately, so that one that waits does not delay another.
    let tasks = [
        tokio::spawn({
            let coordinator = coordinator.clone();
            async move { coordinator.publish_changes().await }
        }),
        tokio::spawn(follow_pods(coordinator.clone(), pods)),
        tokio::spawn(follow_nodes(coordinator.clone(), nodes, node.clone(), annotation)),
        tokio::spawn(resolve_jobs(coordinator.clone(), queries)),
        tokio::spawn(sweep(coordinator.clone(), node)),
    ];
    if config.services {
        follow_services(coordinator).await;
    }
    for task in tasks {
        // A task ends only by a panic, which its thread has reported; the others continue.
        let _ = task.await;
    }
}

async fn follow_pods(coordinator: Arc<WatchCoordinator>, selector: Option<String>) {
    let take = |change: Change<Pod>| {
        let now = now_us();
        match change {
            Change::Applied(pod) => coordinator.pod(&pod, now),
            Change::Deleted(pod) => {
                coordinator.change(|ownership| {
                    ownership.object_deleted(&pod.metadata().uid, pod.end(now))
                });
            }
            Change::Listed(present) => {
                coordinator.change(|ownership| ownership.retain_pods(&present, now));
            }
        }
    };
    follow(&coordinator, selector, take).await;
}

async fn follow_services(coordinator: Arc<WatchCoordinator>) {
    let take = |change: Change<Service>| {
        let now = now_us();
        coordinator.change(|ownership| match change {
            Change::Applied(service) => ownership.service(service.claim(now), now),
            Change::Deleted(service) => {
                ownership.object_deleted(&service.metadata().uid, End::By(now))
            }
            Change::Listed(present) => ownership.retain_services(&present, now),
        });
    };
    follow(&coordinator, None, take).await;
}

async fn follow_nodes(
    coordinator: Arc<WatchCoordinator>,
    selector: Option<String>,
    this: String,
    annotation: latest::Sender<Option<String>>,
) {
    let publish = |value: Option<&String>| {
        annotation.send_if_modified(|current| {
            let changes = current.as_ref() != value;
            if changes {
                *current = value.cloned();
            }
            changes
        });
    };
    let take = |change: Change<Node>| match change {
        Change::Applied(node) => {
            if node.metadata().name == this {
                publish(node.annotation(CAPTURE_ANNOTATION));
            }
            coordinator.change(|ownership| ownership.node(node.claim()));
        }
        Change::Deleted(node) => {
            if node.metadata().name == this {
                publish(None);
            }
            coordinator.change(|ownership| ownership.node_deleted(&node.metadata().name));
        }
        Change::Listed(present) => {
            if !present.contains(&this) {
                publish(None);
            }
            coordinator.change(|ownership| ownership.retain_nodes(&present));
        }
    };
    follow(&coordinator, selector, take).await;
}

/// Queries Jobs one after the other. While the API server is unreachable the same query is retried,
/// since the next one would fail too. Results are cached.
async fn resolve_jobs(coordinator: Arc<WatchCoordinator>, mut queries: mpsc::Receiver<JobQuery>) {
    let timeouts = coordinator.timeouts();
    let mut backoff = Backoff::new(&timeouts);
    while let Some(JobQuery { uid, namespace, name }) = queries.recv().await {
        loop {
            let response = async {
                client::job(&coordinator.client().await?, &namespace, &name, &timeouts).await
            };
            match response.await {
                // A Job of the same name with another UID is a different one.
                Ok(job) if job.metadata.uid == uid => {
                    coordinator.job(&uid, job.metadata.controller())
                }
                Ok(_) | Err(RequestError::Refused { status: 404, .. }) => {
                    coordinator.job(&uid, None)
                }
                Err(error) => {
                    coordinator.job_failed(&error);
                    if error.is_transient() {
                        if error.is_about_credentials() {
                            coordinator.drop_client().await;
                        }
                        sleep(backoff.next(error.retry_after())).await;
                        continue;
                    }
                    coordinator.job(&uid, None);
                }
            }
            break;
        }
        backoff = Backoff::new(&timeouts);
        sleep(JOB_QUERY_INTERVAL).await;
    }
}

/// Removes expired claims, and reads the addresses of this host.
async fn sweep(coordinator: Arc<WatchCoordinator>, node: String) {
    let mut ticks = interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let local = local_addresses();
        coordinator.change(|ownership| {
            ownership.sweep(now_us());
            ownership.local(&node, local);
        });
    }
}

/// Returns the addresses of this host's interfaces: that of a bridge, from which the host reaches
/// its pods, is not in the Node object. Link-local IPv6 addresses are useless without their
/// interface.
fn local_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    let interfaces = interfaces.filter(|interface| interface.interface_name != IPVS_INTERFACE);
    let addresses: HashSet<IpAddr> = interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        })
        .filter(|address| match address {
            IpAddr::V4(_) => true,
            IpAddr::V6(address) => !address.is_unicast_link_local(),
        })
        .collect();
    addresses.into_iter().collect()
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

    /// Backoff until the status is as `wanted`. Returns false if `timeout` expires first.
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
        let claim = PodClaim {
            uid: uid.to_owned(),
            identity: Identity {
                attribution: tap53_records::encode::Attribution::Pod,
                pod_uid: Some(uid.to_owned()),
                node_name: node.map(str::to_owned),
                ..Default::default()
            },
            addresses: vec![address],
            host_network: false,
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
