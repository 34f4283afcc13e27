//! Records that a case needs, from one that `tap53 replay` printed.

use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::repository;

pub(crate) const RESOLVER: &str = "10.96.0.10";
const MILLISECOND_NS: u64 = 1_000_000;

/// A record; by default a question over UDP of a pod, answered without records after a millisecond.
#[derive(Clone)]
pub(crate) struct Row(Map<String, Value>);

impl Row {
    /// A question of `client`, a namespace and a workload, at a time of day of 2026-11-28.
    pub(crate) fn new(client: &str, qname: &str, time: &str) -> Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let (namespace, workload) = client.split_once('/').context("namespace/workload")?;
        let at = format!("2026-11-28T{time}Z");
        let row = Self(template()?)
            .set("record_id", format!("{number:032x}"))
            .set("exchange_id", format!("{number:032x}"))
            .set("query_time", at.as_str())
            .set("response_time", at)
            .set("server_address", RESOLVER)
            .set("server_attribution", "SERVICE")
            .set("client_pod_namespace", namespace)
            .set("client_workload_name", workload)
            .set("client_pod_name", format!("{workload}-0"))
            .set("qname", qname)
            .set("qname_registrable_domain", registrable_domain(qname));
        Ok(row)
    }

    pub(crate) fn set(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0.insert(field.to_owned(), value.into());
        self
    }

    /// Adds a record to the answer section.
    pub(crate) fn answer(mut self, kind: &str, ttl: u32, rdata: &str) -> Self {
        let owner = self.0["qname"].clone();
        let answer =
            json!({"name": owner, "type": kind, "class": "IN", "ttl": ttl, "rdata": rdata});
        self.push("answers", answer);
        if matches!(kind, "A" | "AAAA") {
            self.push("resolved_addresses", rdata.into());
        }
        let count = self.0["answers"].as_array().map_or(0, Vec::len);
        self.set("answer_count", count)
    }

    fn push(&mut self, field: &str, value: Value) {
        if let Some(list) = self.0.get_mut(field).and_then(Value::as_array_mut) {
            list.push(value);
        }
    }

    pub(crate) fn nxdomain(self) -> Self {
        self.set("rcode", "NXDOMAIN")
    }

    pub(crate) fn unanswered(self) -> Self {
        let fields = ["rcode", "response_time", "latency_ns", "latency_from_latest_query_ns"];
        let row = self.set("outcome", "UNANSWERED").set("response_size", Value::Null);
        fields.into_iter().fold(row, |row, field| row.set(field, Value::Null))
    }

    /// Sets the time from the first and from the latest query to the response.
    pub(crate) fn latency_ms(self, first: u64, latest: u64) -> Self {
        self.set("latency_ns", first * MILLISECOND_NS)
            .set("latency_from_latest_query_ns", latest * MILLISECOND_NS)
    }

    /// The same exchange on the node of the server.
    pub(crate) fn on_server_node(&self, record_id: &str) -> Self {
        self.clone()
            .set("record_id", record_id)
            .set("node", "server-node")
            .set("run_id", "server-node")
            .set("observation", "SERVER_NODE")
    }

    pub(crate) fn value(self) -> Value {
        Value::Object(self.0)
    }
}

/// A record with every field of the schema, and nothing in it that a case would have to reset.
fn template() -> Result<Map<String, Value>> {
    let lines = fs::read_to_string(repository().join("docs/example.jsonl"))?;
    let line = lines.lines().next().context("docs/example.jsonl has no records")?;
    let row = Row(serde_json::from_str(line)?)
        .set("record_number", 0)
        .set("observation", "CLIENT_NODE")
        .set("client_attribution", "POD")
        .set("answers", json!([]))
        .set("resolved_addresses", json!([]))
        .set("answer_count", 0)
        .latency_ms(1, 1);
    Ok(row.0)
}

/// The last two labels, for names of the cases.
fn registrable_domain(qname: &str) -> String {
    let labels: Vec<_> = qname.rsplit('.').take(2).collect();
    labels.into_iter().rev().collect::<Vec<_>>().join(".")
}
