//! Benign lookups and trials through the detector, and the false alarms among the benign ones.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use anyhow::{Result, ensure};
use tap53_harness::{
    evaluation::{Row, Table, is_long},
    lookups::{Benign, Kind, Lookup},
};
use tap53_signals::{Signal, Signals};

use crate::{judge::Judge, trials::Trials};

/// Counts of the lookups of one kind.
#[derive(Default)]
struct KindCounts {
    lookups: u64,
    domains: HashSet<String>,
    clients: HashSet<IpAddr>,
}

/// A signal, the domain or client that has it, and the cause of the lookups.
type Alarm = (Signal, String, Kind);

/// A run of benign lookups, with trials among them.
pub(crate) struct Evaluation {
    run: &'static str,
    kinds: BTreeMap<Kind, KindCounts>,
    alarms: HashMap<Alarm, u64>,
}

impl Evaluation {
    pub(crate) fn new(run: &'static str) -> Self {
        Self { run, kinds: BTreeMap::new(), alarms: HashMap::new() }
    }

    /// Lets the detector see all lookups in the order of time.
    pub(crate) fn run(&mut self, seed: u64, count: usize, span: Duration, trials: &mut Trials) {
        let mut judge = Judge::new();
        let mut others = trials.take_lookups().into_iter().peekable();
        for benign in Benign::new(seed, count, span) {
            while let Some((index, lookup)) = others.next_if(|(_, it)| it.at <= benign.at) {
                let signals = judge.observe(&lookup);
                trials.note(index, lookup.at, |signal| signals.contains(signal));
            }
            let signals = judge.observe(&benign);
            self.note(&benign, signals);
        }
        for (index, lookup) in others {
            let signals = judge.observe(&lookup);
            trials.note(index, lookup.at, |signal| signals.contains(signal));
        }
    }

    fn note(&mut self, lookup: &Lookup, signals: Signals) {
        let seen = self.kinds.entry(lookup.kind).or_default();
        let domain = lookup.domain();
        for signal in [Signal::Tunnel, Signal::Rebinding, Signal::Dga] {
            if signals.contains(signal) {
                let of =
                    if signal == Signal::Dga { lookup.client.to_string() } else { domain.clone() };
                *self.alarms.entry((signal, of, lookup.kind)).or_default() += 1;
            }
        }
        seen.lookups += 1;
        seen.clients.insert(lookup.client);
        seen.domains.insert(domain);
    }

    /// Returns the number of different domains or clients with a signal.
    fn alarms(&self, signal: Signal) -> usize {
        let named = self.alarms.keys().filter(|alarm| alarm.0 == signal);
        named.map(|alarm| &alarm.1).collect::<BTreeSet<_>>().len()
    }

    fn domains(&self) -> usize {
        self.kinds.values().flat_map(|seen| &seen.domains).collect::<HashSet<_>>().len()
    }

    fn clients(&self) -> usize {
        self.kinds.values().flat_map(|seen| &seen.clients).collect::<HashSet<_>>().len()
    }

    pub(crate) fn write(&self) -> Result<()> {
        for (kind, seen) in &self.kinds {
            let counts = [seen.lookups, seen.domains.len() as u64, seen.clients.len() as u64];
            let cells = std::iter::once(format!("{}, {kind:?}", self.run));
            let cells = cells.chain(counts.map(|count| count.to_string())).collect();
            Row { table: Table::Benign, cells }.write()?;
        }
        let lookups: u64 = self.kinds.values().map(|seen| seen.lookups).sum();
        let counts = [
            lookups,
            self.domains() as u64,
            self.alarms(Signal::Tunnel) as u64,
            self.alarms(Signal::Rebinding) as u64,
            self.clients() as u64,
            self.alarms(Signal::Dga) as u64,
        ];
        let cells = std::iter::once(self.run.to_owned());
        let cells = cells.chain(counts.map(|count| count.to_string())).collect();
        Row { table: Table::Alarms, cells }.write()?;
        let named: BTreeMap<_, _> =
            self.alarms.iter().map(|(alarm, count)| (named(alarm), count)).collect();
        for ((signal, of, kind), count) in named {
            let cells = vec![self.run.to_owned(), signal.to_owned(), of, kind, count.to_string()];
            Row { table: Table::Named, cells }.write()?;
        }
        Ok(())
    }

    /// Fails if more than one in `domains_per_alarm` benign domains has a signal, or another than the lists
    /// of nodes, which are known to look like tunnels. No client may be taken for a generator.
    pub(crate) fn ensure_few_alarms(&self, domains_per_alarm: usize) -> Result<()> {
        let unexpected: Vec<_> = self
            .alarms
            .keys()
            .filter(|alarm| (alarm.0, alarm.2) != (Signal::Tunnel, Kind::NodeList))
            .collect();
        ensure!(unexpected.is_empty(), "false alarms: {unexpected:?}");
        // In fewer lookups are fewer domains, and the known ones all the same.
        let (alarms, domains) = (self.alarms(Signal::Tunnel), self.domains());
        ensure!(
            !is_long() || alarms * domains_per_alarm <= domains,
            "{alarms} of {domains} domains are taken for tunnels"
        );
        Ok(())
    }
}

fn named(alarm: &Alarm) -> (&'static str, String, String) {
    (alarm.0.name(), alarm.1.clone(), format!("{:?}", alarm.2))
}
