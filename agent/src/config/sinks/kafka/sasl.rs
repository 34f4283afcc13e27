//! The `sasl` section: who the agent says it is, and how it proves that.

use std::path::PathBuf;

use clap::ValueEnum;
use serde::Serialize;

use super::{
    super::super::tree::{Section, choice, text},
    readable_file,
};

/// Who the agent says it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SaslConfig {
    /// How it proves that.
    pub mechanism: SaslMechanism,
    /// Name.
    pub username: String,
    /// Holds the password. Looked at while the agent runs: a new password is used from then on.
    pub password_file: PathBuf,
}

/// How a password is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SaslMechanism {
    /// By sending it.
    Plain,
    /// SCRAM with SHA-256 (RFC 7677).
    #[value(name = "scram-sha-256")]
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// SCRAM with SHA-512.
    #[value(name = "scram-sha-512")]
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
}

impl SaslConfig {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let mechanism = section.require("mechanism", choice);
        let username = section.require("username", text(|name| Ok(name.to_owned())));
        let password_file = section.require("password_file", text(readable_file));
        Some(Self { mechanism: mechanism?, username: username?, password_file: password_file? })
    }
}
