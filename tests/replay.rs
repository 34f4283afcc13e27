//! `tap53 replay`: capture files of other programs give the records of live capture; damaged files are named
//! with the damage; and no privileges are needed.

#[path = "replay/files.rs"]
mod files;
#[path = "replay/streams.rs"]
mod streams;

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tap53_harness::{
    account::{Ledger, records_equal_exchanges},
    agent::{self, Agent},
    client::{Exchange, Question, Transport},
    dumpcap::Dumpcap,
    fastavro,
    lab::Lab,
    process, wait,
};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(30);

const FAILED: i32 = 1;

/// Configuration of both live capture and replay.
const CONFIGURATION: &str = "
node: node-under-test
interfaces:
  include: [s0]
pair:
  timeout_ms: 300
sinks:
  - type: file
    directory: $OUT
";

/// The last query while a capture runs.
const LAST: Question = Question { name: "last.absent.test", qtype: "A" };

/// Traffic, as several witnesses saw it.
struct Captured {
    exchanges: Vec<Exchange>,
    /// Records of the agent that captured live.
    records: Vec<Value>,
    /// Holds the files below.
    directory: TempDir,
}

impl Captured {
    /// The interface's own capture, of Ethernet frames.
    fn file(&self) -> PathBuf {
        self.directory.path().join("s0.pcapng")
    }

    /// The capture of interface `any` in Linux' cooked link type, of either version.
    fn cooked(&self, version: u8) -> PathBuf {
        self.directory.path().join(format!("any{version}.pcapng"))
    }

    fn any(&self) -> [(u8, &'static str); 2] {
        [(1, "LINUX_SLL"), (2, "LINUX_SLL2")]
    }
}

/// Asks everything while the agent captures, and dumpcap beside it.
fn capture() -> Result<Captured> {
    let lab = Lab::new()?;
    let directory = tempfile::tempdir()?;
    let mut captured = Captured { exchanges: Vec::new(), records: Vec::new(), directory };
    let configuration = format!("{CONFIGURATION}  - type: stdout\n");
    let agent = Agent::start(&lab.server, &configuration, &[])?;
    let mut dumpcaps = vec![Dumpcap::start(&lab.server, "s0", "EN10MB", &captured.file())?];
    for (version, link_type) in captured.any() {
        let path = captured.cooked(version);
        dumpcaps.push(Dumpcap::start(&lab.server, "any", link_type, &path)?);
    }
    captured.exchanges = lab.ask_everything()?;
    // What stays unanswered is recorded when its time is over, and only then comes the last query:
    // so its time is over in the files too.
    let stdout = agent.process().stdout();
    wait::until("a record of each transaction", DEADLINE, || {
        let lines = stdout.lines();
        let records = lines.iter().filter(|line| !line.starts_with("TIME")).count();
        Ok((records >= captured.exchanges.len()).then_some(()))
    })?;
    captured.exchanges.push(lab.client_v4().ask(Transport::Udp, LAST)?);
    for dumpcap in dumpcaps {
        dumpcap.stop_after(LAST.name)?;
    }
    agent.wait_for_output(LAST.name, 0, DEADLINE)?;
    captured.records = agent.stop()?.records;
    Ok(captured)
}

/// The result of `tap53 replay`.
struct Replayed {
    records: Vec<Value>,
    ledger: Value,
    stderr: String,
}

/// Replays into Avro files, which fastavro reads.
fn replay(files: &[&Path]) -> Result<Replayed> {
    let out = tempfile::tempdir()?;
    let configuration = out.path().join("tap53.yaml");
    let directory = out.path().to_str().context("a temporary path in UTF-8")?;
    fs::write(&configuration, CONFIGURATION.replace("$OUT", directory))?;
    let ledger = out.path().join("ledger.json");
    let mut command = Command::new(agent::binary()?);
    command.arg("replay").arg("--config").arg(&configuration).arg("--ledger").arg(&ledger);
    let output = command.args(files).output()?;
    let stderr = stderr(&output);
    ensure!(output.status.success(), "{}: {stderr}", output.status);
    ensure!(output.stdout.is_empty(), "a sink of the configuration, and standard output as well");
    let mut containers = Vec::new();
    for entry in fs::read_dir(out.path())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "avro") {
            containers.push(path);
        }
    }
    Ok(Replayed {
        records: fastavro::read_containers(&containers)?,
        ledger: serde_json::from_slice(&fs::read(&ledger)?)?,
        stderr,
    })
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json_lines(text: &[u8]) -> Result<Vec<Value>> {
    let lines = serde_json::Deserializer::from_slice(text).into_iter();
    lines.collect::<Result<_, _>>().context("standard output is not JSON lines")
}

