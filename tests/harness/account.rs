//! Checks that the client's exchanges, the records and the ledger agree.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::client::Exchange;

/// Fails unless there is exactly one record for each exchange, equal to it field for field, and no
/// other record. `seen_from` is the direction of queries at the interface, INGRESS or EGRESS.
///
/// # Errors
/// Every difference, one a line.
pub fn records_equal_exchanges(
    records: &[Value],
    exchanges: &[Exchange],
    interface: &str,
    seen_from: &str,
) -> Result<()> {
    let mut by_key: HashMap<(u64, u64), Vec<&Value>> = HashMap::new();
    for record in records {
        let key = |field: &str| record[field].as_u64().unwrap_or(u64::MAX);
        by_key.entry((key("dns_id"), key("client_port"))).or_default().push(record);
    }
    let mut problems = Vec::new();
    for exchange in exchanges {
        let key = (u64::from(exchange.id), u64::from(exchange.client.port()));
        let what = format!("{} {} (id {})", exchange.qname, exchange.qtype, exchange.id);
        match by_key.remove(&key).unwrap_or_default()[..] {
            [record] => {
                for (field, expected) in expected_fields(exchange, interface, seen_from) {
                    if record[&field] != expected {
                        problems
                            .push(format!("{what}: {field} is {}, not {expected}", record[&field]));
                    }
                }
                problems.extend(time_problem(record).map(|problem| format!("{what}: {problem}")));
            }
            ref others => problems.push(format!("{what}: {} records", others.len())),
        }
    }
    for record in by_key.into_values().flatten() {
        problems.push(format!("a record that nobody asked for: {record}"));
    }
    if !problems.is_empty() {
        bail!("records and exchanges differ:\n  {}", problems.join("\n  "));
    }
    Ok(())
}

/// The fields that follow from the client's queries and responses.
fn expected_fields(exchange: &Exchange, interface: &str, seen_from: &str) -> Vec<(String, Value)> {
    let (outcome, rcode, answers, response_size) = match &exchange.response {
        Some((response, size)) => {
            ("MATCHED", json!(response.rcode), json!(response.answers), json!(size))
        }
        None => ("UNANSWERED", Value::Null, json!([]), Value::Null),
    };
    let fields = json!({
        "interface": interface,
        "direction": seen_from,
        "outcome": outcome,
        "transport": exchange.transport.name(),
        "ip_version": if exchange.client.is_ipv4() { 4 } else { 6 },
        "vlan_id": null,
        "client_address": exchange.client.ip().to_string(),
        "client_port": exchange.client.port(),
        "server_address": exchange.server.ip().to_string(),
        "server_port": exchange.server.port(),
        "query_size": exchange.query_size,
        "response_size": response_size,
        "dns_id": exchange.id,
        "opcode": "QUERY",
        "recursion_desired": true,
        "qname": exchange.qname,
        "qtype": exchange.qtype,
        "qclass": "IN",
        "rcode": rcode,
        "answers": answers,
        "question_count": 1,
        "query_count": 1,
        "parse_status": "OK",
    });
    match fields {
        Value::Object(fields) => fields.into_iter().collect(),
        _ => unreachable!("written as an object above"),
    }
}

/// The times of a record must be there, be in order, and agree with its latency.
fn time_problem(record: &Value) -> Option<String> {
    let Some(query_us) = record["query_time"].as_i64() else {
        return Some("no query_time".to_owned());
    };
    match (record["response_time"].as_i64(), record["latency_ns"].as_i64()) {
        (None, None) => None,
        (Some(response_us), Some(latency_ns)) => {
            // Each time is rounded to a microsecond by itself.
            let difference_us = response_us - query_us;
            let agrees = latency_ns >= 0 && (difference_us - latency_ns / 1_000).abs() <= 1;
            (!agrees)
                .then(|| format!("{difference_us} µs between the times, latency {latency_ns} ns"))
        }
        (time, latency) => Some(format!("response_time {time:?} with latency {latency:?}")),
    }
}

/// A ledger's numbers, added up here rather than taken at its word.
#[derive(Clone, Copy, Debug)]
pub struct Ledger<'a>(pub &'a Value);

