//! Lookups through search lists by the C library, against the SQL that finds them and what it advises.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tap53_harness::laboratory::{CACHE_IP, Laboratory, Plan, Recorded, Recording, Resolver};

use super::questions;

/// Lookups of each pod at a time, of as many names.
const AT_ONCE: usize = 4;

/// Names that an application looks up, and the queries that each takes with ndots:5.
struct Lookups {
    names: Vec<(String, u64)>,
}

impl Lookups {
    /// The names of one of the pod's threads.
    fn new(pod: usize, thread: usize, count: usize) -> Self {
        let name = |number: usize| match number % 5 {
            // Outside of the cluster: three domains first.
            0..=2 => (format!("www{pod}-{thread}-{number}.t3.test"), 4),
            // Exists nowhere, and is looked up again and again.
            3 => (format!("no{pod}-{thread}-{}.absent.test", number / 20), 4),
            // In the second domain, and in the first.
            _ if number.is_multiple_of(2) => ("db.prod".to_owned(), 2),
            _ => ("api".to_owned(), 1),
        };
        Self { names: (0..count).map(name).collect() }
    }

    fn texts(&self) -> Vec<String> {
        self.names.iter().map(|(name, _)| name.clone()).collect()
    }
}

/// Looks names up in all pods, several at a time in each, and returns what was recorded and asked.
fn look_up(ndots: u8, lookups: usize) -> Result<(Recorded, Vec<Lookups>)> {
    let plan = Plan { pods: [2, 2], node_cache: true, ..Plan::default() };
    let laboratory = Laboratory::new(&plan)?;
    let recording = Recording::start(&laboratory)?;
    let pods: Vec<_> = laboratory.pods().collect();
    let each = lookups / (pods.len() * AT_ONCE);
    let threads =
        (0..pods.len() * AT_ONCE).map(|at| Lookups::new(at / AT_ONCE, at % AT_ONCE, each));
    let threads: Vec<Lookups> = threads.collect();
    let resolver = Resolver { server: CACHE_IP, ndots };
    std::thread::scope(|scope| {
        let running: Vec<_> = threads
            .iter()
            .enumerate()
            .map(|(at, names)| {
                let pod = pods[at / AT_ONCE];
                scope.spawn(move || pod.look_up(resolver, &names.texts()))
            })
            .collect();
        running.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })?;
    Ok((recording.stop()?, threads))
}

#[test]
fn search_lists_are_found_and_the_advice_saves_what_it_promises() -> Result<()> {
    let count = questions()?;
    let (recorded, threads) = look_up(5, count)?;
    let [lookups, waste] = recorded
        .tables
        .ask(["SELECT * FROM search_lookups", "SELECT * FROM search_waste ORDER BY client"])?;
    require_lookups(&threads, &lookups)?;
    let (before, avoided) = (sum(&waste, "questions")?, sum(&waste, "avoided")?);
    ensure!(waste.len() == 4 && avoided > 0, "{waste:#?}");
    for row in &waste {
        let advice = "dnsConfig: {options: [{name: ndots, value: \"2\"}]}";
        ensure!(row["dns_config"] == advice, "{row}");
    }

    require_by_workload(&recorded, avoided)?;

    let (recorded, _) = look_up(2, count)?;
    let [waste] = recorded.tables.ask(["SELECT * FROM search_waste ORDER BY client"])?;
    let after = sum(&waste, "questions")?;
    ensure!(before - after == avoided, "{before} and {after} questions, {avoided} to avoid");
    ensure!(waste.iter().all(|row| row["avoided"] == 0), "{waste:#?}");
    Ok(())
}

/// The same by workload. No API server runs here that would name them, so the table gets them afterwards.
fn require_by_workload(recorded: &Recorded, avoided: i64) -> Result<()> {
    let [_, waste] = recorded.tables.ask([
        "UPDATE dns_transactions SET client_pod_namespace = 'default', client_workload_kind = 'Deployment', \
         client_workload_name = CASE WHEN client_address LIKE '10.244.1.%' THEN 'shop' ELSE 'web' END \
         WHERE client_address LIKE '10.244.%'",
        "SELECT * FROM search_waste ORDER BY client_workload_name",
    ])?;
    let names: Vec<_> = waste.iter().map(|row| &row["client_workload_name"]).collect();
    ensure!(names == ["shop", "web"], "{waste:#?}");
    ensure!(waste.iter().all(|row| row["client"].is_null()), "{waste:#?}");
    ensure!(sum(&waste, "avoided")? == avoided, "{avoided} by client, {waste:#?}");
    Ok(())
}

/// Each lookup of several queries is there with all of them, and nothing else.
fn require_lookups(threads: &[Lookups], rows: &[Value]) -> Result<()> {
    let asked: HashMap<&str, u64> = threads
        .iter()
        .flat_map(|thread| &thread.names)
        .map(|(name, steps)| (&**name, *steps))
        .collect();
    let mut found = HashSet::new();
    for row in rows {
        let name = row["name"].as_str().context("a name")?;
        let queries = row["queries"].as_u64().context("queries")?;
        ensure!(asked.get(name) == Some(&queries), "{row}");
        let winner = if name == "db.prod" { "svc.cluster.local" } else { "" };
        let wins = !name.ends_with("absent.test");
        ensure!(row["winner"] == if wins { winner.into() } else { Value::Null }, "{row}");
        found.insert(name);
    }
    let several = asked.iter().filter(|(_, steps)| **steps > 1).map(|(name, _)| *name);
    let missing: Vec<_> = several.filter(|name| !found.contains(name)).collect();
    let outside = |name: &str| name.ends_with(".test");
    let wanted =
        threads.iter().flat_map(|thread| &thread.names).filter(|(name, _)| outside(name)).count();
    let counted = rows.iter().filter(|row| row["name"].as_str().is_some_and(outside)).count();
    ensure!(counted == wanted, "{counted} lookups of {wanted}");
    ensure!(missing.is_empty(), "{} lookups are missing, as {:?}", missing.len(), missing.first());
    Ok(())
}

fn sum(rows: &[Value], column: &str) -> Result<i64> {
    rows.iter().map(|row| row[column].as_i64().context("a number")).sum()
}
