//! A connection at the control socket: one request, and its answer.

use std::{io, sync::Arc, time::Duration};

use serde::Serialize;
use tap53_base::{
    admission::{Connection, Stage},
    clock::monotonic_ns,
    vitals::{AUDIT, Probe},
};
use tap53_capture::interfaces::SwitchTo;
use tap53_records::encode::Profile;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::oneshot,
    time::timeout,
};

use super::{Context, Counts, follower_owner};
use crate::{
    control::{
        count, follow,
        protocol::{self, Call, Fault, MAX_REQUEST, PastRequest, Reason},
        request::{Request, Requester, Status},
    },
    tail::{CountingTail, LineFormat, Selection, Tail, Wanted},
};

/// Deadline for an answer of the run loop: attaching to hundreds of interfaces takes seconds.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

impl Context {
    /// Reads a request and answers it. A `tail` continues until the client disconnects.
    pub(super) async fn connection(
        self: Arc<Self>,
        mut stream: UnixStream,
        requester: Requester,
        slot: Connection<u32>,
    ) {
        let uid = requester.uid;
        let request = tokio::select! {
            // First, so that a request that has arrived is answered.
            biased;
            request = self.request(&mut stream) => request,
            () = slot.evicted() => Some(Err(self.busy(uid))),
        };
        slot.enter(Stage::Working);
        let answer = match request {
            None => return,
            Some(Ok(Call::Tail { format, selection, past })) => {
                let checked = self.check_interfaces(&selection).await;
                let followed =
                    checked.and_then(|()| self.tail(format, *selection, past, &requester));
                match followed {
                    Err(fault) => error_line(&fault),
                    Ok((tail, answer)) => {
                        if self.write(&mut stream, &answer).await {
                            // Followers have their own limit.
                            drop(slot);
                            follow::follow(stream, tail, self.stop.clone()).await;
                        }
                        return;
                    }
                }
            }
            Some(Ok(Call::Top { selection })) => match self.top(*selection, &requester).await {
                Err(fault) => error_line(&fault),
                Ok(counting) => {
                    if self.write(&mut stream, &line(&serde_json::json!({ "ok": {} }))).await {
                        drop(slot);
                        count::report(&self, stream, counting).await;
                    }
                    return;
                }
            },
            Some(Ok(call)) => {
                self.answer(call, requester).await.unwrap_or_else(|fault| error_line(&fault))
            }
            Some(Err(fault)) => error_line(&fault),
        };
        slot.enter(Stage::Writing);
        tokio::select! {
            _ = self.write(&mut stream, &answer) => {}
            () = slot.evicted() => self.counts.update(|counts| counts.unread += 1),
        }
    }

    /// Reads the request; `None` if the connection ended without one.
    async fn request(&self, stream: &mut UnixStream) -> Option<Result<Call, Fault>> {
        let mut line = Vec::with_capacity(256);
        // The timeout is for the whole request: single bytes do not extend it.
        let read = timeout(self.config.request_timeout, read_line(stream, &mut line)).await;
        let result = match read {
            Err(_) => {
                self.counts.update(|counts| counts.timed_out += 1);
                let ms = self.config.request_timeout.as_millis();
                let message = format!("the request did not arrive within {ms} ms");
                return Some(Err(Fault::new(Reason::TimedOut, message)));
            }
            Ok(Err(error)) => {
                tracing::debug!(
                    event = "control_connection_failed",
                    %error,
                    "a connection at the control socket failed"
                );
                return None;
            }
            Ok(Ok(Arrived::Nothing)) => return None,
            Ok(Ok(Arrived::Half)) => {
                Err(Fault::new(Reason::Malformed, "a request ends with a line feed"))
            }
            Ok(Ok(Arrived::TooMuch)) => {
                let message = format!("a request has at most {MAX_REQUEST} bytes");
                Err(Fault::new(Reason::TooLong, message))
            }
            Ok(Ok(Arrived::Line)) => protocol::read(&line),
        };
        self.counts.update(|counts| match &result {
            Ok(_) => counts.requests += 1,
            Err(_) => counts.malformed += 1,
        });
        Some(result)
    }

