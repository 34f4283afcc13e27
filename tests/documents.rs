//! Pages of the manual that state what the agent does: each is compared with what it does. None of
//! this needs root. `UPDATE_DOCS=1` writes the pages that are generated.

use std::{
    collections::BTreeSet,
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};
use tap53_harness::{agent, python};
use tempfile::TempDir;

/// The records of the manual have this node's name.
const CONFIGURATION: &str = "node: gateway-1\ninterfaces: {include: [eth0]}\n";

/// Fields that differ in each run.
const DRAWN: [&str; 3] = ["record_id", "related_record_id", "run_id"];

#[test]
fn every_reason_of_the_ledger_is_explained_and_no_other() -> Result<()> {
    let directory = TempDir::new()?;
    let ledger = directory.path().join("ledger.json");
    replay(&["--json", "--ledger", &ledger.to_string_lossy()])?;
    let ledger: Value = serde_json::from_slice(&fs::read(ledger)?)?;
    let mut reasons = BTreeSet::new();
    collect_reasons(&ledger, &mut reasons);
    ensure!(reasons.len() > 40, "the ledger has too few reasons to compare with: {reasons:?}");

    let page = fs::read_to_string(docs().join("loss-reasons.md"))?;
    let explained = first_cells(&page);
    let missing: Vec<_> = reasons.difference(&explained).collect();
    ensure!(missing.is_empty(), "docs/loss-reasons.md does not explain {missing:?}");
    let unknown: Vec<_> = explained.difference(&reasons).collect();
    ensure!(unknown.is_empty(), "docs/loss-reasons.md explains {unknown:?}, which nothing counts");
    Ok(())
}

#[test]
fn every_command_and_every_alert_is_explained() -> Result<()> {
    let help = output(Command::new(agent::binary()?).arg("--help"))?;
    let commands = help.split("Commands:").nth(1).context("a list of commands")?;
    let commands = commands.split("\n\n").next().unwrap_or_default().lines();
    let commands: BTreeSet<_> = commands
        .filter_map(|line| line.strip_prefix("  ")?.split_once("  "))
        .map(|(name, _)| name.trim().to_owned())
        .filter(|name| !name.is_empty() && name != "help")
        .collect();
    ensure!(commands.len() > 10, "too few commands to compare with: {commands:?}");
    ensure_explained("commands.md", &commands, |name| {
        [format!("`tap53 {name}"), format!("`{name}`")]
    })?;

    let rules = ["alerts.yaml", "dns-alerts.yaml"]
        .map(|name| fs::read_to_string(docs().join("../deploy/prometheus").join(name)))
        .into_iter()
        .collect::<Result<String, _>>()?;
    let alerts: BTreeSet<_> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .map(str::to_owned)
        .collect();
    ensure!(!alerts.is_empty(), "no alerts to compare with");
    ensure_explained("monitoring.md", &alerts, |name| [format!("`{name}`")])
}

#[test]
fn generated_pages_are_up_to_date() -> Result<()> {
    the_example_is_what_replay_prints()?;
    the_page_of_the_fields_is_generated_from_the_schema()
}

fn the_example_is_what_replay_prints() -> Result<()> {
    let printed = without_drawn(&replay(&["--json"])?)?;
    let path = docs().join("example.jsonl");
    let mut written = without_drawn(&fs::read_to_string(&path).unwrap_or_default())?;
    // Random values change only together with something else.
    if env::var_os("UPDATE_DOCS").is_some() && written != printed {
        fs::write(&path, replay(&["--json"])?)?;
        written = without_drawn(&fs::read_to_string(&path)?)?;
    }
    ensure!(!written.is_empty() && printed == written, "docs/example.jsonl is old: {UPDATE}");

    let text = replay(&["--text"])?;
    let page = fs::read_to_string(docs().join("reading.md"))?;
    ensure!(
        page.contains(&text),
        "docs/reading.md should show what `tap53 replay` prints:\n{text}"
    );
    Ok(())
}

const UPDATE: &str = "run `UPDATE_DOCS=1 cargo test -p tap53-tests --test documents`";

fn the_page_of_the_fields_is_generated_from_the_schema() -> Result<()> {
    let schema: Value =
        serde_json::from_slice(&fs::read(docs().join("../agent/schema/dns_transaction.avsc"))?)?;
    let examples = fs::read_to_string(docs().join("example.jsonl"))?;
    let page = fields_page(&schema, &records(&examples)?)?;
    let path = docs().join("fields.md");
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &page)?;
    }
    ensure!(
        fs::read_to_string(path).unwrap_or_default() == page,
        "docs/fields.md is old: {UPDATE}"
    );
    Ok(())
}

