//! The watches against a stub that fails in every way; the integration tests use a real API server.

mod servers;

use std::time::Instant;

use tap53_records::encode::Attribution;

use super::{
    stub::{Part, Request, Stub, answer, event, list, page, pod, stream},
    watch_coordinator::now_us,
    *,
};
use crate::config::{NodeLocalDnsConfig, ServersConfig, Services};

const DEADLINE: Duration = Duration::from_secs(30);

/// Short timeouts, so that a test takes no longer than it must.
const SHORT_TIMEOUTS: Timeouts = Timeouts {
    response: Duration::from_millis(400),
    idle: Duration::from_millis(400),
    initial_backoff: Duration::from_millis(20),
    max_backoff: Duration::from_millis(200),
};

fn config(stub: &Stub) -> KubernetesConfig {
    KubernetesConfig {
        enabled: true,
        kubeconfig: Some(stub.kubeconfig()),
        scope: Scope::Cluster,
        labels: Vec::new(),
        servers: ServersConfig::default(),
        node_local_dns: NodeLocalDnsConfig::default(),
        services: Services::None,
        nodes: false,
        cidrs: Vec::new(),
        hold: Duration::from_secs(3),
        max_addresses: 100_000,
    }
}

/// A stub with scripted pods and no nodes, whose watch is silent.
fn stub_of_pods(script: impl Fn(&Request) -> Vec<Part> + Send + Sync + 'static) -> Stub {
    Stub::start(move |request| match (request.resource(), request.is_watch()) {
        ("pods", _) => script(request),
        (_, false) => list(1, &[]),
        (_, true) => silent(&[]),
    })
}

/// Sends these events, and then nothing.
fn silent(events: &[String]) -> Vec<Part> {
    let mut parts = stream(events);
    parts.push(Part::Silence);
    parts
}

/// Long timeouts, for tests in which silence is no failure.
const LONG_TIMEOUTS: Timeouts =
    Timeouts { response: Duration::from_secs(60), idle: Duration::from_secs(60), ..SHORT_TIMEOUTS };

fn start(stub: &Stub, timeouts: Timeouts) -> Kubernetes {
    Kubernetes::start_with(&config(stub), "node-1", timeouts).unwrap()
}

fn wait(kubernetes: &Kubernetes, wanted: impl Fn(&Status) -> bool) -> Status {
    let there = kubernetes.directory.wait(DEADLINE, wanted);
    let status = kubernetes.directory.status();
    assert!(there, "{status:#?}");
    status
}

fn pods_of(status: &Status) -> &WatchStatus {
    status.watches.iter().find(|watch| watch.resource == "pods").unwrap()
}

/// Returns the UID of the pod that has an address now.
fn named(kubernetes: &Kubernetes, address: &str) -> Option<String> {
    let reader = kubernetes.directory.reader();
    let owner = reader.owner(address.parse().unwrap(), now_us());
    owner.identity().pod_uid.clone()
}

