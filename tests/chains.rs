//! Chains behind answers, compared with the logs of a real resolver and its upstream server.

#[path = "chains/stage.rs"]
mod stage;

use std::{
    collections::HashMap,
    fmt::Write as _,
    net::IpAddr,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stage::{OUTGOING, RESOLVER, Stage, UPSTREAM};
use tap53_harness::{agent::Agent, cgroups::Cgroups, wait};

const DEADLINE: Duration = Duration::from_secs(30);

const CLIENTS: u8 = 10;

/// Number of names that several clients ask for, and number of times that each has to expire.
const SHARED: usize = 40;
const FETCHED: usize = 2;

/// Minimum number of queries for names of their own.
const UNIQUE: u32 = 2_000;

const CONFIGURATION: &str = "
interfaces: {include: [vk, vr, vu]}
capture: {hook: tc, workers: 2}
chains: {enabled: true}
sinks:
  - {type: file, directory: $OUT}
";

/// Names below u.test exist, each for a second; s0 to s39 have TTLs of 1 to 5 seconds, and c0 to c9
/// point to some of them.
fn zone() -> String {
    let mut zone = "test. 3600 IN SOA ns.test. admin.test. 1 3600 600 86400 2
test. 3600 IN NS ns.test.
ns.test. 3600 IN A 198.51.100.100
*.u.test. 1 IN A 192.0.2.1
"
    .to_owned();
    for number in 0..SHARED {
        let _ = writeln!(zone, "s{number}.test. {} IN A 192.0.2.2", 1 + number % 5);
    }
    for number in 0..10 {
        let _ = writeln!(zone, "c{number}.test. {} IN CNAME s{}.test.", 2 + number % 4, number * 3);
    }
    zone
}

/// One line of the resolver's log of replies.
#[derive(Debug)]
struct Reply {
    client: String,
    name: String,
    is_cached: bool,
}

/// Reads `… info: 198.51.100.1 s1.test. A IN NOERROR 0.000000 1 50`: seconds, from the cache, size.
fn replies(lines: &[String]) -> Vec<Reply> {
    let read = |line: &String| {
        let words: Vec<&str> = line.split_once("info: ")?.1.split(' ').collect();
        let [client, name, _, "IN", _, _, cached, _] = words[..] else { return None };
        client.parse::<IpAddr>().ok()?;
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        Some(Reply { client: client.to_owned(), name, is_cached: cached == "1" })
    };
    lines.iter().filter_map(read).collect()
}

/// Returns the number of queries for each name in a log of queries: `… info: 127.0.0.1 s1.test. A IN`.
fn queries(lines: &[String]) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for line in lines {
        let words: Vec<&str> = match line.split_once("info: ") {
            Some((_, rest)) => rest.split(' ').collect(),
            None => continue,
        };
        if let [client, name, _, "IN"] = words[..]
            && client.parse::<IpAddr>().is_ok()
        {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            *counts.entry(name).or_default() += 1;
        }
    }
    counts
}

/// Has the clients ask until enough names of their own were queried and each shared one has expired.
fn traffic(stage: &Stage) -> Result<()> {
    let (unique, is_enough) = (AtomicU32::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| {
            stage.run_clients(CLIENTS, |client, asker| {
                let mut id = 0_u16;
                while !is_enough.load(Ordering::Relaxed) {
                    let number = unique.fetch_add(1, Ordering::Relaxed);
                    let turn = usize::from(id);
                    let names = [
                        format!("n{number}.u.test"),
                        format!("s{}.test", (turn * 7 + usize::from(client)) % SHARED),
                        format!("c{}.test", turn % 10),
                    ];
                    for name in names.iter().take(if turn.is_multiple_of(3) { 3 } else { 2 }) {
                        id = id.wrapping_add(1);
                        asker.ask(id, name)?;
                    }
                    if turn.is_multiple_of(16) {
                        id = id.wrapping_add(1);
                        asker.ask(id, "own.cluster.local")?;
                    }
                }
                Ok(())
            })
        });
        let have_expired = wait::until("shared names to expire", DEADLINE, || {
            let log = queries(&stage.upstream.log());
            let fetched =
                |number| log.get(&format!("s{number}.test")).is_some_and(|it| *it >= FETCHED);
            let is_done = (0..SHARED).all(fetched) && unique.load(Ordering::Relaxed) >= UNIQUE;
            Ok((is_done || clients.is_finished()).then_some(()))
        });
        is_enough.store(true, Ordering::Relaxed);
        clients.join().map_err(|_| anyhow::anyhow!("the clients panicked"))??;
        have_expired
    })
}

