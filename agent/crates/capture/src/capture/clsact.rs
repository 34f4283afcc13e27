//! Attaches by filters of a clsact qdisc, for kernels without TCX.
//!
//! A filter survives the process that added it. So the next agent must find and remove the filters
//! of a killed agent, without touching those of others:
//!
//! - Our filters are known by their names: `tap53_tc_<direction>@<token>`. The agent chooses a
//!   random token for each interface.
//! - A *claim* shows that the agent that added a filter still runs: an abstract Unix socket, named
//!   after ifindex and token, which the kernel closes with the process. Abstract names belong to
//!   the network namespace, like interfaces, so a claim works across PID namespaces, where a
//!   process id would not. Each agent has its own claim, so that two agents may share an interface.
//! - The filter's name states whether the qdisc existed before us ([`OWN_QDISC`]), since the qdisc
//!   itself cannot store it; an agent that finds our qdisc repeats the mark. Only a qdisc of ours
//!   without filters is removed, by the agent that removes the last one.
//! - Before a filter is removed, its name and program are compared again: handles are reused.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, Hasher, RandomState},
    os::{
        fd::BorrowedFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

use tap53_ebpf::settings::Direction;

use super::{
    Error,
    qdisc::{self, ALL_PROTOCOLS, Filter, Qdisc},
};
use crate::interfaces::{self, Interface, netlink::Socket};

/// Prefix of the names of our filters.
pub(super) const NAME_PREFIX: &str = "tap53_tc_";

/// Separates the program's name and the token.
const TOKEN: char = '@';

/// Suffix of the names of our filters in a qdisc that we created.
const OWN_QDISC: &str = "+qdisc";

/// Priority of our filters if no filter precedes them. It is far ahead of those that the kernel
/// assigns (49,152 and lower), and not 1, which others request explicitly.
const PRIORITY: u16 = 53;

/// Our filters on one interface; dropping it removes them.
#[derive(Debug)]
pub(super) struct Clsact {
    name: String,
    ifindex: u32,
    own_qdisc: bool,
    token: String,
    filters: Vec<Filter>,
    /// The claim, open while the filters exist.
    _claim: Option<UnixDatagram>,
}

impl Clsact {
    /// Creates a clsact qdisc on the interface unless it has one.
    pub(super) fn open(interface: &Interface) -> Result<Self, Error> {
        let name = &interface.name;
        let ifindex = interface.ifindex;
        let failed = |error| Error::netlink(name, "clsact qdisc", error);
        let token = format!("{:016x}", RandomState::new().build_hasher().finish());
        let claim = claim(ifindex, &token);
        if claim.is_none() {
            tracing::warn!(interface = %name, "no claim: another tap53 may remove our filters");
        }
        let mut socket = Socket::open().map_err(failed)?;
        let own_qdisc = match qdisc::get(&mut socket, ifindex).map_err(failed)? {
            Qdisc::Clsact => {
                let mut filters = qdisc::filters(&mut socket, ifindex).map_err(failed)?;
                filters.retain(is_ours);
                if !filters.is_empty() {
                    tracing::warn!(interface = %name, "another tap53 captures here through clsact");
                }
                filters.iter().any(is_in_own_qdisc)
            }
            // The ingress qdisc uses the same handle: the kernel allows only one of them.
            Qdisc::Ingress => {
                let source = std::io::Error::from_raw_os_error(libc::EBUSY);
                let what = "clsact: an ingress qdisc occupies its handle";
                return Err(Error::attach(name, what, source));
            }
            Qdisc::Absent => match qdisc::create(&mut socket, ifindex) {
                Ok(()) => true,
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => false,
                Err(error) => return Err(failed(error)),
            },
        };
        let name = name.clone();
        Ok(Self { name, ifindex, own_qdisc, token, filters: Vec::new(), _claim: claim })
    }

    /// Adds a filter ahead of the others; returns the filter that still precedes it, if any.
    pub(super) fn attach(
        &mut self,
        direction: Direction,
        program_name: &str,
        program: BorrowedFd<'_>,
    ) -> Result<Option<Filter>, Error> {
        let failed = |error| {
            let what = format!("clsact filter on {}", direction.name());
            Error::netlink(&self.name, what, error)
        };
        let mut socket = Socket::open().map_err(failed)?;
        let mut present = qdisc::filters(&mut socket, self.ifindex).map_err(failed)?;
        present.retain(|filter| filter.direction == direction);
        let (priority, ahead) = choose_priority(&present);
        let qdisc = if self.own_qdisc { OWN_QDISC } else { "" };
        let name = format!("{program_name}{TOKEN}{}{qdisc}", self.token);
        let filter =
            qdisc::add_filter(&mut socket, self.ifindex, direction, priority, &name, program)
                .map_err(failed)?;
        self.filters.push(filter);
        Ok(ahead)
    }

    /// Returns our filter of a direction.
    pub(super) fn filter(&self, direction: Direction) -> Option<&Filter> {
        self.filters.iter().find(|filter| filter.direction == direction)
    }

    /// Returns true if our filter for a direction is still attached.
    pub(super) fn has_filter(&self, direction: Direction) -> bool {
        let present = || -> Result<Vec<Filter>, interfaces::Error> {
            qdisc::filters(&mut Socket::open()?, self.ifindex)
        };
        let ours = self.filters.iter().find(|filter| filter.direction == direction);
        ours.is_some_and(|ours| present().is_ok_and(|present| present.contains(ours)))
    }

    /// Removes our filters, and the qdisc if it is ours and has no other filters.
    pub(super) fn detach(mut self) -> Result<(), Error> {
        self.remove()
    }

    fn remove(&mut self) -> Result<(), Error> {
        let filters = std::mem::take(&mut self.filters);
        let own_qdisc = std::mem::take(&mut self.own_qdisc);
        let result = remove(self.ifindex, &filters, own_qdisc);
        match result {
            // The interface was removed, and its qdisc with it.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            other => other.map_err(|e| Error::netlink(&self.name, "removing clsact filters", e)),
        }
    }
}

impl Drop for Clsact {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::error!(%error, "left behind");
        }
    }
}

