//! Seals a summary: adds the links of its window, the digest of the summary before, and a signature.

use tap53_records::encode;

use super::{
    Summary,
    chain::{Chains, Cut, Digest},
    signature::SigningKey,
};
use crate::SummaryEncoder;

/// Contexts of the digest of a summary and of its signature. Another construction must get other texts.
const SUMMARY: &str = "tap53 2026-11 ledger summary";
const SIGNED: &[u8] = b"tap53 2026-11 ledger summary signature\n";

/// The chains and the key that a sink's summaries are sealed with.
pub struct Evidence {
    /// Chains of the sink's records.
    pub chains: Chains,
    /// The key that signs, if there is one.
    pub key: Option<SigningKey>,
}

/// Seals the summaries of one run and sink, in their order.
pub struct Sealer {
    encoder: SummaryEncoder,
    previous: Option<Digest>,
}

/// Returns the digest of a summary, over its single object without a signature.
#[must_use]
pub fn summary_digest(unsigned: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key(SUMMARY);
    hasher.update(unsigned);
    hasher.finalize().into()
}

/// Returns the message that is signed for a summary with this digest.
#[must_use]
pub fn signed_message(digest: &Digest) -> Vec<u8> {
    [SIGNED, &digest.0].concat()
}

impl Sealer {
    /// Creates the sealer of a run that begins.
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
