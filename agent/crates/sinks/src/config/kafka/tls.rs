//! The `tls` section.

use std::path::PathBuf;

use serde::Serialize;
use tap53_base::settings::{Section, boolean, readable_file};

/// TLS to the brokers. Files are PEM. They are read again while the agent runs, and new ones are used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TlsConfig {
    /// Certificates of the authorities to trust; `None`: those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The agent's certificate, for brokers that request one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_file: Option<PathBuf>,
    /// The key of that certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// Holds the password of that key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_password_file: Option<PathBuf>,
    /// True if a broker's certificate must name the host of the connection.
    pub verify_hostname: bool,
}

impl TlsConfig {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let mut file = |key| section.read(key, section.path(readable_file));
        let read = Self {
            ca_file: file("ca_file"),
            certificate_file: file("certificate_file"),
            key_file: file("key_file"),
            key_password_file: file("key_password_file"),
            verify_hostname: section.read("verify_hostname", boolean).unwrap_or(true),
        };
        if read.certificate_file.is_some() != read.key_file.is_some() {
            section.refuse_all("certificate_file and key_file belong together");
        }
        read
    }
}
