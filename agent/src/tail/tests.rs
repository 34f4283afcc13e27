use tap53_records::encode::{Attribution, Encode, Identity, JsonLine, Owner, Record, Row, samples};
use tap53_signals::Signal;
use tap53_transactions::{
    pair::Transaction,
    privacy::{
        Policy,
        config::{AddressRule, PrefixLengths, PrivacyConfig},
    },
};

use super::*;

/// A feed of one worker, and a follower of it.
fn followed(format: LineFormat, selection: &Selection) -> (Tails, Feed, Tail) {
    let tails = Tails::default();
    let mut feed = Feed::new(tails.clone()).unwrap();
    let tail = tails.follow(user(0), format, selection, None);
    feed.refresh();
    (tails, feed, tail)
}

/// Returns the lines that a follower with `selection` gets for the sample `name`.
fn seen(selection: &Selection, name: &str) -> String {
    let (_, mut feed, tail) = followed(LineFormat::Text, selection);
    samples::with_record(name, |record| feed.push(record, None));
    feed.deliver();
    taken(&tail).0
}

fn taken(tail: &Tail) -> (String, u64) {
    let mut lines = vec![1, 2, 3];
    let lost = tail.take(&mut lines);
    (String::from_utf8(lines).unwrap(), lost)
}

fn push(feed: &mut Feed, count: u64) {
    samples::with_record("matched", |record| (0..count).for_each(|_| feed.push(record, None)));
    feed.deliver();
}

#[test]
fn each_follower_gets_its_format_and_a_worker_without_followers_writes_nothing() {
    let tails = Tails::default();
    let mut feed = Feed::new(tails.clone()).unwrap();
    feed.refresh();
    push(&mut feed, 1);
    let follow = |format| tails.follow(user(0), format, &Selection::default(), None);
    let (json, text) = (follow(LineFormat::Json), follow(LineFormat::Text));
    let colored = follow(LineFormat::ColoredText);
    assert_eq!(taken(&text), (String::new(), 0));
    feed.refresh();
    push(&mut feed, 2);
    for line in taken(&json).0.lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(record["qname"], "www.example.test");
    }
    let (plain, bright) = (taken(&text).0, taken(&colored).0);
    assert_eq!((plain.lines().count(), bright.lines().count()), (2, 2));
    assert!(!plain.contains('\x1b') && bright.contains("\x1b[32mNOERROR"));
    drop((json, text, colored));
    assert_eq!(tails.followers(), 0);
}

#[test]
fn a_slow_follower_loses_lines_in_one_place_and_they_are_counted_exactly() {
    let (tails, mut feed, slow) = followed(LineFormat::Text, &Selection::default());
    let fast = tails.follow(user(0), LineFormat::Text, &Selection::default(), None);
    feed.refresh();
    const PUSHED: u64 = 20_000;
    let mut seen_fast = 0;
    for _ in 0..PUSHED / 100 {
        push(&mut feed, 100);
        let (lines, lost) = taken(&fast);
        assert_eq!(lost, 0);
        seen_fast += lines.lines().count() as u64;
    }
    assert_eq!(seen_fast, PUSHED);
    let (lines, lost) = taken(&slow);
    assert!(lines.len() <= QUEUE_BYTES && lines.len() > QUEUE_BYTES / 2, "{}", lines.len());
    assert!(lines.ends_with('\n'));
    assert_eq!(lines.lines().count() as u64 + lost, PUSHED);
    assert_eq!(tails.lines_lost(), lost);
    // It reads again, and sees all again.
    push(&mut feed, 10);
    assert_eq!((taken(&slow).0.lines().count(), taken(&slow).1), (10, 0));
}

/// Two workers push, and the second one's lines would fit where the first one's did not.
#[test]
fn after_a_lost_line_none_is_added_until_the_queue_is_read() {
    let queue =
        Queue::new(user(0), LineFormat::Text, RecordFilter::new(&Selection::default()), false);
    queue.push(b"one\n", 1, 0);
    queue.push(&vec![b'x'; QUEUE_BYTES], 7, 0);
    assert!(queue.is_full());
    queue.push(b"two\n", 1, 0);
    let mut lines = Vec::new();
    assert_eq!(queue.take(&mut lines), 8);
    assert_eq!(lines, b"one\n");
    queue.push(b"three\n", 1, 0);
    lines.clear();
    assert_eq!((queue.take(&mut lines), lines), (0, b"three\n".to_vec()));
}

