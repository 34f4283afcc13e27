//! The same views in DuckDB and in Spark, on messages of two agents that were consumed from Kafka.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tap53_harness::{
    agent::Agent,
    kafka::{Kafka, Place},
    laboratory::{
        CACHE_IP, CLUSTER_IP, Laboratory, Load, NETWORK_IP, Plan, Resolver, Tables, VIEWS,
        views_path,
    },
    scratch,
    spark::Spark,
};

const TOPIC: &str = "dns-transactions";
/// Of Spark on a busy machine.
const DEADLINE: Duration = Duration::from_secs(240);

/// Each is run in both; the columns and their order are the answer's.
const QUERIES: [&str; 6] = [
    "SELECT hex(question_id) AS question, node, server_node, records, client_address, client_port, resolver, \
     qname, qtype, outcome, latency_ns, network_ns, lost_on_the_way FROM questions",
    "SELECT hex(question_id) AS question, hex(upstream_id) AS upstream, certain, candidates, queries \
     FROM upstream_links",
    "SELECT hex(chain_id) AS chain, hop, hex(question_id) AS question, hex(asked_for) AS asked_for, ambiguous, \
     own_ns FROM chains",
    "SELECT resolver, questions, from_cache, from_upstream, unknown, round(hit_ratio, 6) AS hit_ratio \
     FROM cache_hits",
    "SELECT client_address, qtype, name, dots, queries, wasted, winner FROM search_lookups",
    "SELECT * FROM search_waste",
];

#[test]
fn spark_has_the_same_answers_as_duckdb() -> Result<()> {
    let spark = Spark::get()?;
    let plan = Plan { pods: [3, 3], backends: vec![0, 1], node_cache: true, ..Plan::default() };
    let laboratory = Laboratory::new(&plan)?;
    let place = Place { ip: NETWORK_IP, ..Place::default() };
    let kafka = Kafka::start_at(&laboratory.network, place)?;
    kafka.create_topic(TOPIC)?;
    let directory = scratch::directory("engines")?;
    let parquet = directory.path().join("records.parquet");
    let messages = record(&laboratory, &kafka)?;
    let tables = Tables { messages, parquet: Some(parquet.clone()), ..Tables::default() };
    let duckdb = tables.ask(QUERIES)?;

    let parquet = parquet.to_string_lossy();
    let files = VIEWS.map(views_path);
    let mut arguments = vec!["--records", "parquet", &*parquet];
    for file in &files {
        arguments.extend(["--sql", file]);
    }
    arguments.extend(QUERIES);
    let mut job = spark.submit(&laboratory.network, "query.py", &arguments)?;
    job.finish(DEADLINE)?;
    let answers = job.events("answer");
    ensure!(answers.len() == QUERIES.len(), "{} answers", answers.len());
    for ((query, rows), answer) in QUERIES.iter().zip(&duckdb).zip(&answers) {
        let (wanted, found) = (sorted(rows), sorted(answer["rows"].as_array().context("rows")?));
        ensure!(!wanted.is_empty(), "no rows: {query}");
        let different = wanted.iter().zip(&found).find(|(wanted, found)| wanted != found);
        ensure!(
            wanted.len() == found.len() && different.is_none(),
            "{query}: {} rows in DuckDB and {} in Spark, as {different:#?}",
            wanted.len(),
            found.len()
        );
    }
    Ok(())
}

/// Agents write what clients ask of the service and of the node caches; returns the messages.
fn record(laboratory: &Laboratory, kafka: &Kafka<'_>) -> Result<Vec<Vec<u8>>> {
    let sink =
        format!("sinks: [{{type: kafka, brokers: [\"{}\"], topic: {TOPIC}}}]", kafka.address());
    let agents = laboratory.start_agents(&sink)?;
    for server in [CLUSTER_IP, CACHE_IP] {
        Load { first: 0, clients: 20, questions: 300, server }.run(laboratory)?;
    }
    let resolver = Resolver { server: CACHE_IP, ndots: 5 };
    for (pod, number) in laboratory.pods().zip(0..) {
        let names =
            (0..6).map(|name| format!("w{number}-{name}.t3.test")).chain(["db.prod".into()]);
        pod.look_up(resolver, &names.collect::<Vec<_>>())?;
    }
    agents.map(Agent::stop_for_ledger).into_iter().collect::<Result<Vec<_>>>()?;
    Ok(kafka.consume(TOPIC)?.into_iter().map(|message| message.value).collect())
}

/// Rows as text, in an order that is no engine's.
fn sorted(rows: &[Value]) -> Vec<String> {
    let mut rows: Vec<_> = rows.iter().map(Value::to_string).collect();
    rows.sort();
    rows
}
