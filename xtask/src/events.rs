//! Checks that `docs/events.md` lists exactly the events that the agent logs.
//!
//! Each call of a `tracing` macro in the product's crates, tests left out, must have a field
//! `event = "snake_case"`. The sources are read as tokens, since many calls are inside of other macros
//! (`tokio::select!`), which no parser of the language looks into.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Macros of `tracing` that log, which are also the names of the levels.
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// Levels at which each event is logged.
type Events = BTreeMap<String, BTreeSet<String>>;

/// The calls of one source file.
#[derive(Debug, Default)]
struct Calls {
    events: Events,
    /// Calls without a valid name, each as its tokens.
    unnamed: Vec<String>,
}

impl Calls {
    fn read(&mut self, tokens: TokenStream) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut index = 0;
        while index < tokens.len() {
            match &tokens[index..] {
                [TokenTree::Punct(hash), TokenTree::Group(attribute), ..]
                    if hash.as_char() == '#' && is_test(attribute.stream()) =>
                {
                    index += 2 + item_length(&tokens[index + 2..]);
                    continue;
                }
                [TokenTree::Ident(level), TokenTree::Punct(mark), TokenTree::Group(call), ..]
                    if mark.as_char() == '!' && LEVELS.contains(&level.to_string().as_str()) =>
                {
                    self.note(&level.to_string(), call.stream());
                }
                _ => {}
            }
            if let TokenTree::Group(group) = &tokens[index] {
                self.read(group.stream());
            }
            index += 1;
        }
    }

    fn note(&mut self, level: &str, call: TokenStream) {
        let text = call.to_string();
        match event(call).filter(|event| is_snake_case(event)) {
            Some(event) => {
                self.events.entry(event).or_default().insert(level.to_owned());
            }
            None => self.unnamed.push(format!("{level}!({text})")),
        }
    }
}

/// Returns the value of the field `event` of a call, if it is a string literal.
fn event(call: TokenStream) -> Option<String> {
    let tokens: Vec<_> = call.into_iter().collect();
    tokens.windows(3).find_map(|window| match window {
        [TokenTree::Ident(field), TokenTree::Punct(equals), TokenTree::Literal(value)]
            if field == "event" && equals.as_char() == '=' =>
        {
            let text = value.to_string();
            Some(text.strip_prefix('"')?.strip_suffix('"')?.to_owned())
        }
        _ => None,
    })
}

