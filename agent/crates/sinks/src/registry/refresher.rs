//! The thread that queries the registry.

use std::{io, sync::Arc, time::Duration};

use tap53_base::{
    backoff::Backoff,
    threads::{Background, Round},
};
use tap53_ledger::{Published, RegistryCounts, SinkCounts};
use tap53_records::encode::Fingerprint;

use super::{Client, Compatibility, Error, Schema, SchemaIds, cache::SchemaIdCache};
use crate::config::RegistryConfig;

/// The pauses after failures. With a thousand nodes, the registry gets that many requests in the
/// longest one.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));

const RECHECK_INTERVAL: Duration = Duration::from_secs(600);

/// Requests the ids of a topic's schemas, and keeps them current.
pub(crate) struct SchemaIdRefresher {
    config: RegistryConfig,
    sink: String,
    /// Each with its subject and its last error.
    schemas: Vec<(Schema, String, Option<Error>)>,
    pub(crate) ids: Arc<SchemaIds>,
    cache: Option<SchemaIdCache>,
    /// The counts of the sink, which may have two refreshers.
    counts: Published<SinkCounts>,
    /// The ids wanted and known that this refresher has added to the counts.
    counted: (u64, u64),
}

impl SchemaIdRefresher {
    /// Reads the ids of an earlier run. The last of `schemas` is that of new records.
    pub(crate) fn new(
        config: &RegistryConfig,
        sink: &str,
        topic: &str,
        schemas: Vec<Schema>,
        counts: Published<SinkCounts>,
    ) -> Self {
        let cache = config.ids_file.as_ref().map(|path| SchemaIdCache::new(path, &config.urls));
        let schemas: Vec<_> = schemas
            .into_iter()
            .map(|schema| {
                let subject = schema.subject(config.subject, topic);
                (schema, subject, None)
            })
            .collect();
        let mut known: Vec<_> = Vec::with_capacity(schemas.len());
        for (schema, subject, _) in &schemas {
            let ids = cache.as_ref().map(|cache| cache.ids(subject)).unwrap_or_default();
            let of = |fingerprint| {
                ids.iter().find(|(other, _)| *other == fingerprint).map(|(_, id)| *id)
            };
            known.push((schema.fingerprint, of(schema.fingerprint)));
            // Records of a later version of this program may wait in the spool: its schema is not
            // known here, but its id is.
            for (fingerprint, id) in &ids {
                if !schemas.iter().any(|(schema, ..)| schema.fingerprint == *fingerprint)
                    && !known.iter().any(|(known, _)| known == fingerprint)
                {
                    known.push((*fingerprint, Some(*id)));
                }
            }
        }
        let newest = schemas.last().map_or_else(Fingerprint::default, |(s, ..)| s.fingerprint);
        let ids = Arc::new(SchemaIds::new(newest, known.into_iter()));
        ids.want(newest);
        if let (Some((_, subject, _)), Some(id)) = (schemas.last(), ids.get(newest)) {
            tracing::info!(
                event = "schema_id_cached",
                sink,
                subject,
                id,
                "the schema's id is that of an earlier run until the registry answers"
            );
        }
        let (sink, config, counted) = (sink.to_owned(), config.clone(), (0, 0));
        let mut refresher = Self { config, sink, schemas, ids, cache, counts, counted };
        refresher.count(0, 0, 0);
        refresher
    }

    pub(crate) fn start(self) -> io::Result<Background> {
        self.start_with(BACKOFF, RECHECK_INTERVAL)
    }

    pub(super) fn start_with(
        mut self,
        backoff: Backoff,
        recheck: Duration,
    ) -> io::Result<Background> {
        let requests = self.ids.requests.clone();
        Background::start("registry", requests, backoff, move || match self.round() {
            Ok(()) => Round::Done(Some(recheck)),
            Err(retry_after) => Round::Failed(retry_after.min(recheck)),
        })
    }

    /// Queries each id that is wanted; on failure, for how long the registry wants no other query.
    fn round(&mut self) -> Result<(), Duration> {
        let outcome = Client::new(&self.config)
            .and_then(|client| Ok(tap53_http::block_on(self.query_all(client))?));
        outcome.unwrap_or_else(|error| {
            self.count(0, 1, 0);
            self.log_error(self.schemas.len().saturating_sub(1), error);
            Err(Duration::ZERO)
        })
    }

