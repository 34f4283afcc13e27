//! Who owned an address at a time: pods, services and nodes, from the Kubernetes API.
//!
//! ```text
//!  API server ─ list, watch ─▶ watch ─▶ object ─▶ ownership ─ snapshot ─▶ directory ─▶ workers
//!   pods of this node (or all)           the few    by time     immutable    one look a record
//!   services, nodes                      fields     and UID
//! ```
//!
//! - Capture never waits for the API server and never ends because of it: a thread of its own runs
//!   the watches, so that neither slows the other down, and without an answer what is known stays
//!   in force, with the time since when it may be old in [`Status`].
//! - An address is named by the time of the transaction: [`tenancy`].
//! - A delete ends the claims of one UID, memory is bounded, what was given up is counted:
//!   [`ownership`].
//! - Workers read without locks: [`directory`].
//!
//! What the API server is asked for, and with which rights (verbs list and watch): `pods` with
//! `spec.nodeName` of this node, or all of them; `services`; `nodes`, all or this one. For each Job
//! with pods here, one get of its metadata, to know its CronJob. Deployments are known without.

#![forbid(unsafe_code)]

mod client;
pub mod config;
mod directory;
mod hub;
mod index;
mod object;
mod ownership;
pub mod rights;
mod status;
mod tenancy;
mod watch;

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

pub use directory::{Directory, Reader};
pub use ownership::Limits;
pub use status::{Moment, Status, WatchStatus};

use crate::config::{KubernetesConfig, Scope};
use client::{Patience, Trouble};
use directory::Published;
use hub::{JOBS_ASKED, JobQuery, WatchCoordinator, now_us};
use object::{Node, Object, Pod, Service};
use ownership::{Hold, Ownership, PodClaim};
use tenancy::End;
use watch::{Change, Waits, follow};

/// The annotation of a Node object that says what to capture from.
pub const CAPTURE_ANNOTATION: &str = "tap53.io/capture";

/// How often what ended long ago is forgotten, and the addresses of this host are read.
const SWEEP: Duration = Duration::from_secs(30);

/// How long the start waits for what is there.
const FIRST_LISTS: Duration = Duration::from_secs(3);

/// Between two questions for jobs.
const JOB_PAUSE: Duration = Duration::from_millis(50);

/// An interface that holds the addresses of all services, where kube-proxy uses IPVS.
const IPVS_INTERFACE: &str = "kube-ipvs0";

