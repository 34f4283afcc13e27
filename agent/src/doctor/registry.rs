//! Checks that the schema registry can be reached, accepts this client, and has the schema or would
//! accept it. Nothing is registered.
//!
//! The right to *register* is not checked: the registry reports it only for a registration.

use http::Uri;
use tap53_ledger::SUMMARY_NAME;
use tap53_records::encode::{self, Profile};
use tap53_sinks::registry::{Client, Compatibility, Error, Schema, cached_id};

use super::Check;
use crate::config::{KafkaConfig, RegistryConfig, Warning};

const AREA: &str = "registry";

pub(super) fn look(number: usize, kafka: &KafkaConfig) -> Vec<Check> {
    let Some(config) = &kafka.registry else {
        let warning = Warning::of_framing(number, kafka);
        let check = |it: Warning| {
            Check::warn(AREA, format!("{}: topic {}", it.key, kafka.topic), it.wrong, it.remedy)
        };
        return warning.map(check).into_iter().collect();
    };
    let schemas = match schemas(kafka) {
        Ok(schemas) => schemas,
        Err(error) => {
            let fix = "tap53 schema   # a defect of this program";
            return vec![Check::fail(AREA, "schema", error.to_string(), fix)];
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let fix = "ulimit -n   # file descriptors";
            return vec![Check::fail(AREA, "registry", error.to_string(), fix)];
        }
    };
    let checks = runtime.block_on(check_schemas(number, config, &schemas));
    // Without waiting for a name that is being resolved.
    runtime.shutdown_background();
    checks
}

/// Returns the schemas that are written, with their topics.
fn schemas(kafka: &KafkaConfig) -> Result<Vec<(&str, Schema)>, encode::Error> {
    let newest = Schema::of_transactions(kafka.profile)?.pop();
    let newest = newest.ok_or_else(|| encode::Error::Avro("there is no schema".to_owned()))?;
    let mut schemas = vec![(kafka.topic.as_str(), newest)];
    if let Some(summary) = &kafka.summary {
        let newest = Schema::of_summaries()?.pop();
        schemas.extend(newest.map(|newest| (summary.topic.as_str(), newest)));
    }
    Ok(schemas)
}

async fn check_schemas(
    number: usize,
    config: &RegistryConfig,
    schemas: &[(&str, Schema)],
) -> Vec<Check> {
    let mut checks = Vec::new();
    for (position, (topic, schema)) in schemas.iter().enumerate() {
        let subject = Subject {
            config,
            name: schema.subject(config.subject, topic),
            what: format!("sinks[{number}]: registry {}", config.urls.join(", ")),
            cached_id: cached_id(config, schema, topic),
        };
        let answer = subject.check(schema).await;
        // A problem of the registry itself is reported once.
        let is_of_the_schema = answer.as_ref().err().is_none_or(|error| {
            matches!(
                error,
                Error::NotRegistered { .. } | Error::Incompatible { .. } | Error::Invalid(_)
            )
        });
        if position == 0 && config.urls.len() > 1 && is_of_the_schema {
            checks.extend(others(number, config, &subject.name, schema).await);
        }
        checks.push(answer.unwrap_or_else(|error| subject.refused(schema, &error)));
        if !is_of_the_schema {
            break;
        }
    }
    checks
}

/// Reports the instances that do not answer, after another one did.
async fn others(
    number: usize,
    config: &RegistryConfig,
    subject: &str,
    schema: &Schema,
) -> Vec<Check> {
    let mut checks = Vec::new();
    for url in &config.urls {
        let alone = RegistryConfig { urls: vec![url.clone()], ..config.clone() };
        let answer = match Client::new(&alone) {
            Ok(mut client) => client.look_up(subject, &schema.text).await,
            Err(error) => Err(error),
        };
        if let Err(error) = answer {
            let what = format!("sinks[{number}]: registry {url}");
            let fix = fix(&alone, subject, schema, &error);
            checks.push(Check::warn(AREA, what, format!("{error}; another one answers"), fix));
        }
    }
    checks
}

