//! Sealing a summary: it gets the links of its window, the digest of the summary before, and a signature.

use tap53_records::encode;

use super::{
    Summary,
    chain::{Chains, Cut, Digest},
    signature::SigningKey,
};
use crate::SummaryEncoder;

/// What a digest of a summary and its signature are bound to. A change of the construction gets another
/// text.
const SUMMARY: &str = "tap53 2026-11 ledger summary";
const SIGNED: &[u8] = b"tap53 2026-11 ledger summary signature\n";

/// What a sink's summaries are sealed with.
pub struct Evidence {
    /// Chains of the sink's records.
    pub chains: Chains,
    /// Signs, if anything does.
    pub key: Option<SigningKey>,
}

/// Seals the summaries of one run and sink, in their order.
pub struct Sealer {
    encoder: SummaryEncoder,
    previous: Option<Digest>,
}

/// Digest of a summary, of its single object as it is without a signature.
#[must_use]
pub fn summary_digest(unsigned: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key(SUMMARY);
    hasher.update(unsigned);
    hasher.finalize().into()
}

/// What is signed for a summary with this digest.
#[must_use]
pub fn signed_message(digest: &Digest) -> Vec<u8> {
    [SIGNED, &digest.0].concat()
}

impl Sealer {
    /// Of a run that begins.
    ///
    /// # Errors
    /// When the schema of summaries does not parse, which is a defect of this program.
    pub fn new() -> Result<Self, encode::Error> {
        Ok(Self { encoder: SummaryEncoder::new()?, previous: None })
    }

    /// Seals the next summary.
    ///
    /// # Errors
    /// When summary and schema disagree, which is a defect of this program.
    pub fn seal(
        &mut self,
        summary: &mut Summary,
        evidence: &Evidence,
    ) -> Result<(), encode::Error> {
        let Cut { chains, fingerprint } = evidence.chains.cut();
        summary.chains = chains;
        summary.record_fingerprint =
            fingerprint.map(|fingerprint| data_encoding::HEXLOWER.encode(&fingerprint));
        summary.previous_digest = self.previous;
        summary.signing_key = evidence.key.as_ref().map(SigningKey::id);
        summary.signature = None;
        let digest = summary_digest(&self.encoder.encode(summary)?);
        summary.signature =
            evidence.key.as_ref().and_then(|key| key.sign(&signed_message(&digest)));
        self.previous = Some(digest);
        Ok(())
    }
}
