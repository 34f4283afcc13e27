//! Checks that the OpenTelemetry collector would accept metrics. Nothing arrives there: the request has none.

use tap53_otlp::{Failure, config::OtlpConfig, try_collector};

use super::Check;
use crate::config::Config;

const AREA: &str = "otlp";

pub(super) fn look(config: &Config) -> Option<Check> {
    let otlp = config.telemetry.otlp.as_ref()?;
    let what = format!("telemetry.otlp {}", otlp.url());
    Some(match try_collector(otlp) {
        Ok(()) => Check::ok(AREA, what),
        // Capture and sinks do not need it.
        Err((failure, why)) => Check::warn(AREA, what, why, fix(otlp, failure)),
    })
}

fn fix(otlp: &OtlpConfig, failure: Failure) -> String {
    match failure {
        Failure::Untrusted => "telemetry: {otlp: {ca_file: FILE}}".to_owned(),
        Failure::File => {
            let files = otlp.header_files.values().chain(&otlp.ca_file);
            let files: Vec<_> = files.map(|file| file.display().to_string()).collect();
            format!("ls -l {}", files.join(" "))
        }
        _ => format!("curl -i -H 'Content-Type: application/x-protobuf' -X POST {}", otlp.url()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;
    use crate::{
        config::{Config, Overrides},
        verdict::Verdict,
    };

    fn check(otlp: &str) -> Option<Check> {
        let yaml = format!("interfaces: {{include: [lo]}}\ntelemetry: {{enabled: false{otlp}}}\n");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), yaml).unwrap();
        look(&Config::load(Some(file.path()), &Overrides::default()).unwrap())
    }

    #[test]
    fn a_collector_that_is_away_is_a_warning_with_a_command_to_try() {
        assert_eq!(check(""), None);
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let found = check(&format!(", otlp: {{endpoint: 'http://{free}'}}")).unwrap();
        assert_eq!(found.verdict, Verdict::Warn, "{found}");
        let wrong = found.wrong.unwrap();
        assert!(wrong.contains("the collector cannot be reached"), "{wrong}");
        assert!(found.fix.unwrap().ends_with(&format!("http://{free}/v1/metrics")));
    }
}