fn is_snake_case(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Returns true for the content of `#[cfg(test)]` and `#[test]`.
fn is_test(attribute: TokenStream) -> bool {
    matches!(attribute.to_string().replace(' ', "").as_str(), "cfg(test)" | "test")
}

/// Returns the number of tokens of the item that `tokens` begin with: up to its semicolon or braces.
fn item_length(tokens: &[TokenTree]) -> usize {
    let is_end = |token: &TokenTree| match token {
        TokenTree::Punct(punct) => punct.as_char() == ';',
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        _ => false,
    };
    tokens.iter().position(is_end).map_or(tokens.len(), |end| end + 1)
}

/// Adds the source files below a directory, without the files of tests.
fn sources(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.file_stem().is_some_and(|stem| stem == "tests") {
            continue;
        }
        if path.is_dir() {
            sources(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Returns the events of a page, by the first two columns of its tables. A row may list several events
/// and several levels.
fn documented(page: &str) -> Vec<(Vec<String>, BTreeSet<String>)> {
    let list = |cell: &str| cell.split(',').map(|part| part.trim().to_owned()).collect::<Vec<_>>();
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split('|');
        let events = cells.next()?.replace('`', "");
        Some((list(&events), list(cells.next()?).into_iter().collect()))
    };
    page.lines().filter_map(row).collect()
}

/// Returns what is wrong with the page.
fn differences(events: &Events, page: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut listed = BTreeSet::new();
    for (names, levels) in documented(page) {
        let mut logged = BTreeSet::new();
        for name in names {
            match events.get(&name) {
                Some(levels) => logged.extend(levels.clone()),
                None => wrong.push(format!("`{name}` is documented, but never logged")),
            }
            if !listed.insert(name.clone()) {
                wrong.push(format!("`{name}` is documented twice"));
            }
        }
        if !logged.is_empty() && logged != levels {
            wrong.push(format!("the row of levels {levels:?} is logged at {logged:?}"));
        }
    }
    for (name, levels) in events.iter().filter(|(name, _)| !listed.contains(*name)) {
        wrong.push(format!("`{name}` ({levels:?}) is logged, but not documented"));
    }
    wrong
}

#[test]
fn the_page_of_events_lists_exactly_the_events_of_the_code() -> Result<()> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("a repository")?;
    let mut files = Vec::new();
    sources(&repository.join("agent/src"), &mut files)?;
    sources(&repository.join("agent/librdkafka/src"), &mut files)?;
    for entry in fs::read_dir(repository.join("agent/crates"))? {
        sources(&entry?.path().join("src"), &mut files)?;
    }
    let mut events = Events::new();
    let mut unnamed = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file)?;
        let tokens: TokenStream = text.parse().map_err(|error| {
            anyhow::anyhow!("{}: cannot be read as tokens: {error}", file.display())
        })?;
        let mut calls = Calls::default();
        calls.read(tokens);
        for (event, levels) in calls.events {
            events.entry(event).or_default().extend(levels);
        }
        unnamed.extend(calls.unnamed.iter().map(|call| format!("{}: {call}", file.display())));
    }
    assert!(unnamed.is_empty(), "without `event = \"snake_case\"`:\n{}", unnamed.join("\n"));
    assert!(events.len() > 100, "{} events were found", events.len());
    let page = fs::read_to_string(repository.join("docs/events.md"))?;
    let wrong = differences(&events, &page);
    assert!(wrong.is_empty(), "docs/events.md:\n{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn calls_are_found_inside_of_macros_and_not_in_tests() {
    let text = r#"
        fn f() {
            tracing::info!(event = "plain", "text");
            select! { x => { tracing::warn!(target: T, %error, event = "inner", "text") } }
            tracing::error!("unnamed");
            tracing::debug!(event = "CamelCase", "text");
        }
        #[cfg(test)]
        mod tests { fn g() { tracing::error!("in a test"); } }
        #[cfg(test)]
        mod other;
        fn h() { warn!(event = "plain", "text"); }
    "#;
    let mut calls = Calls::default();
    calls.read(text.parse().expect("tokens"));
    let events: Vec<_> = calls.events.keys().map(String::as_str).collect();
    assert_eq!(events, ["inner", "plain"]);
    assert_eq!(calls.events["plain"], ["info", "warn"].map(str::to_owned).into());
    let unnamed = ["error!(\"unnamed\")", "debug!(event = \"CamelCase\" , \"text\")"];
    assert_eq!(calls.unnamed, unnamed);
}

#[test]
fn each_difference_between_page_and_code_is_reported() {
    let events: Events = [("a", "info"), ("b", "warn"), ("c", "error")]
        .map(|(event, level)| (event.to_owned(), [level.to_owned()].into()))
        .into();
    let page = "| event | level |\n|---|---|\n| `a`, `b` | info, warn | x |\n| `c` | error | y |\n";
    assert_eq!(differences(&events, page), [""; 0]);
    for (line, other) in [
        ("| `c` | error | y |\n", ""),
        ("| `c` | error | y |\n", "| `c` | warn | y |\n"),
        ("| `c` | error | y |\n", "| `c`, `d` | error | y |\n"),
        ("| `c` | error | y |\n", "| `c` | error | y |\n| `a` | info | z |\n"),
    ] {
        assert_eq!(differences(&events, &page.replace(line, other)).len(), 1, "{other}");
    }
}