    /// Passes the request to the run loop; returns the answer as a line.
    async fn answer(&self, call: Call, requester: Requester) -> Result<Vec<u8>, Fault> {
        let (pattern, to, lasts_ms) = match call {
            Call::Live => {
                let live: Probe = self.liveness.reasons(monotonic_ns()).into();
                return Ok(line(&serde_json::json!({ "ok": live })));
            }
            Call::Status | Call::Tail { .. } | Call::Top { .. } => {
                let status = self.forward(|answer| Request::Status { answer }).await?;
                return Ok(self.status_line(&status));
            }
            Call::Enable { pattern, directions, lasts_ms } => {
                (pattern, SwitchTo::On(directions), lasts_ms)
            }
            Call::Disable { pattern, detach, lasts_ms } => {
                (pattern, SwitchTo::Off { detach }, lasts_ms)
            }
            Call::Reset { pattern } => (pattern, SwitchTo::Reset, None),
        };
        let switch = protocol::switch(&pattern, to, lasts_ms)?;
        let interfaces = self
            .forward(|answer| Request::Switch { switch, requester, answer })
            .await?
            .map_err(|refusal| Fault::new(Reason::Refused, refusal.to_string()))?;
        Ok(line(&serde_json::json!({ "ok": interfaces })))
    }

    /// Sends a request to the run loop and waits for its answer.
    pub(in crate::control) async fn forward<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, Fault> {
        let (sender, answer) = oneshot::channel();
        let answered = async {
            self.requests.send(request(sender)).await.ok()?;
            answer.await.ok()
        };
        match timeout(ANSWER_DEADLINE, answered).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(Fault::new(Reason::NoAnswer, "the agent is stopping")),
            Err(_) => {
                let seconds = ANSWER_DEADLINE.as_secs();
                let message = format!(
                    "the agent has not answered within {seconds} s; it may still carry out the \
                     request"
                );
                Err(Fault::new(Reason::NoAnswer, message))
            }
        }
    }

    fn status_line(&self, status: &Status) -> Vec<u8> {
        #[derive(Serialize)]
        struct Whole<'a> {
            #[serde(flatten)]
            status: &'a Status,
            control: Control,
        }
        #[derive(Serialize)]
        struct Control {
            #[serde(flatten)]
            counts: Counts,
            followers: usize,
            follower_lines_lost: u64,
        }
        #[derive(Serialize)]
        struct Answer<'a> {
            ok: Whole<'a>,
            /// The ledger as text, so that a command need not know the fields of every version.
            ledger_text: String,
        }
        let control = Control {
            counts: self.counts.read(),
            followers: self.tails.followers(),
            follower_lines_lost: self.tails.lines_lost(),
        };
        line(&Answer { ok: Whole { status, control }, ledger_text: status.ledger.to_string() })
    }

    /// Refuses interfaces that the agent does not know.
    async fn check_interfaces(&self, selection: &Selection) -> Result<(), Fault> {
        if selection.interfaces.is_empty() {
            return Ok(());
        }
        let status = self.forward(|answer| Request::Status { answer }).await?;
        let names: Vec<String> =
            status.interfaces.into_iter().map(|interface| interface.name).collect();
        selection
            .check_interfaces(&names)
            .map_err(|refusal| Fault::new(Reason::Refused, refusal.to_string()))
    }

    /// Starts to count the records for a client.
    async fn top(
        &self,
        mut selection: Selection,
        requester: &Requester,
    ) -> Result<CountingTail, Fault> {
        self.check_interfaces(&selection).await?;
        self.check_selection(&mut selection)?;
        let counting = self.tails.count(&selection).map_err(|too_many| {
            self.counts.update(|counts| counts.busy += 1);
            Fault::new(Reason::Busy, too_many.to_string())
        })?;
        let Requester { uid, pid, process } = requester;
        tracing::info!(
            target: AUDIT,
            event = "top_started",
            uid,
            pid,
            process,
            "audit: follows the counts"
        );
        Ok(counting)
    }

    /// Checks a selection against the privacy rules, and normalizes its names.
    fn check_selection(&self, selection: &mut Selection) -> Result<(), Fault> {
        selection
            .check(&self.rules.read().privacy, &self.known)
            .map_err(|refusal| Fault::new(Reason::Refused, refusal.to_string()))
    }

    /// Starts to follow the records; returns also the first line of the answer.
    fn tail(
        &self,
        format: LineFormat,
        mut selection: Selection,
        past: Option<PastRequest>,
        requester: &Requester,
    ) -> Result<(Tail, Vec<u8>), Fault> {
        self.check_selection(&mut selection)?;
        if past.is_some() && !self.tails.keeps_recent() {
            let message = "this agent keeps no recent records: control.recent_bytes is 0; set it to \
                           4194304, for instance, for some 6,000 records";
            return Err(Fault::new(Reason::Refused, message));
        }
        let Requester { uid, pid, process } = requester;
        let tail = self.tails.follow(follower_owner(*uid), format, &selection, past.map(wanted));
        tracing::info!(
            target: AUDIT,
            event = "tail_started",
            uid,
            pid,
            process,
            "audit: follows the records"
        );
        // None in practice: memory can be written to.
        let heading = format.format().heading().unwrap_or_default();
        let mut ok = serde_json::json!({ "heading": heading });
        if format == LineFormat::Avro {
            ok["schema"] = Profile::Full.schema_text().into();
        }
        Ok((tail, line(&serde_json::json!({ "ok": ok }))))
    }

    /// Writes an answer; returns false if it was not read in time.
    async fn write(&self, stream: &mut UnixStream, answer: &[u8]) -> bool {
        match timeout(self.config.request_timeout, stream.write_all(answer)).await {
            Ok(written) => written.is_ok(),
            Err(_) => {
                self.counts.update(|counts| counts.unread += 1);
                false
            }
        }
    }
}

