//! The search groups of records, for lookups by glibc and by musl, with one server and with two.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    thread,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tap53_harness::laboratory::{
    CLUSTER_IP, Laboratory, Library, Plan, Recording, ask_until_followed, paired,
};

use super::{by_key, questions, require_nothing_lost};

/// Lookups of each pod at a time.
const AT_ONCE: usize = 3;
/// For each of so many questions of the other tests' loads, one name in each of these.
const QUESTIONS_PER_NAME: usize = 300;

/// Domains in the order in which names are looked up.
const DOMAINS: [&str; 4] =
    [".default.svc.cluster.local", ".svc.cluster.local", ".cluster.local", ""];

const RECORDS: &str = "SELECT dns_id, qname, qtype, client_address, client_port, server_address, \
     hex(search_group) AS lookup, search_step, search_winner, hex(record_id) AS id \
     FROM dns_transactions WHERE server_address NOT IN ('192.168.53.53', 'fd00:c0:a8:35::35') AND qname NOT LIKE '%once.test'";

const QUESTIONS: &str = "SELECT dns_id, qname, qtype, client_port, server_address FROM questions \
     WHERE server_address NOT IN ('192.168.53.53', 'fd00:c0:a8:35::35') AND qname LIKE 'two%'";

/// Lookups by one library.
struct Phase {
    /// Prefix of the names.
    prefix: &'static str,
    library: Library,
    servers: Vec<IpAddr>,
}

/// The names of one thread of a pod.
fn names(prefix: &str, pod: usize, thread: usize, count: usize) -> Vec<String> {
    let name = |number: usize| match number % 5 {
        // Exists nowhere.
        3 => format!("{prefix}{pod}-{thread}-{number}.absent.test"),
        _ => format!("{prefix}{pod}-{thread}-{number}.t3.test"),
    };
    let own = (0..count).map(name);
    // In the second domain, and in the first. Other threads of the pod look them up too.
    own.chain(["db.prod".to_owned(), "api".to_owned()]).collect()
}

/// The step at which a name is found, for A.
fn winner(name: &str) -> Option<usize> {
    match name {
        "api" => Some(1),
        "db.prod" => Some(2),
        _ => name.ends_with(".t3.test").then_some(4),
    }
}

fn look_up(laboratory: &Laboratory, phase: &Phase) -> Result<Vec<String>> {
    let pods: Vec<_> = laboratory.pods().collect();
    let count = questions()? / QUESTIONS_PER_NAME;
    let all: Vec<_> = (0..pods.len() * AT_ONCE)
        .map(|at| (pods[at / AT_ONCE], names(phase.prefix, at / AT_ONCE, at % AT_ONCE, count)))
        .collect();
    thread::scope(|scope| {
        let running: Vec<_> = all
            .iter()
            .map(|(pod, names)| {
                scope.spawn(|| pod.look_up_both(phase.library, &phase.servers, names))
            })
            .collect();
        running.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })?;
    Ok(all.into_iter().flat_map(|(_, names)| names).collect())
}

#[test]
fn no_group_of_glibc_or_musl_is_wrong() -> Result<()> {
    // By their addresses alone, the DNS pods are known as resolvers in the families of their queries.
    let plan = Plan {
        pods: [2, 2],
        backends: vec![1, 1],
        chains: true,
        both_families: true,
        ..Plan::default()
    };
    let laboratory = Laboratory::new(&plan)?;
    let service = [IpAddr::from(CLUSTER_IP), paired(CLUSTER_IP).into()];
    let both: Vec<IpAddr> = laboratory.dns_pods().map(|pod| pod.address.into()).collect();
    let phases = [
        Phase { prefix: "g", library: Library::Glibc, servers: vec![service[0]] },
        // Until the agent knows the resolvers by these addresses too.
        Phase { prefix: "known", library: Library::Glibc, servers: vec![service[1]] },
        Phase { prefix: "six", library: Library::Glibc, servers: vec![service[1]] },
        Phase { prefix: "m", library: Library::Musl, servers: vec![service[0]] },
        // Each question goes to both at once, with one identifier from one port.
        Phase { prefix: "two", library: Library::Musl, servers: both },
        Phase { prefix: "mixed", library: Library::Musl, servers: service.to_vec() },
    ];
    let recording = Recording::start(&laboratory)?;
    ask_until_followed(&laboratory, &laboratory.nodes()[1])?;
    let mut looked_up = Vec::new();
    for phase in &phases {
        looked_up.extend(look_up(&laboratory, phase)?);
    }
    let recorded = recording.stop()?;
    require_nothing_lost(&recorded)?;
    let [records, questions] = recorded.tables.ask([RECORDS, QUESTIONS])?;
    let whole = require_groups(&records)?;
    for prefix in ["g", "six", "m"] {
        require_found(prefix, &looked_up, &whole)?;
    }
    require_both_servers(&questions)
}

