//! Random orders of events against a known history.

use proptest::prelude::*;

use super::*;

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