/// A subject of the registry.
struct Subject<'a> {
    config: &'a RegistryConfig,
    name: String,
    what: String,
    /// The id that an earlier run has cached.
    cached_id: Option<u32>,
}

impl Subject<'_> {
    fn refused(&self, schema: &Schema, error: &Error) -> Check {
        let fix = fix(self.config, &self.name, schema, error);
        match self.cached_id {
            Some(id) => {
                let wrong = format!("{error}; the id {id} of an earlier run is used");
                Check::warn(AREA, &self.what, wrong, fix)
            }
            None => {
                let wrong = format!("{error}; no id is known, records would wait");
                Check::fail(AREA, &self.what, wrong, fix)
            }
        }
    }

    async fn check(&self, schema: &Schema) -> Result<Check, Error> {
        let mut client = Client::new(self.config)?;
        let (what, subject, version) = (&self.what, &self.name, schema.version);
        if let Some(id) = client.look_up(subject, &schema.text).await? {
            let known = format!("{what}: subject {subject} has version {version} as id {id}");
            return Ok(match self.cached_id {
                Some(cached) if cached != id => Check::warn(
                    AREA,
                    known,
                    format!("an earlier run had the id {cached}: its records may be unreadable"),
                    format!("curl {}/schemas/ids/{cached}   # is it the same schema?", self.url()),
                ),
                _ => Check::ok(AREA, known),
            });
        }
        let found = match client.compatibility(subject, &schema.text).await {
            Ok(Compatibility::Incompatible(why)) => {
                return Err(Error::Incompatible { subject: subject.clone(), why });
            }
            Ok(Compatibility::Compatible) => "accepts",
            Ok(Compatibility::NoSubject) => "is new, and accepts",
            Err(error @ (Error::Forbidden(_) | Error::NoSuchPath(_))) => {
                let wrong = format!("the schema's compatibility cannot be checked: it {error}");
                let fix = fix(self.config, subject, schema, &error);
                return Ok(Check::warn(AREA, what, wrong, fix));
            }
            Err(error) => return Err(error),
        };
        if self.config.register {
            let what = format!(
                "{what}: subject {subject} {found} version {version}, which the first run registers"
            );
            Ok(Check::ok(AREA, what))
        } else {
            Err(Error::NotRegistered { subject: subject.clone() })
        }
    }

    fn url(&self) -> &str {
        first(self.config)
    }
}

/// Returns the first URL; there is at least one.
fn first(config: &RegistryConfig) -> &str {
    config.urls.first().map_or("", String::as_str)
}

/// Returns the command that prints a schema.
fn command(schema: &Schema) -> String {
    let flat = Profile::Flat.record_name();
    let more = match &*schema.name {
        SUMMARY_NAME => " --summary",
        name if name == flat => " --profile flat",
        _ => "",
    };
    format!("tap53 schema{more}")
}

fn host_and_port(url: &str) -> (String, u16) {
    let uri: Uri = url.parse().unwrap_or_default();
    let port = uri.port_u16().unwrap_or(match uri.scheme_str() {
        Some("https") => 443,
        _ => 80,
    });
    (uri.host().unwrap_or_default().to_owned(), port)
}

