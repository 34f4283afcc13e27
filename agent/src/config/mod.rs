//! The configuration: one YAML file and the flags of the command line, checked as a whole before
//! anything runs.
//!
//! ```text
//!  file ─▶ tree: nodes with their line ─▶ sections: typed, checked ─┐
//!  flags ─▶ Overrides ──────────────────────────────────────────────┴▶ Config ─▶ stages
//! ```
//!
//! - Every problem is reported, not only the first one, with the path of its key
//!   (`sinks[1].rotate_bytes`), the value found and the reason.
//! - An unknown key is refused: a misspelt key must not silently leave a default in force.
//! - Sizes and durations carry their unit in the key's name; in the types they are [`Duration`]s
//!   and byte counts.
//! - Flags override the file. A problem in the file is reported even if a flag overrides the key.
//! - [`Config`] serialises to a file that reads back as the same [`Config`].

mod error;
mod schema;
#[cfg(test)]
mod tests;
mod warning;

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueEnum;
use nix::unistd::gethostname;
use serde::Serialize;
use tap53_base::settings::{
    self, Section, as_milliseconds, boolean, choice, label, milliseconds, text, whole_number,
};

pub use error::Error;
pub use schema::json_schema;
pub use warning::Warning;

pub use crate::{
    control::config::{CONTROL_SOCKET, ControlConfig},
    keep::config::{KeepConfig, KeepRule, RecordFilterConfig},
    runs::config::StateConfig,
    telemetry::{
        config::TelemetryConfig,
        log::config::{LogConfig, LogFormat, LogLevel},
    },
};
use tap53_attribution as enrich;
pub use tap53_attribution::{
    config::{ContainersConfig, KubernetesConfig, Scope},
    pod_selection::config::{KnownPods, PodFilterConfig},
};
pub use tap53_base::{
    privileges::config::{PrivilegesConfig, RunAs},
    settings::{Machine, Problem, prefix},
};
pub use tap53_capture::{
    capture::config::{
        CaptureConfig, HookChoice, TcChoice, TunnelRule, TunnelType, XdpMode, port_of_flag,
    },
    interfaces::config::{Directions, InterfacesConfig},
};
use tap53_dns::Kept;
pub use tap53_insight::config::{ClientLabel, DnsMetricsConfig};
pub use tap53_records::encode::{Columns, DEFAULT_MAX_BYTES, LEAST_MAX_BYTES, Profile};
pub use tap53_signals::SignalsConfig;
use tap53_sinks as sink;
pub use tap53_sinks::config::{
    ColorChoice, CreateTopic, Credentials, FileCodec, FileConfig, FsyncChoice, KafkaCompression,
    KafkaConfig, RegistryConfig, RegistryCredentials, SaslConfig, SaslMechanism, SinkConfig,
    SpoolConfig, SpoolMode, StdoutConfig, StdoutFlags, SubjectStrategy, SummaryConfig, TextFormat,
    TlsConfig, TokenEndpoint,
};
pub use tap53_transactions::{
    chain::config::ChainsConfig,
    filter::config::{FilterConfig, Lists, QueryType, zone},
    pair::Config as PairConfig,
    privacy::config::{AddressRule, KeyFile, PrefixLengths, Presence, PrivacyConfig, SubnetRule},
};

/// The whole configuration, checked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// Name of this node in the records and in Kubernetes; unless set, the environment variable
    /// `NODE_NAME`, or else the host name.
    pub node: String,
    /// Interfaces to capture from.
    pub interfaces: InterfacesConfig,
    /// Capture of packets.
    pub capture: CaptureConfig,
    /// The table that pairs queries with responses.
    pub pair: PairConfig,
    /// Chains behind answers.
    pub chains: ChainsConfig,
    /// Filter that decides which transactions become records.
    pub filter: RecordFilterConfig,
    /// Privacy rules for the records.
    pub privacy: PrivacyConfig,
    /// Kubernetes API, from which attribution gets the owners of addresses.
    pub kubernetes: KubernetesConfig,
    /// Containers by the cgroups of sockets.
    pub containers: ContainersConfig,
    /// Content of a record.
    pub record: RecordConfig,
    /// Sinks for the records; never empty, names are unique.
    pub sinks: Vec<SinkConfig>,
    /// The socket at which commands reach a running agent.
    pub control: ControlConfig,
    /// The port for probes and Prometheus.
    pub telemetry: TelemetryConfig,
    /// Metrics of the DNS itself.
    pub dns_metrics: DnsMetricsConfig,
    /// Domains seen first, tunnels, and other signals.
    pub signals: SignalsConfig,
    /// Privileges that the agent drops after the start.
    pub privileges: PrivilegesConfig,
    /// The state that a run saves for the next one.
    pub state: StateConfig,
    /// Shutdown, from the signal to the exit.
    pub shutdown: ShutdownConfig,
    /// The agent's own log.
    pub log: LogConfig,
}