/// The watches, running.
#[derive(Debug)]
pub struct Kubernetes {
    directory: Directory,
    annotation: latest::Receiver<Option<String>>,
    /// Dropped to end the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Kubernetes {
    /// Starts the watches, if the configuration asks for them, and gives them a moment to list what
    /// is there: nothing is captured yet, and the first records would name nobody.
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
        if !kubernetes.directory.wait(FIRST_LISTS, listed) {
            let reason = kubernetes.directory.status().reason;
            tracing::warn!(
                event = "kubernetes_not_ready",
                reason,
                "capturing without attribution until the Kubernetes API has listed its objects"
            );
        }
        Ok(Some(kubernetes))
    }

    /// Starts the watches; that there is no API server is no error, but shows in the status.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(config: &KubernetesConfig, node: &str) -> std::io::Result<Self> {
        Self::start_with(config, node, Patience::default())
    }

    fn start_with(
        config: &KubernetesConfig,
        node: &str,
        patience: Patience,
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
            status.sum_up();
        });
        let (ask, asked) = mpsc::channel(JOBS_ASKED);
        let limits = Limits { claims: config.max_addresses };
        let hold = Hold {
            ns: u64::try_from(config.hold.as_nanos()).unwrap_or(u64::MAX),
            node: (config.scope == Scope::Node).then(|| node.to_owned()),
        };
        let hub = Arc::new(WatchCoordinator::new(
            config.kubeconfig.clone(),
            config.labels.clone(),
            patience,
            Ownership::new(limits, &config.cidrs, hold),
            published.clone(),
            ask,
        ));
        let (send_annotation, annotation) = latest::channel(None);
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (config, node) = (config.clone(), node.to_owned());
        let thread = thread::Builder::new().name("kubernetes".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::spawn(run(hub, config, node, send_annotation, asked));
                // Ends when the sender is dropped.
                let _ = stopped.await;
            });
            // A name that is being resolved is not waited for.
            runtime.shutdown_background();
        })?;
        let directory = Directory::new(&published);
        Ok(Self { directory, annotation, stop: Some(stop), thread: Some(thread) })
    }

    /// Who owned which address when.
    #[must_use]
    /// The directory that workers read.
    pub fn directory(&self) -> Directory {
        self.directory.clone()
    }

    /// The value of [`CAPTURE_ANNOTATION`] at this node's object, as it changes.
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
    hub: Arc<WatchCoordinator>,
    config: KubernetesConfig,
    node: String,
    annotation: latest::Sender<Option<String>>,
    asked: mpsc::Receiver<JobQuery>,
) {
    let this_node = format!("spec.nodeName={node}");
    let pods = (config.scope == Scope::Node).then_some(this_node);
    let nodes = (!config.nodes).then(|| format!("metadata.name={node}"));
    // Spawned apart, so that one that waits does not hold up another.
    let tasks = [
        tokio::spawn({
            let hub = hub.clone();
            async move { hub.publish_changes().await }
        }),
        tokio::spawn(follow_pods(hub.clone(), pods)),
        tokio::spawn(follow_nodes(hub.clone(), nodes, node.clone(), annotation)),
        tokio::spawn(answer_for_jobs(hub.clone(), asked)),
        tokio::spawn(sweep(hub.clone(), node)),
    ];
    if config.services {
        follow_services(hub).await;
    }
    for task in tasks {
        // None ends but by a panic, which its thread has reported; the others go on.
        let _ = task.await;
    }
}

async fn follow_pods(hub: Arc<WatchCoordinator>, selector: Option<String>) {
    let take = |change: Change<Pod>| {
        let now = now_us();
        match change {
            Change::Applied(pod) => hub.pod(&pod, now),
            Change::Deleted(pod) => {
                hub.change(|ownership| ownership.gone(&pod.metadata().uid, pod.end(now)));
            }
            Change::Listed(present) => {
                hub.change(|ownership| ownership.retain_pods(&present, now));
            }
        }
    };
    follow(&hub, selector, take).await;
}

async fn follow_services(hub: Arc<WatchCoordinator>) {
    let take = |change: Change<Service>| {
        let now = now_us();
        hub.change(|ownership| match change {
            Change::Applied(service) => ownership.service(service.claim(now), now),
            Change::Deleted(service) => ownership.gone(&service.metadata().uid, End::By(now)),
            Change::Listed(present) => ownership.retain_services(&present, now),
        });
    };
    follow(&hub, None, take).await;
}

async fn follow_nodes(
    hub: Arc<WatchCoordinator>,
    selector: Option<String>,
    this: String,
    annotation: latest::Sender<Option<String>>,
) {
    let say = |value: Option<&String>| {
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
                say(node.annotation(CAPTURE_ANNOTATION));
            }
            hub.change(|ownership| ownership.node(node.claim()));
        }
        Change::Deleted(node) => {
            if node.metadata().name == this {
                say(None);
            }
            hub.change(|ownership| ownership.node_gone(&node.metadata().name));
        }
        Change::Listed(present) => {
            if !present.contains(&this) {
                say(None);
            }
            hub.change(|ownership| ownership.retain_nodes(&present));
        }
    };
    follow(&hub, selector, take).await;
}

