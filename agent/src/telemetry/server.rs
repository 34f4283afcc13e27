//! HTTP/1.1 at the telemetry port: `/livez`, `/readyz`, `/metrics`, `/probe`.
//!
//! The port may be open to everybody, so no client can keep others from being answered:
//!
//! | bound | action beyond it |
//! |---|---|
//! | [`CONNECTIONS`] at a time | the oldest without a complete request is closed for the new one |
//! | [`PER_PEER`] of one address | the same, among those of that address |
//! | [`HEADER_DEADLINE`] for a request's head | the connection is closed |
//! | [`HEAD_BYTES`] of it | 431 |
//! | [`probes`] at a time | 503 |
//! | readings of the run loop: see [`readings`] | the latest one is shown again, or 503 |
//! | [`CONNECTION_DEADLINE`] in all, one request each | the connection is closed |
//!
//! Each connection that is closed or refused is counted, and logged at most once in [`LOG_INTERVAL`].

mod probes;
mod readings;

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener as StdListener},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{Either, Full};
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{Backlog, listen as set_backlog};
use tap53_base::{
    admission::{Connection, ConnectionLimiter, Limits, Stage},
    clock::monotonic_ns,
    visible::visible,
    vitals::Probe,
};
use tap53_ledger::Published;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use self::{
    probes::{Probes, Refusal},
    readings::Readings,
};
use super::{
    reader::Reader,
    text::{CONTENT_TYPE, exposition},
};
use crate::telemetry::config::TelemetryConfig;

/// Connections at a time; some 20 KiB each.
const CONNECTIONS: usize = 64;

/// Connections of one IPv4 address, or of one IPv6 network of 64 bits, at a time.
const PER_PEER: usize = 16;

/// Maximum number of connections that the kernel queues until they are accepted.
const BACKLOG: i32 = 1_024;

/// Maximum size of a request's head in bytes; the least that hyper supports.
const HEAD_BYTES: usize = 8 << 10;

/// Deadline for the head of a request. Short, so that idle connections leave room for probes.
const HEADER_DEADLINE: Duration = Duration::from_secs(2);

/// Interval between two log lines about connections that are closed or refused.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Deadline for a connection, whatever happens on it.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(15);

/// Interval between two attempts to bind the address, which an agent that is being replaced may hold.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Pause after accept(2) has failed, as it does without free file descriptors.
const ACCEPT_INTERVAL: Duration = Duration::from_millis(100);

/// The telemetry port of a running agent. Dropping it closes the port.
pub struct Server {
    stop: Option<watch::Sender<bool>>,
    thread: Option<JoinHandle<()>>,
}

/// Counts of the port since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Connections accepted.
    pub(super) connections: u64,
    /// Requests whose head was complete.
    pub(super) requests: u64,
    /// Connections closed for a newer one before their request was complete.
    pub(super) idle: u64,
    /// Connections closed for a newer one while their answer was not read.
    pub(super) unread: u64,
    /// Connections closed at once, since all others were being answered.
    pub(super) busy: u64,
    /// Connections closed because they took too long.
    pub(super) timed_out: u64,
}

/// An answer at once, or the lines of a probe.
type Answer = Response<Either<Full<Bytes>, probes::Lines>>;

struct Context {
    reader: Reader,
    readings: Readings,
    probes: Probes,
}

impl Server {
    /// Listens at the configured address, if the port is enabled. An address that cannot be bound is
    /// logged and retried: capture does not depend on it.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(config: &TelemetryConfig, reader: Reader) -> io::Result<Self> {
        if !config.enabled {
            return Ok(Self { stop: None, thread: None });
        }
        let (stop, stopped) = watch::channel(false);
        let context = Arc::new(Context {
            reader,
            readings: Readings::new(Instant::now()),
            probes: Probes::new(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut last_error = String::new();
        // Here, so that the port is open when the agent logs that it is ready.
        let listener = listen(config.listen, &mut last_error);
        let address = config.listen;
        let thread = thread::Builder::new().name("telemetry".to_owned()).spawn(move || {
            runtime.block_on(serve(&context, address, listener, last_error, stopped));
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }

    /// Closes the port.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(true);
        }
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(
                event = "telemetry_panicked",
                "the thread of the telemetry port panicked"
            );
        }
    }
}

/// Binds the address, or logs the error unless it is the last one.
fn listen(address: SocketAddr, last_error: &mut String) -> Option<StdListener> {
    let bound = StdListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        set_backlog(&listener, Backlog::new(BACKLOG)?)?;
        Ok(listener)
    });
    match bound {
        Ok(listener) => {
            tracing::info!(event = "telemetry_port_open", %address, "telemetry port open");
            Some(listener)
        }
        Err(error) => {
            let text = error.to_string();
            if *last_error != text {
                tracing::error!(
                    event = "telemetry_port_unavailable",
                    %address,
                    "cannot listen for probes and Prometheus: {text}; retrying"
                );
                *last_error = text;
            }
            None
        }
    }
}

