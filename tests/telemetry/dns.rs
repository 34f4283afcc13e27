//! The metrics of the DNS add up to the ledger at every scrape.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use tap53_harness::{
    agent::Agent,
    client::{Client, Question, Transport},
    lab::UNANSWERED,
    namespace::{CLIENT_END, Namespace, SERVER_END, join},
    unbound::{Extra, Unbound},
    wait,
};

use super::{DEADLINE, PORT, get_from, is_as_documented, promtool_agrees, series};

/// The least number of scrapes under load.
const SCRAPES: usize = 40;

/// The least that the configuration allows: fewer than there are series in the traffic.
const MAX_SERIES: usize = 32;

/// Types that the resolver has no data for, or some, so that there are more series than room.
const QTYPES: [&str; 8] = ["A", "AAAA", "MX", "TXT", "CNAME", "PTR", "CAA", "NS"];

/// One question for each way that a query can end.
const NXDOMAIN: Question = Question { name: "nowhere.absent.test", qtype: "A" };
const SERVFAIL: Question = Question { name: "www.broken.test", qtype: "A" };
/// The configuration excludes its type.
const FILTERED: Question = Question { name: "_dns._udp.tap53.test", qtype: "SRV" };

/// A resolver that can fail, and its clients.
pub(super) struct Stage {
    _unbound: Unbound,
    client: Namespace,
    pub(super) server: Namespace,
}

impl Stage {
    pub(super) fn new() -> Result<Self> {
        let client = Namespace::new()?;
        let server = Namespace::new()?;
        join((&client, CLIENT_END), (&server, SERVER_END), 1_500)?;
        // A zone whose only server it may not query: SERVFAIL. One with an address for every name.
        let extra = Extra {
            server: "  local-zone: \"broken.test.\" transparent\n  local-zone: \"many.test.\" redirect\n  \
                     local-data: \"many.test. 300 IN A 203.0.113.99\"\n"
                .to_owned(),
            sections: "forward-zone:\n  name: \"broken.test.\"\n  forward-addr: 127.0.0.1@1\n"
                .to_owned(),
            log_file: None,
        };
        let addresses = [SERVER_END.ipv4.into(), SERVER_END.ipv6.into()];
        let unbound = Unbound::start_with(&server, &addresses, &extra)?;
        Ok(Self { _unbound: unbound, client, server })
    }

    pub(super) fn clients(&self) -> [Client<'_>; 2] {
        let addresses: [IpAddr; 2] = [SERVER_END.ipv4.into(), SERVER_END.ipv6.into()];
        addresses.map(|address| Client::new(&self.client, address))
    }

    /// Starts an agent with these keys in `record.keep` and `dns_metrics`.
    pub(super) fn start(&self, keep: &str, dns_metrics: &str) -> Result<Agent> {
        let yaml = format!(
            "interfaces: {{include: [s0]}}\ncapture: {{workers: 2, ring_bytes: 1048576}}\n\
             pair: {{timeout_ms: 300}}\nfilter: {{qtypes: {{deny: [SRV]}}}}\n\
             sinks: [{{type: file, directory: $OUT}}]\n\
             telemetry: {{listen: '{PORT}'}}\ndns_metrics: {{{dns_metrics}}}\n\
             record: {{keep: {{{keep}}}}}\n"
        );
        Agent::start(&self.server, &yaml, &[])
    }

    /// Sends a query of each kind to both addresses.
    pub(super) fn ask_each_kind(&self) -> Result<()> {
        for client in self.clients() {
            for question in [NXDOMAIN, SERVFAIL, FILTERED] {
                client.ask(Transport::Udp, question)?;
            }
            client.ask(Transport::Tcp, Question { name: "www.tap53.test", qtype: "A" })?;
            client.ask_in_vain(UNANSWERED)?;
        }
        Ok(())
    }

