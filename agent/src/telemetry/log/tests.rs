use std::sync::Mutex;

use serde_json::Value;
use tap53_base::visible::is_invisible;

use super::*;

/// Standard error of a test.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs `log`, and returns the logged lines as JSON.
fn logged(limit: &Limit, log: impl FnOnce()) -> Vec<Value> {
    let written = Written::default();
    let to = written.clone();
    let lines = tracing_subscriber::fmt::layer()
        .event_format(JsonLine::new("node \"1\""))
        .fmt_fields(format::JsonFields::new())
        .with_writer(move || to.clone());
    let subscriber = registry().with(lines.with_filter(limit.clone()));
    tracing::subscriber::with_default(subscriber, log);
    let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn flood(lines: u64) {
    for number in 0..lines {
        tracing::error!(number, "a broker is away");
    }
}

#[test]
fn a_line_in_json_has_its_fields_and_the_node() {
    let lines = logged(&Limit::default(), || {
        tracing::info!(target: AUDIT, uid = 0, process = "sh \"x\"\n", "audit: enable");
    });
    let line = &lines[0];
    assert_eq!(line["node"], "node \"1\"");
    assert_eq!((&line["level"], &line["target"]), (&"INFO".into(), &"audit".into()));
    assert_eq!(line["message"], "audit: enable");
    assert_eq!((&line["uid"], &line["process"]), (&0.into(), &"sh \"x\"\n".into()));
    let timestamp: jiff::Timestamp = line["timestamp"].as_str().unwrap().parse().unwrap();
    assert!(timestamp.as_second() > 1_700_000_000);
}

#[test]
fn hostile_text_cannot_control_the_terminal_in_either_format() {
    let hostile = "veth\x1b[2J\u{202e}\u{9b}1A\u{2028}\r\n";
    let shown = "veth\\u001b[2J\\u202e\\u009b1A\\u2028\\u000d\\u000a";
    let log = || {
        let error = io::Error::other(hostile);
        tracing::error!(name = %hostile, %error, quoted = hostile, "the registry says: {hostile}");
    };
    let written = Written::default();
    let to = written.clone();
    let lines = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_ansi(false)
        .fmt_fields(text_fields())
        .with_writer(move || to.clone());
    tracing::subscriber::with_default(registry().with(lines), log);
    let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    let line = text.strip_suffix('\n').unwrap();
    assert!(!line.contains(is_invisible), "{line:?}");
    let fields = format!("the registry says: {shown} name={shown} error={shown} quoted=\"veth");
    assert!(line.contains(&fields), "{line}");

    let written = Written::default();
    let to = written.clone();
    let lines = tracing_subscriber::fmt::layer()
        .event_format(JsonLine::new("node"))
        .fmt_fields(format::JsonFields::new())
        .with_writer(move || to.clone());
    tracing::subscriber::with_default(registry().with(lines), log);
    let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    let line = text.strip_suffix('\n').unwrap();
    assert!(!line.contains(is_invisible), "{line:?}");
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["name"], &line["quoted"]), (&hostile.into(), &hostile.into()));
}

#[test]
fn a_flood_of_one_line_is_limited_counted_and_reported_once() {
    let limit = Limit::default();
    let lines = logged(&limit, || {
        flood(50_000);
        // Others are not held up by it, not even with the same words.
        tracing::error!(number = 1, "a broker is away");
        limit.report();
        limit.report();
    });
    let of = |target: &str| lines.iter().filter(|line| line["target"] == target).count();
    // Some come through while it lasts, which on a busy machine may be a second or two.
    let written = of(module_path!());
    assert!((101..1_000).contains(&written), "{written}");
    assert_eq!(of(SUPPRESSED), 1);
    let report = lines.last().unwrap();
    assert_eq!(report["lines"], 50_001 - written);
    assert_eq!(
        (&report["first_message"], &report["of_level"]),
        (&"a broker is away".into(), &"ERROR".into())
    );
    let counted = limit.lines();
    assert_eq!(counted.suppressed[0], ("error", (50_001 - written) as u64));
    assert_eq!(counted.written[0], ("error", written as u64));
    assert_eq!(counted.written[1], ("warn", 1));
}

#[test]
fn lines_about_changes_and_the_last_lines_are_never_suppressed() {
    let limit = Limit::default();
    let lines = logged(&limit, || {
        for uid in 0..2_000 {
            tracing::info!(target: AUDIT, uid, "audit: disable");
            tracing::info!(target: CHANGE, ifindex = uid, "capture switched off");
        }
    });
    assert_eq!(lines.len(), 4_000);
    let lines = logged(&limit, || {
        flood(2_000);
        limit.end();
        flood(500);
    });
    assert!(lines.len() < 1_500, "{}", lines.len());
    let report = lines.iter().position(|line| line["target"] == SUPPRESSED).unwrap();
    assert_eq!(lines.len() - report - 1, 500);
}
