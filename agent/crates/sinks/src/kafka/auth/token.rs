//! A token, and what it says of itself.
//!
//! Its signature is the broker's business: it knows whom it trusts. Here only whose token it is and
//! until when is of interest.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use jiff::Timestamp;
use serde::Deserialize;

/// Longer ones do not fit the 512 KiB that brokers take for a request of this kind.
const MAX_BYTES: usize = 400 << 10;

/// A token that has not expired when it is made.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    text: String,
    /// Whom it is of, for logs.
    pub(super) principal: String,
    /// The end of its life.
    pub(super) expires_at: Timestamp,
}

/// Without the text, which is all that an impostor needs.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("principal", &self.principal)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// Shows the principal and the expiry, and never the token.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token of {}, valid until {:.0}", self.principal, self.expires_at)
    }
}

/// Reasons why a text is no usable token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// Too long to be sent.
    #[error("it is longer than brokers take")]
    TooLong,
    /// Its parts are not those of a JWT (RFC 7519 §3).
    #[error("it is not a JWT: {0}")]
    NotJwt(&'static str),
    /// There is no telling when to have a new one.
    #[error("it does not say when it expires (exp)")]
    WithoutExpiry,
    /// Its time is over.
    #[error("it expired at {0:.0}")]
    Expired(Timestamp),
}

/// The claims that matter here (RFC 7519 §4.1).
#[derive(Default, Deserialize)]
struct Claims {
    sub: Option<String>,
    /// Seconds since 1970, maybe with a fraction.
    exp: Option<f64>,
}

impl Token {
    /// A token that says itself whose it is and until when.
    pub(super) fn of_jwt(text: &str, now: Timestamp) -> Result<Self, Unusable> {
        check(text)?;
        let claims = claims(text)?;
        let expires_at = claims.exp.and_then(timestamp).ok_or(Unusable::WithoutExpiry)?;
        Self {
            text: text.to_owned(),
            principal: claims.sub.unwrap_or_else(|| "unknown".to_owned()),
            expires_at,
        }
        .if_alive(now)
    }

    /// A token whose remaining life the server gave with it. It need not be a JWT.
    pub(super) fn of_answer(
        text: &str,
        lifetime_s: Option<f64>,
        asked_by: &str,
        now: Timestamp,
    ) -> Result<Self, Unusable> {
        check(text)?;
        let claims = claims(text).unwrap_or_default();
        let of_answer = lifetime_s.and_then(|lifetime_s| timestamp(seconds(now) + lifetime_s));
        let of_claims = claims.exp.and_then(timestamp);
        let expires_at = match (of_answer, of_claims) {
            (Some(one), Some(other)) => one.min(other),
            (one, other) => one.or(other).ok_or(Unusable::WithoutExpiry)?,
        };
        Self {
            text: text.to_owned(),
            principal: claims.sub.unwrap_or_else(|| asked_by.to_owned()),
            expires_at,
        }
        .if_alive(now)
    }

    fn if_alive(self, now: Timestamp) -> Result<Self, Unusable> {
        if self.expires_at <= now { Err(Unusable::Expired(self.expires_at)) } else { Ok(self) }
    }

    /// Returns the secret text, which must not be shown.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// Nothing that could end the message that a token is sent in (RFC 7628 §3.1), nor a line of a log.
fn check(text: &str) -> Result<(), Unusable> {
    if text.is_empty() {
        Err(Unusable::Empty)
    } else if text.len() > MAX_BYTES {
        Err(Unusable::TooLong)
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Err(Unusable::NotJwt("there are characters in it that are in none"))
    } else {
        Ok(())
    }
}

fn claims(text: &str) -> Result<Claims, Unusable> {
    let mut parts = text.split('.');
    let (Some(_), Some(claims), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Unusable::NotJwt("it has not three parts with dots between"));
    };
    let claims = BASE64URL_NOPAD
        .decode(claims.as_bytes())
        .map_err(|_| Unusable::NotJwt("its claims are not base64url"))?;
    serde_json::from_slice(&claims).map_err(|_| Unusable::NotJwt("its claims cannot be read"))
}

/// `None` where it is no time that a clock could show.
fn timestamp(seconds: f64) -> Option<Timestamp> {
    // Beyond, whole milliseconds are no longer exact; 9999 is before.
    const MAX_SECONDS: f64 = 253_402_207_200.0;
    if !(0.0..=MAX_SECONDS).contains(&seconds) {
        return None;
    }
    // In range, see above.
    #[allow(clippy::cast_possible_truncation)]
    Timestamp::from_millisecond((seconds * 1_000.0) as i64).ok()
}

#[allow(clippy::cast_precision_loss)]
fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> String {
        let encode = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
        format!("{}.{}.c2lnbmF0dXJl", encode("{\"alg\":\"RS256\"}"), encode(claims))
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_token_says_whose_it_is_and_until_when() {
        let text = jwt("{\"sub\":\"system:serviceaccount:dns:tap53\",\"exp\":1000.5,\"x\":[]}");
        let token = Token::of_jwt(&text, at(1_000)).unwrap();
        assert_eq!(token.principal, "system:serviceaccount:dns:tap53");
        assert_eq!(token.expires_at.as_millisecond(), 1_000_500);
        assert_eq!(token.text(), text);
        assert_eq!(Token::of_jwt(&text, at(1_001)), Err(Unusable::Expired(token.expires_at)));
        let shown = format!("{token:?}");
        assert!(!shown.contains(&text[..20]) && shown.contains("serviceaccount"), "{shown}");
    }

    #[test]
    fn what_is_no_token_is_refused_with_the_reason_and_without_the_text() {
        let long = "x".repeat(MAX_BYTES + 1);
        for (text, expected) in [
            ("", "it is empty"),
            (long.as_str(), "longer"),
            ("secret", "not three parts"),
            ("secret.secret.secret.secret", "not three parts"),
            ("secret.se=cret.secret", "not base64url"),
            ("secret.c2VjcmV0.secret", "cannot be read"),
            ("secret\nsecret", "characters"),
            (&jwt("{\"sub\":\"secret\"}"), "does not say when it expires"),
            (&jwt("{\"exp\":-1}"), "does not say when it expires"),
            (&jwt("{\"exp\":1e300}"), "does not say when it expires"),
            (&jwt("{\"exp\":\"secret\"}"), "cannot be read"),
            (&jwt("{\"exp\":7}"), "expired at 1970-01-01T00:00:07Z"),
        ] {
            let refused = Token::of_jwt(text, at(8)).unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
            assert!(!refused.contains("secret"), "{refused}");
        }
    }

    #[test]
    fn an_opaque_token_lives_as_long_as_the_server_says() {
        let token = Token::of_answer("opaque", Some(60.0), "client", at(100)).unwrap();
        assert_eq!((token.expires_at, token.principal.as_str()), (at(160), "client"));
        assert_eq!(
            Token::of_answer("opaque", None, "client", at(100)),
            Err(Unusable::WithoutExpiry)
        );
        // Both say it: the earlier one counts.
        let text = jwt("{\"exp\":130,\"sub\":\"me\"}");
        let token = Token::of_answer(&text, Some(60.0), "client", at(100)).unwrap();
        assert_eq!((token.expires_at, token.principal.as_str()), (at(130), "me"));
    }
}
