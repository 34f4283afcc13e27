//! Summaries of the ledger, for each sink that takes them; see [`Summary`].

use std::time::{Duration, Instant};

use tap53_base::clock::monotonic_ns;
use tap53_ledger::{Evidence, Kind, Ledger, Moment, Progress, Sealer, Summary, Windows};
use tap53_records::encode;

use super::Named;

/// The time for the delivery of the last summaries, after everything else.
const LAST_FLUSH: Duration = Duration::from_secs(2);

/// Delivers summaries of the ledger to the broker of a sink's records.
pub trait SummarySink {
    /// Returns the interval between summaries.
    fn interval(&self) -> Duration;

    /// Returns the topic of the records that summaries are of.
    fn records_topic(&self) -> &str;

    /// Returns the evidence that seals summaries, if they prove which records were written.
    fn evidence(&self) -> Option<&Evidence> {
        None
    }

    /// Begins a window, which later records belong to, or one after it. Returns what is settled of
    /// those before it.
    fn begin_window(&self, window: i64) -> Progress;

    /// Accepts a summary, to be sent in order.
    fn take(&self, summary: &Summary);

    /// Delivers its summaries within `deadline`, and keeps the rest if it can.
    fn end(&self, deadline: Duration);
}

/// The summaries of a run.
#[derive(Default)]
pub struct Summaries(Vec<SummaryWriter>);

/// The summaries of one sink.
struct SummaryWriter {
    sink: Named,
    interval: Duration,
    windows: Windows,
    /// `None` without evidence.
    sealer: Option<Sealer>,
    due_at: Instant,
}

impl Summaries {
    /// Begins the first windows, whose summaries are due immediately.
    pub fn begin(sinks: &[Named], now: Instant) -> Self {
        let writers = sinks.iter().filter_map(|sink| {
            let destination = sink.sink.summaries()?;
            Some(SummaryWriter {
                interval: destination.interval(),
                windows: Windows::begin(destination.records_topic(), moment()),
                sealer: destination.evidence().and_then(|_| sealer(&sink.name)),
                due_at: now,
                sink: sink.clone(),
            })
        });
        Self(writers.collect())
    }

    /// True if one is due.
    pub fn is_due(&self, now: Instant) -> bool {
        self.0.iter().any(|writer| writer.due_at <= now)
    }

    /// Ends the windows that are due. `ledger` is read before anything here.
    pub fn write(&mut self, ledger: &Ledger, now: Instant) {
        for writer in self.0.iter_mut().filter(|writer| writer.due_at <= now) {
            writer.end_window(
                if writer.windows.current() == 0 { Kind::Start } else { Kind::Window },
                ledger,
            );
            // Without ticks for a while, one window covers the time of several.
            while writer.due_at <= now {
                writer.due_at += writer.interval;
            }
        }
    }

    /// Ends the last windows, and delivers all summaries; true if there were any.
    pub fn end(self, ledger: &Ledger) -> bool {
        let has_any = !self.0.is_empty();
        for mut writer in self.0 {
            writer.end_window(Kind::Final, ledger);
            if let Some(destination) = writer.sink.sink.summaries() {
                destination.end(LAST_FLUSH);
            }
        }
        has_any
    }
}

impl SummaryWriter {
    fn end_window(&mut self, kind: Kind, ledger: &Ledger) {
        let sink = self.sink.sink.clone();
        let Some(destination) = sink.summaries() else { return };
        let progress = destination.begin_window(self.windows.current() + 1);
        match self.windows.end(kind, &self.sink.name, ledger, progress, moment()) {
            Some(mut summary) => {
                if let (Some(sealer), Some(evidence)) = (&mut self.sealer, destination.evidence())
                    && let Err(error) = sealer.seal(&mut summary, evidence)
                {
                    unsealed(&self.sink.name, &error);
                }
                destination.take(&summary);
            }
            None => {
                let sink = &self.sink.name;
                tracing::error!(
                    event = "summary_without_sink",
                    sink,
                    "the ledger does not know this sink: no summary"
                );
            }
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