/// Fields by which a live record and a replayed one may differ: each has an identifier of its own
/// and a clock that reads a little later or earlier, and frames are of files only.
const OWN_FIELDS: [&str; 18] = [
    "record_id",
    "related_record_id",
    "query_time",
    "response_time",
    "latency_ns",
    "latest_query_time",
    "latency_from_latest_query_ns",
    "vlan_visible",
    "query_file",
    "query_frame",
    "response_file",
    "response_frame",
    // A file does not know sockets.
    "observation",
    "client_user_id",
    "server_user_id",
    "run_id",
    "worker",
    "record_number",
];

type ByExchange = BTreeMap<(u64, u64), Value>;

/// The records by identifier and port of their client.
fn by_exchange(records: &[Value]) -> ByExchange {
    let number = |record: &Value, field: &str| record[field].as_u64().unwrap_or(u64::MAX);
    records
        .iter()
        .map(|record| ((number(record, "dns_id"), number(record, "client_port")), record.clone()))
        .collect()
}

/// Fails with each field that differs.
fn require_same(replayed: &[Value], live: &ByExchange) -> Result<()> {
    let replayed = by_exchange(replayed);
    ensure!(replayed.keys().eq(live.keys()), "other exchanges than live: {:?}", replayed.keys());
    let mut differences = Vec::new();
    for (key, live) in live {
        for (field, value) in live.as_object().context("a record is an object")? {
            let other = &replayed[key][field];
            if other != value && !OWN_FIELDS.contains(&field.as_str()) {
                differences.push(format!("{key:?} {field}: live {value}, replayed {other}"));
            }
        }
    }
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}

#[test]
fn a_capture_file_gives_the_records_of_live_capture() -> Result<()> {
    let captured = capture()?;
    let exchanges = &captured.exchanges;
    let live = by_exchange(&captured.records);
    assert_eq!(live.len(), exchanges.len());

    let replayed = replay(&[&captured.file()])?;
    records_equal_exchanges(&replayed.records, exchanges, "s0", "INGRESS")?;
    require_same(&replayed.records, &live)?;
    let ledger = Ledger(&replayed.ledger);
    ledger.require_balance()?;
    assert_eq!(replayed.ledger["interfaces"][0]["name"], "s0.pcapng");
    assert_eq!(replayed.ledger["interfaces"][0]["hooks"]["ingress"], "file");
    assert!(replayed.stderr.contains("balanced: yes"), "{}", replayed.stderr);
    let frames = frame_count(&captured.file())?;
    let seen = |direction: &str| ledger.number(&format!("/interfaces/0/{direction}/seen"));
    assert_eq!(seen("ingress")? + seen("egress")?, frames);

    // The same in other formats, except for the interface, which some do not have.
    let pcap = captured.directory.path().join("s0.pcap");
    for format in ["pcap", "nsecpcap"] {
        let mut editcap = Command::new("editcap");
        process::run(editcap.args(["-F", format]).args([&captured.file(), &pcap]))?;
        let replayed = replay(&[&pcap])?;
        records_equal_exchanges(&replayed.records, exchanges, "s0.pcap", "INGRESS")?;
        Ledger(&replayed.ledger).require_balance()?;
    }
    let gzipped = captured.directory.path().join("s0.pcap.gz");
    fs::write(&gzipped, compressed("gzip", &pcap)?)?;
    let replayed = replay(&[&gzipped])?;
    records_equal_exchanges(&replayed.records, exchanges, "s0.pcap.gz", "INGRESS")?;

    // In two files, as a ring of files has them.
    let mut editcap = Command::new("editcap");
    editcap.args(["-c", "20"]).args([&captured.file(), &captured.directory.path().join("part")]);
    process::run(&mut editcap)?;
    let mut parts = Vec::new();
    for entry in fs::read_dir(captured.directory.path())? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("part")) {
            parts.push(path);
        }
    }
    parts.sort();
    assert!(parts.len() > 1);
    let parts: Vec<&Path> = parts.iter().map(PathBuf::as_path).collect();
    let replayed = replay(&parts)?;
    require_same(&replayed.records, &live)?;
    Ok(())
}

#[test]
fn cooked_captures_have_direction_and_interface() -> Result<()> {
    let captured = capture()?;
    for (version, _) in captured.any() {
        let replayed = replay(&[&captured.cooked(version)])?;
        let mut interfaces: Vec<&str> =
            replayed.records.iter().filter_map(|record| record["interface"].as_str()).collect();
        interfaces.sort_unstable();
        interfaces.dedup();
        let [interface] = interfaces[..] else {
            anyhow::bail!("version {version}: several interfaces: {interfaces:?}");
        };
        // Version 2 has the index of the interface.
        assert!(interface == "any" || version == 2 && interface.starts_with("any#"), "{interface}");
        records_equal_exchanges(&replayed.records, &captured.exchanges, interface, "INGRESS")?;
        Ledger(&replayed.ledger).require_balance()?;
    }
    Ok(())
}

