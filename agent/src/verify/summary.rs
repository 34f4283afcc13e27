//! The fields of a summary that a proof needs.

use serde_json::Value;
use tap53_ledger::{SUMMARY_SCHEMA_VERSIONS, chain::Digest, signed_message, summary_digest};
use tap53_records::encode::{Fingerprint, single_object_header};

use super::shape::{Misfit, Shape};

/// A summary of the ledger, with the fields that records are checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) node: String,
    pub(super) run_id: String,
    pub(super) sink: String,
    pub(super) run_started_at: i64,
    pub(super) window: i64,
    pub(super) is_final: bool,
    pub(super) workers: Vec<Numbers>,
    pub(super) lost_total: u64,
    pub(super) settled_window: Option<i64>,
    pub(super) summaries_lost: u64,
    pub(super) ended_at: i64,
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) chains: Vec<WorkerLinks>,
    pub(super) previous: Option<Digest>,
    pub(super) key: Option<String>,
    pub(super) signature: Option<Vec<u8>>,
    /// Digest of the summary itself.
    pub(super) digest: Digest,
}

/// Numbers of a worker's records in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) worker: u32,
    pub(super) last: u64,
    pub(super) records: u64,
}

/// Links of a worker's chain in a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WorkerLinks {
    pub(super) worker: u32,
    pub(super) before: Digest,
    pub(super) links: Vec<WorkerLink>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WorkerLink {
    pub(super) last: u64,
    pub(super) records: u64,
    pub(super) digest: Digest,
}

/// One version of the summary's schema.
pub(super) struct Version {
    number: i64,
    fingerprint: Fingerprint,
    pub(super) shape: Shape,
}

impl Version {
    /// Returns all versions, oldest first.
    pub(super) fn all() -> Result<Vec<Self>, Misfit> {
        let version = |version: &tap53_records::encode::SchemaVersion| {
            Ok(Self {
                number: version.number.into(),
                fingerprint: version.fingerprint().map_err(|error| error.to_string())?,
                shape: Shape::parse(version.text)?,
            })
        };
        SUMMARY_SCHEMA_VERSIONS.iter().map(version).collect()
    }
}

impl Summary {
    /// Parses a summary's fields; bytes are hexadecimal.
    pub(super) fn of(fields: &Value, versions: &[Version]) -> Result<Self, Misfit> {
        let number = fields["schema_version"].as_i64().unwrap_or_default();
        let version = versions.iter().find(|version| version.number == number);
        let version = version.ok_or_else(|| {
            format!("schema_version: {number} is not supported: use a newer tap53 to verify")
        })?;
        let digest = digest(fields, version)?;
        let text = |name: &str| fields[name].as_str().map(str::to_owned);
        let named = |name: &str| text(name).ok_or_else(|| format!("{name}: there is none"));
        let number = |name: &str| fields[name].as_i64().ok_or_else(|| format!("{name}: no number"));
        let octets = |name: &str| -> Result<Option<Vec<u8>>, Misfit> {
            fields.get(name).filter(|value| !value.is_null()).map(octets).transpose()
        };
        Ok(Self {
            node: named("node")?,
            run_id: named("run_id")?,
            sink: named("sink")?,
            // Times may be text, which only this decoder parses.
            run_started_at: time(fields, "run_started_at")?,
            ended_at: time(fields, "window_ended_at")?,
            window: number("window_number")?,
            is_final: fields["kind"] == "FINAL",
            workers: list(fields, "workers").map(numbers).collect::<Result<_, _>>()?,
            lost_total: number("records_lost_total")?.try_into().unwrap_or_default(),
            settled_window: fields["settled_window"].as_i64(),
            // Version 1 has none.
            summaries_lost: fields["summaries_lost_total"].as_u64().unwrap_or_default(),
            fingerprint: octets("record_fingerprint")?
                .map(|octets| octets.try_into().map_err(|_| "record_fingerprint: not 8 bytes"))
                .transpose()?,
            chains: list(fields, "chains").map(worker_links).collect::<Result<_, _>>()?,
            previous: octets("previous_digest")?.map(|octets| to_digest(&octets)).transpose()?,
            key: text("signing_key"),
            signature: octets("signature")?,
            digest,
        })
    }

    /// Returns the message that was signed.
    pub(super) fn signed_message(&self) -> Vec<u8> {
        signed_message(&self.digest)
    }
}

/// Returns the digest of the summary without its signature.
fn digest(fields: &Value, version: &Version) -> Result<Digest, Misfit> {
    let mut unsigned = single_object_header(version.fingerprint).to_vec();
    let mut fields = fields.clone();
    if let Some(fields) = fields.as_object_mut() {
        fields.insert("signature".to_owned(), Value::Null);
    }
    version.shape.encode(&fields, &mut unsigned)?;
    Ok(summary_digest(&unsigned))
}

fn time(fields: &Value, name: &str) -> Result<i64, Misfit> {
    let mut encoded = Vec::new();
    Shape::Time.encode(&fields[name], &mut encoded).map_err(|why| format!("{name}: {why}"))?;
    Ok(Shape::Long.decode(&mut &encoded[..])?.as_i64().unwrap_or_default())
}

fn list<'a>(fields: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    fields[name].as_array().into_iter().flatten()
}

fn count(fields: &Value, name: &str) -> Result<u64, Misfit> {
    fields[name].as_u64().ok_or_else(|| format!("{name}: {} is no count", fields[name]))
}

fn worker(fields: &Value) -> Result<u32, Misfit> {
    count(fields, "worker")?.try_into().map_err(|_| "worker: no such number".to_owned())
}

fn numbers(fields: &Value) -> Result<Numbers, Misfit> {
    Ok(Numbers {
        worker: worker(fields)?,
        last: count(fields, "last_record_number")?,
        records: count(fields, "records")?,
    })
}

fn worker_links(fields: &Value) -> Result<WorkerLinks, Misfit> {
    Ok(WorkerLinks {
        worker: worker(fields)?,
        before: to_digest(&octets(&fields["before"])?)?,
        links: list(fields, "links").map(link).collect::<Result<_, _>>()?,
    })
}

fn link(fields: &Value) -> Result<WorkerLink, Misfit> {
    Ok(WorkerLink {
        last: count(fields, "last_record_number")?,
        records: count(fields, "records")?,
        digest: to_digest(&octets(&fields["digest"])?)?,
    })
}

fn octets(value: &Value) -> Result<Vec<u8>, Misfit> {
    let decode = |text: &str| data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
    value.as_str().and_then(decode).ok_or_else(|| format!("{value} is not hexadecimal"))
}

fn to_digest(octets: &[u8]) -> Result<Digest, Misfit> {
    octets.try_into().map(Digest).map_err(|_| "a digest has 32 bytes".to_owned())
}
