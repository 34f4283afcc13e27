//! Service accounts: their tokens, and kubeconfig files that use them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::KubeApi;
use crate::process::run;

pub(super) const ISSUER: &str = "https://kubernetes.default.svc";
pub(super) const SIGNING_KEY: &str = "service-account.key";

/// The API refuses to issue tokens for less.
const SHORTEST_ISSUED: Duration = Duration::from_secs(600);

/// A service account as a client sees it.
#[derive(Clone, Debug)]
pub struct Account {
    /// Name of the user at the API server: `system:serviceaccount:NAMESPACE:NAME`.
    pub user: String,
    /// Its kubeconfig file, which refers to the token file.
    pub kubeconfig: PathBuf,
    /// `token`, `ca.crt` and `namespace`, as the kubelet mounts them in the account's pods.
    pub directory: PathBuf,
    /// Its token. A test may write another one there.
    pub token_file: PathBuf,
}

impl KubeApi<'_> {
    /// The account `name` of `namespace`, which must exist, with a token that the TokenRequest API
    /// issued for `lifetime`.
    ///
    /// # Errors
    /// When there is no such account, or `lifetime` is below the API's ten minutes.
    pub fn account(&self, namespace: &str, name: &str, lifetime: Duration) -> Result<Account> {
        ensure!(
            lifetime >= SHORTEST_ISSUED,
            "the API issues no token for {lifetime:?}: use account_expiring"
        );
        let lifetime = format!("--duration={}s", lifetime.as_secs());
        let token =
            self.kubectl(&["create", "token", name, "--namespace", namespace, &lifetime])?;
        self.account_with(namespace, name, token.trim())
    }

    /// Does the same as [`account`](Self::account), with a token that ends at `expiry`, past or to come. It is
    /// signed here with the API server's key: the API would not issue one that ends soon.
    ///
    /// # Errors
    /// When there is no such account.
    pub fn account_expiring(
        &self,
        namespace: &str,
        name: &str,
        expiry: SystemTime,
    ) -> Result<Account> {
        let token = self.signed_token(namespace, name, expiry)?;
        self.account_with(namespace, name, &token)
    }

    /// A token as [`account_expiring`](Self::account_expiring) uses, to be written over an account's.
    ///
    /// # Errors
    /// See there.
    pub fn signed_token(&self, namespace: &str, name: &str, expiry: SystemTime) -> Result<String> {
        let uid = self.kubectl(&[
            "get",
            "serviceaccount",
            name,
            "--namespace",
            namespace,
            "--output=jsonpath={.metadata.uid}",
        ])?;
        let expiry = expiry.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let issued = expiry.saturating_sub(SHORTEST_ISSUED.as_secs());
        let claims = json!({
            "iss": ISSUER,
            "aud": [ISSUER],
            "sub": format!("system:serviceaccount:{namespace}:{name}"),
            "iat": issued,
            "nbf": issued,
            "exp": expiry,
            "kubernetes.io": {
                "namespace": namespace,
                "serviceaccount": {"name": name, "uid": uid.trim()},
            },
        });
        self.sign(&claims)
    }

    /// A JSON Web Signature (RFC 7515 §3.1) with RS256.
    fn sign(&self, claims: &Value) -> Result<String> {
        let header = json!({"alg": "RS256", "typ": "JWT"});
        let signed = format!("{}.{}", base64url(header.to_string()), base64url(claims.to_string()));
        let input = self.directory.path().join("to-sign");
        fs::write(&input, &signed)?;
        let output = Command::new("openssl")
            .args(["dgst", "-sha256", "-sign"])
            .arg(self.directory.path().join(SIGNING_KEY))
            .arg(&input)
            .output()
            .context("start openssl (package openssl)")?;
        ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
        Ok(format!("{signed}.{}", base64url(output.stdout)))
    }

    fn account_with(&self, namespace: &str, name: &str, token: &str) -> Result<Account> {
        let directory = self.directory.path().join("accounts");
        let kubeconfig = directory.join(format!("{namespace}-{name}.kubeconfig"));
        let directory = directory.join(format!("{namespace}-{name}"));
        fs::create_dir_all(&directory)?;
        let token_file = directory.join("token");
        fs::write(&token_file, token)?;
        fs::write(directory.join("namespace"), namespace)?;
        fs::copy(self.ca(), directory.join("ca.crt")).context("copy the CA file")?;
        let user = format!("{{tokenFile: {}}}", token_file.display());
        let text = self::kubeconfig(&self.url(), &self.ca(), namespace, &user);
        fs::write(&kubeconfig, text)?;
        let user = format!("system:serviceaccount:{namespace}:{name}");
        Ok(Account { user, kubeconfig, directory, token_file })
    }
}

/// The text of a kubeconfig file; `user` is its user in YAML.
pub(super) fn kubeconfig(url: &str, ca: &Path, namespace: &str, user: &str) -> String {
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - {{name: test, cluster: {{server: \"{url}\", certificate-authority: {}}}}}\n\
         users:\n\
         - {{name: test, user: {user}}}\n\
         contexts:\n\
         - {{name: test, context: {{cluster: test, user: test, namespace: {namespace}}}}}\n\
         current-context: test\n",
        ca.display()
    )
}

pub(super) fn make_signing_key(directory: &Path) -> Result<()> {
    let mut openssl = Command::new("openssl");
    openssl.args(["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    run(openssl.arg("-out").arg(directory.join(SIGNING_KEY)))
        .context("make a key to sign tokens (package openssl)")?;
    Ok(())
}

fn base64url(bytes: impl AsRef<[u8]>) -> String {
    data_encoding::BASE64URL_NOPAD.encode(bytes.as_ref())
}
