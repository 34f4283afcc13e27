//! The whole path, with and without features.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};
use tap53::worker::{CrossWorkerQueue, Shared, Stages};
use tap53_base::vitals::{Reached, SinkTimings, Tally, WITHIN, WorkerTimings};
use tap53_capture::interfaces::Names;
use tap53_insight::{DnsMetrics, config::DnsMetricsConfig};
use tap53_ledger::{Evidence, Progress, Published, SinkCounts, Summary, chain::Chains};
use tap53_records::encode::{Batch, Clock, Format};
use tap53_signals::{SharedSignals, SignalsConfig};
use tap53_sinks::{Named, Sink, SummarySink};
use tap53_transactions::chain;

use crate::{
    Samples,
    parts::table,
    sample::{Kind, SERVER, Sample},
    stage::{Name, Stage, stage},
};

/// Takes batches and counts them; what a sink costs is measured elsewhere.
pub(crate) struct Discard {
    format: Format,
    counts: Published<SinkCounts>,
    timings: Option<SinkTimings>,
    evidence: Option<Evidence>,
}

/// Summaries are not measured: there is one a minute.
impl SummarySink for Discard {
    fn interval(&self) -> Duration {
        Duration::MAX
    }

    fn records_topic(&self) -> &str {
        ""
    }

    fn evidence(&self) -> Option<&Evidence> {
        self.evidence.as_ref()
    }

    fn begin_window(&self, _window: i64) -> Progress {
        Progress::default()
    }

    fn take(&self, _summary: &Summary) {}

    fn end(&self, _deadline: Duration) {}
}

impl Sink for Discard {
    fn format(&self) -> Format {
        self.format
    }

    fn counts(&self) -> &Published<SinkCounts> {
        &self.counts
    }

    fn timings(&self) -> Option<&SinkTimings> {
        self.timings.as_ref()
    }

    fn summaries(&self) -> Option<&dyn SummarySink> {
        self.evidence.as_ref().map(|_| self as &dyn SummarySink)
    }

    fn write(&self, batch: &Batch) {
        black_box(batch.bytes());
        if let Some(timings) = &self.timings {
            timings.all_reached(Reached::Written, batch.answered_at_ns(), monotonic_ns());
        }
    }

    fn tick(&self, _now: Instant) {}

    fn close(&self, _deadline: Duration) {}
}

pub(crate) fn stages(format: Format, timings: Option<SinkTimings>) -> Stages {
    let counts = Published::default();
    stages_to(Arc::new(Discard { format, counts, timings, evidence: None }), |_| {})
}

/// Stages that write to `sink`, with the features that `enable` adds.
pub(crate) fn stages_to(sink: Arc<Discard>, enable: impl FnOnce(&mut Shared)) -> Stages {
    let sink = Named { name: "discard".into(), sink };
    let names = Arc::new(Names::of([(3, "eth0".to_owned())]));
    let mut shared = Shared::new("node-1", names);
    enable(&mut shared);
    Stages::new(table(), &[sink], &shared, CrossWorkerQueue::single_worker(), CLOCK)
        .expect("the embedded schema parses")
}

pub(crate) const CLOCK: Clock = Clock { utc_offset_ns: 1_700_000_000_000_000_000 };

pub(crate) fn path(name: Name, samples: &Samples, format: Format) -> Stage<'_> {
    let mut stages = stages(format, None);
    stage(name, move || {
        for sample in samples.borrow().iter() {
            stages.take(&sample.query);
            stages.take(&sample.response);
        }
        stages.deliver();
    })
}

/// The path with the metrics of the DNS.
pub(crate) fn path_counted(name: Name, samples: &Samples) -> Stage<'_> {
    let sink = Discard {
        format: Format::AvroSingleObject,
        counts: Published::default(),
        timings: None,
        evidence: None,
    };
    let is_named = name == Name::PathCountedWithNames;
    let config =
        DnsMetricsConfig { names: is_named, clients: is_named, ..DnsMetricsConfig::default() };
    let metrics = DnsMetrics::new(config);
    let mut stages = stages_to(Arc::new(sink), |shared| shared.dns_metrics = Some(metrics));
    stage(name, move || {
        for sample in samples.borrow().iter() {
            stages.take(&sample.query);
            stages.take(&sample.response);
        }
        stages.deliver();
    })
}

