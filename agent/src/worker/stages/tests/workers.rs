//! Messages whose worker is not that of their packet.

use tap53_ebpf::headers::{Endpoint, message_hash, ring_index};

use super::*;

/// Returns the first two identifiers from `from` on that belong to each of two workers.
fn ids_of_each(from: u16) -> [u16; 2] {
    let owner = |id: &u16| {
        let ends = [1_000, 53].map(|port| Endpoint { address: [0; 2], port });
        ring_index(message_hash(&ends[0], &ends[1], *id), 2)
    };
    [0, 1].map(|worker| (from..).find(|id| owner(id) == worker).unwrap())
}

struct Pair {
    workers: [(Stages, Arc<Keep>); 2],
}

impl Pair {
    fn new() -> Self {
        let queues = CrossWorkerQueue::between(2, &Arc::new(true.into()));
        let notes = SharedNotes::between(2);
        let shared = shared();
        let mut queues = (0..).zip(queues);
        let mut next = || {
            let (number, queue) = queues.next().unwrap();
            stages_of(&shared, number, &notes, queue)
        };
        Self { workers: [next(), next()] }
    }

    fn take(&mut self, worker: usize, item: &[u8]) {
        self.workers[worker].0.take(item);
    }

    fn receive(&mut self) {
        self.workers.iter_mut().for_each(|(stages, _)| stages.receive());
    }

    /// Returns the records of each worker, and checks that every message is in one.
    fn end(self) -> [Vec<serde_json::Value>; 2] {
        let published = self.workers.each_ref().map(|(stages, _)| stages.published());
        let lines = self.workers.map(|(stages, keep)| {
            stages.finish();
            keep.lines.lock().unwrap().clone()
        });
        let counts = published.map(|published| published.read());
        let sum = |count: fn(&WorkerCounts) -> u64| counts.iter().map(count).sum::<u64>();
        assert_eq!(sum(|it| it.messages_decoded), sum(|it| it.messages_in_records));
        assert_eq!(sum(|it| it.packets_received), sum(|it| it.packets_decoded));
        lines
    }
}

/// The identifier selects the ring, so the response comes to another worker than its target.
#[test]
fn a_response_with_a_wrong_identifier_finds_its_query_at_another_worker() {
    let mut pair = Pair::new();
    let [asked, forged] = ids_of_each(500);
    pair.take(0, &item(17, &message(asked, false), false));
    pair.take(1, &item(17, &message(forged, true), true));
    pair.receive();
    pair.take(0, &item(17, &message(asked, true), true));
    // Nothing is pending any more: it stays where it is handed to.
    pair.take(1, &item(17, &message(forged + 4_000, true), true));
    pair.receive();
    let [of_first, of_second] = pair.end();
    assert_eq!(of_first[0]["relation"], "WRONG_ID");
    assert_eq!(of_first[0]["related_record_id"], of_first[1]["record_id"]);
    assert_eq!(of_first[1]["anomalies"][0], "FORGED_RESPONSE_SEEN");
    assert_eq!(of_first.len() + of_second.len(), 3);
}

#[test]
fn each_message_of_a_packet_with_several_comes_to_its_own_worker() {
    let mut pair = Pair::new();
    let [first, second] = ids_of_each(100);
    let both = [message(first, false), message(second, false)].concat();
    let mut segments = item(17, &both, false);
    let size = u16::try_from(both.len() / 2).unwrap();
    segments[52..54].copy_from_slice(&size.to_ne_bytes());
    pair.take(0, &segments);
    pair.receive();
    pair.take(0, &item(17, &message(first, true), true));
    pair.take(1, &item(17, &message(second, true), true));
    for (records, id) in pair.end().iter().zip([first, second]) {
        assert_eq!(records.len(), 1);
        assert_eq!(
            (&records[0]["dns_id"], &records[0]["outcome"]),
            (&id.into(), &"MATCHED".into())
        );
    }
}