#[test]
fn every_recipe_runs() -> Result<()> {
    let page = fs::read_to_string(docs().join("recipes.md"))?;
    let mut child = Command::new(python::python()?)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("documents/recipes.py"))
        .arg(docs().join("example.jsonl"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("stdin is piped")?.write_all(page.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "a recipe fails: see above");
    let ran: usize = String::from_utf8(output.stdout)?.trim().parse()?;
    ensure!(ran > 0 && ran == page.matches("```sql").count(), "{ran} recipes ran");
    Ok(())
}

/// Returns the output of `tap53 replay` for the manual's capture.
fn replay(options: &[&str]) -> Result<String> {
    let directory = TempDir::new()?;
    let configuration = directory.path().join("tap53.yaml");
    fs::write(&configuration, CONFIGURATION)?;
    output(
        Command::new(agent::binary()?)
            .current_dir(docs())
            .arg("replay")
            .arg("--config")
            .arg(&configuration)
            .args(options)
            .arg("example.pcap"),
    )
}

fn ensure_explained<const N: usize>(
    page: &str,
    names: &BTreeSet<String>,
    written: impl Fn(&str) -> [String; N],
) -> Result<()> {
    let text = fs::read_to_string(docs().join(page))?;
    let is_explained = |name: &&String| written(name).iter().any(|form| text.contains(form));
    let missing: Vec<_> = names.iter().filter(|name| !is_explained(name)).collect();
    ensure!(missing.is_empty(), "docs/{page} does not explain {missing:?}");
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// The keys of every object in `value` that counts by reason.
fn collect_reasons(value: &Value, reasons: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::Object(counts)
                        if matches!(key.as_str(), "ignored" | "lost" | "filtered") =>
                    {
                        reasons.extend(counts.keys().cloned());
                    }
                    _ => collect_reasons(value, reasons),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect_reasons(value, reasons)),
        _ => {}
    }
}

/// The code spans in the first cells of a page's tables.
fn first_cells(page: &str) -> BTreeSet<String> {
    page.lines()
        .filter_map(|line| line.strip_prefix("| "))
        .filter_map(|line| line.split(" |").next())
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

fn records(lines: &str) -> Result<Vec<Map<String, Value>>> {
    lines.lines().map(|line| serde_json::from_str(line).context("a record")).collect()
}

fn without_drawn(lines: &str) -> Result<Vec<Map<String, Value>>> {
    let mut records = records(lines)?;
    for record in &mut records {
        record.retain(|name, _| !DRAWN.contains(&name.as_str()));
    }
    Ok(records)
}

fn fields_page(schema: &Value, examples: &[Map<String, Value>]) -> Result<String> {
    let mut page = format!(
        "# All fields\n\n{}\n\nThis page is generated from `agent/schema/dns_transaction.avsc`; a test keeps \
         it up to date ({UPDATE}). The examples are from the records of [Reading records](reading.md), as \
         JSON shows them.\n\n| field | type | meaning | example |\n|---|---|---|---|\n",
        text(schema, "doc")?,
    );
    for field in schema["fields"].as_array().context("fields")? {
        let name = text(field, "name")?;
        let doc = escaped(text(field, "doc").unwrap_or_default());
        let example = example(name, examples)?;
        page += &format!("| `{name}` | {} | {doc} | {example} |\n", type_of(&field["type"])?);
        for inner in inner_fields(&field["type"]) {
            let doc = escaped(text(inner, "doc").unwrap_or_default());
            let inner_name = text(inner, "name")?;
            page +=
                &format!("| `{name}[].{inner_name}` | {} | {doc} | |\n", type_of(&inner["type"])?);
        }
    }
    Ok(page)
}

/// Fields of a record type that is defined as the items of an array.
fn inner_fields(avro: &Value) -> impl Iterator<Item = &Value> {
    avro["items"]["fields"].as_array().into_iter().flatten()
}

/// Returns the first value that is not empty.
fn example(name: &str, examples: &[Map<String, Value>]) -> Result<String> {
    let mut values = Vec::new();
    for record in examples {
        values.push(record.get(name).with_context(|| format!("docs/example.jsonl lacks {name}"))?);
    }
    let is_empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    let value = values.into_iter().find(|value| !is_empty(value)).map(Value::to_string);
    Ok(value.map(|value| format!("`{}`", value.replace('|', "\\|"))).unwrap_or_default())
}

fn type_of(avro: &Value) -> Result<String> {
    Ok(match avro {
        Value::String(name) => name.clone(),
        Value::Array(union) => {
            let variants: Result<Vec<_>> =
                union.iter().filter(|variant| *variant != "null").map(type_of).collect();
            format!("{} or null", variants?.join(" or "))
        }
        _ => match (text(avro, "type")?, avro["logicalType"].as_str()) {
            (_, Some(logical)) => logical.to_owned(),
            ("array", _) => format!("array of {}", type_of(&avro["items"])?),
            ("map", _) => format!("map of {}", type_of(&avro["values"])?),
            ("enum", _) => symbols(avro)?,
            ("fixed", _) => format!("fixed, {} bytes", avro["size"]),
            ("record", _) => text(avro, "name")?.to_owned(),
            (other, _) => other.to_owned(),
        },
    })
}

fn symbols(avro: &Value) -> Result<String> {
    let symbols = avro["symbols"].as_array().context("symbols")?;
    let shown: Vec<_> =
        symbols.iter().filter_map(Value::as_str).map(|name| format!("`{name}`")).collect();
    Ok(format!("{}: {}", text(avro, "name")?, shown.join(", ")))
}

fn text<'v>(value: &'v Value, key: &str) -> Result<&'v str> {
    value[key].as_str().with_context(|| format!("no text {key} in {value}"))
}

/// Text for a cell of a table, where `<kind>` is no HTML.
fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;").replace('[', "\\[")
}