/// Removes the filters of agents that no longer run from all interfaces; returns their ifindexes.
pub(super) fn sweep() -> Result<Vec<u32>, interfaces::Error> {
    let mut socket = Socket::open()?;
    let mut swept = Vec::new();
    for (ifindex, kind) in qdisc::list(&mut socket)? {
        let mut filters = match qdisc::filters(&mut socket, ifindex) {
            Ok(filters) => filters,
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => continue,
            Err(error) => return Err(error),
        };
        // A token that can be claimed belongs to an agent that no longer runs. Hold the claim until
        // its filters are removed.
        let tokens: BTreeSet<&str> = filters.iter().filter_map(token_of).collect();
        let claims: BTreeMap<String, UnixDatagram> = tokens
            .into_iter()
            .filter_map(|token| Some((token.to_owned(), claim(ifindex, token)?)))
            .collect();
        filters.retain(|filter| token_of(filter).is_some_and(|token| claims.contains_key(token)));
        if filters.is_empty() {
            continue;
        }
        let own_qdisc = kind == Qdisc::Clsact && filters.iter().any(is_in_own_qdisc);
        remove(ifindex, &filters, own_qdisc)?;
        swept.push(ifindex);
    }
    Ok(swept)
}

/// Removes those of `filters` that still exist, and the qdisc if it is ours and now empty.
fn remove(ifindex: u32, filters: &[Filter], own_qdisc: bool) -> Result<(), interfaces::Error> {
    let mut socket = Socket::open()?;
    for filter in qdisc::filters(&mut socket, ifindex)? {
        if filters.contains(&filter) {
            qdisc::delete_filter(&mut socket, ifindex, &filter)?;
        }
    }
    if own_qdisc && qdisc::filters(&mut socket, ifindex)?.is_empty() {
        qdisc::delete(&mut socket, ifindex)?;
    }
    Ok(())
}

fn is_ours(filter: &Filter) -> bool {
    token_of(filter).is_some()
}

