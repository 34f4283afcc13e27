//! Checks whether a host can run tap53, and shows how to fix what is wrong.
//!
//! - A check has one of three verdicts: *ok*; *warn*, capture works but something is lost or could not
//!   be checked; *fail*, it does not work.
//! - A check that is not ok has the problem, and the line that fixes it: a command, or keys of a YAML
//!   file.
//! - Nothing is changed, and nothing remains: programs are loaded and dropped, files have no
//!   name, topics are looked up and not created.
//! - No privilege is taken for granted. A check that cannot be made is reported.
//!
//! Each area is a module.

mod clock;
mod configuration;
mod containers;
mod control;
mod interfaces;
mod kafka;
mod kernel;
mod kubernetes;
mod live;
mod otlp;
mod outputs;
mod privileges;
mod registry;
mod resources;
mod telemetry;

use std::{env, fmt, net::SocketAddr, path::Path};

use serde::Serialize;

use crate::{
    config::{Config, Error, SinkConfig},
    verdict::Verdict,
};

/// A check and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Result.
    pub verdict: Verdict,
    /// Area, one word.
    pub area: &'static str,
    /// Subject of the check.
    pub what: String,
    /// The problem, unless the verdict is ok.
    pub wrong: Option<String>,
    /// The line that fixes the problem.
    pub fix: Option<String>,
}

impl Check {
    fn ok(area: &'static str, what: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, area, what: what.into(), wrong: None, fix: None }
    }

    fn warn(
        area: &'static str,
        what: impl Into<String>,
        wrong: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        let (wrong, fix) = (Some(wrong.into()), Some(fix.into()));
        Self { verdict: Verdict::Warn, area, what: what.into(), wrong, fix }
    }

    fn fail(
        area: &'static str,
        what: impl Into<String>,
        wrong: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Fail, ..Self::warn(area, what, wrong, fix) }
    }
}

/// Writes the verdict, the area and the subject on a line; below them the problem and the fix.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<4}  {:<13}  {}", self.verdict, self.area, self.what)?;
        for (label, text) in [("", &self.wrong), ("fix: ", &self.fix)] {
            if let Some(text) = text {
                write!(f, "\n{:21}{label}{text}", "")?;
            }
        }
        Ok(())
    }
}

/// All checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The worst of the verdicts.
    pub verdict: Verdict,
    /// Checks, in the order of the areas.
    pub checks: Vec<Check>,
}

impl Report {
    fn new(checks: Vec<Check>) -> Self {
        let verdict = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok);
        Self { verdict, checks }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            writeln!(f, "{check}")?;
        }
        let count = |verdict| self.checks.iter().filter(|check| check.verdict == verdict).count();
        let [ok, warn, fail] = [Verdict::Ok, Verdict::Warn, Verdict::Fail].map(count);
        writeln!(f, "{ok} ok, {warn} warn, {fail} fail")
    }
}

/// The subject of the checks.
#[derive(Debug)]
pub struct Subject<'a> {
    /// The configuration, or the error of loading it.
    pub config: &'a Result<Config, Error>,
    /// The configuration's file.
    pub file: Option<&'a Path>,
    /// The reason for this file, or for none, if no flag names it.
    pub discovered: Option<&'static str>,
    /// Set if the file or a flag names interfaces: an interface that cannot be captured from is a
    /// failure only then.
    pub interfaces_named: bool,
    /// Resolver of a query that is followed through the running agent; `None` to send none.
    pub live: Option<SocketAddr>,
}