/// Asks for jobs, one after the other. An API server that is away is asked again, as it would not
/// answer for the next one either, and what is said of a job is remembered.
async fn answer_for_jobs(hub: Arc<WatchCoordinator>, mut asked: mpsc::Receiver<JobQuery>) {
    let patience = hub.patience();
    let mut waits = Waits::new(&patience);
    while let Some(JobQuery { uid, namespace, name }) = asked.recv().await {
        loop {
            let answer =
                async { client::job(&hub.client().await?, &namespace, &name, &patience).await };
            match answer.await {
                // Another one of that name is not the one asked for.
                Ok(job) if job.metadata.uid == uid => hub.job(&uid, job.metadata.controller()),
                Ok(_) | Err(Trouble::Refused { status: 404, .. }) => hub.job(&uid, None),
                Err(trouble) => {
                    hub.job_trouble(&trouble);
                    if trouble.passes() {
                        if trouble.is_about_credentials() {
                            hub.forget_client().await;
                        }
                        sleep(waits.next(trouble.retry_after())).await;
                        continue;
                    }
                    hub.job(&uid, None);
                }
            }
            break;
        }
        waits = Waits::new(&patience);
        sleep(JOB_PAUSE).await;
    }
}

/// Forgets what ended long ago, and reads the addresses of this host.
async fn sweep(hub: Arc<WatchCoordinator>, node: String) {
    let mut ticks = interval(SWEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let local = local_addresses();
        hub.change(|ownership| {
            ownership.sweep(now_us());
            ownership.local(&node, local);
        });
    }
}

/// Addresses of this host's interfaces: a bridge's, from which it speaks to its pods, is not in its
/// Node object. Link-local ones of IPv6 are no use without their interface.
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
    /// A directory of pods with these addresses, which had them ever since: to measure with.
    #[must_use]
    pub fn of_pods(pods: impl IntoIterator<Item = (Identity, Vec<IpAddr>)>) -> Self {
        let mut ownership = Ownership::new(Limits { claims: usize::MAX }, &[], Hold::default());
        for (identity, addresses) in pods {
            let claim = PodClaim {
                uid: identity.pod_uid.clone().unwrap_or_default(),
                identity,
                addresses,
                host_network: false,
                start: Some(0),
                earliest: 0,
                end: End::Open,
            };
            ownership.pod(claim, 0);
        }
        let published = Arc::new(Published::new(Status::default()));
        if let Some(snapshot) = ownership.snapshot() {
            published.publish(snapshot);
        }
        Self::new(&published)
    }

    /// Waits until the status is as `wanted`; false if it is not within `patience`.
    pub fn wait(&self, patience: Duration, wanted: impl Fn(&Status) -> bool) -> bool {
        self.published().is_some_and(|published| published.wait(patience, wanted))
    }
}

/// A directory that a test feeds.
#[cfg(any(test, feature = "testing"))]
pub struct Scripted {
    ownership: Ownership,
    published: Arc<Published>,
}

#[cfg(any(test, feature = "testing"))]
#[allow(clippy::unwrap_used, reason = "only tests use it")]
impl Scripted {
    /// One that waits for the names of pods of a range.
    pub fn new(hold: Duration, range: &str) -> Self {
        let ns = u64::try_from(hold.as_nanos()).unwrap();
        let hold = Hold { ns, node: Some("node-1".to_owned()) };
        let mut ownership = Ownership::new(Limits { claims: 100 }, &[], hold);
        for (name, range) in [("node-1", range), ("node-2", "203.0.113.0/24")] {
            let ranges = vec![range.parse().unwrap()];
            let node = ownership::NodeClaim { name: name.to_owned(), addresses: vec![], ranges };
            ownership.node(node);
        }
        let published = Arc::new(Published::new(Status::default()));
        published.publish(ownership.snapshot().unwrap());
        Self { ownership, published }
    }

    /// The directory that workers read.
    pub fn directory(&self) -> Directory {
        Directory::new(&self.published)
    }

    /// A pod has an address since a time, UTC microseconds since 1970.
    pub fn pod(&mut self, uid: &str, address: IpAddr, start_us: i64) {
        let claim = PodClaim {
            uid: uid.to_owned(),
            identity: Identity {
                attribution: tap53_records::encode::Attribution::Pod,
                pod_uid: Some(uid.to_owned()),
                ..Default::default()
            },
            addresses: vec![address],
            host_network: false,
            start: Some(start_us),
            earliest: start_us,
            end: End::Open,
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
