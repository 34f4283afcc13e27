//! The `sinks` section: where records go.

mod kafka;
mod registry;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueEnum;
use serde::Serialize;
use tap53_base::settings::{Machine, Section, boolean, choice, label, seconds, text, whole_number};
use tap53_records::encode::{Column, Columns, Profile};

pub use kafka::{
    CreateTopic, Credentials, FsyncChoice, KafkaCompression, KafkaConfig, SaslConfig,
    SaslMechanism, SpoolConfig, SpoolMode, SummaryConfig, TlsConfig, TokenEndpoint,
};
pub use registry::{RegistryConfig, RegistryCredentials, SubjectStrategy};

/// One sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum SinkConfig {
    /// One line for each transaction on standard output.
    Stdout(StdoutConfig),
    /// Avro object container files in a directory.
    File(FileConfig),
    /// A Kafka topic.
    Kafka(Box<KafkaConfig>),
}

impl SinkConfig {
    /// Name of the sink in logs and in the ledger.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Stdout(stdout) => &stdout.name,
            Self::File(file) => &file.name,
            Self::Kafka(kafka) => &kafka.name,
        }
    }
}

/// One line for each transaction on standard output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StdoutConfig {
    /// Name of the sink; `stdout` unless set.
    pub name: String,
    /// Format of a line.
    pub format: TextFormat,
    /// When to colour text.
    pub color: ColorChoice,
    /// Columns of text, wide text and CSV; `None` for those of the format.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "columns_as_list")]
    pub columns: Option<Columns>,
    /// Set for times in the zone of this machine instead of UTC, in text and CSV.
    pub local_time: bool,
    /// Set if each line of text has its date, as in a replay.
    #[serde(skip)]
    pub dated: bool,
}

fn columns_as_list<S: serde::Serializer>(
    columns: &Option<Columns>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let columns = columns.iter().flat_map(|columns| columns.as_slice());
    serializer.collect_seq(columns.map(|column| column.name()))
}

/// Settings of standard output from command-line flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StdoutFlags {
    /// Format of a line.
    pub format: TextFormat,
    /// Columns, if some are chosen.
    pub columns: Option<Columns>,
    /// Set for local times.
    pub local_time: bool,
}

impl From<TextFormat> for StdoutFlags {
    fn from(format: TextFormat) -> Self {
        Self { format, columns: None, local_time: false }
    }
}

/// Format of a line on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TextFormat {
    /// Aligned columns for people.
    Text,
    /// The same with addresses, interfaces and copies; nothing is cut.
    Wide,
    /// One JSON object a line, for programs.
    #[value(alias = "jsonl")]
    Json,
    /// The same without fields that are null or an empty list.
    Compact,
    /// Comma-separated values with a line of names.
    Csv,
}

impl TextFormat {
    /// Returns true if the format has columns, which can be chosen.
    #[must_use]
    pub const fn has_columns(self) -> bool {
        !matches!(self, Self::Json | Self::Compact)
    }

    /// Returns the columns of the format.
    #[must_use]
    pub const fn columns(self) -> Columns {
        match self {
            Self::Text | Self::Json | Self::Compact => Columns::TEXT,
            Self::Wide => Columns::WIDE,
            Self::Csv => Columns::CSV,
        }
    }
}

/// When to colour text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ColorChoice {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Avro object container files in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileConfig {
    /// Name of the sink; `file` unless set.
    pub name: String,
    /// Existing directory of the files.
    pub directory: PathBuf,
    /// First part of the files' names.
    pub prefix: String,
    /// Size at which a file is finished and the next one begun, bytes.
    pub rotate_bytes: u64,
    /// Age at which a file is finished and the next one begun.
    #[serde(rename = "rotate_after_s", serialize_with = "tap53_base::settings::as_seconds")]
    pub rotate_after: Duration,
    /// Compression of a file's blocks.
    pub codec: FileCodec,
    /// The files' group may read them too.
    pub group_read: bool,
    /// The profile that `record.profile` chooses.
    #[serde(skip)]
    pub profile: Profile,
}

