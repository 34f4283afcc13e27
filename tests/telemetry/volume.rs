//! Records become few, and the metrics stay exact.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tap53_harness::{
    agent::{Agent, Ended},
    client::{Question, Transport},
    wait,
};

use super::{
    DEADLINE,
    dns::{Stage, family},
    get_from, series,
};

/// Names with a plain answer. Each is asked for once by one client, so decisions on them are independent.
const NAMES: usize = 400;
const SHARE: f64 = 0.2;
/// Transactions of each kind that [`Stage::ask_each_kind`] sends over both IP versions.
const OF_EACH_KIND: u64 = 2;

/// Values of the metrics at the end of a run.
struct Counts {
    transactions: u64,
    plain: u64,
    created: u64,
    not_kept: u64,
    excluded: u64,
}

impl Counts {
    fn of(text: &str) -> Self {
        let all = series(text);
        let sum = |name: &str, label: &str, value: &str| -> u64 {
            let family = family(&all, name);
            let has = family.iter().filter(|(labels, _)| labels.get(label) == Some(&value));
            has.map(|(_, value)| count(*value)).sum()
        };
        let of_reason = |reason| sum("tap53_records_filtered_total", "reason", reason);
        let transactions = family(&all, "tap53_dns_transactions_total");
        Self {
            transactions: transactions.iter().map(|(_, value)| count(*value)).sum(),
            plain: sum("tap53_dns_transactions_total", "rcode", "NOERROR"),
            created: count(all["tap53_records_created_total"]),
            not_kept: of_reason("not_kept"),
            excluded: of_reason("qtype_denied"),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of a test are whole and below 2^53"
)]
const fn count(value: f64) -> u64 {
    value as u64
}

/// Sends plain queries and one of each other kind to a new agent; returns its records and counts.
fn run(stage: &Stage, names: &[&'static str]) -> Result<(Ended, Counts)> {
    let agent = stage.start(&format!("share: {SHARE}"), "")?;
    ask(stage, names)?;
    let all = names.len() as u64 + 5 * OF_EACH_KIND;
    let counts = wait_for(stage, all)?;
    Ok((agent.stop()?, counts))
}

fn ask(stage: &Stage, names: &[&'static str]) -> Result<()> {
    let [client, _] = stage.clients();
    for name in names {
        client.ask(Transport::Udp, Question { name, qtype: "A" })?;
    }
    stage.ask_each_kind()
}

fn wait_for(stage: &Stage, created: u64) -> Result<Counts> {
    wait::until(&format!("{created} transactions"), DEADLINE, || {
        let counts = Counts::of(&get_from(&stage.server, "/metrics")?.body);
        ensure!(counts.transactions == counts.created - counts.excluded, "at each scrape");
        Ok((counts.created == created).then_some(counts))
    })
}

fn names_of<'a>(records: &[&'a Value]) -> BTreeSet<&'a str> {
    records.iter().filter_map(|record| record["qname"].as_str()).collect()
}

fn weight(record: &Value) -> Result<f64> {
    Ok(1e6 / record["kept_per_million"].as_f64().context("a share")?)
}

/// Names below `many.test`, which live as long as the test.
fn new_names(prefix: &str) -> Vec<&'static str> {
    (0..NAMES).map(|number| &*format!("{prefix}{number}.many.test").leak()).collect()
}

#[test]
fn records_become_few_and_alike_in_every_run_while_errors_and_metrics_are_complete() -> Result<()> {
    let stage = Stage::new()?;
    let names = new_names("n");
    let (first, counts) = run(&stage, &names)?;
    let plain = NAMES as u64 + OF_EACH_KIND;
    assert_eq!(counts.excluded, OF_EACH_KIND, "by the filter");
    assert_eq!(counts.plain, plain, "in the metrics, whether kept or not");
    assert_eq!(first.ledger["balanced"], true, "{}", first.ledger);
    let filtered = &first.ledger["agent"]["records"]["filtered"];
    assert_eq!(filtered["not_kept"], counts.not_kept, "{filtered}");

    let (kept, notable): (Vec<_>, Vec<_>) =
        first.records.iter().partition(|record| record["rcode"] == "NOERROR");
    assert_eq!(notable.len() as u64, 3 * OF_EACH_KIND, "{notable:?}");
    for rcode in [Value::from("NXDOMAIN"), Value::from("SERVFAIL"), Value::Null] {
        let count = notable.iter().filter(|record| record["rcode"] == rcode).count() as u64;
        assert_eq!(count, OF_EACH_KIND, "{rcode}");
    }
    assert!(notable.iter().all(|record| record["kept_per_million"] == 1_000_000));
    assert!(kept.iter().all(|record| record["kept_per_million"] == 200_000), "{kept:?}");
    assert_eq!(kept.len() as u64 + counts.not_kept, plain);

    // Five standard deviations of a binomial distribution, and of the estimator over it.
    let deviation = (NAMES as f64 * SHARE * (1.0 - SHARE)).sqrt();
    let of_names = names_of(&kept).iter().filter(|name| name.ends_with(".many.test")).count();
    let expected = NAMES as f64 * SHARE;
    assert!((of_names as f64 - expected).abs() < 5.0 * deviation, "{of_names} of {NAMES}");
    let weights: f64 = first.records.iter().map(weight).sum::<Result<f64>>()?;
    let error = weights - counts.transactions as f64;
    assert!(error.abs() < 5.0 * deviation / SHARE + 2.0 / SHARE, "{weights}: {error}");

    let (second, _) = run(&stage, &names)?;
    let kept_again: Vec<_> =
        second.records.iter().filter(|record| record["rcode"] == "NOERROR").collect();
    assert_eq!(names_of(&kept_again), names_of(&kept), "the choice is that of every run");
    Ok(())
}

#[test]
fn what_is_kept_changes_while_the_agent_runs() -> Result<()> {
    let stage = Stage::new()?;
    let agent = stage.start("share: 0.000001", "")?;
    let (before, after) = (new_names("before"), new_names("after"));
    let of_kinds = 5 * OF_EACH_KIND;
    let all = NAMES as u64 + of_kinds;
    ask(&stage, &before)?;
    assert!(wait_for(&stage, all)?.not_kept >= NAMES as u64 - 1);
    keep_everything(&agent)?;
    ask(&stage, &after)?;
    let counts = wait_for(&stage, 2 * all)?;
    let ended = agent.stop()?;
    let (old, new): (Vec<_>, Vec<_>) =
        ended.records.iter().partition(|record| !record["kept_per_million"].is_null());
    let names: Vec<_> = new.iter().filter_map(|record| record["qname"].as_str()).collect();
    assert_eq!(names.iter().filter(|name| name.starts_with("after")).count(), NAMES);
    assert!(old.iter().all(|record| record["rcode"] != "NOERROR"), "{old:?}");
    assert_eq!(ended.records.len() as u64, counts.transactions - counts.not_kept);
    assert_eq!(ended.ledger["balanced"], true, "{}", ended.ledger);
    Ok(())
}

/// Rewrites the configuration, and waits until it is in force.
fn keep_everything(agent: &Agent) -> Result<()> {
    let path = agent.directory().join("tap53.yaml");
    let yaml = std::fs::read_to_string(&path)?;
    std::fs::write(&path, yaml.replace("share: 0.000001", "share: 1"))?;
    agent.process().wait_for_line("config_reloaded", 0, DEADLINE)?;
    Ok(())
}
