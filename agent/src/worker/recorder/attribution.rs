//! Attribution of the client and the server of a transaction.

use tap53_attribution::{Endpoint, Reader};
use tap53_capture::capture::Processes;
use tap53_dns::Flow;
use tap53_ebpf::{process, record::Sender};
use tap53_records::encode::{Clock, NodeRole, NodeTag};
use tap53_transactions::pair::Transaction;

use super::super::{Shared, pending::Pending};

/// Names the ends of transactions.
pub(super) struct Attribution {
    owners: Reader,
    /// Processes that use sockets, if records name them.
    processes: Option<Processes>,
    node: NodeTag,
    /// Only exchanges of this node's clients are recorded, among those whose client is a pod.
    client_node_only: bool,
    /// Set if the owners have changed since the pending transactions were last checked.
    owners_changed: bool,
}

/// Both ends of a transaction.
pub(super) struct Ends<'a> {
    pub(super) client: Endpoint<'a>,
    pub(super) server: Endpoint<'a>,
    /// Sender of the query.
    pub(super) query: Sender,
}

impl Attribution {
    pub(super) fn new(shared: &Shared) -> Self {
        Self {
            owners: shared.owners.reader(),
            processes: shared.processes.clone(),
            node: NodeTag::of(&shared.node),
            client_node_only: shared.client_node_only,
            owners_changed: false,
        }
    }

    /// Reloads the owners if they have changed.
    pub(super) fn refresh(&mut self) {
        self.owners_changed |= self.owners.refresh();
    }

    /// Returns true if the owners have changed since the last call.
    pub(super) fn take_change(&mut self) -> bool {
        std::mem::take(&mut self.owners_changed)
    }

    /// Prefetches what the names of a flow's ends are read from.
    #[inline]
    pub(super) fn fetch(&mut self, flow: &Flow) {
        self.owners.fetch(flow.client.ip());
        self.owners.fetch(flow.server.ip());
    }

    #[inline]
    pub(super) fn ends(&self, transaction: &Transaction<'_>, clock: Clock) -> Ends<'_> {
        let began_us = clock.utc_us(transaction.first().at_ns);
        let query = transaction.query().map_or(Sender::UNKNOWN, |query| query.sender);
        Ends {
            client: self.owners.endpoint(transaction.flow.client.ip(), began_us, query),
            server: server(&self.owners, transaction, began_us),
            query,
        }
    }

    /// Returns the deadline of a transaction, in capture time, if an owner of it may become known
    /// shortly; else 0.
    #[inline]
    pub(super) fn hold_until_ns(&self, transaction: &Transaction<'_>, ends: &Ends<'_>) -> u64 {
        let flow = &transaction.flow;
        let awaits_owner = self.owners.awaits(ends.client.owner, flow.client.ip())
            || self.owners.awaits(ends.server.owner, flow.server.ip());
        match awaits_owner {
            true => transaction.first().at_ns.saturating_add(self.owners.hold_ns()),
            false => 0,
        }
    }

    /// Returns true if an owner of a pending transaction may still become known.
    pub(super) fn awaits(&self, pending: &Pending, clock: Clock) -> bool {
        let began = pending.transaction().map(|it| it.first().at_ns);
        let began_us = clock.utc_us(began.unwrap_or_default());
        pending.ends().into_iter().any(|(address, sender)| {
            let owner = self.owners.endpoint(address, began_us, sender).owner;
            self.owners.awaits(owner, address)
        })
    }

    /// Returns true if the transaction is recorded by the node of its client, which is another.
    #[inline]
    pub(super) fn leaves_to_other_node(&self, ends: &Ends<'_>) -> bool {
        self.client_node_only
            && !ends.query.is_known()
            && ends.client.owner.is_pod()
            && ends.client.owner.is_on(self.node) == Some(false)
    }

    /// Returns which of the ends are on this node. A socket that was seen is on this node.
    #[inline]
    pub(super) fn node_role(&self, transaction: &Transaction<'_>, ends: &Ends<'_>) -> NodeRole {
        let is_here = |sender: Sender, end: &Endpoint<'_>| match sender.is_known() {
            true => Some(true),
            false => end.owner.is_on(self.node),
        };
        NodeRole::of(
            is_here(ends.query, &ends.client),
            is_here(transaction.responder(), &ends.server),
        )
    }

    /// Returns the process that sent a query, if records name processes and it is known.
    #[inline]
    pub(super) fn process_of(&self, query: Sender) -> Option<process::Process> {
        self.processes.as_ref().filter(|_| query.is_known())?.of(query.socket)
    }
}

/// Returns the server that a record names: the backend of a service, if this node knows it.
#[inline]
fn server<'a>(owners: &'a Reader, transaction: &Transaction<'_>, began_us: i64) -> Endpoint<'a> {
    let responder = transaction.responder();
    let addressed = transaction.flow.server.ip();
    let answering = transaction.sightings.server.ip();
    if answering != addressed {
        let backend = owners.endpoint(answering, began_us, responder);
        if backend.owner.is_host() {
            return backend;
        }
    }
    owners.endpoint(addressed, began_us, responder)
}