/// The path with signals. Each client asks for its own name, and for the same one in each round.
pub(crate) fn path_with_signals(samples: &Samples) -> Stage<'_> {
    let sink = Discard {
        format: Format::AvroSingleObject,
        counts: Published::default(),
        timings: None,
        evidence: None,
    };
    let config = SignalsConfig { enabled: true, ..SignalsConfig::default() };
    let signals = SharedSignals::open(&config, 1, 0);
    let mut stages = stages_to(Arc::new(sink), |shared| shared.signals = Some(signals));
    stage(Name::PathWithSignals, move || {
        for sample in samples.borrow().iter() {
            stages.take(&sample.query);
            stages.take(&sample.response);
        }
        stages.deliver();
    })
}

/// The path with a chain of digests over the records, and a window's end a round.
pub(crate) fn path_chained(name: Name, samples: &Samples, batch: usize) -> Stage<'_> {
    let sink = Arc::new(Discard {
        format: Format::AvroSingleObject,
        counts: Published::default(),
        timings: None,
        evidence: Some(Evidence { chains: Chains::of("discard"), key: None }),
    });
    let mut stages = stages_to(sink.clone(), |_| {});
    stage(name, move || {
        for samples in samples.borrow().chunks(batch) {
            for sample in samples {
                stages.take(&sample.query);
                stages.take(&sample.response);
            }
            stages.deliver();
        }
        black_box(sink.evidence().map(|evidence| evidence.chains.cut()));
    })
}

/// The path with the chains behind answers. `PathOfResolver`: the server is a resolver, so that each
/// transaction is reported and waits for its verdict until the end of the batch.
pub(crate) fn path_with_chains(name: Name, samples: &Samples, kind: Kind) -> Stage<'_> {
    let config = chain::Config { hold: Duration::from_millis(300), capacity: 8_192 };
    let counts = Published::default();
    let format = Format::AvroSingleObject;
    let sink = Arc::new(Discard { format, counts, timings: None, evidence: None });
    let mut stages = stages_to(sink, |shared| shared.chains = Some(chain::Chains::new(config, 1)));
    if name == Name::PathOfResolver {
        // An answer, and then a query of its own.
        let answer = Sample::new(0, kind);
        let query = Sample::between(1, SERVER, [198, 51, 100, 1], kind);
        for item in [&answer.query, &answer.response, &query.query, &query.response] {
            stages.take(item);
        }
    }
    stage(name, move || {
        let mut read_up_to_ns = 0;
        for sample in samples.borrow().iter() {
            stages.take(&sample.query);
            read_up_to_ns = stages.take(&sample.response).unwrap_or_default();
        }
        // Longer than items may be out of order.
        stages.expire(read_up_to_ns + 1_000_000);
        stages.deliver();
    })
}

/// The path with all that a worker and its sink time.
pub(crate) fn path_timed(samples: &Samples) -> Stage<'_> {
    let mut stages = stages(Format::AvroSingleObject, Some(SinkTimings::default()));
    let (timings, mut waits) = (WorkerTimings::default(), Tally::new(WITHIN));
    stage(Name::PathTimed, move || {
        let began_ns = monotonic_ns();
        for sample in samples.borrow().iter() {
            for item in [&sample.query, &sample.response] {
                let captured_at_ns = stages.take(item).unwrap_or_default();
                waits.observe(began_ns.saturating_sub(captured_at_ns));
            }
        }
        let took = Duration::from_nanos(monotonic_ns() - began_ns);
        timings.note_batch(&mut waits, took);
        stages.deliver();
    })
}

pub(crate) fn monotonic_ns() -> u64 {
    let now: Duration =
        clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has this clock").into();
    u64::try_from(now.as_nanos()).expect("five centuries")
}
