//! Certificates and passwords, and listeners that ask for them.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use tempfile::TempDir;

use crate::{process::run, scratch};

/// The user whom the broker knows.
pub const USER: &str = "tap53";
/// The password of that user.
pub const SCRAM_PASSWORD: &str = "a scram password";
/// The password of the key of the client's certificate.
const KEY_PASSWORD: &str = "a key's password";

/// An authority made for the test, and what it certified.
pub struct Security {
    directory: TempDir,
}

impl Security {
    /// Makes an authority, and certificates of the broker and of a client.
    ///
    /// # Errors
    /// Without openssl.
    pub fn new() -> Result<Self> {
        let security = Self { directory: scratch::directory("certificates")? };
        #[rustfmt::skip]
        security.openssl(&[
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=tap53-test-authority", "-days", "2",
        ])?;
        for (name, subject) in [("broker", "/CN=broker"), ("client", "/CN=tap53-agent")] {
            let (key, request) = (format!("{name}.key"), format!("{name}.request"));
            #[rustfmt::skip]
            security.openssl(&[
                "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                &key, "-out", &request, "-subj", subject, "-addext", "subjectAltName=IP:127.0.0.1",
            ])?;
            #[rustfmt::skip]
            security.openssl(&[
                "x509", "-req", "-in", &request, "-CA", "ca.pem", "-CAkey", "ca.key",
                "-CAcreateserial", "-copy_extensions", "copy", "-days", "2", "-out",
                &format!("{name}.pem"),
            ])?;
        }
        #[rustfmt::skip]
        security.openssl(&[
            "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-in", "client.key", "-out",
            "client.encrypted", "-passout", &format!("pass:{KEY_PASSWORD}"),
        ])?;
        // Key and certificate in one file, as the broker wants them.
        let both = [security.read("broker.key")?, security.read("broker.pem")?].concat();
        fs::write(security.path("broker.both"), both)?;
        fs::write(security.path("key-password"), format!("{KEY_PASSWORD}\n"))?;
        Ok(security)
    }

    /// One of its files: `ca.pem`, `client.pem`, `client.encrypted`, `key-password`.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        Ok(fs::read(self.path(name))?)
    }

    fn openssl(&self, arguments: &[&str]) -> Result<()> {
        run(Command::new("openssl").current_dir(self.directory.path()).args(arguments))?;
        Ok(())
    }

    /// Properties that replace those of a broker without security: the last one of a name counts.
    pub(super) fn configuration(
        &self,
        broker: SocketAddr,
        controller: SocketAddr,
        sasl_ssl: SocketAddr,
        ssl: SocketAddr,
    ) -> String {
        let path = |name| -> String { Path::display(&self.path(name)).to_string() };
        format!(
            "listeners=PLAINTEXT://{broker},CONTROLLER://{controller},PASSWORD://{sasl_ssl},CERTIFICATE://{ssl}\n\
             advertised.listeners=PLAINTEXT://{broker},PASSWORD://{sasl_ssl},CERTIFICATE://{ssl}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PASSWORD:SASL_SSL,CERTIFICATE:SSL\n\
             sasl.enabled.mechanisms=SCRAM-SHA-512\n\
             listener.name.password.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
             ssl.keystore.type=PEM\n\
             ssl.keystore.location={}\n\
             ssl.truststore.type=PEM\n\
             ssl.truststore.location={}\n\
             listener.name.certificate.ssl.client.auth=required\n",
            path("broker.both"),
            path("ca.pem"),
        )
    }
}

/// What the storage tool is told of the user.
pub(super) fn credentials() -> String {
    format!("SCRAM-SHA-512=[name={USER},password={SCRAM_PASSWORD}]")
}