/// The share of verdicts that are right among those given, and among all that should be.
#[derive(Clone, Copy, Debug, Default)]
struct Score {
    right: usize,
    wrong: usize,
    undecided: usize,
}

impl Score {
    #[allow(clippy::cast_precision_loss)] // Some thousand.
    fn precision(self) -> f64 {
        self.right as f64 / (self.right + self.wrong) as f64
    }

    #[allow(clippy::cast_precision_loss)] // Some thousand.
    fn recall(self) -> f64 {
        self.right as f64 / (self.right + self.wrong + self.undecided) as f64
    }
}

/// Compares `answered_from` with the resolver's log: those of one client and name are in one order in
/// both. Returns the scores of names of one client, and of shared ones.
fn compare(stage: &Stage, records: &[Value]) -> Result<[Score; 2]> {
    let log = &replies(&stage.resolver.log());
    let mut logged: HashMap<(&str, &str), Vec<bool>> = HashMap::new();
    for reply in log {
        let replies = logged.entry((&reply.client, &reply.name)).or_default();
        replies.push(reply.is_cached);
    }
    let mut of_clients: Vec<&Value> =
        records.iter().filter(|record| record["server_address"] == *RESOLVER.to_string()).collect();
    of_clients.sort_by_key(|record| record["query_time"].as_i64());
    let mut seen: HashMap<(&str, &str), usize> = HashMap::new();
    let (mut scores, mut untold) = ([Score::default(); 2], 0);
    for record in of_clients {
        let key = (
            record["client_address"].as_str().context("a client")?,
            record["qname"].as_str().context("a name")?,
        );
        let at = seen.entry(key).or_default();
        let is_logged_as_cached =
            *logged.get(&key).and_then(|it| it.get(*at)).with_context(|| {
                format!("reply {at} for {key:?} is not in the resolver's log: {record}")
            })?;
        *at += 1;
        // unbound also calls an answer not cached that it puts together from a cached CNAME record and a
        // cached address.
        let is_fetched = is_fetched(stage, record)?;
        // A query that reached the resolver while it fetched the name for another client, but that it took
        // from its socket only after that: the wire does not show which of the two it was.
        if is_logged_as_cached && is_fetched {
            untold += 1;
            continue;
        }
        let is_cached = is_logged_as_cached || !is_fetched;
        let score = &mut scores[usize::from(!key.1.ends_with(".u.test"))];
        match record["answered_from"].as_str() {
            Some("UPSTREAM") if !is_cached => score.right += 1,
            Some("CACHE") if is_cached => score.right += 1,
            Some("LOCAL") if key.1.ends_with("cluster.local") => score.right += 1,
            Some("AMBIGUOUS" | "UNKNOWN") | None => {
                eprintln!("undecided, cached {is_cached}: {}", brief(record));
                score.undecided += 1;
            }
            _ => {
                eprintln!("wrong, cached {is_cached}: {}", brief(record));
                score.wrong += 1;
            }
        }
    }
    let recorded: usize = seen.values().sum();
    ensure!(recorded == log.len(), "{recorded} records, {} replies", log.len());
    ensure!(untold <= recorded / 5, "{untold} of {recorded} answers cannot be told");
    Ok(scores)
}

/// Returns true if the upstream server answered for the record's name, or for one in its answer, while its
/// client waited.
fn is_fetched(stage: &Stage, record: &Value) -> Result<bool> {
    let answers = record["answers"].as_array().into_iter().flatten();
    let mut names = vec![record["qname"].as_str().context("a name")?];
    names.extend(answers.filter_map(|answer| answer["name"].as_str()));
    let time = |field: &str| record[field].as_i64().with_context(|| field.to_owned());
    Ok(stage.has_answered(&names, time("query_time")?, time("response_time")?))
}

fn brief(record: &Value) -> String {
    let fields = [
        "qname",
        "client_address",
        "client_port",
        "query_time",
        "latency_ns",
        "answered_from",
        "upstream_count",
        "capture_gap",
        "rcode",
    ];
    fields.iter().fold(String::new(), |text, field| format!("{text} {field}={}", record[field]))
}

/// Stops the agent and returns its records.
fn ended(agent: Agent) -> Result<Vec<Value>> {
    let ended = agent.stop()?;
    ensure!(ended.status.success(), "{}", ended.stderr);
    Ok(ended.records)
}

fn upstream_records(records: &[Value]) -> impl Iterator<Item = &Value> {
    records.iter().filter(|record| record["server_address"] == *UPSTREAM.to_string())
}