/// Records: which there are, and their content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecordConfig {
    /// The transactions that become records.
    pub keep: KeepConfig,
    /// Profile, which selects the schema of records that are written as Avro.
    pub profile: Profile,
    /// Set if a record contains its messages as they were sent, in `query_wire` and
    /// `response_wire`.
    pub wire_bytes: bool,
    /// Set if a record contains the authority and additional records of the response.
    pub all_sections: bool,
    /// The nodes that record an exchange.
    pub observations: Observations,
    /// Maximum size of a record's Avro datum, in bytes; what does not fit is left out and counted in the
    /// record.
    pub max_bytes: usize,
}

/// The nodes that record an exchange which several of them see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Observations {
    /// Each of them.
    #[default]
    All,
    /// Only the node of the client, where that is a pod.
    ClientNode,
}

/// Shutdown, from the signal to the exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ShutdownConfig {
    /// Time for the sinks to deliver the records that they hold.
    #[serde(rename = "flush_timeout_ms", serialize_with = "as_milliseconds")]
    pub flush_timeout: Duration,
}

/// Flags of the command line that override the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--interface`, repeated: replaces `interfaces.include`.
    pub interfaces: Vec<String>,
    /// `--hook`: replaces `capture.hook`.
    pub hook: Option<HookChoice>,
    /// `--stdout`, `--json`, `--output`, `--fields`, `--local`: adds a stdout sink of this format, or gives
    /// the one in the file this format.
    pub stdout: Option<StdoutFlags>,
    /// `--log-level`: replaces `log.level`.
    pub log_level: Option<LogLevel>,
    /// `--log-format`: replaces `log.format`.
    pub log_format: Option<LogFormat>,
    /// `--offline`: [`Machine::Other`]. Such a configuration is only checked, since its keys are
    /// placeholders.
    pub machine: Machine,
}

/// Maximum size of a configuration file in bytes: four times that of a ConfigMap. The parser limits the
/// number of nodes, including those that aliases repeat, and the depth.
const MAX_BYTES: u64 = 4 << 20;

impl Config {
    /// Reads and checks `file`, or uses the defaults if there is none, and applies the flags.
    ///
    /// # Errors
    ///
    /// [`Error::Unreadable`] if the file cannot be read, [`Error::Syntax`] if it is not YAML, and
    /// [`Error::Refused`] with every problem found otherwise.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, Error> {
        let Some(path) = file else {
            return Self::parse(None, "", overrides);
        };
        let unreadable = |cause| Error::Unreadable { path: path.to_owned(), cause };
        let mut text = String::new();
        let file = fs::File::open(path).map_err(unreadable)?;
        file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > MAX_BYTES {
            let what = format!("is longer than {} MiB", MAX_BYTES >> 20);
            return Err(unreadable(io::Error::new(io::ErrorKind::FileTooLarge, what)));
        }
        Self::parse(Some(path), &text, overrides)
    }

    /// Checks the `text` of a file; `path` is for messages only.
    fn parse(path: Option<&Path>, text: &str, overrides: &Overrides) -> Result<Self, Error> {
        let root = match text {
            // An empty file, for which the parser would return an error.
            text if text.trim().is_empty() => None,
            text => Some(
                settings::parse(text)
                    .map_err(|cause| Error::syntax(path.unwrap_or(Path::new("")), text, &cause))?,
            ),
        };
        let mut problems = Vec::new();
        let config = Section::root_on(overrides.machine, root, &mut problems, |root| {
            Self::read(root, overrides)
        });
        if problems.is_empty() {
            Ok(config)
        } else {
            // In the file's order; problems that are not in the file come last.
            problems.sort_by_key(|problem| problem.place.map_or(u64::MAX, |(line, _)| line));
            Err(Error::Refused { file: path.map(PathBuf::from), problems })
        }
    }

    fn read(root: &mut Section<'_>, overrides: &Overrides) -> Self {
        let node = root.read("node", text(label));
        let privacy = root.section("privacy", PrivacyConfig::read);
        let pair = root.section("pair", PairConfig::read);
        let kubernetes = root.has_section("kubernetes");
        let kubernetes =
            root.section("kubernetes", |section| KubernetesConfig::read(section, kubernetes));
        let known = KnownPods { enabled: kubernetes.enabled, labels: kubernetes.labels.clone() };
        let telemetry = root.has_section("telemetry");
        let state = root.section("state", StateConfig::read);
        let mut sinks = sink::config::read(root, overrides.stdout, state.directory.as_deref());
        let record =
            root.section("record", |section| RecordConfig::read(section, &privacy, &sinks, &known));
        sink::config::set_profile(&mut sinks, record.profile);
        let control =
            root.section("control", |section| ControlConfig::read(section, record.profile));
        Self {
            node: node.or_else(enrich::config::node_name).unwrap_or_else(|| host_name(root)),
            interfaces: root.section("interfaces", |section| {
                InterfacesConfig::read(section, &overrides.interfaces)
            }),
            capture: root
                .section("capture", |section| CaptureConfig::read(section, overrides.hook)),
            pair,
            chains: root.section("chains", |section| ChainsConfig::read(section, &pair)),
            filter: root.section("filter", |section| RecordFilterConfig::read(section, &known)),
            kubernetes,
            containers: root.section("containers", ContainersConfig::read),
            record,
            privacy,
            sinks,
            control,
            telemetry: root
                .section("telemetry", |section| TelemetryConfig::read(section, telemetry)),
            dns_metrics: root.section("dns_metrics", DnsMetricsConfig::read),
            signals: root.section("signals", |section| {
                SignalsConfig::read(section, state.directory.as_deref())
            }),
            privileges: root.section("privileges", PrivilegesConfig::read),
            state,
            shutdown: root.section("shutdown", ShutdownConfig::read),
            log: root.section("log", |section| {
                LogConfig::read(section, overrides.log_level, overrides.log_format)
            }),
        }
    }

    /// Returns the configuration in force as a file, including the defaults.
    ///
    /// # Errors
    ///
    /// None in practice: every configuration is valid YAML.
    pub fn to_yaml(&self) -> Result<String, serde_saphyr::SerializeError> {
        let mut yaml = serde_saphyr::to_string(self)?;
        if !yaml.ends_with('\n') {
            yaml.push('\n');
        }
        Ok(yaml)
    }
}

