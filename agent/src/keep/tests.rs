//! Decisions on transactions of known clients.

use tap53_attribution::LabelSelector;
use tap53_dns::{Flow, Transport, build::Build};
use tap53_records::encode::{Attribution, Identity};
use tap53_signals::Signal;
use tap53_transactions::{
    pair::{Anomalies, Exchange, Observation, RecordId, Sightings},
    sampling::Notable,
};

use super::{config::KeepRule, *};

/// A transaction about `name`, with a response after some time.
struct Answer<'a> {
    name: &'a str,
    rcode: u16,
    latency: Duration,
}

impl Answer<'_> {
    fn with<T>(&self, each: impl FnOnce(&Transaction<'_>) -> T) -> T {
        let seen = |at_ns, response| {
            let message = Build::message(7, response).question(self.name, 1).parse();
            Observation { at_ns, message, ..Observation::default() }
        };
        let query = seen(1_000_000_000, false);
        let latency_ns = u64::try_from(self.latency.as_nanos()).unwrap();
        let mut response = seen(query.at_ns + latency_ns, true);
        response.message.rcode = self.rcode;
        let flow = Flow {
            transport: Transport::Udp,
            client: ([192, 0, 2, 1], 40_000).into(),
            server: ([192, 0, 2, 53], 53).into(),
            tunnel: None,
            ifindex: 7,
        };
        each(&Transaction {
            id: RecordId([0; 16]),
            flow,
            exchange: Exchange::Matched(&query, &response),
            query_count: 1,
            latest_query_ns: query.at_ns,
            copy_count: 0,
            capture_gap: false,
            related: None,
            anomalies: Anomalies::NONE,
            sightings: Sightings::single(&flow),
            chain: None,
        })
    }
}

fn plain(name: &str) -> Answer<'_> {
    Answer { name, rcode: 0, latency: Duration::from_millis(1) }
}

fn share(share: f64) -> Share {
    Share::new(share).unwrap()
}

fn pod(namespace: &str, workload: &str, tier: &str) -> Owner {
    Owner::new(Identity {
        attribution: Attribution::Pod,
        pod_namespace: Some(namespace.to_owned()),
        workload_name: Some(workload.to_owned()),
        labels: Some([("tier".to_owned(), tier.to_owned())].into()),
        ..Identity::default()
    })
}

fn least() -> KeepConfig {
    KeepConfig { share: share(0.000_001), ..KeepConfig::default() }
}

#[test]
fn without_rules_everything_is_kept_and_nothing_is_said_about_it() {
    let keep = Keep::new(&KeepConfig::default(), 1.0);
    plain("a.test").with(|it| {
        assert_eq!(keep.decide(it, &Owner::default(), Signals::NONE), Decision::Kept(None));
        assert!(!keep.leaves_out(it));
    });
}

#[test]
fn transactions_with_a_signal_are_kept_unless_the_list_lacks_them() {
    let tunnel = Signals::NONE.with(Signal::Tunnel, true);
    let decide = |config: &KeepConfig| {
        let keep = Keep::new(config, 1.0);
        plain("a.test").with(|it| keep.decide(it, &Owner::default(), tunnel))
    };
    assert_eq!(decide(&least()), Decision::Kept(Some(1_000_000)));
    let always = Notables::ALL.iter().filter(|kind| *kind != Notable::Signal).collect();
    assert_eq!(decide(&KeepConfig { always, ..least() }), Decision::LeftOut);
}

#[test]
fn notable_and_slow_answers_are_always_kept() {
    let config = KeepConfig { slower: Some(Duration::from_millis(50)), ..least() };
    let keep = Keep::new(&config, 1.0);
    let decide =
        |answer: &Answer<'_>| answer.with(|it| keep.decide(it, &Owner::default(), Signals::NONE));
    let whole = Decision::Kept(Some(1_000_000));
    assert_eq!(decide(&plain("a.test")), Decision::LeftOut);
    assert_eq!(decide(&Answer { rcode: 3, ..plain("a.test") }), whole);
    let slow =
        |latency_us| Answer { latency: Duration::from_micros(latency_us), ..plain("a.test") };
    assert_eq!(decide(&slow(49_999)), Decision::LeftOut);
    assert_eq!(decide(&slow(50_000)), whole);
}

#[test]
fn a_kind_that_is_not_listed_is_sampled_like_others() {
    let config = KeepConfig { always: [Notable::Error].into_iter().collect(), ..least() };
    let keep = Keep::new(&config, 1.0);
    for (rcode, is_kept) in [(2, true), (3, false)] {
        let kept = Answer { rcode, ..plain("a.test") }.with(|it| {
            (keep.decide(it, &Owner::default(), Signals::NONE).is_kept(), !keep.leaves_out(it))
        });
        assert_eq!(kept, (is_kept, is_kept), "{rcode}");
    }
}

fn selector(namespaces: &[&str], workloads: &[&str], labels: &[&str]) -> PodSelector {
    PodSelector {
        namespaces: namespaces.iter().map(|it| it.parse().unwrap()).collect(),
        workloads: workloads.iter().map(|it| it.parse().unwrap()).collect(),
        pod_labels: labels.iter().map(|it| LabelSelector::parse(it).unwrap()).collect(),
    }
}

