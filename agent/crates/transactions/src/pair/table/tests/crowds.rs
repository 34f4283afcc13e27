//! Many pending queries with one flow and identifier: lookups stay short, and nothing is lost.

use super::*;
use crate::pair::table::queries::{GROUP_QUERIES_PER_KEY, QUERIES_PER_KEY};

/// Sends the query; returns how many entries a lookup of its key compared before, and how many
/// queries were evicted for it.
fn send_query(table: &mut Table, flow: Flow, at_ns: u64, id: u16, name: &str) -> (usize, u32) {
    let mut query = message(at_ns, id, name, false);
    assert_eq!(observe_by(table, flow, &mut query, &[]), Observed::Waits);
    let newest = table.lists[Transport::Udp as usize].newest;
    let hash = table.slots[newest as usize].hash;
    let compared = table.index.iter_hash(hash).count() - 1;
    let mut evicted = 0;
    while let Some(gone) = table.evict() {
        assert_eq!((gone.outcome(), gone.capture_gap), (Outcome::Unanswered, true));
        assert_ne!(gone.query().map(|query| query.at_ns), Some(at_ns), "the newest stays");
        evicted += 1;
    }
    (compared, evicted)
}

fn drained(table: &mut Table) -> u32 {
    let mut count = 0;
    while table.drain().is_some() {
        count += 1;
    }
    count
}

#[test]
fn ever_new_names_under_one_port_and_identifier_keep_look_ups_short() {
    let mut table = table(65_536);
    let (mut recorded, mut most_compared) = (0, 0);
    for number in 0..10_000u16 {
        let at_ns = 20 * SECOND + u64::from(number) * 1_000;
        let name = format!("n{number}.test");
        let (compared, evicted) = send_query(&mut table, flow(1), at_ns, 7, &name);
        most_compared = most_compared.max(compared);
        recorded += evicted;
        // Another transaction of the same client, whose response takes longer.
        let beside = 10 + number / 100;
        match number % 100 {
            0 => assert_eq!(send_query(&mut table, flow(beside), at_ns, 7, "a.test").1, 0),
            90 => {
                let answer = message(at_ns, 7, "a.test", true);
                let found = done(observe(&mut table, flow(beside), answer));
                assert_eq!((found.outcome(), found.capture_gap), (Outcome::Matched, false));
            }
            _ => {}
        }
    }
    // An entry of another hash may share the few bits that the index compares first.
    assert!(most_compared <= QUERIES_PER_KEY + 8, "{most_compared} comparisons");
    // The latest of the crowd still finds its response, that of the first is late.
    let at_ns = 21 * SECOND;
    let found = done(observe(&mut table, flow(1), message(at_ns, 7, "n9999.test", true)));
    assert_eq!(found.outcome(), Outcome::Matched);
    assert_eq!(recorded + 1 + drained(&mut table), 10_000, "each is recorded");
}

#[test]
fn the_oldest_of_a_crowd_leaves_and_its_response_is_late() {
    let mut table = table(1_024);
    send_query(&mut table, flow(2), 20 * SECOND, 7, "older.test");
    for number in 0..64u64 {
        let name = format!("n{number}.test");
        assert_eq!(send_query(&mut table, flow(1), 21 * SECOND + number, 7, &name).1, 0);
    }
    assert_eq!(send_query(&mut table, flow(1), 22 * SECOND, 7, "n64.test").1, 1);
    assert_eq!(table.pending_queries(), 65);
    let late = done(observe(&mut table, flow(1), message(23 * SECOND, 7, "n0.test", true)));
    assert_eq!(late.related.map(|related| related.relation), Some(Relation::LateResponse));
    for (port, name) in [(1, "n1.test"), (2, "older.test")] {
        let found = done(observe(&mut table, flow(port), message(23 * SECOND, 7, name, true)));
        assert_eq!(found.outcome(), Outcome::Matched, "{name}");
    }
}

#[test]
fn many_hosts_that_ask_a_group_for_one_name_keep_look_ups_short() {
    let mut table = table(65_536);
    let (mut recorded, mut most_compared) = (0, 0);
    for number in 0..2_000u16 {
        let [high, low] = number.to_be_bytes();
        let flow = Flow {
            client: ([10, 0, high, low], 5_353).into(),
            server: ([224, 0, 0, 251], 5_353).into(),
            ..flow(1)
        };
        let at_ns = 20 * SECOND + u64::from(number);
        let (compared, evicted) = send_query(&mut table, flow, at_ns, 0, "printer.local");
        most_compared = most_compared.max(compared);
        recorded += evicted;
    }
    assert!(most_compared <= GROUP_QUERIES_PER_KEY + 8, "{most_compared} comparisons");
    assert_eq!(table.pending_queries(), GROUP_QUERIES_PER_KEY);
    assert_eq!(recorded + drained(&mut table), 2_000, "each is recorded");
}
