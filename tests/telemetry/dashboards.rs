//! The dashboards: their queries are valid, of existing metrics, and have results when a real Prometheus
//! scrapes an agent under mixed traffic.

#[path = "dashboards/board.rs"]
mod board;
#[path = "dashboards/stage.rs"]
mod stage;
#[path = "dashboards/traffic.rs"]
mod traffic;

use std::{
    collections::BTreeSet,
    fs, mem,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::json;
use tap53_harness::{prometheus::Prometheus, wait};

use super::{ALERTS, PORT, get_from, promtool, root, series, undocumented};
use board::{Board, Query};
use stage::{Backends, Network};
use traffic::Traffic;

/// Some ten seconds on a machine with nothing else to do.
const DEADLINE: Duration = Duration::from_secs(90);

/// Interval between two evaluations of all queries: that of the scrapes.
const LOOK: Duration = Duration::from_secs(1);

/// Grafana's `$__rate_interval` with a scrape interval of a second.
const RATE_INTERVAL: &str = "4s";

/// Queries that have no result while nothing is wrong, and why.
const EMPTY: [(&str, &str); 12] = [
    ("tap53/Packets lost at hooks, by reason/A", "no packet is lost here"),
    ("tap53/Packets and messages lost, by reason/B", "each message is in a record"),
    ("tap53/Packets and messages lost, by reason/C", "no fragment waits in vain"),
    ("tap53/Packets and messages lost, by reason/D", "no byte of a stream is missing"),
    ("tap53/Connects and disconnects/B", "no connection that was made ends"),
    ("tap53/Round trip and throttling, 99 %/B", "the broker has no quotas"),
    ("tap53/Errors, retries, timeouts/A", "a broker that is connected takes all requests"),
    ("tap53/Errors, retries, timeouts/B", "and answers them"),
    ("tap53/Errors, retries, timeouts/C", "so nothing is retried"),
    ("tap53/Errors, retries, timeouts/D", "and nothing times out"),
    ("tap53/Control socket/B", "no request is refused"),
    ("tap53/Log lines/B", "no line repeats that often"),
];

/// Queries of the dashboard of the DNS that are 0 while nothing is wrong, and why.
const ZERO: [(&str, &str); 6] = [
    ("tap53-dns/Packets lost, share/A", "no packet is lost here"),
    ("tap53-dns/Packets and messages lost/B", "each message is in a record"),
    ("tap53-dns/Directions without capture/A", "all that is selected is captured"),
    ("tap53-dns/Counted as ~other/A", "there is room for all series"),
    ("tap53-dns/Counted as ~other/B", "and for all pairs of client and server"),
    ("tap53-dns/Error of the top lists/A", "each name has a counter of its own"),
];

fn boards() -> Result<[Board; 2]> {
    Ok([Board::read("tap53.json")?, Board::read("tap53-dns.json")?])
}

#[test]
fn every_query_of_the_dashboards_has_a_result_under_mixed_traffic() -> Result<()> {
    let network = Network::new()?;
    let mut backends = Backends::start(&network.node)?;
    let agent = backends.start_agent(&network.node)?;
    let rules = ALERTS.map(|name| root().join("deploy/prometheus").join(name));
    let prometheus = Prometheus::start(&network.node, PORT, &rules)?;
    let traffic = Traffic::new(&network)?;
    let is_over = AtomicBool::new(false);
    let dns = thread::scope(|scope| {
        let sender = scope.spawn(|| traffic.run(&is_over));
        let evaluated = evaluate(&prometheus, || backends.lose_api_server());
        is_over.store(true, Ordering::Relaxed);
        // First, since nothing has a result without traffic.
        sender.join().map_err(|_| anyhow!("the sender panicked"))?.context("send queries")?;
        evaluated
    })?;
    require_healthy_rules(&prometheus)?;
    require_no_division_by_zero(&prometheus, &dns)?;
    let metrics = get_from(&network.node, "/metrics")?.body;
    assert_eq!(series(&metrics)["tap53_ledger_balanced"], 1.0, "{metrics}");
    drop(agent);
    Ok(())
}

/// Waits until each query has a result, and returns those of the dashboard of the DNS.
fn evaluate(prometheus: &Prometheus<'_>, lose_api_server: impl FnOnce()) -> Result<Vec<Query>> {
    wait::until_every(LOOK, "the client's workload", DEADLINE, || {
        let metric = "tap53_dns_transactions_total";
        let workloads = prometheus.label_values(metric, "client_workload")?;
        Ok(workloads.iter().any(|name| name == stage::WORKLOAD).then_some(()))
    })?;
    // A watch has an age only without its server.
    lose_api_server();
    let [agents, dns] = boards()?;
    let dns = dns.queries(prometheus, RATE_INTERVAL)?;
    let mut missing = agents.queries(prometheus, RATE_INTERVAL)?;
    missing.extend_from_slice(&dns);
    require_listed_ones_exist(&missing)?;
    let mut scrapes = 0.0;
    wait::until("a result of each query", DEADLINE, || {
        // Results change with a scrape.
        let now = prometheus.query("count_over_time(tap53_live[1h])")?.iter().sum();
        if now > scrapes {
            scrapes = now;
            missing = without_result(prometheus, mem::take(&mut missing))?;
        }
        Ok(missing.is_empty().then_some(()))
    })
    .with_context(|| format!("without a result: {missing:#?}"))?;
    Ok(dns)
}

/// Requires a query for each entry of the lists above.
fn require_listed_ones_exist(queries: &[Query]) -> Result<()> {
    let places: BTreeSet<&str> = queries.iter().map(|query| query.place.as_str()).collect();
    ensure!(places.len() == queries.len(), "two panels have one title");
    for (place, _) in EMPTY.iter().chain(&ZERO) {
        ensure!(places.contains(place), "there is no query {place}");
    }
    Ok(())
}

fn without_result(prometheus: &Prometheus<'_>, queries: Vec<Query>) -> Result<Vec<Query>> {
    let mut without = Vec::new();
    for query in queries {
        if !has_result(&query, &values(prometheus, &query)?) {
            without.push(query);
        }
    }
    Ok(without)
}

/// Evaluates a query. In the dashboard of the DNS, each value is a number.
fn values(prometheus: &Prometheus<'_>, query: &Query) -> Result<Vec<f64>> {
    let values = prometheus.query(&query.text).with_context(|| format!("{query:?}"))?;
    let is_dns = query.place.starts_with("tap53-dns/");
    ensure!(!is_dns || values.iter().all(|value| value.is_finite()), "{query:?}: {values:?}");
    Ok(values)
}

/// Returns true if a query of the DNS has a value above 0, and another one any number, unless the lists
/// above say that there need not be one.
fn has_result(query: &Query, values: &[f64]) -> bool {
    let is_of = |list: &[(&str, &str)]| list.iter().any(|(place, _)| *place == query.place);
    let is_dns = query.place.starts_with("tap53-dns/");
    let may_be_0 = !is_dns || is_of(&ZERO);
    is_of(&EMPTY) || values.iter().any(|it| it.is_finite() && (may_be_0 || *it > 0.0))
}

/// Requires that Prometheus has evaluated each rule without an error.
fn require_healthy_rules(prometheus: &Prometheus<'_>) -> Result<()> {
    let rules = wait::until_every(LOOK, "all rules to be evaluated", DEADLINE, || {
        let rules = prometheus.rules()?;
        Ok(rules.iter().all(|rule| rule["health"] != "unknown").then_some(rules))
    })?;
    let alerts: Vec<_> = rules.iter().filter(|rule| rule["health"] == "ok").collect();
    ensure!(alerts.len() == rules.len() && alerts.len() > 25, "{rules:#?}");
    Ok(())
}

/// Requires numbers when all rates are 0, after the traffic.
fn require_no_division_by_zero(prometheus: &Prometheus<'_>, queries: &[Query]) -> Result<()> {
    let rate = format!("sum(rate(tap53_dns_transactions_total[{RATE_INTERVAL}]))");
    wait::until_every(LOOK, "no traffic", DEADLINE, || {
        Ok((prometheus.query(&rate)? == [0.0]).then_some(()))
    })?;
    queries.iter().try_for_each(|query| values(prometheus, query).map(drop))
}

#[test]
fn dashboards_have_valid_queries_of_existing_metrics() -> Result<()> {
    let mut rules = Vec::new();
    for board in boards()? {
        assert_eq!(undocumented(&board.text)?, Vec::<String>::new(), "{}", board.uid);
        let mut replacements = vec![("$__rate_interval".to_owned(), "5m".to_owned())];
        for name in board.variables()? {
            replacements.push((format!("${name}"), ".*".to_owned()));
        }
        let queries = board.queries_with(&replacements)?;
        ensure!(queries.len() > 40, "{} has {} queries", board.uid, queries.len());
        rules.extend(queries.into_iter().map(|query| query.text));
    }
    let rules: Vec<_> = (0..)
        .zip(rules)
        .map(|(number, query)| json!({"record": format!("q{number}"), "expr": query}))
        .collect();
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("rules.yaml");
    // JSON is YAML.
    let groups = json!({"groups": [{"name": "dashboards", "rules": rules}]});
    fs::write(&file, groups.to_string())?;
    promtool(&["check", "rules"], &file)
}

#[test]
fn dashboards_link_to_each_other_and_explain_their_panels() -> Result<()> {
    let [agents, dns] = boards()?;
    for board in [&agents, &dns] {
        let tags = board.json["tags"].as_array().context("tags")?;
        assert!(tags.contains(&json!("tap53")), "{}", board.uid);
        let links = board.json["links"].as_array().context("links")?;
        let [link] = &links[..] else { anyhow::bail!("{}: {links:?}", board.uid) };
        assert_eq!((&link["type"], &link["tags"]), (&json!("dashboards"), &json!(["tap53"])));
        let panels = board.json["panels"].as_array().context("panels")?;
        let ids: BTreeSet<_> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
        assert_eq!(ids.len(), panels.len(), "{} has an id twice", board.uid);
    }
    assert_ne!(agents.uid, dns.uid);
    assert_eq!(dns.variables()?, ["instance", "namespace", "workload", "server"]);
    for panel in dns.panels()? {
        for of in [&panel["description"], &panel["fieldConfig"]["defaults"]["unit"]] {
            assert!(of.as_str().is_some_and(|text| !text.is_empty()), "{panel:#}");
        }
    }
    Ok(())
}
