//! Coordinates the watches: owns the writer of the directory, the client and the status.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kube::Client;
use tokio::sync::{Notify, mpsc};

use super::{
    address_history::Micros,
    client::{self, RequestError, Timeouts},
    config::KubernetesConfig,
    directory::Published,
    object::{Object, OwnerReference, Pod, workload},
    ownership::{Ownership, PodClaim},
    selector::LabelSelector,
    status::{Moment, WatchStatus},
};

/// Maximum number of Job queries that wait for a response; 300 bytes each.
pub(super) const MAX_PENDING_JOBS: usize = 1_024;

/// Maximum number of Jobs whose owner is cached; 200 bytes each.
const MAX_CACHED_JOBS: usize = 4_096;

/// A query to the API server for the owner of a Job.
pub(super) struct JobQuery {
    pub(super) uid: String,
    pub(super) namespace: String,
    pub(super) name: String,
}

/// The state that the tasks of one thread share. Its locks are never held across an await.
pub(super) struct WatchCoordinator {
    kubeconfig: Option<PathBuf>,
    labels: Vec<String>,
    /// Selects the pod that is the DNS cache of this node.
    node_cache: LabelSelector,
    /// Namespace of the DNS servers; `None` for all.
    servers: Option<String>,
    timeouts: Timeouts,
    client: tokio::sync::Mutex<Option<Client>>,
    state: Mutex<State>,
    published: Arc<Published>,
    /// Notified when a change is to be published.
    dirty: Notify,
}

pub(super) struct State {
    pub(super) ownership: Ownership,
    jobs: Jobs,
}

/// Caches which Jobs belong to a CronJob, which their pods do not state.
struct Jobs {
    /// The kind and name of the Job's controller, if any, by the Job's UID.
    known: HashMap<String, Option<(String, String)>>,
    /// UIDs of the pods that wait for the response, by the Job's UID.
    waiting: HashMap<String, Vec<String>>,
    queries: mpsc::Sender<JobQuery>,
}

impl WatchCoordinator {
    pub(super) fn new(
        config: &KubernetesConfig,
        timeouts: Timeouts,
        ownership: Ownership,
        published: Arc<Published>,
        queries: mpsc::Sender<JobQuery>,
    ) -> Self {
        let jobs = Jobs { known: HashMap::new(), waiting: HashMap::new(), queries };
        Self {
            kubeconfig: config.kubeconfig.clone(),
            labels: config.labels.clone(),
            node_cache: config.node_local_dns.selector.clone(),
            servers: config.servers.namespace.clone(),
            timeouts,
            client: tokio::sync::Mutex::new(None),
            state: Mutex::new(State { ownership, jobs }),
            published,
            dirty: Notify::new(),
        }
    }

    pub(super) const fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// Returns the client, and creates it if there is none.
    pub(super) async fn client(&self) -> Result<Client, RequestError> {
        let mut slot = self.client.lock().await;
        if let Some(client) = &*slot {
            return Ok(client.clone());
        }
        let client = client::connect(self.kubeconfig.as_deref()).await?;
        Ok(slot.insert(client).clone())
    }

