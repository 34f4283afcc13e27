//! Scripted orders of events for each rule, then random orders against a known history.

use proptest::prelude::*;
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

/// The true history: one pod after the other has the address.
#[derive(Clone, Debug)]
struct Tenant {
    uid: String,
    start: Micros,
    end: Micros,
    tells_start: bool,
    ending: Ending,
}

/// The way in which the API reports the end of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// By its phase, with the second in which the last container ended.
    Completed,
    /// By a delete event whose object has that second.
    Deleted,
    /// By a delete event without a time.
    DeletedSilently,
    /// By its absence from a list.
    Missed,
}

/// An event of the watch about the tenant with this number.
#[derive(Clone, Copy, Debug)]
enum WatchEvent {
    Seen(usize),
    Ended(usize),
}

/// Generates tenants in order of time, at least three seconds apart.
fn tenants() -> impl Strategy<Value = Vec<Tenant>> {
    let ending = prop_oneof![
        Just(Ending::Completed),
        Just(Ending::Deleted),
        Just(Ending::DeletedSilently),
        Just(Ending::Missed),
    ];
    let one = (3 * SECOND..60 * SECOND, 3 * SECOND..60 * SECOND, prop::bool::weighted(0.8), ending);
    prop::collection::vec(one, 1..=HISTORY).prop_map(|parts| {
        let mut now = at(0);
        let parts = parts.into_iter().enumerate();
        parts
            .map(|(number, (pause, length, tells_start, ending))| {
                let start = now + pause;
                now = start + length;
                Tenant { uid: number.to_string(), start, end: now, tells_start, ending }
            })
            .collect()
    })
}

/// Interleaves the events of all tenants: those of one tenant stay in order, but an end may arrive
/// after the next start.
fn events(tenants: usize, order: &[u16]) -> Vec<WatchEvent> {
    let mut pending: Vec<Vec<WatchEvent>> = (0..tenants)
        .map(|number| {
            vec![WatchEvent::Ended(number), WatchEvent::Seen(number), WatchEvent::Seen(number)]
        })
        .collect();
    let mut events = Vec::new();
    let mut order = order.iter().cycle();
    while !pending.iter().all(Vec::is_empty) {
        let left: Vec<usize> = (0..tenants).filter(|number| !pending[*number].is_empty()).collect();
        let choice = usize::from(*order.next().unwrap()) % left.len();
        events.extend(pending[left[choice]].pop());
    }
    events
}

fn whole_second(us: Micros) -> Micros {
    us.div_euclid(SECOND) * SECOND
}

fn apply(ownership: &mut Ownership, tenants: &[Tenant], event: WatchEvent, now: Micros) {
    let (WatchEvent::Seen(number) | WatchEvent::Ended(number)) = event;
    let Tenant { uid, start, end, tells_start, ending } = &tenants[number];
    let mut claim = pending(uid, &[address(7)], whole_second(*start) - 2 * SECOND);
    claim.start = tells_start.then(|| whole_second(*start));
    let known = End::Known((whole_second(*end) + SECOND).min(now));
    match (event, ending) {
        (WatchEvent::Seen(_), _) => ownership.pod(claim, now),
        (WatchEvent::Ended(_), Ending::Completed) => ownership.pod(ended(&claim, known), now),
        (WatchEvent::Ended(_), Ending::Deleted) => ownership.object_deleted(uid, known),
        (WatchEvent::Ended(_), Ending::DeletedSilently) => {
            ownership.object_deleted(uid, End::By(now))
        }
        (WatchEvent::Ended(_), Ending::Missed) => {
            let others = ownership.holders.keys().filter(|other| other.as_ref() != uid);
            let others: HashSet<String> = others.map(|uid| uid.to_string()).collect();
            ownership.retain_pods(&others, now);
        }
    }
}

