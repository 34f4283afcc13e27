//! Brokers and schema registries that cannot be reached or refuse.

use super::*;

#[test]
fn a_broker_that_cannot_be_reached_is_named() -> Result<()> {
    let machine = Machine::new()?;
    let config = machine.configure(
        "sinks:\n  - {type: kafka, brokers: [\"127.0.0.1:9\", \"broker.invalid:9092\"], topic: dns}\n",
    )?;
    let found = machine.doctor(&Start { arguments: &["--config", &config], ..Start::default() })?;
    found.require(
        "fail",
        "kafka",
        &["sinks[0]", "127.0.0.1:9", "refused"],
        &["nc -vz 127.0.0.1 9"],
    )?;
    found.require("fail", "kafka", &["broker.invalid:9092"], &["getent hosts broker.invalid"])?;
    found.require_fine_but_for(&["kafka", "registry"])
}

#[test]
fn a_schema_is_checked_against_the_registry_and_not_registered() -> Result<()> {
    let machine = Machine::new()?;
    let kafka = Kafka::start(&machine.namespace)?;
    kafka.create_topic("dns")?;
    let mut registry = Registry::start(&machine.namespace)?;
    let configure = |machine: &Machine, url: &str, more: &str| {
        machine.configure(&format!(
            "sinks:\n  - type: kafka\n    brokers: [\"{}\"]\n    topic: dns\n    \
             registry: {{urls: [\"{url}\"], {more}}}\n",
            kafka.address()
        ))
    };
    let look = |machine: &Machine, url: &str, more: &str| {
        let config = configure(machine, url, more)?;
        machine.doctor(&Start { arguments: &["--config", &config], ..Start::default() })
    };
    let url = registry.url();
    let found = look(&machine, &url, "")?;
    found.check("ok", "registry", &["sinks[0]", &url, "dns-value", "the first run registers"])?;
    found.require_fine_but_for(&[])?;
    let with_summaries = machine.configure(&format!(
        "sinks:\n  - {{type: kafka, brokers: [\"{}\"], topic: dns, summary: {{topic: sums}}, \
         registry: {{urls: [\"{url}\"]}}}}\n",
        kafka.address()
    ))?;
    let found =
        machine.doctor(&Start { arguments: &["--config", &with_summaries], ..Start::default() })?;
    for subject in ["dns-value", "sums-value"] {
        found.check("ok", "registry", &[subject, "the first run registers"])?;
    }
    let register = format!("{url}/subjects/dns-value/versions");
    let found = look(&machine, &url, "register: false")?;
    found.require(
        "fail",
        "registry",
        &["no such schema under subject dns-value", "records would wait"],
        &["tap53 schema | jq", &register],
    )?;
    found.require_fine_but_for(&["registry"])?;
    assert_eq!(registry.versions("dns-value")?, 0, "doctor has registered it");

    // A path that is not the API's.
    let wrong = url.replace("ccompat/v7", "nothing");
    let found = look(&machine, &wrong, "")?;
    found.require("fail", "registry", &["no such path (404)"], &["/apis/ccompat/v7"])?;

    // Somebody else's schema under the same subject, then also ours.
    let foreign = r#"{"type": "record", "name": "X", "fields": [{"name": "y", "type": "int"}]}"#;
    registry.register("dns-value", foreign)?;
    let found = look(&machine, &url, "")?;
    found.require(
        "fail",
        "registry",
        &["incompatible with subject dns-value"],
        &["topic_record_name", "/subjects/dns-value/versions/latest"],
    )?;
    registry.require_compatibility("NONE")?;
    let schema = String::from_utf8(agent::run(&["schema"])?.stdout)?;
    let id = registry.register("dns-value", &schema)?;
    let found = look(&machine, &url, "register: false")?;
    found.check("ok", "registry", &["dns-value has version", &format!("as id {id}")])?;

    registry.kill();
    let found = look(&machine, &url, "")?;
    found.require("fail", "registry", &["cannot be reached", "refused"], &["nc -vz 127.0.0.1"])?;
    // With an id that an earlier run left, records need not wait.
    let ids = machine.path("ids.json");
    let fingerprint = data_encoding::HEXLOWER.encode(&tap53_records::encode::fingerprint()?);
    let entry = serde_json::json!({
        "registry": url, "subject": "dns-value", "fingerprint": fingerprint, "id": 77,
    });
    fs::write(&ids, serde_json::json!({"version": 1, "ids": [entry]}).to_string())?;
    let found = look(&machine, &url, &format!("ids_file: {}", text(&ids)?))?;
    found.check("warn", "registry", &["cannot be reached", "id 77 of an earlier run is used"])?;
    found.require_fine_but_for(&["registry"])
}
