//! The parts of the manual that derive from the table of stages and from the reasons. `UPDATE_DOCS=1
//! cargo test -p tap53-ledger` writes them.

use std::{collections::BTreeSet, env, fmt::Write as _, fs, path::Path};

use tap53_dns::{
    PacketLoss,
    fragments::{FragmentIgnored, FragmentLoss},
    stream::{StreamIgnored, StreamLoss},
};
use tap53_ebpf::counter::Counter;
use tap53_reasons::{Fate, Reason};
use tap53_spool::Loss;
use tap53_transactions::filter::FilterReason;

use super::{every_reason, left_out};
use crate::{
    Deliveries, Fragments, Hook, MessageLoss, Messages, Packets, Records, Rings, SinkLoss, Stage,
    Summaries, TcpBytes,
};

#[test]
fn the_tables_of_the_manual_are_up_to_date() {
    let reasons = reasons().map(|(name, entries)| (name, explained(&entries)));
    update("loss-reasons.md", &reasons);
    update("ledger.md", &[("stages", stages())]);
}

#[test]
fn the_ledger_has_each_reason_by_its_fate() {
    let ledger = every_reason();
    let spool = &ledger.agent.sinks[0].spool.as_ref().unwrap().records;
    let counts: Vec<_> = left_out(&ledger)
        .chain(spool.counts().into_iter().filter(|count| count.fate == Fate::Lost))
        .map(|count| (count.stage, count.fate, count.reason))
        .collect();
    for (name, entries) in reasons() {
        let stages: &[&str] =
            if name == "filters" { &["messages", "transactions"] } else { &[name] };
        for (stage, entry) in
            stages.iter().flat_map(|stage| entries.iter().map(move |of| (stage, of)))
        {
            let Entry { fate, label, .. } = *entry;
            assert!(
                counts.contains(&(stage, fate, label)),
                "{stage} has no {label} that is {fate:?}"
            );
        }
    }
}

/// All reasons, by the name of their table.
fn reasons() -> [(&'static str, Vec<Entry>); 8] {
    [
        ("hooks", entries::<Counter>()),
        ("packets", entries::<PacketLoss>()),
        ("fragments", [entries::<FragmentIgnored>(), entries::<FragmentLoss>()].concat()),
        ("tcp_bytes", [entries::<StreamIgnored>(), entries::<StreamLoss>()].concat()),
        ("messages", entries::<MessageLoss>()),
        ("filters", entries::<FilterReason>()),
        ("sink", entries::<SinkLoss>()),
        ("spool", entries::<Loss>()),
    ]
}

/// A reason, as the manual has it.
#[derive(Clone, Copy)]
struct Entry {
    label: &'static str,
    fate: Fate,
    meaning: &'static str,
    remedy: Option<&'static str>,
}

/// The reasons why something goes nowhere: first those by which nothing is missing.
fn entries<R: Reason>() -> Vec<Entry> {
    let all = R::LABELS.iter().map(|reason| Entry {
        label: reason.label(),
        fate: reason.fate(),
        meaning: reason.meaning(),
        remedy: reason.remedy(),
    });
    let fates = [Fate::Filtered, Fate::Ignored, Fate::Lost];
    let mut entries: Vec<_> = all.filter(|entry| fates.contains(&entry.fate)).collect();
    entries.sort_by_key(|entry| entry.fate);
    assert!(!entries.is_empty());
    entries
}

/// A table without the columns that say the same of every reason.
fn explained(entries: &[Entry]) -> String {
    let has_fates = entries.iter().any(|entry| entry.fate != entries[0].fate);
    let has_remedies = entries.iter().any(|entry| entry.remedy.is_some());
    let row = |label: &str, fate: &str, meaning: &str, remedy: &str| {
        let mut cells = vec![label];
        cells.extend(has_fates.then_some(fate));
        cells.push(meaning);
        cells.extend(has_remedies.then_some(remedy));
        cells.iter().map(|cell| format!("| {cell} ")).collect::<String>() + "|\n"
    };
    let mut table = row("reason", "fate", "meaning", "what to do");
    table.push_str(&row("-", "-", "-", "-").replace(" - ", "---"));
    for Entry { label, fate, meaning, remedy } in entries {
        assert!(!meaning.contains('|') && meaning.ends_with('.'), "{meaning}");
        let remedy = remedy.unwrap_or("nothing");
        table.push_str(&row(&format!("`{label}`"), fate.name(), meaning, remedy));
    }
    table
}

fn stages() -> String {
    let mut table = String::from("| stage | unit |");
    let _ = writeln!(table, " {} |", Fate::SUMMED.map(Fate::name).join(" | "));
    table.push_str("|---|---|---|---|---|---|---|---|\n");
    let rows = [
        stage::<Hook>(),
        stage::<Rings>(),
        stage::<Packets>(),
        stage::<Fragments>(),
        stage::<TcpBytes>(),
        stage::<Messages>(),
        stage::<Records>(),
        stage::<Deliveries>(),
        stage::<Summaries>(),
    ];
    table + &rows.concat()
}

fn stage<S: Stage>() -> String {
    let cells = Fate::SUMMED.map(|fate| {
        let terms = S::terms(fate).map(|term| match term.label {
            Some(_) => "by reason".to_owned(),
            None => format!("`{}`", term.name),
        });
        terms.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
    });
    format!("| {} | {} | {} |\n", S::NAME, S::UNIT, cells.join(" | "))
}

/// Compares tables with those between the marks of their names in a page, or writes them.
fn update(page: &str, tables: &[(&str, String)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../docs").join(page);
    let written = fs::read_to_string(&path).unwrap();
    let mut made = written.clone();
    for (name, table) in tables {
        let [begin, end] = ["begin", "end"].map(|mark| format!("<!-- {mark} {name} -->\n"));
        let split = made.split_once(&begin);
        let (before, rest) = split.unwrap_or_else(|| panic!("no table {name} in docs/{page}"));
        let (_, after) = rest.split_once(&end).unwrap();
        made = [before, &begin, "\n", table, "\n", &end, after].concat();
    }
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, made).unwrap();
        return;
    }
    assert!(written == made, "docs/{page}: run `UPDATE_DOCS=1 cargo test -p tap53-ledger`");
}
