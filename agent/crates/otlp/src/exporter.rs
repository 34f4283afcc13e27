//! The thread that exports.

use std::{
    future::Future,
    io,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tap53_base::{backoff::Backoff, threads::JoinedThread};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use crate::{
    client::{Client, Error},
    config::OtlpConfig,
    failure_log::FailureLog,
    metric::Metrics,
    request::encode,
    status::SharedStatus,
};

/// Pauses after temporary failures.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

/// The same in the last export, whose time is short.
const LAST_BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));

/// Pause after the agent did not answer.
const READ_PAUSE: Duration = Duration::from_secs(1);

/// Reads the agent's metrics.
pub trait Source: Send + 'static {
    /// Returns the metrics as of now; `None` if the agent does not answer.
    fn read(&self) -> impl Future<Output = Option<Metrics>>;
}

/// A running export. Dropping it ends it.
pub struct Exporter {
    // Before the thread, which ends when this is dropped.
    last: oneshot::Sender<Last>,
    thread: JoinedThread,
}

/// The last export.
struct Last {
    metrics: Metrics,
    deadline: Instant,
}

impl Exporter {
    /// Starts to export what `source` reads: once now, and then at each interval. `resource` describes the
    /// agent.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        config: OtlpConfig,
        mut resource: Vec<(String, String)>,
        status: SharedStatus,
        source: impl Source,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let url = config.url();
        tracing::info!(
            event = "otlp_export_started",
            url,
            interval_ms = config.interval.as_millis(),
            "exporting metrics"
        );
        let configured = &config.resource_attributes;
        resource.retain(|(name, _)| !configured.contains_key(name));
        resource.extend(configured.iter().map(|(name, value)| (name.clone(), value.clone())));
        let log = FailureLog::default();
        let worker = Worker { url, config, resource, status, backoff: BACKOFF, log };
        let (last, is_last) = oneshot::channel();
        let work = move || {
            runtime.block_on(run(worker, source, is_last));
            // Do not wait for the threads of the system's name resolution.
            runtime.shutdown_background();
        };
        Ok(Self { last, thread: JoinedThread::start("otlp", work, || ())? })
    }

    /// Exports `metrics` as the last ones until `deadline`, and ends.
    pub fn finish(self, metrics: Metrics, deadline: Instant) {
        let Self { last, thread } = self;
        // A thread that panicked has logged it.
        let _ = last.send(Last { metrics, deadline });
        thread.stop();
    }
}

async fn run(mut worker: Worker, source: impl Source, mut last: oneshot::Receiver<Last>) {
    let last = loop {
        let pause = tokio::select! {
            // A request that is on its way is of no use any more: the last export carries the same.
            last = &mut last => break last,
            pause = worker.round(&source) => pause,
        };
        tokio::select! {
            last = &mut last => break last,
            () = sleep(pause) => {}
        }
    };
    if let Ok(Last { metrics, deadline }) = last {
        worker.export_last(&metrics, deadline).await;
    }
}

struct Worker {
    url: String,
    config: OtlpConfig,
    resource: Vec<(String, String)>,
    status: SharedStatus,
    backoff: Backoff,
    log: FailureLog,
}

impl Worker {
    /// Exports what `source` reads now; returns the time until the next round.
    async fn round(&mut self, source: &impl Source) -> Duration {
        let begun_at = Instant::now();
        let interval = self.config.interval;
        let Some(metrics) = source.read().await else { return READ_PAUSE };
        match self.export(&metrics).await {
            Ok(()) => {
                self.backoff.reset();
                interval.saturating_sub(begun_at.elapsed())
            }
            Err(error) if error.is_temporary() => {
                self.backoff.fail_with_jitter(error.retry_after())
            }
            Err(_) => interval,
        }
    }

    async fn export(&mut self, metrics: &Metrics) -> Result<(), Error> {
        let sent = self.send(metrics).await;
        match &sent {
            Ok(()) => {
                self.status.exported(Timestamp::now());
                self.log.exported(&self.url);
            }
            Err(error) => {
                self.status.failed(error, Timestamp::now());
                self.log.failed(&self.url, error);
            }
        }
        sent
    }

    async fn send(&mut self, metrics: &Metrics) -> Result<(), Error> {
        let client = Client::new(&self.config)?;
        for request in encode(&self.resource, metrics.clone()) {
            let accepted = client.send(&request.body).await?;
            self.status.accepted(request.points, &accepted);
            self.log.accepted(&self.url, &accepted);
        }
        Ok(())
    }

    async fn export_last(&mut self, metrics: &Metrics, deadline: Instant) {
        let mut backoff = LAST_BACKOFF;
        let attempts = async {
            loop {
                match self.export(metrics).await {
                    Err(error) if error.is_temporary() => sleep(backoff.fail()).await,
                    sent => return sent,
                }
            }
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let why = match timeout(left, attempts).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.clause(),
            Err(_) => "no time is left".to_owned(),
        };
        tracing::error!(
            event = "otlp_last_export_failed",
            url = self.url,
            "the final metrics were not exported: {why}; the ledger has them"
        );
    }
}
