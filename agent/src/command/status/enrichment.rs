//! What `tap53 status` says of the naming of clients and servers.

use serde_json::Value;

use super::super::table::{Color, paint};

/// Whether clients and servers are named, and why not; what did not happen is left out.
pub(super) fn enrichment_text(enrichment: &Value, colored: bool) -> String {
    let word = |key: &str| enrichment.get(key).and_then(Value::as_str);
    let count = |key: &str| enrichment.get(key).and_then(Value::as_u64).unwrap_or(0);
    let is = |key: &str| enrichment.get(key).and_then(Value::as_bool).unwrap_or(false);
    if !is("enabled") {
        return "kubernetes: not configured\n".to_owned();
    }
    let whose = if word("scope") == Some("cluster") { "the cluster" } else { "this node" };
    let known = format!(
        "known: pods of {whose} {}, services {}, nodes {}",
        count("pods"),
        count("services"),
        count("nodes")
    );
    let connected = is("connected");
    let state = if connected { "connected" } else { "not connected" };
    let mut text = format!("kubernetes: {}; {known}", paint_unless(connected, colored, state));
    if let Some(event) = word("last_event") {
        text.push_str(&format!("; last event {event}"));
    }
    text.push('\n');
    let mut note = |color, told: String| {
        text.push_str(&paint(colored, color, &format!("  {told}")));
        text.push('\n');
    };
    if let Some(reason) = word("reason") {
        note(Color::Bad, reason.to_owned());
    }
    if let Some(since) = word("stale_since") {
        note(Color::Notable, format!("what is known may be old since {since}"));
    }
    for (key, name) in [
        ("refused", "addresses not taken in, for want of room (kubernetes.max_addresses)"),
        ("history_evicted", "earlier owners of addresses given up"),
        ("ended_evicted", "ended owners of addresses forgotten early, for want of room"),
    ] {
        if count(key) > 0 {
            note(Color::Notable, format!("{name}: {}", count(key)));
        }
    }
    if let Some(reason) = word("jobs_reason") {
        let failed = count("jobs_failed");
        note(Color::Notable, format!("jobs that could not be asked for: {failed}; {reason}"));
    }
    text
}

fn paint_unless(good: bool, colored: bool, text: &str) -> String {
    paint(colored, if good { Color::Plain } else { Color::Bad }, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_is_told_of_with_why_it_is_not_connected() {
        assert_eq!(enrichment_text(&Value::Null, false), "kubernetes: not configured\n");
        let mut status = serde_json::json!({
            "enabled": true, "scope": "node", "connected": true, "reason": null,
            "stale_since": null, "pods": 3, "services": 2, "nodes": 1, "refused": 0,
        });
        let known = "known: pods of this node 3, services 2, nodes 1";
        assert_eq!(enrichment_text(&status, false), format!("kubernetes: connected; {known}\n"));
        status["connected"] = false.into();
        status["reason"] = "pods: connection refused".into();
        status["stale_since"] = "2026-11-25T22:45:57.000000Z".into();
        status["refused"] = 7.into();
        status["jobs_failed"] = 1.into();
        status["jobs_reason"] = "forbidden".into();
        assert_eq!(
            enrichment_text(&status, false),
            format!(
                "kubernetes: not connected; {known}\n  pods: connection refused\n  \
                 what is known may be old since 2026-11-25T22:45:57.000000Z\n  \
                 addresses not taken in, for want of room (kubernetes.max_addresses): 7\n  \
                 jobs that could not be asked for: 1; forbidden\n"
            )
        );
    }
}