/// Returns the token in the name of our filter; `None` for other filters.
fn token_of(filter: &Filter) -> Option<&str> {
    let (program, token) = filter.name.as_deref()?.split_once(TOKEN)?;
    program.starts_with(NAME_PREFIX).then(|| token.trim_end_matches(OWN_QDISC))
}

fn is_in_own_qdisc(filter: &Filter) -> bool {
    let name = filter.name.as_deref();
    name.is_some_and(|name| name.ends_with(OWN_QDISC))
}

/// Claims an agent's filters on an interface; returns `None` if a running process has the claim.
fn claim(ifindex: u32, token: &str) -> Option<UnixDatagram> {
    let address = SocketAddr::from_abstract_name(format!("tap53/clsact/{ifindex}/{token}")).ok()?;
    UnixDatagram::bind_addr(&address).ok()
}

/// Returns the priority for our filter among those `present` in the same direction, and the filter
/// that still precedes it, if any.
fn choose_priority(present: &[Filter]) -> (u16, Option<Filter>) {
    let Some(first) = present.iter().min_by_key(|filter| filter.priority) else {
        return (PRIORITY, None);
    };
    match first.priority {
        2.. => (PRIORITY.min(first.priority - 1), None),
        // Filters of one priority have the same kind and protocol, and the newest BPF filter runs
        // first.
        _ if first.kind == "bpf" && first.protocol == ALL_PROTOCOLS => (first.priority, None),
        _ => {
            let taken = |priority: &u16| present.iter().any(|f| f.priority == *priority);
            let free = (2..=u16::MAX).find(|priority| !taken(priority));
            (free.unwrap_or(PRIORITY), Some(first.clone()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;

    fn filter(priority: u16, kind: &str, protocol: u16) -> Filter {
        Filter {
            direction: Direction::Ingress,
            kind: kind.to_owned(),
            priority,
            protocol,
            handle: 1,
            name: None,
            program_id: None,
        }
    }

    #[test]
    fn our_filter_goes_ahead_of_the_others_where_it_can() {
        let bpf = |priority| filter(priority, "bpf", ALL_PROTOCOLS);
        assert_eq!(choose_priority(&[]), (53, None));
        assert_eq!(choose_priority(&[bpf(49_152)]), (53, None));
        assert_eq!(choose_priority(&[bpf(49_152), bpf(10)]), (9, None));
        assert_eq!(choose_priority(&[bpf(1)]), (1, None), "shares the priority");
        let flower = filter(1, "flower", ALL_PROTOCOLS);
        assert_eq!(choose_priority(slice::from_ref(&flower)), (2, Some(flower.clone())));
        assert_eq!(choose_priority(&[bpf(2), flower.clone()]), (3, Some(flower)));
        let ip_only = filter(1, "bpf", 0x0008);
        assert_eq!(choose_priority(slice::from_ref(&ip_only)), (2, Some(ip_only)));
    }

    #[test]
    fn filters_of_ours_are_known_by_their_names() {
        let named =
            |name: &str| Filter { name: Some(name.to_owned()), ..filter(53, "bpf", ALL_PROTOCOLS) };
        assert_eq!(token_of(&named("tap53_tc_ingress@12ab")), Some("12ab"));
        assert_eq!(token_of(&named("tap53_tc_egress@12ab+qdisc")), Some("12ab"));
        assert!(is_ours(&named("tap53_tc_ingress@12ab")));
        assert!(!is_ours(&named("cil_from_netdev")));
        assert!(!is_ours(&named("other@12ab")));
        assert!(!is_ours(&filter(53, "bpf", ALL_PROTOCOLS)));
        assert!(is_in_own_qdisc(&named("tap53_tc_egress@12ab+qdisc")));
        assert!(!is_in_own_qdisc(&named("tap53_tc_egress@12ab")));
    }

    #[test]
    fn a_claim_is_exclusive_until_it_is_dropped() {
        // No interface has this ifindex.
        let first = claim(u32::MAX, "a").unwrap();
        assert!(claim(u32::MAX, "a").is_none());
        assert!(claim(u32::MAX, "b").is_some(), "another agent's");
        drop(first);
        assert!(claim(u32::MAX, "a").is_some());
    }
}
