//! The text of `tap53 status` about the export of metrics.

use serde_json::Value;
use tap53_base::visible::visible;

use super::super::table::{Color, paint};

/// Describes the state of the export; empty if there is none. Counts that are zero are omitted.
pub(super) fn export_text(export: &Value, colored: bool) -> String {
    let Some(url) = export["url"].as_str() else { return String::new() };
    let count = |key: &str| export[key].as_u64().unwrap_or(0);
    let mut text = match &export["failing"] {
        Value::Null => format!("otlp: {url}"),
        failing => {
            let state = format!("failing since {}", shown(&failing["since"]));
            format!("otlp: {url}, {}", paint(colored, Color::Bad, &state))
        }
    };
    text.push_str(&format!("; exports {}", count("exports")));
    if !export["last_export"].is_null() {
        text.push_str(&format!(", the last at {}", shown(&export["last_export"])));
    }
    text.push('\n');
    let mut note = |color, line: String| {
        text.push_str(&paint(colored, color, &format!("  {line}")));
        text.push('\n');
    };
    if let Some(message) = export["failing"]["message"].as_str() {
        note(Color::Bad, visible(message).into_owned());
    }
    let failures = export["failures"].as_object().into_iter().flatten();
    let failures = failures.filter(|(_, count)| count.as_u64() != Some(0));
    let failures: Vec<_> = failures.map(|(reason, count)| format!("{reason} {count}")).collect();
    if !failures.is_empty() {
        note(Color::Notable, format!("failed attempts: {}", failures.join(", ")));
    }
    if count("points_rejected") > 0 {
        note(Color::Notable, format!("points that it rejected: {}", count("points_rejected")));
    }
    if let Some(warning) = export["warning"].as_str().filter(|warning| !warning.is_empty()) {
        note(Color::Notable, format!("its message: {}", visible(warning)));
    }
    text
}

fn shown(value: &Value) -> String {
    value.as_str().map(|text| visible(text).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_the_reason_why_nothing_is_exported() {
        assert_eq!(export_text(&Value::Null, false), "");
        let mut export = serde_json::json!({
            "url": "http://c:4318/v1/metrics", "exports": 0, "failures": {"busy": 0, "refused": 3},
            "points_sent": 0, "points_rejected": 0, "warning": null, "last_export": null,
            "failing": {"since": "2026-11-29T10:00:00Z", "reason": "refused",
                "message": "the collector refuses (404): no reason given"},
        });
        assert_eq!(
            export_text(&export, false),
            "otlp: http://c:4318/v1/metrics, failing since 2026-11-29T10:00:00Z; exports 0\n  \
             the collector refuses (404): no reason given\n  failed attempts: refused 3\n"
        );
        export["failing"] = Value::Null;
        export["exports"] = 7.into();
        export["last_export"] = "2026-11-29T11:00:00Z".into();
        export["points_rejected"] = 2.into();
        export["warning"] = "too old".into();
        assert_eq!(
            export_text(&export, false),
            "otlp: http://c:4318/v1/metrics; exports 7, the last at 2026-11-29T11:00:00Z\n  \
             failed attempts: refused 3\n  points that it rejected: 2\n  its message: too old\n"
        );
    }
}
