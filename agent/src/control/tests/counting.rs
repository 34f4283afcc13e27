//! Counts for `tap53 top`.

use tap53_records::encode::Record;
use tap53_signals::{Signal, Signals};
use tap53_transactions::privacy::config::{AddressRule, PrivacyConfig};

use super::*;
use crate::tail::COUNTING_FOLLOWERS;

fn push(feed: &mut Feed, name: &str, count: u64) {
    feed.refresh();
    samples::with_record(name, |record| (0..count).for_each(|_| feed.count(record)));
    feed.deliver();
}

fn unanswered() -> Selection {
    Selection { unanswered: true, ..Selection::default() }
}

#[test]
fn a_client_gets_the_counts_of_what_it_selects_from_all_workers() {
    let setup = setup(echo);
    let mut feeds = [(); 2].map(|()| Feed::new(setup.tails.clone()).unwrap());
    let mut all = setup.client().top(Selection::default()).unwrap();
    let mut some = setup.client().top(unanswered()).unwrap();
    let nothing = all.read().unwrap();
    assert_eq!((nothing.dns.transactions, &*nothing.agent.node), (0, "node-1"));
    for feed in &mut feeds {
        push(feed, "matched", 3);
        push(feed, "unanswered", 2);
    }
    let (all, some) = (all.read().unwrap().dns, some.read().unwrap().dns);
    assert_eq!((all.transactions, all.unanswered, all.latency.count()), (10, 4, 6));
    assert_eq!((some.transactions, some.unanswered, some.latency.count()), (4, 4, 0));
    let item = all.names.items.first().unwrap();
    assert_eq!((&*item.item, item.count, item.error), ("www.example.test", 10, 0));
    let [rcode] = &all.rcodes[..] else { panic!("{:?}", all.rcodes) };
    assert_eq!((&*rcode.name, rcode.count), ("NOERROR", 6));
    let of = |ends: &[crate::top::EndCounts]| ends.iter().map(|it| it.transactions).sum::<u64>();
    assert_eq!((of(&all.workloads), of(&all.servers)), (10, 10));
}

#[test]
fn a_client_gets_the_signals_that_occurred() {
    let setup = setup(echo);
    let mut feeds = [(); 2].map(|()| Feed::new(setup.tails.clone()).unwrap());
    let mut all = setup.client().top(Selection::default()).unwrap();
    let mut none = setup.client().top(unanswered()).unwrap();
    let signals: Signals = [Signal::Tunnel, Signal::NewDomainNode].into_iter().collect();
    for feed in &mut feeds {
        feed.refresh();
        samples::with_record("matched", |record| {
            feed.count(&Record { signals: Some(signals), ..*record });
            feed.count(&Record {
                signals: Some(Signals::NONE.with(Signal::Tunnel, true)),
                ..*record
            });
        });
        feed.deliver();
    }
    let count = |name: &str, count| crate::top::Count { name: name.to_owned(), count };
    let expected = [count("tunnel", 4), count("new_domain_node", 2)];
    assert_eq!(all.read().unwrap().dns.signals, expected);
    assert_eq!(none.read().unwrap().dns.signals, []);
}

#[test]
fn workers_stop_counting_for_a_client_that_is_gone_and_its_place_is_free() {
    let setup = setup(echo);
    let mut feed = Feed::new(setup.tails.clone()).unwrap();
    let top = || setup.client().top(Selection::default());
    let mut all: Vec<_> = (0..COUNTING_FOLLOWERS).map(|_| top().unwrap()).collect();
    let Err(Error::Fault(Fault { reason: Reason::Busy, message })) = top().map(drop) else {
        panic!("not refused");
    };
    assert!(message.contains("4 followers"), "{message}");
    push(&mut feed, "matched", 1);
    assert!(all.iter_mut().all(|it| it.read().unwrap().dns.transactions == 1));
    drop(all);
    until(|| setup.tails.counting() == 0);
    // One that comes later counts from its beginning.
    let mut next = top().unwrap();
    push(&mut feed, "matched", 1);
    assert_eq!(next.read().unwrap().dns.transactions, 1);
}

#[test]
fn a_client_is_told_that_the_agent_stops() {
    let mut setup = setup(echo);
    let mut counting = setup.client().top(Selection::default()).unwrap();
    assert!(counting.read().is_ok());
    drop(setup.server.take());
    let Err(Error::Ended(why)) = counting.read() else { panic!("not ended") };
    assert_eq!(why, "the agent has stopped");
    assert!(matches!(counting.read(), Err(Error::Disconnected { .. })));
}

#[test]
fn names_that_no_record_can_have_are_refused() {
    let setup = setup(echo);
    let selection = Selection { qnames: vec!["a..b".to_owned()], ..Selection::default() };
    let refused = setup.client().top(selection).map(drop);
    assert!(
        matches!(refused, Err(Error::Fault(Fault { reason: Reason::Refused, .. }))),
        "{refused:?}"
    );
}

#[test]
fn addresses_are_hidden_by_the_rules_at_the_reading() {
    let tails = Tails::default();
    let mut feed = Feed::new(tails.clone()).unwrap();
    let counting = tails.count(&Selection::default()).unwrap();
    push(&mut feed, "matched", 1);
    let privacy = PrivacyConfig { client_address: AddressRule::Drop, ..PrivacyConfig::default() };
    let policy = tap53_transactions::privacy::Policy::new(&privacy);
    let dns = crate::top::DnsCounts::new(&counting.read(), &policy, 0);
    let clients: Vec<_> = dns.clients.items.iter().map(|it| &*it.item).collect();
    assert_eq!(clients, ["~hidden"]);
}

#[test]
fn an_agent_without_top_is_reported_as_an_earlier_version() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("old.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    // As an agent before this call answers.
    let answer = r#"{"error":{"reason":"malformed","message":"unknown variant `top`"}}"#;
    let old = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut request = String::new();
        BufReader::new(&stream).read_line(&mut request).unwrap();
        writeln!(&stream, "{answer}").unwrap();
        request
    });
    let error = Client::new(&path).top(Selection::default()).map(drop).unwrap_err();
    assert!(error.to_string().contains("earlier version than this command"), "{error}");
    let request = old.join().unwrap();
    assert_eq!(request, "{\"version\":1,\"call\":{\"top\":{\"selection\":{}}}}\n");
}
