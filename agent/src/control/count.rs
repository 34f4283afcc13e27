//! Reports counts to a client of `top`: a snapshot for each line feed that it sends.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::{sleep, timeout},
};

use super::{
    follow::note,
    protocol::{Fault, Note, Reason},
    request::{Request, Status},
    server::Context,
};
use crate::{
    tail::CountingTail,
    top::{self, AgentState, DnsCounts, PacketCounts, Snapshot},
};

/// A client that requests nothing, or does not read, for this time is disconnected.
const STALL_LIMIT: Duration = Duration::from_secs(600);

/// Minimum interval between two snapshots: a bound on what a client costs.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// Reports until the client disconnects or the agent ends.
pub(super) async fn report(context: &Context, mut stream: UnixStream, counting: CountingTail) {
    let mut stop = context.stop.clone();
    loop {
        let requested = tokio::select! {
            requested = requested(&mut stream) => Some(requested),
            _ = stop.wait_for(|stop| *stop) => None,
        };
        let answer = match requested {
            Some(true) => context.snapshot(&counting).await,
            Some(false) => return,
            None => Err(Fault::new(Reason::NoAnswer, "the agent has stopped")),
        };
        let ended = answer.is_err();
        let written = timeout(STALL_LIMIT, stream.write_all(&line(answer))).await;
        if ended || !matches!(written, Ok(Ok(()))) {
            return;
        }
        sleep(MIN_INTERVAL).await;
    }
}

/// Waits until a snapshot is requested; returns false if the client has disconnected or stalls. Several
/// requests at once get one answer.
async fn requested(stream: &mut UnixStream) -> bool {
    let mut bytes = [0; 64];
    matches!(timeout(STALL_LIMIT, stream.read(&mut bytes)).await, Ok(Ok(1..)))
}

fn line(answer: Result<Snapshot, Fault>) -> Vec<u8> {
    let mut line = Vec::new();
    match answer {
        Ok(snapshot) => {
            // Cannot fail: numbers and strings are valid JSON.
            line.extend(serde_json::to_vec(&snapshot).unwrap_or_default());
            line.push(b'\n');
        }
        Err(fault) => note(&mut line, &Note::End(fault.message)),
    }
    line
}

impl Context {
    async fn snapshot(&self, counting: &CountingTail) -> Result<Snapshot, Fault> {
        let status = self.forward(|answer| Request::Status { answer }).await?;
        let elapsed_ms = u64::try_from(counting.elapsed().as_millis()).unwrap_or(u64::MAX);
        let policy = self.rules.read().privacy;
        let mut dns = DnsCounts::new(&counting.read(), &policy, elapsed_ms);
        dns.signals = top::signals(&counting.signals());
        let ledger = &status.ledger;
        Ok(Snapshot {
            dns,
            packets: PacketCounts::new(ledger),
            losses: top::losses(ledger),
            sinks: top::sinks(ledger),
            agent: state(status),
        })
    }
}

fn state(status: Status) -> AgentState {
    let Status { version, node, uptime_s, health, .. } = status;
    AgentState { version: version.to_owned(), node, uptime_s, health }
}