#[test]
fn messages_have_the_frame_numbers_and_fields_that_tshark_gives_them() -> Result<()> {
    const FIELDS: [&str; 8] = [
        "frame.number",
        "dns.id",
        "dns.flags.response",
        "dns.flags.opcode",
        "dns.count.answers",
        "dns.qry.name",
        "udp.srcport",
        "tcp.srcport",
    ];
    let captured = capture()?;
    let output = agent::run(&["replay", "--messages", text(&captured.file())?])?;
    ensure!(output.status.success(), "{}", stderr(&output));
    let mut tshark = Command::new("tshark");
    tshark.args(["-r", text(&captured.file())?, "-Y", "dns", "-T", "fields"]);
    for field in FIELDS {
        tshark.args(["-e", field]);
    }
    let dissected = process::run(&mut tshark)?;
    let ours: Vec<String> = json_lines(&output.stdout)?
        .iter()
        .map(|message| {
            let of_transport = |name: &str| {
                let is_response = message["response"] == true;
                let port = &message[if is_response { "server_port" } else { "client_port" }];
                if message["transport"] == name { port.to_string() } else { String::new() }
            };
            let id = message["dns_id"].as_u64().unwrap_or(u64::MAX);
            let side = if message["response"] == true { "response" } else { "query" };
            let fields = [
                message[format!("{side}_frame")].to_string(),
                format!("0x{id:04x}"),
                u8::from(message["response"] == true).to_string(),
                if message["opcode"] == "QUERY" { "0" } else { "?" }.to_owned(),
                message["answer_count"].to_string(),
                message["qname"].as_str().unwrap_or_default().to_owned(),
                of_transport("UDP"),
                of_transport("TCP"),
            ];
            fields.join("\t")
        })
        .collect();
    let theirs: Vec<&str> = dissected.lines().collect();
    assert_eq!(ours, theirs);
    assert!(!ours.is_empty());
    for message in json_lines(&output.stdout)? {
        let is_of = |name: &str| message[name] == "s0.pcapng";
        assert!(is_of("query_file") != is_of("response_file"), "{message}");
        assert_eq!(message["parse_status"], "OK");
    }
    Ok(())
}

#[test]
fn it_needs_no_privileges_and_no_network() -> Result<()> {
    let captured = capture()?;
    // The program may be in root's home, which nobody cannot enter.
    let place = tempfile::tempdir()?;
    fs::set_permissions(place.path(), Permissions::from_mode(0o755))?;
    let program = place.path().join("tap53");
    fs::copy(agent::binary()?, &program)?;
    let file = place.path().join("s0.pcapng");
    fs::copy(captured.file(), &file)?;
    fs::set_permissions(&file, Permissions::from_mode(0o644))?;
    let mut command = Command::new("unshare");
    command
        .args(["--net", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"])
        .args(["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"])
        .arg(&program)
        .args(["replay", "--json"])
        .arg(&file);
    let output = command.output()?;
    ensure!(output.status.success(), "{}: {}", output.status, stderr(&output));
    let records = json_lines(&output.stdout)?;
    assert_eq!(records.len(), captured.exchanges.len());
    let unanswered = captured.exchanges.iter().filter(|exchange| exchange.response.is_none());
    let said = records.iter().filter(|record| record["outcome"] == "UNANSWERED");
    assert_eq!(said.count(), unanswered.count());
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a temporary path in UTF-8")
}

/// Frames in a file, as capinfos counts them.
fn frame_count(path: &Path) -> Result<u64> {
    let report = process::run(Command::new("capinfos").args(["-c", "-M", "-T", "-r"]).arg(path))?;
    let count = report.trim_end().rsplit('\t').next().and_then(|count| count.parse().ok());
    count.with_context(|| format!("no count of frames in {report:?}"))
}

/// Returns a file as `program` compresses it.
fn compressed(program: &str, path: &Path) -> Result<Vec<u8>> {
    let mut child = Command::new(program).arg("-c").arg(path).stdout(Stdio::piped()).spawn()?;
    let mut bytes = Vec::new();
    child.stdout.take().context("stdout is piped")?.read_to_end(&mut bytes)?;
    ensure!(child.wait()?.success(), "{program} failed");
    Ok(bytes)
}