proptest! {
    /// In whatever order and however late events arrive: where objects report since when they had
    /// their address, a transaction is attributed by its own time, within the second that objects
    /// round to, and never to a pod that had the address at another time.
    #[test]
    fn late_events_in_any_order_name_the_right_one(
        tenants in tenants(),
        order in prop::collection::vec(0..=u16::MAX, 1..64),
    ) {
        let tenants: Vec<Tenant> =
            tenants.into_iter().map(|it| Tenant { tells_start: true, ..it }).collect();
        let mut it = ownership();
        let mut now = tenants.last().unwrap().end + SECOND;
        for event in events(tenants.len(), &order) {
            now += SECOND / 3;
            apply(&mut it, &tenants, event, now);
        }
        for (index, tenant) in tenants.iter().enumerate() {
            let next = tenants.get(index + 1).map_or(Micros::MAX, |next| next.start);
            let mut moment = tenant.start;
            while moment < tenant.end {
                prop_assert_eq!(named(&mut it, address(7), moment), tenant.uid.as_str());
                moment += SECOND / 2;
            }
            // After its end it is no longer named, if the end is known; at the latest from the next
            // start on.
            if matches!(tenant.ending, Ending::Completed | Ending::Deleted)
                && tenant.end + SECOND < whole_second(next)
            {
                prop_assert_eq!(named(&mut it, address(7), tenant.end + SECOND), "Unknown");
            }
        }
    }

    /// With events in order and without delay, pods that do not report their start are right too.
    #[test]
    fn events_in_order_name_the_right_one(tenants in tenants()) {
        let mut it = ownership();
        for (number, tenant) in tenants.iter().enumerate() {
            apply(&mut it, &tenants, WatchEvent::Seen(number), tenant.start + SECOND / 10);
            let middle = tenant.start.midpoint(tenant.end);
            prop_assert_eq!(named(&mut it, address(7), middle), tenant.uid.as_str());
            apply(&mut it, &tenants, WatchEvent::Ended(number), tenant.end + SECOND / 10);
        }
        for tenant in &tenants {
            let middle = tenant.start.midpoint(tenant.end);
            prop_assert_eq!(named(&mut it, address(7), middle), tenant.uid.as_str());
            prop_assert_eq!(named(&mut it, address(7), tenant.end - 1), tenant.uid.as_str());
        }
    }

    /// The counts always equal those of a naive model, and nothing is left once every object has
    /// ended.
    #[test]
    fn the_books_are_those_of_a_naive_model(
        steps in prop::collection::vec((0u8..12, 0u8..6, 0u8..8), 1..120),
    ) {
        let mut it = ownership();
        let mut live: std::collections::BTreeMap<String, HashSet<IpAddr>> = Default::default();
        let mut dead: HashSet<String> = HashSet::new();
        let mut ever: HashMap<IpAddr, HashSet<String>> = HashMap::new();
        let mut now = at(0);
        for (pod, last, what) in steps {
            now += SECOND;
            // A pod stays in its node's network for its whole life.
            let host = pod % 3 == 0;
            let uid = format!("pod-{pod}");
            let addresses: Vec<IpAddr> =
                (0..=last % 2).map(|second| address(last * 2 + second)).collect();
            let claim = PodClaim { host_network: host, ..running(&uid, &addresses, now) };
            match what {
                0..=4 => {
                    it.pod(claim, now);
                    if !dead.contains(&uid) {
                        for address in &addresses {
                            ever.entry(*address).or_default().insert(uid.clone());
                        }
                        live.insert(uid, addresses.into_iter().collect());
                    }
                }
                5 => {
                    it.object_deleted(&uid, End::By(now));
                    if live.remove(&uid).is_some() {
                        dead.insert(uid);
                    }
                }
                6 => {
                    let was = live.remove(&uid).is_some();
                    it.pod(ended(&claim, End::Known(now)), now);
                    if was || !dead.contains(&uid) {
                        for address in &addresses {
                            ever.entry(*address).or_default().insert(uid.clone());
                        }
                        dead.insert(uid);
                    }
                }
                _ => {
                    let present: HashSet<String> = live.keys().skip(1).cloned().collect();
                    it.retain_pods(&present, now);
                    if let Some((uid, _)) = live.pop_first() {
                        dead.insert(uid);
                    }
                }
            }
            prop_assert_eq!(it.counts().pods, live.len());
            let held: usize = it.holders.values().map(|holder| holder.held.len()).sum();
            prop_assert_eq!(it.counts().claims, held);
        }
        // A live pod is named at its addresses. If two pods claimed one, the later is named while
        // it lives; after that it is unknown whether the earlier still has the address.
        for (uid, addresses) in &live {
            let host = it.holders[uid.as_str()].kind == Kind::HostPod;
            for address in addresses {
                let owner = named(&mut it, *address, now);
                if !host && ever[address].len() == 1 {
                    prop_assert_eq!(&owner, uid);
                }
                prop_assert!(
                    live.contains_key(&owner)
                        || ["Unknown", "ambiguous on node-1", "node node-1"].contains(&&*owner),
                    "{owner} has not the address any more"
                );
            }
        }
        it.retain_pods(&HashSet::new(), now);
        it.sweep(now + RETENTION_US);
        prop_assert_eq!(it.counts().claims, 0);
        prop_assert!(it.holders.is_empty() && it.addresses.is_empty() && it.hosts.is_empty());
        prop_assert!(it.index.is_empty());
    }
}
