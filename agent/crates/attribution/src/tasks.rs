//! The tasks of the watches' thread: one for each watch, and those that look after the directory.

use std::{collections::HashSet, io, net::IpAddr, sync::Arc, time::Duration};

use tap53_base::addresses::{self, AddressChanges};
use tokio::{
    sync::{mpsc, watch as latest},
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    CAPTURE_ANNOTATION,
    address_history::End,
    client::{self, RequestError},
    object::{Node, Object as _, Pod, Service},
    selection::{Selection, Selections},
    watch::{Change, follow, next_pause},
    watch_coordinator::{JobQuery, WatchCoordinator, now_us},
};

/// Interval at which expired claims are removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// Interval at which the addresses of this host are read if the kernel does not announce changes.
const ADDRESS_INTERVAL: Duration = Duration::from_secs(30);

/// Minimum interval between two readings of the addresses of this host: a bound on what changes cost.
const MIN_ADDRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Interval between two Job queries.
const JOB_QUERY_INTERVAL: Duration = Duration::from_millis(50);

/// The interface that has the addresses of all services if kube-proxy uses IPVS.
const IPVS_INTERFACE: &str = "kube-ipvs0";

/// Runs all watches. Never returns.
pub(super) async fn run(
    coordinator: Arc<WatchCoordinator>,
    selections: Selections,
    node: String,
    annotation: latest::Sender<Option<String>>,
    queries: mpsc::Receiver<JobQuery>,
) {
    let Selections { pods, server_pods, services, nodes } = selections;
    // Spawn each separately, so that one that waits does not delay another.
    let tasks = [
        tokio::spawn({
            let coordinator = coordinator.clone();
            async move { coordinator.publish_changes().await }
        }),
        tokio::spawn(follow_pods(coordinator.clone(), pods)),
        tokio::spawn(follow_server_pods(coordinator.clone(), server_pods)),
        tokio::spawn(follow_services(coordinator.clone(), services)),
        tokio::spawn(follow_nodes(coordinator.clone(), nodes, node.clone(), annotation)),
        tokio::spawn(resolve_jobs(coordinator.clone(), queries)),
        tokio::spawn(sweep(coordinator.clone())),
        tokio::spawn(follow_local_addresses(coordinator, node)),
    ];
    for task in tasks {
        // A task ends only by a panic, which its thread has reported; the others continue.
        let _ = task.await;
    }
}

async fn follow_pods(coordinator: Arc<WatchCoordinator>, selection: Selection) {
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
    follow(&coordinator, selection, take).await;
}

/// Follows the DNS servers' pods on other nodes. Pods of this node are left to their own watch, so
/// that each pod has one watch, which alone says when it is gone.
async fn follow_server_pods(coordinator: Arc<WatchCoordinator>, selection: Option<Selection>) {
    let Some(selection) = selection else { return };
    let take = |change: Change<Pod>| {
        let now = now_us();
        match change {
            Change::Applied(pod) => coordinator.server_pod(&pod, now),
            // It was deleted, or its labels have changed.
            Change::Deleted(pod) => {
                coordinator.change(|ownership| {
                    ownership.server_pod_gone(&pod.metadata().uid, pod.end(now))
                });
            }
            Change::Listed(present) => {
                coordinator.change(|ownership| ownership.retain_server_pods(&present, now));
            }
        }
    };
    follow(&coordinator, selection, take).await;
}

async fn follow_services(coordinator: Arc<WatchCoordinator>, selection: Option<Selection>) {
    let Some(selection) = selection else { return };
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
    follow(&coordinator, selection, take).await;
}

async fn follow_nodes(
    coordinator: Arc<WatchCoordinator>,
    selection: Selection,
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
    follow(&coordinator, selection, take).await;
}

/// Queries Jobs one after the other. While the API server is unreachable the same query is retried,
/// since the next one would fail too. Results are cached.
async fn resolve_jobs(coordinator: Arc<WatchCoordinator>, mut queries: mpsc::Receiver<JobQuery>) {
    let timeouts = coordinator.timeouts();
    let mut backoff = timeouts.backoff();
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
                        sleep(next_pause(&mut backoff, error.retry_after())).await;
                        continue;
                    }
                    coordinator.job(&uid, None);
                }
            }
            break;
        }
        backoff.reset();
        sleep(JOB_QUERY_INTERVAL).await;
    }
}

/// Removes expired claims.
async fn sweep(coordinator: Arc<WatchCoordinator>) {
    let mut ticks = interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        coordinator.change(|ownership| ownership.sweep(now_us()));
    }
}

/// Reads the addresses of this host now, and whenever they change.
async fn follow_local_addresses(coordinator: Arc<WatchCoordinator>, node: String) {
    let mut changes = AddressChanges::open().map_err(|error| log_unannounced(&error)).ok();
    loop {
        // If they cannot be read, the known ones stay in use.
        if let Ok(local) = local_addresses() {
            coordinator.change(|ownership| ownership.local(&node, local));
        }
        sleep(MIN_ADDRESS_INTERVAL).await;
        match &mut changes {
            None => sleep(ADDRESS_INTERVAL).await,
            Some(following) => {
                if let Err(error) = following.changed().await {
                    log_unannounced(&error);
                    changes = None;
                }
            }
        }
    }
}

fn log_unannounced(error: &io::Error) {
    tracing::warn!(
        event = "addresses_not_announced",
        %error,
        "the kernel does not announce changes of this host's addresses: they are read every 30 s"
    );
}

/// Returns the addresses of this host's interfaces: that of a bridge, from which the host reaches
/// its pods, is not in the Node object. Link-local IPv6 addresses are useless without their
/// interface.
///
/// # Errors
/// When the kernel does not list them.
fn local_addresses() -> io::Result<Vec<IpAddr>> {
    let addresses = addresses::of_interfaces()?;
    let addresses: HashSet<IpAddr> = addresses
        .filter(|(interface, _)| interface != IPVS_INTERFACE)
        .map(|(_, address)| address)
        .filter(|address| match address {
            IpAddr::V4(_) => true,
            IpAddr::V6(address) => !address.is_unicast_link_local(),
        })
        .collect();
    Ok(addresses.into_iter().collect())
}
