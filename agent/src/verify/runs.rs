//! Runs of agents: their summaries, their records, and the missing ones.

use std::collections::BTreeMap;

use tap53_ledger::chain::{Digest, beginning};
use tap53_records::encode::Fingerprint;

use super::{
    links::{Added, State, Worker},
    report::{Finding, Kind, Records, Report},
    summary::Summary,
};

/// A run, as one sink has it.
#[derive(Default)]
pub(super) struct Run {
    /// Summaries by window.
    pub(super) summaries: BTreeMap<i64, Summary>,
    /// Fingerprint of the records' schema, if the run has a chain.
    pub(super) fingerprint: Option<Fingerprint>,
    workers: BTreeMap<u32, Worker>,
    /// The number before the first and the last number of each worker, in all windows with summaries.
    ranges: BTreeMap<u32, (u64, u64)>,
    /// Set if records before the oldest summary's window may have expired.
    expired: bool,
    /// Number of windows without a summary that the agent reports as lost.
    summaries_lost: u64,
}

/// Missing records of one worker and window.
struct Missing {
    worker: u32,
    window: Option<i64>,
    numbers: [u64; 2],
    count: u64,
}

impl Run {
    pub(super) fn put(&mut self, summary: Summary) {
        self.fingerprint = self.fingerprint.or(summary.fingerprint);
        self.summaries.insert(summary.window, summary);
    }

    pub(super) fn node(&self) -> &str {
        self.latest().map_or("", |summary| &summary.node)
    }

    fn latest(&self) -> Option<&Summary> {
        self.summaries.values().next_back()
    }

    /// Returns a finding in these windows, without a description.
    pub(super) fn finding(&self, kind: Kind, windows: [i64; 2]) -> Finding {
        let run_id = self.latest().map(|summary| summary.run_id.clone()).unwrap_or_default();
        let (node, windows) = (self.node().to_owned(), Some(windows));
        Finding { kind, node, run_id, windows, worker: None, records: None, what: String::new() }
    }

    /// Checks that the summaries are complete and chained, and takes their links.
    pub(super) fn check_summaries(&mut self, expired: bool) -> Vec<Finding> {
        self.expired = expired;
        let mut findings = self.missing_summaries();
        let mut before: Option<&Summary> = None;
        let mut ends: BTreeMap<u32, Digest> = BTreeMap::new();
        for summary in self.summaries.values() {
            let follows = before.is_some_and(|before| before.window + 1 == summary.window);
            let from = if follows { summary.window - 1 } else { summary.window };
            let altered = self.finding(Kind::SummaryAltered, [from, summary.window]);
            if !is_chained(before.filter(|_| follows), summary) {
                findings.push(altered.because("one of them was altered or exchanged"));
            } else if !continues(follows, summary, &ends) {
                findings.push(altered.because("the links of the records' chain do not continue"));
            }
            for chain in &summary.chains {
                let end = chain.links.last().map_or(chain.before, |link| link.digest);
                ends.insert(chain.worker, end);
            }
            before = Some(summary);
        }
        findings.extend(self.take_links());
        self.take_ranges();
        findings
    }

    fn missing_summaries(&mut self) -> Vec<Finding> {
        let windows: Vec<_> = self.summaries.keys().copied().collect();
        let mut gaps = Vec::new();
        if let Some(&first) = windows.first().filter(|first| **first > 0 && !self.expired) {
            gaps.push([0, first - 1]);
        }
        let pairs = windows.windows(2).filter(|pair| pair[0] + 1 < pair[1]);
        gaps.extend(pairs.map(|pair| [pair[0] + 1, pair[1] - 1]));
        let missing: u64 = gaps.iter().map(|[first, last]| first.abs_diff(*last) + 1).sum();
        if missing <= self.latest().map_or(0, |latest| latest.summaries_lost) {
            self.summaries_lost = missing;
            return Vec::new();
        }
        let what = "their summaries are missing: what their records were is not proven";
        let finding = |gap| self.finding(Kind::SummariesMissing, gap).because(what);
        gaps.into_iter().map(finding).collect()
    }