    /// Drops the client, so that the next one is created with the current credentials.
    pub(super) async fn drop_client(&self) {
        *self.client.lock().await = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies a change to the known owners, and schedules its publication.
    pub(super) fn change(&self, change: impl FnOnce(&mut Ownership)) {
        change(&mut self.state().ownership);
        self.dirty.notify_one();
    }

    /// Applies an event of a pod.
    pub(super) fn pod(&self, pod: &Pod, now: Micros) {
        let mut state = self.state();
        let State { ownership, jobs } = &mut *state;
        let stated = workload(pod);
        let cron = match (stated, pod.controller()) {
            (Some(("Job", _)), Some(job)) => jobs.controller(job, pod),
            _ => None,
        };
        let cron = cron.as_ref().map(|(kind, name)| (kind.as_str(), name.as_str()));
        ownership.pod(self.claim(pod, cron.or(stated), now), now);
        drop(state);
        self.dirty.notify_one();
    }

    /// Applies an event of a DNS server's pod.
    pub(super) fn server_pod(&self, pod: &Pod, now: Micros) {
        let claim = self.claim(pod, workload(pod), now);
        self.change(|ownership| ownership.server_pod(claim, now));
    }

    fn claim(&self, pod: &Pod, workload: Option<(&str, &str)>, now: Micros) -> PodClaim {
        let is_node_cache = pod.is_node_cache(&self.node_cache, self.servers.as_deref());
        PodClaim { is_node_cache, ..pod.claim(&self.labels, workload, now) }
    }

    /// Records the owner of a Job. `controller` is `None` if it has none, or if it cannot be found
    /// out.
    pub(super) fn job(&self, uid: &str, controller: Option<&OwnerReference>) {
        let mut state = self.state();
        let State { ownership, jobs } = &mut *state;
        let known = controller.map(|it| (it.kind.clone(), it.name.clone()));
        for pod in jobs.waiting.remove(uid).unwrap_or_default() {
            if let Some((kind, name)) = &known {
                ownership.set_workload(&pod, kind, name);
            }
        }
        if jobs.known.len() >= MAX_CACHED_JOBS {
            // The next event of a pod queries those that are still needed again.
            jobs.known.clear();
        }
        jobs.known.insert(uid.to_owned(), known);
        drop(state);
        self.dirty.notify_one();
    }

    /// Publishes changes at a bounded rate. Never returns.
    pub(super) async fn publish_changes(&self) {
        /// Events arrive in bursts, and a worker's batch takes longer than this.
        const PAUSE: Duration = Duration::from_millis(10);
        loop {
            self.dirty.notified().await;
            self.publish();
            tokio::time::sleep(PAUSE).await;
        }
    }

    pub(super) fn publish(&self) {
        let mut state = self.state();
        let snapshot = state.ownership.snapshot();
        let counts = state.ownership.counts();
        drop(state);
        if let Some(snapshot) = snapshot {
            self.published.publish(snapshot);
        }
        self.published.change_status(|status| status.set_counts(counts));
    }

    fn watch(&self, resource: &'static str, change: impl FnOnce(&mut WatchStatus)) {
        self.published.change_status(|status| {
            change(status.watch(resource));
            status.summarize();
        });
    }

    /// Records that a watch has completed its list.
    pub(super) fn listed(&self, resource: &'static str) {
        // Publish the objects before the status that announces them.
        self.publish();
        self.watch(resource, |watch| watch.lists += 1);
    }

    /// Records that a watch is connected and follows its objects.
    pub(super) fn connected(&self, resource: &'static str) {
        self.watch(resource, |watch| {
            if !watch.connected {
                tracing::info!(
                    event = "kubernetes_watch_connected",
                    resource,
                    "watching the Kubernetes API"
                );
            }
            watch.connected = true;
            watch.reason = None;
            watch.stale_since = None;
        });
    }

    /// Counts an applied event.
    pub(super) fn event(&self, resource: &'static str) {
        let now = now_us();
        self.watch(resource, |watch| {
            watch.events += 1;
            watch.last_event = Some(Moment { us: now });
        });
    }

    /// Counts a Job query that failed.
    pub(super) fn job_failed(&self, error: &RequestError) {
        let reason = error.to_string();
        self.published.change_status(|status| {
            if status.jobs_reason.as_deref() != Some(reason.as_str()) {
                tracing::warn!(
                    event = "kubernetes_jobs_unavailable",
                    reason,
                    "cannot read Jobs: their CronJobs stay unknown"
                );
            }
            status.jobs_failed += 1;
            status.jobs_reason = Some(reason);
        });
    }

    /// Records that a watch has failed and waits before it retries.
    pub(super) fn watch_failed(
        &self,
        resource: &'static str,
        error: &RequestError,
        wait: Duration,
    ) {
        let now = now_us();
        let reason = error.to_string();
        self.watch(resource, |watch| {
            // Log once per cause, not per attempt.
            if watch.connected || watch.reason.as_deref() != Some(reason.as_str()) {
                let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                tracing::warn!(
                    event = "kubernetes_watch_interrupted",
                    resource,
                    reason,
                    wait_ms,
                    "Kubernetes watch interrupted, retrying"
                );
            }
            if watch.lists > 0 && watch.stale_since.is_none() {
                watch.stale_since = Some(Moment { us: now });
            }
            watch.connected = false;
            watch.reason = Some(reason);
            watch.errors += 1;
        });
    }
}

impl Jobs {
    /// Returns the controller of a Job if it is known, and queries it otherwise.
    fn controller(&mut self, job: &OwnerReference, pod: &Pod) -> Option<(String, String)> {
        if let Some(known) = self.known.get(&job.uid) {
            return known.clone();
        }
        let metadata = pod.metadata();
        if let Some(waiting) = self.waiting.get_mut(&job.uid) {
            if !waiting.contains(&metadata.uid) {
                waiting.push(metadata.uid.clone());
            }
            return None;
        }
        let query = JobQuery {
            uid: job.uid.clone(),
            namespace: metadata.namespace.clone(),
            name: job.name.clone(),
        };
        // If the queue is full, the next event of the pod queries again.
        if self.queries.try_send(query).is_ok() {
            self.waiting.insert(job.uid.clone(), vec![metadata.uid.clone()]);
        }
        None
    }
}

/// Returns the current time, in UTC microseconds since 1970.
pub(super) fn now_us() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
