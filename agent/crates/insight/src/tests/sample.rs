//! Records for the tests.

use std::net::{IpAddr, Ipv4Addr};

use tap53_dns::{Flow, Transport, build::Build};
use tap53_records::encode::{Attribution, Identity, Owner, Record, samples};
use tap53_transactions::pair::{
    Anomalies, Anomaly, AnswerSource, AnsweredFrom, Chain, Exchange, Observation, RecordId,
    SearchStep, Transaction,
};

/// The content of a record.
#[derive(Clone)]
pub(crate) struct Sample {
    pub(crate) client: Owner,
    pub(crate) server: Owner,
    pub(crate) client_address: IpAddr,
    pub(crate) server_address: IpAddr,
    pub(crate) transport: Transport,
    pub(crate) name: String,
    pub(crate) qtype: u16,
    /// `None` for a query without a response.
    pub(crate) rcode: Option<u16>,
    pub(crate) latency_ns: u64,
    pub(crate) query_count: u32,
    pub(crate) is_truncated: bool,
    pub(crate) is_conflicting: bool,
    pub(crate) resolver_ns: Option<u64>,
    /// Whether its name was the last of a search list; `None` without one.
    pub(crate) is_winner: Option<bool>,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            client: Owner::default(),
            server: Owner::default(),
            client_address: Ipv4Addr::new(192, 0, 2, 1).into(),
            server_address: Ipv4Addr::new(192, 0, 2, 53).into(),
            transport: Transport::Udp,
            name: "www.example.test".to_owned(),
            qtype: 1,
            rcode: Some(0),
            latency_ns: 1_000_000,
            query_count: 1,
            is_truncated: false,
            is_conflicting: false,
            resolver_ns: None,
            is_winner: None,
        }
    }
}

/// Returns the owner of a pod's address.
pub(crate) fn pod(namespace: &str, workload: &str) -> Owner {
    Owner::new(Identity {
        attribution: Attribution::Pod,
        pod_namespace: Some(namespace.to_owned()),
        workload_name: Some(workload.to_owned()),
        ..Identity::default()
    })
}

impl Sample {
    /// Passes the record to `each`.
    pub(crate) fn with<T>(&self, each: impl FnOnce(&Record<'_>) -> T) -> T {
        let observation = |at_ns, response| {
            let message = Build::message(7, response).question(&self.name, self.qtype).parse();
            Observation { at_ns, message, ..Observation::default() }
        };
        let query = observation(5_000_000, false);
        let mut response = observation(5_000_000 + self.latency_ns, true);
        response.message.rcode = self.rcode.unwrap_or_default();
        response.message.flags.truncated = self.is_truncated;
        let source = self.resolver_ns.map(|resolver_ns| AnswerSource {
            from: AnsweredFrom::Upstream,
            upstream_count: 1,
            upstream_ns: 1,
            resolver_ns,
        });
        let search = self.is_winner.map(|is_winner| SearchStep {
            group: RecordId([8; 16]),
            step: 1,
            is_winner,
        });
        let chain = Chain { source, search, ..Chain::default() };
        samples::with_record("matched", |record| {
            let flow = Flow {
                transport: self.transport,
                client: (self.client_address, 40_000).into(),
                server: (self.server_address, 53).into(),
                ..record.transaction.flow
            };
            let transaction = Transaction {
                flow,
                exchange: match self.rcode {
                    Some(_) => Exchange::Matched(&query, &response),
                    None => Exchange::Query(&query),
                },
                query_count: self.query_count,
                anomalies: match self.is_conflicting {
                    true => [Anomaly::ConflictingResponse].into_iter().collect(),
                    false => Anomalies::NONE,
                },
                chain: Some(&chain),
                ..*record.transaction
            };
            let [client, server] = [&self.client, &self.server];
            each(&Record { transaction: &transaction, client, server, ..*record })
        })
    }
}