    fn take_links(&mut self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for summary in self.summaries.values() {
            for chain in &summary.chains {
                let worker = self.workers.entry(chain.worker).or_default();
                if !worker.add_links(chain) {
                    let finding = self.finding(Kind::SummaryAltered, [summary.window; 2]);
                    let what = "the numbers in its links contradict each other";
                    let worker = Some(chain.worker);
                    findings.push(Finding { worker, ..finding.because(what) });
                }
            }
        }
        findings
    }

    fn take_ranges(&mut self) {
        for of in self.latest().map(|latest| latest.workers.clone()).unwrap_or_default() {
            let numbers = |summary: &Summary| {
                summary.workers.iter().copied().find(|numbers| numbers.worker == of.worker)
            };
            let first = self.summaries.values().find_map(numbers).filter(|_| self.expired);
            let floor = first.map_or(0, |numbers| numbers.last.saturating_sub(numbers.records));
            self.ranges.insert(of.worker, (floor, of.last));
        }
    }

    fn range(&self, worker: u32) -> (u64, u64) {
        self.ranges.get(&worker).copied().unwrap_or_default()
    }

    /// Returns the window of a number; `None` after the last summary.
    pub(super) fn window_of(&self, worker: u32, number: u64) -> Option<i64> {
        let has = |summary: &&Summary| {
            summary.workers.iter().any(|of| of.worker == worker && of.last >= number)
        };
        self.summaries.values().find(has).map(|summary| summary.window)
    }

    /// Adds a record; returns a finding if it is known already.
    pub(super) fn put_record(
        &mut self,
        worker: u32,
        number: u64,
        single_object: &[u8],
        records: &mut Records,
    ) -> Option<(Kind, &'static str)> {
        let (floor, last) = self.range(worker);
        let is_final = self.latest().is_some_and(|latest| latest.is_final);
        if number == 0 || (is_final && number > last) {
            return Some((Kind::RecordsUnknown, "their run gave no such number"));
        }
        let of = self.workers.entry(worker).or_default();
        let added = of.add(number, single_object);
        let without_link = !of.covers(number);
        match added {
            Added::New => records.arrived += 1,
            Added::Duplicate => records.duplicates += 1,
            Added::Conflict => {
                return Some((Kind::RecordsConflict, "two different records have one number"));
            }
        }
        if added == Added::New && without_link {
            let count = match () {
                () if number > last => &mut records.after_last_summary,
                () if number <= floor => &mut records.before_first_summary,
                () => &mut records.without_link,
            };
            *count += 1;
        }
        None
    }

    /// Evaluates the links: proven or altered.
    fn conclude_links(&self, report: &mut Report) {
        for (&number, worker) in &self.workers {
            for link in worker.links.values() {
                match link.state {
                    State::Proven => report.records.proven += link.arrived,
                    State::Open => report.records.beside_missing += link.arrived,
                    State::Altered => {
                        report.findings.push(self.altered(number, link.first, link.last));
                    }
                }
            }
        }
    }

    fn altered(&self, worker: u32, first: u64, last: u64) -> Finding {
        let last_window = self.summaries.keys().next_back().copied().unwrap_or_default();
        let windows =
            [first, last].map(|number| self.window_of(worker, number).unwrap_or(last_window));
        Finding {
            worker: Some(worker),
            records: Some([first, last]),
            ..self
                .finding(Kind::RecordsAltered, windows)
                .because("at least one of them is not what the agent wrote")
        }
    }

    /// Returns the missing numbers up to the last summary, by worker and window.
    fn missing(&self) -> Vec<Missing> {
        let mut all: Vec<Missing> = Vec::new();
        let numbers = self.latest().map(|latest| latest.workers.clone()).unwrap_or_default();
        for of in numbers {
            let (floor, last) = self.range(of.worker);
            let arrived = self.workers.get(&of.worker).map(Worker::numbers).unwrap_or_default();
            let mut before = floor;
            let within = arrived.into_iter().filter(|number| (floor + 1..=last).contains(number));
            for number in within.chain([last + 1]) {
                self.add_missing(of.worker, before + 1, number - 1, &mut all);
                before = number;
            }
        }
        all
    }

