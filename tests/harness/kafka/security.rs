//! Certificates and passwords, and listeners that require them.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use tempfile::TempDir;

use super::Issuer;
use crate::{process::run, scratch};

/// The user whom the broker knows.
pub const USER: &str = "tap53";
/// The password of that user, where it is proved.
pub const SCRAM_PASSWORD: &str = "a scram password";
/// The password of that user, where it is sent.
pub const PLAIN_PASSWORD: &str = "a plain password";
/// The password of the key of the client's certificate.
const KEY_PASSWORD: &str = "a key's password";

/// A CA of the test with its certificates, and the issuer of tokens that the broker accepts.
pub struct Security {
    directory: TempDir,
    issuer: Issuer,
    reauthentication_ms: u64,
}

/// Additional listeners of a broker with security.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listeners {
    /// TLS and a password.
    pub(super) sasl_ssl: SocketAddr,
    /// TLS and a certificate.
    pub(super) ssl: SocketAddr,
    /// TLS and a token.
    pub(super) token: SocketAddr,
    /// A password in the clear.
    pub(super) cleartext: SocketAddr,
}

impl Security {
    /// Makes an authority, and certificates of the broker and of a client.
    ///
    /// # Errors
    /// Without openssl.
    pub fn new() -> Result<Self> {
        let security = Self {
            directory: scratch::directory("certificates")?,
            issuer: Issuer::new()?,
            reauthentication_ms: 0,
        };
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

    /// Returns the issuer of tokens that the broker accepts.
    #[must_use]
    pub const fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Sets the interval at which the broker requires reauthentication with a token.
    #[must_use]
    pub fn with_reauthentication_ms(self, reauthentication_ms: u64) -> Self {
        Self { reauthentication_ms, ..self }
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
        listeners: Listeners,
    ) -> String {
        let Listeners { sasl_ssl, ssl, token, cleartext } = listeners;
        let more = format!(
            "PASSWORD://{sasl_ssl},CERTIFICATE://{ssl},TOKEN://{token},CLEARTEXT://{cleartext}"
        );
        let path = |name| -> String { Path::display(&self.path(name)).to_string() };
        let plain = format!(
            "org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}=\"{PLAIN_PASSWORD}\";"
        );
        format!(
            "listeners=PLAINTEXT://{broker},CONTROLLER://{controller},{more}\n\
             advertised.listeners=PLAINTEXT://{broker},{more}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PASSWORD:SASL_SSL,CERTIFICATE:SSL,TOKEN:SASL_SSL,CLEARTEXT:SASL_PLAINTEXT\n\
             sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256,PLAIN\n\
             listener.name.password.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
             listener.name.password.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
             listener.name.password.plain.sasl.jaas.config={plain}\n\
             listener.name.cleartext.sasl.enabled.mechanisms=PLAIN\n\
             listener.name.cleartext.plain.sasl.jaas.config={plain}\n\
             {}\
             ssl.keystore.type=PEM\n\
             ssl.keystore.location={}\n\
             ssl.truststore.type=PEM\n\
             ssl.truststore.location={}\n\
             listener.name.certificate.ssl.client.auth=required\n",
            self.issuer.configuration(self.reauthentication_ms),
            path("broker.both"),
            path("ca.pem"),
        )
    }
}

/// Returns the arguments of the storage tool that create the user.
pub(super) fn credentials() -> [String; 2] {
    ["SCRAM-SHA-512", "SCRAM-SHA-256"]
        .map(|mechanism| format!("{mechanism}=[name={USER},password={SCRAM_PASSWORD}]"))
}