/// Compression of an Avro file's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum FileCodec {
    /// Avro codec `null`.
    None,
    /// Avro codec `deflate`.
    Deflate,
}

/// The most sinks: each is compared with all others, and has a queue or a producer.
const MAX_SINKS: usize = 64;

/// Hands `record.profile` to the sinks that write Avro.
pub fn set_profile(sinks: &mut [SinkConfig], profile: Profile) {
    for sink in sinks {
        match sink {
            SinkConfig::Stdout(_) => {}
            SinkConfig::File(file) => file.profile = profile,
            SinkConfig::Kafka(kafka) => kafka.profile = profile,
        }
    }
}

/// Reads the `sinks` list and adds the sinks of flags; without any, standard output.
pub fn read(
    root: &mut Section<'_>,
    stdout_flag: Option<StdoutFlags>,
    state: Option<&Path>,
) -> Vec<SinkConfig> {
    let mut taken = Vec::new();
    let sinks = root.sections("sinks", |section| {
        if taken.len() == MAX_SINKS {
            section.refuse_all(format!("is one more than the {MAX_SINKS} sinks that there may be"));
            section.skip_rest();
            return None;
        }
        let sink = read_one(section);
        if let Some(sink) = &sink {
            refuse_clash(section, sink, &taken);
            taken.push(sink.clone());
        }
        sink
    });
    let mut sinks: Vec<_> = sinks.into_iter().flatten().collect();
    registry::keep_ids(&mut sinks, state);
    let flags = stdout_flag.or_else(|| sinks.is_empty().then_some(TextFormat::Text.into()));
    if let Some(StdoutFlags { format, columns, local_time }) = flags {
        let present = sinks.iter_mut().find_map(|sink| match sink {
            SinkConfig::Stdout(stdout) => Some(stdout),
            _ => None,
        });
        match present {
            Some(stdout) => {
                stdout.format = format;
                stdout.local_time |= local_time;
                stdout.columns = columns.or(stdout.columns.filter(|_| format.has_columns()));
            }
            None => sinks.push(SinkConfig::Stdout(StdoutConfig {
                name: unused_name("stdout", &sinks),
                format,
                color: ColorChoice::Auto,
                columns,
                local_time,
                dated: false,
            })),
        }
    }
    sinks
}

/// Returns a name for the sink that a flag adds, which may differ from the usual one.
fn unused_name(usual: &str, sinks: &[SinkConfig]) -> String {
    let mut name = usual.to_owned();
    while sinks.iter().any(|sink| sink.name() == name) {
        name.push_str("-flag");
    }
    name
}

fn read_one(section: &mut Section<'_>) -> Option<SinkConfig> {
    /// The `type` key.
    #[derive(Clone, Copy, ValueEnum)]
    enum SinkType {
        Stdout,
        File,
        Kafka,
    }

    let Some(sink_type) = section.require("type", choice::<SinkType>) else {
        section.skip_rest();
        return None;
    };
    match sink_type {
        SinkType::Stdout => Some(SinkConfig::Stdout(StdoutConfig::read(section))),
        SinkType::File => FileConfig::read(section).map(SinkConfig::File),
        SinkType::Kafka => {
            KafkaConfig::read(section).map(|kafka| SinkConfig::Kafka(Box::new(kafka)))
        }
    }
}

