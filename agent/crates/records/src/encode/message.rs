//! One line per message, for programs that process messages rather than transactions.

use std::borrow::Cow;

use serde::Serialize;
use tap53_dns::{
    Answer, Edns, Message, Question, class_name, frames, opcode_name, rcode_name, type_name,
};
use tap53_transactions::privacy::{Policy, Side};

use super::{
    Encode, Error, Record,
    portion::MessagePortion,
    value::{Address, Bytes, Row, Shown, Symbol, Time, Update},
};

/// Encodes the first message of a record as one JSON object and a line feed. The mnemonics are
/// those of the record; fields that a message does not have are null.
pub struct MessageLine;

impl Encode for MessageLine {
    fn encode(&mut self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        let start = out.len();
        if let Err(error) = serde_json::to_writer(&mut *out, &Line::of(record)) {
            out.truncate(start);
            return Err(error.into());
        }
        out.push(b'\n');
        Ok(())
    }
}

#[derive(Serialize)]
struct Line<'a> {
    /// Place of the capture.
    file: &'a str,
    frame: u64,
    time: Time,
    interface: &'a str,
    direction: Symbol,
    vlan_id: Option<u16>,
    vlan_inner_id: Option<u16>,
    tunnel_type: Option<&'static str>,
    tunnel_id: Option<u32>,
    /// Endpoints.
    transport: Symbol,
    src: Address,
    src_port: u16,
    dst: Address,
    dst_port: u16,
    /// Size on the wire in bytes.
    size: u32,
    /// True if the capture contains only the start of the message.
    cut: bool,
    parse_status: Symbol,
    /// Content of the message.
    id: u16,
    response: bool,
    opcode: Cow<'static, str>,
    aa: bool,
    tc: bool,
    rd: bool,
    ra: bool,
    ad: bool,
    cd: bool,
    rcode: Cow<'static, str>,
    question_count: u16,
    answer_count: u16,
    authority_count: u16,
    additional_count: u16,
    qname: Option<Cow<'a, str>>,
    qtype: Option<Cow<'static, str>>,
    qclass: Option<Cow<'static, str>>,
    more_questions: Vec<QuestionRow<'a>>,
    answers: Vec<AnswerRow<'a>>,
    answers_omitted: u32,
    edns: Option<EdnsFields<'a>>,
}

/// A record of the answer section. In an UPDATE request it is a prerequisite, of which a policy may
/// hide more.
#[derive(Serialize)]
#[serde(untagged)]
enum AnswerRow<'a> {
    Answer(Row<Shown<'a, Answer<'a>>>),
    Prerequisite(Row<Shown<'a, Update<'a>>>),
}

#[derive(Serialize)]
struct QuestionRow<'a> {
    qname: Cow<'a, str>,
    qtype: Cow<'static, str>,
    qclass: Cow<'static, str>,
}

#[derive(Serialize)]
struct EdnsFields<'a> {
    version: u8,
    udp_payload_size: u16,
    dnssec_ok: bool,
    client_subnet: Option<Address>,
    nsid: Option<Bytes<'a>>,
    cookie: Option<Bytes<'a>>,
    extended_error: Option<u16>,
    extended_error_text: Option<&'a str>,
    padding: Option<u16>,
    options: Vec<EdnsOption<'a>>,
}

#[derive(Serialize)]
struct EdnsOption<'a> {
    code: u16,
    value: Bytes<'a>,
}

