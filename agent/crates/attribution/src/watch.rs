//! One watch: lists its objects, then follows their changes, while the agent runs.
//!
//! ```text
//!            ┌──────── 410, or invalid data ────────────────────┐
//!            ▼                                                  │
//!  wait ─▶ list, in pages ─▶ watch from the list's version ─────┤
//!   ▲                          ▲                                │
//!   │                          └── ended by the server ─────────┤
//!   └───────────── every failure: twice as long, with jitter ───┘
//! ```
//!
//! - A list replaces the known state, a page at a time; objects that are missing in it are removed.
//! - A broken stream is resumed from its last event, without another list.
//! - There is a backoff between two requests, unless a stream has been stable for a while: a server
//!   that ends each stream at once is not queried in a loop.

use std::{collections::HashSet, time::Duration};

use http_body_util::BodyExt;
use kube::{
    Client,
    client::Body,
    core::{
        Request,
        params::{ListParams, WatchParams},
    },
};
use serde::Deserialize;
use tap53_base::{backoff::Backoff, visible::with_causes};
use tokio::time::{Instant, sleep, timeout};

use super::{
    client::{self, RequestError, Timeouts},
    object::{MetadataOnly, Object},
    selection::Selection,
    watch_coordinator::WatchCoordinator,
};

/// Number of objects per page: 250 pods have 1 to 2 MB.
const PAGE_SIZE: u32 = 250;

/// Requested duration of a stream; the server may end it earlier.
const STREAM_TIMEOUT_SECONDS: u32 = 290;

/// A stream that lasted this long is no failure, whatever ended it.
const STABLE_STREAM: Duration = Duration::from_secs(10);

/// Maximum size of an event in bytes: more than any object that etcd accepts.
const MAX_EVENT: usize = 8 << 20;

/// Maximum Retry-After that is respected.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(120);

/// A change that a watch reports.
pub(super) enum Change<T> {
    /// The object was added or modified.
    Applied(T),
    /// The object was deleted; its last state.
    Deleted(T),
    /// A list is complete: objects with other UIDs no longer exist.
    Listed(HashSet<String>),
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
struct Page<T> {
    metadata: PageMetadata,
    #[serde(default = "Option::default")]
    items: Option<Vec<T>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PageMetadata {
    resource_version: String,
    #[serde(rename = "continue")]
    continue_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(tag = "type", content = "object", rename_all = "UPPERCASE")]
enum Event<T> {
    Added(T),
    Modified(T),
    Deleted(T),
    /// Carries only the current version of the stream.
    Bookmark(MetadataOnly),
    Error(Refusal),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    code: u16,
    message: String,
}

/// Returns the pause before the next request. Half of it is random, so that agents do not retry at the same
/// time.
pub(super) fn next_pause(backoff: &mut Backoff, retry_after: Option<Duration>) -> Duration {
    backoff.fail_with_jitter(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER))
}

/// Follows the selected objects. Never returns.
pub(super) async fn follow<T: Object>(
    coordinator: &WatchCoordinator,
    selection: Selection,
    mut take: impl FnMut(Change<T>),
) {
    let timeouts = coordinator.timeouts();
    let mut backoff = timeouts.backoff();
    let mut version: Option<String> = None;
    loop {
        let mut streaming_since = None;
        let ended = async {
            let client = coordinator.client().await?;
            let mut source =
                Source { coordinator, client, timeouts, selection: &selection, take: &mut take };
            let version = match &mut version {
                Some(version) => version,
                none => none.insert(source.list().await?),
            };
            source.watch(version, &mut streaming_since).await
        };
        let ended = ended.await;
        let held = streaming_since.is_some_and(|since: Instant| since.elapsed() >= STABLE_STREAM);
        if held {
            backoff.reset();
        }
        let error = match ended {
            Ok(()) if held => continue,
            Ok(()) => RequestError::Unreachable("it ended the stream at once".to_owned()),
            Err(error) => error,
        };
        if matches!(error, RequestError::Gone | RequestError::Unreadable(_)) {
            version = None;
        }
        if error.is_about_credentials() {
            coordinator.drop_client().await;
        }
        let wait = next_pause(&mut backoff, error.retry_after());
        coordinator.watch_failed(selection.watch, &error, wait);
        sleep(wait).await;
    }
}

/// The source of changes, until the first failure.
struct Source<'a, F> {
    coordinator: &'a WatchCoordinator,
    client: Client,
    timeouts: Timeouts,
    selection: &'a Selection,
    take: &'a mut F,
}