/// Checks each upstream record: what it serves exists, was open at the time, and has its name or one that
/// points to it, or is below it.
fn check_served(records: &[Value]) -> Result<Score> {
    let by_id: HashMap<&str, &Value> =
        records.iter().filter_map(|record| Some((record["record_id"].as_str()?, record))).collect();
    let mut score = Score::default();
    for upstream in upstream_records(records) {
        let Some(id) = upstream["served_record_id"].as_str() else {
            score.undecided += 1;
            continue;
        };
        let served = by_id.get(id).with_context(|| format!("no record {id}"))?;
        let name = upstream["qname"].as_str().context("a name")?;
        let answers = served["answers"].as_array().into_iter().flatten();
        let names = answers.filter_map(|answer| answer["name"].as_str());
        let is_related = std::iter::once(served["qname"].as_str().context("a name")?)
            .chain(names)
            .any(|it| it == name || it.ends_with(&format!(".{name}")));
        let is_open = served["query_time"].as_i64() <= upstream["query_time"].as_i64();
        if is_related && is_open {
            score.right += 1;
        } else {
            eprintln!("serves another: {} of {}", brief(upstream), brief(served));
            score.wrong += 1;
        }
    }
    Ok(score)
}

/// Makes the resolver known: the first exchange of each side is before that.
fn introduce(stage: &Stage) -> Result<()> {
    stage.run_clients(1, |_, asker| {
        (1..4).try_for_each(|id| asker.ask(id, &format!("i{id}.u.test")))
    })
}

fn require(scores: [Score; 2]) {
    let [unique, shared] = scores;
    eprintln!("unique {unique:?}, shared {shared:?}");
    let right = unique.right + shared.right;
    let all = Score { right, wrong: unique.wrong + shared.wrong, undecided: 0 };
    assert!(all.precision() >= 0.999, "{scores:?}");
    assert!(unique.recall() >= 0.99, "{scores:?}");
    assert!(shared.recall() >= 0.95, "{scores:?}");
    assert!(unique.right + shared.right > 3_000, "{scores:?}");
}

/// Checks that there is a record for each query in the upstream server's log.
fn require_each_query(records: &[Value], log: &HashMap<String, usize>) {
    let of = |name: &str| upstream_records(records).filter(|it| it["qname"] == *name).count();
    let missing: Vec<_> = log.iter().filter(|(name, count)| of(name) != **count).collect();
    for (name, _) in &missing {
        records.iter().filter(|it| it["qname"] == **name).for_each(|it| eprintln!("{it}"));
    }
    assert!(missing.is_empty(), "in the log, with other records: {missing:?}");
}

#[test]
fn the_answers_of_a_forwarder_are_from_where_its_log_says() -> Result<()> {
    let forward = format!("forward-zone:\n  name: \".\"\n  forward-addr: {UPSTREAM}\n");
    let stage = Stage::new(CLIENTS, &forward, &zone(), |_| {})?;
    let agent = Agent::start(&stage.node, CONFIGURATION, &[])?;
    introduce(&stage)?;
    traffic(&stage)?;
    let records = ended(agent)?;
    require(compare(&stage, &records)?);
    // The upstream server's log has the queries that its records show: those of one name are counted by
    // the client's record.
    let log = queries(&stage.upstream.log());
    let mut wrong = 0;
    for record in records.iter().filter(|it| it["answered_from"] == "UPSTREAM") {
        let name = record["qname"].as_str().context("a name")?;
        if name.ends_with(".u.test") && record["upstream_count"] != log[name] {
            eprintln!("{} queries in the log: {}", log[name], brief(record));
            wrong += 1;
        }
    }
    assert!(wrong <= 2, "{wrong} counts");
    require_each_query(&records, &log);
    let served = check_served(&records)?;
    eprintln!("served {served:?}");
    assert!(served.precision() >= 0.999 && served.right > 2_000, "{served:?}");
    Ok(())
}

#[test]
fn the_answers_of_a_recursive_resolver_are_from_where_its_log_says() -> Result<()> {
    let stage = Stage::new(CLIENTS, "  root-hints: \"$DIR/root.hints\"\n", &zone(), |_| {})?;
    let agent = Agent::start(&stage.node, CONFIGURATION, &[])?;
    introduce(&stage)?;
    traffic(&stage)?;
    let records = ended(agent)?;
    require(compare(&stage, &records)?);
    let served = check_served(&records)?;
    eprintln!("served {served:?}");
    assert!(served.precision() >= 0.999 && served.right > 2_000, "{served:?}");
    Ok(())
}

