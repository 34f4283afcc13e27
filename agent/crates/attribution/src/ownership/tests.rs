//! Scripted orders of events for each rule.

mod random;
mod servers;

use tap53_records::encode::{Attribution, Identity};

use super::{eviction::HISTORY, *};
use crate::index::SHARDS;

const SECOND: Micros = 1_000_000;

/// Returns a time within the script, in seconds since a start that is not zero.
fn at(seconds: i64) -> Micros {
    1_800_000_000 * SECOND + seconds * SECOND
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 244, 1, last])
}

const NODE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10));

fn ownership() -> Ownership {
    Ownership::new("node-1", Limits { claims: 1_000 }, &[], Hold::default())
}

fn identity(uid: &str) -> Identity {
    Identity {
        attribution: Attribution::Pod,
        pod_uid: Some(uid.to_owned()),
        pod_name: Some(format!("pod-{uid}")),
        node_name: Some("node-1".to_owned()),
        ..Default::default()
    }
}

/// A running pod with a known start.
fn running(uid: &str, addresses: &[IpAddr], start: Micros) -> PodClaim {
    PodClaim {
        uid: uid.to_owned(),
        identity: identity(uid),
        addresses: addresses.to_vec(),
        host_network: false,
        is_node_cache: false,
        start: Some(start),
        earliest: start - SECOND,
        end: End::Open,
        containers: Vec::new(),
        manifest_hash: None,
    }
}

/// A pod that has an address since an unknown time.
fn pending(uid: &str, addresses: &[IpAddr], earliest: Micros) -> PodClaim {
    PodClaim { start: None, earliest, ..running(uid, addresses, earliest) }
}

/// The same pod after its end.
fn ended(pod: &PodClaim, end: End) -> PodClaim {
    PodClaim { end, ..pod.clone() }
}

