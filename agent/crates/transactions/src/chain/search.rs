//! Lookups through the search list of a Kubernetes pod.
//!
//! ```text
//!  api.example.com.shop.svc.cluster.local   NXDOMAIN   step 1   base, namespace, svc, domain
//!  api.example.com.svc.cluster.local        NXDOMAIN   step 2   base, svc, domain
//!  api.example.com.cluster.local            NXDOMAIN   step 3   base, domain
//!  api.example.com                          NOERROR    step 4   base
//! ```
//!
//! glibc and musl send the queries for A and AAAA of one name at once, and the next name as soon as
//! both were answered without records. A group needs the first two names, of one client, in this form
//! and at this pace. What is in doubt is no group: two lookups of one name by one client at a time, a
//! pause, or other lists. The record of the first name waits until the second is queried, for
//! [`MAX_PAUSE_NS`] at most.

use std::{collections::VecDeque, net::IpAddr};

use hashbrown::HashMap;

use super::Names;
use crate::pair::{RecordId, SearchStep};

/// Maximum time from an answer without records to the query for the next name, in nanoseconds.
const MAX_PAUSE_NS: u64 = 50_000_000;

/// Maximum number of lookups that are followed.
const MAX_LOOKUPS: usize = 8_192;

/// Maximum number of lookups of one client at a time.
const MAX_PER_CLIENT: usize = 16;

/// Steps of a lookup.
const STEPS: u32 = 4;

/// A client: the cgroup of its socket, and its address.
pub(super) type Client = (u64, IpAddr);

/// The result of the end of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It belongs to no lookup through a search list.
    None,
    /// It is of the first step of a group if the next name is queried by this time.
    Waits { until_ns: u64, group: RecordId },
    /// A step of a lookup.
    Step(SearchStep),
}

/// All lookups that are under way.
#[derive(Debug)]
pub(super) struct Searches {
    /// Maximum time from an answer without records to the query for the next name, in nanoseconds.
    max_pause_ns: u64,
    lookups: HashMap<Client, Vec<Lookup>>,
    /// The step of each open exchange.
    steps: HashMap<RecordId, (Client, RecordId, u32)>,
    /// Lookups by the time when they were begun.
    order: VecDeque<(u64, Client, RecordId)>,
}

#[derive(Debug)]
struct Lookup {
    group: RecordId,
    /// Hashes of the labels of the first name, and the number of those before the namespace.
    labels: Box<[u64]>,
    base: usize,
    step: u32,
    /// Types that were queried in this step.
    types: Vec<u16>,
    /// Time of the last answer without records in this step.
    failed_ns: Option<u64>,
    /// It has ended.
    is_over: bool,
    /// Time of the last query for its first name by another lookup, from which it cannot be told apart.
    doubtful_ns: Option<u64>,
}

impl Lookup {
    /// Returns true if a name is that of a step.
    fn has(&self, step: u32, labels: &[u64]) -> bool {
        let (base, rest) = self.labels.split_at(self.base);
        let skipped = match step {
            1..STEPS => step as usize - 1,
            _ => rest.len(),
        };
        let suffix = rest.get(skipped..).unwrap_or_default();
        labels.len() == base.len() + suffix.len()
            && labels.starts_with(base)
            && labels.ends_with(suffix)
    }
}

