//! The questions of the clients and the logs of the servers, to which records and views are compared.

use std::{collections::HashMap, net::Ipv4Addr, ops::Range, time::Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tap53_harness::laboratory::{Asked, Laboratory, Served};

/// Identifier and name of a question; clients use each identifier once.
pub(super) type Key = (u16, String);

/// The truth about a load.
pub(super) struct Truth {
    pub(super) asked: Vec<Asked>,
    /// What the servers that the clients asked logged.
    pub(super) served: HashMap<Key, Served>,
    /// When clients waited for answers that a server got from upstream, by server and name.
    forwarded: HashMap<(Ipv4Addr, String), Vec<Range<Instant>>>,
}

impl Truth {
    /// # Errors
    /// When a question was not served exactly once.
    pub(super) fn new(asked: Vec<Asked>, log: Vec<Served>) -> Result<Self> {
        let logged = log.len();
        let served: HashMap<_, _> =
            log.into_iter().map(|served| ((served.id, served.qname.clone()), served)).collect();
        ensure!(served.len() == logged, "{logged} served, with {} different keys", served.len());
        for question in &asked {
            ensure!(served.contains_key(&asked_key(question)), "{question:?} is in no log");
        }
        let mut forwarded: HashMap<_, Vec<_>> = HashMap::new();
        for question in &asked {
            let served = &served[&asked_key(question)];
            if served.forwarded {
                let key = (served.server, served.qname.clone());
                forwarded.entry(key).or_default().push(question.waited.clone());
            }
        }
        Ok(Self { asked, served, forwarded })
    }

    /// True if another client's answer came from upstream while this one waited for the same name.
    ///
    /// CoreDNS logs such a question as answered from the cache if it came to read it after the other one's
    /// response. On the wire the exchange with the upstream resolver is between this query and its
    /// response in both cases, so that `UPSTREAM` and `CACHE` are both right.
    pub(super) fn is_coalesced(&self, question: &Asked) -> bool {
        let served = self.served(question);
        let others = self.forwarded.get(&(served.server, served.qname.clone()));
        let overlaps = |other: &Range<Instant>| {
            other.start < question.waited.end && question.waited.start < other.end
        };
        !served.forwarded && others.is_some_and(|others| others.iter().any(overlaps))
    }

    /// Questions of which the servers' logs decide where the answers came from.
    ///
    /// # Errors
    /// When they are so few that a comparison with them says little.
    pub(super) fn decided(&self) -> Result<Vec<&Asked>> {
        let decided: Vec<_> =
            self.asked.iter().filter(|question| !self.is_coalesced(question)).collect();
        let (of, all) = (decided.len(), self.asked.len());
        ensure!(of * 10 >= all * 8, "the logs decide {of} of {all} questions");
        Ok(decided)
    }

    pub(super) fn served(&self, question: &Asked) -> &Served {
        &self.served[&asked_key(question)]
    }
}

/// The key of a question.
pub(super) fn asked_key(asked: &Asked) -> Key {
    (asked.id, asked.qname.clone())
}

/// The key of a row with `dns_id` and `qname`.
pub(super) fn row_key(row: &Value) -> Result<Key> {
    let id = row["dns_id"].as_u64().context("no dns_id")?;
    Ok((id.try_into()?, row["qname"].as_str().context("no qname")?.to_owned()))
}

/// Rows by the question that they are of.
pub(super) fn by_key(rows: &[Value]) -> Result<HashMap<Key, Vec<&Value>>> {
    let mut sorted: HashMap<Key, Vec<&Value>> = HashMap::new();
    for row in rows {
        sorted.entry(row_key(row)?).or_default().push(row);
    }
    Ok(sorted)
}

/// Names that the upstream resolver was asked for, with the number of times.
pub(super) fn upstream_counts(laboratory: &Laboratory) -> Result<HashMap<String, usize>> {
    let mut counts = HashMap::new();
    for name in laboratory.asked_upstream()? {
        *counts.entry(name).or_default() += 1;
    }
    Ok(counts)
}

/// How often a claim was made, how often it was right, and how often it should have been made.
#[derive(Debug, Default)]
pub(super) struct Score {
    claimed: usize,
    right: usize,
    wanted: usize,
}

impl Score {
    pub(super) const fn add(&mut self, claimed: bool, wanted: bool) {
        self.claimed += claimed as usize;
        self.wanted += wanted as usize;
        self.right += (claimed && wanted) as usize;
    }

    /// Fails unless enough of the claims are right, and enough of those wanted were made.
    pub(super) fn require(&self, what: &str, precision: f64, recall: f64) -> Result<()> {
        // The output of a test that passes is not shown.
        println!("{what}: {self:?}");
        let share = |of: usize| self.right as f64 / of as f64;
        ensure!(
            self.wanted > 0 && share(self.claimed) >= precision && share(self.wanted) >= recall,
            "{what}: {self:?}, expected a precision of {precision} and a recall of {recall}"
        );
        Ok(())
    }
}