/// Makes all checks, one area after the other.
#[must_use]
pub fn examine(subject: &Subject<'_>) -> Report {
    let home = Home::here();
    let mut checks = configuration::look(subject);
    checks.extend(privileges::look(home));
    let config = subject.config.as_ref().ok();
    checks.extend(kernel::look(config, home));
    if let Some(config) = config {
        checks.extend(interfaces::look(config, subject.interfaces_named));
        checks.extend(resources::look(config));
        let writer = outputs::Writer::of(&config.privileges);
        for (number, sink) in config.sinks.iter().enumerate() {
            match sink {
                SinkConfig::Stdout(_) => {}
                SinkConfig::File(file) => checks.extend(outputs::look(number, file, writer)),
                SinkConfig::Kafka(kafka) => {
                    checks.extend(kafka::look(number, kafka));
                    if let Some(spool) = &kafka.spool {
                        let what = format!("sinks[{number}].spool");
                        let bytes = Some(spool.max_bytes);
                        checks.extend(outputs::look_own(&what, &spool.directory, bytes, writer));
                    }
                    checks.extend(registry::look(number, kafka));
                }
            }
        }
        if let Some(directory) = &config.state.directory {
            checks.extend(outputs::look_own("state", directory, None, writer));
        }
    }
    if let Some(config) = config {
        checks.extend(kubernetes::look(config, home));
        checks.push(containers::look(config, home));
    }
    checks.extend(control::look(config));
    checks.extend(config.map(telemetry::look));
    checks.extend(config.and_then(otlp::look));
    checks.extend(clock::look());
    if let Some(server) = subject.live {
        checks.extend(live::look(config, server));
    }
    if home == Home::Kubernetes {
        for check in &mut checks {
            check.fix = check.fix.take().map(fix_of_pod);
        }
    }
    Report::new(checks)
}

/// Programs in fixes that the image lacks, and that inspect the network, which pod and node share.
const NETWORK_PROGRAMS: [&str; 6] = ["nc", "openssl", "curl", "getent", "ss", "kcat"];

/// Programs in fixes that change or inspect the node.
const NODE_PROGRAMS: [&str; 16] = [
    "apt", "chmod", "chown", "chronyc", "cut", "date", "df", "dmesg", "ethtool", "grep", "install",
    "ip", "ls", "mount", "sysctl", "tc",
];

/// Returns a fix that can be followed in a pod, whose image has no program but this one.
fn fix_of_pod(fix: String) -> String {
    let (program, rest) = fix.split_once(' ').unwrap_or((&fix, ""));
    match program {
        "sudo" => match rest.split_once("   # ") {
            Some((_, comment)) => comment.trim_start_matches("or: ").to_owned(),
            None => "securityContext: {capabilities: {add: [BPF, NET_ADMIN, PERFMON]}}".to_owned(),
        },
        "timedatectl" => "start an NTP client on the node, such as chronyd".to_owned(),
        _ if NETWORK_PROGRAMS.contains(&program) => {
            format!("kubectl debug -it POD --image=nicolaka/netshoot -- {fix}")
        }
        _ if NODE_PROGRAMS.contains(&program) => format!("on the node: {fix}"),
        _ => fix,
    }
}

/// The environment of this process, which decides how it is given a privilege.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    /// A pod.
    Kubernetes,
    /// A shell or a service manager.
    Host,
}

impl Home {
    fn here() -> Self {
        // The kubelet sets it in every container.
        match env::var_os("KUBERNETES_SERVICE_HOST") {
            Some(_) => Self::Kubernetes,
            None => Self::Host,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixes_in_a_pod_name_no_program_that_the_image_lacks() {
        for (fix, in_pod) in [
            (
                "sudo tap53 doctor",
                "securityContext: {capabilities: {add: [BPF, NET_ADMIN, PERFMON]}}",
            ),
            ("sudo tap53 doctor   # this needs CAP_NET_ADMIN", "this needs CAP_NET_ADMIN"),
            ("timedatectl set-ntp true", "start an NTP client on the node, such as chronyd"),
            (
                "nc -vz kafka 9092",
                "kubectl debug -it POD --image=nicolaka/netshoot -- nc -vz kafka 9092",
            ),
            ("ip link", "on the node: ip link"),
            ("capture: {tc: auto}", "capture: {tc: auto}"),
        ] {
            assert_eq!(fix_of_pod(fix.to_owned()), in_pod);
        }
    }

    #[test]
    fn a_check_is_a_line_with_the_problem_and_the_fix_below() {
        let ok = Check::ok("clock", "synchronised");
        assert_eq!(ok.to_string(), "ok    clock          synchronised");
        let fail = Check::fail("interfaces", "eth7", "no such interface", "ip link");
        assert_eq!(
            fail.to_string(),
            "fail  interfaces     eth7\n                     no such interface\n                     \
             fix: ip link"
        );
        let report = Report::new(vec![ok, fail]);
        assert_eq!(report.verdict, Verdict::Fail);
        assert!(report.to_string().ends_with("\n1 ok, 0 warn, 1 fail\n"));
        assert_eq!(Report::new(Vec::new()).verdict, Verdict::Ok);
    }
}