impl Searches {
    /// Creates an empty set; a record waits for `hold_ns` at most.
    pub(super) fn new(hold_ns: u64) -> Self {
        Self {
            max_pause_ns: MAX_PAUSE_NS.min(hold_ns / 2),
            lookups: HashMap::new(),
            steps: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// A query for the name with these labels. Returns the group whose second name it is.
    pub(super) fn open(
        &mut self,
        (record, at_ns): (RecordId, u64),
        client: Client,
        names: &Names,
    ) -> Option<RecordId> {
        // A further sighting, after address translation.
        if self.steps.contains_key(&record) {
            return None;
        }
        let (labels, qtype) = (&*names.labels, names.kind.0);
        let max_pause_ns = self.max_pause_ns;
        self.forget(at_ns);
        let known = self.lookups.get_mut(&client);
        for lookup in known.into_iter().flatten() {
            if let Some(doubtful_ns) = &mut lookup.doubtful_ns
                && doubtful_ns.saturating_add(max_pause_ns) >= at_ns
                && lookup.labels == names.labels
            {
                *doubtful_ns = at_ns;
                return None;
            }
            if lookup.is_over {
                continue;
            }
            let is_late = lookup
                .failed_ns
                .is_some_and(|failed_ns| failed_ns.saturating_add(max_pause_ns) < at_ns);
            if is_late {
                lookup.is_over = true;
                continue;
            }
            if lookup.has(lookup.step, labels) {
                if lookup.types.contains(&qtype) {
                    lookup.is_over = true;
                    lookup.doubtful_ns = Some(at_ns);
                    return None;
                }
                lookup.types.push(qtype);
                self.steps.insert(record, (client, lookup.group, lookup.step));
                return None;
            }
            let has_failed = lookup.failed_ns.is_some_and(|failed_ns| failed_ns <= at_ns);
            if has_failed && lookup.step < STEPS && lookup.has(lookup.step + 1, labels) {
                lookup.step += 1;
                lookup.types.clear();
                lookup.types.push(qtype);
                lookup.failed_ns = None;
                self.steps.insert(record, (client, lookup.group, lookup.step));
                return (lookup.step == 2).then_some(lookup.group);
            }
        }
        let base = names.service_label?.checked_sub(1)?;
        if base == 0 || base + 2 >= labels.len() {
            return None;
        }
        let lookups = self.lookups.entry(client).or_default();
        if lookups.len() >= MAX_PER_CLIENT {
            let oldest = lookups.iter().position(|lookup| lookup.is_over);
            lookups.remove(oldest?);
        }
        lookups.push(Lookup {
            group: record,
            labels: labels.into(),
            base,
            step: 1,
            types: vec![qtype],
            failed_ns: None,
            is_over: false,
            doubtful_ns: None,
        });
        self.order.push_back((at_ns, client, record));
        self.steps.insert(record, (client, record, 1));
        None
    }

    /// The end of an exchange: `has_records` is `None` if it failed otherwise than by a negative answer.
    pub(super) fn close(
        &mut self,
        record: &RecordId,
        at_ns: u64,
        has_records: Option<bool>,
    ) -> Outcome {
        let Some((client, group, step)) = self.steps.remove(record) else { return Outcome::None };
        let lookups = self.lookups.get_mut(&client);
        let lookup = lookups.and_then(|all| all.iter_mut().find(|lookup| lookup.group == group));
        let Some(lookup) = lookup else { return Outcome::None };
        let has_failed = has_records == Some(false);
        if has_failed && lookup.step == step {
            // The record of the first answer in the first step waits from then on: if it is out when the
            // next name is queried, there is no group.
            let since_ns = lookup.failed_ns.filter(|_| step == 1);
            lookup.failed_ns = Some(since_ns.unwrap_or(at_ns));
        }
        // The lookup ends with records, with its last name, and where it is not known how it goes on.
        lookup.is_over |= !has_failed || step == STEPS;
        if lookup.doubtful_ns.is_some() {
            return Outcome::None;
        }
        if step == 1 && lookup.step == 1 {
            let until_ns = at_ns.saturating_add(self.max_pause_ns);
            return if lookup.is_over { Outcome::None } else { Outcome::Waits { until_ns, group } };
        }
        Outcome::Step(SearchStep { group, step, is_winner: has_records == Some(true) })
    }

    /// Forgets lookups that began too long ago, or are too many.
    fn forget(&mut self, now_ns: u64) {
        const LONGEST_NS: u64 = 10_000_000_000;
        while let Some((began_ns, client, group)) = self.order.front().copied() {
            if began_ns.saturating_add(LONGEST_NS) > now_ns && self.order.len() < MAX_LOOKUPS {
                break;
            }
            self.order.pop_front();
            if let Some(lookups) = self.lookups.get_mut(&client) {
                lookups.retain(|lookup| lookup.group != group);
                if lookups.is_empty() {
                    self.lookups.remove(&client);
                }
            }
        }
        if self.steps.len() > 2 * MAX_LOOKUPS {
            self.steps.clear();
        }
    }
}
