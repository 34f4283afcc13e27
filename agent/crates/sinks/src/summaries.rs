//! Summaries of the ledger, for each sink that takes them; see [`Summary`].

use std::time::{Duration, Instant};

use tap53_base::clock::monotonic_ns;
use tap53_ledger::{Evidence, Kind, Ledger, Moment, Progress, Sealer, Summary, Windows};
use tap53_records::encode;

use super::Named;

/// How long the last summaries may take to be delivered, after everything else was.
const LAST_FLUSH: Duration = Duration::from_secs(2);

/// Takes summaries of the ledger to where a sink's records go.
pub trait TakesSummaries {
    /// How often there is to be one.
    fn interval(&self) -> Duration;

    /// Topic of the records.
    fn topic(&self) -> &str;

    /// What summaries are sealed with, where they are to prove what records were written.
    fn evidence(&self) -> Option<&Evidence> {
        None
    }

    /// From now on records are of the window with this number, or of one after it. What is settled
    /// of those before it.
    fn begin_window(&self, window: i64) -> Progress;

    /// Takes one, to be sent in its order.
    fn take(&self, summary: &Summary);

    /// Delivers what it has within `deadline`, and keeps the rest where it can.
    fn end(&self, deadline: Duration);
}

/// The summaries of a run.
#[derive(Default)]
pub struct Summaries(Vec<Of>);

/// Those of one sink.
struct Of {
    sink: Named,
    interval: Duration,
    windows: Windows,
    /// `None` where there is no evidence.
    sealer: Option<Sealer>,
    due_at: Instant,
}

impl Summaries {
    /// The first ones are due at once.
    pub fn begin(sinks: &[Named], now: Instant) -> Self {
        let of = sinks.iter().filter_map(|sink| {
            let takes = sink.sink.summaries()?;
            Some(Of {
                interval: takes.interval(),
                windows: Windows::begin(takes.topic(), moment()),
                sealer: takes.evidence().and_then(|_| sealer(&sink.name)),
                due_at: now,
                sink: sink.clone(),
            })
        });
        Self(of.collect())
    }

    /// True if one is due.
    pub fn is_due(&self, now: Instant) -> bool {
        self.0.iter().any(|of| of.due_at <= now)
    }

    /// Ends the windows that are due. `ledger` is read before anything here.
    pub fn write(&mut self, ledger: &Ledger, now: Instant) {
        for of in self.0.iter_mut().filter(|of| of.due_at <= now) {
            of.end_window(
                if of.windows.current() == 0 { Kind::Start } else { Kind::Window },
                ledger,
            );
            // One window for the time of several, where nobody looked.
            while of.due_at <= now {
                of.due_at += of.interval;
            }
        }
    }

    /// Ends the last windows, and delivers all summaries; true if there were any.
    pub fn end(self, ledger: &Ledger) -> bool {
        let has_any = !self.0.is_empty();
        for mut of in self.0 {
            of.end_window(Kind::Final, ledger);
            if let Some(takes) = of.sink.sink.summaries() {
                takes.end(LAST_FLUSH);
            }
        }
        has_any
    }
}

impl Of {
    fn end_window(&mut self, kind: Kind, ledger: &Ledger) {
        let sink = self.sink.sink.clone();
        let Some(takes) = sink.summaries() else { return };
        let progress = takes.begin_window(self.windows.current() + 1);
        match self.windows.end(kind, &self.sink.name, ledger, progress, moment()) {
            Some(mut summary) => {
                if let (Some(sealer), Some(evidence)) = (&mut self.sealer, takes.evidence())
                    && let Err(error) = sealer.seal(&mut summary, evidence)
                {
                    unsealed(&self.sink.name, &error);
                }
                takes.take(&summary);
            }
            None => tracing::error!(
                event = "summary_sink_unknown",
                sink = self.sink.name,
                "the ledger has no counts of this sink: no summary is written"
            ),
        }
    }
}

fn sealer(sink: &str) -> Option<Sealer> {
    Sealer::new().inspect_err(|error| unsealed(sink, error)).ok()
}

fn unsealed(sink: &str, error: &encode::Error) {
    tracing::error!(event = "summary_unsealed", sink, %error, "a summary has no evidence");
}

fn moment() -> Moment {
    Moment { utc_us: jiff::Timestamp::now().as_microsecond(), monotonic_ns: monotonic_ns() }
}