#[test]
fn lines_of_two_workers_do_not_mix() {
    let (tails, mut one, tail) = followed(LineFormat::Json, &Selection::default());
    let mut other = Feed::new(tails).unwrap();
    other.refresh();
    std::thread::scope(|scope| {
        for feed in [&mut one, &mut other] {
            scope.spawn(move || (0..20).for_each(|_| push(feed, 3)));
        }
    });
    let (lines, lost) = taken(&tail);
    assert_eq!((lines.lines().count(), lost), (120, 0));
    for line in lines.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
    }
}

fn user(uid: u32) -> FollowerOwner {
    FollowerOwner::User { uid, limit: FOLLOWERS }
}

fn is_displaced(tail: &Tail) -> bool {
    *tail.displacement().borrow()
}

/// Returns the indexes of the displaced ones.
fn displaced(followers: &[Tail]) -> Vec<usize> {
    (0..followers.len()).filter(|at| is_displaced(&followers[*at])).collect()
}

#[test]
fn the_newest_follower_displaces_the_oldest() {
    let tails = Tails::default();
    let follow = |owner| tails.follow(owner, LineFormat::Json, &Selection::default(), None);
    let mut followers: Vec<Tail> = (0..FOLLOWERS).map(|_| follow(user(0))).collect();
    assert!(displaced(&followers).is_empty());
    followers.push(follow(user(0)));
    assert_eq!((displaced(&followers), tails.followers()), (vec![0], FOLLOWERS));
    // The end of a displaced one does not end another.
    drop(followers.remove(0));
    assert_eq!(tails.followers(), FOLLOWERS);
    drop(followers);
    assert_eq!(tails.followers(), 0);
}

#[test]
fn no_user_displaces_all_others() {
    let tails = Tails::default();
    let follow = |owner| tails.follow(owner, LineFormat::Json, &Selection::default(), None);
    let limited = |uid| FollowerOwner::User { uid, limit: 4 };
    let mut followers = vec![follow(FollowerOwner::Probe), follow(user(0)), follow(user(0))];
    followers.extend((0..4).map(|_| follow(limited(1_000))));
    followers.push(follow(limited(1_001)));
    assert_eq!((displaced(&followers), tails.followers()), (vec![], FOLLOWERS));
    // At its own limit, a user displaces its own oldest.
    followers.push(follow(limited(1_000)));
    assert_eq!(displaced(&followers), [3]);
    // The user with the most makes room for others.
    followers.push(follow(limited(1_001)));
    followers.push(follow(user(0)));
    assert_eq!(displaced(&followers), [3, 4, 5]);
}

#[test]
fn a_follower_selects_by_each_field() {
    let prefixes = |text: &str| vec![text.parse().unwrap()];
    let zone = |text: &str| vec![text.to_owned()];
    let all = Selection::default();
    for (held, selection) in [
        (true, Selection { qnames: zone("example.test"), ..all.clone() }),
        (true, Selection { qnames: zone("."), ..all.clone() }),
        (false, Selection { qnames: zone("ample.test"), ..all.clone() }),
        (true, Selection { clients: prefixes("192.0.2.0/30"), ..all.clone() }),
        (false, Selection { clients: prefixes("192.0.2.53/32"), ..all.clone() }),
        (true, Selection { servers: prefixes("192.0.2.53/32"), ..all.clone() }),
        (false, Selection { servers: prefixes("192.0.2.0/30"), ..all.clone() }),
        (true, Selection { qtypes: vec![28, 1], ..all.clone() }),
        (false, Selection { qtypes: vec![28], ..all.clone() }),
        (true, Selection { rcodes: vec![0], ..all.clone() }),
        (false, Selection { rcodes: vec![2], ..all.clone() }),
        (false, Selection { unanswered: true, ..all.clone() }),
        (true, Selection { interfaces: zone("eth?"), ..all.clone() }),
        // The interface of the response.
        (true, Selection { interfaces: zone("eth1"), ..all.clone() }),
        (false, Selection { interfaces: zone("veth*"), ..all.clone() }),
        (true, Selection { answers: prefixes("192.0.2.64/26"), ..all.clone() }),
        (false, Selection { answers: prefixes("192.0.2.0/26"), ..all.clone() }),
        (false, Selection { signals: zone("DGA"), ..all.clone() }),
        (true, Selection { slower_us: Some(250), ..all.clone() }),
        (false, Selection { slower_us: Some(251), ..all.clone() }),
        (false, Selection { qtypes: vec![1], rcodes: vec![2], ..all.clone() }),
    ] {
        assert_eq!(!seen(&selection, "matched").is_empty(), held, "{selection:?}");
    }
    let unanswered = Selection { unanswered: true, rcodes: vec![2], ..all };
    assert!(!seen(&unanswered, "unanswered").is_empty());
    assert!(seen(&unanswered, "matched").is_empty());
}

