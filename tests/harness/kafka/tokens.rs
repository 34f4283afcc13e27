//! Tokens that the broker believes, and a stub of the authorization server that gives them.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    namespace::Namespace,
    process::{Process, run},
    scratch,
};

use super::Security;

/// Issuer of the tokens.
const ISSUER: &str = "https://issuer.tap53.test";
/// Whom tokens are for.
const AUDIENCE: &str = "kafka";
/// Whose tokens they are.
pub const SUBJECT: &str = "system:serviceaccount:dns:tap53";
/// A client of the authorization server, with characters that mean something in a form.
pub const CLIENT_ID: &str = "tap53 & co";
/// Its secret.
pub const CLIENT_SECRET: &str = "a client's secret: 100% of it";
/// Scope of the tokens.
pub const SCOPE: &str = "kafka write";

const START_DEADLINE: Duration = Duration::from_secs(30);

/// A key, and tokens signed with it.
pub struct Issuer {
    directory: TempDir,
}

impl Issuer {
    /// Makes a key.
    ///
    /// # Errors
    /// Without openssl or Python.
    pub fn new() -> Result<Self> {
        let issuer = Self { directory: scratch::directory("issuer")? };
        let (key, key_set) = (issuer.key(), issuer.key_set());
        run(Command::new("openssl")
            .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out"])
            .arg(&key))?;
        fs::write(key_set, run(script("jwks").arg(&key))?)?;
        Ok(issuer)
    }

    fn key(&self) -> PathBuf {
        self.directory.path().join("issuer.key")
    }

    fn key_set(&self) -> PathBuf {
        self.directory.path().join("jwks.json")
    }

    /// A token that expires in so many seconds, or did so many seconds ago.
    ///
    /// # Errors
    /// When openssl fails.
    pub fn token(&self, lifetime_s: i64) -> Result<String> {
        sign(&self.key().display().to_string(), &claims(lifetime_s)?)
    }

    /// A token with these claims instead of the usual ones.
    ///
    /// # Errors
    /// When openssl fails.
    pub fn token_with(&self, lifetime_s: i64, changes: &Value) -> Result<String> {
        let mut claims = claims(lifetime_s)?;
        for (name, value) in changes.as_object().context("claims are an object")? {
            claims[name] = value.clone();
        }
        sign(&self.key().display().to_string(), &claims)
    }

    /// Returns a token without a valid signature.
    ///
    /// # Errors
    /// When Python fails.
    pub fn unsigned(&self, lifetime_s: i64) -> Result<String> {
        sign("-", &claims(lifetime_s)?)
    }

    /// Properties of a listener named TOKEN, whose connections have to authenticate again after so
    /// long.
    pub(super) fn configuration(&self, reauthentication_ms: u64) -> String {
        let key_set = self.key_set();
        let prefix = "listener.name.token.oauthbearer";
        format!(
            "listener.name.token.sasl.enabled.mechanisms=OAUTHBEARER\n\
             {prefix}.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;\n\
             {prefix}.sasl.server.callback.handler.class=org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler\n\
             {prefix}.sasl.oauthbearer.jwks.endpoint.url=file://{}\n\
             {prefix}.sasl.oauthbearer.expected.audience={AUDIENCE}\n\
             {prefix}.sasl.oauthbearer.expected.issuer={ISSUER}\n\
             {prefix}.sasl.oauthbearer.clock.skew.seconds=1\n\
             {prefix}.connections.max.reauth.ms={reauthentication_ms}\n",
            key_set.display()
        )
    }

    /// Returns the option with which the broker's JVM may read keys from a file.
    pub(super) fn jvm_option(&self) -> String {
        let key_set = self.key_set();
        format!("-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=file://{}", key_set.display())
    }
}

/// A stub of an authorization server, by HTTPS on loopback of a namespace.
pub struct TokenEndpoint {
    process: Process,
    rules: PathBuf,
    port: u16,
    _directory: TempDir,
}

impl TokenEndpoint {
    /// Starts it: with the certificate of the broker, giving tokens of `issuer` that live so long.
    ///
    /// # Errors
    /// Without Python.
    pub fn start(
        namespace: &Namespace,
        security: &Security,
        issuer: &Issuer,
        lifetime_s: i64,
    ) -> Result<Self> {
        let directory = scratch::directory("token-endpoint")?;
        let rules = directory.path().join("rules.json");
        write_rules(&rules, lifetime_s, 200)?;
        let mut command = namespace.command("python3");
        command.arg(script_path()).arg("serve").arg(issuer.key());
        command.arg(security.path("broker.both")).arg(&rules);
        let process = Process::spawn("token endpoint (stub)", command)?;
        let line = process.stdout().wait_for_line("at port", 0, START_DEADLINE)?;
        let port = line.rsplit(' ').next().and_then(|port| port.parse().ok());
        let port = port.with_context(|| format!("a port in {line}"))?;
        Ok(Self { process, rules, port, _directory: directory })
    }

    /// Returns the URL of the endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}/oauth2/token", self.port)
    }

    /// Sets the answer from now on: the status, and the lifetime of tokens in seconds.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn answer(&self, status: u16, lifetime_s: i64) -> Result<()> {
        write_rules(&self.rules, lifetime_s, status)
    }

    /// Its lines, one for each request.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }
}

fn write_rules(path: &Path, lifetime_s: i64, status: u16) -> Result<()> {
    let mut claims = claims(lifetime_s)?;
    for name in ["iat", "exp"] {
        claims.as_object_mut().context("an object")?.remove(name);
    }
    let rules = json!({
        "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "scope": SCOPE,
        "claims": claims, "lifetime_s": lifetime_s, "status": status,
    });
    let new = path.with_extension("new");
    fs::write(&new, rules.to_string())?;
    Ok(fs::rename(new, path)?)
}

fn claims(lifetime_s: i64) -> Result<Value> {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    let issued_at = now.min(now + lifetime_s - 1);
    Ok(json!({
        "iss": ISSUER, "aud": [AUDIENCE], "sub": SUBJECT, "iat": issued_at, "exp": now + lifetime_s,
    }))
}

fn sign(key: &str, claims: &Value) -> Result<String> {
    let mut child = script("sign")
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start python3")?;
    child.stdin.take().context("stdin is piped")?.write_all(claims.to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "tokens.py: {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn script(command: &str) -> Command {
    let mut python = Command::new("python3");
    python.arg(script_path()).arg(command);
    python
}

fn script_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("harness/python/tokens.py")
}
