//! One line per message, for programs that process messages rather than transactions.

use serde::{Serialize, Serializer, ser::SerializeStruct as _};
use tap53_transactions::privacy::Side;

use super::{
    Encode, Error, Record,
    array::Array,
    fields::{Fields, Named},
    item::{Shown, Update},
    mnemonic::Mnemonic,
    record::{QUERY_EDNS, RESPONSE_EDNS, edns_fields, frame, int},
    symbol::Symbol,
    value::{Address, Time},
};

/// Encodes the first message of a record as one JSON object and a line feed. What a record has too is
/// named and written as there; fields of the other message are null.
pub struct MessageLine;

impl Encode for MessageLine {
    fn encode(&mut self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        let start = out.len();
        if let Err(error) = serde_json::to_writer(&mut *out, &Line(record)) {
            out.truncate(start);
            return Err(error.into());
        }
        out.push(b'\n');
        Ok(())
    }
}

struct Line<'a>(&'a Record<'a>);

/// Number of fields.
const FIELDS: usize = 72;

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut named = Named(serializer.serialize_struct("DnsMessage", FIELDS)?);
        self.path_fields(&mut named)?;
        self.content_fields(&mut named)?;
        named.0.end()
    }
}

impl<'a> Line<'a> {
    /// Passes where and when the message was seen, and its endpoints.
    fn path_fields<F: Fields>(&self, f: &mut F) -> Result<(), F::Error> {
        let record = self.0;
        let transaction = record.transaction;
        let seen = transaction.first();
        let is_response = seen.message.response;
        let (query, response) =
            (Some(seen).filter(|_| !is_response), Some(seen).filter(|_| is_response));
        let time = |_| Time(record.clock.utc_us(seen.at_ns));
        let flow = &transaction.flow;
        f.field("query_file", query.and_then(|seen| record.file_of(seen)))?;
        f.field("query_frame", query.and_then(frame))?;
        f.field("query_time", query.map(time))?;
        f.field("response_file", response.and_then(|seen| record.file_of(seen)))?;
        f.field("response_frame", response.and_then(frame))?;
        f.field("response_time", response.map(time))?;
        f.field("interface", record.observer.interface())?;
        f.field("direction", Symbol::of_direction(record.direction()))?;
        let direction = response.map(|seen| Symbol::of_direction(seen.point.direction));
        f.field("response_direction", direction)?;
        f.field("vlan_id", seen.vlan_ids[0])?;
        f.field("vlan_inner_id", seen.vlan_ids[1])?;
        f.field("tunnel_type", flow.tunnel.map(|tunnel| tunnel.kind.name()))?;
        f.field("tunnel_id", flow.tunnel.and_then(|tunnel| tunnel.id))?;
        f.field("transport", Symbol::of_transport(flow.transport))?;
        let client = record.policy.address(Side::Client, flow.client.ip());
        f.field("client_address", Address::from(client))?;
        f.field("client_port", flow.client.port())?;
        let server = record.policy.address(Side::Server, flow.server.ip());
        f.field("server_address", Address::from(server))?;
        f.field("server_port", flow.server.port())?;
        let size = |_| int(seen.message.size);
        f.field("query_size", query.map(size))?;
        f.field("response_size", response.map(size))?;
        // True if the capture contains only the start of the message.
        f.field("cut", seen.cut)
    }

    /// Passes the content of the message. It has the flags, counts and code of either kind.
    fn content_fields<F: Fields>(&self, f: &mut F) -> Result<(), F::Error> {
        let record = self.0;
        let policy = record.policy;
        let message = &record.transaction.first().message;
        let (flags, portion) = (&message.flags, record.first_portion());
        f.field("parse_status", Symbol::of_parse_status(message.parse_status))?;
        f.field("response", message.response)?;
        f.field("dns_id", message.id)?;
        f.field("opcode", Mnemonic::Opcode(message.opcode))?;
        f.field("recursion_desired", flags.recursion_desired)?;
        f.field("checking_disabled", flags.checking_disabled)?;
        f.field("authoritative", flags.authoritative)?;
        f.field("truncated", flags.truncated)?;
        f.field("recursion_available", flags.recursion_available)?;
        f.field("authentic_data", flags.authentic_data)?;
        record.question_fields(f)?;
        f.field("rcode", Mnemonic::Rcode(message.rcode))?;
        // In an UPDATE request they are prerequisites, of which a policy hides more.
        let is_update = message.prerequisites().len() > 0;
        let most = if is_update { 0 } else { portion.answers };
        let answers = || message.answers().take(most).map(|answer| Shown(policy, answer));
        f.field("answers", Array(Some(answers)))?;
        let prerequisites = || {
            let prerequisites = message.prerequisites().take(portion.prerequisites);
            prerequisites.map(|it| Shown(policy, Update(it)))
        };
        f.field("prerequisites", Array(Some(prerequisites)))?;
        let omitted = message.answers_omitted.saturating_add(record.portion.omitted.answers);
        f.field("answers_omitted", int(omitted))?;
        f.field("answer_count", message.counts[1])?;
        f.field("authority_count", message.counts[2])?;
        f.field("additional_count", message.counts[3])?;
        let edns = |response| message.edns().filter(|_| message.response == response);
        edns_fields(f, &QUERY_EDNS, edns(false), policy, portion)?;
        edns_fields(f, &RESPONSE_EDNS, edns(true), policy, portion)
    }
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
    fn a_message_has_the_fields_of_its_kind_by_their_names_in_records() {
        let query = line("unanswered");
        assert_eq!((&query["response"], &query["dns_id"]), (&false.into(), &0xbeef.into()));
        assert_eq!(
            (&query["client_address"], &query["client_port"]),
            (&"192.0.2.1".into(), &40_000.into())
        );
        assert!(query["query_time"].is_string() && query["response_time"].is_null(), "{query}");
        assert_eq!((&query["qname"], &query["qtype"]), (&"www.example.test".into(), &"A".into()));
        let response = line("response");
        assert_eq!(
            (&response["server_address"], &response["server_port"]),
            (&"192.0.2.53".into(), &53.into())
        );
        assert!(response["response_time"].is_string() && response["query_size"].is_null());
        assert_eq!(response["opcode"], "QUERY");
        assert_eq!(response["rcode"], "NOERROR");
        assert_eq!(response["answers"][0]["rdata"], "192.0.2.80");
        assert_eq!(response["response_extended_error"], 18);
        assert_eq!(response["response_client_subnet"], "198.51.100.0/24");
        assert_eq!(response["parse_status"], "OK");
    }

    /// Fields that records do not have.
    const OWN: [&str; 2] = ["cut", "response"];

    #[test]
    fn every_field_is_one_of_a_record_with_its_value() {
        let mut json = Vec::new();
        // This sample has one message, so that the fields of both describe the same one.
        samples::with_record("response", |it| {
            crate::encode::JsonLine.encode(it, &mut json).unwrap()
        });
        let record: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let message = line("response");
        assert_eq!(message.as_object().unwrap().len(), FIELDS);
        for (name, value) in message.as_object().unwrap() {
            if !OWN.contains(&name.as_str()) {
                assert_eq!(record.get(name), Some(value), "{name}");
            }
        }
    }
}
