//! A token, with its principal and its expiry. The broker checks its signature.

use std::{fmt, time::Duration};

use data_encoding::BASE64URL_NOPAD;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

/// The longest token: brokers accept 512 KiB for the request.
const MAX_BYTES: usize = 400 << 10;

/// A token, which had not expired when it was created.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    text: String,
    /// Its owner, for logs.
    pub(crate) principal: String,
    pub(crate) expires_at: Timestamp,
}

/// Writes the same as `Display`, without the secret text.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
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
pub(super) enum Unusable {
    #[error("it is empty")]
    Empty,
    #[error("it is longer than brokers take")]
    TooLong,
    /// Its parts are not those of a JWT (RFC 7519 §3).
    #[error("it is not a JWT: {0}")]
    NotJwt(&'static str),
    #[error("it does not say when it expires (exp)")]
    WithoutExpiry,
    #[error("it expired at {0:.0}")]
    Expired(Timestamp),
}

/// The claims that the agent reads (RFC 7519 §4.1).
#[derive(Default, Deserialize)]
struct Claims {
    sub: Option<String>,
    /// Seconds since 1970 UTC, perhaps with a fraction.
    exp: Option<f64>,
}

impl Token {
    /// Reads a JWT, whose claims have its owner and its expiry.
    pub(super) fn of_jwt(text: &str, now: Timestamp) -> Result<Self, Unusable> {
        check(text)?;
        Self::new(text, claims(text)?, None, "unknown", now)
    }

    /// Takes a token from a server's answer, which has its lifetime. It need not be a JWT.
    pub(super) fn of_answer(
        text: &str,
        lifetime_s: Option<f64>,
        client_id: &str,
        now: Timestamp,
    ) -> Result<Self, Unusable> {
        check(text)?;
        let expires_at = lifetime_s.and_then(|lifetime_s| after(now, lifetime_s));
        Self::new(text, claims(text).unwrap_or_default(), expires_at, client_id, now)
    }

    /// The earlier of two expiries counts.
    fn new(
        text: &str,
        claims: Claims,
        expires_at: Option<Timestamp>,
        principal: &str,
        now: Timestamp,
    ) -> Result<Self, Unusable> {
        let exp = claims.exp.and_then(|exp_s| after(Timestamp::UNIX_EPOCH, exp_s));
        let expires_at = expires_at.into_iter().chain(exp).min();
        let expires_at = expires_at.ok_or(Unusable::WithoutExpiry)?;
        if expires_at <= now {
            return Err(Unusable::Expired(expires_at));
        }
        let principal = claims.sub.unwrap_or_else(|| principal.to_owned());
        Ok(Self { text: text.to_owned(), principal, expires_at })
    }

    /// Returns four fifths of its lifetime, so that there is time to retry the request for the next.
    pub(crate) fn until_renewal(&self) -> Duration {
        let left = self.expires_at.duration_since(Timestamp::now());
        Duration::try_from(left).unwrap_or_default().mul_f64(0.8)
    }

    /// Returns the secret text, which must not be shown.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// Refuses characters that could end the message with the token (RFC 7628 §3.1) or a line of a log.
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
    let [_, claims, _] = text.split('.').collect::<Vec<_>>()[..] else {
        return Err(Unusable::NotJwt("it has not three parts with dots between"));
    };
    let claims = BASE64URL_NOPAD
        .decode(claims.as_bytes())
        .map_err(|_| Unusable::NotJwt("its claims are not base64url"))?;
    serde_json::from_slice(&claims).map_err(|_| Unusable::NotJwt("its claims cannot be read"))
}

/// `None` if the time is beyond the years that a [`Timestamp`] can have.
fn after(start: Timestamp, seconds: f64) -> Option<Timestamp> {
    start.checked_add(SignedDuration::try_from_secs_f64(seconds).ok()?).ok()
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
            (&jwt("{\"exp\":-1}"), "expired at 1969-12-31T23:59:59Z"),
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
