//! `/probe`: shows a client that its own query was recorded. [`confirmation`](crate::telemetry::confirmation)
//! has the lines, and why they are so few.
//!
//! | bound | action beyond it |
//! |---|---|
//! | names with a random label below the probes' own domain | 400 |
//! | [`PROBES`] at a time, since each is a follower of the records | 503 |
//! | the bounds of every connection: see [`super`] | the connection is closed |

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use hyper::body::{Body, Bytes, Frame};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    control::Status,
    tail::{FOLLOWERS, FollowerOwner, LineFormat, Selection, Tail, Tails},
    telemetry::confirmation::{Line, Recorded, SUFFIX, is_confirmed},
};

/// Probes at a time. The other followers are left to the control socket.
const PROBES: usize = FOLLOWERS / 4;

/// The probes of a server.
pub(super) struct Probes {
    slots: Arc<Semaphore>,
}

/// A probe that was admitted. It is followed from now on; dropping it ends that.
pub(super) struct Probe {
    tail: Tail,
    slot: OwnedSemaphorePermit,
}

/// The reason why a probe is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error(
        "/probe?name=LABEL.{SUFFIX}, where LABEL has 16 hexadecimal digits in lower case: other names \
         are not confirmed here"
    )]
    Name,
    #[error("{PROBES} probes are running, which is the limit: try again")]
    Busy,
}

/// The body of the answer: the first line, and then the outcome, which may take as long as the connection.
pub(super) struct Lines {
    first: Option<Bytes>,
    outcome: Option<Pin<Box<dyn Future<Output = Line> + Send>>>,
}

impl Probes {
    pub(super) fn new() -> Self {
        Self { slots: Arc::new(Semaphore::new(PROBES)) }
    }

    /// Follows the record of the name in a request's query.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub(super) fn admit(&self, tails: &Tails, query: Option<&str>) -> Result<Probe, Refusal> {
        let name = query.and_then(|query| query.strip_prefix("name=")).unwrap_or_default();
        if !is_confirmed(name) {
            return Err(Refusal::Name);
        }
        let slot = self.slots.clone().try_acquire_owned().map_err(|_| Refusal::Busy)?;
        let selection = Selection { qnames: vec![name.to_owned()], ..Selection::default() };
        let tail = tails.follow(FollowerOwner::Probe, LineFormat::Json, &selection, None);
        Ok(Probe { tail, slot })
    }
}

impl Probe {
    /// Returns the answer.
    pub(super) fn lines(self, status: &Status) -> Lines {
        let capturing = status.interfaces.iter().filter(|interface| {
            [&interface.ingress, &interface.egress].iter().any(|side| side.capturing)
        });
        let capturing = capturing.map(|interface| interface.name.clone()).collect();
        Lines {
            first: Some(Line::Following { capturing }.bytes().into()),
            outcome: Some(Box::pin(self.outcome())),
        }
    }

    async fn outcome(self) -> Line {
        let Self { tail, slot } = self;
        // Until the outcome is known.
        let _slot = slot;
        let mut lines = Vec::new();
        loop {
            tail.filled().await;
            let lost = tail.take(&mut lines);
            let first = lines.split(|byte| *byte == b'\n').next().unwrap_or_default();
            match Recorded::read(first) {
                Ok(recorded) => return Line::Recorded(Box::new(recorded)),
                Err(_) if lost > 0 => return Line::Lost,
                // Woken without a line.
                Err(_) => {}
            }
        }
    }
}

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let Some(outcome) = &mut self.outcome else { return Poll::Ready(None) };
        let line = ready!(outcome.as_mut().poll(context));
        self.outcome = None;
        Poll::Ready(Some(Ok(Frame::data(line.bytes().into()))))
    }
}
