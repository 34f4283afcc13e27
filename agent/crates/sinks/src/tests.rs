//! Every message in the log of the sinks and the spool has an event, and the manual lists it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const LEVELS: [&str; 5] = ["error!(", "warn!(", "info!(", "debug!(", "trace!("];

fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let (directories, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let is_source = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    let below = directories.iter().flat_map(|directory| sources(directory));
    files.into_iter().filter(is_source).chain(below).collect()
}

/// The events of a source, in the order of its messages; `Err` with the text of one that has none.
fn events(source: &str) -> impl Iterator<Item = Result<&str, &str>> {
    source.split("tracing::").skip(1).filter_map(|rest| {
        let message = LEVELS.iter().find_map(|level| rest.strip_prefix(level))?.trim_start();
        let event = message.strip_prefix("event = \"").and_then(|rest| rest.split('"').next());
        Some(event.ok_or(message.lines().next().unwrap_or_default()))
    })
}

#[test]
fn each_message_has_an_event_that_the_manual_lists() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let manual = fs::read_to_string(crates.join("../../docs/events.md")).unwrap();
    let listed: BTreeSet<&str> = manual.split('`').skip(1).step_by(2).collect();
    let mut found = 0;
    for path in ["sinks/src", "spool/src", "base/src/threads.rs", "../librdkafka/src"]
        .map(|path| crates.join(path))
    {
        for path in if path.is_dir() { sources(&path) } else { vec![path] } {
            for event in events(&fs::read_to_string(&path).unwrap()) {
                found += 1;
                match event {
                    Ok(event) => assert!(listed.contains(event), "{path:?}: {event} is not listed"),
                    Err(message) => panic!("{path:?}: without an event: {message}"),
                }
            }
        }
    }
    assert!(found > 60, "{found}");
    // In parts, since this file is read as well.
    let without = ["tracing", "::warn!(sink, \"x\");"].concat();
    assert_eq!(events(&without).next(), Some(Err("sink, \"x\");")));
}