/// Returns the pod's UID, the service's name, or else the attribution.
fn named(ownership: &mut Ownership, address: IpAddr, at: Micros) -> String {
    ownership.changed = true;
    let snapshot = ownership.snapshot().unwrap();
    let identity = snapshot.owner(address, at).identity().clone();
    match identity.attribution {
        Attribution::Pod => identity.pod_uid.unwrap(),
        Attribution::Service => identity.service_name.unwrap(),
        Attribution::AmbiguousHostNetwork => {
            format!("ambiguous on {}", identity.node_name.unwrap())
        }
        Attribution::Node => format!("node {}", identity.node_name.unwrap()),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_pod_has_all_its_addresses() {
    let mut it = ownership();
    let v6: IpAddr = "2001:db8::7".parse().unwrap();
    it.pod(running("a", &[address(7), v6], at(0)), at(1));
    for address in [address(7), v6] {
        assert_eq!(named(&mut it, address, at(0)), "a");
        assert_eq!(named(&mut it, address, at(-1)), "Unknown");
    }
    assert_eq!(it.counts(), Counts { pods: 1, claims: 2, ..Default::default() });
}

#[test]
fn a_completed_pod_frees_its_address_without_a_delete_event() {
    let mut it = ownership();
    let a = running("a", &[address(7)], at(0));
    it.pod(a.clone(), at(1));
    it.pod(ended(&a, End::Known(at(10))), at(11));
    assert_eq!(named(&mut it, address(7), at(9)), "a");
    assert_eq!(named(&mut it, address(7), at(10)), "Unknown");
    assert_eq!(it.counts().pods, 0);
    it.pod(running("b", &[address(7)], at(20)), at(21));
    // Completed pods stay in the API for days, and their labels still change.
    it.pod(ended(&a, End::Known(at(10))), at(30));
    it.object_deleted("a", End::By(at(40)));
    for (time, owner) in [(9, "a"), (15, "Unknown"), (20, "b"), (50, "b")] {
        assert_eq!(named(&mut it, address(7), at(time)), owner, "at {time}");
    }
}

#[test]
fn a_late_delete_does_not_evict_the_new_owner() {
    let mut it = ownership();
    it.pod(running("a", &[address(7)], at(0)), at(1));
    it.pod(running("b", &[address(7)], at(20)), at(21));
    assert_eq!(named(&mut it, address(7), at(25)), "b");
    it.object_deleted("a", End::By(at(60)));
    for (time, owner) in [(0, "a"), (19, "a"), (20, "b"), (59, "b"), (61, "b")] {
        assert_eq!(named(&mut it, address(7), at(time)), owner, "at {time}");
    }
    // A later event of the old pod does not either.
    it.pod(running("a", &[address(7)], at(0)), at(70));
    assert_eq!(named(&mut it, address(7), at(70)), "b");
}

#[test]
fn a_graceful_deletion_keeps_the_address_until_the_end() {
    let mut it = ownership();
    let a = running("a", &[address(7)], at(0));
    it.pod(a.clone(), at(1));
    // The same object with a deletionTimestamp: no field that is read has changed.
    it.pod(a, at(5));
    assert_eq!(named(&mut it, address(7), at(30)), "a");
    it.object_deleted("a", End::Known(at(35)));
    assert_eq!(named(&mut it, address(7), at(34)), "a");
    assert_eq!(named(&mut it, address(7), at(36)), "Unknown");
}

#[test]
fn the_new_owner_does_not_begin_before_the_old_one_ended() {
    let mut it = ownership();
    let a = running("a", &[address(7)], at(0));
    it.pod(a.clone(), at(1));
    // The kubelet accepted it long before it got the address, which `a` had to release first.
    it.pod(pending("b", &[address(7)], at(2)), at(30));
    it.pod(ended(&a, End::Known(at(20))), at(31));
    for (time, owner) in [(2, "a"), (19, "a"), (20, "b"), (29, "b")] {
        assert_eq!(named(&mut it, address(7), at(time)), owner, "at {time}");
    }
    // According to a slow clock it began before.
    it.pod(running("b", &[address(7)], at(15)), at(32));
    assert_eq!(named(&mut it, address(7), at(19)), "a");
    assert_eq!(named(&mut it, address(7), at(20)), "b");
}

#[test]
fn a_start_that_becomes_known_late_counts_from_when_it_was() {
    let mut it = ownership();
    it.pod(running("a", &[address(7)], at(0)), at(1));
    it.object_deleted("a", End::By(at(90)));
    it.pod(pending("b", &[address(7)], at(5)), at(91));
    assert_eq!(named(&mut it, address(7), at(60)), "a");
    it.pod(running("b", &[address(7)], at(50)), at(92));
    assert_eq!(named(&mut it, address(7), at(60)), "b");
    assert_eq!(named(&mut it, address(7), at(49)), "a");
}

#[test]
fn a_list_replaces_the_known_pods_and_keeps_recent_history() {
    let mut it = ownership();
    it.pod(running("a", &[address(7)], at(0)), at(1));
    it.pod(running("c", &[address(9)], at(0)), at(1));
    // The watch was disconnected; `a` was deleted, `b` has its address.
    it.pod(running("b", &[address(7)], at(20)), at(60));
    it.retain_pods(&["b".to_owned(), "c".to_owned()].into(), at(60));
    for (time, owner) in [(0, "a"), (19, "a"), (20, "b"), (70, "b")] {
        assert_eq!(named(&mut it, address(7), at(time)), owner, "at {time}");
    }
    assert_eq!(named(&mut it, address(9), at(70)), "c");
    it.retain_pods(&HashSet::new(), at(80));
    assert_eq!(named(&mut it, address(9), at(79)), "c");
    assert_eq!(named(&mut it, address(9), at(80)), "Unknown");
    assert_eq!(it.counts().pods, 0);
}

#[test]
fn host_network_pods_never_claim_the_nodes_address() {
    let mut it = ownership();
    let host = |uid: &str, start| PodClaim { host_network: true, ..running(uid, &[NODE], start) };
    it.pod(host("a", at(0)), at(1));
    assert_eq!(named(&mut it, NODE, at(5)), "ambiguous on node-1");
    it.pod(host("b", at(10)), at(11));
    it.pod(ended(&host("a", at(0)), End::Known(at(20))), at(20));
    assert_eq!(named(&mut it, NODE, at(25)), "ambiguous on node-1");
    it.object_deleted("b", End::Known(at(30)));
    // At a time before the end, also when recorded after the last of them ended.
    assert_eq!(named(&mut it, NODE, at(29)), "ambiguous on node-1");
    assert_eq!(named(&mut it, NODE, at(30)), "node node-1");
}

#[test]
fn a_host_network_pod_may_use_every_address_of_its_node() {
    let mut it = ownership();
    let (bridge, v6) = (IpAddr::from([10, 244, 1, 1]), "2001:db8::10".parse::<IpAddr>().unwrap());
    it.local("node-1", vec![bridge]);
    it.node(NodeClaim { name: "node-1".into(), addresses: vec![NODE, v6], ranges: Vec::new() });
    it.node(NodeClaim { name: "node-2".into(), addresses: vec![address(2)], ranges: Vec::new() });
    for address in [NODE, v6, bridge] {
        assert_eq!(named(&mut it, address, at(5)), "node node-1");
    }
    it.pod(PodClaim { host_network: true, ..running("a", &[NODE], at(0)) }, at(1));
    for address in [NODE, v6, bridge] {
        assert_eq!(named(&mut it, address, at(5)), "ambiguous on node-1");
    }
    assert_eq!(named(&mut it, address(2), at(5)), "node node-2");
    // The address moves to another Node object; the pod still claims it.
    it.node_deleted("node-1");
    assert_eq!(named(&mut it, NODE, at(5)), "ambiguous on node-1");
    assert_eq!(named(&mut it, v6, at(5)), "External");
    it.object_deleted("a", End::By(at(6)));
    it.sweep(at(7) + RETENTION_US);
    assert_eq!(named(&mut it, NODE, at(5)), "External");
    it.local("node-1", Vec::new());
    it.node_deleted("node-2");
    assert!(it.addresses.is_empty(), "{:?}", it.addresses.keys());
}

#[test]
fn a_pod_goes_before_a_service_and_that_before_a_node() {
    let mut it = ownership();
    let service = |name: &str, addresses: Vec<IpAddr>| ServiceClaim {
        uid: format!("service-{name}"),
        identity: Identity {
            attribution: Attribution::Service,
            service_name: Some(name.to_owned()),
            ..Default::default()
        },
        addresses,
        created: at(10),
    };
    it.node(NodeClaim { name: "node-1".into(), addresses: vec![NODE], ranges: Vec::new() });
    it.service(service("dns", vec![NODE]), at(11));
    it.pod(running("a", &[NODE], at(20)), at(20));
    it.object_deleted("a", End::Known(at(30)));
    for (time, owner) in [(5, "node node-1"), (15, "dns"), (25, "a"), (35, "dns")] {
        assert_eq!(named(&mut it, NODE, at(time)), owner, "at {time}");
    }
    // A headless service claims no address.
    it.service(service("headless", Vec::new()), at(11));
    assert_eq!(it.counts().services, 1);
    it.retain_services(&HashSet::new(), at(40));
    assert_eq!(named(&mut it, NODE, at(50)), "node node-1");
    assert_eq!(it.counts().services, 0);
}

#[test]
fn a_pod_with_a_new_sandbox_moves_to_another_address() {
    let mut it = ownership();
    it.pod(running("a", &[address(7)], at(0)), at(1));
    // It has no address for a moment.
    it.pod(running("a", &[], at(0)), at(9));
    assert_eq!(named(&mut it, address(7), at(9)), "a");
    it.pod(running("a", &[address(8)], at(0)), at(10));
    assert_eq!(named(&mut it, address(7), at(9)), "a");
    assert_eq!(named(&mut it, address(7), at(10)), "Unknown");
    assert_eq!(named(&mut it, address(8), at(11)), "a");
    // It gets the first address again.
    it.pod(running("a", &[address(7)], at(0)), at(20));
    assert_eq!(named(&mut it, address(7), at(25)), "a");
}

#[test]
fn a_pod_that_ended_before_it_was_seen_claims_only_known_times() {
    let mut it = ownership();
    let a = running("a", &[address(7)], at(0));
    // It reports no end, and was never seen running.
    it.pod(ended(&a, End::By(at(500))), at(500));
    assert_eq!(named(&mut it, address(7), at(100)), "Unknown");
    // It ended days ago.
    it.pod(ended(&a, End::Known(at(10))), at(10) + 2 * RETENTION_US);
    assert_eq!(it.counts(), Counts::default());
    // It ended a moment ago: transactions with it may still be waiting.
    it.pod(ended(&a, End::Known(at(10))), at(12));
    assert_eq!(named(&mut it, address(7), at(9)), "a");
    assert_eq!(it.counts(), Counts { claims: 1, ..Default::default() });
}

#[test]
fn a_workload_that_becomes_known_later_is_in_every_look_up_from_then_on() {
    let mut it = ownership();
    it.pod(running("a", &[address(7)], at(0)), at(1));
    it.set_workload("a", "CronJob", "nightly");
    it.changed = true;
    let snapshot = it.snapshot().unwrap();
    let identity = snapshot.owner(address(7), at(0)).identity();
    assert_eq!(identity.workload_kind.as_deref(), Some("CronJob"));
    assert_eq!(identity.workload_name.as_deref(), Some("nightly"));
    it.set_workload("nobody", "CronJob", "nightly");
}

#[test]
fn unchanged_owners_are_neither_encoded_nor_published_again() {
    let mut it = ownership();
    it.pod(running("a", &[address(7)], at(0)), at(1));
    let owner = it.holders["a"].owner.clone();
    it.pod(running("a", &[address(7)], at(0)), at(2));
    assert!(std::ptr::eq(owner.identity(), it.holders["a"].owner.identity()));
    let first = it.snapshot().unwrap();
    it.pod(running("a", &[address(7)], at(0)), at(3));
    assert!(it.snapshot().is_none());
    it.pod(running("b", &[address(8)], at(0)), at(3));
    let second = it.snapshot().unwrap();
    let both = first.shards.iter().zip(second.shards.iter());
    let shared = both.filter(|(first, second)| Arc::ptr_eq(first, second)).count();
    assert_eq!(shared, SHARDS - 1, "one shard is copied for one address");
}

#[test]
fn ended_claims_are_kept_for_the_retention_time() {
    let mut it = ownership();
    it.pod(running("a", &[address(7)], at(0)), at(1));
    it.object_deleted("a", End::By(at(10)));
    it.sweep(at(9) + RETENTION_US);
    assert_eq!(named(&mut it, address(7), at(5)), "a");
    it.sweep(at(10) + RETENTION_US);
    assert_eq!(named(&mut it, address(7), at(5)), "Unknown");
    assert_eq!(it.counts(), Counts::default());
    assert!(it.addresses.is_empty() && it.holders.is_empty());
}

#[test]
fn an_address_keeps_its_last_owners_and_counts_the_others() {
    let mut it = ownership();
    for number in 0..20 {
        let start = i64::from(number) * 10;
        let pod = running(&format!("{number:02}"), &[address(7)], at(start));
        it.pod(pod.clone(), at(start + 1));
        it.pod(ended(&pod, End::Known(at(start + 9))), at(start + 9));
    }
    assert_eq!(it.counts().history_evicted, 20 - HISTORY as u64);
    assert_eq!(it.counts().claims, HISTORY);
    assert_eq!(named(&mut it, address(7), at(195)), "19");
    assert_eq!(named(&mut it, address(7), at(125)), "12");
    assert_eq!(named(&mut it, address(7), at(115)), "Unknown");
}

#[test]
fn memory_is_bounded_by_eviction_of_ended_claims_then_by_refusal() {
    let mut it = Ownership::new("node-1", Limits { claims: 80 }, &[], Hold::default());
    for last in 0..80 {
        let pod = running(&format!("old-{last}"), &[address(last)], at(0));
        it.pod(pod, at(1));
    }
    for last in 0..40 {
        it.object_deleted(&format!("old-{last}"), End::Known(at(10 + i64::from(last))));
    }
    it.pod(running("new", &[address(200)], at(60)), at(61));
    let counts = it.counts();
    assert!(counts.ended_evicted > 0 && counts.ended_evicted < 40, "{counts:?}");
    assert_eq!(counts.refused, 0);
    assert_eq!(named(&mut it, address(200), at(62)), "new");
    // The oldest claims are evicted, the latest stay.
    assert_eq!(named(&mut it, address(0), at(5)), "Unknown");
    assert_eq!(named(&mut it, address(39), at(5)), "old-39");
    for last in 100..190 {
        it.pod(running(&format!("more-{last}"), &[address(last)], at(60)), at(61));
    }
    let counts = it.counts();
    assert_eq!(counts.claims, 80);
    assert_eq!(counts.ended_evicted, 40);
    assert_eq!(counts.refused, 90 + 1 - 40);
    assert_eq!(named(&mut it, address(79), at(62)), "old-79");
    // A later event adds the refused claim once there is room.
    it.object_deleted("old-79", End::By(at(63)));
    it.pod(running("more-189", &[address(189)], at(60)), at(64));
    assert_eq!(named(&mut it, address(189), at(64)), "more-189");
}

#[test]
fn ranges_of_nodes_are_the_clusters() {
    let configured: IpNet = "203.0.113.0/24".parse().unwrap();
    let mut it = Ownership::new("node-1", Limits { claims: 10 }, &[configured], Hold::default());
    let node = |ranges: &[&str]| NodeClaim {
        name: "node-1".to_owned(),
        addresses: Vec::new(),
        ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
    };
    let inside = "2001:db8:1::5".parse::<IpAddr>().unwrap();
    assert_eq!(named(&mut it, inside, 0), "External");
    it.node(node(&["10.244.1.0/24", "2001:db8:1::/64"]));
    assert_eq!(named(&mut it, inside, 0), "Unknown");
    assert_eq!(named(&mut it, IpAddr::from([203, 0, 113, 9]), 0), "Unknown");
    it.retain_nodes(&HashSet::new());
    assert_eq!(named(&mut it, inside, 0), "External");
    assert_eq!(it.counts().nodes, 0);
}