    /// Queries the ids that are wanted, those of the oldest schemas first.
    async fn query_all(&mut self, mut client: Client) -> Result<(), Duration> {
        let mut outcome = Ok(());
        for index in 0..self.schemas.len() {
            let (schema, subject, _) = &self.schemas[index];
            if !self.ids.is_wanted(schema.fingerprint) {
                continue;
            }
            let answer = self.id(&mut client, subject, &schema.text).await;
            let (requests, failures) = client.take_counts();
            self.count(requests, failures, 0);
            match answer {
                Ok(id) => self.set_id(index, id),
                Err(error) => {
                    outcome = Err(error.retry_after());
                    let is_instance_error = error.is_instance_error();
                    self.log_error(index, error);
                    if is_instance_error {
                        break;
                    }
                }
            }
        }
        outcome
    }

    /// Returns the id of a schema, which is registered if that is necessary and allowed.
    async fn id(&self, client: &mut Client, subject: &str, schema: &str) -> Result<u32, Error> {
        if let Some(id) = client.look_up(subject, schema).await? {
            return Ok(id);
        }
        match client.compatibility(subject, schema).await {
            Ok(Compatibility::Incompatible(why)) => {
                return Err(Error::Incompatible { subject: subject.to_owned(), why });
            }
            Ok(Compatibility::Compatible | Compatibility::NoSubject) => {}
            // The check may be forbidden or missing; registering still decides.
            Err(Error::Forbidden(_) | Error::NoSuchPath(_)) => {}
            Err(error) => return Err(error),
        }
        if self.config.register {
            client.register(subject, schema).await
        } else {
            Err(Error::NotRegistered { subject: subject.to_owned() })
        }
    }

    fn set_id(&mut self, index: usize, id: u32) {
        let (schema, subject, last_error) = &mut self.schemas[index];
        let (sink, version) = (&self.sink, schema.version);
        let had_error = last_error.take().is_some();
        let mut id_changes = 0;
        let before = self.ids.get(schema.fingerprint);
        // Before the line in the log: records after it have the id.
        self.ids.set(schema.fingerprint, id);
        match before {
            None => {
                tracing::info!(
                    event = "schema_id_learned",
                    sink,
                    subject,
                    version,
                    id,
                    "the registry gives the schema this id"
                );
            }
            Some(known) if known != id => {
                tracing::error!(
                    event = "schema_id_changed",
                    sink,
                    subject,
                    version,
                    id,
                    known,
                    "the registry gives another id than before: it was wiped, or is another one. Records from now on have the new id; those with the one before may be unreadable"
                );
                id_changes = 1;
            }
            Some(_) if had_error => {
                tracing::info!(
                    event = "schema_id_confirmed",
                    sink,
                    subject,
                    version,
                    id,
                    "the registry confirms the schema's id"
                );
            }
            Some(_) => {}
        }
        if let Some(cache) = &self.cache
            && let Err(error) = cache.store(subject, schema.fingerprint, id)
        {
            let path = cache.path.display();
            tracing::warn!(event = "schema_id_not_cached", sink, %error, %path, "cannot store the schema's id for the next start");
        }
        self.count(0, 0, id_changes);
    }

    /// Logs an error, unless it is like the last one.
    fn log_error(&mut self, index: usize, error: Error) {
        let Some((schema, subject, last_error)) = self.schemas.get_mut(index) else { return };
        let is_known = last_error.as_ref().is_some_and(|last_error| last_error.is_like(&error));
        let (sink, version) = (&self.sink, schema.version);
        let registry = self.config.urls.join(", ");
        if is_known {
            tracing::debug!(
                event = "schema_id_still_unavailable",
                sink,
                registry,
                subject,
                version,
                "the registry {error}"
            );
        } else if self.ids.get(schema.fingerprint).is_some() {
            tracing::warn!(
                event = "schema_id_stale",
                sink,
                registry,
                subject,
                version,
                "the registry {error}; the id that is known stays in use"
            );
        } else {
            tracing::error!(
                event = "schema_id_unavailable",
                sink,
                registry,
                subject,
                version,
                "the registry {error}; records wait for the id of their schema"
            );
        }
        *last_error = Some(error);
        self.count(0, 0, 0);
    }

    /// Adds to the counts, and publishes how many ids are wanted and known.
    fn count(&mut self, requests: u64, failures: u64, id_changes: u64) {
        let (ids_wanted, ids_known) = self.ids.wanted_and_known();
        let (wanted_before, known_before) =
            std::mem::replace(&mut self.counted, (ids_wanted, ids_known));
        self.counts.update(|counts| {
            let before = counts.registry.unwrap_or_default();
            counts.registry = Some(RegistryCounts {
                requests: before.requests + requests,
                failures: before.failures + failures,
                id_changes: before.id_changes + id_changes,
                // Neither of this refresher's decreases.
                ids_wanted: before.ids_wanted + ids_wanted - wanted_before,
                ids_known: before.ids_known + ids_known - known_before,
            });
        });
    }
}
