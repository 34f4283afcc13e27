//! Several workers, floods, and random traffic.

use proptest::prelude::*;

use super::*;

#[test]
fn a_worker_that_does_not_read_is_waited_for_and_then_costs_certainty() {
    let mut scene = Scene::new();
    scene.workers = 2;
    scene.tracker = Tracker::new(config(), 2);
    scene.ask(1, 10, "a.example", 1);
    scene.answer(1, 11, answer(0));
    let events: Vec<Event> = scene.events.drain(..).collect();
    let mut settled = Vec::new();
    scene.tracker.submit(0, events.into_iter(), 20 * MS, &mut settled, |_| {});
    assert_eq!(settled, []);
    assert_eq!(scene.tracker.late().collect::<Vec<_>>(), [1]);
    scene.tracker.submit(0, std::iter::empty(), 400 * MS, &mut settled, |_| {});
    let last = settled.iter().find(|it| it.record == record(1)).unwrap();
    assert_eq!(last.chain.source.unwrap().from, AnsweredFrom::Unknown);
    assert!(scene.tracker.counts().forced > 0);
    assert_eq!(scene.tracker.counts().events_waiting, 0);
}

/// Both workers have a backlog, and one of them reads faster.
#[test]
fn a_worker_that_is_a_second_behind_costs_no_verdict() {
    let mut scene = Scene::new();
    scene.workers = 2;
    let config = Config { hold: Duration::from_secs(2), capacity: 512 };
    scene.tracker = Tracker::new(config, 2);
    let clients = 1..=500;
    for number in clients.clone() {
        scene.ask(number, 10 + 3 * number, &format!("n{number}.example"), 1);
        scene.answer(number, 12 + 3 * number, answer(0));
    }
    let of_clients: Vec<Event> = scene.events.drain(..).collect();
    for number in clients.clone().filter(|number| number % 2 == 0) {
        scene.ask_upstream(1_000 + number, 11 + 3 * number, &format!("n{number}.example"), 1);
        scene.answer_upstream(1_000 + number, 11 + 3 * number, answer(0));
    }
    let of_resolver: Vec<Event> = scene.events.drain(..).collect();
    let mut settled = Vec::new();
    let tracker = &mut scene.tracker;
    tracker.submit(0, of_clients.into_iter(), 1_600 * MS, &mut settled, |_| {});
    assert_eq!(settled, []);
    tracker.submit(1, of_resolver.into_iter(), 1_600 * MS, &mut settled, |_| {});
    tracker.submit(0, std::iter::empty(), 1_600 * MS, &mut settled, |_| {});
    assert_eq!(tracker.counts().forced, 0);
    let settled: HashMap<_, _> = settled.into_iter().map(|it| (it.record, it.chain)).collect();
    for number in clients {
        let wanted = if number % 2 == 0 { AnsweredFrom::Upstream } else { AnsweredFrom::Cache };
        assert_eq!(from(&settled, number).0, wanted, "{number}");
    }
}

#[test]
fn a_flood_leaves_the_memory_bounded_and_gets_verdicts() {
    let mut scene = Scene::new();
    let flood = 20_000;
    for number in 1..=flood {
        scene.ask(number, 10, &format!("n{number}.example"), 1);
    }
    for number in 1..=flood {
        scene.answer(number, 20, answer(0));
    }
    let settled = scene.settle();
    assert!((1..=flood).all(|number| settled.contains_key(&record(number))));
    // An answer whose upstream side was not followed is not called cached.
    assert_eq!(from(&settled, flood).0, AnsweredFrom::Unknown);
}

/// One exchange of random traffic: a client's question and what the resolver does for it.
#[derive(Clone, Debug)]
struct Exchange {
    name: u8,
    at: u64,
    took: u64,
    /// Upstream queries, and whether each has a response.
    upstream: Vec<bool>,
}

fn exchanges() -> impl Strategy<Value = Vec<Exchange>> {
    let exchange =
        (any::<u8>(), 0..1_000u64, 20..100u64, prop::collection::vec(any::<bool>(), 0..4));
    let exchange = exchange.prop_map(|(name, at, took, upstream)| Exchange {
        name,
        at: at + 10,
        took,
        upstream,
    });
    prop::collection::vec(exchange, 1..40)
}

proptest! {
    /// Each exchange has a name of its own, so the right verdict is known, whatever worker captures
    /// what and whatever happens at the same time.
    #[test]
    fn verdicts_are_exact_for_names_of_their_own(
        exchanges in exchanges(),
        spread in prop::collection::vec(0usize..3, 16),
    ) {
        let mut scene = Scene::new();
        scene.workers = 3;
        scene.tracker = Tracker::new(config(), 3);
        let mut expected = Vec::new();
        let mut next = 0;
        for (index, exchange) in exchanges.iter().enumerate() {
            next += 1;
            let client = next;
            let name = format!("{}-{index}.example", exchange.name);
            scene.ask(client, exchange.at, &name, 1);
            let mut upstreams = Vec::new();
            for (step, is_answered) in (1..).zip(&exchange.upstream) {
                next += 1;
                upstreams.push(next);
                scene.ask_upstream(next, exchange.at + step * 4, &name, 1);
                let (at, response) = if *is_answered {
                    (exchange.at + step * 4 + 2, answer(0))
                } else {
                    (exchange.at + 5_000, no_response())
                };
                scene.answer_upstream(next, at, response);
            }
            scene.answer(client, exchange.at + exchange.took, answer(0));
            let is_upstream = exchange.upstream.contains(&true);
            expected.push((client, is_upstream, upstreams));
        }
        scene.events.sort_by_key(Event::at_ns);
        let settled = scene.settle_across(|number| spread[number % spread.len()]);
        for (client, is_upstream, upstreams) in expected {
            let wanted = if is_upstream { AnsweredFrom::Upstream } else { AnsweredFrom::Cache };
            let count = u32::try_from(upstreams.len()).unwrap();
            prop_assert_eq!(from(&settled, client), (wanted, count));
            for upstream in upstreams {
                let served = served(&settled, upstream);
                prop_assert_eq!(served, Served { record: Some(record(client)), count: 1 });
            }
        }
    }

    /// Whatever the events, each closed exchange gets one verdict, and nothing panics.
    #[test]
    fn each_closed_exchange_gets_one_verdict(
        steps in prop::collection::vec((0u8..5, 0u64..30, 0u64..2_000, 0u8..4), 0..200),
    ) {
        let mut scene = Scene::new();
        let mut closed = vec![1_000];
        for (kind, number, at, name) in steps {
            let name = ["a.example", "b.a.example", "c.b.a.example", "x.test"][usize::from(name)];
            match kind {
                0 => scene.ask(number, at, name, 1),
                1 => scene.ask_upstream(number, at, name, 1),
                2 => scene.events.push(Event::Gap { from_ns: at * MS, until_ns: (at + 1) * MS }),
                _ if closed.contains(&number) => {}
                3 => {
                    closed.push(number);
                    scene.answer(number, at, answer(0));
                }
                _ => {
                    closed.push(number);
                    scene.answer_upstream(number, at, no_response());
                }
            }
        }
        let settled = scene.settle();
        prop_assert_eq!(settled.len(), closed.len());
        prop_assert!(closed.into_iter().all(|number| settled.contains_key(&record(number))));
    }
}
