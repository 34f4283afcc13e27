//! Lookups through search lists.

use super::*;

const SEARCHED: [&str; 4] = [
    "api.example.com.shop.svc.cluster.local",
    "api.example.com.svc.cluster.local",
    "api.example.com.cluster.local",
    "api.example.com",
];

impl Scene {
    /// Queries A and AAAA of a name at once, as glibc and musl do; the second has the next number.
    fn look_up(&mut self, number: u64, at_ms: u64, name: &str, rcode: u16) {
        for (number, qtype) in [(number, 1), (number + 1, 28)] {
            self.ask(number, at_ms, name, qtype);
        }
        for number in [number, number + 1] {
            self.answer(number, at_ms + 1, answer(rcode));
        }
    }
}

fn step(settled: &HashMap<RecordId, Chain>, number: u64) -> Option<(RecordId, u32, bool)> {
    let search = settled[&record(number)].search?;
    Some((search.group, search.step, search.is_winner))
}

#[test]
fn a_lookup_through_a_search_list_is_one_group() {
    for winner in 2..=4 {
        let mut scene = Scene::new();
        for (at, name) in (0u32..).zip(SEARCHED).take(winner) {
            let rcode = if at as usize + 1 == winner { 0 } else { 3 };
            scene.look_up(1 + 2 * u64::from(at), 10 + 2 * u64::from(at), name, rcode);
        }
        // The same again, without a pause.
        for (at, name) in (0u32..).zip(SEARCHED).take(winner) {
            let rcode = if at as usize + 1 == winner { 0 } else { 3 };
            scene.look_up(21 + 2 * u64::from(at), 30 + 2 * u64::from(at), name, rcode);
        }
        let settled = scene.settle();
        for first in [1, 21] {
            for at in 0..u32::try_from(winner).unwrap() {
                let number = first + 2 * u64::from(at);
                let expected = (record(first), at + 1, at as usize + 1 == winner);
                assert_eq!(step(&settled, number), Some(expected));
                assert_eq!(step(&settled, number + 1), Some(expected));
            }
        }
    }
}

#[test]
fn what_is_in_doubt_is_no_group() {
    // A pause.
    let mut scene = Scene::new();
    scene.look_up(1, 10, SEARCHED[0], 3);
    scene.look_up(3, 200, SEARCHED[1], 3);
    // The answers to A and AAAA come at different times: the first record does not wait so long.
    for (number, qtype) in [(51, 1), (52, 28)] {
        scene.ask(number, 500, SEARCHED[0], qtype);
    }
    scene.answer(51, 501, answer(3));
    scene.answer(52, 600, answer(3));
    scene.look_up(53, 601, SEARCHED[1], 3);
    // The first name exists.
    scene.look_up(11, 1_000, SEARCHED[0], 0);
    scene.look_up(13, 1_002, SEARCHED[1], 3);
    // Another base.
    scene.look_up(21, 2_000, SEARCHED[0], 3);
    scene.look_up(23, 2_002, "api.example.org.svc.cluster.local", 3);
    // A name is left out.
    scene.look_up(31, 3_000, SEARCHED[0], 3);
    scene.look_up(33, 3_002, SEARCHED[3], 0);
    // A failure that says nothing about the name.
    scene.look_up(41, 4_000, SEARCHED[0], 2);
    scene.look_up(43, 4_002, SEARCHED[1], 3);
    let settled = scene.settle();
    for number in [1, 3, 11, 13, 21, 23, 31, 33, 41, 43, 51, 52, 53] {
        assert_eq!(step(&settled, number), None, "{number}");
    }
    // Two lookups of one name by one client at a time.
    let mut scene = Scene::new();
    scene.look_up(1, 10, SEARCHED[0], 3);
    scene.look_up(3, 10, SEARCHED[0], 3);
    scene.events.sort_by_key(Event::at_ns);
    scene.look_up(5, 12, SEARCHED[1], 3);
    scene.look_up(7, 12, SEARCHED[1], 3);
    let settled = scene.settle();
    assert!((1..=8).all(|number| step(&settled, number).is_none()));
}

#[test]
fn many_lookups_of_one_client_in_a_row_are_groups() {
    let mut scene = Scene::new();
    for lookup in 0..100_u64 {
        for (at, domain) in (0_u64..).zip(["shop.svc.cluster.local", "svc.cluster.local"]) {
            let rcode = if at == 1 { 0 } else { 3 };
            let name = format!("api.host{lookup}.{domain}");
            scene.look_up(1 + 4 * lookup + 2 * at, 10 + 4 * lookup + 2 * at, &name, rcode);
        }
    }
    let settled = scene.settle();
    for first in (0..100).map(|lookup| 1 + 4 * lookup) {
        assert_eq!(step(&settled, first), Some((record(first), 1, false)));
        assert_eq!(step(&settled, first + 3), Some((record(first), 2, true)));
    }
}

/// The resolver is on another node: this one sees the query at the pod, and once more after translation.
#[test]
fn the_node_of_the_client_has_the_group_too() {
    const SERVICE: [u8; 4] = [10, 96, 0, 10];
    const BACKEND: [u8; 4] = [10, 244, 2, 2];
    let party = |address: [u8; 4]| Party {
        address: address.into(),
        cgroup: 0,
        answers_by_address: false,
        answers_by_cgroup: false,
    };
    let mut scene = Scene::new();
    for (at, name) in (0u32..).zip(SEARCHED) {
        let (number, at_ms) = (1 + u64::from(at), 10 + 2 * u64::from(at));
        let names = scene.names(name, 1);
        scene.open(number, at_ms, party([10, 244, 1, 7]), SERVICE, names.clone());
        scene.open(number, at_ms, party([192, 0, 2, 1]), BACKEND, names);
        scene.close(number, at_ms + 1, BACKEND, answer(if at == 3 { 0 } else { 3 }));
    }
    let settled = scene.settle();
    for number in 1..=4 {
        let step_number = u32::try_from(number).unwrap();
        assert_eq!(step(&settled, number), Some((record(1), step_number, number == 4)));
    }
    assert!(settled.values().all(|chain| chain.source.is_none()));
}
