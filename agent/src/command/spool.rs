//! `tap53 spool`: inspects a queue on disk. It needs no lock, so the agent may be running.

use std::{
    fs::OpenOptions,
    io::{self, BufWriter, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tap53_base::amount::Amount;
use tap53_records::encode::{Profile, push_json_line, read_single_object, single_object_header};
use tap53_sinks::AvroFile;
use tap53_spool::{self as spool, Contents, Listed, Loss, Reading, Totals};

use super::{
    output::Output,
    table::{Cell, colored, print, table},
};
use crate::exit;

pub(crate) const EXAMPLES: &str = "\
Examples:
  tap53 spool ls /var/lib/tap53/spool
  tap53 spool ls /var/lib/tap53/spool -o json | jq .waiting.records
  tap53 spool export /var/lib/tap53/spool waiting.avro
  tap53 spool export /var/lib/tap53/spool - --json | jq .qname
  tap53 spool export --profile full /var/lib/tap53/spool older.avro

Exit status: 0 done; 1 failed; 3 some waiting records cannot be read or exported.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the segments with their waiting records
    Ls(Directory),
    /// Read all segments, and report damaged records
    Verify(Directory),
    /// Write the waiting records to a file; they stay in the spool
    Export(Export),
}

#[derive(Args, Debug)]
pub(crate) struct Directory {
    /// Directory of the spool
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    #[command(flatten)]
    output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct Export {
    /// Directory of the spool
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// File to write, an Avro object container; it must not exist. - is standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Write lines of JSON instead, as `tap53 run --json` does
    #[arg(long)]
    json: bool,
    /// Profile of the records to write: a file has records of one profile [default: the profile of
    /// the oldest record]
    #[arg(long, value_enum)]
    profile: Option<Profile>,
}

pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Ls(Directory { directory, output }) => list(&spool::contents(directory)?, *output),
        Command::Verify(Directory { directory, output }) => {
            verify(&spool::contents(directory)?, *output)
        }
        Command::Export(Export { directory, file, json, profile }) => {
            export(&spool::contents(directory)?, file, *json, *profile)
        }
    }
}

fn list(contents: &Contents, output: Output) -> anyhow::Result<ExitCode> {
    let totals = contents.totals();
    let waiting = contents.waiting();
    let lost: serde_json::Map<_, _> = Loss::ALL
        .into_iter()
        .zip(totals.lost)
        .map(|(reason, lost)| (reason.name().to_owned(), lost.records.into()))
        .collect();
    let segments: Vec<_> = contents.list().iter().map(segment_json).collect();
    let value = json!({
        "segments": segments,
        "waiting": {"records": waiting.records, "messages": waiting.messages},
        "acknowledged_id": contents.acknowledged_id(),
        "totals": {
            "from_id": totals.from_id,
            "appended": totals.appended.records,
            "arrived": totals.arrived.records,
            "waiting": totals.waiting.records,
            "lost": lost,
        },
    });
    output.print(&value, || list_text(contents))
}

fn segment_json(segment: &Listed) -> Value {
    json!({
        "file": file_name(segment),
        "created_at_ms": segment.created_at_ms,
        "first_id": segment.first_id,
        "bytes": segment.bytes,
        "records": segment.amount.records,
        "waiting": segment.waiting,
    })
}

