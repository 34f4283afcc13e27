//! Pods of DNS servers on other nodes, and the DNS cache of this one.

use proptest::prelude::*;

use super::*;

const CACHE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 20, 10));

/// The owners that an agent on `node-1` knows which watches its own pods and the servers.
fn node_scope() -> Ownership {
    let hold = Hold { ns: 0, node: Some("node-1".to_owned()) };
    Ownership::new("node-1", Limits { claims: 1_000 }, &[], hold).with_node_cache(&[CACHE])
}

/// A server's running pod on another node.
fn server(uid: &str, addresses: &[IpAddr], start: Micros) -> PodClaim {
    let identity = Identity { node_name: Some("node-2".to_owned()), ..identity(uid) };
    PodClaim { identity, ..running(uid, addresses, start) }
}

/// A running pod of NodeLocal DNSCache on this node.
fn cache(uid: &str, start: Micros) -> PodClaim {
    PodClaim { host_network: true, is_node_cache: true, ..running(uid, &[NODE], start) }
}

fn set(uids: &[&str]) -> HashSet<String> {
    uids.iter().map(|uid| (*uid).to_owned()).collect()
}

#[test]
fn servers_and_pods_of_the_node_are_counted_apart() {
    let mut it = node_scope();
    it.pod(running("a", &[address(7)], at(0)), at(1));
    it.server_pod(server("dns", &[address(9)], at(0)), at(1));
    assert_eq!(named(&mut it, address(9), at(5)), "dns");
    let counts = it.counts();
    assert_eq!((counts.pods, counts.server_pods, counts.claims), (1, 1, 2));
    it.server_pod_gone("dns", End::Known(at(10)));
    assert_eq!(named(&mut it, address(9), at(9)), "dns");
    assert_eq!(named(&mut it, address(9), at(10)), "Unknown");
    assert_eq!((it.counts().pods, it.counts().server_pods), (1, 0));
}

#[test]
fn a_pod_that_both_watches_deliver_follows_the_watch_of_its_node() {
    // The DNS server on this node, in every order of the two streams.
    let own = || running("dns", &[address(7)], at(0));
    for order in 0..4 {
        let mut it = node_scope();
        if order % 2 == 0 {
            it.server_pod(own(), at(1));
            it.pod(own(), at(2));
        } else {
            it.pod(own(), at(1));
            it.server_pod(own(), at(2));
        }
        assert_eq!((it.counts().pods, it.counts().server_pods, it.counts().claims), (1, 0, 1));
        // Its labels change: only the servers' watch reports it as gone.
        it.server_pod_gone("dns", End::By(at(5)));
        it.retain_server_pods(&set(&[]), at(5));
        assert_eq!(named(&mut it, address(7), at(6)), "dns", "{order}");
        // It is deleted; the servers' watch is late with all that it has.
        it.object_deleted("dns", End::Known(at(10)));
        if order / 2 == 0 {
            it.server_pod(own(), at(11));
        }
        it.server_pod_gone("dns", End::By(at(12)));
        assert_eq!(named(&mut it, address(7), at(9)), "dns", "{order}");
        assert_eq!(named(&mut it, address(7), at(11)), "Unknown", "{order}");
        assert_eq!((it.counts().pods, it.counts().server_pods), (0, 0));
    }
}

#[test]
fn a_pod_that_leaves_the_selector_is_unknown_until_it_returns() {
    let mut it = node_scope();
    let dns = server("dns", &[address(9)], at(0));
    it.server_pod(dns.clone(), at(1));
    it.server_pod_gone("dns", End::By(at(10)));
    assert_eq!(named(&mut it, address(9), at(9)), "dns");
    assert_eq!(named(&mut it, address(9), at(10)), "Unknown");
    it.server_pod(dns.clone(), at(20));
    // The same pod had it in between.
    for time in [5, 15, 25] {
        assert_eq!(named(&mut it, address(9), at(time)), "dns", "at {time}");
    }
    assert_eq!((it.counts().server_pods, it.counts().claims), (1, 1));
    // It completes, which no later event takes back.
    it.server_pod(ended(&dns, End::Known(at(30))), at(31));
    it.server_pod(ended(&dns, End::Known(at(30))), at(32));
    assert_eq!(named(&mut it, address(9), at(31)), "Unknown");
    assert_eq!(it.counts().server_pods, 0);
}

