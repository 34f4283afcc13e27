//! The `sasl` section: the agent's identity, and how it proves it.

use std::path::PathBuf;

use clap::ValueEnum;
use http::{Uri, uri::Scheme};
use serde::Serialize;
use tap53_base::settings::{Section, boolean, choice, readable_file, text};
use tap53_http::has_usable_port;

/// The SASL identity of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SaslConfig {
    /// The mechanism that proves it.
    pub mechanism: SaslMechanism,
    /// The secret or token that proves it.
    #[serde(flatten)]
    pub credentials: Credentials,
    /// True if a password or a token may be sent without TLS.
    pub allow_cleartext: bool,
}

/// A SASL mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SaslMechanism {
    /// By sending a password.
    Plain,
    /// SCRAM with SHA-256 (RFC 7677).
    #[value(name = "scram-sha-256")]
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// SCRAM with SHA-512.
    #[value(name = "scram-sha-512")]
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
    /// By sending a token (RFC 7628).
    #[value(name = "oauthbearer")]
    #[serde(rename = "oauthbearer")]
    OauthBearer,
}

/// The credentials. Files are read again while the agent runs, and new content is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Credentials {
    /// A password.
    Password {
        /// Name.
        username: String,
        /// Holds the password.
        password_file: PathBuf,
    },
    /// A token (a JWT) that another program renews, as the kubelet does for service accounts.
    TokenFile {
        /// Holds the token.
        token_file: PathBuf,
    },
    /// Tokens that an authorization server gives for a secret.
    TokenEndpoint(TokenEndpoint),
}

/// An authorization server that gives tokens to clients (RFC 6749 §4.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenEndpoint {
    /// The HTTPS URL of its token endpoint.
    #[serde(rename = "token_endpoint")]
    pub url: String,
    /// The agent's client id.
    pub client_id: String,
    /// Holds the client's secret.
    pub client_secret_file: PathBuf,
    /// The scope to request, if the server needs one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Certificates of the authorities to trust; `None`: those of the system.
    #[serde(rename = "token_ca_file", skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

impl SaslMechanism {
    /// True if someone who listens learns the secret, unless there is TLS.
    #[must_use]
    pub const fn shows_secret(self) -> bool {
        matches!(self, Self::Plain | Self::OauthBearer)
    }
}

impl SaslConfig {
    pub(super) fn read(section: &mut Section<'_>, has_tls: bool) -> Option<Self> {
        let Some(mechanism) = section.require("mechanism", choice::<SaslMechanism>) else {
            section.skip_rest();
            return None;
        };
        let allow_cleartext = section.read("allow_cleartext", boolean).unwrap_or(false);
        if mechanism.shows_secret() && !has_tls && !allow_cleartext {
            section.refuse_all(format!(
                "{} sends its secret as it is, and without tls whoever listens on the way has it: \
                 add tls, or choose scram-sha-512, or say allow_cleartext: true",
                mechanism.to_possible_value().map_or("it".to_owned(), |v| v.get_name().to_owned()),
            ));
        }
        let credentials = match mechanism {
            SaslMechanism::OauthBearer => Credentials::of_bearer(section),
            _ => Credentials::of_user(section),
        };
        Some(Self { mechanism, credentials: credentials?, allow_cleartext })
    }
}

impl Credentials {
    fn of_user(section: &mut Section<'_>) -> Option<Self> {
        let username = section.require("username", text(not_empty));
        let password_file = section.require("password_file", section.path(readable_file));
        Some(Self::Password { username: username?, password_file: password_file? })
    }

    fn of_bearer(section: &mut Section<'_>) -> Option<Self> {
        if section.has("token_file") {
            if section.has("token_endpoint") {
                section.refuse_all("token_file and token_endpoint: choose one");
                section.skip_rest();
                return None;
            }
            let token_file = section.read("token_file", section.path(readable_file))?;
            return Some(Self::TokenFile { token_file });
        }
        if !section.has("token_endpoint") {
            section.refuse_all("oauthbearer needs token_file, or token_endpoint and what it asks");
            section.skip_rest();
            return None;
        }
        let url = section.require("token_endpoint", text(https));
        if url.as_ref().is_some_and(|url| url.contains('@')) {
            // Without the value, which may hold a secret.
            section.refuse("token_endpoint", None, "must not hold a user or a password");
        }
        let client_id = section.require("client_id", text(not_empty));
        let client_secret_file = section.require("client_secret_file", section.path(readable_file));
        let scope = section.read("scope", text(not_empty));
        let ca_file = section.read("token_ca_file", section.path(readable_file));
        Some(Self::TokenEndpoint(TokenEndpoint {
            url: url?,
            client_id: client_id?,
            client_secret_file: client_secret_file?,
            scope,
            ca_file,
        }))
    }
}

fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// Checks the URL that the client's secret is sent to (RFC 6749 §3.2 requires TLS). One that may hold a
/// password passes: it is refused later, without being shown.
fn https(text: &str) -> Result<String, String> {
    if text.contains('@') {
        return Ok(text.to_owned());
    }
    let uri: Uri = text.parse().map_err(|error| format!("is not a URL: {error}"))?;
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    if uri.scheme() != Some(&Scheme::HTTPS) || !has_host {
        return Err("must be https://host/path: the client's secret is sent there".to_owned());
    }
    uri.authority().map_or(Ok(()), has_usable_port)?;
    Ok(text.to_owned())
}
