use serde_json::{Value, json};

use super::*;

fn pod(value: Value) -> Pod {
    serde_json::from_value(value).unwrap()
}

fn us(text: &str) -> Micros {
    text.parse::<jiff::Timestamp>().unwrap().as_microsecond()
}

const NOW: &str = "2026-01-02T03:10:00.5Z";

fn running() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "web-7d4b9c6f5-x2x4z",
            "namespace": "shop",
            "uid": "u-1",
            "resourceVersion": "7",
            "creationTimestamp": "2026-01-02T03:04:00Z",
            "labels": {"app": "web", "tier": "front", "pod-template-hash": "7d4b9c6f5"},
            "annotations": null,
            "ownerReferences": [
                {"kind": "Other", "name": "other", "uid": "o"},
                {"kind": "ReplicaSet", "name": "web-7d4b9c6f5", "uid": "r", "controller": true},
            ],
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "web", "image": "web:1"}]},
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.7",
            "podIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}],
            "hostIP": "192.0.2.10",
            "startTime": "2026-01-02T03:04:01Z",
            "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-02T03:04:09Z"},
                {
                    "type": "PodReadyToStartContainers",
                    "status": "True",
                    "lastTransitionTime": "2026-01-02T03:04:05Z",
                },
            ],
            "containerStatuses": [{
                "name": "web",
                "state": {"running": {"startedAt": "2026-01-02T03:05:00Z"}},
                "lastState": {"terminated": {
                    "startedAt": "2026-01-02T03:04:06Z",
                    "finishedAt": "2026-01-02T03:04:59Z",
                }},
            }],
        },
    })
}

fn ended(statuses: Value) -> Value {
    let mut value = running();
    value["status"]["phase"] = json!("Succeeded");
    value["status"]["containerStatuses"] = statuses;
    value
}

#[test]
fn a_pod_claims_all_its_addresses_from_when_its_network_was_ready() {
    let pod = pod(running());
    let labels = ["app".to_owned(), "missing".to_owned()];
    let claim = pod.claim(&labels, workload(&pod), us(NOW));
    assert_eq!(claim.addresses, ["10.0.0.7", "fd00::7"].map(|it| it.parse::<IpAddr>().unwrap()));
    assert_eq!(claim.start, Some(us("2026-01-02T03:04:05Z")));
    assert_eq!(claim.earliest, us("2026-01-02T03:04:01Z"));
    assert_eq!(claim.end, End::Open);
    assert!(!claim.host_network);
    assert_eq!(
        claim.identity,
        Identity {
            attribution: Attribution::Pod,
            pod_uid: Some("u-1".into()),
            pod_name: Some("web-7d4b9c6f5-x2x4z".into()),
            pod_namespace: Some("shop".into()),
            workload_kind: Some("Deployment".into()),
            workload_name: Some("web".into()),
            labels: Some(BTreeMap::from([("app".into(), "web".into())])),
            node_name: Some("node-1".into()),
            ..Default::default()
        }
    );
}

#[test]
fn without_a_condition_the_first_running_container_gives_the_start() {
    let mut value = running();
    value["status"]["conditions"] = Value::Null;
    assert_eq!(pod(value.clone()).status.had_addresses_at(), Some(us("2026-01-02T03:04:06Z")));
    value["status"]["containerStatuses"] = json!([{"state": {"waiting": {"reason": "Pulling"}}}]);
    let waiting = pod(value);
    assert_eq!(waiting.status.had_addresses_at(), None);
    assert_eq!(waiting.claim(&[], None, us(NOW)).earliest, us("2026-01-02T03:04:01Z"));
}

#[test]
fn a_pod_that_has_ended_did_so_within_its_last_containers_second() {
    let terminated = |at: &str| json!({"state": {"terminated": {"finishedAt": at}}});
    let end = |value: Value, now: &str| pod(value).claim(&[], None, us(now)).end;
    let two = json!([terminated("2026-01-02T03:06:00Z"), terminated("2026-01-02T03:07:00Z")]);
    assert_eq!(end(ended(two.clone()), NOW), End::Known(us("2026-01-02T03:07:01Z")));
    // Seen within that second: the end is no later.
    let now = "2026-01-02T03:07:00.25Z";
    assert_eq!(end(ended(two.clone()), now), End::Known(us(now)));
    // Seen before that second, by a slow clock.
    let early = "2026-01-02T03:06:59.25Z";
    assert_eq!(end(ended(two), early), End::Known(us("2026-01-02T03:07:00Z")));
    // The status has no time of the end.
    assert_eq!(end(ended(json!([])), NOW), End::By(us(NOW)));
    assert_eq!(end(ended(json!([terminated("soon")])), NOW), End::By(us(NOW)));
}

