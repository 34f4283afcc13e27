//! The key of pseudonyms.

use std::{
    fmt::{self, Write as _},
    net::IpAddr,
    path::Path,
};

use arrayvec::ArrayString;
use tap53_base::files::{KeyFileError, read_key};

/// Size of a key in octets.
const KEY_SIZE: usize = blake3::KEY_LEN;

/// Maximum number of octets of a file that are read: more than a key in any format.
const MAX_FILE_SIZE: u64 = 256;

/// `h:` and 128 bits: two of a million addresses collide with a probability of 2⁻⁸⁹.
pub type Pseudonym = ArrayString<34>;

/// The secret key of pseudonyms. It is never written anywhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; KEY_SIZE]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(not shown)")
    }
}

/// Reasons to refuse a key file. No message contains any of the file's content.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file is refused.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The content is not a key.
    #[error(
        "must hold a key: {KEY_SIZE} octets, or {} hexadecimal digits",
        2 * KEY_SIZE
    )]
    NotAKey,
    /// All octets are equal.
    #[error(
        "is no secret: all its octets are the same; make one with: head -c {KEY_SIZE} /dev/urandom"
    )]
    NotASecret,
}

impl Key {
    /// Reads a key: 32 octets, or 64 hexadecimal digits with an optional line feed.
    ///
    /// # Errors
    /// Fails if the file is not readable, is open to every user, or contains no key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        Self::from_content(&read_key(path, MAX_FILE_SIZE, true)?)
    }

    /// Returns a key that is no secret, for a configuration that is only checked, on a machine without
    /// the key's file.
    #[must_use]
    pub const fn placeholder() -> Self {
        Self([0; KEY_SIZE])
    }

    /// Parses the content of a key file.
    ///
    /// # Errors
    /// Fails if it contains no key.
    pub fn from_content(content: &[u8]) -> Result<Self, KeyError> {
        let key = <[u8; KEY_SIZE]>::try_from(content)
            .ok()
            .or_else(|| from_hexadecimal(content.trim_ascii()))
            .ok_or(KeyError::NotAKey)?;
        if key.iter().all(|octet| *octet == key[0]) {
            return Err(KeyError::NotASecret);
        }
        Ok(Self(key))
    }

    /// Returns the pseudonym of an address, which is the same for its IPv4 and IPv4-mapped form.
    pub(super) fn pseudonym_of_address(&self, address: IpAddr) -> Pseudonym {
        match address.to_canonical() {
            IpAddr::V4(address) => self.pseudonym(&address.octets()),
            IpAddr::V6(address) => self.pseudonym(&address.octets()),
        }
    }

    /// Returns a key for another purpose.
    pub(super) fn derive(&self, purpose: &str) -> [u8; KEY_SIZE] {
        blake3::derive_key(purpose, &self.0)
    }

    /// Returns the pseudonym of any octets.
    pub(super) fn pseudonym(&self, octets: &[u8]) -> Pseudonym {
        let hash = blake3::keyed_hash(&self.0, octets);
        let mut text = Pseudonym::new();
        if let Some(octets) = hash.as_bytes().first_chunk() {
            // The capacity of the type suffices.
            let _ = write!(text, "h:{:032x}", u128::from_be_bytes(*octets));
        }
        text
    }
}

fn from_hexadecimal(text: &[u8]) -> Option<[u8; KEY_SIZE]> {
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    let mut key = [0; KEY_SIZE];
    if pairs.len() != key.len() {
        return None;
    }
    for (octet, pair) in key.iter_mut().zip(pairs) {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        *octet = u8::try_from(high? << 4 | low?).ok()?;
    }
    Some(key)
}
#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    const RAW: [u8; KEY_SIZE] = *b"\x00\xffoctets that are no text, UTF-8";

    fn file(content: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    fn hexadecimal(octets: &[u8]) -> String {
        octets.iter().map(|octet| format!("{octet:02x}")).collect()
    }

    #[test]
    fn a_key_is_read_in_both_forms() {
        let raw = Key::read(file(&RAW, 0o600).path()).unwrap();
        for text in [hexadecimal(&RAW), hexadecimal(&RAW).to_uppercase() + "\n"] {
            assert!(Key::read(file(text.as_bytes(), 0o440).path()).unwrap() == raw);
        }
    }

    #[test]
    fn a_file_that_every_user_can_reach_is_refused() {
        for mode in [0o604, 0o602, 0o644, 0o601] {
            let error = Key::read(file(&RAW, mode).path()).unwrap_err();
            assert!(
                matches!(error, KeyError::File(KeyFileError::Open { mode: found }) if found == mode),
                "{error}"
            );
        }
    }

    #[test]
    fn an_invalid_key_is_refused_without_showing_it() {
        let digits = hexadecimal(&RAW);
        for content in
            [&b""[..], &RAW[..31], b"secret", &digits.as_bytes()[1..], &[b'g'; 64], &[b'+'; 64]]
        {
            let error = Key::read(file(content, 0o600).path()).unwrap_err();
            assert!(matches!(error, KeyError::NotAKey), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let error = Key::read(file(&[7; KEY_SIZE], 0o600).path()).unwrap_err();
        assert!(matches!(error, KeyError::NotASecret), "{error}");
    }

    #[test]
    fn a_key_has_no_text() {
        let key = Key::from_content(&RAW).unwrap();
        let text = format!("{key:?}");
        assert_eq!(text, "Key(not shown)");
    }
}
