//! `deploy/sql/insights.sql`: each of its twenty questions has the right rows in DuckDB, on records that are
//! made for it, and on the sample of the manual. None of this needs root.

#[path = "insights/cases.rs"]
mod cases;
#[path = "insights/row.rs"]
mod row;
#[path = "insights/sample.rs"]
mod sample;

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tap53_harness::python::json_lines;

/// The files, in the order in which they need each other.
const FILES: [&str; 3] = ["duckdb.sql", "questions.sql", "insights.sql"];

/// The rows of a query, and the table as DuckDB draws it, if that was wanted.
struct Answer {
    rows: Value,
    table: Option<String>,
}

/// Runs `queries` in DuckDB on `records`: `{"rows": […]}` or `{"parquet": path}`, and `"draw"`, for how many of
/// them to draw a table.
fn ask<S: AsRef<OsStr>>(
    records: &Value,
    queries: impl IntoIterator<Item = S>,
) -> Result<Vec<Answer>> {
    let schema = repository().join("agent/schema/dns_transaction.avsc");
    let files = FILES.map(|file| repository().join("deploy/sql").join(file).display().to_string());
    let mut arguments = vec![schema.into_os_string(), files.join(",").into()];
    arguments.extend(queries.into_iter().map(|query| query.as_ref().to_owned()));
    let lines = json_lines("insights.py", arguments, records.to_string().as_bytes())?;
    Ok(lines.into_iter().map(answer).collect())
}

fn answer(mut line: Value) -> Answer {
    let table = line["table"].as_str().map(str::to_owned);
    Answer { rows: line["rows"].take(), table }
}

/// Names of the views that answer a question: those after a comment with a number.
fn questions() -> Result<Vec<String>> {
    let text = fs::read_to_string(repository().join("deploy/sql/insights.sql"))?;
    let is_numbered = |line: &str| {
        line.strip_prefix("-- ").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let mut views = Vec::new();
    let mut numbered = false;
    for line in text.lines() {
        numbered |= is_numbered(line);
        if let Some(rest) = line.strip_prefix("CREATE OR REPLACE VIEW ") {
            let name = rest.split(' ').next().context("a name")?;
            if std::mem::take(&mut numbered) {
                views.push(name.to_owned());
            }
        }
    }
    Ok(views)
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn each_view_has_the_rows_that_it_must_have_and_no_others() -> Result<()> {
    let cases = cases::all()?;
    let covered: BTreeSet<_> = cases.iter().map(|case| case.view.to_owned()).collect();
    let views = questions()?;
    assert_eq!(views.len(), 20, "{views:?}");
    let missing: Vec<_> = views.iter().filter(|view| !covered.contains(*view)).collect();
    ensure!(missing.is_empty(), "no case checks {missing:?}");

    let rows: Vec<Value> = cases.iter().flat_map(|case| case.rows.clone()).collect();
    let answers = ask(&json!({ "rows": rows }), cases.iter().map(cases::Case::query))?;
    ensure!(answers.len() == cases.len(), "{} answers to {} queries", answers.len(), cases.len());
    for (case, answer) in cases.iter().zip(answers) {
        assert_eq!(answer.rows, case.expected, "{}", case.query());
    }
    Ok(())
}