/// Returns what a request wants of the past, in times of this moment.
fn wanted(request: PastRequest) -> Wanted {
    let since_us = request.since_ms.map(|ms| {
        let before_us = i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000);
        jiff::Timestamp::now().as_microsecond().saturating_sub(before_us)
    });
    Wanted { last: request.last, since_us }
}

/// The outcome of reading a line.
enum Arrived {
    Line,
    Nothing,
    Half,
    TooMuch,
}

/// Reads up to the first line feed, without it; bytes after it are ignored.
async fn read_line(stream: &mut UnixStream, line: &mut Vec<u8>) -> io::Result<Arrived> {
    let mut bytes = [0; MAX_REQUEST];
    loop {
        let count = stream.read(&mut bytes).await?;
        let fresh = bytes.get(..count).unwrap_or_default();
        if let Some(end) = fresh.iter().position(|byte| *byte == b'\n') {
            line.extend_from_slice(fresh.get(..end).unwrap_or_default());
            let fits = line.len() < MAX_REQUEST;
            return Ok(if fits { Arrived::Line } else { Arrived::TooMuch });
        }
        line.extend_from_slice(fresh);
        match (count, line.len()) {
            (0, 0) => return Ok(Arrived::Nothing),
            (0, _) => return Ok(Arrived::Half),
            (_, MAX_REQUEST..) => return Ok(Arrived::TooMuch),
            _ => {}
        }
    }
}

/// Returns the line of an answer that reports a fault.
pub(super) fn error_line(fault: &Fault) -> Vec<u8> {
    line(&serde_json::json!({ "error": fault }))
}

fn line(value: &impl Serialize) -> Vec<u8> {
    // Cannot fail: maps with string keys, numbers and strings are valid JSON.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}
