//! `tap53 spool`: looking into a queue on disk. It needs no lock, so the agent may run.

use std::{
    fs::OpenOptions,
    io::{BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::{Args, Subcommand};
use tap53::{
    encode::fingerprint,
    sink::AvroFile,
    spool::{self, Contents, Loss, Totals},
};

use super::table::{Cell, colored, print, table};
use crate::exit;

pub(crate) const EXAMPLES: &str = "\
Examples:
  tap53 spool ls /var/lib/tap53/spool
  tap53 spool export /var/lib/tap53/spool waiting.avro

Exit status: 0 done; 1 failed; 3 records that wait cannot be read.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the segments, and what waits in them
    Ls(Directory),
    /// Read everything and say what of it is whole
    Verify(Directory),
    /// Write the records that wait to an Avro object container file; they stay in the spool
    Export(Export),
}

#[derive(Args, Debug)]
pub(crate) struct Directory {
    /// The spool's directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct Export {
    /// The spool's directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The file to write; must not exist
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Ls(Directory { directory }) => list(&spool::contents(directory)?),
        Command::Verify(Directory { directory }) => verify(&spool::contents(directory)?),
        Command::Export(Export { directory, file }) => export(&spool::contents(directory)?, file),
    }
}

fn list(contents: &Contents) -> anyhow::Result<ExitCode> {
    let mut rows: Vec<[Cell; 6]> = vec![
        ["SEGMENT", "CREATED (UTC)", "FIRST ID", "BYTES", "RECORDS", "WAITING"].map(Cell::from),
    ];
    for segment in contents.list() {
        let created = segment
            .created_at_ms
            .and_then(|at_ms| jiff::Timestamp::from_millisecond(at_ms).ok())
            .map_or_else(|| "unknown".to_owned(), |at| at.strftime("%F %T").to_string());
        rows.push([
            segment.path.file_name().unwrap_or_default().to_string_lossy().into_owned().into(),
            created.into(),
            segment.first_id.to_string().into(),
            segment.bytes.to_string().into(),
            segment.amount.records.to_string().into(),
            segment.waiting.to_string().into(),
        ]);
    }
    let waiting = contents.waiting();
    print(&format!(
        "{}waiting: {} records ({} messages), from id {} on\n{}",
        table(&rows, colored()),
        waiting.records,
        waiting.messages,
        contents.done_id(),
        totals(&contents.totals()),
    ))
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

fn verify(contents: &Contents) -> anyhow::Result<ExitCode> {
    let reading = contents.read(|_| Ok::<_, spool::Error>(()))?;
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
    print(&text)?;
    Ok(code(reading.unreadable.records == 0))
}

fn export(contents: &Contents, path: &PathBuf) -> anyhow::Result<ExitCode> {
    // Avro single-object encoding, which is what the Kafka sink writes.
    let mut header = [0xc3, 0x01, 0, 0, 0, 0, 0, 0, 0, 0];
    header[2..].copy_from_slice(&fingerprint()?);
    let refused = || format!("cannot write {}", path.display());
    // For nobody else's eyes, as the spool is.
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path).with_context(refused)?;
    let mut out = AvroFile::begin(BufWriter::new(file)).with_context(refused)?;
    let mut others = 0_u64;
    let reading = contents.read(|entry| -> anyhow::Result<()> {
        match entry.record.value.strip_prefix(&header) {
            Some(datum) => out.push(datum).with_context(refused),
            None => {
                others += 1;
                Ok(())
            }
        }
    })?;
    out.finish().and_then(|mut out| out.flush()).with_context(refused)?;
    let mut text = format!("{} records exported\n", reading.waiting.records - others);
    if others > 0 {
        text.push_str(&format!("{others} records of another schema or framing left out\n"));
    }
    if reading.unreadable.records > 0 {
        text.push_str(&format!("{} records cannot be read\n", reading.unreadable.records));
    }
    print(&text)?;
    Ok(code(others == 0 && reading.unreadable.records == 0))
}

fn code(is_whole: bool) -> ExitCode {
    if is_whole { ExitCode::SUCCESS } else { ExitCode::from(exit::LOSS) }
}
