//! A Kafka sink's `registry` section: the source of schema ids.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueEnum;
use serde::Serialize;
use tap53_base::settings::{Machine, Section, boolean, choice, milliseconds, readable_file, text};
use tap53_http::base_url;

use super::SinkConfig;

/// A schema registry with Confluent's API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RegistryConfig {
    /// Its instances, at least one: `http://` or `https://`, with or without a path. They are
    /// queried in this order until one answers.
    pub urls: Vec<String>,
    /// The strategy that names subjects.
    pub subject: SubjectStrategy,
    /// True if the agent registers a missing schema.
    pub register: bool,
    /// The agent's credentials; `None`: it sends none.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<RegistryCredentials>,
    /// True if a password or a token may be sent without TLS.
    pub allow_cleartext: bool,
    /// Certificates of the authorities to trust; `None`: those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The deadline of each request.
    #[serde(rename = "timeout_ms", serialize_with = "tap53_base::settings::as_milliseconds")]
    pub timeout: Duration,
    /// The file that keeps ids for the next start; `None`: they are not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids_file: Option<PathBuf>,
}

/// Credentials for the registry. Their files are read for each round of requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum RegistryCredentials {
    /// HTTP basic authentication.
    Password {
        /// Name.
        username: String,
        /// Holds the password.
        password_file: PathBuf,
    },
    /// A bearer token.
    Token {
        /// Holds the token.
        token_file: PathBuf,
    },
}

/// Names the subject of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum SubjectStrategy {
    /// `<topic>-value`.
    TopicName,
    /// The record's full name.
    RecordName,
    /// `<topic>-<record's full name>`.
    TopicRecordName,
}

impl RegistryConfig {
    /// `spool` is the default directory of the ids.
    pub(super) fn read(section: &mut Section<'_>, spool: Option<&Path>) -> Option<Self> {
        if !section.has("urls") {
            section.refuse("urls", None, "missing: name at least one, http://host:port");
        }
        let urls = section.read_some("urls", text(base_url));
        let subject = section.read("subject", choice).unwrap_or(SubjectStrategy::TopicName);
        let register = section.read("register", boolean).unwrap_or(true);
        let username = section.read("username", text(username));
        let password_file = section.read("password_file", section.path(readable_file));
        let token_file = section.read("token_file", section.path(readable_file));
        let allow_cleartext = section.read("allow_cleartext", boolean).unwrap_or(false);
        let ca_file = section.read("ca_file", section.path(readable_file));
        let timeout = section.read("timeout_ms", milliseconds(100..=300_000));
        let ids_file = section.read("ids_file", section.path(ids_file));
        let credentials = match (username, password_file, token_file) {
            (None, None, None) => None,
            (Some(username), Some(password_file), None) => {
                Some(RegistryCredentials::Password { username, password_file })
            }
            (None, None, Some(token_file)) => Some(RegistryCredentials::Token { token_file }),
            (_, _, Some(_)) => {
                section.refuse_all("token_file stands for username and password_file: give one");
                None
            }
            _ => {
                section.refuse_all("username and password_file belong together");
                None
            }
        };
        if urls.iter().flatten().any(|url| url.contains('@')) {
            // Without the value, which may hold a secret.
            section.refuse(
                "urls",
                None,
                "must not hold a name or a password: use username and password_file",
            );
        }
        if urls.iter().flatten().any(|url| url.contains('?')) {
            section.refuse("urls", None, "must not have anything after the path");
        }
        let is_secure = |url: &String| url.starts_with("https:");
        let urls = urls?;
        if ca_file.is_some() && !urls.iter().any(is_secure) {
            section.refuse_all("ca_file is for https, and no URL is one");
        }
        if credentials.is_some() && !allow_cleartext && !urls.iter().all(is_secure) {
            section.refuse_all(
                "the credentials are sent as they are, and without https whoever listens on the \
                 way has them: give https URLs alone, or say allow_cleartext: true",
            );
        }
        Some(Self {
            urls,
            subject,
            register,
            credentials,
            allow_cleartext,
            ca_file,
            timeout: timeout.unwrap_or(Duration::from_secs(10)),
            ids_file: ids_file.or_else(|| spool.map(in_directory)),
        })
    }
}

/// The default of `ids_file`.
fn in_directory(directory: &Path) -> PathBuf {
    directory.join("schema-ids.json")
}

/// Sets the default file of ids, in the directory of the agent's state.
pub(super) fn keep_ids(sinks: &mut [SinkConfig], state: Option<&Path>) {
    for sink in sinks {
        if let SinkConfig::Kafka(kafka) = sink
            && let Some(registry) = &mut kafka.registry
            && registry.ids_file.is_none()
        {
            registry.ids_file = state.map(in_directory);
        }
    }
}

/// Refuses a colon, which separates the user from the password (RFC 7617).
fn username(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(':') || text.chars().any(char::is_control) {
        Err("must not be empty, nor contain a colon or control characters".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// Reads the path of a file that need not exist yet, nor its directory.
fn ids_file(text: &str, machine: Machine) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if !path.is_absolute() {
        return Err("must be an absolute path".to_owned());
    }
    match machine {
        Machine::Agent if path.is_dir() => Err("is a directory".to_owned()),
        Machine::Agent | Machine::Other => Ok(path),
    }
}
