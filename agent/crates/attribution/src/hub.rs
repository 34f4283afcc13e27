//! Where the watches meet: the writer of the directory, the client, the status.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kube::Client;
use tokio::sync::{Notify, mpsc};

use super::{
    client::{self, Patience, Trouble},
    directory::Published,
    object::{Object, OwnerReference, Pod, workload},
    ownership::Ownership,
    status::{Moment, WatchStatus},
    tenancy::Micros,
};

/// Jobs that are asked for and have no answer yet, at most; 300 bytes each.
pub(super) const JOBS_ASKED: usize = 1_024;

/// Jobs whose answer is remembered, at most; 200 bytes each.
const JOBS_KNOWN: usize = 4_096;

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
    patience: Patience,
    client: tokio::sync::Mutex<Option<Client>>,
    state: Mutex<State>,
    published: Arc<Published>,
    /// Notified when a change waits to be published.
    dirty: Notify,
}

pub(super) struct State {
    pub(super) ownership: Ownership,
    jobs: Jobs,
}

/// Whether a job belongs to a CronJob, which its pods do not say.
struct Jobs {
    /// By the job's UID: its controller's kind and name, or nothing.
    known: HashMap<String, Option<(String, String)>>,
    /// UIDs of the pods that wait for the answer, by the job's UID.
    waiting: HashMap<String, Vec<String>>,
    ask: mpsc::Sender<JobQuery>,
}

impl WatchCoordinator {
    pub(super) fn new(
        kubeconfig: Option<PathBuf>,
        labels: Vec<String>,
        patience: Patience,
        ownership: Ownership,
        published: Arc<Published>,
        ask: mpsc::Sender<JobQuery>,
    ) -> Self {
        let jobs = Jobs { known: HashMap::new(), waiting: HashMap::new(), ask };
        Self {
            kubeconfig,
            labels,
            patience,
            client: tokio::sync::Mutex::new(None),
            state: Mutex::new(State { ownership, jobs }),
            published,
            dirty: Notify::new(),
        }
    }

    pub(super) const fn patience(&self) -> Patience {
        self.patience
    }

    /// The client, made where there is none.
    pub(super) async fn client(&self) -> Result<Client, Trouble> {
        let mut slot = self.client.lock().await;
        if let Some(client) = &*slot {
            return Ok(client.clone());
        }
        let client = client::connect(self.kubeconfig.as_deref()).await?;
        Ok(slot.insert(client).clone())
    }

    /// Has the next client made anew, with the credentials as they are then.
    pub(super) async fn forget_client(&self) {
        *self.client.lock().await = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known, and has it published.
    pub(super) fn change(&self, change: impl FnOnce(&mut Ownership)) {
        change(&mut self.state().ownership);
        self.dirty.notify_one();
    }

    /// Takes in a pod.
    pub(super) fn pod(&self, pod: &Pod, now: Micros) {
        let mut state = self.state();
        let State { ownership, jobs } = &mut *state;
        let told = workload(pod);
        let cron = match (told, pod.controller()) {
            (Some(("Job", _)), Some(job)) => jobs.controller(job, pod),
            _ => None,
        };
        let cron = cron.as_ref().map(|(kind, name)| (kind.as_str(), name.as_str()));
        ownership.pod(pod.claim(&self.labels, cron.or(told), now), now);
        drop(state);
        self.dirty.notify_one();
    }

    /// Takes in whom a job belongs to; `None` where it stands alone, or where that stays unknown.
    pub(super) fn job(&self, uid: &str, controller: Option<&OwnerReference>) {
        let mut state = self.state();
        let State { ownership, jobs } = &mut *state;
        let known = controller.map(|it| (it.kind.clone(), it.name.clone()));
        for pod in jobs.waiting.remove(uid).unwrap_or_default() {
            if let Some((kind, name)) = &known {
                ownership.set_workload(&pod, kind, name);
            }
        }
        if jobs.known.len() >= JOBS_KNOWN {
            // Those that are still needed are asked for again.
            jobs.known.clear();
        }
        jobs.known.insert(uid.to_owned(), known);
        drop(state);
        self.dirty.notify_one();
    }

    /// Publishes what has changed, as often as that is worth it; without end.
    pub(super) async fn publish_changes(&self) {
        /// Events come in bursts, and a worker's batch takes longer than this.
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
            status.sum_up();
        });
    }

    /// A watch has its objects listed.
    pub(super) fn listed(&self, resource: &'static str) {
        // First what was listed, then that it was.
        self.publish();
        self.watch(resource, |watch| watch.lists += 1);
    }

    /// A watch follows its objects from now on.
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

    /// An event was taken in.
    pub(super) fn event(&self, resource: &'static str) {
        let now = now_us();
        self.watch(resource, |watch| {
            watch.events += 1;
            watch.last_event = Some(Moment { us: now });
        });
    }

    /// A job could not be asked for.
    pub(super) fn job_trouble(&self, trouble: &Trouble) {
        let reason = trouble.to_string();
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

    /// A watch has failed, and waits.
    pub(super) fn trouble(&self, resource: &'static str, trouble: &Trouble, wait: Duration) {
        let now = now_us();
        let reason = trouble.to_string();
        self.watch(resource, |watch| {
            // Once for each cause, not for each attempt.
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
    /// Who controls a job, if that is known; asks for it otherwise.
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
        let ask = JobQuery {
            uid: job.uid.clone(),
            namespace: metadata.namespace.clone(),
            name: job.name.clone(),
        };
        // Where too many are asked for, the pod's next event asks again.
        if self.ask.try_send(ask).is_ok() {
            self.waiting.insert(job.uid.clone(), vec![metadata.uid.clone()]);
        }
        None
    }
}

/// UTC, microseconds since 1970.
pub(super) fn now_us() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
