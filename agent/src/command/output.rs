//! Formats of what a command shows: text for people, JSON and YAML for programs.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::table::print;

/// Format of what a command shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Text for people.
    Text,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

/// Format of what is data already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum DataFormat {
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

/// The option that chooses the format.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Output {
    /// Format: text, json or yaml
    #[arg(
        short = 'o',
        long = "output",
        value_enum,
        value_name = "FORMAT",
        default_value = "text",
        hide_possible_values = true
    )]
    pub(super) format: Format,
}

impl Output {
    /// Prints `value`, or its text.
    pub(super) fn print(
        self,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> anyhow::Result<ExitCode> {
        print(&self.render(value, text)?)
    }

    /// Returns `value` in this format, or its text; it ends with a line feed.
    pub(super) fn render(
        self,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> anyhow::Result<String> {
        match self.format {
            Format::Text => Ok(text()),
            Format::Json => DataFormat::Json.render(value),
            Format::Yaml => DataFormat::Yaml.render(value),
        }
    }
}

impl DataFormat {
    /// Returns `value` in this format; it ends with a line feed.
    pub(super) fn render(self, value: &impl Serialize) -> anyhow::Result<String> {
        let mut text = match self {
            Self::Json => serde_json::to_string_pretty(value).context("cannot write JSON")?,
            Self::Yaml => serde_saphyr::to_string(value).context("cannot write YAML")?,
        };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn json_and_yaml_have_the_same_content() {
        let value = json!({
            "name": "no", "empty": "", "number": "7", "nothing": null, "list": [1, -2.5, true],
            "nested": [{"a": [], "b": {}}], "text": "one\ntwo: # three\u{1b}[2J\u{202e}",
        });
        let output = |format| Output { format };
        let render = |format| output(format).render(&value, || "text\n".to_owned()).unwrap();
        assert_eq!(render(Format::Text), "text\n");
        let from_json: Value = serde_json::from_str(&render(Format::Json)).unwrap();
        assert_eq!(from_json, value);
        let yaml = render(Format::Yaml);
        let from_yaml: Value = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(from_yaml, value, "{yaml}");
        // A terminal that prints it must not be controlled by it, nor the document be changed.
        let printed = super::super::table::printable(&yaml, false);
        let from_printed: Value = serde_saphyr::from_str(&printed).unwrap();
        assert_eq!(from_printed, value, "{printed}");
    }
}