#[test]
fn a_deleted_pod_whose_containers_run_ended_by_the_time_it_was_seen() {
    assert_eq!(pod(running()).end(us(NOW)), End::By(us(NOW)));
}

#[test]
fn a_pod_in_the_host_network_names_its_nodes_addresses() {
    let mut value = running();
    value["spec"]["hostNetwork"] = json!(true);
    value["status"]["podIPs"] = json!([{"ip": "192.0.2.10"}]);
    value["status"]["podIP"] = json!("192.0.2.10");
    value["status"]["hostIPs"] = json!([{"ip": "192.0.2.10"}, {"ip": "2001:db8::10"}]);
    let claim = pod(value).claim(&[], None, us(NOW));
    assert!(claim.host_network);
    let expected = ["192.0.2.10", "2001:db8::10"].map(|it| it.parse::<IpAddr>().unwrap());
    assert_eq!(claim.addresses, expected);
}

#[test]
fn a_controller_that_is_no_deployments_replica_set_stays_as_it_is() {
    let mut value = running();
    let mut workload_of = |kind: &str, name: &str, hash: Value| {
        value["metadata"]["labels"]["pod-template-hash"] = hash;
        value["metadata"]["ownerReferences"] =
            json!([{"kind": kind, "name": name, "uid": "r", "controller": true}]);
        let pod = pod(value.clone());
        workload(&pod).map(|(kind, name)| (kind.to_owned(), name.to_owned()))
    };
    for (kind, name, hash) in [
        ("StatefulSet", "db", json!("db")),
        ("DaemonSet", "proxy", Value::String(String::new())),
        ("ReplicaSet", "bare", json!("7d4b9c6f5")),
        ("ReplicaSet", "7d4b9c6f5", json!("7d4b9c6f5")),
        ("Rollout", "web", json!("x")),
    ] {
        assert_eq!(workload_of(kind, name, hash), Some((kind.to_owned(), name.to_owned())));
    }
    value["metadata"]["ownerReferences"] = json!([{"kind": "Other", "name": "x", "uid": "x"}]);
    assert_eq!(workload(&pod(value)), None);
}

#[test]
fn services_and_nodes_name_their_addresses() {
    let metadata = json!({
        "name": "dns", "namespace": "kube-system", "uid": "s",
        "creationTimestamp": "2026-01-02T03:04:00Z",
    });
    let service = |spec: Value| -> Vec<String> {
        let service: Service =
            serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
        let claim = service.claim(us(NOW));
        assert_eq!(claim.identity.service_name.as_deref(), Some("dns"));
        assert_eq!(claim.created, us("2026-01-02T03:04:00Z"));
        claim.addresses.iter().map(ToString::to_string).collect()
    };
    let both = json!({"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd01::a"]});
    assert_eq!(service(both), ["10.96.0.10", "fd01::a"]);
    assert!(service(json!({"clusterIP": "None", "clusterIPs": ["None"]})).is_empty());
    assert!(service(json!({"type": "ExternalName"})).is_empty());
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": "node-1", "annotations": {"tap53.io/capture": "on"}},
        "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "2001:db8:1::/64"]},
        "status": {"addresses": [
            {"type": "InternalIP", "address": "192.0.2.10"},
            {"type": "Hostname", "address": "node-1"},
        ]},
    }))
    .unwrap();
    assert_eq!(node.annotation("tap53.io/capture").map(String::as_str), Some("on"));
    let claim = node.claim();
    assert_eq!(claim.addresses, [IpAddr::from([192, 0, 2, 10])]);
    assert_eq!(claim.ranges.len(), 3);
}

#[test]
fn only_a_host_network_pod_of_the_servers_namespace_is_the_nodes_cache() {
    let selector = LabelSelector::parse("app=web").unwrap();
    let mut value = running();
    assert!(!pod(value.clone()).is_node_cache(&selector, None));
    value["spec"]["hostNetwork"] = true.into();
    let host_network = pod(value.clone());
    assert!(host_network.is_node_cache(&selector, None));
    assert!(host_network.is_node_cache(&selector, Some("shop")));
    assert!(!host_network.is_node_cache(&selector, Some("kube-system")));
    assert!(!host_network.is_node_cache(&LabelSelector::default(), None));
    value["metadata"]["labels"]["app"] = "other".into();
    assert!(!pod(value).is_node_cache(&selector, None));
}