#[test]
fn a_pod_that_returns_does_not_take_an_address_from_the_next_owner() {
    let mut it = node_scope();
    it.server_pod(server("a", &[address(9)], at(0)), at(1));
    it.server_pod_gone("a", End::By(at(10)));
    // Its address now belongs to another server: the delete was late.
    it.server_pod(server("b", &[address(9)], at(5)), at(12));
    for (time, owner) in [(4, "a"), (5, "b"), (20, "b")] {
        assert_eq!(named(&mut it, address(9), at(time)), owner, "at {time}");
    }
    it.server_pod_gone("a", End::By(at(30)));
    assert_eq!(named(&mut it, address(9), at(31)), "b");
}

#[test]
fn each_list_ends_only_the_pods_of_its_own_watch() {
    let mut it = node_scope();
    it.pod(running("a", &[address(7)], at(0)), at(1));
    it.server_pod(server("dns", &[address(9)], at(0)), at(1));
    it.server_pod(server("other", &[address(11)], at(0)), at(1));
    // After a 410, the list of this node's pods is complete without the servers.
    it.retain_pods(&set(&["a"]), at(10));
    it.retain_server_pods(&set(&["dns"]), at(11));
    for (address, owner) in [(7, "a"), (9, "dns"), (11, "Unknown")] {
        assert_eq!(named(&mut it, self::address(address), at(12)), owner);
    }
    // The reverse: no server is left, which says nothing about the node's pods.
    it.retain_server_pods(&set(&[]), at(20));
    assert_eq!(named(&mut it, address(7), at(21)), "a");
    assert_eq!(named(&mut it, address(9), at(21)), "Unknown");
    it.retain_pods(&set(&[]), at(30));
    it.sweep(at(30) + RETENTION_US);
    assert!(it.holders.is_empty() && it.addresses.is_empty() && it.index.is_empty());
}

#[test]
fn a_pod_without_a_node_has_no_address_and_belongs_to_the_watch_of_its_node_later() {
    let mut it = node_scope();
    let unscheduled = PodClaim {
        identity: Identity { node_name: None, ..identity("dns") },
        addresses: Vec::new(),
        ..pending("dns", &[], at(0))
    };
    it.server_pod(unscheduled, at(1));
    it.pod(running("dns", &[address(7)], at(2)), at(3));
    // It left the servers' watch in the moment of its binding.
    it.server_pod_gone("dns", End::By(at(4)));
    assert_eq!(named(&mut it, address(7), at(5)), "dns");
    assert_eq!((it.counts().pods, it.counts().server_pods), (1, 0));
}

#[test]
fn the_nodes_cache_is_named_at_its_link_local_address_only() {
    let mut it = node_scope();
    // The interface exists before the pod is known.
    it.local("node-1", vec![NODE, CACHE]);
    assert_eq!(named(&mut it, CACHE, at(1)), "node node-1");
    it.pod(cache("cache", at(10)), at(11));
    it.pod(PodClaim { host_network: true, ..running("proxy", &[NODE], at(0)) }, at(11));
    assert_eq!(named(&mut it, CACHE, at(12)), "cache");
    // Before it started, some pod of the node may have had the address.
    assert_eq!(named(&mut it, CACHE, at(9)), "ambiguous on node-1");
    assert_eq!(named(&mut it, NODE, at(12)), "ambiguous on node-1");
    // The interface was removed by hand: the rule is about the address.
    it.local("node-1", vec![NODE]);
    assert_eq!(named(&mut it, CACHE, at(13)), "cache");
    it.object_deleted("cache", End::Known(at(20)));
    assert_eq!(named(&mut it, CACHE, at(19)), "cache");
    assert_eq!(named(&mut it, CACHE, at(20)), "Unknown");
    it.object_deleted("proxy", End::Known(at(20)));
    it.local("node-1", Vec::new());
    it.sweep(at(20) + RETENTION_US);
    assert!(it.holders.is_empty() && it.hosts.is_empty() && it.index.is_empty());
}

#[test]
fn two_caches_at_a_time_are_ambiguous_and_one_after_the_other_are_not() {
    let mut it = node_scope();
    it.pod(cache("old", at(0)), at(1));
    it.pod(cache("new", at(10)), at(11));
    assert_eq!(named(&mut it, CACHE, at(9)), "old");
    assert_eq!(named(&mut it, CACHE, at(12)), "ambiguous on node-1");
    // The old one ended before the new one started; the report was late.
    it.pod(ended(&cache("old", at(0)), End::Known(at(8))), at(13));
    for (time, owner) in [(7, "old"), (10, "new"), (12, "new")] {
        assert_eq!(named(&mut it, CACHE, at(time)), owner, "at {time}");
    }
}

