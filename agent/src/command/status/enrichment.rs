//! The text of `tap53 status` about attribution.

use serde_json::Value;

use super::super::table::{Color, paint};

/// Describes the state of attribution; counts that are zero are omitted.
pub(super) fn enrichment_text(enrichment: &Value, colored: bool) -> String {
    let word = |key: &str| enrichment.get(key).and_then(Value::as_str);
    let count = |key: &str| enrichment.get(key).and_then(Value::as_u64).unwrap_or(0);
    let is = |key: &str| enrichment.get(key).and_then(Value::as_bool).unwrap_or(false);
    let containers = containers_text(enrichment.get("containers").unwrap_or(&Value::Null), colored);
    if !is("enabled") {
        return format!("kubernetes: not configured\n{containers}");
    }
    let whose = if word("scope") == Some("cluster") { "the cluster" } else { "this node" };
    let mut pods = format!("pods of {whose} {}", count("pods"));
    if count("server_pods") > 0 {
        pods.push_str(&format!(", of DNS servers elsewhere {}", count("server_pods")));
    }
    let known = format!("known: {pods}, services {}, nodes {}", count("services"), count("nodes"));
    let connected = is("connected");
    let state = if connected { "connected" } else { "not connected" };
    let mut text = format!("kubernetes: {}; {known}", paint_unless(connected, colored, state));
    if let Some(event) = word("last_event") {
        text.push_str(&format!("; last event {event}"));
    }
    text.push('\n');
    let mut note = |color, line: String| {
        text.push_str(&paint(colored, color, &format!("  {line}")));
        text.push('\n');
    };
    if let Some(reason) = word("reason") {
        note(Color::Bad, reason.to_owned());
    }
    if let Some(since) = word("stale_since") {
        note(Color::Notable, format!("stale since {since}"));
    }
    for (key, name) in [
        ("refused", "addresses refused at the limit (kubernetes.max_addresses)"),
        ("history_evicted", "earlier owners of addresses evicted"),
        ("ended_evicted", "ended owners of addresses evicted early, at the limit"),
    ] {
        if count(key) > 0 {
            note(Color::Notable, format!("{name}: {}", count(key)));
        }
    }
    if let Some(reason) = word("jobs_reason") {
        let failed = count("jobs_failed");
        note(Color::Notable, format!("jobs that could not be read: {failed}; {reason}"));
    }
    text + &containers
}

/// Describes the container directory: followed, or the reason for which containers are unknown.
fn containers_text(containers: &Value, colored: bool) -> String {
    if containers["enabled"] != true {
        return String::new();
    }
    if let Some(reason) = containers["reason"].as_str() {
        return format!("containers: {}; {reason}\n", paint(colored, Color::Bad, "unknown"));
    }
    let mut text = format!("containers: followed; cgroups {}\n", containers["cgroups"]);
    if containers["hierarchy"] == "hybrid" {
        text.push_str("  cgroups of version 1 are in use too: containers that are in those alone are unknown\n");
    }
    if containers["refused"].as_u64().is_some_and(|refused| refused > 0) {
        let refused =
            format!("  cgroups not remembered (containers.max_cgroups): {}", containers["refused"]);
        text.push_str(&paint(colored, Color::Notable, &refused));
        text.push('\n');
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
    fn the_text_has_the_reason_why_kubernetes_is_not_connected() {
        assert_eq!(enrichment_text(&Value::Null, false), "kubernetes: not configured\n");
        let status =
            serde_json::json!({"containers": {"enabled": true, "cgroups": 7, "refused": 2}});
        assert_eq!(
            enrichment_text(&status, false),
            "kubernetes: not configured\ncontainers: followed; cgroups 7\n  cgroups not remembered \
             (containers.max_cgroups): 2\n"
        );
        let status = serde_json::json!({"containers": {"enabled": true, "reason": "no tree"}});
        assert!(enrichment_text(&status, false).ends_with("containers: unknown; no tree\n"));
        let mut status = serde_json::json!({
            "enabled": true, "scope": "node", "connected": true, "reason": null,
            "stale_since": null, "pods": 3, "services": 2, "nodes": 1, "refused": 0,
        });
        let known = "known: pods of this node 3, services 2, nodes 1";
        assert_eq!(enrichment_text(&status, false), format!("kubernetes: connected; {known}\n"));
        status["server_pods"] = 2.into();
        let known = "known: pods of this node 3, of DNS servers elsewhere 2, services 2, nodes 1";
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
                 stale since 2026-11-25T22:45:57.000000Z\n  \
                 addresses refused at the limit (kubernetes.max_addresses): 7\n  \
                 jobs that could not be read: 1; forbidden\n"
            )
        );
    }
}
