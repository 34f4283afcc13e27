//! The watch of the DNS servers' pods beside that of the node's pods.

use super::*;

/// A running pod on another node.
fn elsewhere(uid: &str, address: &str, version: u32) -> String {
    pod(uid, address, version).replace("node-1", "node-2")
}

fn start_on_node(stub: &Stub) -> Kubernetes {
    let config = KubernetesConfig { scope: Scope::Node, ..config(stub) };
    Kubernetes::start_with(&config, "node-1", LONG_TIMEOUTS).unwrap()
}

fn watch_of<'a>(status: &'a Status, name: &str) -> &'a WatchStatus {
    status.watches.iter().find(|watch| watch.resource == name).unwrap()
}

#[test]
fn servers_on_other_nodes_are_selected_by_the_api_server() {
    let stub = Stub::start(|request| match (request.resource(), request.is_watch()) {
        ("pods", false) => list(5, &[pod("a", "10.0.0.1", 1)]),
        // Both watches deliver `own`.
        ("pods", true) => silent(&[event("ADDED", &pod("own", "10.0.0.9", 6))]),
        ("server_pods", false) => list(5, &[elsewhere("dns", "10.0.1.1", 1)]),
        ("server_pods", true) => silent(&[
            event("ADDED", &pod("own", "10.0.0.9", 6)),
            event("ADDED", &elsewhere("late", "10.0.1.2", 7)),
            // Its labels have changed.
            event("DELETED", &elsewhere("dns", "10.0.1.1", 8)),
            event("DELETED", &pod("own", "10.0.0.9", 9)),
        ]),
        (_, false) => list(1, &[]),
        (_, true) => silent(&[]),
    });
    let kubernetes = start_on_node(&stub);
    let status = wait(&kubernetes, |status| {
        let events = |name| watch_of(status, name).events;
        (events("server_pods"), events("pods")) == (4, 1) && status.claims == 4
    });
    assert_eq!((status.pods, status.server_pods), (2, 1));
    for (address, uid) in [
        ("10.0.0.1", Some("a")),
        ("10.0.0.9", Some("own")),
        ("10.0.1.1", None),
        ("10.0.1.2", Some("late")),
    ] {
        assert_eq!(named(&kubernetes, address).as_deref(), uid, "{address}");
    }
    for request in [&stub.requests("server_pods", false)[0], &stub.requests("server_pods", true)[0]]
    {
        let labels = request.parameter("labelSelector").unwrap().replace("%2C", ",");
        assert_eq!(labels, "k8s-app+in+%28kube-dns,node-local-dns%29");
        assert_eq!(request.parameter("fieldSelector"), Some("spec.hostNetwork%3Dfalse"));
    }
    assert_eq!(
        stub.requests("pods", true)[0].parameter("fieldSelector"),
        Some("spec.nodeName%3Dnode-1")
    );
}

#[test]
fn a_410_of_one_watch_leaves_the_pods_of_the_other() {
    let gone = r#"{"kind":"Status","code":410,"reason":"Expired","message":"too old"}"#;
    let stub = Stub::start(move |request| {
        match (request.resource(), request.is_watch(), request.number) {
            ("pods", false, _) => list(5, &[pod("a", "10.0.0.1", 1)]),
            ("server_pods", false, 0) => {
                list(5, &[elsewhere("dns", "10.0.1.1", 1), elsewhere("old", "10.0.1.2", 1)])
            }
            ("server_pods", false, _) => list(20, &[elsewhere("dns", "10.0.1.1", 1)]),
            ("server_pods", true, 0) => silent(&[event("ERROR", gone)]),
            (_, false, _) => list(1, &[]),
            (_, true, _) => silent(&[]),
        }
    });
    let kubernetes = start_on_node(&stub);
    let status =
        wait(&kubernetes, |status| watch_of(status, "server_pods").lists == 2 && status.connected);
    assert_eq!((status.pods, status.server_pods), (1, 1));
    assert_eq!(watch_of(&status, "pods").lists, 1);
    assert_eq!(named(&kubernetes, "10.0.1.1").as_deref(), Some("dns"));
    assert_eq!(named(&kubernetes, "10.0.1.2"), None);
    assert_eq!(named(&kubernetes, "10.0.0.1").as_deref(), Some("a"));
}

#[test]
fn a_denied_watch_of_servers_is_named_and_costs_nothing_else() {
    let stub = Stub::start(|request| match (request.resource(), request.is_watch()) {
        ("server_pods", _) => answer(
            403,
            r#"{"kind":"Status","code":403,"message":"pods is forbidden: User \"it\" cannot list resource \"pods\""}"#,
        ),
        ("pods", false) => list(5, &[pod("a", "10.0.0.1", 1)]),
        (_, false) => list(5, &[]),
        (_, true) => silent(&[]),
    });
    let kubernetes = start_on_node(&stub);
    let status = wait(&kubernetes, |status| {
        watch_of(status, "server_pods").errors > 0
            && watch_of(status, "pods").connected
            && watch_of(status, "nodes").connected
    });
    let reason = status.reason.unwrap();
    assert!(reason.starts_with("server_pods: ") && reason.contains("403"), "{reason}");
    assert!(!status.connected && status.stale_since.is_none());
    assert_eq!(named(&kubernetes, "10.0.0.1").as_deref(), Some("a"));
}

#[test]
fn an_empty_selector_and_the_scope_of_the_cluster_need_no_such_watch() {
    let stub = stub_of_pods(|request| match request.is_watch() {
        false => list(5, &[]),
        true => silent(&[]),
    });
    let none = ServersConfig { selector: LabelSelector::default(), namespace: None };
    for (scope, servers) in [(Scope::Node, none), (Scope::Cluster, ServersConfig::default())] {
        let config = KubernetesConfig { scope, servers, ..config(&stub) };
        let kubernetes = Kubernetes::start_with(&config, "node-1", LONG_TIMEOUTS).unwrap();
        let status = wait(&kubernetes, |status| status.connected);
        let watches: Vec<_> = status.watches.iter().map(|watch| watch.resource).collect();
        assert_eq!(watches, ["pods", "nodes"]);
    }
    assert!(stub.requests("server_pods", false).is_empty());
}
