//! Nothing that the `privacy` section hides leaves the agent: addresses, client subnets, cookies
//! and reverse names are planted in a capture file, and searched for in everything that the agent
//! writes.

#[path = "privacy/planted.rs"]
mod planted;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use planted::Canary;
use tap53_harness::agent;

/// The key of the pseudonyms, itself a canary.
const KEY: &[u8; 32] = b"canary key \xf0\x01 of thirty-two byte";

/// Everything that the agent wrote, by name.
type Written = Vec<(String, Vec<u8>)>;

/// A directory with the capture file and the key.
struct Stage(TempDir);

impl Stage {
    fn new() -> Result<Self> {
        let stage = Self(tempfile::tempdir()?);
        fs::write(stage.path("planted.pcap"), planted::capture_file())?;
        fs::write(stage.path("key"), KEY)?;
        fs::set_permissions(stage.path("key"), fs::Permissions::from_mode(0o400))?;
        Ok(stage)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Replays the file in every form of output, with `privacy` and all there is to log, and
    /// collects standard output, standard error, ledgers, Avro files and the printed configuration.
    fn written(&self, privacy: &str) -> Result<Written> {
        let mut written = Written::new();
        let file = self.path("planted.pcap");
        let file = file.to_str().context("a temporary path in UTF-8")?;
        let outputs = [
            ("Avro", "{type: file, directory: $OUT}", &[][..]),
            ("JSON", "{type: stdout, format: json}", &[][..]),
            ("text", "{type: stdout, format: text, color: never}", &[][..]),
            ("messages", "{type: stdout}", &["--messages"][..]),
        ];
        for (name, sink, arguments) in outputs {
            let out = tempfile::tempdir_in(self.0.path())?;
            let configuration = out.path().join("tap53.yaml");
            let yaml = format!(
                "interfaces: {{include: [lo]}}\nsinks: [{sink}]\nlog: {{level: trace}}\n{privacy}"
            );
            let directory = out.path().to_str().context("a temporary path in UTF-8")?;
            let key = self.path("key");
            let yaml = yaml.replace("$OUT", directory).replace("$KEY", &key.to_string_lossy());
            fs::write(&configuration, yaml)?;
            let configuration = configuration.to_str().context("a temporary path in UTF-8")?;
            let ledger = out.path().join("ledger.json");
            let ledger_text = ledger.to_str().context("a temporary path in UTF-8")?;
            let replay =
                [&["replay", "-c", configuration, "--ledger", ledger_text][..], arguments, &[file]];
            let check = ["check-config", "-c", configuration];
            for (command, arguments) in
                [("replay", replay.concat()), ("check-config", check.to_vec())]
            {
                let output = agent::run(&arguments)?;
                let log = String::from_utf8_lossy(&output.stderr);
                ensure!(output.status.success(), "{command} for {name}: {log}");
                written.push((format!("{name}: {command}'s standard output"), output.stdout));
                written.push((format!("{name}: {command}'s standard error"), output.stderr));
            }
            written.push((format!("{name}: ledger"), fs::read(&ledger)?));
            written.extend(avro_files(out.path())?);
        }
        Ok(written)
    }
}

fn avro_files(directory: &Path) -> Result<Written> {
    let mut files = Written::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "avro") {
            files.push((path.display().to_string(), fs::read(&path)?));
        }
    }
    Ok(files)
}

fn found<'a>(written: &'a Written, canary: &'a Canary) -> impl Iterator<Item = String> + 'a {
    written.iter().flat_map(move |(name, bytes)| {
        let forms = canary.forms.iter().filter(move |form| holds(bytes, form));
        forms.map(move |form| format!("{} as {} in {name}", canary.name, form.escape_ascii()))
    })
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

fn require_none(written: &Written, canaries: &[Canary]) -> Result<()> {
    let found: Vec<String> = canaries.iter().flat_map(|canary| found(written, canary)).collect();
    ensure!(found.is_empty(), "found:\n  {}", found.join("\n  "));
    Ok(())
}

fn lines(written: &Written, name: &str) -> Result<Vec<serde_json::Value>> {
    let output = written.iter().find(|(output, _)| output.starts_with(name));
    let output = &output.with_context(|| format!("no {name}"))?.1;
    let lines = std::str::from_utf8(output)?.lines();
    Ok(lines.map(serde_json::from_str).collect::<Result<_, _>>()?)
}

#[test]
fn every_canary_is_there_to_be_found_without_a_privacy_rule() -> Result<()> {
    let written = Stage::new()?.written("")?;
    for canary in planted::canaries() {
        ensure!(found(&written, &canary).next().is_some(), "{} is nowhere", canary.name);
    }
    Ok(())
}

#[test]
fn dropped_values_are_in_no_output() -> Result<()> {
    let written = Stage::new()?.written(
        "privacy: {client_address: drop, server_address: drop, reverse_names: drop, \
         client_subnet: drop, cookies: drop, other_options: drop}\n",
    )?;
    require_none(&written, &planted::canaries())?;
    for line in lines(&written, "JSON")? {
        assert_eq!((&line["client_address"], &line["server_address"]), (&"".into(), &"".into()));
    }
    Ok(())
}

#[test]
fn hashed_values_and_the_key_are_in_no_output() -> Result<()> {
    let hash = "{hash: {key_file: $KEY}}";
    let written = Stage::new()?.written(&format!(
        "privacy: {{client_address: {hash}, server_address: {hash}, reverse_names: {hash}}}\n"
    ))?;
    require_none(&written, &planted::canaries())?;
    require_none(&written, &[Canary::of_bytes("the key", KEY)])?;
    // Equal addresses have equal pseudonyms, so that records can still be grouped.
    let lines = lines(&written, "JSON")?;
    let clients: Vec<_> = lines.iter().filter_map(|line| line["client_address"].as_str()).collect();
    assert!(clients.iter().all(|client| client.starts_with("h:") && client.len() == 34));
    let asked: Vec<_> = lines.iter().filter_map(|line| line["qname"].as_str()).collect();
    let own = format!("{}.in-addr.arpa", clients[0]);
    assert!(asked.contains(&own.as_str()), "{own} in {asked:?}");
    Ok(())
}

#[test]
fn truncated_addresses_show_their_prefix_only() -> Result<()> {
    let lengths = "{truncate: {ipv4: 16, ipv6: 32}}";
    let written = Stage::new()?.written(&format!(
        "privacy: {{client_address: {lengths}, server_address: {lengths}, \
         reverse_names: {lengths}, client_subnet: {lengths}}}\n"
    ))?;
    require_none(&written, &planted::canaries())?;
    let lines = lines(&written, "JSON")?;
    assert_eq!(lines[0]["client_address"], "198.51.0.0");
    assert_eq!(lines[0]["server_address"], "203.0.0.0");
    assert_eq!(lines[0]["query_client_subnet"], "100.77.0.0/16");
    Ok(())
}

#[test]
fn wire_bytes_and_privacy_exclude_each_other() -> Result<()> {
    let stage = Stage::new()?;
    let configuration = stage.path("tap53.yaml");
    fs::write(
        &configuration,
        "interfaces: {include: [lo]}\nrecord: {wire_bytes: true}\nprivacy: {cookies: drop}\n",
    )?;
    let configuration = configuration.to_str().context("a temporary path in UTF-8")?;
    let output = agent::run(&["check-config", "-c", configuration])?;
    let log = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(2), "{log}");
    assert!(log.contains("record.wire_bytes: true: messages as they were sent"), "{log}");
    Ok(())
}