async fn serve(
    context: &Arc<Context>,
    address: SocketAddr,
    first: Option<StdListener>,
    mut last_error: String,
    mut stop: watch::Receiver<bool>,
) {
    let mut listener = first;
    let listener = loop {
        if let Some(listener) = listener {
            break listener;
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = sleep(RETRY_INTERVAL) => listener = listen(address, &mut last_error),
        }
    };
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            return tracing::error!(
                event = "telemetry_port_failed",
                %error,
                "cannot listen for probes and Prometheus"
            );
        }
    };
    let admission = ConnectionLimiter::new(Limits { total: CONNECTIONS, per_peer: PER_PEER });
    let mut pressure = Pressure::default();
    // Connections that are open at the end are closed with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    let admitted = admission.admit(peer(from.ip()));
                    let outcome = admitted.as_ref().map(|admitted| admitted.evicted);
                    context.reader.port().update(|counts| counts.note(outcome));
                    if outcome != Some(None) {
                        pressure.note(from.ip(), context.reader.port(), Instant::now());
                    }
                    if let Some(admitted) = admitted {
                        connections.spawn(connection(context.clone(), stream, admitted.connection));
                    }
                }
                Err(error) => {
                    tracing::warn!(
                        event = "telemetry_accept_failed",
                        %error,
                        "cannot accept a connection at the telemetry port"
                    );
                    sleep(ACCEPT_INTERVAL).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// Returns the peer whose connections are limited together: an IPv4 address or an IPv6 network, since
/// a host can have any number of IPv6 addresses of its network.
fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

impl Counts {
    /// Counts a connection: `None` if it was refused, `Some(Some(_))` if another one was closed for
    /// it.
    const fn note(&mut self, outcome: Option<Option<Stage>>) {
        self.connections += 1;
        match outcome {
            None => self.busy += 1,
            Some(None) => {}
            Some(Some(Stage::Reading)) => self.idle += 1,
            Some(Some(Stage::Writing | Stage::Working)) => self.unread += 1,
        }
    }
}

/// Limits the log lines about closed connections, which come in floods.
#[derive(Default)]
struct Pressure {
    logged_at: Option<Instant>,
}

impl Pressure {
    fn note(&mut self, from: IpAddr, counts: &Published<Counts>, now: Instant) {
        let is_due =
            self.logged_at.is_none_or(|at| now.saturating_duration_since(at) >= LOG_INTERVAL);
        if !is_due {
            return;
        }
        self.logged_at = Some(now);
        let Counts { connections, idle, unread, busy, .. } = counts.read();
        tracing::warn!(
            event = "telemetry_connections_closed",
            %from, connections, idle, unread, busy,
            "too many connections at the telemetry port, closing the oldest idle ones; counts are \
             since the start"
        );
    }
}

async fn connection(context: Arc<Context>, stream: TcpStream, slot: Connection<IpAddr>) {
    let slot = &slot;
    let answer = service_fn(|request: Request<Incoming>| {
        let context = context.clone();
        slot.enter(Stage::Working);
        context.reader.port().update(|counts| counts.requests += 1);
        async move {
            let answer = context.answer(request.method(), request.uri()).await;
            slot.enter(Stage::Writing);
            Ok::<_, Infallible>(answer)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .max_buf_size(HEAD_BYTES)
        // A connection for each request needs no other bound.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer);
    let served = tokio::select! {
        // First, so that a request that has arrived is answered.
        biased;
        served = timeout(CONNECTION_DEADLINE, served) => served,
        () = slot.evicted() => return,
    };
    match served {
        Ok(Ok(())) => {}
        Ok(Err(error)) if !error.is_timeout() => {
            tracing::debug!(
                event = "telemetry_connection_failed",
                %error,
                "a connection at the telemetry port failed"
            );
        }
        Ok(Err(_)) | Err(_) => context.reader.port().update(|counts| counts.timed_out += 1),
    }
}

impl Context {
    async fn answer(&self, method: &Method, uri: &Uri) -> Answer {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD\n".to_owned());
        }
        match uri.path() {
            "/livez" => {
                probe("live", &self.reader.sources().liveness.reasons(monotonic_ns()).into())
            }
            "/readyz" => match self.readings.read(|| self.reader.status()).await {
                Ok(reading) => probe("ready", &reading.status.health.ready),
                Err(reason) => probe("ready", &vec![reason.to_owned()].into()),
            },
            "/metrics" => match self.readings.read(|| self.reader.status()).await {
                Ok(reading) => {
                    let metrics = || self.reader.read(&reading.status, exposition).into();
                    let text = reading.metrics.get_or_init(metrics).clone();
                    answer(StatusCode::OK, CONTENT_TYPE, Either::Left(text.into()))
                }
                Err(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
            },
            "/probe" => self.probe(uri.query()).await,
            _ => plain(StatusCode::NOT_FOUND, "/livez, /readyz, /metrics and /probe\n".to_owned()),
        }
    }

    async fn probe(&self, query: Option<&str>) -> Answer {
        let probe = match self.probes.admit(&self.reader.sources().tails, query) {
            Ok(probe) => probe,
            Err(refusal @ Refusal::Name) => {
                return plain(StatusCode::BAD_REQUEST, format!("{refusal}\n"));
            }
            Err(refusal @ Refusal::Busy) => {
                return plain(StatusCode::SERVICE_UNAVAILABLE, format!("{refusal}\n"));
            }
        };
        match self.readings.read(|| self.reader.status()).await {
            Ok(reading) => {
                let lines = probe.lines(&reading.status);
                answer(StatusCode::OK, "application/x-ndjson", Either::Right(lines))
            }
            Err(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        }
    }
}

/// Returns 200, or 503 with a line for each reason.
fn probe(question: &str, probe: &Probe) -> Answer {
    if probe.ok {
        return plain(StatusCode::OK, format!("{question}\n"));
    }
    let mut text = format!("not {question}\n");
    for reason in &probe.reasons {
        text.push_str(&visible(reason));
        text.push('\n');
    }
    plain(StatusCode::SERVICE_UNAVAILABLE, text)
}

fn plain(status: StatusCode, text: String) -> Answer {
    answer(status, "text/plain; charset=utf-8", Either::Left(text.into()))
}

fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: Either<Full<Bytes>, probes::Lines>,
) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let value = HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}
