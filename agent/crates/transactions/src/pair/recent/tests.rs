use super::*;

const PLACE: u64 = PLACES as u64;
/// Two keys with different tags and the same slot.
const KEY: u64 = 0x1001_0000_0000_0005;
const OTHER: u64 = 0x3003_0000_0000_0005;

const fn sighting(at_ns: u64, ifindex: u32) -> Sighting {
    let point = Point { ifindex, direction: Direction::Egress };
    Sighting { at_ns, point, identification: 77 }
}

const fn answered(content: u64) -> Option<RecordedResponse> {
    Some(RecordedResponse { content, seen: sighting(1_000, 7), is_inner: false })
}

const ENDED: EndedExchange = EndedExchange {
    key: KEY,
    question: 3,
    at_ns: 1_000,
    sequence: 1,
    query: Some(sighting(400, 7)),
    response: None,
    answers: 0,
};

#[test]
fn an_exchange_is_remembered_for_a_minute() {
    let mut recent = Recent::new();
    assert!(recent.exchange(KEY, 3, 1_000).is_none());
    assert!(!recent.may_contain(KEY));
    recent.insert(&ENDED);
    assert!(recent.may_contain(KEY));
    assert_eq!(recent.exchange(KEY, 3, 1_000 + REMEMBERED_NS), Some(ENDED));
    assert!(recent.exchange(KEY, 3, 1_001 + REMEMBERED_NS).is_none());
    assert!(recent.exchange(OTHER, 3, 1_000).is_none(), "another one of the same place");
    assert!(recent.exchange(KEY + PLACE, 3, 1_000).is_none(), "equal tag, other key");
}

#[test]
fn a_newer_exchange_takes_the_place() {
    let mut recent = Recent::new();
    recent.insert(&ENDED);
    let newer = EndedExchange { key: OTHER, sequence: 2, response: answered(9), ..ENDED };
    recent.insert(&newer);
    assert!(recent.exchange(KEY, 3, 1_000).is_none());
    assert_eq!(recent.exchange(OTHER, 3, 1_000), Some(newer));
}

#[test]
fn the_oldest_is_forgotten_for_the_next() {
    let mut recent = Recent::new();
    recent.insert(&ENDED);
    // Another slot each time, never that of the first.
    for sequence in 2..=PLACE {
        recent.insert(&EndedExchange { key: KEY + 1 + sequence % 2, sequence, ..ENDED });
    }
    assert_eq!(recent.exchange(KEY, 3, 1_000).map(|ended| ended.sequence), Some(1));
    recent.insert(&EndedExchange { key: KEY + 1, sequence: 1 << 20, ..ENDED });
    assert!(recent.exchange(KEY, 3, 1_000).is_none());
    assert_eq!(recent.exchange(KEY + 1, 3, 1_000).map(|ended| ended.sequence), Some(1 << 20));
}

#[test]
fn the_newest_exchange_with_the_question_is_found_and_the_newest_of_all_without_one() {
    let mut recent = Recent::new();
    for (sequence, question) in [(1, 3), (2, 4), (3, 3), (4, 5)] {
        recent.insert(&EndedExchange { sequence, question, ..ENDED });
    }
    let found = |question| recent.exchange(KEY, question, 1_000).map(|ended| ended.sequence);
    assert_eq!([3, 4, 5, 0, 9].map(found), [Some(3), Some(2), Some(4), Some(4), None]);
}

#[test]
fn every_response_is_found_by_its_content_whatever_came_after_it() {
    let mut recent = Recent::new();
    // More than a chain has, as in a zone transfer.
    for content in 1..=1_000 {
        recent.insert(&EndedExchange { sequence: content, response: answered(content), ..ENDED });
    }
    for content in 1..=1_000 {
        assert_eq!(recent.response(content, 1_000), answered(content));
    }
    assert_eq!(recent.response(1_001, 1_000), None);
    assert_eq!(recent.response(1 + PLACE, 1_000), None, "another content of the same place");
}

#[test]
fn a_query_is_a_copy_elsewhere_while_it_waited_and_at_the_same_point_for_a_millisecond() {
    let second = 1_000_000_000;
    let mut recent = Recent::new();
    recent.insert(&EndedExchange {
        at_ns: 3 * second,
        query: Some(sighting(second, 7)),
        response: answered(9),
        ..ENDED
    });
    let copies = |question, query| recent.is_copy_of_query(KEY, question, &query);
    assert!(copies(3, sighting(second + 5, 8)));
    assert!(copies(3, sighting(2 * second, 8)), "of a repetition of the query");
    assert!(!copies(4, sighting(second + 5, 8)), "another question");
    assert!(!copies(3, sighting(3 * second + MIRRORED_NS + 1, 8)), "asked after the response");
    assert!(copies(3, sighting(2 * second, 7)), "repeated while it waited");
    assert!(!copies(3, sighting(3 * second, 7)), "asked after the response");
    // The response followed at once.
    recent.insert(&EndedExchange {
        at_ns: 5 * second,
        query: Some(sighting(5 * second, 7)),
        response: answered(9),
        ..ENDED
    });
    let copies = |query| recent.is_copy_of_query(KEY, 3, &query);
    assert!(copies(sighting(5 * second + MIRRORED_NS, 7)));
    assert!(!copies(sighting(5 * second + MIRRORED_NS + 1, 7)));
    let other = |identification| Sighting { identification, ..sighting(5 * second + 5, 7) };
    assert!(!copies(other(78)), "another packet");
    recent.insert(&EndedExchange {
        at_ns: 5 * second,
        query: Some(other(0)),
        response: answered(9),
        ..ENDED
    });
    assert!(!recent.is_copy_of_query(KEY, 3, &other(0)), "nothing tells it from a new one");
}

