//! Reads the ledger of a pipeline.

use std::thread;

use tap53_capture::capture::Counted;
use tap53_ebpf::{
    counter::{Counter, Counters},
    settings::Direction,
};
use tap53_insight::{DnsMetrics, Reading as DnsReading};
use tap53_ledger::{InterfaceCounts, Ledger, Sources, snapshot_with};

use super::{Error, Pipeline};

/// Maximum number of reads of the kernel's counters until they agree with the items that came out of
/// the rings: a program submits a packet before it counts it, and on another CPU that may take a
/// moment. All other counts are of one moment, and are read once.
const READINGS: usize = 100;

impl Pipeline {
    /// Returns the ledger of the running agent.
    ///
    /// # Errors
    /// When the kernel's counters cannot be read.
    pub fn ledger(&self) -> Result<Ledger, Error> {
        Ok(self.ledger_with(|| ())?.0)
    }

    /// Returns the ledger of the running agent, and the metrics of the DNS as of the same moment.
    ///
    /// # Errors
    /// When the kernel's counters cannot be read.
    pub fn ledger_and_dns(&self) -> Result<(Ledger, Option<DnsReading>), Error> {
        self.ledger_with(|| self.dns_metrics.as_ref().map(DnsMetrics::read))
    }

    fn ledger_with<R>(&self, read: impl FnOnce() -> R) -> Result<(Ledger, R), Error> {
        let (mut sources, read) = self.read_sources_with(false, read)?;
        let mut ledger = Ledger::new(&sources);
        for _ in 1..READINGS {
            if ledger.balanced() {
                break;
            }
            thread::yield_now();
            sources.interfaces = self.interface_counts()?;
            ledger = Ledger::new(&sources);
        }
        Ok((ledger, read))
    }

    /// Reads the ledger once. A packet may be between two counters at that moment, so the ledger
    /// need not balance.
    ///
    /// # Errors
    /// When the kernel's counters cannot be read.
    pub fn snapshot(&self) -> Result<Ledger, Error> {
        Ok(Ledger::new(&self.read_sources(false)?))
    }

    pub(super) fn read_sources(&self, ended: bool) -> Result<Sources, Error> {
        Ok(self.read_sources_with(ended, || ())?.0)
    }

    /// Calls `read` while no worker and no sink can publish.
    fn read_sources_with<R>(
        &self,
        ended: bool,
        read: impl FnOnce() -> R,
    ) -> Result<(Sources, R), Error> {
        let sinks = self.sinks.iter().map(|sink| sink.sink.counts());
        let workers = self.workers.iter().map(|worker| &worker.counts);
        let ((workers, last_numbers, counts), read) = snapshot_with(workers, sinks, read);
        let names = self.sinks.iter().map(|sink| sink.name.clone());
        let mut sources = Sources {
            node: self.node.clone(),
            run: self.run,
            taken_at_us: jiff::Timestamp::now().as_microsecond(),
            ended,
            is_abandoned: false,
            workers,
            last_numbers,
            sinks: names.zip(counts).collect(),
            // Last, against the flow: an item that came out of a ring went into it before.
            interfaces: self.interface_counts()?,
        };
        if ended && self.abandoned > 0 {
            sources.abandon();
        }
        Ok((sources, read))
    }

    fn interface_counts(&self) -> Result<Vec<InterfaceCounts>, Error> {
        let Counted { interfaces, retired, unconfigured } = self.capture.counters()?;
        let mut counts: Vec<InterfaceCounts> = interfaces
            .into_iter()
            .map(|of| InterfaceCounts {
                hooks: Direction::ALL.map(|direction| of.attachment.describe(direction)),
                name: of.attachment.interface.name.clone(),
                ifindex: of.attachment.interface.ifindex,
                counters: of.by_direction,
                is_pair: of.attachment.interface.kind.is_pair(),
                is_attached: of.is_attached,
            })
            .collect();
        let mut sum = |name: String, is_pair: bool, counters: [Counters; 2]| {
            if counters.iter().any(|counters| counters.get(Counter::Seen) > 0) {
                let hooks = Direction::ALL.map(|_| "none".to_owned());
                counts.push(InterfaceCounts {
                    name,
                    ifindex: 0,
                    hooks,
                    counters,
                    is_pair,
                    is_attached: false,
                });
            }
        };
        let [(others, of_others), (pairs, of_pairs)] = retired;
        sum(format!("({others} earlier)"), false, of_others);
        sum(format!("({pairs} earlier pairs)"), true, of_pairs);
        // Packets at a hook whose interface has no settings: none, unless there is a defect.
        sum("(unconfigured)".to_owned(), false, unconfigured);
        Ok(counts)
    }
}
