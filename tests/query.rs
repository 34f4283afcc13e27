//! `tap53 query` and `tap53 report`: answers about captures and Avro files are those that `tap53 replay`
//! gives, DuckDB reads the Parquet file, and the page is safe whatever names are in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tap53_harness::{agent, dns, pcap::Pcap, python::json_lines};
use tempfile::TempDir;

const FAILED: i32 = 1;
const REFUSED: i32 = 2;

/// A name that would be a script in a page, and an escape sequence on a terminal.
const HOSTILE: &str = "<script>alert(1)</script>&'\"\u{1b}[2J.test";

/// Exchanges: client, name, type, and the response code if there is a response.
const EXCHANGES: [(&str, &str, &str, Option<u8>); 7] = [
    ("192.0.2.1", "www.example.test", "A", Some(0)),
    ("192.0.2.1", "mail.example.test", "A", Some(0)),
    ("192.0.2.2", "www.example.test", "AAAA", Some(0)),
    ("198.51.100.7", "absent.example.test", "A", Some(3)),
    ("198.51.100.7", "example.test", "MX", Some(2)),
    ("198.51.100.8", "notexample.test", "A", None),
    ("198.51.100.8", HOSTILE, "A", Some(0)),
];

/// Files with the same records.
struct Files {
    directory: TempDir,
    capture: PathBuf,
    full: PathBuf,
    flat: PathBuf,
}

impl Files {
    /// Writes a capture, and replays it to Avro files of both profiles.
    fn create() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let capture = directory.path().join("exchanges.pcap");
        write_capture(&capture)?;
        let avro = |profile: &str| -> Result<PathBuf> {
            let out = directory.path().join(profile);
            let configuration = directory.path().join(format!("{profile}.yaml"));
            fs::create_dir(&out)?;
            fs::write(
                &configuration,
                format!(
                    "record: {{profile: {profile}}}\nsinks: [{{type: file, directory: {}}}]\n",
                    text(&out)?
                ),
            )?;
            let arguments = ["replay", "-c", text(&configuration)?, text(&capture)?];
            require_success(&agent::run(&arguments)?)?;
            let paths = fs::read_dir(&out)?.map(|entry| Ok(entry?.path()));
            let mut paths = paths.collect::<Result<Vec<_>>>()?;
            ensure!(paths.len() == 1, "one Avro file: {paths:?}");
            paths.pop().context("one Avro file")
        };
        let (full, flat) = (avro("full")?, avro("flat")?);
        Ok(Self { directory, capture, full, flat })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// Writes an exchange each second; responses come after as many milliseconds as their number.
fn write_capture(path: &Path) -> Result<()> {
    let server: SocketAddr = "192.0.2.53:53".parse()?;
    let mut file = Pcap::default();
    for (number, (client, name, qtype, rcode)) in (1..).zip(EXCHANGES) {
        let client = SocketAddr::new(client.parse()?, 40_000 + number);
        let at = Duration::from_secs(number.into());
        let query = dns::query(number, name, qtype);
        file.udp_at(at, client, server, &query);
        if let Some(rcode) = rcode {
            let after = at + Duration::from_millis(10 * u64::from(number));
            file.udp_at(after, server, client, &response(query, rcode, qtype == "A"));
        }
    }
    file.write(path)
}

/// Returns the response to a query, with two addresses for `has_answer` if the code is NOERROR.
fn response(mut message: Vec<u8>, rcode: u8, has_answer: bool) -> Vec<u8> {
    message[2] |= 0x80;
    message[3] |= rcode;
    if rcode == 0 && has_answer {
        message[7] = 2;
        for last in [9, 10] {
            // The name of the question, A, IN, 60 seconds, 203.0.113.9 or 10.
            message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, last]);
        }
    }
    message
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a temporary path in UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn require_success(output: &Output) -> Result<()> {
    ensure!(output.status.success(), "{}: {}", output.status, stderr(output));
    Ok(())
}

/// Returns the standard output of `tap53 query`.
fn query(arguments: &[&str]) -> Result<String> {
    let arguments: Vec<&str> = ["query"].iter().chain(arguments).copied().collect();
    let output = agent::run(&arguments)?;
    require_success(&output)?;
    Ok(String::from_utf8(output.stdout)?)
}

fn objects(lines: &str) -> Result<Vec<Value>> {
    lines.lines().map(|line| serde_json::from_str(line).context("a line of JSON")).collect()
}