impl<'a> Line<'a> {
    fn of(record: &'a Record<'a>) -> Self {
        let transaction = record.transaction;
        let seen = transaction.first();
        let message = &seen.message;
        let flow = &transaction.flow;
        let policy = record.policy;
        let client = (policy.address(Side::Client, flow.client.ip()), flow.client.port());
        let server = (policy.address(Side::Server, flow.server.ip()), flow.server.port());
        let (source, destination) =
            if message.response { (server, client) } else { (client, server) };
        let question = message.question();
        let flags = &message.flags;
        let portion = record.first_portion();
        let answers = message.answers();
        let left_out = answers.len().saturating_sub(portion.answers)
            + message.prerequisites().len().saturating_sub(portion.prerequisites);
        let left_out = u32::try_from(left_out).unwrap_or(u32::MAX);
        Self {
            file: record.file_of(seen).unwrap_or_default(),
            frame: frames::number(seen.frame),
            time: Time(record.clock.utc_us(seen.at_ns)),
            interface: record.observer.interface(),
            direction: Symbol::of_direction(seen.point.direction),
            vlan_id: seen.vlan_ids[0],
            vlan_inner_id: seen.vlan_ids[1],
            tunnel_type: flow.tunnel.map(|tunnel| tunnel.kind.name()),
            tunnel_id: flow.tunnel.and_then(|tunnel| tunnel.id),
            transport: Symbol::of_transport(flow.transport),
            src: source.0.into(),
            src_port: source.1,
            dst: destination.0.into(),
            dst_port: destination.1,
            size: message.size,
            cut: seen.cut,
            parse_status: Symbol::of_parse_status(message.parse_status),
            id: message.id,
            response: message.response,
            opcode: opcode_name(message.opcode),
            aa: flags.authoritative,
            tc: flags.truncated,
            rd: flags.recursion_desired,
            ra: flags.recursion_available,
            ad: flags.authentic_data,
            cd: flags.checking_disabled,
            rcode: rcode_name(message.rcode),
            question_count: message.counts[0],
            answer_count: message.counts[1],
            authority_count: message.counts[2],
            additional_count: message.counts[3],
            qname: question.map(|question| policy.name(question.name)),
            qtype: question.map(|question| type_name(question.qtype)),
            qclass: question.map(|question| class_name(question.qclass)),
            more_questions: message
                .more_questions()
                .take(portion.questions)
                .map(|question| QuestionRow::of(question, policy))
                .collect(),
            answers: if message.prerequisites().len() == 0 {
                let row = |answer| AnswerRow::Answer(Row(Shown(policy, answer)));
                answers.take(portion.answers).map(row).collect()
            } else {
                let row = |record| AnswerRow::Prerequisite(Row(Shown(policy, Update(record))));
                message.prerequisites().take(portion.prerequisites).map(row).collect()
            },
            answers_omitted: message.answers_omitted.saturating_add(left_out),
            edns: edns(message, policy, portion),
        }
    }
}

impl<'a> QuestionRow<'a> {
    fn of(question: Question<'a>, policy: &Policy) -> Self {
        Self {
            qname: policy.name(question.name),
            qtype: type_name(question.qtype),
            qclass: class_name(question.qclass),
        }
    }
}

fn edns<'a>(
    message: &'a Message,
    policy: &Policy,
    portion: &MessagePortion,
) -> Option<EdnsFields<'a>> {
    let edns: Edns<'_> = message.edns()?;
    Some(EdnsFields {
        version: edns.version,
        udp_payload_size: edns.udp_payload_size,
        dnssec_ok: edns.dnssec_ok,
        client_subnet: edns
            .client_subnet
            .and_then(|subnet| policy.client_subnet(subnet))
            .map(Address::from),
        nsid: edns.nsid.filter(|nsid| portion.nsid && policy.shows_nsid(nsid)).map(Bytes),
        cookie: edns.cookie.filter(|_| policy.shows_cookies()).map(Bytes),
        extended_error: edns.extended_error.map(|error| error.code),
        extended_error_text: edns
            .extended_error
            .filter(|_| portion.error_text)
            .and_then(|error| policy.error_text(error.text)),
        padding: edns.padding,
        options: edns
            .options()
            .filter(|(code, _)| policy.shows_option(*code))
            .take(portion.options)
            .map(|(code, value)| EdnsOption { code, value: Bytes(value) })
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::samples;

    fn line(name: &str) -> serde_json::Value {
        let mut out = Vec::new();
        samples::with_record(name, |record| MessageLine.encode(record, &mut out).unwrap());
        assert_eq!(out.pop(), Some(b'\n'));
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn a_message_has_its_sender_and_its_fields_by_name() {
        let query = line("unanswered");
        assert_eq!((&query["response"], &query["id"]), (&false.into(), &0xbeef.into()));
        assert_eq!((&query["src"], &query["src_port"]), (&"192.0.2.1".into(), &40_000.into()));
        assert_eq!((&query["qname"], &query["qtype"]), (&"www.example.test".into(), &"A".into()));
        let response = line("response");
        assert_eq!((&response["src"], &response["src_port"]), (&"192.0.2.53".into(), &53.into()));
        assert_eq!(response["opcode"], "QUERY");
        assert_eq!(response["rcode"], "NOERROR");
        assert_eq!(response["answers"][0]["rdata"], "192.0.2.80");
        assert_eq!(response["edns"]["extended_error"], 18);
        assert_eq!(response["edns"]["client_subnet"], "198.51.100.0/24");
        assert_eq!(response["parse_status"], "OK");
    }
}
