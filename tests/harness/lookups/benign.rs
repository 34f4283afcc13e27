//! The stream of benign lookups: activities of many clients, each of which makes some lookups.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    net::IpAddr,
    time::Duration,
};

use super::{
    Answer, Kind, Lookup, NOERROR, NXDOMAIN, Random, mail, network, reputation, rtype,
    universe::{self, Universe, public_v4, public_v6},
    web,
    wire::name_of,
};

/// Makes the lookups of one activity.
type Make = fn(&mut Activity<'_>);

/// Activities, with their weight. The shares of lookups that follow are in the table of the evaluation.
const ACTIVITIES: [(u32, Kind, Make); 19] = [
    (500, Kind::Web, web::page),
    (100, Kind::Cdn, web::cdn),
    (200, Kind::Antivirus, reputation::antivirus),
    (120, Kind::Dnsbl, reputation::dnsbl),
    (280, Kind::Telemetry, web::telemetry),
    (300, Kind::Cluster, network::cluster),
    (300, Kind::Reverse, network::reverse),
    (90, Kind::Mail, mail::delivery),
    (15, Kind::Acme, mail::challenge),
    (20, Kind::DnsSd, network::service_discovery),
    (80, Kind::Resolver, network::minimized),
    (90, Kind::Typo, web::typo),
    (200, Kind::Mobile, web::mobile),
    (60, Kind::International, web::international),
    (8, Kind::Probe, web::browser_start),
    (60, Kind::Probe, network::monitor),
    (2, Kind::NodeList, reputation::node_list),
    (40, Kind::Directory, network::directory),
    (20, Kind::Antivirus, reputation::software_versions),
];

/// Mean number of lookups of an activity, as measured; it only spreads them over the span.
const LOOKUPS_PER_ACTIVITY: u32 = 5;

/// Benign lookups in the order of time, the same for the same seed.
pub struct Benign {
    random: Random,
    universe: Universe,
    pending: BinaryHeap<Reverse<Pending>>,
    /// Number of lookups made, which orders those of the same time.
    made: u64,
    /// Number of lookups that are still to come.
    left: usize,
    interval: Duration,
    next_activity: Duration,
}

impl Benign {
    /// Creates a stream of `count` lookups over about `span`.
    #[must_use]
    pub fn new(seed: u64, count: usize, span: Duration) -> Self {
        let activities = u32::try_from(count).unwrap_or(u32::MAX) / LOOKUPS_PER_ACTIVITY;
        Self {
            random: Random::new(seed),
            universe: Universe::new(),
            pending: BinaryHeap::new(),
            made: 0,
            left: count,
            interval: span / activities.max(1),
            next_activity: Duration::ZERO,
        }
    }

    fn make_activity(&mut self) {
        let total: u32 = ACTIVITIES.iter().map(|(weight, ..)| weight).sum();
        let mut drawn = u32::try_from(self.random.below(total as usize)).expect("a small number");
        let found = ACTIVITIES.iter().find(|(weight, ..)| match drawn.checked_sub(*weight) {
            Some(rest) => {
                drawn = rest;
                false
            }
            None => true,
        });
        let (_, kind, make) = found.expect("less than the total");
        let mut lookups = Vec::new();
        make(&mut Activity {
            at: self.next_activity,
            client: universe::workstation(0),
            kind: *kind,
            random: &mut self.random,
            universe: &self.universe,
            lookups: &mut lookups,
        });
        for lookup in lookups {
            self.made += 1;
            self.pending.push(Reverse(Pending { order: (lookup.at, self.made), lookup }));
        }
        self.next_activity += self.random.interval(self.interval);
    }
}

impl Iterator for Benign {
    type Item = Lookup;

    fn next(&mut self) -> Option<Lookup> {
        self.left = self.left.checked_sub(1)?;
        // No activity that begins later makes an earlier lookup.
        while self.pending.peek().is_none_or(|first| first.0.order.0 > self.next_activity) {
            self.make_activity();
        }
        self.pending.pop().map(|first| first.0.lookup)
    }
}

/// A lookup, ordered by its time.
struct Pending {
    order: (Duration, u64),
    lookup: Lookup,
}

impl PartialEq for Pending {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Pending {}

impl PartialOrd for Pending {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pending {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order.cmp(&other.order)
    }
}

/// An activity of a client at a time, which makes lookups.
pub(super) struct Activity<'a> {
    at: Duration,
    pub(super) client: IpAddr,
    kind: Kind,
    pub(super) random: &'a mut Random,
    pub(super) universe: &'a Universe,
    lookups: &'a mut Vec<Lookup>,
}

impl Activity<'_> {
    /// Lets a random time of this mean pass.
    pub(super) fn wait(&mut self, mean: Duration) {
        self.at += self.random.interval(mean);
    }

    /// Draws the domain of a site by popularity.
    pub(super) fn site(&mut self) -> String {
        universe::domain(self.universe.draw(self.random))
    }

    /// Looks a name up.
    pub(super) fn look_up(&mut self, name: &str, qtype: u16, rcode: u8, answers: Vec<Answer>) {
        self.at += self.random.interval(Duration::from_millis(8));
        self.lookups.push(Lookup {
            at: self.at,
            client: self.client,
            name: name_of(name),
            qtype,
            rcode,
            answers,
            captured_sizes: None,
            kind: self.kind,
        });
    }

    /// Looks a name up that exists.
    pub(super) fn found(&mut self, name: &str, qtype: u16, answers: Vec<Answer>) {
        self.look_up(name, qtype, NOERROR, answers);
    }

    /// Looks a name up that does not exist.
    pub(super) fn absent(&mut self, name: &str, qtype: u16) {
        self.look_up(name, qtype, NXDOMAIN, Vec::new());
    }

    /// Looks up the addresses of a host as a client with two address families does.
    pub(super) fn addresses(&mut self, name: &str) {
        self.addresses_through(name, &[]);
    }

    /// Does the same as [`addresses`](Self::addresses) for an alias of other names.
    pub(super) fn addresses_through(&mut self, name: &str, aliases: &[&str]) {
        let host = self.random.below(1 << 30);
        let chain: Vec<Answer> =
            aliases.iter().map(|alias| Answer::name(rtype::CNAME, alias)).collect();
        let count = 1 + self.random.below(3);
        let with = |more: Vec<Answer>| chain.iter().cloned().chain(more).collect::<Vec<_>>();
        let v4 = with((0..count).map(|n| Answer::address(public_v4(host + n))).collect());
        self.found(name, rtype::A, v4);
        if self.random.chance(60) {
            // Half of the hosts have no IPv6 address.
            let v6 = if self.random.chance(50) {
                vec![Answer::address(public_v6(host))]
            } else {
                vec![]
            };
            self.found(name, rtype::AAAA, with(v6));
        }
        if self.random.chance(15) {
            self.found(name, rtype::HTTPS, chain);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;
    use crate::lookups::labels;

    const COUNT: usize = 50_000;
    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn the_stream_is_in_order_and_the_same_for_a_seed() {
        let stream = || Benign::new(1, 2_000, HOUR);
        assert!(stream().eq(stream()));
        assert!(stream().is_sorted_by_key(|lookup| lookup.at));
        assert!(!stream().eq(Benign::new(2, 2_000, HOUR)));
    }

    #[test]
    fn every_kind_is_there_at_the_stated_rate() {
        let mut kinds: BTreeMap<Kind, usize> = BTreeMap::new();
        let (mut last, mut domains) = (Duration::ZERO, HashSet::new());
        for lookup in Benign::new(3, COUNT, HOUR) {
            *kinds.entry(lookup.kind).or_default() += 1;
            last = lookup.at;
            domains.insert(lookup.domain());
            assert!(lookup.name.len() <= 255, "{lookup:?}");
            assert!(labels(&lookup.name).all(|label| label.len() < 64), "{lookup:?}");
        }
        assert_eq!(kinds.values().sum::<usize>(), COUNT);
        assert!(
            kinds.len() == 17 && kinds.values().all(|count| *count >= COUNT / 500),
            "{kinds:?}"
        );
        assert!((HOUR * 7 / 10..HOUR * 13 / 10).contains(&last), "{last:?}");
        assert!(domains.len() > 3_000, "{}", domains.len());
    }
}