fn refuse_clash(section: &mut Section<'_>, sink: &SinkConfig, taken: &[SinkConfig]) {
    let name = sink.name();
    for other in taken {
        match (sink, other) {
            (SinkConfig::Stdout(_), SinkConfig::Stdout(_)) => section.refuse(
                "type",
                Some("\"stdout\"".to_owned()),
                "there is a stdout sink already, and their lines would mix",
            ),
            (SinkConfig::File(file), SinkConfig::File(other))
                if (&file.directory, &file.prefix) == (&other.directory, &other.prefix) =>
            {
                section.refuse(
                    "prefix",
                    Some(format!("{:?}", file.prefix)),
                    format!(
                        "sink {:?} writes files of this name in the same directory",
                        other.name
                    ),
                );
            }
            (SinkConfig::Kafka(kafka), SinkConfig::Kafka(other))
                if kafka.spool.is_some() && kafka.spool_directory() == other.spool_directory() =>
            {
                section.refuse(
                    "spool.directory",
                    kafka.spool_directory().map(|directory| format!("{directory:?}")),
                    format!("sink {:?} has its spool there: give each its own", other.name),
                );
            }
            _ if name == other.name() => section.refuse(
                "name",
                Some(format!("{name:?}")),
                "another sink has this name: give each its own",
            ),
            _ => {}
        }
    }
}

fn name(section: &mut Section<'_>, usual: &str) -> String {
    section.read("name", text(label)).unwrap_or_else(|| usual.to_owned())
}

impl StdoutConfig {
    fn read(section: &mut Section<'_>) -> Self {
        let name = name(section, "stdout");
        let format = section.read("format", choice).unwrap_or(TextFormat::Text);
        let color = section.read("color", choice).unwrap_or(ColorChoice::Auto);
        let columns = section.read_list("columns", text(str::parse::<Column>)).and_then(|list| {
            let columns = Columns::chosen(&list);
            let reason = match &columns {
                Err(reason) => Some(reason.clone()),
                Ok(_) if !format.has_columns() => {
                    Some("chooses columns of text, wide and csv: JSON has every field".to_owned())
                }
                Ok(_) => None,
            };
            if let Some(reason) = reason {
                section.refuse("columns", None, reason);
            }
            columns.ok()
        });
        let local_time = section.read("local_time", boolean).unwrap_or(false);
        Self { name, format, color, columns, local_time, dated: false }
    }
}

impl FileConfig {
    fn read(section: &mut Section<'_>) -> Option<Self> {
        let name = name(section, "file");
        let directory = section.require("directory", section.path(directory));
        let prefix = section.read("prefix", text(file_prefix));
        // A block of the container format is written as a whole, so files cannot be smaller than a
        // few KiB.
        let rotate_bytes = section.read("rotate_bytes", whole_number(4 << 10..=1 << 40));
        let rotate_after = section.read("rotate_after_s", seconds(1..=7 * 24 * 3600));
        let codec = section.read("codec", choice);
        let group_read = section.read("group_read", boolean);
        Some(Self {
            name,
            directory: directory?,
            prefix: prefix.unwrap_or_else(|| "transactions".to_owned()),
            rotate_bytes: rotate_bytes.unwrap_or(128 << 20),
            rotate_after: rotate_after.unwrap_or(Duration::from_secs(300)),
            codec: codec.unwrap_or(FileCodec::None),
            group_read: group_read.unwrap_or(false),
            profile: Profile::Full,
        })
    }
}

fn directory(text: &str, machine: Machine) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if machine == Machine::Other {
        return Ok(path);
    }
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(path),
        Ok(_) => Err("is not a directory".to_owned()),
        Err(error) => Err(format!("cannot be used: {error}")),
    }
}

/// File names are `<prefix>-<16 characters of time>-<6 digits>.avro.partial` and the usual limit
/// is 255 bytes.
fn file_prefix(text: &str) -> Result<String, String> {
    const MAX_BYTES: usize = 200;
    if text.is_empty() {
        Err("must not be empty".to_owned())
    } else if text.len() > MAX_BYTES {
        Err(format!("must not be longer than {MAX_BYTES} bytes"))
    } else if text.contains(['/', '\0']) || text.starts_with('.') {
        Err("must be the start of a file name: no slash, no leading dot".to_owned())
    } else {
        Ok(text.to_owned())
    }
}