    /// Adds the missing numbers from `first` to `last`, window by window.
    fn add_missing(&self, worker: u32, mut first: u64, last: u64, all: &mut Vec<Missing>) {
        while first <= last {
            let window = self.window_of(worker, first);
            let end = window
                .and_then(|window| self.summaries.get(&window))
                .and_then(|summary| summary.workers.iter().find(|of| of.worker == worker))
                .map_or(last, |of| of.last.min(last));
            let count = end - first + 1;
            match all.last_mut().filter(|of| of.worker == worker && of.window == window) {
                Some(missing) => {
                    missing.numbers[1] = end;
                    missing.count += count;
                }
                None => all.push(Missing { worker, window, numbers: [first, end], count }),
            }
            first = end + 1;
        }
    }

    /// Returns the last window of which no record can arrive any more, given the node's other runs.
    fn settled_window(&self, others: &[&Self]) -> Option<i64> {
        let latest = self.latest()?;
        let settles = |other: &&&Self| {
            other.latest().is_some_and(|other| {
                let is_later = other.run_started_at >= latest.ended_at
                    || (latest.is_final && other.run_started_at > latest.run_started_at);
                is_later && other.settled_window.is_some()
            })
        };
        // A later run settles all records of this one.
        match others.iter().find(settles) {
            Some(_) => Some(i64::MAX),
            None => latest.settled_window,
        }
    }
}

/// Returns true if a summary has the digest of its predecessor, if that is present.
fn is_chained(before: Option<&Summary>, summary: &Summary) -> bool {
    match (before, summary.previous) {
        (Some(before), Some(previous)) => previous == before.digest,
        // There is no digest without a chain, nor in the first summary.
        (Some(_), None) => summary.chains.is_empty(),
        (None, Some(_)) => summary.window > 0,
        (None, None) => summary.window == 0 || summary.chains.is_empty(),
    }
}

/// Returns true if each worker's links continue the last one of the previous summary.
fn continues(follows: bool, summary: &Summary, ends: &BTreeMap<u32, Digest>) -> bool {
    let is_first = summary.window == 0;
    summary.chains.iter().all(|chain| match ends.get(&chain.worker) {
        Some(end) if follows => chain.before == *end,
        // A worker starts with the first summary, or after it.
        None if is_first || follows => {
            chain.before == beginning(&summary.run_id, &summary.sink, chain.worker)
        }
        _ => true,
    })
}

/// Sums the records of all runs.
pub(super) fn conclude(runs: &[Run], report: &mut Report) {
    let mut nodes: BTreeMap<&str, Vec<&Run>> = BTreeMap::new();
    for run in runs {
        run.conclude_links(report);
        report.summaries_lost += run.summaries_lost;
        report.runs_without_end += u64::from(!run.latest().is_some_and(|of| of.is_final));
        let numbers = run.latest().map(|latest| latest.workers.as_slice()).unwrap_or_default();
        for of in numbers {
            let (floor, last) = run.range(of.worker);
            report.records.expected += last.saturating_sub(floor);
        }
        nodes.entry(run.node()).or_default().push(run);
    }
    for runs in nodes.values() {
        conclude_node(runs, report);
    }
}

/// Compares the missing records of a node with the losses of its ledgers. A run may lose records that an
/// earlier one left in the spool, so the runs of a node are counted together.
fn conclude_node(runs: &[&Run], report: &mut Report) {
    let lost: u64 = runs.iter().filter_map(|run| run.latest()).map(|of| of.lost_total).sum();
    let mut settled = Vec::new();
    for run in runs {
        let last_settled = run.settled_window(runs);
        for missing in run.missing() {
            if missing.window <= last_settled {
                settled.push((*run, missing));
            } else {
                report.records.on_their_way += missing.count;
            }
        }
    }
    let count: u64 = settled.iter().map(|(_, missing)| missing.count).sum();
    report.records.missing += count;
    report.records.lost += lost;
    if count > lost {
        report.findings.extend(settled.iter().map(|(run, of)| run.removed(of, count, lost)));
    }
}

impl Run {
    fn removed(&self, of: &Missing, missing: u64, lost: u64) -> Finding {
        let was_killed = match self.latest().is_some_and(|latest| latest.is_final) {
            true => "",
            false => ", unless they were in the memory of an agent that was killed",
        };
        let what = format!(
            "{} missing; the ledgers of the node count {lost} lost, and {missing} are missing{was_killed}",
            of.count
        );
        let window = of.window.unwrap_or_default();
        Finding {
            worker: Some(of.worker),
            records: Some(of.numbers),
            ..self.finding(Kind::RecordsMissing, [window; 2]).because(&what)
        }
    }
}
