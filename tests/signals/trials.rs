//! Trials: tunnels, bursts and attacks, each of a client and with domains of its own, at a random time.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use anyhow::Result;
use tap53_harness::{
    evaluation::{Row, Table, is_long},
    lookups::{
        Lookup, Random,
        dga::{self, Family},
        name_of, rebinding,
    },
};
use tap53_signals::Signal;

use crate::captures::{Captured, DOMAIN};

/// Queries within which a tunnel must be found, and the time.
const QUERIES: usize = 200;
const DEADLINE: Duration = Duration::from_secs(60);
/// Generated domains of a burst, and the rates of bursts in domains per second.
const DOMAINS: u32 = 200;
const RATES: [u32; 3] = [2, 5, 20];
/// Rate from which on bursts must be found. Slower ones of words are like the misspelled names of an office.
const MIN_RATE: u32 = 5;

/// The kind of a trial: trials of the same one share a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// A capture, by its index.
    Tunnel(usize),
    /// A family, with a rate.
    Burst(Family, u32),
    /// A target, by its index.
    Rebinding(usize),
}

/// A tunnel, burst or attack that is to be found.
struct Trial {
    subject: Subject,
    lookups: Vec<Lookup>,
    seen: usize,
    begin: Option<Duration>,
    /// Lookups until it was found, this one included, and the time.
    found: Option<(usize, Duration)>,
}

/// All trials.
pub(crate) struct Trials {
    random: Random,
    trials: Vec<Trial>,
    /// For each capture: tool, type, pace, measured rate.
    captures: Vec<[String; 4]>,
}

impl Trials {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), trials: Vec::new(), captures: Vec::new() }
    }

    /// Adds trials of each capture: the first queries of the tunnel, and as many from other places on.
    pub(crate) fn add_tunnels(&mut self, captured: &[Captured], span: Duration) {
        let count = if is_long() { 40 } else { 12 };
        for (index, capture) in captured.iter().enumerate() {
            self.captures.push(row_head(capture));
            let last = capture.lookups.len().saturating_sub(QUERIES);
            for number in 0..count {
                let from = last * number / (count - 1).max(1);
                let part = &capture.lookups[from..(from + QUERIES).min(capture.lookups.len())];
                self.add_tunnel(Subject::Tunnel(index), part, span);
            }
        }
    }

    fn add_tunnel(&mut self, subject: Subject, part: &[Lookup], span: Duration) {
        let begin = self.random.time(span);
        let (number, client) = (self.trials.len(), self.client());
        let captured_at = part[0].at;
        let lookups = part.iter().map(|lookup| Lookup {
            at: begin + (lookup.at - captured_at),
            client,
            name: renamed(&lookup.name, number),
            ..lookup.clone()
        });
        let lookups = lookups.collect();
        self.add(subject, lookups);
    }

    pub(crate) fn add_bursts(&mut self, span: Duration) {
        for family in Family::ALL {
            for rate in RATES {
                for _ in 0..if is_long() { 50 } else { 6 } {
                    let (begin, client) = (self.random.time(span), self.client());
                    let seed = self.random.bits();
                    let lookups = dga::burst(family, seed, client, begin, (DOMAINS, rate));
                    self.add(Subject::Burst(family, rate), lookups);
                }
            }
        }
    }

    pub(crate) fn add_attacks(&mut self, span: Duration) {
        for (index, target) in rebinding::TARGETS.iter().enumerate() {
            for _ in 0..if is_long() { 50 } else { 6 } {
                let (begin, client) = (self.random.time(span), self.client());
                let attack = rebinding::attack(self.trials.len(), target, client, begin);
                self.add(Subject::Rebinding(index), attack.to_vec());
            }
        }
    }

    fn add(&mut self, subject: Subject, lookups: Vec<Lookup>) {
        self.trials.push(Trial { subject, lookups, seen: 0, begin: None, found: None });
    }

    /// Returns an address that no other client has.
    fn client(&self) -> IpAddr {
        let number = u32::try_from(self.trials.len()).expect("some thousands");
        Ipv4Addr::from_bits(u32::from_be_bytes([10, 128, 0, 1]) + number).into()
    }

    /// Takes the lookups of all trials in the order of time, each with the index of its trial.
    pub(crate) fn take_lookups(&mut self) -> Vec<(usize, Lookup)> {
        let trials = self.trials.iter_mut().enumerate();
        let mut all: Vec<_> = trials
            .flat_map(|(index, trial)| {
                std::mem::take(&mut trial.lookups).into_iter().map(move |lookup| (index, lookup))
            })
            .collect();
        all.sort_by_key(|(_, lookup)| lookup.at);
        all
    }

    /// Notes the signals of a lookup of a trial.
    pub(crate) fn note(&mut self, index: usize, at: Duration, contains: impl Fn(Signal) -> bool) {
        let trial = &mut self.trials[index];
        let begin = *trial.begin.get_or_insert(at);
        trial.seen += 1;
        let signal = match trial.subject {
            Subject::Tunnel(_) => Signal::Tunnel,
            Subject::Burst(..) => Signal::Dga,
            Subject::Rebinding(_) => Signal::Rebinding,
        };
        if trial.found.is_none() && contains(signal) {
            trial.found = Some((trial.seen, at - begin));
        }
    }

    pub(crate) fn tunnel_recall(&self) -> f64 {
        self.recall(|subject| matches!(subject, Subject::Tunnel(_)))
    }

    pub(crate) fn burst_recall(&self) -> f64 {
        self.recall(|subject| matches!(subject, Subject::Burst(_, rate) if rate >= MIN_RATE))
    }

    pub(crate) fn all_attacks_are_found(&self) -> bool {
        self.of(|subject| matches!(subject, Subject::Rebinding(_))).all(Trial::is_exact)
    }

    fn of(&self, is_one: impl Fn(Subject) -> bool) -> impl Iterator<Item = &Trial> {
        self.trials.iter().filter(move |trial| is_one(trial.subject))
    }

    #[allow(clippy::cast_precision_loss, reason = "some thousands")]
    fn recall(&self, is_one: impl Fn(Subject) -> bool + Copy) -> f64 {
        let found = self.of(is_one).filter(|trial| trial.is_found()).count();
        found as f64 / self.of(is_one).count() as f64
    }

    /// Returns the trials that were not found, with their number.
    pub(crate) fn missed(&self) -> String {
        let mut counts: BTreeMap<Subject, usize> = BTreeMap::new();
        for trial in self.trials.iter().filter(|trial| !trial.is_found()) {
            *counts.entry(trial.subject).or_default() += 1;
        }
        let mut text = String::new();
        for (subject, count) in counts {
            let _ = writeln!(text, "{count} × {}", self.head(subject).join(" "));
        }
        text
    }

    /// Writes a row for each subject.
    pub(crate) fn write(&self) -> Result<()> {
        let mut by_subject: BTreeMap<Subject, Vec<&Trial>> = BTreeMap::new();
        for trial in &self.trials {
            by_subject.entry(trial.subject).or_default().push(trial);
        }
        for (subject, trials) in by_subject {
            let found: Vec<_> = trials.iter().filter(|trial| trial.is_found()).collect();
            let mut cells = self.head(subject);
            cells.extend([trials.len(), found.len()].map(|count| count.to_string()));
            let lookups = found.iter().filter_map(|trial| Some(trial.found?.0));
            let seconds = found.iter().filter_map(|trial| Some(trial.found?.1.as_secs_f64()));
            let table = match subject {
                Subject::Tunnel(_) => {
                    cells.extend(median_and_most(lookups));
                    cells.extend(median_and_most(seconds.map(Tenths)));
                    Table::Tunnels
                }
                Subject::Burst(..) => {
                    cells.extend(median_and_most(lookups));
                    Table::Bursts
                }
                Subject::Rebinding(_) => {
                    let early = trials.iter().filter(|trial| !trial.is_exact()).count();
                    cells.push((early - (trials.len() - found.len())).to_string());
                    Table::Rebinding
                }
            };
            Row { table, cells }.write()?;
        }
        Ok(())
    }

    fn head(&self, subject: Subject) -> Vec<String> {
        match subject {
            Subject::Tunnel(index) => self.captures[index].to_vec(),
            Subject::Burst(family, rate) => vec![format!("{family:?}"), rate.to_string()],
            Subject::Rebinding(index) => vec![rebinding::TARGETS[index].to_owned()],
        }
    }
}

