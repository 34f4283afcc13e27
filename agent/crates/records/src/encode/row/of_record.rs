//! Creates the row of a record.

use std::{borrow::Cow, net::SocketAddr};

use tap53_dns::{opcode_name, rcode_name, type_name};
use tap53_transactions::{pair::Observation, privacy::Side};

use super::{Length, Moment, Row, RowAnswer, RowQuestion};
use crate::encode::{Identity, Record, address::AddressText};

impl<'a> Row<'a> {
    /// Returns the row of a record, as its privacy rules show it.
    #[must_use]
    pub fn of(record: &'a Record<'_>) -> Self {
        let (transaction, policy) = (record.transaction, record.policy);
        let (flow, first) = (&transaction.flow, transaction.first());
        let (query, response) = (transaction.query(), transaction.response());
        let question = first.message.question();
        let question_of = |question: tap53_dns::Question<'a>| RowQuestion {
            name: policy.name(question.name),
            qtype: type_name(question.qtype),
        };
        let answer_of = |answer: tap53_dns::Answer<'a>| RowAnswer {
            rtype: type_name(answer.rtype),
            rdata: policy.answer_rdata(answer.rdata),
        };
        let portion = record.portion;
        let omitted = |seen: Option<&Observation>| seen.map_or(0, |it| it.message.answers_omitted);
        let moment = |at_ns| Moment(record.clock.utc_us(at_ns));
        let shown = |side, end: SocketAddr| {
            let text = AddressText::shown(&policy.address(side, end.ip()));
            Cow::Owned(text.as_str().to_owned())
        };
        let sightings = &transaction.sightings;
        let backend = sightings.backend(flow);
        let translated = sightings.translated_client(flow);
        let mut row =
            Self {
                node: record.observer.node().into(),
                interface: record.observer.interface().into(),
                response_interface: response.map(|_| record.response_observer.interface().into()),
                outcome: transaction.outcome().symbol().into(),
                relation: transaction.related.map(|related| related.relation.symbol().into()),
                capture_gap: transaction.capture_gap,
                anomalies: transaction.anomalies.names().map(Cow::from).collect(),
                signals: record.signals.iter().flat_map(|it| it.names()).map(Cow::from).collect(),
                query_time: query.map(|seen| moment(seen.at_ns)),
                response_time: response.map(|seen| moment(seen.at_ns)),
                latency_ns: record.latency_ns(),
                query_count: transaction.query_count,
                copy_count: transaction.copy_count,
                transport: match flow.transport {
                    tap53_dns::Transport::Udp => "UDP".into(),
                    tap53_dns::Transport::Tcp => "TCP".into(),
                },
                tunnel_type: flow.tunnel.map(|tunnel| tunnel.kind.name().into()),
                tunnel_id: flow.tunnel.and_then(|tunnel| tunnel.id).map(i64::from),
                client_address: shown(Side::Client, flow.client),
                client_port: flow.client.port(),
                server_address: shown(Side::Server, flow.server),
                server_port: flow.server.port(),
                backend_address: backend.map(|end| shown(Side::Server, end)),
                backend_port: backend.map(|end| end.port()),
                translated_client_address: translated.map(|end| shown(Side::Client, end)),
                translated_client_port: translated.map(|end| end.port()),
                nat: sightings.nat.symbol().into(),
                opcode: opcode_name(first.message.opcode),
                truncated: response.map(|seen| seen.message.flags.truncated),
                qname: question.map(|question| policy.name(question.name)),
                qtype: question.map(|question| type_name(question.qtype)),
                more_questions: first
                    .message
                    .more_questions()
                    .take(record.first_portion().questions)
                    .map(question_of)
                    .collect(),
                rcode: response.map(|seen| rcode_name(seen.message.rcode)),
                answers: response.map_or_else(Vec::new, |seen| {
                    let answers = seen.message.answers().take(portion.response.answers);
                    answers.map(answer_of).collect()
                }),
                answers_omitted: omitted(query)
                    .saturating_add(omitted(response))
                    .saturating_add(portion.omitted.answers),
                updates: Length(query.map_or(0, |seen| {
                    seen.message.updates().len().min(portion.query.updates) as u64
                })),
                parse_status: record.parse_status().name().into(),
                ..Self::default()
            };
        row.set_client(record.client.identity());
        row.set_server(record.server.identity());
        row
    }

    fn set_client(&mut self, known: &'a Identity) {
        self.client_pod_name = text(known.pod_name.as_ref());
        self.client_pod_namespace = text(known.pod_namespace.as_ref());
        self.client_workload_name = text(known.workload_name.as_ref());
        self.client_labels = known.labels.as_ref().map(Cow::Borrowed);
        self.client_service_name = text(known.service_name.as_ref());
        self.client_service_namespace = text(known.service_namespace.as_ref());
    }

    fn set_server(&mut self, known: &'a Identity) {
        self.server_pod_name = text(known.pod_name.as_ref());
        self.server_pod_namespace = text(known.pod_namespace.as_ref());
        self.server_workload_name = text(known.workload_name.as_ref());
        self.server_service_name = text(known.service_name.as_ref());
        self.server_service_namespace = text(known.service_namespace.as_ref());
    }
}

fn text(name: Option<&String>) -> Option<Cow<'_, str>> {
    name.map(|name| Cow::Borrowed(name.as_str()))
}