#[test]
fn a_chain_is_followed_to_its_bound_and_through_overwritten_entries_to_none() {
    let mut recent = Recent::new();
    recent.insert(&EndedExchange { question: 9, ..ENDED });
    for sequence in 2..=CHAIN as u64 {
        recent.insert(&EndedExchange { sequence, ..ENDED });
    }
    assert_eq!(recent.exchange(KEY, 9, 1_000).map(|ended| ended.sequence), Some(1));
    recent.insert(&EndedExchange { sequence: 99, ..ENDED });
    assert!(recent.exchange(KEY, 9, 1_000).is_none());
    for sequence in 100..PLACE + 100 {
        recent.insert(&EndedExchange { key: KEY + 1, sequence, ..ENDED });
    }
    assert!(recent.exchange(KEY, 3, 1_000).is_none());
}

#[test]
fn a_response_is_a_copy_elsewhere_for_a_second_also_of_one_that_is_not_the_latest() {
    let mut recent = Recent::new();
    let second = 1_000_000_000;
    let at = |at_s, ifindex| {
        let response = Some(RecordedResponse {
            content: 9,
            seen: sighting(at_s * second, ifindex),
            is_inner: false,
        });
        EndedExchange { at_ns: at_s * second, response, ..ENDED }
    };
    recent.insert(&at(10, 7));
    recent.insert(&at(20, 8));
    let copies = |seen, datagram| recent.is_copy_of_response(KEY, 9, &seen, datagram);
    assert!(copies(sighting(11 * second, 8), true) && copies(sighting(21 * second, 7), true));
    assert!(!copies(sighting(15 * second, 8), true), "sent again, and another way");
    assert!(!copies(sighting(21 * second, 8), true), "sent again");
    assert!(copies(sighting(20 * second + MIRRORED_NS, 8), true), "shown twice");
    assert!(!copies(sighting(20 * second + MIRRORED_NS, 8), false), "two messages of a stream");
    assert!(!recent.is_copy_of_response(KEY, 10, &sighting(10 * second, 8), true));
}

#[test]
fn a_copy_is_found_by_its_key_after_another_response_took_the_place_of_its_content() {
    let mut recent = Recent::new();
    recent.insert(&EndedExchange { response: answered(9), ..ENDED });
    recent.insert(&EndedExchange {
        key: KEY + 1,
        sequence: 2,
        response: answered(9 + PLACE),
        ..ENDED
    });
    assert_eq!(recent.response(9, 1_000), None);
    assert!(recent.is_copy_of_response(KEY, 9, &sighting(1_500, 8), true));
    assert!(!recent.is_copy_of_response(KEY, 8, &sighting(1_500, 8), true), "other content");
}

#[test]
fn a_search_ends_at_the_first_exchange_of_the_past() {
    let mut recent = Recent::new();
    let second = |n: u64| n * 1_000_000_000;
    for n in 1..=10 {
        let query = Some(sighting(second(n), 7));
        recent.insert(&EndedExchange { at_ns: second(n) + 600, sequence: n, query, ..ENDED });
    }
    let looked_at = |since_ns| recent.chain_since(KEY, second(11), since_ns).count();
    assert_eq!(looked_at(second(11)), 0);
    assert_eq!(looked_at(second(9)), 2);
    assert_eq!(recent.exchange(KEY, 3, second(11)).map(|ended| ended.sequence), Some(10));
    assert_eq!(recent.exchange(KEY, 3, second(4)).map(|ended| ended.sequence), Some(4));

    // Read from a file after those, and earlier than most of them.
    let query = Some(sighting(second(2) + 5, 8));
    recent.insert(&EndedExchange { at_ns: second(2) + 500, sequence: 11, query, ..ENDED });
    let looked_at = |since_ns| recent.chain_since(KEY, second(11), since_ns).count();
    assert_eq!(looked_at(second(11)), 1, "itself; the one before it is in order again");
    assert_eq!(recent.exchange(KEY, 3, second(2) + 100).map(|ended| ended.sequence), Some(11));
    assert_eq!(recent.exchange(KEY, 3, second(11)).map(|ended| ended.sequence), Some(10));
    assert!(recent.is_copy_of_query(KEY, 3, &sighting(second(5), 9)), "of an older one");
}