#[test]
fn a_follower_selects_by_the_clients_pod() {
    let labels = [("app", "checkout"), ("tier", "web")];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let client = Owner::new(Identity {
        attribution: Attribution::Pod,
        pod_namespace: Some("shop".to_owned()),
        pod_name: Some("checkout-7d9f-x2x4z".to_owned()),
        workload_name: Some("checkout".to_owned()),
        labels: Some(labels.into_iter().collect()),
        ..Identity::default()
    });
    let server = Owner::new(Identity {
        pod_namespace: Some("kube-system".to_owned()),
        pod_name: Some("coredns-1".to_owned()),
        ..Identity::default()
    });
    let one = |text: &str| vec![text.to_owned()];
    let labelled = |text: &str| vec![label(text).unwrap()];
    let all = Selection::default();
    for (held, selection) in [
        (true, Selection { namespaces: one("shop"), ..all.clone() }),
        (true, Selection { namespaces: one("sh*"), ..all.clone() }),
        (false, Selection { namespaces: one("kube-system"), ..all.clone() }),
        (true, Selection { pods: one("checkout-*"), ..all.clone() }),
        (false, Selection { pods: one("checkout"), ..all.clone() }),
        (false, Selection { pods: one("coredns-1"), ..all.clone() }),
        (true, Selection { workloads: one("checkout"), ..all.clone() }),
        (false, Selection { workloads: one("cart"), ..all.clone() }),
        (true, Selection { labels: labelled("app=checkout"), ..all.clone() }),
        (false, Selection { labels: labelled("app=cart"), ..all.clone() }),
        (false, Selection { labels: labelled("other=checkout"), ..all.clone() }),
        (false, Selection { namespaces: one("shop"), pods: one("cart-*"), ..all.clone() }),
    ] {
        let filter = RecordFilter::new(&selection);
        samples::with_record("matched", |record| {
            let record = Record { client: &client, server: &server, ..*record };
            let row = Row::of(&record);
            assert_eq!(filter.matches(&row), held, "{selection:?}");
            // The same from the record's JSON.
            let mut json = Vec::new();
            JsonLine.encode(&record, &mut json).unwrap();
            assert_eq!(filter.matches(&Row::from_json(&json).unwrap()), held, "{selection:?}");
        });
        // A client that is no pod.
        assert!(seen(&selection, "matched").is_empty());
    }
}

