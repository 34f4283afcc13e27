//! Checks the committed files of `deploy/downstream`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tap53_harness::{
    lake::{DEAD_LETTERS, FLAT, connectors},
    process::run,
};

fn downstream(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("deploy/downstream").join(path)
}

#[test]
fn the_connectors_are_generated_from_the_schemas() -> Result<()> {
    for (path, expected) in connectors::files()? {
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == expected,
            "{} is not what the schemas give: run `cargo xtask manifests`",
            path.display()
        );
    }
    Ok(())
}

/// Checks a property that a change of the generator must not undo.
#[test]
fn no_connector_stops_at_a_message() -> Result<()> {
    for connector in connectors::ALL {
        let keys = connector.configuration()?;
        for (key, value) in [
            ("errors.tolerance", "all"),
            ("errors.deadletterqueue.topic.name", DEAD_LETTERS),
            ("iceberg.tables.schema-force-optional", "true"),
            ("iceberg.tables.evolve-schema-enabled", "true"),
            ("iceberg.tables.default-partition-by", "hour(event_time)"),
        ] {
            assert_eq!(keys[key], value, "{}: {key}", connector.topic);
        }
    }
    Ok(())
}

#[test]
fn connectors_convert_each_time_in_microseconds() -> Result<()> {
    for connector in connectors::FULL_PROFILE {
        let keys = connector.configuration()?;
        assert_eq!(keys["transforms.origin.timestamp.field"], "event_time", "{}", connector.topic);
        // Each time is converted from microseconds, or has a name that shows that it is a number.
        let schema = connectors::schema(connector.schema)?;
        for field in schema["fields"].as_array().context("fields")? {
            let (name, text) =
                (field["name"].as_str().context("a name")?, field["type"].to_string());
            if !text.contains("timestamp") {
                continue;
            }
            assert!(!text.contains("\"array\""), "{name}: no transform reaches into arrays");
            let exact = format!("{name}_us");
            let micros = format!("transforms.{name}.unix.precision");
            let converted = keys.get(&micros).is_some_and(|precision| precision == "microseconds")
                && keys[&format!("transforms.{exact}.target.field")] == exact.as_str();
            let renames = keys.get(&format!("transforms.{exact}.renames"));
            let renamed = renames.is_some_and(|renames| *renames == format!("{name}:{exact}"));
            assert!(converted != renamed, "{}: {name}", connector.topic);
        }
    }
    Ok(())
}

/// Connect has timestamps in milliseconds, and so has the flat profile.
#[test]
fn the_flat_profile_needs_no_transform() -> Result<()> {
    let keys = FLAT.configuration()?;
    assert!(!keys.keys().any(|key| key.starts_with("transforms")), "{keys:?}");
    let schema = connectors::schema(FLAT.schema)?;
    let fields = schema["fields"].as_array().context("fields")?;
    let is =
        |name: &str, kind: Value| fields.iter().any(|f| f["name"] == name && f["type"] == kind);
    assert!(is("event_time", json!({"type": "long", "logicalType": "timestamp-millis"})));
    assert!(!schema.to_string().contains("timestamp-micros"));
    Ok(())
}

/// A task that reports later than a commit waits is left out of it, again and again.
#[test]
fn tasks_report_before_a_commit_times_out() -> Result<()> {
    let worker = fs::read_to_string(downstream("connect/worker.properties"))?;
    let flush = worker.lines().find_map(|line| line.strip_prefix("offset.flush.interval.ms="));
    let flush_ms: u64 = flush.context("offset.flush.interval.ms")?.parse()?;
    for connector in connectors::ALL {
        let timeout = connector.configuration()?["iceberg.control.commit.timeout-ms"].clone();
        let timeout_ms: u64 = timeout.as_str().context("a text")?.parse()?;
        assert!(2 * flush_ms < timeout_ms, "{}", connector.topic);
    }
    Ok(())
}

#[test]
fn alerts_fire_when_they_should() -> Result<()> {
    let directory = downstream("prometheus");
    let tests = directory.join("alerts_test.yaml");
    run(Command::new("promtool").args(["test", "rules"]).arg(&tests))?;
    let (text, tests) =
        (fs::read_to_string(directory.join("alerts.yaml"))?, fs::read_to_string(tests)?);
    let alerts: Vec<_> =
        text.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    ensure!(alerts.len() > 2, "{alerts:?}");
    for alert in alerts {
        assert!(tests.contains(&format!("alertname: {alert}\n        exp_alerts:\n")), "{alert}");
    }
    Ok(())
}

#[test]
fn strimzis_resources_and_the_plain_configurations_are_equal() -> Result<()> {
    for connector in connectors::ALL {
        let name = connector.topic;
        let json = fs::read_to_string(downstream(&format!("connect/{name}.json")))?;
        let json: Value = serde_json::from_str(&json)?;
        let yaml = fs::read_to_string(downstream(&format!("strimzi/{name}.yaml")))?;
        let line = |key: &str, value: &Value| format!("    {key}: {value}\n");
        for (key, value) in json["config"].as_object().context("config")? {
            let own = matches!(key.as_str(), "connector.class" | "tasks.max");
            assert_eq!(yaml.contains(&line(key, value)), !own, "{name}: {key}");
        }
        assert!(yaml.contains("  autoRestart:\n    enabled: true\n"), "{name}");
    }
    Ok(())
}
