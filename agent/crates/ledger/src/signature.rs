//! Signatures by Ed25519 (RFC 8032), which prove who wrote a summary.

use std::{fmt, path::Path, sync::Arc};

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, pem::PemObject as _};
use tap53_base::files::{KeyFileError, read_key};

/// Limit of bytes that are read from a file; a key in PEM is shorter.
const MAX_FILE_SIZE: u64 = 16 << 10;

/// The bytes before the 32 of an Ed25519 public key in a SubjectPublicKeyInfo (RFC 8410 §4).
const PUBLIC_KEY_PREFIX: [u8; 12] = *b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// The bytes of a signature.
pub type Signature = [u8; 64];

/// An error of reading a key. No message holds anything of the file's content.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file is refused.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// It holds no private key.
    #[error(
        "must hold an Ed25519 private key in PEM (PKCS #8): create one with: openssl genpkey -algorithm ed25519"
    )]
    NotAPrivateKey,
    /// It holds no public key.
    #[error(
        "must hold an Ed25519 public key in PEM: extract it with: openssl pkey -pubout -in PRIVATE_KEY_FILE"
    )]
    NotAPublicKey,
}

/// The private key that summaries are signed with. It has no text.
#[derive(Clone)]
pub struct SigningKey(Arc<Ed25519KeyPair>);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.id())
    }
}

impl PartialEq for SigningKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.public_key().as_ref() == other.0.public_key().as_ref()
    }
}

impl Eq for SigningKey {}

impl SigningKey {
    /// Reads a private key in PEM (PKCS #8).
    ///
    /// # Errors
    /// When the file is not readable, is open to every user, or holds no such key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let pem = read_key(path, MAX_FILE_SIZE, true)?;
        let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|_| KeyError::NotAPrivateKey)?;
        // "Maybe unchecked": OpenSSL writes version 1, which has no public key to check.
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der())
            .map_err(|_| KeyError::NotAPrivateKey)?;
        Ok(Self(Arc::new(pair)))
    }

    /// Returns a key that is no secret, for a configuration that is only checked, on a machine without
    /// the key's file.
    ///
    /// # Errors
    /// None in practice: the seed has the right length.
    pub fn placeholder() -> Result<Self, KeyError> {
        let pair =
            Ed25519KeyPair::from_seed_unchecked(&[0; 32]).map_err(|_| KeyError::NotAPrivateKey)?;
        Ok(Self(Arc::new(pair)))
    }

    /// Returns the id of its public key, see [`VerifyingKey::id`].
    #[must_use]
    pub fn id(&self) -> String {
        key_id(self.0.public_key().as_ref())
    }

    /// Signs a message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Option<Signature> {
        self.0.sign(message).as_ref().try_into().ok()
    }
}

/// A public key that signatures are checked by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey([u8; 32]);

impl VerifyingKey {
    /// Reads a public key in PEM (SubjectPublicKeyInfo).
    ///
    /// # Errors
    /// When the file is not readable or holds no such key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let pem = read_key(path, MAX_FILE_SIZE, false)?;
        let der =
            SubjectPublicKeyInfoDer::from_pem_slice(&pem).map_err(|_| KeyError::NotAPublicKey)?;
        let key = der.as_ref().strip_prefix(&PUBLIC_KEY_PREFIX);
        let key = key.and_then(|key| key.try_into().ok()).ok_or(KeyError::NotAPublicKey)?;
        Ok(Self(key))
    }

    /// Returns the first 8 bytes of BLAKE3 of the key, hexadecimal.
    #[must_use]
    pub fn id(&self) -> String {
        key_id(&self.0)
    }

    /// Returns true if the owner of the key signed `message`.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}

fn key_id(public_key: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&blake3::hash(public_key).as_bytes()[..8])
}

#[cfg(test)]
mod tests;