#[test]
fn a_selection_by_what_records_do_not_have_is_refused() {
    let known =
        Known { pods: true, labels: vec!["app".to_owned(), "tier".to_owned()], signals: false };
    let check =
        |mut selection: Selection, known: &Known| selection.check(&Policy::default(), known);
    let labels = |key: &str| Selection {
        labels: vec![(key.to_owned(), "x".to_owned())],
        ..Selection::default()
    };
    assert_eq!(check(labels("app"), &known), Ok(()));
    let refusal = check(labels("ap"), &known).unwrap_err().to_string();
    assert_eq!(
        refusal,
        "cannot select by label \"ap\": records have app, tier; add it to kubernetes.labels"
    );
    let pods = Selection { pods: vec!["x".to_owned()], ..Selection::default() };
    assert_eq!(check(pods.clone(), &known), Ok(()));
    for selection in [pods, labels("app")] {
        assert_eq!(check(selection, &Known::default()), Err(Refusal::NoPods));
    }
    let marked = |name: &str| Selection { signals: vec![name.to_owned()], ..Selection::default() };
    assert_eq!(check(marked("TUNNEL"), &known), Err(Refusal::NoSignals));
    let known = Known { signals: true, ..known };
    assert_eq!(check(marked("TUNNEL"), &known), Ok(()));
    let refusal = check(marked("TUNNELS"), &known).unwrap_err().to_string();
    assert!(refusal.contains("is not a signal; there are NEW_DOMAIN_NODE"), "{refusal}");
    let names = ["eth0".to_owned(), "veth1".to_owned()];
    let at = |pattern: &str| {
        Selection { interfaces: vec![pattern.to_owned()], ..Selection::default() }
            .check_interfaces(&names)
            .map_err(|refusal| refusal.to_string())
    };
    assert_eq!((at("eth0"), at("v*")), (Ok(()), Ok(())));
    let unknown = "no interface matches \"eth\": there are eth0, veth1";
    assert_eq!(at("eth"), Err(unknown.to_owned()));
}

#[test]
fn a_follower_selects_by_signal() {
    let marked = |names: &[&str]| Selection {
        signals: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Selection::default()
    };
    for (held, names) in [
        (true, &["TUNNEL"][..]),
        (true, &["DGA", "NEW_DOMAIN_NODE"]),
        (false, &["DGA"]),
        (false, &["NEW_DOMAIN"]),
    ] {
        let filter = RecordFilter::new(&marked(names));
        samples::with_record("matched", |record| {
            let found = [Signal::NewDomainNode, Signal::Tunnel].into_iter().collect();
            let record = Record { signals: Some(found), ..*record };
            assert_eq!(filter.matches(&Row::of(&record)), held, "{names:?}");
            // The same from the record's JSON.
            let mut json = Vec::new();
            JsonLine.encode(&record, &mut json).unwrap();
            assert_eq!(filter.matches(&Row::from_json(&json).unwrap()), held, "{names:?}");
        });
        assert!(seen(&marked(names), "matched").is_empty(), "{names:?}");
        assert!(seen(&marked(names), "response").is_empty(), "not looked for: {names:?}");
    }
    assert_eq!(signal("tunnel"), Ok("TUNNEL".to_owned()));
    assert!(signal("tunnels").is_err());
}

#[test]
fn labels_are_keys_and_values() {
    let pair = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
    assert_eq!(label("app.kubernetes.io/name=a=b"), pair("app.kubernetes.io/name", "a=b"));
    assert_eq!(label("app="), pair("app", ""));
    assert!(label("app").is_err() && label("=x").is_err());
}

#[tokio::test]
async fn a_follower_gets_each_record_once_whenever_it_begins() {
    let tails = Tails::new(1 << 20);
    let mut feeds = [0, 1].map(|_| Feed::new(tails.clone()).unwrap());
    for feed in &mut feeds {
        feed.refresh();
        push(feed, 3);
    }
    let wanted = Wanted { last: Some(5), since_us: None };
    let mut tail = tails.follow(user(0), LineFormat::Row, &Selection::default(), Some(wanted));
    let other = tails.follow(user(0), LineFormat::Row, &Selection::default(), None);
    // A worker that has not seen the follower yet.
    push(&mut feeds[0], 1);
    feeds.iter_mut().for_each(Feed::refresh);
    feeds.iter_mut().for_each(|feed| push(feed, 2));
    // A change of other followers copies nothing again.
    drop(other);
    feeds.iter_mut().for_each(Feed::refresh);
    let mut past = tail.past().await.unwrap();
    assert_eq!((past.len(), past.is_complete()), (5, true));
    let lines = past.next_lines().unwrap();
    assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 5);
    assert!(past.next_lines().is_none() && tail.past().await.is_none());
    assert_eq!((taken(&tail).0.lines().count(), taken(&tail).1), (4, 0));
}