fn fix(config: &RegistryConfig, subject: &str, schema: &Schema, error: &Error) -> String {
    let url = first(config);
    match error {
        Error::Http(tap53_http::Error::File { path, .. }) => {
            format!("ls -l {}   # can this user read it?", path.display())
        }
        Error::Http(tap53_http::Error::Unreachable(_)) => {
            let (host, port) = host_and_port(url);
            format!("nc -vz {host} {port}   # does it run, is there a way?")
        }
        Error::Http(tap53_http::Error::Untrusted(_)) => {
            let (host, port) = host_and_port(url);
            format!(
                "openssl s_client -connect {host}:{port} -showcerts </dev/null   # name its \
                 authority in registry.ca_file; the certificate must name {host}"
            )
        }
        Error::Unauthorized(_) => {
            format!("curl -u USER {url}/subjects   # the user and its password, or the token")
        }
        Error::Forbidden(_) => format!(
            "curl -u USER {url}/subjects/{subject}/versions   # the user needs to read this subject, \
             and to write it unless register is false"
        ),
        Error::NotRegistered { .. } => format!(
            "{} | jq -Rs '{{schema: .}}' | curl -H 'Content-Type: \
             application/vnd.schemaregistry.v1+json' -d @- {url}/subjects/{subject}/versions",
            command(schema)
        ),
        Error::Incompatible { .. } => format!(
            "registry: {{subject: topic_record_name}}   # or a topic of its own, as each \
             record.profile needs; see who else writes to it: curl \
             {url}/subjects/{subject}/versions/latest"
        ),
        Error::Redirected { location, .. } => {
            format!("registry: {{urls: [\"{location}\"]}}   # without the path from /subjects on")
        }
        Error::NoSuchPath(_) => {
            format!("curl -i {url}/subjects   # Apicurio has this API at /apis/ccompat/v7")
        }
        Error::Http(_) | Error::Invalid(_) | Error::Refused { .. } => {
            format!("curl -i {url}/subjects   # and the registry's log")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{config::SubjectStrategy, verdict::Verdict};
    use tap53_sinks::registry::stub::{Answer, Stub, not_found};

    fn kafka(urls: &[String], register: bool) -> KafkaConfig {
        KafkaConfig {
            registry: Some(RegistryConfig {
                urls: urls.to_vec(),
                subject: SubjectStrategy::TopicName,
                register,
                credentials: None,
                allow_cleartext: false,
                ca_file: None,
                timeout: Duration::from_millis(500),
                ids_file: None,
            }),
            ..KafkaConfig::to("b:1", "dns")
        }
    }

    /// (Integration tests run a real registry.)
    #[test]
    fn each_error_is_reported_with_its_fix() {
        let json = |status, body: &str| Answer::Json(status, body.to_owned());
        type Case = (u16, &'static str, &'static str, &'static str);
        let cases: [Case; 5] = [
            (
                401,
                "{\"message\": \"who?\"}",
                "does not accept the credentials (401)",
                "curl -u USER",
            ),
            (403, "{\"message\": \"no\"}", "denies access (403)", "needs to read this subject"),
            (404, "nothing", "has no such path (404)", "/apis/ccompat/v7"),
            (500, "{}", "answers with an error (500)", "the registry's log"),
            (200, "[]", "gives an answer that cannot be read", "curl -i"),
        ];
        let stub = Stub::new(|_| not_found());
        for (status, body, wrong, fix) in cases {
            stub.answer_by(move |_| json(status, body));
            let checks = look(0, &kafka(&[stub.url()], true));
            assert_eq!((checks.len(), checks[0].verdict), (1, Verdict::Fail), "{checks:?}");
            assert!(checks[0].wrong.as_deref().unwrap().contains(wrong), "{checks:?}");
            assert!(checks[0].fix.as_deref().unwrap().contains(fix), "{checks:?}");
        }
        // The schema's compatibility cannot be checked.
        stub.answer_by(move |asked| match asked.path.starts_with("/compatibility") {
            true => json(403, "{}"),
            false => not_found(),
        });
        let checks = look(0, &kafka(&[stub.url()], true));
        assert_eq!(checks[0].verdict, Verdict::Warn, "{checks:?}");
        // One instance of two.
        let urls = [stub.url(), "http://127.0.0.1:9".to_owned()];
        stub.answer_by(move |_| json(200, "{\"id\": 7}"));
        let checks = look(0, &kafka(&urls, true));
        let verdicts: Vec<_> = checks.iter().map(|check| check.verdict).collect();
        assert_eq!(verdicts, [Verdict::Warn, Verdict::Ok], "{checks:?}");
        assert!(checks[0].fix.as_deref().unwrap().starts_with("nc -vz 127.0.0.1 9 "));
        assert!(!stub.paths().iter().any(|path| path.ends_with("/versions")), "registered");
    }
}
