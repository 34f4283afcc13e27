//! The server of the control socket: authorization, one request for each connection, and limits.
//!
//! It has its own thread. Liveness is answered here, from the workers' heartbeats. The run loop gets
//! only the requests that passed every check: at most [`QUEUED`] wait for it, and it need not answer
//! in time.
//!
//! | bound | action beyond it |
//! |---|---|
//! | users of SO_PEERCRED | `denied`, and the connection is closed |
//! | [`CONNECTIONS`] at a time | `busy`, to the oldest without a whole request |
//! | [`PER_USER`] of one user | the same, among those of that user |
//! | [`MAX_REQUEST`](super::protocol::MAX_REQUEST) bytes a request | `too_long` |
//! | `control.request_timeout_ms` for the whole request | `timed_out` |
//! | the same for reading the answer | the connection is closed |
//! | [`ANSWER_DEADLINE`](connection::ANSWER_DEADLINE) for the run loop | `no_answer` |
//! | [`FOLLOWERS`] at a time, half of them of one user but root and the agent's own | the oldest is displaced |
//!
//! Each is counted, and shown by `tap53 status`.

mod connection;

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::unistd::geteuid;
use serde::Serialize;
use tap53_base::{
    admission::{Connection, ConnectionLimiter, Limits},
    vitals::Liveness,
};
use tap53_ledger::Published;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use connection::error_line;

use super::{
    protocol::{Fault, Reason},
    request::{Request, Requester},
    socket::{Error, Socket},
};
use crate::{
    control::config::ControlConfig,
    tail::{FOLLOWERS, FollowerOwner, Known, Tails},
    worker::RulesInForce,
};

/// Maximum number of requests that wait for the run loop.
pub const QUEUED: usize = 16;

/// Connections at a time, without those of followers; a few KiB each.
const CONNECTIONS: usize = 32;

/// Connections of one user at a time, so that no user can keep a probe from being answered.
const PER_USER: usize = 16;

/// Time for connections to write their answers when the agent ends.
const END_DEADLINE: Duration = Duration::from_secs(1);

/// Interval between two attempts to open a socket that is in use.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Pause after accept(2) has failed, as it does without free file descriptors.
const ACCEPT_INTERVAL: Duration = Duration::from_millis(100);

/// Interval between two log lines about denied users, and between two about closed connections.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Counts of the socket since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Connections accepted.
    pub connections: u64,
    /// Requests read and understood.
    pub requests: u64,
    /// Connections of users who are not allowed.
    pub denied: u64,
    /// Connections, and followers that get counts, beyond the limit.
    pub busy: u64,
    /// Requests that did not arrive in time.
    pub timed_out: u64,
    /// Requests that are malformed or too long.
    pub malformed: u64,
    /// Answers that were not read in time.
    pub unread: u64,
}

/// The control socket of a running agent. Dropping it closes the socket.
pub struct Server {
    stop: Option<watch::Sender<bool>>,
    thread: Option<JoinHandle<()>>,
    counts: Published<Counts>,
}

/// State that all connections share.
pub(super) struct Context {
    config: ControlConfig,
    /// The privacy rules in force, which followers must not circumvent.
    pub(super) rules: Arc<RulesInForce>,
    requests: mpsc::Sender<Request>,
    tails: Tails,
    /// The properties that records have: a selection by any other one is refused.
    known: Known,
    liveness: Liveness,
    counts: Published<Counts>,
    pub(super) stop: watch::Receiver<bool>,
    /// Time at which a denied user was last logged.
    denied_at: Mutex<Option<Instant>>,
    /// Time at which a closed connection was last logged.
    busy_at: Mutex<Option<Instant>>,
}

impl Server {
    /// Listens at the configured socket, and sends requests for the run loop to `requests`. A socket
    /// that cannot be opened is logged and retried: capture does not depend on it.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        config: &ControlConfig,
        rules: Arc<RulesInForce>,
        requests: mpsc::Sender<Request>,
        (tails, known): (Tails, Known),
        liveness: Liveness,
    ) -> io::Result<Self> {
        let counts = Published::default();
        if !config.enabled {
            return Ok(Self { stop: None, thread: None, counts });
        }
        let (stop, stopped) = watch::channel(false);
        let context = Arc::new(Context {
            config: config.clone(),
            rules,
            requests,
            tails,
            known,
            liveness,
            counts: counts.clone(),
            stop: stopped,
            denied_at: Mutex::default(),
            busy_at: Mutex::default(),
        });
        let mut last_error = String::new();
        // Here, so that the socket is open when the agent logs that it is ready.
        let socket = open(&context.config, &mut last_error);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || runtime.block_on(serve(&context, socket, last_error)))?;
        Ok(Self { stop: Some(stop), thread: Some(thread), counts })
    }

    /// Returns the counts so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts.read()
    }

    /// Returns a handle from which the counts can be read later.
    #[must_use]
    pub fn published(&self) -> Published<Counts> {
        self.counts.clone()
    }

    /// Ends the answers to followers, and removes the socket.
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
                event = "control_panicked",
                "the thread of the control socket panicked"
            );
        }
    }
}