#[tokio::test]
async fn a_worker_that_does_not_answer_makes_the_past_incomplete() {
    let tails = Tails::new(1 << 20);
    let mut feeds = [0, 1].map(|_| Feed::new(tails.clone()).unwrap());
    feeds.iter_mut().for_each(Feed::refresh);
    push(&mut feeds[0], 3);
    let wanted = Wanted { last: Some(5), since_us: None };
    let mut tail = tails.follow(user(0), LineFormat::Row, &Selection::default(), Some(wanted));
    feeds[0].refresh();
    let past = tail.past().await.unwrap();
    assert_eq!((past.len(), past.is_complete()), (3, false));
}

#[test]
fn a_selection_is_checked_and_normalized() {
    let mut selection = Selection {
        qnames: vec!["WWW.Example.Test.".to_owned()],
        interfaces: vec!["eth*".to_owned()],
        ..Selection::default()
    };
    selection.check(&Policy::default(), &Known::default()).unwrap();
    assert_eq!(selection.qnames, ["www.example.test"]);
    let check = |mut selection: Selection| selection.check(&Policy::default(), &Known::default());
    let wrong_name = Selection { qnames: vec!["a..b".to_owned()], ..Selection::default() };
    assert!(matches!(check(wrong_name), Err(Refusal::Malformed { .. })));
    let wrong_pattern = Selection { interfaces: vec!["eth[".to_owned()], ..Selection::default() };
    assert!(matches!(check(wrong_pattern), Err(Refusal::Malformed { .. })));
    let long = Selection { interfaces: vec!["*a".repeat(17)], ..Selection::default() };
    assert!(matches!(check(long), Err(Refusal::Malformed { .. })));
    let types = |count: u16| Selection { qtypes: (0..count).collect(), ..Selection::default() };
    assert_eq!((check(types(32)), check(types(33))), (Ok(()), Err(Refusal::TooMany)));
}

#[test]
fn hidden_values_cannot_be_selected_by() {
    let by =
        |text: &str| Selection { clients: vec![text.parse().unwrap()], ..Selection::default() };
    let hidden = Policy::new(&PrivacyConfig {
        client_address: AddressRule::Drop,
        ..PrivacyConfig::default()
    });
    assert_eq!(
        by("192.0.2.1/32").check(&hidden, &Known::default()),
        Err(Refusal::Hidden("the client's"))
    );
    // Truncated to 192.0.2.0: a selection of one address reveals nothing about the last eight bits.
    let truncated = Policy::new(&PrivacyConfig {
        client_address: AddressRule::Truncate(PrefixLengths { ipv4: 24, ipv6: 56 }),
        ..PrivacyConfig::default()
    });
    for (prefix, held) in [("192.0.2.1/32", false), ("192.0.2.0/24", true)] {
        let mut selection = by(prefix);
        selection.check(&truncated, &Known::default()).unwrap();
        let (_, mut feed, tail) = followed(LineFormat::Text, &selection);
        samples::with_record("matched", |record| {
            let transaction: Transaction<'_> = *record.transaction;
            feed.push(&Record { policy: &truncated, transaction: &transaction, ..*record }, None);
        });
        feed.deliver();
        let (lines, _) = taken(&tail);
        assert_eq!(lines.contains("192.0.2.0 "), held, "{prefix}: {lines}");
        assert!(!lines.contains("192.0.2.1 "), "{lines}");
    }
}

#[test]
fn response_codes_have_the_names_of_records() {
    for (name, code) in [("NXDOMAIN", 3), ("servfail", 2), ("BADVERS", 16), ("RCODE3841", 3841)] {
        assert_eq!(rcode(name), Ok(code), "{name}");
    }
    for wrong in ["", "NXDOMAINS", "RCODE4096", "3"] {
        assert!(rcode(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn lines_of_avro_are_the_datum_whether_a_sink_has_encoded_it_or_not() {
    let (_, mut feed, tail) = followed(LineFormat::Avro, &Selection::default());
    samples::with_record("matched", |record| {
        let mut datum = Vec::new();
        Format::AvroDatum.build().unwrap().encode(record, &mut datum).unwrap();
        feed.push(record, None);
        feed.push(record, Some(&datum));
        feed.deliver();
        let (lines, lost) = taken(&tail);
        assert_eq!((lines.lines().count(), lost), (2, 0));
        for line in lines.lines() {
            assert_eq!(datum_of_line(line.as_bytes()), Some(datum.clone()));
        }
    });
    assert_eq!(datum_of_line(b"no base64!"), None);
}
