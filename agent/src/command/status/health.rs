//! The text of `tap53 status` about health: capture, sinks and brokers, since when and why.

use tap53_base::vitals::{Condition, Health};

use super::super::table::{Cell, Color, colored, table};

/// Describes the health as a table, one row for each part.
pub(super) fn health_table(health: &Health) -> String {
    let mut rows = vec![["PART", "STATE", "SINCE", "WHY"].map(Cell::from), agent(health)];
    // An older agent does not send it.
    if !health.capture.since.is_empty() {
        rows.push(part("capture", "ok", "incomplete", &health.capture));
    }
    for sink in &health.sinks {
        rows.push(part(&format!("sink {}", sink.name), "ok", "failing", &sink.condition));
        for broker in &sink.brokers {
            let (color, state) = match broker.connected {
                true => (Color::Good, "connected"),
                // Not wrong in itself: the producer connects to the brokers that it needs.
                false => (Color::Plain, "not connected"),
            };
            rows.push([
                format!("  broker {}", broker.name).into(),
                Cell::new(color, state),
                broker.since.as_str().into(),
                Cell::default(),
            ]);
        }
    }
    table(&rows, colored())
}

/// Describes the agent as a whole, with the reasons that no part below has.
fn agent(health: &Health) -> [Cell; 4] {
    let (color, state, reasons) = match health {
        Health { live, .. } if !live.reasons.is_empty() => {
            (Color::Bad, "not alive", live.reasons.join("; "))
        }
        Health { ready, .. } if !ready.ok => {
            let is_below = |reason: &&String| health.capture.reasons.contains(reason);
            let reasons = ready.reasons.iter().filter(|reason| !is_below(reason)).cloned();
            (Color::Bad, "not ready", reasons.collect::<Vec<_>>().join("; "))
        }
        _ => (Color::Good, "ready", String::new()),
    };
    ["agent".into(), Cell::new(color, state), Cell::default(), Cell::new(color, reasons)]
}

fn part(name: &str, good: &str, bad: &str, condition: &Condition) -> [Cell; 4] {
    let (color, state) = if condition.ok { (Color::Good, good) } else { (Color::Bad, bad) };
    [
        name.into(),
        Cell::new(color, state),
        condition.since.as_str().into(),
        Cell::new(color, condition.reasons.join("; ")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_has_its_state_since_when_and_why() {
        let health = serde_json::json!({
            "live": {"ok": true, "reasons": []},
            "ready": {"ok": false, "reasons": ["eth1 is not captured from as wanted: busy",
                "sink kafka lost the last records that it took: expired"]},
            "failing_sinks": ["kafka"],
            "capture": {"ok": false, "since": "2026-11-29T10:00:00Z",
                "reasons": ["eth1 is not captured from as wanted: busy"]},
            "sinks": [
                {"name": "file", "ok": true, "since": "2026-11-29T09:00:00Z", "reasons": []},
                {"name": "kafka", "ok": false, "since": "2026-11-29T11:00:00Z",
                    "reasons": ["broker unreachable"],
                    "brokers": [{"name": "1", "connected": false,
                        "since": "2026-11-29T11:00:01Z"}]},
            ],
        });
        let health: Health = serde_json::from_value(health).unwrap();
        assert_eq!(
            health_table(&health),
            "\
PART        STATE          SINCE                 WHY
agent       not ready                            sink kafka lost the last records that it took: expired
capture     incomplete     2026-11-29T10:00:00Z  eth1 is not captured from as wanted: busy
sink file   ok             2026-11-29T09:00:00Z
sink kafka  failing        2026-11-29T11:00:00Z  broker unreachable
  broker 1  not connected  2026-11-29T11:00:01Z
"
        );
    }

    #[test]
    fn the_health_of_an_older_agent_is_shown_without_times() {
        let health = serde_json::json!({"live": {"ok": false, "reasons": ["worker 1 stalls"]},
            "ready": {"ok": false, "reasons": ["worker 1 stalls"]}, "failing_sinks": []});
        let health: Health = serde_json::from_value(health).unwrap();
        assert_eq!(
            health_table(&health),
            "PART   STATE      SINCE  WHY\nagent  not alive         worker 1 stalls\n"
        );
    }
}
