//! A cluster with the chart installed, whose agents deliver to a broker outside of it.

use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;
use tap53_harness::{
    cluster::{Cluster, Network, OUTSIDE_IP, Plan, Query},
    fastavro,
    kafka::{Kafka, Place},
    wait,
};

const TOPIC: &str = "dns-transactions";
/// Batches are sent within a second; the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(60);

/// The cluster and the broker.
pub(crate) struct Stage<'a> {
    pub(crate) cluster: Cluster<'a>,
    pub(crate) kafka: Kafka<'a>,
}

impl<'a> Stage<'a> {
    /// Starts all parts, and installs the chart with more arguments for helm.
    pub(crate) fn start(network: &'a Network, plan: Plan, arguments: &[&str]) -> Result<Self> {
        let started = Instant::now();
        let (cluster, kafka) = thread::scope(|scope| -> Result<_> {
            let kafka = scope.spawn(|| {
                let place = Place { ip: OUTSIDE_IP, ..Place::default() };
                let kafka = Kafka::start_at(&network.outside, place)?;
                kafka.create_topic(TOPIC)?;
                anyhow::Ok(kafka)
            });
            let cluster = Cluster::start(network, plan)?;
            Ok((cluster, kafka.join().map_err(|_| anyhow!("panicked"))??))
        })?;
        println!("cluster and broker after {:?}", started.elapsed());
        let stage = Self { cluster, kafka };
        stage.cluster.install(&with_words(&stage.sinks(), arguments))?;
        println!("agents ready after {:?}", started.elapsed());
        Ok(stage)
    }

    /// `helm upgrade` with the usual values and others.
    pub(crate) fn upgrade(&self, arguments: &[&str]) -> Result<()> {
        self.cluster.upgrade(&with_words(&self.sinks(), arguments))
    }

    fn sinks(&self) -> [String; 2] {
        let address = self.kafka.address();
        let sink =
            format!(r#"[{{"type": "kafka", "brokers": ["{address}"], "topic": "{TOPIC}"}}]"#);
        ["--set-json".to_owned(), format!("config.sinks={sink}")]
    }

    /// All records that the broker has.
    pub(crate) fn records(&self) -> Result<Vec<Value>> {
        let messages = self.kafka.consume(TOPIC)?;
        let values = messages.iter().map(|message| message.value.as_slice());
        fastavro::read_single_objects(&schema(), values)
    }

    /// Waits until the nodes have so many records for each name of these pods, and returns all records of
    /// these names.
    pub(crate) fn records_of(
        &self,
        queries: &[Query],
        nodes: &[(&str, usize)],
    ) -> Result<Vec<Value>> {
        let names: Vec<String> = queries.iter().flat_map(Query::names).collect();
        let mut found = Vec::new();
        let complete = wait::until_every(Duration::from_millis(500), "records", DEADLINE, || {
            found = self.records()?;
            found.retain(|record| names.iter().any(|name| record["qname"] == name.as_str()));
            let has = |name: &String, node: &str, count: usize| {
                let of_node = found.iter().filter(|record| record["node"] == node);
                of_node.filter(|record| record["qname"] == name.as_str()).count() >= count
            };
            let all =
                nodes.iter().all(|(node, count)| names.iter().all(|name| has(name, node, *count)));
            Ok(all.then_some(()))
        });
        complete.with_context(|| {
            format!("{} names, {} records: {:#?}", names.len(), found.len(), found.first())
        })?;
        Ok(found)
    }
}

fn with_words<'w>(words: &'w [String], more: &[&'w str]) -> Vec<&'w str> {
    words.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

fn schema() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/schema/dns_transaction.avsc")
}