impl<F> Source<'_, F> {
    fn collection<T: Object>(&self) -> Request {
        Request::new(match &self.selection.namespace {
            Some(namespace) => format!("/api/v1/namespaces/{namespace}/{}", T::RESOURCE),
            None => format!("/api/v1/{}", T::RESOURCE),
        })
    }

    /// Lists all objects, and returns the version to watch from.
    async fn list<T: Object>(&mut self) -> Result<String, RequestError>
    where
        F: FnMut(Change<T>),
    {
        let mut present = HashSet::new();
        let mut continue_token = None;
        loop {
            let parameters = ListParams {
                field_selector: self.selection.fields.clone(),
                label_selector: self.selection.labels.clone(),
                limit: Some(PAGE_SIZE),
                continue_token,
                ..Default::default()
            };
            let request = self.collection::<T>().list(&parameters).map_err(unusable)?;
            let response = client::send(&self.client, request, &self.timeouts).await?;
            let body = client::read(response, &self.timeouts).await?;
            let page: Page<T> = serde_json::from_slice(&body)
                .map_err(|error| RequestError::Unreadable(error.to_string()))?;
            drop(body);
            for object in page.items.into_iter().flatten() {
                present.insert(T::key(object.metadata()).to_owned());
                (self.take)(Change::Applied(object));
            }
            continue_token = page.metadata.continue_token.filter(|token| !token.is_empty());
            if continue_token.is_none() {
                (self.take)(Change::Listed(present));
                self.coordinator.listed(self.selection.watch);
                return Ok(page.metadata.resource_version);
            }
        }
    }

    /// Applies changes until the server ends the stream.
    async fn watch<T: Object>(
        &mut self,
        version: &mut String,
        since: &mut Option<Instant>,
    ) -> Result<(), RequestError>
    where
        F: FnMut(Change<T>),
    {
        let parameters = WatchParams {
            field_selector: self.selection.fields.clone(),
            label_selector: self.selection.labels.clone(),
            timeout: Some(STREAM_TIMEOUT_SECONDS),
            bookmarks: true,
            ..Default::default()
        };
        let request = self.collection::<T>().watch(&parameters, version).map_err(unusable)?;
        let response = client::send(&self.client, request, &self.timeouts).await?;
        *since = Some(Instant::now());
        self.coordinator.connected(self.selection.watch);
        let mut lines = Lines { body: response.into_body(), buffer: Vec::new(), searched: 0 };
        while let Some(line) = lines.next(&self.timeouts).await? {
            if line.trim_ascii().is_empty() {
                continue;
            }
            let event = serde_json::from_slice::<Event<T>>(&line)
                .map_err(|error| RequestError::Unreadable(error.to_string()))?;
            let (metadata, change) = match event {
                Event::Bookmark(object) => (object.metadata.resource_version, None),
                Event::Added(object) | Event::Modified(object) => {
                    (object.metadata().resource_version.clone(), Some(Change::Applied(object)))
                }
                Event::Deleted(object) => {
                    (object.metadata().resource_version.clone(), Some(Change::Deleted(object)))
                }
                Event::Error(Refusal { code: 410, .. }) => return Err(RequestError::Gone),
                Event::Error(Refusal { code, message }) => {
                    return Err(RequestError::Refused { status: code, message });
                }
            };
            *version = metadata;
            if let Some(change) = change {
                (self.take)(change);
                self.coordinator.event(self.selection.watch);
            }
        }
        Ok(())
    }
}

/// Converts the error of a request that cannot be built; none of ours should.
fn unusable(error: kube::core::request::Error) -> RequestError {
    RequestError::Unreadable(with_causes(&error))
}

/// Splits a body into lines as it arrives.
struct Lines {
    body: Body,
    buffer: Vec<u8>,
    /// Number of buffered bytes that contain no line feed.
    searched: usize,
}

impl Lines {
    /// Returns the next line without its line feed; `None` if the body ends after one.
    async fn next(&mut self, timeouts: &Timeouts) -> Result<Option<Vec<u8>>, RequestError> {
        loop {
            let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(position) = unsearched.iter().position(|byte| *byte == b'\n') {
                let end = self.searched + position;
                self.searched = 0;
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.pop();
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > MAX_EVENT {
                return Err(RequestError::Unreadable(format!(
                    "an event of more than {MAX_EVENT} bytes"
                )));
            }
            let part = timeout(timeouts.idle, self.body.frame()).await;
            match part.map_err(|_| RequestError::Silent(timeouts.idle))? {
                None if self.buffer.is_empty() => return Ok(None),
                None => {
                    let text = "the stream was cut within an event".to_owned();
                    return Err(RequestError::Unreachable(text));
                }
                Some(Err(error)) => return Err(RequestError::Unreachable(with_causes(&error))),
                Some(Ok(part)) => {
                    if let Some(part) = part.data_ref() {
                        self.buffer.extend_from_slice(part);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_never_vanish() {
        let timeouts = Timeouts::default();
        let mut backoff = timeouts.backoff();
        let mut least = Duration::ZERO;
        for failure in 0..40 {
            let wait = next_pause(&mut backoff, None);
            assert!(wait >= timeouts.initial_backoff / 2, "{wait:?} after {failure}");
            assert!(wait <= timeouts.max_backoff, "{wait:?} after {failure}");
            if failure == 20 {
                least = wait;
            }
        }
        assert!(least >= timeouts.max_backoff / 2);
        let requested = next_pause(&mut backoff, Some(Duration::from_secs(40)));
        assert!(requested >= Duration::from_secs(40) && requested <= Duration::from_secs(60));
        let absurd = next_pause(&mut backoff, Some(Duration::from_secs(1 << 40)));
        assert!(absurd <= MAX_RETRY_AFTER + timeouts.max_backoff);
    }
}