impl Trial {
    fn is_found(&self) -> bool {
        self.found.is_some_and(|(_, after)| after <= DEADLINE)
    }

    /// True if an attack was found by its second lookup, and not by its first.
    fn is_exact(&self) -> bool {
        self.found.is_some_and(|(lookups, _)| lookups == 2)
    }
}

/// Seconds, shown with one digit after the point.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct Tenths(f64);

impl std::fmt::Display for Tenths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1}", self.0)
    }
}

fn median_and_most<T: PartialOrd + Copy + ToString>(
    values: impl Iterator<Item = T>,
) -> [String; 2] {
    let mut values: Vec<T> = values.collect();
    values.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
    [values.get(values.len() / 2), values.last()]
        .map(|value| value.map_or_else(|| "-".to_owned(), T::to_string))
}

/// Returns the name below the domain of a trial, of the same length.
fn renamed(name: &[u8], number: usize) -> Vec<u8> {
    let suffix = name_of(&DOMAIN.replace("0000", &format!("{number:04}")));
    let (labels, _) = name.split_at(name.len() - suffix.len());
    [labels, &suffix].concat()
}

fn row_head(capture: &Captured) -> [String; 4] {
    let (tool, qtype) = capture.tool.names();
    // Without the negotiation, which has timeouts.
    let steady = &capture.lookups[capture.lookups.len() / 2..];
    let time = steady[steady.len() - 1].at - steady[0].at;
    #[allow(clippy::cast_precision_loss, reason = "some thousands")]
    let rate = (steady.len() - 1) as f64 / time.as_secs_f64();
    [tool.to_owned(), qtype.to_owned(), capture.pace.per_second.to_string(), format!("{rate:.0}")]
}
