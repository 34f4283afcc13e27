use std::{fs, os::unix::fs::PermissionsExt as _};

use super::*;

/// RFC 8410 10.3, as OpenSSL writes a private key: version 1, without the public key.
pub(crate) const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
";
/// RFC 8410 10.1.
pub(crate) const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
";

fn file(content: &str, mode: u32) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), content).unwrap();
    fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
    file
}

#[test]
fn what_one_key_signs_its_other_half_verifies() {
    let signing = SigningKey::read(file(PRIVATE, 0o440).path()).unwrap();
    let verifying = VerifyingKey::read(file(PUBLIC, 0o644).path()).unwrap();
    assert_eq!(signing.id(), verifying.id());
    let signature = signing.sign(b"message").unwrap();
    assert!(verifying.verifies(b"message", &signature));
    assert!(!verifying.verifies(b"massage", &signature));
    assert!(!verifying.verifies(b"message", &signature[..63]));
    for bit in 0..8 * signature.len() {
        let mut flipped = signature;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(!verifying.verifies(b"message", &flipped), "bit {bit}");
    }
    assert!(!VerifyingKey([7; 32]).verifies(b"message", &signature));
}

#[test]
fn what_is_no_key_is_refused_with_what_makes_one() {
    for content in
        ["", "secret", PUBLIC, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
    {
        let error = SigningKey::read(file(content, 0o600).path()).unwrap_err();
        assert!(matches!(error, KeyError::NotAPrivateKey), "{error}");
        assert!(error.to_string().ends_with("openssl genpkey -algorithm ed25519"), "{error}");
    }
    for content in ["", PRIVATE] {
        let error = VerifyingKey::read(file(content, 0o600).path()).unwrap_err();
        assert!(matches!(error, KeyError::NotAPublicKey), "{error}");
    }
}

#[test]
fn a_private_key_that_every_user_can_reach_is_refused() {
    for mode in [0o604, 0o602, 0o644, 0o601] {
        let error = SigningKey::read(file(PRIVATE, mode).path()).unwrap_err();
        assert!(
            matches!(error, KeyError::File(KeyFileError::Open { mode: found }) if found == mode),
            "{error}"
        );
    }
    let missing = SigningKey::read(Path::new("/nonexistent")).unwrap_err();
    assert!(missing.to_string().starts_with("cannot be read: "), "{missing}");
    assert!(matches!(
        SigningKey::read(Path::new("/dev/zero")),
        Err(KeyError::File(KeyFileError::NotAFile))
    ));
}

#[test]
fn a_private_key_has_no_text() {
    let key = SigningKey::read(file(PRIVATE, 0o600).path()).unwrap();
    assert_eq!(format!("{key:?}"), format!("SigningKey({})", key.id()));
}
