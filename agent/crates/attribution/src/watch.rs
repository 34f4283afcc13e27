//! One watch: lists its objects, then follows their changes; for as long as the agent runs.
//!
//! ```text
//!            ┌──────── 410, or what came cannot be read ────────┐
//!            ▼                                                  │
//!  wait ─▶ list, in pages ─▶ watch from the list's version ─────┤
//!   ▲                          ▲                                │
//!   │                          └── ended by the server ─────────┤
//!   └───────────── every failure: twice as long, with jitter ───┘
//! ```
//!
//! - A list replaces what is known, a page at a time; what it does not have is gone.
//! - A stream that broke is taken up from its last event, so nothing is listed again for it.
//! - Between two requests there is a wait, unless a stream has held for a while: a server that ends
//!   each stream at once is not asked in a loop.

use std::{
    collections::HashSet,
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

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
use tap53_base::visible::with_causes;
use tokio::time::{Instant, sleep, timeout};

use super::{
    client::{self, Patience, Trouble},
    hub::WatchCoordinator,
    object::{MetadataOnly, Object},
};

/// Objects of a page: 250 pods have 1 to 2 MB.
const PAGE: u32 = 250;

/// How long a server is asked to keep a stream; it ends it earlier as it likes.
const STREAM_SECONDS: u32 = 290;

/// A stream that has held for so long was no failure, whatever ended it.
const GOOD_STREAM: Duration = Duration::from_secs(10);

/// The longest event: more than any object that etcd takes.
const MAX_EVENT: usize = 8 << 20;

/// How long a server can have itself be left alone.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(120);

/// What a watch tells.
pub(super) enum Change<T> {
    /// It is there, or has changed.
    Applied(T),
    /// It was deleted; as it was then.
    Deleted(T),
    /// A list is complete: whatever is not among these UIDs is gone.
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
    /// Says only how far the stream is.
    Bookmark(MetadataOnly),
    Error(Refusal),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    code: u16,
    message: String,
}

/// Waits between requests.
pub(super) struct Waits {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Waits {
    pub(super) const fn new(patience: &Patience) -> Self {
        Self { first: patience.first_wait, longest: patience.longest_wait, failures: 0 }
    }

    /// The next wait: half of it by chance, so that agents do not come all at once.
    pub(super) fn next(&mut self, at_least: Option<Duration>) -> Duration {
        let doubled = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1).min(31);
        let wait = self.first.saturating_mul(doubled).min(self.longest);
        let random = RandomState::new().build_hasher().finish() >> 32;
        let jitter = (wait / 2).mul_f64(random as f64 / f64::from(u32::MAX));
        let at_least = at_least.unwrap_or_default().min(LONGEST_RETRY_AFTER);
        (wait / 2).max(at_least) + jitter
    }
}

/// Follows the objects that `selector` chooses, without end.
pub(super) async fn follow<T: Object>(
    hub: &WatchCoordinator,
    selector: Option<String>,
    mut take: impl FnMut(Change<T>),
) {
    let patience = hub.patience();
    let mut waits = Waits::new(&patience);
    let mut version: Option<String> = None;
    loop {
        let mut streaming_since = None;
        let ended = async {
            let client = hub.client().await?;
            let mut source =
                Source { hub, client, patience, selector: selector.as_deref(), take: &mut take };
            let version = match &mut version {
                Some(version) => version,
                none => none.insert(source.list().await?),
            };
            source.watch(version, &mut streaming_since).await
        };
        let ended = ended.await;
        let held = streaming_since.is_some_and(|since: Instant| since.elapsed() >= GOOD_STREAM);
        if held {
            waits.failures = 0;
        }
        let trouble = match ended {
            Ok(()) if held => continue,
            Ok(()) => Trouble::Unreachable("it ended the stream at once".to_owned()),
            Err(trouble) => trouble,
        };
        if matches!(trouble, Trouble::Gone | Trouble::Unreadable(_)) {
            version = None;
        }
        if trouble.is_about_credentials() {
            hub.forget_client().await;
        }
        let wait = waits.next(trouble.retry_after());
        hub.trouble(T::RESOURCE, &trouble, wait);
        sleep(wait).await;
    }
}

/// Where objects come from, for as long as all goes well.
struct Source<'a, F> {
    hub: &'a WatchCoordinator,
    client: Client,
    patience: Patience,
    selector: Option<&'a str>,
    take: &'a mut F,
}

