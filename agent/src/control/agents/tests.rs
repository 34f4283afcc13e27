//! Tests several agents with two real control sockets, and one that does not answer.

use std::path::Path;

use tap53_records::encode::{Clock, Record, samples};

use super::{counts::merged, *};
use crate::{
    control::{
        client::Item,
        tests::{Setup, echo, setup},
    },
    tail::{Feed, LineFormat, Selection},
    top::{DnsCounts, Snapshot, TopItem, TopList},
};

struct Stage {
    setups: [Setup; 2],
    client: Client,
}

/// The agents of two nodes, and of a third on which none runs.
fn stage() -> Stage {
    let setups = [setup(echo), setup(echo)];
    let mut agents: Vec<Agent> = ["node-1", "node-2"]
        .into_iter()
        .zip(&setups)
        .map(|(node, setup)| Agent { node: node.to_owned(), client: setup.client() })
        .collect();
    agents.push(absent());
    Stage { setups, client: Client::of(Agents::new(agents)) }
}

fn absent() -> Agent {
    Agent { node: "node-3".to_owned(), client: Client::new(Path::new("/nowhere/control.sock")) }
}

/// Records a transaction so many seconds after the first one.
fn push(feed: &mut Feed, seconds: i64) {
    feed.refresh();
    samples::with_record("matched", |record| {
        let utc_offset_ns = record.clock.utc_offset_ns + seconds * 1_000_000_000;
        let record = Record { clock: Clock { utc_offset_ns }, ..*record };
        feed.count(&record);
        feed.push(&record, None);
    });
    feed.deliver();
}

#[test]
fn records_are_merged_in_the_order_of_their_times() {
    let Stage { setups, client } = stage();
    let mut feeds = setups.each_ref().map(|it| Feed::new(it.tails().clone()).unwrap());
    let mut following = client.tail(LineFormat::Row, Selection::default(), None).unwrap();
    let mut line = Vec::new();
    let Ok(Item::Warning(text)) = following.next(&mut line) else { panic!("no warning") };
    assert!(text.starts_with("node-3: no agent answers at /nowhere/control.sock"), "{text}");
    // The second node's come later, though its first is the earliest.
    for (node, seconds) in [(0, 2), (0, 5), (1, 1), (1, 4), (0, 6), (1, 3)] {
        push(&mut feeds[node], seconds);
    }
    let mut times = Vec::new();
    while times.len() < 6 {
        let Ok(Item::Line) = following.next(&mut line) else { panic!("no record") };
        let row = tap53_records::encode::Row::from_json(&line).unwrap();
        times.push(row.began_us() / 1_000_000);
    }
    assert!(times.is_sorted_by(|one, next| *next == one + 1), "{times:?}");
    // The stream ends with the last agent.
    drop(setups);
    let mut ends = Vec::new();
    loop {
        match following.next(&mut line).unwrap() {
            Item::Warning(why) => ends.push(why),
            Item::End(why) => break ends.push(why),
            _ => panic!("a record"),
        }
    }
    assert!(matches!(&ends[..], [one, _] if one.ends_with(": the agent has stopped")), "{ends:?}");
}

#[test]
fn counts_are_added_and_a_missing_agent_is_named() {
    let Stage { setups, client } = stage();
    let mut feeds = setups.each_ref().map(|it| Feed::new(it.tails().clone()).unwrap());
    let mut counting = client.top(Selection::default()).unwrap();
    assert_eq!(counting.read().unwrap().dns.transactions, 0);
    for (node, count) in [(0, 3), (1, 4)] {
        (0..count).for_each(|seconds| push(&mut feeds[node], seconds));
    }
    let Snapshot { agent, dns, .. } = counting.read().unwrap();
    assert_eq!((dns.transactions, dns.latency.count()), (7, 7));
    let [name] = &dns.names.items[..] else { panic!("{:?}", dns.names) };
    assert_eq!((&*name.item, name.count, name.error), ("www.example.test", 7, 0));
    assert_eq!(agent.node, "3 nodes");
    let reasons = agent.health.ready.reasons.join("; ");
    assert!(!agent.health.ready.ok && reasons.contains("node-3: no agent answers"), "{reasons}");
    // The counts of an agent that has ended remain.
    let [first, second] = setups;
    drop(first);
    push(&mut feeds[1], 9);
    let Snapshot { agent, dns, .. } = counting.read().unwrap();
    assert_eq!(dns.transactions, 8);
    let reasons = agent.health.ready.reasons.join("; ");
    assert!(reasons.contains("node-1: the agent has stopped"), "{reasons}");
    drop(second);
    let Err(Error::Ended(why)) = counting.read() else { panic!("no end") };
    assert!(why.starts_with("no agent answers: node-1: the agent has stopped"), "{why}");
}

#[test]
fn switches_reach_all_nodes_and_failures_are_named() {
    let Stage { setups, client } = stage();
    let reset = |pattern: &str| client.switch(Call::Reset { pattern: pattern.to_owned() });
    let error = reset("eth0").unwrap_err().to_string();
    assert!(error.starts_with("node-3: no agent answers"), "{error}");
    assert!(error.ends_with("done for node-1/eth0, node-2/eth0"), "{error}");
    let two = ["node-1", "node-2"].into_iter().zip(&setups);
    let two = two.map(|(node, it)| Agent { node: node.to_owned(), client: it.client() });
    let client = Client::of(Agents::new(two.collect()));
    let reset = |pattern: &str| client.switch(Call::Reset { pattern: pattern.to_owned() });
    let names: Vec<_> = reset("eth0").unwrap().into_iter().map(|it| it.name).collect();
    assert_eq!(names, ["node-1/eth0", "node-2/eth0"]);
    let refused = reset("absent").unwrap_err().to_string();
    assert!(refused.starts_with("node-1: no interface matches"), "{refused}");
}

#[test]
fn without_any_agent_each_call_is_an_error() {
    let client = Client::of(Agents::new(vec![absent()]));
    for error in [
        client.tail(LineFormat::Row, Selection::default(), None).map(drop).unwrap_err(),
        client.top(Selection::default()).map(drop).unwrap_err(),
    ] {
        assert!(error.to_string().starts_with("no agent answers: node-3: "), "{error}");
    }
}

/// An item that one list lacks was counted there at most as often as the list's error says.
#[test]
fn the_bounds_of_merged_lists_hold() {
    let list = |items: &[(&str, u64, u64)], error| TopList {
        items: items
            .iter()
            .map(|&(item, count, error)| TopItem { item: item.to_owned(), count, error })
            .collect(),
        error,
    };
    let snapshot = |names| Snapshot {
        dns: DnsCounts { names, ..DnsCounts::default() },
        ..Snapshot::default()
    };
    let one = snapshot(list(&[("a", 10, 1), ("b", 6, 2)], 5));
    let other = snapshot(list(&[("b", 9, 0), ("c", 4, 3)], 3));
    let names = merged(vec![one, other], Vec::new(), Vec::new()).dns.names;
    // `c` has up to 4 + 5, and is the first that is not in the list.
    assert_eq!(names, list(&[("b", 15, 2), ("a", 13, 4)], 9));
}
