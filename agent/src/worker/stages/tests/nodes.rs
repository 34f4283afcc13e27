//! The place of this node on the path of an exchange, and what it leaves to other nodes.

use super::*;

const CLIENT: [u8; 4] = [192, 0, 2, 1];
const SERVER: [u8; 4] = [192, 0, 2, 2];

/// Observes an exchange between two pods of these nodes; returns the stages' counts and records.
fn exchange_between(
    client: Option<&str>,
    server: Option<&str>,
    client_node_only: bool,
) -> (WorkerCounts, Vec<serde_json::Value>) {
    let mut scripted = Scripted::new(Duration::ZERO, "192.0.2.0/24");
    scripted.pod_on(client, "client", CLIENT.into(), 0);
    scripted.pod_on(server, "server", SERVER.into(), 0);
    let shared = Shared { owners: scripted.directory(), client_node_only, ..shared() };
    let queue = CrossWorkerQueue::single_worker();
    let (mut stages, keep) = stages_of(&shared, 0, &SharedNotes::default(), queue);
    exchange(&mut stages, 1);
    stages.deliver();
    let lines = keep.lines.lock().unwrap().clone();
    (stages.published().read(), lines)
}

#[test]
fn owners_say_where_a_node_is_on_the_path() {
    let (here, there) = (Some("node-1"), Some("node-2"));
    for (client, server, expected) in [
        (here, there, "CLIENT_NODE"),
        (here, None, "CLIENT_NODE"),
        (there, here, "SERVER_NODE"),
        (None, here, "SERVER_NODE"),
        (here, here, "SAME_NODE"),
        (there, there, "TRANSIT"),
        (there, None, "UNKNOWN"),
        (None, None, "UNKNOWN"),
    ] {
        let (_, records) = exchange_between(client, server, false);
        assert_eq!(records[0]["observation"], expected, "{client:?} {server:?}");
    }
}

#[test]
fn exchanges_of_pods_elsewhere_are_left_to_their_nodes_if_configured() {
    for (client, is_recorded) in [(Some("node-1"), true), (Some("node-2"), false), (None, true)] {
        let (counts, records) = exchange_between(client, Some("node-1"), true);
        let filtered = counts.filtered[FilterReason::OtherNode as usize];
        let expected = if is_recorded { Amount::default() } else { Amount::record(2) };
        assert_eq!((records.len(), filtered), (usize::from(is_recorded), expected), "{client:?}");
        assert_eq!((counts.records_created, counts.messages_pending), (1, 0));
        assert_eq!(exchange_between(client, None, false).1.len(), 1);
    }
}