/// Returns the selected names, in order.
fn names(file: &Path, expression: &str) -> Result<Vec<String>> {
    let lines = query(&[text(file)?, expression, "-o", "json", "--fields", "qname"])?;
    let name = |record: Value| Ok(record["qname"].as_str().context("a name")?.to_owned());
    objects(&lines)?.into_iter().map(name).collect()
}

#[test]
fn expressions_select_the_same_from_a_capture_and_from_both_profiles() -> Result<()> {
    let files = Files::create()?;
    let cases: [(&str, &[&str]); 9] = [
        ("rcode = NXDOMAIN", &["absent.example.test"]),
        ("rcode in (SERVFAIL, nxdomain)", &["absent.example.test", "example.test"]),
        ("outcome = UNANSWERED", &["notexample.test"]),
        ("latency > 35ms and latency <= 40ms", &["absent.example.test"]),
        ("client in 192.0.2.0/24 and qtype = A", &["www.example.test", "mail.example.test"]),
        ("client = 192.0.2.2", &["www.example.test"]),
        (
            "qname ~ example.test and not (qname ~ www* or rcode = NXDOMAIN)",
            &["mail.example.test", "example.test"],
        ),
        ("query_time >= 2023-11-14T22:13:26Z and qname ~ example.test", &[]),
        (
            "resolved_addresses in 203.0.113.0/24 and client = 192.0.2.1",
            &["www.example.test", "mail.example.test"],
        ),
    ];
    for (expression, expected) in cases {
        for file in [&files.capture, &files.full, &files.flat] {
            let selected = names(file, expression)?;
            assert_eq!(selected, expected, "{expression} in {}", file.display());
        }
    }
    let answers = names(&files.full, "answers.type = A and answers.ttl = 60")?;
    assert_eq!(answers.len(), 3);
    assert_eq!(names(&files.flat, "answers ~ '* 60 IN A *'")?, answers);
    Ok(())
}

#[test]
fn json_is_what_replay_prints() -> Result<()> {
    let files = Files::create()?;
    // A question looks for signals if it shows them.
    let configuration = files.path("signals.yaml");
    fs::write(&configuration, "signals: {enabled: true}\n")?;
    let arguments = ["replay", "-c", text(&configuration)?, "--json", text(&files.capture)?];
    let output = agent::run(&arguments)?;
    require_success(&output)?;
    let mut replayed = objects(str::from_utf8(&output.stdout)?)?;
    let mut queried = objects(&query(&[text(&files.capture)?, "-o", "json"])?)?;
    assert_eq!(replayed.len(), EXCHANGES.len());
    for record in replayed.iter_mut().chain(&mut queried) {
        // Each run has identifiers of its own.
        for field in ["record_id", "run_id"] {
            let own = record.as_object_mut().and_then(|record| record.remove(field));
            ensure!(own.is_some_and(|own| own.is_string()), "{field} is missing");
        }
    }
    assert_eq!(queried, replayed);
    ensure!(queried.iter().all(|record| record["signals"].is_array()), "{queried:?}");
    Ok(())
}

#[test]
fn duckdb_reads_the_records_from_parquet() -> Result<()> {
    let files = Files::create()?;
    for file in [&files.full, &files.flat] {
        let parquet = files.path("records.parquet");
        let printed = query(&[text(file)?, "-o", "parquet", "--output", text(&parquet)?])?;
        assert_eq!(printed, "");
        let read = json_lines("read_parquet.py", [&parquet], &[])?;
        assert_eq!(read.len(), EXCHANGES.len());
        assert_eq!(read, objects(&query(&[text(file)?, "-o", "json"])?)?);
    }
    Ok(())
}

#[test]
fn reports_count_every_selected_record() -> Result<()> {
    let files = Files::create()?;
    let report = |kind: &str, expression: &str| -> Result<Vec<Value>> {
        let file = text(&files.full)?;
        objects(&query(&[file, expression, "--report", kind, "-o", "json"])?)
    };
    let counts = |rows: &[Value], key: &str| -> BTreeMap<String, u64> {
        let row =
            |row: &Value| Some((row[key].as_str()?.to_owned(), row["transactions"].as_u64()?));
        rows.iter().filter_map(row).collect()
    };
    let all = "schema_version > 0";
    let names = counts(&report("top-names", all)?, "qname");
    assert_eq!(names["www.example.test"], 2);
    assert_eq!(names.values().sum::<u64>(), EXCHANGES.len() as u64);
    let clients = counts(&report("clients", "rcode = NOERROR")?, "client");
    let expected = [("192.0.2.1", 2), ("192.0.2.2", 1), ("198.51.100.8", 1)];
    assert_eq!(clients, expected.map(|(client, count)| (client.to_owned(), count)).into());
    let rcodes = counts(&report("rcodes", all)?, "rcode");
    assert_eq!(rcodes["(no response)"], 1);
    let latency = report("latency", all)?;
    assert_eq!(latency[0]["answered"], 6);
    assert_eq!(latency[0]["max_ns"], 70_000_000);
    let unanswered = report("unanswered", all)?;
    assert_eq!(unanswered[0]["client"], "198.51.100.8");
    assert_eq!((unanswered.len(), unanswered[0]["unanswered"].as_u64()), (1, Some(1)));
    assert!(report("conflicts", all)?.is_empty() && report("chains", all)?.is_empty());
    Ok(())
}

