//! Memory of 10,000 pods that are listed again and again, and allocations of lookups.
//!
//! The allocator counts bytes, so they are the same on every machine: live bytes, and their peak,
//! which includes a page of the stub's response and of ours.

#![allow(clippy::unwrap_used, reason = "a test: what fails here fails the test")]

mod stub_api;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use stub_api::{Part, Stub, event, list, page, stream};
use tap53_attribution::{
    Directory, Kubernetes, Status,
    config::{KubernetesConfig, NodeLocalDnsConfig, Scope, ServersConfig, Services},
};
use tap53_records::encode::{Attribution, Identity};

const PODS: usize = 10_000;
const PAGE: usize = 250;
/// Longer than the lists take in a debug build on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// Maximum memory of a pod in bytes: the figure in the documentation, rounded up.
const BYTES_PER_POD: usize = 2_500;
/// Maximum memory while a page is read: its JSON (some 1.6 MB) twice on the stub's side, once on
/// ours while it grows, and its objects.
const PEAK: usize = 16 << 20;

/// The system's allocator, with counters.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    // Neither allocates nor has a destructor, so that it may be used in an allocator.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn grown(bytes: usize) {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST.fetch_max(live, Ordering::Relaxed);
}

// SAFETY: every call is forwarded unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller upholds the contract of this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grown(size);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller upholds the contract of this function.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller upholds the contract of this function.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Serializes the tests: the counters are of the process.
static ALONE: Mutex<()> = Mutex::new(());

fn address(number: usize) -> IpAddr {
    IpAddr::from((10 << 24 | 244 << 16 | u32::try_from(number).unwrap()).to_be_bytes())
}