#[test]
fn a_resolver_that_queries_from_another_address_is_known_by_its_cgroup() -> Result<()> {
    let cgroups = Cgroups::mount()?;
    let cgroup = cgroups.create("resolver")?;
    let resolution = format!(
        "  outgoing-interface: {OUTGOING}\nforward-zone:\n  name: \".\"\n  forward-addr: {UPSTREAM}\n"
    );
    let stage = Stage::new(1, &resolution, &zone(), |command| cgroup.hold(command))?;
    let agent = Agent::start(&stage.node, CONFIGURATION, &[])?;
    introduce(&stage)?;
    stage.run_clients(1, |_, asker| {
        (1..=100).try_for_each(|id| {
            asker.ask(id, &format!("n{id}.u.test"))?;
            asker.ask(id + 1_000, "s4.test")
        })
    })?;
    let records = ended(agent)?;
    let of_client = |name: &str| {
        let name = name.to_owned();
        records
            .iter()
            .filter(move |it| it["qname"] == name && it["server_address"] == *RESOLVER.to_string())
    };
    let mut known = 0;
    for id in 1..=100 {
        let name = format!("n{id}.u.test");
        let client = of_client(&name).next().context(name.clone())?;
        // The agent learns the resolver's address from its first answers.
        if id <= 10 && client["answered_from"] != "UPSTREAM" {
            ensure!(["UNKNOWN", ""].contains(&client["answered_from"].as_str().unwrap_or("")));
            continue;
        }
        known += 1;
        assert_eq!(client["answered_from"], "UPSTREAM", "{}", brief(client));
        let upstream = upstream_records(&records).find(|it| it["qname"] == name).context("none")?;
        assert_eq!(upstream["client_address"], *OUTGOING.to_string());
        assert_eq!(upstream["served_record_id"], client["record_id"]);
    }
    assert!(known >= 90, "{known}");
    let cached = of_client("s4.test").filter(|it| it["answered_from"] == "CACHE").count();
    assert!(cached >= 89, "{cached} of 100");
    Ok(())
}

/// Number of lookups of glibc's resolver.
const LOOKUPS: usize = 100;

#[test]
fn a_lookup_of_glibc_through_its_search_list_is_one_group() -> Result<()> {
    let forward = format!("forward-zone:\n  name: \".\"\n  forward-addr: {UPSTREAM}\n");
    let stage = Stage::new(1, &forward, &zone(), |_| {})?;
    let agent = Agent::start(&stage.node, CONFIGURATION, &[])?;
    introduce(&stage)?;
    let resolv_conf = format!(
        "nameserver {RESOLVER}\nsearch shop.svc.test svc.test test\noptions ndots:5 timeout:10\n"
    );
    let script = format!("for n in $(seq 1 {LOOKUPS}); do getent ahosts api$n.u || exit 1; done");
    stage.run_script(&resolv_conf, &script)?;
    let records = ended(agent)?;
    let of_clients: Vec<&Value> =
        records.iter().filter(|record| record["server_address"] == *RESOLVER.to_string()).collect();
    let mut whole = 0;
    for lookup in 1..=LOOKUPS {
        let steps = [".shop.svc.test", ".svc.test", ".test"];
        let find = |step: usize, qtype: &str| -> Result<&Value> {
            let name = format!("api{lookup}.u{}", steps[step - 1]);
            let mut found =
                of_clients.iter().filter(|it| it["qname"] == name && it["qtype"] == qtype);
            found.next().copied().with_context(|| format!("no record of {name}"))
        };
        let group = find(3, "A")?["search_group"].clone();
        if group.is_null() {
            continue;
        }
        whole += 1;
        let firsts = [find(1, "A")?["record_id"].clone(), find(1, "AAAA")?["record_id"].clone()];
        assert!(firsts.contains(&group), "another group");
        for (step, qtype) in [(1, "A"), (1, "AAAA"), (2, "A"), (2, "AAAA"), (3, "A"), (3, "AAAA")] {
            let record = find(step, qtype)?;
            assert_eq!(record["search_group"], group, "{}", lookup_of(&of_clients, lookup));
            assert_eq!(record["search_step"], step);
            assert_eq!(record["search_winner"], step == 3 && qtype == "A", "{}", brief(record));
        }
    }
    assert!(whole >= LOOKUPS - 5, "{whole} of {LOOKUPS} lookups are whole");
    let others = of_clients.iter().filter(|it| !it["search_group"].is_null()).count();
    assert_eq!(others, whole * 6, "a record of another query is in a group");
    Ok(())
}

/// Describes the records of a lookup.
fn lookup_of(records: &[&Value], lookup: usize) -> String {
    let start = format!("api{lookup}.u.");
    let of =
        records.iter().filter(|it| it["qname"].as_str().is_some_and(|it| it.starts_with(&start)));
    of.fold(String::new(), |text, it| {
        let fields = ["record_id", "qtype", "search_group", "search_step"];
        let fields = fields.map(|field| format!("{field}={}", it[field])).join(" ");
        text + "\n" + &brief(it) + " " + &fields
    })
}