#[test]
fn a_page_has_every_picture_and_no_element_of_a_strangers_name() -> Result<()> {
    let files = Files::create()?;
    let page = files.path("report.html");
    let output = agent::run(&["report", text(&files.capture)?, "-o", text(&page)?])?;
    require_success(&output)?;
    let read = json_lines("read_page.py", [&page], &[])?;
    let [read] = &read[..] else { anyhow::bail!("one object: {read:?}") };
    assert_eq!(read["elements"]["svg"], 2, "{read}");
    assert_eq!(read["elements"]["section"], 10, "{read}");
    assert_eq!(read["elements"].get("script"), None, "{read}");
    assert_eq!(read["loaded"], Value::Array(Vec::new()));
    let attributes = read["attributes"].as_array().context("attributes")?;
    let is_handler = |name: &Value| name.as_str().is_some_and(|name| name.starts_with("on"));
    assert!(!attributes.iter().any(is_handler), "{attributes:?}");
    let cells = read["cells"].as_array().context("cells")?;
    let hostile = "<script>alert\\(1\\)</script>&'\\\"\\027[2j.test";
    let is_hostile = |cell: &Value| cell.as_str().is_some_and(|cell| cell.contains("<script>"));
    let found: Vec<_> = cells.iter().filter(|cell| is_hostile(cell)).collect();
    assert_eq!(found, [hostile], "in the table of top names, as a text");
    Ok(())
}

/// Returns Chromium's view of a page: one object for each width and colour scheme.
fn looked_at(page: &Path, screenshots: &Path) -> Result<Vec<Value>> {
    let views = json_lines("look_at_page.py", [page, screenshots], &[])?;
    ensure!(views.len() == 4, "two widths, light and dark: {}", views.len());
    Ok(views)
}

#[test]
fn chromium_shows_every_picture_and_table_without_errors_and_loads_nothing() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let page = directory.path().join("report.html");
    let records = Path::new(env!("CARGO_MANIFEST_DIR"))
        .with_file_name("docs")
        .join("sample/dns_transactions.avro");
    require_success(&agent::run(&["report", text(&records)?, "-o", text(&page)?])?)?;
    let mut screenshots = BTreeSet::new();
    for view in looked_at(&page, directory.path())? {
        let which = format!("{} pixels, {}", view["width"], view["scheme"]);
        assert_eq!(view["messages"], Value::Array(Vec::new()), "{which}: console");
        assert_eq!(view["requests"], Value::Array(Vec::new()), "{which}: network");
        assert_eq!(view["overflow"], 0, "{which}: only tables scroll sideways");
        let boxes = view["boxes"].as_array().context("boxes")?;
        let is_visible = |it: &&Value| {
            let size = |name: &str| it[name].as_f64().unwrap_or_default();
            size("width") > 100.0 && size("height") > 20.0
        };
        let of =
            |element: &str| boxes.iter().filter(|it| it["element"] == element).collect::<Vec<_>>();
        let pictures = of("svg");
        assert_eq!(pictures.len(), 2, "{which}");
        for picture in pictures {
            assert!(is_visible(&picture), "{which}: {picture}");
            assert!(picture["shapes"].as_u64() > Some(96), "{which}: {picture}");
            assert_eq!(picture["visible"], picture["shapes"], "{which}: {picture}");
            assert!(picture["colours"].as_u64() >= Some(10), "{which}: {picture}");
        }
        let tables = of("table");
        assert!(tables.iter().all(|it| is_visible(it) && it["rows"].as_u64() > Some(0)), "{which}");
        let sections: Vec<_> = tables.iter().filter_map(|it| it["section"].as_str()).collect();
        let expected = [
            "Signals",
            "Response codes",
            "Top names",
            "Top clients",
            "Latency by server",
            "Unanswered queries",
            "Chains behind answers",
            "Anomalies",
            "Losses",
        ];
        assert_eq!(sections, expected, "{which}");
        assert!(view["colours"].as_u64() >= Some(100), "{which}: {}", view["colours"]);
        let screenshot = view["screenshot"].as_str().context("a path")?;
        screenshots.insert(fs::read(screenshot)?);
    }
    assert_eq!(screenshots.len(), 4, "each looks different");
    Ok(())
}