/// A pod of a Deployment as in a real cluster, some 6 KB, most of which is not read.
fn pod(number: usize) -> String {
    let (address, filler) = (address(number), "x".repeat(1_000));
    let managed = format!(r#"{{"manager":"kubelet","fieldsV1":{{"f:status":"{filler}"}}}}"#);
    let environment = format!(r#"{{"name":"JAVA_OPTS","value":"{filler}"}}"#);
    format!(
        r#"{{"metadata":{{"uid":"0f5a7c2e-1b7d-4a52-9c1e-{number:012}","name":"checkout-service-7d4b9c6f5-{number:05}","generateName":"checkout-service-7d4b9c6f5-","namespace":"production-eu","resourceVersion":"{number}","creationTimestamp":"2026-01-01T00:00:00Z","labels":{{"app.kubernetes.io/name":"checkout-service","app.kubernetes.io/part-of":"shop","pod-template-hash":"7d4b9c6f5"}},"annotations":{{"checksum/config":"{filler}"}},"ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"checkout-service-7d4b9c6f5","uid":"5a2c","controller":true,"blockOwnerDeletion":true}}],"managedFields":[{managed},{managed}]}},"spec":{{"nodeName":"worker-{:04}.example.internal","containers":[{{"name":"app","image":"registry.example/app:1","env":[{environment},{environment}]}}]}},"status":{{"phase":"Running","podIP":"{address}","podIPs":[{{"ip":"{address}"}}],"hostIP":"192.0.2.1","startTime":"2026-01-01T00:00:00Z","conditions":[{{"type":"PodReadyToStartContainers","status":"True","lastTransitionTime":"2026-01-01T00:00:03Z"}}],"containerStatuses":[{{"name":"app","state":{{"running":{{"startedAt":"2026-01-01T00:00:05Z"}}}}}}]}}}}"#,
        number % 100
    )
}

/// Returns the page of pods that a request selects.
fn pods(continue_token: Option<&str>) -> Vec<Part> {
    let from: usize = continue_token.map_or(0, |token| token.parse().unwrap());
    let until = (from + PAGE).min(PODS);
    let objects: Vec<String> = (from..until).map(pod).collect();
    let next = if until < PODS { until.to_string() } else { String::new() };
    page(1_000_000, &next, &objects)
}

fn waited(directory: &Directory, wanted: impl Fn(&Status) -> bool) -> Status {
    assert!(directory.wait(DEADLINE, wanted), "{:#?}", directory.status());
    directory.status()
}

#[test]
fn ten_thousand_pods_stay_within_the_documented_memory_over_many_lists() {
    const LISTS: u64 = 4;
    let _alone = ALONE.lock();
    let gone = event("ERROR", r#"{"kind":"Status","code":410,"message":"too old"}"#);
    let stub = Stub::start(move |request| match (request.resource(), request.is_watch()) {
        ("pods", false) => pods(request.parameter("continue")),
        ("pods", true) if request.number + 1 < usize::try_from(LISTS).unwrap() => {
            stream(std::slice::from_ref(&gone))
        }
        (_, false) => list(1, &[]),
        (_, true) => vec![Part::Head(200, Vec::new()), Part::Silence],
    });
    let config = KubernetesConfig {
        enabled: true,
        kubeconfig: Some(stub.kubeconfig()),
        scope: Scope::Cluster,
        labels: vec!["app.kubernetes.io/name".to_owned()],
        servers: ServersConfig::default(),
        node_local_dns: NodeLocalDnsConfig::default(),
        services: Services::None,
        nodes: false,
        cidrs: Vec::new(),
        hold: Duration::from_secs(3),
        max_addresses: 1 << 19,
    };
    let before = LIVE.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let kubernetes = Kubernetes::start(&config, "node-1").unwrap();
    let directory = kubernetes.directory();
    let of_pods = |status: &Status| status.watches.first().map_or(0, |watch| watch.lists);
    waited(&directory, |status| of_pods(status) >= 1 && status.pods == PODS);
    let first = LIVE.load(Ordering::Relaxed).saturating_sub(before);
    let status = waited(&directory, |status| of_pods(status) == LISTS && status.connected);
    assert_eq!((status.pods, status.claims, status.refused), (PODS, PODS, 0));
    let last = LIVE.load(Ordering::Relaxed).saturating_sub(before);
    let most = MOST.load(Ordering::Relaxed).saturating_sub(before);
    println!(
        "{PODS} pods of {} bytes: {first} bytes live after the first list, {last} after {LISTS}, at \
         most {most}",
        pod(1).len()
    );
    assert!(last <= PODS * BYTES_PER_POD, "{last} bytes for {PODS} pods");
    assert!(last <= first + (1 << 20), "{first} bytes, then {last}");
    assert!(most <= last + PEAK, "{most} bytes at once, of which {last} stay");
    let reader = directory.reader();
    let owner = reader.owner(address(9_999), 1_900_000_000_000_000).identity();
    assert_eq!(owner.pod_name.as_deref(), Some("checkout-service-7d4b9c6f5-09999"));
    assert_eq!(owner.workload_name.as_deref(), Some("checkout-service"));
    assert_eq!(owner.labels.as_ref().map(BTreeMap::len), Some(1));
}

#[test]
fn naming_an_address_allocates_nothing() {
    let _alone = ALONE.lock();
    let identity = |number: usize| Identity {
        attribution: Attribution::Pod,
        pod_uid: Some(number.to_string()),
        ..Default::default()
    };
    let directory =
        Directory::of_pods("node-1", (0..1_000).map(|it| (identity(it), vec![address(it)])));
    let mut reader = directory.reader();
    let before = ALLOCATIONS.get();
    let mut named = 0;
    for number in 0..2_000 {
        reader.refresh();
        reader.fetch(address(number));
        let owner = reader.owner(address(number), 1_900_000_000_000_000);
        named += usize::from(owner.identity().attribution == Attribution::Pod);
    }
    assert_eq!((named, ALLOCATIONS.get() - before), (1_000, 0));
    assert!(before > 0, "the allocator does not count");
}