impl Ledger<'_> {
    /// Fails unless the ledger is `balanced`, and every identity holds by our own arithmetic.
    ///
    /// # Errors
    /// Each identity that does not hold.
    pub fn require_balance(&self) -> Result<()> {
        let mut problems = Vec::new();
        let mut check = |what: String, left: u64, right: u64| {
            if left != right {
                problems.push(format!("{what}: {left} against {right}"));
            }
        };
        let mut captured = 0;
        for interface in self.0["interfaces"].as_array().context("no interfaces")? {
            for direction in ["ingress", "egress"] {
                let hook = &interface[direction];
                captured += number(&hook["captured"])?;
                check(
                    format!("{} {direction} seen", interface["name"]),
                    number(&hook["seen"])?,
                    number(&hook["captured"])? + sum(&hook["ignored"]) + sum(&hook["lost"]),
                );
            }
        }
        let agent = &self.0["agent"];
        let (packets, messages) = (&agent["packets"], &agent["messages"]);
        check(
            "captured, and received or abandoned".to_owned(),
            captured,
            number(&packets["received"])? + number(&packets["abandoned"])?,
        );
        check(
            "packets received and joined".to_owned(),
            number(&packets["received"])? + number(&packets["joined"])?,
            number(&packets["decoded"])?
                + number(&packets["fragments"])?
                + sum(&packets["ignored"])
                + sum(&packets["lost"]),
        );
        let (fragments, bytes) = (&agent["fragments"], &agent["tcp_bytes"]);
        check(
            "fragments received".to_owned(),
            number(&packets["fragments"])?,
            number(&fragments["joined"])?
                + number(&fragments["waiting"])?
                + sum(&fragments["ignored"])
                + sum(&fragments["lost"]),
        );
        check(
            "datagrams joined".to_owned(),
            number(&fragments["datagrams"])?,
            number(&packets["joined"])? + number(&fragments["datagrams_lost"])?,
        );
        check(
            "bytes of TCP received".to_owned(),
            number(&bytes["received"])?,
            number(&bytes["in_messages"])?
                + number(&bytes["waiting"])?
                + sum(&bytes["ignored"])
                + sum(&bytes["lost"]),
        );
        check(
            "messages decoded".to_owned(),
            number(&messages["decoded"])?,
            number(&messages["pending"])?
                + number(&messages["in_records"])?
                + sum(&messages["filtered"])
                + sum(&messages["ignored"])
                + sum(&messages["lost"]),
        );
        for sink in agent["sinks"].as_array().context("no sinks")? {
            let records = &agent["records"];
            let in_records = number(&messages["in_records"])? + number(&messages["ahead"])?;
            let unfiltered = number(&records["created"])? + number(&records["ahead"])?
                - sum(&records["filtered"]);
            for (unit, created) in [("records", unfiltered), ("messages", in_records)] {
                let amounts = &sink[unit];
                let offered = number(&amounts["offered"])?;
                // While it runs, what waits in a queue; `balanced` has none of it at the end.
                let on_their_way = number(&amounts["in_batches"])?;
                check(
                    format!("{} {unit} offered or on their way, and created", sink["name"]),
                    offered + on_their_way,
                    created,
                );
                check(
                    format!("{} {unit} offered", sink["name"]),
                    offered + number(&amounts["carried"])?,
                    number(&amounts["delivered"])?
                        + number(&amounts["in_flight"])?
                        + number(&amounts["spooled"])?
                        + sum(&amounts["lost"]),
                );
            }
        }
        if self.0["balanced"] != true {
            problems.push(format!("the ledger says of itself: {}", self.0["imbalances"]));
        }
        ensure!(problems.is_empty(), "the ledger does not add up:\n  {}", problems.join("\n  "));
        Ok(())
    }

    /// A number by its path, as `/agent/records/created` (RFC 6901).
    ///
    /// # Errors
    /// When there is no number there.
    pub fn number(&self, pointer: &str) -> Result<u64> {
        let value = self.0.pointer(pointer).unwrap_or(&Value::Null);
        number(value).with_context(|| format!("{pointer} in the ledger"))
    }

    /// The sum of an object of numbers by its path.
    ///
    /// # Errors
    /// When there is no object there.
    pub fn sum(&self, pointer: &str) -> Result<u64> {
        let value = self.0.pointer(pointer).filter(|value| value.is_object());
        Ok(sum(value.with_context(|| format!("no {pointer} in the ledger"))?))
    }
}

fn number(value: &Value) -> Result<u64> {
    value.as_u64().with_context(|| format!("{value} is not a count"))
}

fn sum(reasons: &Value) -> u64 {
    let counts = reasons.as_object().into_iter().flat_map(|object| object.values());
    counts.filter_map(Value::as_u64).sum()
}
