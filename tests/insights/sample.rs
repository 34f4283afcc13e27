//! The sample in `docs/sample`: it has the fields of the current schema, every view has rows of it, and the
//! manual shows what DuckDB answers.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result, ensure};
use serde_json::{Deserializer, Value, json};
use tap53_harness::agent;

use crate::{ask, questions, repository};

const AVRO: &str = "docs/sample/dns_transactions.avro";
const PARQUET: &str = "docs/sample/dns_transactions.parquet";
const RECORDS: u64 = 10_000;
const REMEDY: &str = "run `cargo xtask sample`";

#[test]
fn the_sample_has_the_fields_of_the_current_schema() -> Result<()> {
    let schema = fs::read(repository().join("agent/schema/dns_transaction.avsc"))?;
    let current = field_names(&serde_json::from_slice(&schema)?)?;
    let written = field_names(&schema_of_container(&fs::read(repository().join(AVRO))?)?)?;
    assert_eq!(written, current, "{AVRO} is of another schema: {REMEDY}");

    let columns = "SELECT column_name AS name FROM (DESCRIBE dns_transactions)";
    let rcodes = "SELECT rcode, count(*) AS records FROM dns_transactions GROUP BY rcode";
    let parquet = json!({"parquet": repository().join(PARQUET)});
    let [columns, rcodes] = ask(&parquet, [columns, rcodes])?
        .try_into()
        .map_err(|answers: Vec<_>| anyhow::anyhow!("{} answers", answers.len()))?;
    let columns = field_names(&json!({"fields": columns.rows}))?;
    assert_eq!(columns, current, "{PARQUET} is of another schema: {REMEDY}");
    let in_parquet: BTreeMap<_, _> = rcodes
        .rows
        .as_array()
        .context("rows")?
        .iter()
        .map(|row| (row["rcode"].as_str().unwrap_or("-").to_owned(), row["records"].as_u64()))
        .collect();
    assert_eq!(in_parquet.values().flatten().sum::<u64>(), RECORDS, "{PARQUET}");
    assert_eq!(rcodes_of_avro()?, in_parquet, "{AVRO} and {PARQUET} differ: {REMEDY}");
    Ok(())
}

/// Returns the number of records in the Avro file with each response code.
fn rcodes_of_avro() -> Result<BTreeMap<String, Option<u64>>> {
    let file = repository().join(AVRO).display().to_string();
    let output = agent::run(&["query", &file, "--fields", "rcode", "-o", "json"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut counts = BTreeMap::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let record: Value = serde_json::from_str(line)?;
        let count =
            counts.entry(record["rcode"].as_str().unwrap_or("-").to_owned()).or_insert(Some(0));
        *count = count.map(|count| count + 1);
    }
    Ok(counts)
}

/// Returns the schema in the header of an object container file, which is JSON.
fn schema_of_container(bytes: &[u8]) -> Result<Value> {
    const KEY: &[u8] = b"avro.schema";
    let key = bytes.windows(KEY.len()).position(|window| window == KEY).context("no schema")?;
    let after = &bytes[key..];
    let begin = after.iter().position(|&byte| byte == b'{').context("no schema")?;
    let mut values = Deserializer::from_slice(&after[begin..]).into_iter();
    Ok(values.next().context("no schema")??)
}

fn field_names(schema: &Value) -> Result<Vec<String>> {
    let name = |field: &Value| Ok(field["name"].as_str().context("a name")?.to_owned());
    schema["fields"].as_array().context("fields")?.iter().map(name).collect()
}

#[test]
fn the_manual_shows_what_duckdb_answers_on_the_sample() -> Result<()> {
    let docs = repository().join("docs");
    let page = fs::read_to_string(docs.join("insights.md"))?;
    let recipes = fs::read_to_string(docs.join("recipes.md"))?;
    let views = questions()?;
    for view in &views {
        ensure!(page.contains(&format!("| `{view}` |")), "docs/insights.md does not list {view}");
    }
    let shown = blocks(&page, "sql");
    ensure!(shown.len() == 3, "docs/insights.md has {} queries", shown.len());
    let counts = views.iter().map(|view| format!("SELECT count(*) AS rows FROM {view}"));
    let queries: Vec<_> =
        shown.iter().cloned().chain(counts).chain(blocks(&recipes, "sql")).collect();
    let answers =
        ask(&json!({"parquet": repository().join(PARQUET), "draw": shown.len()}), &queries)?;

    let (tables, rest) = answers.split_at(shown.len());
    for ((query, answer), text) in shown.iter().zip(tables).zip(blocks(&page, "text")) {
        let table = answer.table.as_deref().context("a table")?;
        assert_eq!(text.trim_end(), table.trim_end(), "docs/insights.md, after\n{query}");
    }
    for (view, answer) in views.iter().zip(rest) {
        ensure!(answer.rows[0]["rows"].as_u64() > Some(0), "the sample has nothing for {view}");
    }
    Ok(())
}

/// The fenced blocks of a page in `language`.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let after = page.split(&fence).skip(1);
    after.filter_map(|rest| Some(rest.split_once("```")?.0.to_owned())).collect()
}