/// The name of a node that is not known: it is that of the machine on which the agent will run.
const UNKNOWN_NODE: &str = "unknown";

fn host_name(root: &mut Section<'_>) -> String {
    if root.machine() == Machine::Other {
        return UNKNOWN_NODE.to_owned();
    }
    match gethostname().map(|name| name.into_string()) {
        Ok(Ok(name)) if label(&name).is_ok() => name,
        _ => {
            root.refuse("node", None, "missing, and the host name cannot be used instead");
            String::new()
        }
    }
}

/// Maximum of `record.max_bytes`: one record may take that much memory of a worker and its sinks.
pub const MOST_MAX_BYTES: usize = 16 << 20;

impl RecordConfig {
    /// Returns the records of a message that its record contains.
    #[must_use]
    pub const fn kept(&self) -> Kept {
        if self.all_sections { Kept::All } else { Kept::Answers }
    }

    fn read(
        section: &mut Section<'_>,
        privacy: &PrivacyConfig,
        sinks: &[SinkConfig],
        known: &KnownPods,
    ) -> Self {
        let keep = section.section("keep", |section| KeepConfig::read(section, known));
        let profile = section.read("profile", choice).unwrap_or_default();
        let is_avro = |sink: &SinkConfig| !matches!(sink, SinkConfig::Stdout(_));
        if profile == Profile::Flat && !sinks.iter().any(is_avro) {
            section.refuse(
                "profile",
                Some("flat".to_owned()),
                "no sink writes Avro, and standard output shows the whole record in either profile: \
                 add a sink of type kafka or file, or leave this out",
            );
        }
        let wire_bytes = section.read("wire_bytes", boolean).unwrap_or(false);
        if wire_bytes && !privacy.keeps_everything() {
            section.refuse(
                "wire_bytes",
                Some("true".to_owned()),
                "messages as they were sent would show what the privacy section hides: client \
                 subnets, cookies, reverse names",
            );
        }
        let all_sections = section.read("all_sections", boolean).unwrap_or(false);
        let observations = section.read("observations", choice).unwrap_or_default();
        let max_bytes = section
            .read("max_bytes", whole_number(LEAST_MAX_BYTES..=MOST_MAX_BYTES))
            .unwrap_or(DEFAULT_MAX_BYTES);
        for sink in sinks {
            let SinkConfig::Kafka(kafka) = sink else { continue };
            let most = kafka.max_record_bytes();
            if max_bytes > most {
                section.refuse(
                    "max_bytes",
                    Some(max_bytes.to_string()),
                    format!(
                        "sink {} could not send a record of that size: its options give \
                         message.max.bytes {}, of which key, headers and framing need {}; lower \
                         this to at most {most}, or raise that, and the topic's max.message.bytes \
                         with it",
                        kafka.name,
                        kafka.max_message_bytes(),
                        KafkaConfig::MESSAGE_OVERHEAD
                    ),
                );
            }
        }
        Self { keep, profile, wire_bytes, all_sections, observations, max_bytes }
    }
}

impl ShutdownConfig {
    fn read(section: &mut Section<'_>) -> Self {
        Self {
            flush_timeout: section
                .read("flush_timeout_ms", milliseconds(1..=3_600_000))
                .unwrap_or(Duration::from_secs(10)),
        }
    }
}