/// Opens the socket, or logs the error unless it is the last one.
fn open(config: &ControlConfig, last_error: &mut String) -> Option<Socket> {
    match Socket::open(config) {
        Ok(socket) => {
            tracing::info!(
                event = "control_socket_open",
                socket = %socket.path().display(),
                "control socket open"
            );
            Some(socket)
        }
        Err(error) => {
            let text = error.to_string();
            if *last_error != text {
                match error {
                    Error::InUse { .. } => tracing::warn!(
                        event = "control_socket_in_use",
                        "{text}; retrying until it ends"
                    ),
                    _ => tracing::error!(
                        event = "control_socket_unavailable",
                        "{text}; no command reaches this agent; retrying"
                    ),
                }
                *last_error = text;
            }
            None
        }
    }
}

async fn serve(context: &Arc<Context>, first: Option<Socket>, mut last_error: String) {
    let mut stop = context.stop.clone();
    let mut socket = first;
    let mut socket = loop {
        if let Some(socket) = socket {
            break socket;
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = sleep(RETRY_INTERVAL) => socket = open(&context.config, &mut last_error),
        }
    };
    let listener = match socket.take_listener().map(UnixListener::from_std) {
        Some(Ok(listener)) => listener,
        Some(Err(error)) => {
            return tracing::error!(
                event = "control_socket_failed",
                %error,
                "cannot listen at the control socket"
            );
        }
        // Unreachable: the listener is taken once.
        None => return,
    };
    let admission = ConnectionLimiter::new(Limits { total: CONNECTIONS, per_peer: PER_USER });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if let Some((requester, slot)) = context.admit(&stream, &admission) {
                        connections.spawn(context.clone().connection(stream, requester, slot));
                    }
                }
                Err(error) => {
                    tracing::warn!(
                        event = "control_accept_failed",
                        %error,
                        "cannot accept a connection at the control socket"
                    );
                    sleep(ACCEPT_INTERVAL).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    drop((listener, socket));
    let all = async { while connections.join_next().await.is_some() {} };
    // Clients that have not read their answer by then are disconnected.
    let _ = timeout(END_DEADLINE, all).await;
}

impl Context {
    /// Admits a connection, or answers at once why not: the answer fits the socket's buffer.
    fn admit(
        &self,
        stream: &UnixStream,
        admission: &ConnectionLimiter<u32>,
    ) -> Option<(Requester, Connection<u32>)> {
        self.counts.update(|counts| counts.connections += 1);
        let fault = match stream.peer_cred() {
            Err(error) => {
                self.counts.update(|counts| counts.denied += 1);
                Fault::new(Reason::Denied, format!("cannot read the client's credentials: {error}"))
            }
            Ok(peer) => {
                let pid = peer.pid().unwrap_or(0);
                let requester = Requester { uid: peer.uid(), pid, process: process_name(pid) };
                if !self.allows(requester.uid) {
                    self.deny(&requester)
                } else if let Some(admitted) = admission.admit(requester.uid) {
                    return Some((requester, admitted.connection));
                } else {
                    self.busy(requester.uid)
                }
            }
        };
        // Without waiting: the client may not read it.
        let _ = stream.try_write(&error_line(&fault));
        None
    }

    fn busy(&self, uid: u32) -> Fault {
        let mut busy = 0;
        self.counts.update(|counts| {
            counts.busy += 1;
            busy = counts.busy;
        });
        if is_due(&self.busy_at) {
            tracing::warn!(
                event = "control_connections_closed",
                uid,
                busy,
                "too many connections at the control socket, closing the oldest idle ones"
            );
        }
        Fault::new(Reason::Busy, "too many connections are open: try again")
    }

    fn allows(&self, uid: u32) -> bool {
        is_own(uid) || self.config.allow_uids.contains(&uid)
    }

    fn deny(&self, requester: &Requester) -> Fault {
        let mut denied = 0;
        self.counts.update(|counts| {
            counts.denied += 1;
            denied = counts.denied;
        });
        if is_due(&self.denied_at) {
            let Requester { uid, pid, process } = requester;
            tracing::warn!(
                event = "control_denied",
                uid,
                pid,
                process,
                denied,
                "denied access to the control socket"
            );
        }
        let mut allowed = vec![0, geteuid().as_raw()];
        allowed.extend(&self.config.allow_uids);
        allowed.sort_unstable();
        allowed.dedup();
        let allowed: Vec<String> = allowed.iter().map(u32::to_string).collect();
        Fault::new(
            Reason::Denied,
            format!(
                "uid {} may not control this agent; allowed: uid {}",
                requester.uid,
                allowed.join(", ")
            ),
        )
    }
}

/// Returns true once in [`LOG_INTERVAL`].
fn is_due(last: &Mutex<Option<Instant>>) -> bool {
    let now = Instant::now();
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    let is_due = last.is_none_or(|last| now - last >= LOG_INTERVAL);
    if is_due {
        *last = Some(now);
    }
    is_due
}

/// Returns true for the users who are always allowed: root, and the agent's own.
fn is_own(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}

/// Returns the owner of a follower, with the limit of its user.
fn follower_owner(uid: u32) -> FollowerOwner {
    let limit = if is_own(uid) { FOLLOWERS } else { FOLLOWERS / 2 };
    FollowerOwner::User { uid, limit }
}

/// Returns the name of a process, with every byte that is not printable ASCII replaced by `?`: a
/// process can give itself any name.
fn process_name(pid: i32) -> Option<String> {
    let name = std::fs::read(format!("/proc/{pid}/comm")).ok()?;
    let printable = |byte: &u8| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '?' };
    let name = name.strip_suffix(b"\n").unwrap_or(&name);
    Some(name.iter().map(printable).collect())
}