/// Were it not so, the test above would prove nothing.
#[test]
fn chromium_tells_of_errors_requests_overflow_and_blank_pictures() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let page = directory.path().join("bad.html");
    let bad = "<!DOCTYPE html><title>t</title><section><h2>h</h2><svg><rect/></svg></section>\
               <div style='width:2000px'>x</div><img src='http://127.0.0.1:9/image.png'>\
               <script>throw new Error('of the page')</script>";
    fs::write(&page, bad)?;
    for view in looked_at(&page, directory.path())? {
        assert!(view["messages"].to_string().contains("of the page"), "{view}");
        assert_eq!(view["requests"][0], "http://127.0.0.1:9/image.png");
        assert!(view["overflow"].as_i64() > Some(0), "{view}");
        let mut boxes = view["boxes"].as_array().context("boxes")?.iter();
        let picture = boxes.find(|it| it["element"] == "svg").context("a picture")?;
        assert_eq!((&picture["shapes"], &picture["visible"]), (&1.into(), &0.into()));
        assert_eq!(picture["colours"], 1);
    }
    Ok(())
}

#[test]
fn errors_name_the_cause_and_give_their_exit_code() -> Result<()> {
    let files = Files::create()?;
    let full = text(&files.full)?;
    let fails = |arguments: &[&str], code: i32, message: &str| -> Result<()> {
        let output = agent::run(arguments)?;
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert!(stderr(&output).contains(message), "{message:?} is not in {}", stderr(&output));
        Ok(())
    };
    fails(&["query", full, "rcod = NXDOMAIN"], REFUSED, "did you mean `rcode`?\n  rcod =")?;
    fails(&["query", "missing.avro"], FAILED, "missing.avro: cannot be opened")?;
    fails(&["query", full, "-o", "parquet"], REFUSED, "needs a file: --output FILE")?;
    fails(&["query", full, "--fields", "rcod"], REFUSED, "did you mean `rcode`?")?;
    let arguments = ["query", full, "--where", "truncated", "capture_gap"];
    fails(&arguments, REFUSED, "there are two expressions")?;
    let foreign = files.path("foreign.txt");
    fs::write(&foreign, "no capture")?;
    fails(&["query", text(&foreign)?], FAILED, "is neither pcap nor pcapng")?;
    // The records before the damage are printed.
    let cut = files.path("cut.pcap");
    let bytes = fs::read(&files.capture)?;
    fs::write(&cut, &bytes[..bytes.len() - 5])?;
    let output = agent::run(&["query", text(&cut)?, "-o", "json"])?;
    assert_eq!(output.status.code(), Some(FAILED));
    assert!(stderr(&output).contains("damaged at byte"), "{}", stderr(&output));
    assert_eq!(objects(str::from_utf8(&output.stdout)?)?.len(), EXCHANGES.len());
    let cut = files.path("cut.avro");
    let bytes = fs::read(&files.full)?;
    fs::write(&cut, &bytes[..bytes.len() - 5])?;
    fails(&["query", text(&cut)?], FAILED, "cut at byte")
}

#[test]
fn a_result_in_a_file_is_whole_or_not_there() -> Result<()> {
    let files = Files::create()?;
    let result = files.path("result.csv");
    let arguments = [text(&files.full)?, "-o", "csv", "--output", text(&result)?];
    query(&arguments)?;
    assert_eq!(fs::read_to_string(&result)?.lines().count(), EXCHANGES.len() + 1);
    let kept = fs::read(&result)?;
    let output = agent::run(&["query", "missing.avro", "-o", "csv", "--output", text(&result)?])?;
    assert_eq!(output.status.code(), Some(FAILED));
    assert_eq!(fs::read(&result)?, kept, "the earlier result stays");
    let partial = fs::read_dir(files.directory.path())?.filter_map(Result::ok);
    let partial = partial.filter(|entry| entry.file_name().to_string_lossy().starts_with(".tap53"));
    assert_eq!(partial.count(), 0);
    Ok(())
}