#[test]
fn the_first_rule_that_selects_a_client_decides() {
    let rules = vec![
        KeepRule { pods: selector(&["shop"], &["web"], &[]), share: Share::WHOLE },
        KeepRule { pods: selector(&[], &[], &["tier in (back)"]), share: share(0.000_002) },
        KeepRule { pods: selector(&["shop"], &[], &[]), share: Share::WHOLE },
    ];
    let keep = Keep::new(&KeepConfig { rules, ..least() }, 1.0);
    plain("a.test").with(|it| {
        let kept = |client: Owner| keep.decide(it, &client, Signals::NONE).is_kept();
        assert!(kept(pod("shop", "web", "back")));
        assert!(!kept(pod("shop", "db", "back")));
        assert!(kept(pod("shop", "db", "front")));
        assert!(!kept(pod("bank", "db", "front")));
        assert!(!kept(Owner::default()), "no pod");
        assert!(!keep.leaves_out(it), "it depends on the client");
    });
}

#[test]
fn what_is_left_out_early_is_what_every_client_would_lose() {
    let rules = vec![KeepRule { pods: selector(&["shop"], &[], &[]), share: share(0.3) }];
    let keep = Keep::new(&KeepConfig { share: share(0.1), rules, ..KeepConfig::default() }, 1.0);
    let mut early = 0;
    for number in 0..1_000 {
        plain(&format!("n{number}.test")).with(|it| {
            let kept = |client: &Owner| keep.decide(it, client, Signals::NONE).is_kept();
            let any = kept(&pod("shop", "web", "")) || kept(&Owner::default());
            assert_eq!(keep.leaves_out(it), !any, "{number}");
            early += usize::from(!any);
        });
    }
    assert!((600..800).contains(&early), "{early}");
}

/// The sum of the weights is the number of transactions, within five standard deviations of Horvitz and
/// Thompson's estimator. Names are distinct, so decisions are independent.
#[test]
fn weights_estimate_the_number_of_transactions() {
    let rules = vec![KeepRule { pods: selector(&["shop"], &[], &[]), share: share(0.5) }];
    let config = KeepConfig { share: share(0.02), rules, ..KeepConfig::default() };
    let keep = Keep::new(&config, 1.0);
    let (shop, bank) = (pod("shop", "web", ""), pod("bank", "web", ""));
    let (mut estimate, mut variance, mut truth) = (0.0, 0.0, 0.0);
    for number in 0..20_000 {
        let client = if number % 4 == 0 { &shop } else { &bank };
        let rcode = if number % 10 == 0 { 3 } else { 0 };
        let name = format!("n{number}.test");
        truth += 1.0;
        let decision =
            Answer { rcode, ..plain(&name) }.with(|it| keep.decide(it, client, Signals::NONE));
        if let Decision::Kept(per_million) = decision {
            let weight = 1e6 / f64::from(per_million.unwrap());
            estimate += weight;
            variance += weight * (weight - 1.0);
        }
    }
    let error: f64 = estimate - truth;
    assert!(error.abs() < 5.0 * f64::sqrt(variance), "{estimate} of {truth} ± {variance}");
    assert!(variance > 0.0 && estimate.fract() == 0.0);
}

#[test]
fn a_sample_of_the_filter_is_part_of_the_weight() {
    let decide = |config: &KeepConfig, rcode| {
        let keep = Keep::new(config, 0.5);
        Answer { rcode, ..plain("a.test") }
            .with(|it| keep.decide(it, &Owner::default(), Signals::NONE))
    };
    assert_eq!(decide(&KeepConfig::default(), 0), Decision::Kept(Some(500_000)));
    assert_eq!(decide(&least(), 3), Decision::Kept(Some(500_000)));
    let rules = vec![KeepRule { pods: selector(&["shop"], &[], &[]), share: share(0.1) }];
    let keep = Keep::new(&KeepConfig { rules, ..KeepConfig::default() }, 0.5);
    let kept = (0..100).find_map(|number| {
        plain(&format!("n{number}.test"))
            .with(|it| keep.decide(it, &pod("shop", "web", ""), Signals::NONE).kept_per_million())
    });
    assert_eq!(kept, Some(50_000));
}

#[test]
fn the_description_names_every_rule() {
    assert_eq!(KeepConfig::default().to_string(), "every transaction becomes a record");
    let rules =
        vec![KeepRule { pods: selector(&["shop", "bank"], &[], &["tier"]), share: share(0.5) }];
    let config = KeepConfig {
        always: [Notable::Error, Notable::Unanswered].into_iter().collect(),
        slower: Some(Duration::from_millis(100)),
        share: share(0.05),
        rules,
        ..KeepConfig::default()
    };
    assert_eq!(
        config.to_string(),
        "always recorded: error, unanswered, answers after 100 ms or more; rules[0]: 50 % of the others of \
         clients in namespace shop or bank and pods with tier; 5 % of the others of other clients, chosen \
         by client and name; the metrics count all of them"
    );
}