impl<F> Source<'_, F> {
    /// Takes in everything; returns the version to watch from.
    async fn list<T: Object>(&mut self) -> Result<String, Trouble>
    where
        F: FnMut(Change<T>),
    {
        let mut present = HashSet::new();
        let mut continue_token = None;
        loop {
            let parameters = ListParams {
                field_selector: self.selector.map(str::to_owned),
                limit: Some(PAGE),
                continue_token,
                ..Default::default()
            };
            let request = collection::<T>().list(&parameters).map_err(unusable)?;
            let response = client::send(&self.client, request, &self.patience).await?;
            let body = client::read(response, &self.patience).await?;
            let page: Page<T> = serde_json::from_slice(&body)
                .map_err(|error| Trouble::Unreadable(error.to_string()))?;
            drop(body);
            for object in page.items.into_iter().flatten() {
                present.insert(T::key(object.metadata()).to_owned());
                (self.take)(Change::Applied(object));
            }
            continue_token = page.metadata.continue_token.filter(|token| !token.is_empty());
            if continue_token.is_none() {
                (self.take)(Change::Listed(present));
                self.hub.listed(T::RESOURCE);
                return Ok(page.metadata.resource_version);
            }
        }
    }

    /// Takes in changes until the server ends the stream.
    async fn watch<T: Object>(
        &mut self,
        version: &mut String,
        since: &mut Option<Instant>,
    ) -> Result<(), Trouble>
    where
        F: FnMut(Change<T>),
    {
        let parameters = WatchParams {
            field_selector: self.selector.map(str::to_owned),
            timeout: Some(STREAM_SECONDS),
            bookmarks: true,
            ..Default::default()
        };
        let request = collection::<T>().watch(&parameters, version).map_err(unusable)?;
        let response = client::send(&self.client, request, &self.patience).await?;
        *since = Some(Instant::now());
        self.hub.connected(T::RESOURCE);
        let mut lines = Lines { body: response.into_body(), buffer: Vec::new(), searched: 0 };
        while let Some(line) = lines.next(&self.patience).await? {
            if line.trim_ascii().is_empty() {
                continue;
            }
            let event = serde_json::from_slice::<Event<T>>(&line)
                .map_err(|error| Trouble::Unreadable(error.to_string()))?;
            let (metadata, change) = match event {
                Event::Bookmark(object) => (object.metadata.resource_version, None),
                Event::Added(object) | Event::Modified(object) => {
                    (object.metadata().resource_version.clone(), Some(Change::Applied(object)))
                }
                Event::Deleted(object) => {
                    (object.metadata().resource_version.clone(), Some(Change::Deleted(object)))
                }
                Event::Error(Refusal { code: 410, .. }) => return Err(Trouble::Gone),
                Event::Error(Refusal { code, message }) => {
                    return Err(Trouble::Refused { status: code, message });
                }
            };
            *version = metadata;
            if let Some(change) = change {
                (self.take)(change);
                self.hub.event(T::RESOURCE);
            }
        }
        Ok(())
    }
}

fn collection<T: Object>() -> Request {
    Request::new(format!("/api/v1/{}", T::RESOURCE))
}

/// A request that cannot be made; none of ours.
fn unusable(error: kube::core::request::Error) -> Trouble {
    Trouble::Unreadable(with_causes(&error))
}

/// The lines of a body, as they come.
struct Lines {
    body: Body,
    buffer: Vec<u8>,
    /// Bytes of the buffer without a line feed.
    searched: usize,
}

impl Lines {
    /// The next line without its line feed; `None` where the body ends behind one.
    async fn next(&mut self, patience: &Patience) -> Result<Option<Vec<u8>>, Trouble> {
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
                return Err(Trouble::Unreadable(format!(
                    "an event of more than {MAX_EVENT} bytes"
                )));
            }
            let part = timeout(patience.quiet, self.body.frame()).await;
            match part.map_err(|_| Trouble::Silent(patience.quiet))? {
                None if self.buffer.is_empty() => return Ok(None),
                None => {
                    let text = "the stream was cut within an event".to_owned();
                    return Err(Trouble::Unreachable(text));
                }
                Some(Err(error)) => return Err(Trouble::Unreachable(with_causes(&error))),
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
        let patience = Patience::default();
        let mut waits = Waits::new(&patience);
        let mut least = Duration::ZERO;
        for failure in 0..40 {
            let wait = waits.next(None);
            assert!(wait >= patience.first_wait / 2, "{wait:?} after {failure}");
            assert!(wait <= patience.longest_wait, "{wait:?} after {failure}");
            if failure == 20 {
                least = wait;
            }
        }
        assert!(least >= patience.longest_wait / 2);
        let asked = waits.next(Some(Duration::from_secs(40)));
        assert!(asked >= Duration::from_secs(40) && asked <= Duration::from_secs(60));
        let absurd = waits.next(Some(Duration::from_secs(1 << 40)));
        assert!(absurd <= LONGEST_RETRY_AFTER + patience.longest_wait);
    }
}