    /// Sends queries of all types over both transports, from the first to the last, and of each kind.
    fn ask_all(&self, sent: &AtomicUsize) -> Result<()> {
        for client in self.clients() {
            for qtype in QTYPES {
                let question = Question { name: "www.tap53.test", qtype };
                // Only sent, since a type in an answer need not be known here.
                client.ask_in_vain(question)?;
                client.ask_in_vain(Question { name: NXDOMAIN.name, qtype })?;
                sent.fetch_add(2, Ordering::Relaxed);
            }
        }
        self.ask_each_kind()
    }
}

/// The series of one metric, by their labels.
pub(super) type Labels<'a> = BTreeMap<&'a str, &'a str>;

/// The series of `name` with their labels.
pub(super) fn family<'a>(all: &BTreeMap<&'a str, f64>, name: &str) -> Vec<(Labels<'a>, f64)> {
    let of = |(series, value): (&&'a str, &f64)| {
        let labels = series.strip_prefix(name)?.strip_prefix('{')?.strip_suffix('}')?;
        let labels = labels.split("\",").filter_map(|label| label.split_once("=\""));
        Some((labels.map(|(name, value)| (name, value.trim_matches('"'))).collect(), *value))
    };
    all.iter().filter_map(of).collect()
}

/// Sums of one scrape.
#[derive(Debug, PartialEq)]
struct Sums {
    transactions: f64,
    recorded: f64,
    filtered: f64,
    not_kept: f64,
    other: f64,
    latencies: f64,
    timeouts: f64,
    series: usize,
}

impl Sums {
    /// Reads a scrape and requires the sums to agree.
    fn of(text: &str) -> Result<Self> {
        let all = series(text);
        let transactions = family(&all, "tap53_dns_transactions_total");
        let sum = |name: &str| family(&all, name).iter().map(|(_, value)| value).sum::<f64>();
        let outcome = |outcome: &str| -> f64 {
            let has = |labels: &Labels<'_>| labels["outcome"] == outcome;
            transactions.iter().filter(|(labels, _)| has(labels)).map(|(_, value)| value).sum()
        };
        let sums = Self {
            transactions: sum("tap53_dns_transactions_total"),
            filtered: sum("tap53_records_filtered_total"),
            not_kept: all["tap53_records_filtered_total{reason=\"not_kept\"}"],
            recorded: all["tap53_records_created_total"] - sum("tap53_records_filtered_total"),
            other: outcome("~other"),
            latencies: sum("tap53_dns_latency_seconds_count"),
            timeouts: sum("tap53_dns_timeouts_total"),
            series: transactions.len(),
        };
        ensure!(sums.transactions == sums.recorded + sums.not_kept, "{sums:?}: {text}");
        // Those counted as `~other` may be of either outcome.
        for (name, pairs, outcome) in [
            ("latencies", sums.latencies, outcome("matched")),
            ("timeouts", sums.timeouts, outcome("unanswered")),
        ] {
            let most = outcome + sums.other;
            ensure!((outcome..=most).contains(&pairs), "{name}, {outcome} of {sums:?}: {text}");
        }
        ensure!(sums.series <= MAX_SERIES, "{sums:?}: {text}");
        Ok(sums)
    }
}

