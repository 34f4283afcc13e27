//! Avro read by fastavro: an implementation that shares nothing with the agent's.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{cache, process::run};

const FASTAVRO: &str = "fastavro==1.13.1";

/// The records of Avro object container files, in order.
///
/// # Errors
/// When fastavro cannot read them; with its message.
pub fn read_containers(paths: &[PathBuf]) -> Result<Vec<Value>> {
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    decode(Command::new(python()?).arg(script()).arg("container").args(paths), &[])
}

/// The records of messages in single-object encoding, whose fingerprint must be that of the schema
/// in the file `schema`.
///
/// # Errors
/// When fastavro cannot read one, or a fingerprint differs.
pub fn read_single_objects<'a>(
    schema: &Path,
    messages: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<Value>> {
    resolve_single_objects(schema, None, messages)
}

/// As [`read_single_objects`], resolved to the schema in the file `reader`.
///
/// # Errors
/// Also when the schemas do not fit.
pub fn resolve_single_objects<'a>(
    schema: &Path,
    reader: Option<&Path>,
    messages: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<Value>> {
    let mut lines = Vec::new();
    for message in messages {
        for byte in message {
            write!(lines, "{byte:02x}")?;
        }
        lines.push(b'\n');
    }
    let mut command = Command::new(python()?);
    command.arg(script()).arg("single-object").arg(schema).args(reader);
    decode(&mut command, &lines)
}

/// Python of a virtual environment in the cache that has fastavro; made now if it is not there yet.
///
/// # Errors
/// When Python 3 with venv is not installed, or fastavro cannot be had.
pub fn python() -> Result<PathBuf> {
    let environment = cache::filled("venv", |directory| {
        run(Command::new("python3").args(["-m", "venv"]).arg(directory))
            .context("make a virtual environment (packages python3 and python3-venv)")?;
        run(Command::new(directory.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", FASTAVRO]))
        .context("install fastavro")?;
        Ok(())
    })?;
    Ok(environment.join("bin/python"))
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("harness/python/decode_avro.py")
}

fn decode(command: &mut Command, input: &[u8]) -> Result<Vec<Value>> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {command:?}"))?;
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            // A decoder that gives up early closes its end; its exit code says so.
            let _ = stdin.write_all(input);
        });
        child.wait_with_output()
    })?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!("fastavro: {}", message.trim_end());
    }
    let text = String::from_utf8(output.stdout)?;
    text.lines().map(|line| serde_json::from_str(line).context("fastavro's JSON")).collect()
}
