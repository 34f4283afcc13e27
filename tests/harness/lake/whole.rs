//! All parts between a broker and the tables.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Connect, Start, Store, Tables, connectors};
use crate::{namespace::Namespace, registry::Registry, wait};

/// A commit, a rebalance and a JVM on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(120);
/// Deadline for SeaweedFS to create its warehouse, which takes seconds.
const WAREHOUSE_DEADLINE: Duration = Duration::from_secs(40);
/// A look starts Python.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Changes to a connector's configuration so that commits do not take minutes.
pub const QUICK: [(&str, &str); 3] = [
    ("tasks.max", "1"),
    ("iceberg.control.commit.interval-ms", "4000"),
    ("iceberg.control.commit.timeout-ms", "8000"),
];

/// A registry, an S3 server with a catalog, and Connect workers, in one namespace.
pub struct Lake<'a> {
    // Fields drop in this order.
    /// The workers.
    pub connect: Connect<'a>,
    /// The S3 server and the catalog.
    pub store: Store<'a>,
    /// The schema registry.
    pub registry: Registry<'a>,
}

impl<'a> Lake<'a> {
    /// Starts all of them beside a broker, and calls `started` with each part's name when it is ready.
    ///
    /// # Errors
    /// When a part cannot be had or does not start.
    pub fn start(
        namespace: &'a Namespace,
        brokers: &str,
        (workers, replicas): (usize, usize),
        mut started: impl FnMut(&str),
    ) -> Result<Self> {
        let registry = Registry::start(namespace)?;
        started("Apicurio Registry");
        let mut store = Store::start(namespace)?;
        create_namespace(&mut store)?;
        started("SeaweedFS: S3, and an Iceberg catalog");
        let start = Start { brokers, registry: &registry.origin(), workers, replicas };
        let connect = Connect::start(&store, &start)?;
        started("Kafka Connect, with Iceberg's sink");
        Ok(Self { connect, store, registry })
    }

    /// Creates the connectors of the full profile, as in `deploy/downstream`, with quick commits and `changes`.
    ///
    /// # Errors
    /// See [`Connect::create`].
    pub fn connect_all(&self, changes: &[(&str, &str)]) -> Result<()> {
        let changes = [&QUICK[..], changes].concat();
        connectors::FULL_PROFILE
            .iter()
            .try_for_each(|connector| self.connect.create(connector, &changes))
    }

    /// SQL over the tables.
    #[must_use]
    pub const fn tables(&self) -> Tables<'_> {
        Tables::of(&self.store)
    }

    /// Waits for what takes CPU to look at; where that is in vain, the error says what the connectors
    /// do meanwhile.
    ///
    /// The catalog fails a request now and then while it starts ("the client connection is closing").
    /// So failed tasks are restarted, as Strimzi's `autoRestart` does, and `look` is repeated.
    ///
    /// # Errors
    /// The latest of `look`, or what did not come.
    pub fn wait_for<T>(
        &self,
        what: &str,
        mut look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let mut latest = None;
        let found = wait::until_every(LOOK_INTERVAL, what, DEADLINE, || {
            self.connect.restart_all_failed();
            Ok(look().unwrap_or_else(|error| {
                latest = Some(error);
                None
            }))
        });
        found
            .map_err(|error| match latest {
                Some(latest) => latest.context(error),
                None => error,
            })
            .with_context(|| self.diagnosis())
    }

    fn diagnosis(&self) -> String {
        let state = |connector: &connectors::Connector| {
            let status = self.connect.status(connector.topic);
            format!("{}: {status:?}", connector.topic)
        };
        let states = connectors::ALL.iter().map(state).collect::<Vec<_>>().join("\n");
        format!("{states}\nthe worker's log:\n{}", self.connect.log(0))
    }
}

/// The catalog answers before it has its warehouse: with 404, and with 500 before its storage is there.
/// SeaweedFS tries to create the warehouse once at its start, and not again if that fails, as it did on a
/// busy machine; a second start does.
///
/// # Errors
/// When the catalog refuses, or has no warehouse after the second start.
pub fn create_namespace(store: &mut Store<'_>) -> Result<()> {
    let create = |store: &Store<'_>| {
        let what = "the catalog to have its warehouse";
        let mut latest = None;
        let created = wait::until_every(LOOK_INTERVAL, what, WAREHOUSE_DEADLINE, || {
            match Tables::of(store).create_namespace(connectors::NAMESPACE) {
                Err(error) if is_starting(&error) => {
                    latest = Some(error);
                    Ok(None)
                }
                answer => answer.map(Some),
            }
        });
        created.map_err(|error| match latest {
            Some(latest) => latest.context(error),
            None => error,
        })
    };
    create(store).or_else(|_| {
        store.restart()?;
        create(store)
    })
}

/// Returns true for an answer that the catalog gives while it starts.
fn is_starting(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}");
    ["NotFound_404", "returned HTTP 500", "returned HTTP 503"].iter().any(|it| text.contains(it))
}