fn file_name(segment: &Listed) -> String {
    segment.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn list_text(contents: &Contents) -> String {
    let mut rows: Vec<[Cell; 6]> = vec![
        ["SEGMENT", "CREATED (UTC)", "FIRST ID", "BYTES", "RECORDS", "WAITING"].map(Cell::from),
    ];
    for segment in contents.list() {
        let created = segment
            .created_at_ms
            .and_then(|at_ms| jiff::Timestamp::from_millisecond(at_ms).ok())
            .map_or_else(|| "unknown".to_owned(), |at| at.strftime("%F %T").to_string());
        rows.push([
            file_name(&segment).into(),
            created.into(),
            segment.first_id.to_string().into(),
            segment.bytes.to_string().into(),
            segment.amount.records.to_string().into(),
            segment.waiting.to_string().into(),
        ]);
    }
    let waiting = contents.waiting();
    format!(
        "{}waiting: {} records ({} messages), from id {} on\n{}",
        table(&rows, colored()),
        waiting.records,
        waiting.messages,
        contents.acknowledged_id(),
        totals(&contents.totals()),
    )
}

fn totals(totals: &Totals) -> String {
    let since = match totals.from_id {
        0 => "ever".to_owned(),
        id => format!("from id {id} on"),
    };
    let mut text = format!(
        "{since}: {} records appended = {} arrived + {} waiting",
        totals.appended.records, totals.arrived.records, totals.waiting.records
    );
    for (reason, lost) in Loss::ALL.into_iter().zip(totals.lost) {
        if lost.records > 0 {
            text.push_str(&format!(" + {} lost ({})", lost.records, reason.name()));
        }
    }
    text.push('\n');
    text
}

fn verify(contents: &Contents, output: Output) -> anyhow::Result<ExitCode> {
    let reading = contents.read(|_| Ok::<_, spool::Error>(()))?;
    let amount = |amount: Amount| json!({"records": amount.records, "messages": amount.messages});
    let value = json!({
        "readable": amount(reading.readable),
        "waiting": amount(reading.waiting),
        "unreadable": amount(reading.unreadable),
        "torn_bytes": contents.torn_bytes(),
    });
    output.print(&value, || verify_text(contents, &reading))?;
    Ok(code(reading.unreadable.records == 0))
}

fn verify_text(contents: &Contents, reading: &Reading) -> String {
    let mut text = format!(
        "whole: {} records, of which {} wait\nunreadable: {} records ({} messages) of those that wait\n",
        reading.readable.records,
        reading.waiting.records,
        reading.unreadable.records,
        reading.unreadable.messages,
    );
    if contents.torn_bytes() > 0 {
        text.push_str(&format!(
            "unfinished: {} bytes at the end, of an append that was not complete\n",
            contents.torn_bytes()
        ));
    }
    text
}

/// Returns the profile of the oldest waiting record, if this version knows its schema.
fn profile_of_oldest(contents: &Contents) -> anyhow::Result<Option<Profile>> {
    let mut oldest = None;
    contents.read(|entry| -> anyhow::Result<()> {
        if oldest.is_none() {
            oldest = read_single_object(entry.record.value).map(|(fingerprint, _)| fingerprint);
        }
        Ok(())
    })?;
    for profile in Profile::ALL {
        if oldest == Some(profile.fingerprint()?) {
            return Ok(Some(profile));
        }
    }
    Ok(None)
}

fn export(
    contents: &Contents,
    path: &Path,
    json: bool,
    profile: Option<Profile>,
) -> anyhow::Result<ExitCode> {
    let profile = match profile {
        Some(profile) => profile,
        None => profile_of_oldest(contents)?.unwrap_or_default(),
    };
    // Avro single-object encoding, as the Kafka sink writes it.
    let header = single_object_header(profile.fingerprint()?);
    let is_stdout = path == Path::new("-");
    let refused = || match is_stdout {
        true => "cannot write to standard output".to_owned(),
        false => format!("cannot write {}", path.display()),
    };
    let mut out = Out::begin(open(path, is_stdout).with_context(refused)?, json, profile)
        .with_context(refused)?;
    let mut others = 0_u64;
    let reading = contents.read(|entry| -> anyhow::Result<()> {
        match entry.record.value.strip_prefix(&header) {
            Some(datum) => out.push(datum).with_context(refused),
            None => {
                others += 1;
                Ok(())
            }
        }
    });
    let reading = match reading.and_then(|reading| {
        out.finish().with_context(refused)?;
        Ok(reading)
    }) {
        // A closed pipe, as of `head`, is not an error.
        Err(error) if is_stdout && is_broken_pipe(&error) => return Ok(ExitCode::SUCCESS),
        other => other?,
    };
    let mut text = format!("{} records exported\n", reading.waiting.records - others);
    if others > 0 {
        text.push_str(&format!(
            "{others} records of another schema, profile or framing left out\n"
        ));
    }
    if reading.unreadable.records > 0 {
        text.push_str(&format!("{} records cannot be read\n", reading.unreadable.records));
    }
    if is_stdout {
        // Standard output has the records.
        let _ = io::stderr().write_all(text.as_bytes());
    } else {
        print(&text)?;
    }
    Ok(code(others == 0 && reading.unreadable.records == 0))
}

fn open(path: &Path, is_stdout: bool) -> io::Result<Box<dyn Write>> {
    if is_stdout {
        return Ok(Box::new(io::stdout().lock()));
    }
    // Readable only by its owner, as the spool is.
    let mut options = OpenOptions::new();
    Ok(Box::new(options.write(true).create_new(true).mode(0o600).open(path)?))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == ErrorKind::BrokenPipe)
}

/// The output of an export, by format.
enum Out {
    Avro(AvroFile<BufWriter<Box<dyn Write>>>),
    Json(BufWriter<Box<dyn Write>>, Profile, Vec<u8>),
}

impl Out {
    fn begin(to: Box<dyn Write>, json: bool, profile: Profile) -> io::Result<Self> {
        let to = BufWriter::new(to);
        Ok(match json {
            true => Self::Json(to, profile, Vec::new()),
            false => Self::Avro(AvroFile::begin(to, profile)?),
        })
    }

    fn push(&mut self, datum: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::Avro(file) => file.push(datum)?,
            Self::Json(to, profile, line) => {
                line.clear();
                push_json_line(*profile, datum, line)?;
                to.write_all(line)?;
            }
        }
        Ok(())
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Avro(file) => file.finish()?.flush(),
            Self::Json(mut to, ..) => to.flush(),
        }
    }
}

fn code(is_whole: bool) -> ExitCode {
    if is_whole { ExitCode::SUCCESS } else { ExitCode::from(exit::LOSS) }
}
