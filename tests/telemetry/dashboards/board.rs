//! A dashboard's file, and its queries as Grafana sends them.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tap53_harness::prometheus::Prometheus;

use super::root;

/// A dashboard.
pub(super) struct Board {
    pub(super) uid: String,
    pub(super) text: String,
    pub(super) json: Value,
}

/// A query of a panel.
#[derive(Clone, Debug)]
pub(super) struct Query {
    /// `uid/title of the panel/refId`.
    pub(super) place: String,
    pub(super) text: String,
}

/// A variable that is replaced in queries, and its replacement.
type Replacement = (String, String);

impl Board {
    /// Reads a file of `deploy/grafana`.
    pub(super) fn read(name: &str) -> Result<Self> {
        let text = fs::read_to_string(root().join("deploy/grafana").join(name))?;
        let json: Value = serde_json::from_str(&text).context(name.to_owned())?;
        let uid = json["uid"].as_str().context("a uid")?.to_owned();
        Ok(Self { uid, text, json })
    }

    /// Panels that are no rows.
    pub(super) fn panels(&self) -> Result<Vec<&Value>> {
        let panels = self.json["panels"].as_array().context("panels")?;
        Ok(panels.iter().filter(|panel| panel["type"] != "row").collect())
    }

    /// Returns all queries with these replacements; no other variable may be in them.
    pub(super) fn queries_with(&self, replacements: &[Replacement]) -> Result<Vec<Query>> {
        let mut queries = Vec::new();
        for panel in self.panels()? {
            let title = panel["title"].as_str().context("a title")?;
            for target in panel["targets"].as_array().context("targets")? {
                let id = target["refId"].as_str().context("a refId")?;
                let place = format!("{}/{title}/{id}", self.uid);
                let text = replace(target["expr"].as_str().context("a query")?, replacements);
                ensure!(!text.contains('$'), "a variable without a value in {place}: {text}");
                queries.push(Query { place, text });
            }
        }
        Ok(queries)
    }

    /// Names of the variables that are chosen from a list.
    pub(super) fn variables(&self) -> Result<Vec<&str>> {
        let chosen = self.chosen()?.into_iter();
        chosen.map(|variable| variable["name"].as_str().context("a name")).collect()
    }

    /// Returns all queries as Grafana sends them while "All" is chosen for each variable.
    pub(super) fn queries(
        &self,
        prometheus: &Prometheus<'_>,
        rate_interval: &str,
    ) -> Result<Vec<Query>> {
        let mut replacements = vec![("$__rate_interval".to_owned(), rate_interval.to_owned())];
        for variable in self.chosen()? {
            let name = variable["name"].as_str().context("a name")?;
            let all = all_value(variable, &replacements, prometheus)
                .with_context(|| format!("variable {name} of {}", self.uid))?;
            replacements.push((format!("${name}"), all));
        }
        self.queries_with(&replacements)
    }

    fn chosen(&self) -> Result<Vec<&Value>> {
        let variables = self.json["templating"]["list"].as_array().context("variables")?;
        Ok(variables.iter().filter(|variable| variable["type"] == "query").collect())
    }
}

/// Returns the value that stands for "All": the variable's own, or all values of its list.
fn all_value(
    variable: &Value,
    replacements: &[Replacement],
    prometheus: &Prometheus<'_>,
) -> Result<String> {
    let definition = variable["definition"].as_str().context("a definition")?;
    ensure!(variable["query"]["query"] == definition, "two definitions");
    let arguments = definition.strip_prefix("label_values(").and_then(|it| it.strip_suffix(')'));
    let (selector, label) =
        arguments.and_then(|it| it.rsplit_once(", ")).context("label_values of a selector")?;
    let values = prometheus.label_values(&replace(selector, replacements), label)?;
    ensure!(!values.is_empty(), "no value: {definition}");
    let own = variable["allValue"].as_str().map(str::to_owned);
    Ok(own.unwrap_or_else(|| format!("({})", values.join("|"))))
}

fn replace(text: &str, replacements: &[Replacement]) -> String {
    replacements.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
}