#[test]
fn listed_and_later_pods_are_named() {
    let stub = stub_of_pods(|request| match (request.is_watch(), request.parameter("continue")) {
        (false, None) => page(5, "more", &[pod("a", "10.0.0.1", 1), pod("b", "10.0.0.2", 2)]),
        (false, Some("more")) => page(5, "", &[pod("c", "10.0.0.3", 3)]),
        (false, other) => panic!("no page {other:?}"),
        (true, _) => silent(&[
            event("ADDED", &pod("d", "10.0.0.4", 6)),
            event("DELETED", &pod("b", "10.0.0.2", 7)),
            event("BOOKMARK", r#"{"metadata":{"resourceVersion":"9"}}"#),
        ]),
    });
    let kubernetes = start(&stub, LONG_TIMEOUTS);
    let status =
        wait(&kubernetes, |status| status.connected && status.claims == 4 && status.pods == 3);
    assert_eq!((status.lists, status.errors, &status.reason), (2, 0, &None));
    assert!(status.last_event.is_some() && status.stale_since.is_none());
    for (address, uid) in [("10.0.0.1", "a"), ("10.0.0.3", "c"), ("10.0.0.4", "d")] {
        assert_eq!(named(&kubernetes, address).as_deref(), Some(uid));
    }
    assert_eq!(named(&kubernetes, "10.0.0.2"), None);
    assert_eq!(stub.requests("pods", true)[0].parameter("resourceVersion"), Some("5"));
}

#[test]
fn a_410_in_mid_stream_repeats_the_list_and_keeps_recent_history() {
    let gone = r#"{"kind":"Status","code":410,"reason":"Expired","message":"too old"}"#;
    let stub = stub_of_pods(move |request| match (request.is_watch(), request.number) {
        (false, 0) => list(5, &[pod("a", "10.0.0.1", 1), pod("b", "10.0.0.2", 2)]),
        (true, 0) => silent(&[event("MODIFIED", &pod("a", "10.0.0.1", 6)), event("ERROR", gone)]),
        // `a` was deleted meanwhile.
        (false, _) => list(20, &[pod("b", "10.0.0.2", 2)]),
        (true, _) => silent(&[]),
    });
    let before = now_us();
    let kubernetes = start(&stub, LONG_TIMEOUTS);
    let status = wait(&kubernetes, |status| pods_of(status).lists == 2 && status.connected);
    assert_eq!((status.pods, status.errors), (1, 1));
    assert_eq!(stub.requests("pods", true)[1].parameter("resourceVersion"), Some("20"));
    assert_eq!(named(&kubernetes, "10.0.0.1"), None);
    let reader = kubernetes.directory.reader();
    let owner = reader.owner("10.0.0.1".parse().unwrap(), before);
    assert_eq!(owner.identity().pod_uid.as_deref(), Some("a"));
}

#[test]
fn a_watch_refused_with_410_repeats_the_list() {
    let stub = stub_of_pods(|request| match (request.is_watch(), request.number) {
        (false, number) => list(5 + u32::try_from(number).unwrap(), &[]),
        (true, 0) => answer(410, r#"{"kind":"Status","code":410,"message":"too old"}"#),
        (true, _) => silent(&[]),
    });
    let kubernetes = start(&stub, LONG_TIMEOUTS);
    wait(&kubernetes, |status| status.connected && pods_of(status).lists == 2);
}

#[test]
fn a_stream_cut_within_an_event_is_taken_up_from_the_event_before() {
    let stub = stub_of_pods(|request| match (request.is_watch(), request.number) {
        (false, _) => list(5, &[]),
        (true, 0) => {
            let mut parts = stream(&[event("ADDED", &pod("a", "10.0.0.1", 6))]);
            parts.push(Part::Chunk(br#"{"type":"ADDED","object":{"metad"#.to_vec()));
            parts.push(Part::Cut);
            parts
        }
        (true, 1) => {
            // The same with a premature end of the body, as a proxy causes it.
            let mut parts = stream(&[event("ADDED", &pod("b", "10.0.0.2", 7))]);
            parts.push(Part::Chunk(br#"{"type":"ADDED","object":{"metad"#.to_vec()));
            parts
        }
        (true, _) => silent(&[event("ADDED", &pod("c", "10.0.0.3", 8))]),
    });
    let kubernetes = start(&stub, LONG_TIMEOUTS);
    let status = wait(&kubernetes, |status| status.pods == 3 && status.connected);
    assert_eq!((pods_of(&status).lists, pods_of(&status).errors), (1, 2));
    let versions: Vec<_> = stub
        .requests("pods", true)
        .iter()
        .map(|request| request.parameter("resourceVersion").unwrap().to_owned())
        .collect();
    assert_eq!(versions, ["5", "6", "7"]);
}

#[test]
fn an_invalid_event_repeats_the_list() {
    for broken in [
        "{\"type\":\"ADDED\"",
        "no json",
        "{\"type\":\"NEW\",\"object\":{}}",
        "{\"type\":\"ADDED\",\"object\":7}",
    ] {
        let stub = stub_of_pods(move |request| match (request.is_watch(), request.number) {
            (false, 0) => list(5, &[]),
            (true, 0) => silent(&[broken.to_owned()]),
            (false, _) => list(20, &[pod("a", "10.0.0.1", 6)]),
            (true, _) => silent(&[]),
        });
        let kubernetes = start(&stub, LONG_TIMEOUTS);
        let status = wait(&kubernetes, |status| status.connected && status.pods == 1);
        assert_eq!((pods_of(&status).lists, pods_of(&status).errors), (2, 1), "{broken}");
    }
}

#[test]
fn a_silent_server_is_noticed_at_each_step_and_known_owners_stay() {
    let stub = stub_of_pods(|request| match (request.is_watch(), request.number) {
        // Silence at once; after half a list; after a list.
        (false, 0) => vec![Part::Silence],
        (false, 1) => {
            vec![Part::Head(200, Vec::new()), Part::Chunk(b"{\"items\":[".to_vec()), Part::Silence]
        }
        (false, _) => list(5, &[pod("a", "10.0.0.1", 1)]),
        (true, 0) => silent(&[event("ADDED", &pod("b", "10.0.0.2", 6))]),
        (true, _) => vec![Part::Silence],
    });
    let kubernetes = start(&stub, SHORT_TIMEOUTS);
    stub.wait_for("pods", true, 3);
    let status = wait(&kubernetes, |status| pods_of(status).errors >= 4);
    let reason = pods_of(&status).reason.clone().unwrap();
    assert!(reason.contains("sent nothing"), "{reason}");
    assert!(status.stale_since.is_some() && !status.connected);
    assert_eq!(status.reason.unwrap(), format!("pods: {reason}"));
    assert_eq!(named(&kubernetes, "10.0.0.1").as_deref(), Some("a"));
    assert_eq!(named(&kubernetes, "10.0.0.2").as_deref(), Some("b"));
    // The list was not repeated.
    assert_eq!(pods_of(&kubernetes.directory.status()).lists, 1);
}

#[test]
fn a_retry_after_header_is_respected() {
    let stub = stub_of_pods(|request| match (request.is_watch(), request.number) {
        (false, 0) => {
            let after = vec![("retry-after", "1".to_owned())];
            vec![Part::Head(429, after), Part::Chunk(b"slow down".to_vec())]
        }
        (false, _) => list(5, &[]),
        (true, _) => silent(&[]),
    });
    let kubernetes = start(&stub, LONG_TIMEOUTS);
    let waiting = wait(&kubernetes, |status| pods_of(status).errors == 1);
    let reason = pods_of(&waiting).reason.clone().unwrap();
    assert!(reason.contains("429"), "{reason}");
    // It was never connected, so nothing is stale.
    assert!(waiting.stale_since.is_none());
    wait(&kubernetes, |status| status.connected);
    let requests = stub.requests("pods", false);
    assert!(requests[1].at - requests[0].at >= Duration::from_secs(1));
}

#[test]
fn a_server_that_ends_each_stream_at_once_is_queried_with_backoff() {
    let stub = stub_of_pods(|request| match request.is_watch() {
        false => list(5, &[]),
        true => stream(&[]),
    });
    let kubernetes = start(&stub, LONG_TIMEOUTS);
    let requests = stub.wait_for("pods", true, 12);
    // 10, 20, 40, 80 ms, then 100 ms or more: half of each is certain.
    let took = requests[11].at - requests[0].at;
    assert!(took >= Duration::from_millis(750), "{took:?}");
    let status = kubernetes.directory.status();
    assert_eq!(pods_of(&status).lists, 1);
}

#[test]
fn credentials_are_read_again_after_a_refusal() {
    let stub = stub_of_pods(|request| {
        if request.authorization != "Bearer second" {
            return answer(401, r#"{"kind":"Status","code":401,"message":"Unauthorized"}"#);
        }
        if request.is_watch() { silent(&[]) } else { list(5, &[pod("a", "10.0.0.1", 1)]) }
    });
    let kubernetes = start(&stub, LONG_TIMEOUTS);
    let status = wait(&kubernetes, |status| pods_of(status).errors > 0);
    let reason = pods_of(&status).reason.clone().unwrap();
    assert!(reason.contains("credentials") && reason.contains("401"), "{reason}");
    stub.set_token("second");
    // This is sooner than the minute after which the file is read again anyway.
    wait(&kubernetes, |status| status.connected && status.pods == 1);
}

#[test]
fn one_watch_that_is_denied_leaves_the_others_alone() {
    let stub = Stub::start(|request| match (request.resource(), request.is_watch()) {
        ("nodes", _) => answer(
            403,
            r#"{"kind":"Status","code":403,"message":"nodes is forbidden: User \"it\" cannot list resource \"nodes\""}"#,
        ),
        ("pods", false) => list(5, &[pod("a", "10.0.0.1", 1)]),
        (_, false) => list(5, &[]),
        (_, true) => silent(&[]),
    });
    let kubernetes = start(&stub, LONG_TIMEOUTS);
    let status = wait(&kubernetes, |status| {
        status.pods == 1 && pods_of(status).connected && status.errors > 0
    });
    assert!(!status.connected);
    let reason = status.reason.unwrap();
    assert!(reason.starts_with("nodes: ") && reason.contains("cannot list"), "{reason}");
    assert_eq!(named(&kubernetes, "10.0.0.1").as_deref(), Some("a"));
}

#[test]
fn without_an_api_server_the_status_reports_it_and_dropping_is_fast() {
    let config = KubernetesConfig {
        kubeconfig: Some("/nowhere/kubeconfig".into()),
        ..config(&stub_of_pods(|_| Vec::new()))
    };
    let kubernetes = Kubernetes::start_with(&config, "node-1", SHORT_TIMEOUTS).unwrap();
    let status = wait(&kubernetes, |status| status.errors > 2);
    assert!(status.reason.unwrap().contains("/nowhere/kubeconfig"));
    let reader = kubernetes.directory.reader();
    let owner = reader.owner("10.0.0.1".parse().unwrap(), now_us());
    assert_eq!(owner.identity().attribution, Attribution::Unknown);
    let began = Instant::now();
    drop(kubernetes);
    assert!(began.elapsed() < Duration::from_secs(5));
}

/// The Job `nightly-1`, which a CronJob has created.
const JOB_OF_CRON_JOB: &str = r#"{"metadata":{"uid":"uid-nightly-1","name":"nightly-1","ownerReferences":[{"kind":"CronJob","name":"nightly","uid":"c","controller":true}]}}"#;

/// Returns a running pod that a Job controls.
fn pod_of_job(uid: &str, address: &str, job: &str) -> String {
    let owner = format!(
        r#""ownerReferences":[{{"kind":"Job","name":"{job}","uid":"uid-{job}","controller":true}}],"namespace""#
    );
    pod(uid, address, 1).replace(r#""namespace""#, &owner)
}

/// Returns the kind and name of the workload that has an address now.
fn workload_of(kubernetes: &Kubernetes, address: &str) -> (String, String) {
    let reader = kubernetes.directory.reader();
    let identity = reader.owner(address.parse().unwrap(), now_us()).identity().clone();
    (identity.workload_kind.unwrap_or_default(), identity.workload_name.unwrap_or_default())
}

fn wait_for_workload(kubernetes: &Kubernetes, address: &str, kind: &str, name: &str) {
    let deadline = Instant::now() + DEADLINE;
    while workload_of(kubernetes, address) != (kind.to_owned(), name.to_owned()) {
        let found = workload_of(kubernetes, address);
        assert!(Instant::now() < deadline, "{address} is of {found:?}");
        thread::yield_now();
    }
}

#[test]
fn a_job_is_queried_once_and_its_pods_belong_to_its_cron_job() {
    let stub = Stub::start(move |request| match (request.resource(), request.is_watch()) {
        ("jobs", _) if request.target.ends_with("/nightly-1") => answer(200, JOB_OF_CRON_JOB),
        ("jobs", _) if request.target.ends_with("/once") => {
            answer(200, r#"{"metadata":{"uid":"uid-once","name":"once"}}"#)
        }
        ("jobs", _) => answer(404, r#"{"kind":"Status","code":404,"message":"not found"}"#),
        ("pods", false) => list(
            5,
            &[
                pod_of_job("a", "10.0.0.1", "nightly-1"),
                pod_of_job("b", "10.0.0.2", "nightly-1"),
                pod_of_job("c", "10.0.0.3", "once"),
                pod_of_job("d", "10.0.0.4", "gone"),
            ],
        ),
        ("pods", true) => silent(&[event("MODIFIED", &pod_of_job("a", "10.0.0.1", "nightly-1"))]),
        (_, false) => list(5, &[]),
        (_, true) => silent(&[]),
    });
    let kubernetes = start(&stub, LONG_TIMEOUTS);
    stub.wait_for("jobs", false, 3);
    for (address, kind, name) in [
        ("10.0.0.1", "CronJob", "nightly"),
        ("10.0.0.2", "CronJob", "nightly"),
        ("10.0.0.3", "Job", "once"),
        ("10.0.0.4", "Job", "gone"),
    ] {
        wait_for_workload(&kubernetes, address, kind, name);
    }
    assert_eq!(stub.requests("jobs", false).len(), 3);
    assert_eq!(kubernetes.directory.status().jobs_failed, 0);
}

#[test]
fn a_job_query_is_retried_after_a_broken_connection_and_not_after_a_refusal() {
    let stub = Stub::start(move |request| match (request.resource(), request.is_watch()) {
        ("jobs", _) if request.target.ends_with("/denied") => {
            answer(403, r#"{"kind":"Status","code":403,"message":"denied"}"#)
        }
        ("jobs", _) if request.number < 3 => vec![Part::Head(200, Vec::new()), Part::Cut],
        ("jobs", _) => answer(200, JOB_OF_CRON_JOB),
        ("pods", false) => list(
            5,
            &[pod_of_job("a", "10.0.0.1", "denied"), pod_of_job("b", "10.0.0.2", "nightly-1")],
        ),
        (_, false) => list(5, &[]),
        (_, true) => silent(&[]),
    });
    let kubernetes = start(&stub, LONG_TIMEOUTS);
    wait_for_workload(&kubernetes, "10.0.0.2", "CronJob", "nightly");
    // Refused once, cut twice, then answered.
    assert_eq!(stub.requests("jobs", false).len(), 4);
    assert_eq!(kubernetes.directory.status().jobs_failed, 3);
}

#[test]
fn the_annotation_of_this_node_is_handed_on_as_it_changes() {
    let node = |name: &str, value: &str, version: u32| {
        format!(
            r#"{{"metadata":{{"uid":"{name}","name":"{name}","resourceVersion":"{version}","annotations":{{{value}}}}},"status":{{"addresses":[{{"type":"InternalIP","address":"192.0.2.1"}}]}}}}"#
        )
    };
    let events = [
        event("MODIFIED", &node("node-1", r#""tap53.io/capture":"eth0=on""#, 6)),
        event("MODIFIED", &node("node-2", r#""tap53.io/capture":"other""#, 7)),
        event("MODIFIED", &node("node-1", r#""tap53.io/capture":"eth0=on""#, 8)),
        event("MODIFIED", &node("node-1", "", 9)),
        event("MODIFIED", &node("node-1", r#""tap53.io/capture":"last""#, 10)),
    ];
    let first = node("node-1", "", 1);
    let stub = Stub::start(move |request| match (request.resource(), request.is_watch()) {
        ("nodes", false) => list(5, std::slice::from_ref(&first)),
        ("nodes", true) => silent(&events),
        (_, false) => list(5, &[]),
        (_, true) => silent(&[]),
    });
    let kubernetes = start(&stub, LONG_TIMEOUTS);
    let mut annotation = kubernetes.capture_annotation();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let last = annotation.wait_for(|value| value.as_deref() == Some("last"));
        tokio::time::timeout(DEADLINE, last).await.unwrap().unwrap();
    });
    let reader = kubernetes.directory.reader();
    let owner = reader.owner("192.0.2.1".parse().unwrap(), now_us());
    assert_eq!(owner.identity().attribution, Attribution::Node);
}
