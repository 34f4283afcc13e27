//! The schema registry: whether it can be reached and lets this client in, and whether it has the
//! schema or would take it. Nothing is registered.
//!
//! Whether this client may *register* shows only when it does, so that it is not looked at.

use http::Uri;
use tap53_ledger::SUMMARY_NAME;
use tap53_records::encode::{self, Profile};
use tap53_sinks::{
    http_client,
    registry::{Client, Compatibility, Error, Schema, cached_id},
};

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
    let checks = runtime.block_on(ask(number, config, &schemas));
    // A name that is being resolved is not waited for.
    runtime.shutdown_background();
    checks
}

/// What is written to which topic.
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

async fn ask(number: usize, config: &RegistryConfig, schemas: &[(&str, Schema)]) -> Vec<Check> {
    let mut checks = Vec::new();
    for (position, (topic, schema)) in schemas.iter().enumerate() {
        let place = Place {
            config,
            subject: schema.subject(config.subject, topic),
            what: format!("sinks[{number}]: registry {}", config.urls.join(", ")),
            kept: cached_id(config, schema, topic),
        };
        let answer = place.try_to_ask(schema).await;
        // What is wrong with all of it is said once.
        let is_of_the_schema = answer.as_ref().err().is_none_or(|trouble| {
            matches!(
                trouble,
                Error::NotRegistered { .. } | Error::Incompatible { .. } | Error::Invalid(_)
            )
        });
        if position == 0 && config.urls.len() > 1 && is_of_the_schema {
            checks.extend(others(number, config, &place.subject, schema).await);
        }
        checks.push(answer.unwrap_or_else(|trouble| place.refused(schema, &trouble)));
        if !is_of_the_schema {
            break;
        }
    }
    checks
}

/// Instances that cannot answer, where another one did.
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
            Err(trouble) => Err(trouble),
        };
        if let Err(trouble) = answer {
            let what = format!("sinks[{number}]: registry {url}");
            let fix = fix(&alone, subject, schema, &trouble);
            checks.push(Check::warn(AREA, what, format!("{trouble}; another one answers"), fix));
        }
    }
    checks
}

struct Place<'a> {
    config: &'a RegistryConfig,
    subject: String,
    what: String,
    /// The id that an earlier run left.
    kept: Option<u32>,
}

impl Place<'_> {
    fn refused(&self, schema: &Schema, trouble: &Error) -> Check {
        let fix = fix(self.config, &self.subject, schema, trouble);
        match self.kept {
            Some(id) => {
                let wrong = format!("{trouble}; id {id} of an earlier run is used");
                Check::warn(AREA, &self.what, wrong, fix)
            }
            None => {
                let wrong = format!("{trouble}; no id is known, records would wait");
                Check::fail(AREA, &self.what, wrong, fix)
            }
        }
    }

    async fn try_to_ask(&self, schema: &Schema) -> Result<Check, Error> {
        let mut client = Client::new(self.config)?;
        let (what, subject, version) = (&self.what, &self.subject, schema.version);
        if let Some(id) = client.look_up(subject, &schema.text).await? {
            let known = format!("{what}: subject {subject} has version {version} as id {id}");
            return Ok(match self.kept {
                Some(kept) if kept != id => Check::warn(
                    AREA,
                    known,
                    format!(
                        "an earlier run had id {kept} of it: records of that one may be unreadable"
                    ),
                    format!("curl {}/schemas/ids/{kept}   # is it the same schema?", self.url()),
                ),
                _ => Check::ok(AREA, known),
            });
        }
        let found = match client.compatibility(subject, &schema.text).await {
            Ok(Compatibility::Incompatible(why)) => {
                return Err(Error::Incompatible { subject: subject.clone(), why });
            }
            Ok(Compatibility::Compatible) => "takes",
            Ok(Compatibility::NoSubject) => "is new, and takes",
            Err(trouble @ (Error::Forbidden(_) | Error::NoSuchPath(_))) => {
                let wrong = format!("whether the schema fits cannot be asked: it {trouble}");
                let fix = fix(self.config, subject, schema, &trouble);
                return Ok(Check::warn(AREA, what, wrong, fix));
            }
            Err(trouble) => return Err(trouble),
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

/// There is one at least.
fn first(config: &RegistryConfig) -> &str {
    config.urls.first().map_or("", String::as_str)
}

/// What prints a schema.
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

fn fix(config: &RegistryConfig, subject: &str, schema: &Schema, trouble: &Error) -> String {
    let url = first(config);
    match trouble {
        Error::Http(http_client::Error::File { path, .. }) => {
            format!("ls -l {}   # may this user read it?", path.display())
        }
        Error::Http(http_client::Error::Unreachable(_)) => {
            let (host, port) = host_and_port(url);
            format!("nc -vz {host} {port}   # does it run, is there a way?")
        }
        Error::Http(http_client::Error::Untrusted(_)) => {
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
            format!("registry: {{urls: [\"{location}\"]}}   # less what stands for /subjects/…")
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
    use crate::{config::SubjectStrategy, doctor::Verdict};
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

    /// What a real registry does is in the integration tests.
    #[test]
    fn each_trouble_is_named_with_the_line_that_fixes_it() {
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
        // It cannot be asked whether the schema fits.
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