#[test]
fn a_pod_that_loses_the_caches_label_or_is_on_another_node_is_not_the_cache() {
    let mut it = node_scope();
    it.pod(cache("cache", at(0)), at(1));
    assert_eq!(named(&mut it, CACHE, at(2)), "cache");
    it.pod(PodClaim { is_node_cache: false, ..cache("cache", at(0)) }, at(3));
    assert_eq!(named(&mut it, CACHE, at(4)), "Unknown");
    let elsewhere =
        PodClaim { host_network: true, is_node_cache: true, ..server("b", &[NODE], at(0)) };
    it.server_pod(elsewhere, at(5));
    assert_eq!(named(&mut it, CACHE, at(6)), "Unknown");
}

/// Number of pods of the random histories: even ones are on this node, odd ones are not.
const PODS: u8 = 4;

/// An event in the life of a pod.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Its labels change, so that the selector selects it, or no longer does.
    Selected(bool),
    Deleted,
}

/// The reports of the servers' watch and of the node's watch about the history, each in order: a pod, and
/// whether it is there.
fn streams(steps: &[(u8, Step)]) -> [Vec<(u8, bool)>; 2] {
    let (mut alive, mut selected) = ([true; PODS as usize], [false; PODS as usize]);
    let mut of_node: Vec<(u8, bool)> = (0..PODS).step_by(2).map(|pod| (pod, true)).collect();
    let mut of_servers = Vec::new();
    for (pod, step) in steps {
        let (alive, selected) = (&mut alive[usize::from(*pod)], &mut selected[usize::from(*pod)]);
        if !*alive {
            continue;
        }
        let before = *selected;
        match step {
            Step::Selected(now) => *selected = *now,
            Step::Deleted => (*alive, *selected) = (false, false),
        }
        if pod % 2 == 0 {
            of_node.push((*pod, *alive));
        }
        if before || *selected {
            of_servers.push((*pod, *selected));
        }
    }
    [of_node, of_servers]
}

proptest! {
    /// However the two streams interleave, each pod is named as its own watch alone says.
    #[test]
    fn two_streams_in_any_interleaving_name_the_same_pods(
        steps in prop::collection::vec(
            (0..PODS, prop_oneof![
                3 => any::<bool>().prop_map(Step::Selected),
                1 => Just(Step::Deleted),
            ]),
            0..24,
        ),
        order in prop::collection::vec(any::<bool>(), 64),
    ) {
        let mut it = node_scope();
        let [mut of_node, mut of_servers] = streams(&steps).map(|mut stream| {
            stream.reverse();
            stream
        });
        let pod = |number: u8| {
            let (uid, addresses) = (number.to_string(), [address(number)]);
            match number % 2 {
                0 => running(&uid, &addresses, at(0)),
                _ => server(&uid, &addresses, at(0)),
            }
        };
        let mut expected = [false; PODS as usize];
        for (tick, node_first) in order.iter().enumerate() {
            let now = at(1 + i64::try_from(tick).unwrap());
            let is_node = !of_node.is_empty() && (*node_first || of_servers.is_empty());
            let next = if is_node { of_node.pop() } else { of_servers.pop() };
            let Some((number, is_there)) = next else { break };
            match (is_node, is_there) {
                (true, true) => it.pod(pod(number), now),
                (true, false) => it.object_deleted(&number.to_string(), End::By(now)),
                (false, true) => it.server_pod(pod(number), now),
                (false, false) => it.server_pod_gone(&number.to_string(), End::By(now)),
            }
            if is_node == (number % 2 == 0) {
                expected[usize::from(number)] = is_there;
            }
            let mut there = [0; 2];
            for (number, is_there) in (0..PODS).zip(expected) {
                let owner = if is_there { number.to_string() } else { "Unknown".to_owned() };
                prop_assert_eq!(named(&mut it, address(number), now), owner);
                there[usize::from(number % 2)] += usize::from(is_there);
            }
            prop_assert_eq!([it.counts().pods, it.counts().server_pods], there);
        }
    }
}