/// Nothing in any group is wrong. Returns the names whose lookup is a whole group.
fn require_groups(records: &[Value]) -> Result<HashSet<String>> {
    let mut groups: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for record in records {
        if let Some(group) = record["lookup"].as_str() {
            groups.entry(group).or_default().push(record);
        }
    }
    let mut whole = HashSet::new();
    for rows in groups.values() {
        // Of a group whose first record could not wait for the second name, the others are there.
        let first = rows.first().context("a group is not empty")?;
        let domain = DOMAINS.get(step(first)? - 1).context("a fifth step")?;
        let name = text(first, "qname").strip_suffix(domain);
        let name = name.with_context(|| format!("a step in another domain: {first}"))?;
        ensure!(
            rows.iter().all(|row| row["client_address"] == first["client_address"]),
            "{rows:?}"
        );
        let mut seen = HashSet::new();
        for row in rows {
            let step = step(row)?;
            let domain = DOMAINS.get(step - 1).with_context(|| format!("a fifth step: {row}"))?;
            ensure!(text(row, "qname") == format!("{name}{domain}"), "{row} of {name}");
            ensure!(seen.insert((step, text(row, "qtype"))), "twice in {name}: {row}");
            let wins = winner(name) == Some(step) && row["qtype"] == "A";
            ensure!(row["search_winner"] == wins, "{row} of {name}");
        }
        if seen.len() == 2 * winner(name).unwrap_or(4) {
            whole.insert(name.to_owned());
        }
    }
    Ok(whole)
}

/// The step of a record, from 1 on.
fn step(row: &Value) -> Result<usize> {
    let step = row["search_step"].as_u64().filter(|step| *step > 0).context("search_step")?;
    Ok(step.try_into()?)
}

fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().unwrap_or_default()
}

/// Lookups are groups: nearly all on an idle machine. A pause between two names leaves one out, so a busy
/// machine has fewer.
fn require_found(prefix: &str, looked_up: &[String], whole: &HashSet<String>) -> Result<()> {
    let is_of = |name: &&String| {
        let rest = name.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    };
    let names: Vec<_> = looked_up.iter().filter(is_of).collect();
    let found = names.iter().filter(|name| whole.contains(**name)).count();
    println!("{prefix}: {found} of {} lookups", names.len());
    ensure!(!names.is_empty() && found * 10 > names.len(), "{prefix}: {found} of {}", names.len());
    Ok(())
}

/// The queries that musl sends to two servers at once are two questions, and are not merged.
fn require_both_servers(questions: &[Value]) -> Result<()> {
    let mut asked: HashMap<_, Vec<&Value>> = HashMap::new();
    for (key, rows) in by_key(questions)? {
        for row in rows {
            asked.entry((key.clone(), text(row, "qtype"))).or_default().push(row);
        }
    }
    ensure!(!asked.is_empty(), "no questions of musl with two servers");
    for rows in asked.values() {
        let servers: HashSet<_> = rows.iter().map(|row| text(row, "server_address")).collect();
        ensure!(rows.len() == 2 && servers.len() == 2, "{rows:?}");
        ensure!(rows[0]["client_port"] == rows[1]["client_port"], "{rows:?}");
    }
    Ok(())
}