#[test]
fn series_add_up_to_the_ledger_at_every_scrape_under_load_beyond_the_cap_and_while_switched()
-> Result<()> {
    let stage = Stage::new()?;
    let agent = stage.start("share: 0.5, by: exchange", &format!("max_series: {MAX_SERIES}"))?;
    let before = Sums::of(&get_from(&stage.server, "/metrics")?.body)?;
    assert_eq!((before.transactions, before.series), (0.0, 1), "only ~other is there");
    // First, so that each kind has a series of its own, also what times out.
    stage.ask_each_kind()?;
    wait::until("two timeouts", DEADLINE, || {
        let sums = Sums::of(&get_from(&stage.server, "/metrics")?.body)?;
        Ok((sums.timeouts == 2.0).then_some(()))
    })?;
    let (is_over, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let scrapes = thread::scope(|scope| -> Result<usize> {
        let load = scope.spawn(|| -> Result<()> {
            while !is_over.load(Ordering::Relaxed) {
                stage.ask_all(&sent)?;
            }
            Ok(())
        });
        let switches = scope.spawn(|| -> Result<usize> {
            let mut switches = 0;
            while !is_over.load(Ordering::Relaxed) {
                // Both directions, one, and without programs: some transactions lose a side.
                for arguments in [
                    &["disable", "s0"][..],
                    &["enable", "s0", "--direction", "ingress"],
                    &["enable", "s0"],
                ] {
                    let switched = agent.command(arguments)?.output()?;
                    ensure!(switched.status.success(), "{switched:?}");
                    switches += 1;
                }
            }
            Ok(switches)
        });
        let scraped = scrape(&stage);
        is_over.store(true, Ordering::Relaxed);
        let ended = (load.join(), switches.join());
        let (Ok(load), Ok(switches)) = ended else { anyhow::bail!("a thread panicked") };
        load?;
        ensure!(switches? >= 3, "capture was not switched");
        scraped
    })?;
    // Nothing waits any more, and capture is on.
    stage.ask_each_kind()?;
    let text = wait::until("all transactions to be recorded", DEADLINE, || {
        let text = get_from(&stage.server, "/metrics")?.body;
        Sums::of(&text)?;
        let is_idle = ["tap53_ring_packets", "tap53_messages_pending"]
            .iter()
            .all(|name| text.contains(&format!("\n{name} 0\n")));
        Ok(is_idle.then_some(text))
    })?;
    let last = Sums::of(&text)?;
    println!("{scrapes} scrapes of {} queries and more: {last:?}", sent.into_inner());
    assert_eq!(last.series, MAX_SERIES, "{text}");
    assert!(
        last.other > 0.0 && last.filtered > last.not_kept && last.not_kept > 0.0,
        "{last:?}: {text}"
    );
    assert!(last.timeouts > 0.0 && last.latencies > 0.0, "{last:?}: {text}");
    has_each_kind(&text);
    let all = series(&text);
    assert_eq!(all["tap53_dns_series{of=\"transactions\"}"], MAX_SERIES as f64);
    assert_eq!(all["tap53_dns_series_limit{of=\"transactions\"}"], MAX_SERIES as f64);
    is_as_documented(&text)?;
    promtool_agrees(&text)?;
    let ended = agent.stop()?;
    assert_eq!(ended.ledger["balanced"], true, "{}", ended.ledger);
    let recorded = last.transactions - last.not_kept;
    assert_eq!(ended.records.len() as f64, recorded, "a record for each transaction that is kept");
    Ok(())
}

/// Scrapes until there were enough scrapes with other sums than the one before, and series beyond the cap.
fn scrape(stage: &Stage) -> Result<usize> {
    let (mut scrapes, mut last) = (0, 0.0);
    wait::until("enough scrapes under load", DEADLINE, || {
        let text = get_from(&stage.server, "/metrics")?.body;
        let sums = Sums::of(&text).with_context(|| format!("scrape {scrapes}"))?;
        scrapes += usize::from(sums.transactions > last);
        last = sums.transactions;
        Ok((scrapes >= SCRAPES && sums.other > 0.0).then_some(scrapes))
    })
}

/// Requires a series of each kind of transaction that was first.
fn has_each_kind(text: &str) {
    let all = series(text);
    let transactions = family(&all, "tap53_dns_transactions_total");
    let has = |of: &[(&str, &str)]| {
        transactions
            .iter()
            .any(|(labels, value)| *value > 0.0 && of.iter().all(|(name, it)| labels[name] == *it))
    };
    for address in [SERVER_END.ipv4.to_string(), SERVER_END.ipv6.to_string()] {
        let server = ("server", address.as_str());
        let udp = ("transport", "udp");
        for (rcode, transport) in
            [("NXDOMAIN", udp), ("SERVFAIL", udp), ("NOERROR", ("transport", "tcp"))]
        {
            let of = [server, ("qtype", "A"), ("rcode", rcode), transport, ("outcome", "matched")];
            assert!(has(&of), "{of:?} in {text}");
        }
        let of = [server, ("qtype", "A"), ("rcode", ""), udp, ("outcome", "unanswered")];
        assert!(has(&of), "{of:?} in {text}");
    }
    assert!(!has(&[("qtype", "SRV")]), "excluded by the filter: {text}");
    assert!(has(&[("client_workload", "~unattributed")]), "{text}");
}

#[test]
fn names_and_clients_are_shown_only_if_enabled_and_as_the_privacy_rules_say() -> Result<()> {
    const NAME: &str = "tap53_dns_top_nxdomain_name_transactions{name=\"nowhere.absent.test\"} 2\n";
    let stage = Stage::new()?;
    let agent = stage.start("", "names: true, clients: true, top: 3")?;
    let reverse = Question { name: "10.113.0.203.in-addr.arpa", qtype: "PTR" };
    for _ in 0..2 {
        let [client, _] = stage.clients();
        client.ask(Transport::Udp, NXDOMAIN)?;
        client.ask(Transport::Udp, reverse)?;
    }
    let text = wait::until("names in the metrics", DEADLINE, || {
        let text = get_from(&stage.server, "/metrics")?.body;
        Ok(text.contains(NAME).then_some(text))
    })?;
    let client = format!("client=\"{}\"", CLIENT_END.ipv4);
    assert!(text.contains(reverse.name) && text.contains(&client), "{text}");
    promtool_agrees(&text)?;

    // Rules that came later hide what was counted before.
    let rules = "\nprivacy: {client_address: drop, server_address: drop, reverse_names: drop}\n";
    let path = agent.directory().join("tap53.yaml");
    let yaml = std::fs::read_to_string(&path)?;
    std::fs::write(&path, yaml + rules)?;
    let text = wait::until("the rules in force", DEADLINE, || {
        let text = get_from(&stage.server, "/metrics")?.body;
        Ok(text
            .contains("tap53_dns_top_client_transactions{client=\"~hidden\"} 4\n")
            .then_some(text))
    })?;
    assert!(!text.contains(&client) && !text.contains(reverse.name), "{text}");
    assert!(text.contains("{name=\"in-addr.arpa\"} 2\n"), "{text}");
    assert!(text.contains("server=\"~hidden\"") && text.contains(NAME), "{text}");
    assert!(!text.contains(&SERVER_END.ipv4.to_string()), "{text}");
    drop(agent);

    let agent = stage.start("", "")?;
    stage.ask_each_kind()?;
    let text = wait::until("transactions in the metrics", DEADLINE, || {
        let text = get_from(&stage.server, "/metrics")?.body;
        Ok((Sums::of(&text)?.timeouts > 0.0).then_some(text))
    })?;
    assert!(!text.contains("absent.test") && !text.contains(&client), "{text}");
    drop(agent);
    Ok(())
}

#[test]
fn queries_in_the_manual_are_valid_and_of_existing_metrics() -> Result<()> {
    let page = std::fs::read_to_string(super::root().join("docs/dns-metrics.md"))?;
    assert_eq!(super::undocumented(&page)?, Vec::<String>::new());
    let queries = page.split("```promql\n").skip(1).filter_map(|rest| rest.split("```").next());
    let rules: Vec<String> = queries
        .zip(0..)
        .map(|(query, number)| {
            // JSON is YAML.
            format!("  - {{record: q{number}, expr: {}}}\n", serde_json::json!(query))
        })
        .collect();
    assert!(rules.len() > 5, "{rules:?}");
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("rules.yaml");
    std::fs::write(&file, format!("groups:\n- name: manual\n  rules:\n{}", rules.concat()))?;
    super::promtool(&["check", "rules"], &file)
}
