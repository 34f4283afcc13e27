//! A JSON Schema of the configuration, for tools that check it before an agent does, such as the chart.
//!
//! It is made from the readers ([`Section::describe`]). It refuses unknown keys and values of the wrong
//! type. Everything else, such as keys that exclude each other, is left to the agent.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use tap53_base::settings::{self, Form, Section};

use super::{Config, Machine, Overrides};

/// Keys whose value decides which other keys there are. Each text is read on its own.
const ALTERNATIVES: [&str; 5] = [
    "{}",
    "privacy: {client_address: {truncate: {}}, server_address: {truncate: {}}, \
     client_subnet: {truncate: {}}, reverse_names: {truncate: {}}}",
    "privacy: {client_address: {hash: {}}, server_address: {hash: {}}, reverse_names: {hash: {}}}",
    "sinks: [{type: kafka, sasl: {mechanism: oauthbearer, token_endpoint: 'https://x'}}]",
    "sinks: [{type: kafka, sasl: {mechanism: oauthbearer, token_file: /x}}]",
];

/// Types of sinks, with a text for each.
const SINKS: [(&str, &str); 3] = [
    ("stdout", "sinks: [{type: stdout}]"),
    ("file", "sinks: [{type: file}]"),
    ("kafka", "sinks: [{type: kafka, sasl: {mechanism: scram-sha-512}}]"),
];

type Keys = BTreeMap<String, BTreeSet<Form>>;

/// Returns the schema, of draft 7.
///
/// # Panics
/// Never: the texts above are YAML.
#[must_use]
pub fn json_schema() -> Value {
    let mut keys = Keys::new();
    let mut sinks: BTreeMap<&str, Keys> = BTreeMap::new();
    for text in ALTERNATIVES {
        let (of_sinks, others) = split(describe(text));
        merge(&mut keys, others);
        merge(sinks.entry("kafka").or_default(), of_sinks);
    }
    for (sink, text) in SINKS {
        merge(sinks.entry(sink).or_default(), split(describe(text)).0);
    }
    let mut schema = section(&Node::of(&keys));
    let of_type = |(sink, keys): (&&str, &Keys)| {
        let is_type = json!({"properties": {"type": {"const": sink}}});
        json!({"if": is_type, "then": section(&Node::of(keys))})
    };
    let items = json!({
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"enum": SINKS.map(|(sink, _)| sink)}},
        "allOf": sinks.iter().map(of_type).collect::<Vec<_>>(),
    });
    schema["properties"]["sinks"] = json!({"type": "array", "items": items});
    schema
}

fn describe(text: &str) -> Keys {
    let node = settings::parse(text).expect("the text is YAML");
    let overrides = Overrides { machine: Machine::Other, ..Overrides::default() };
    Section::describe(Some(node), |root| Config::read(root, &overrides))
}

/// Splits the keys of the first sink off, without the path of the sink. Those of a sink without a type
/// are dropped: only its type is known.
fn split(keys: Keys) -> (Keys, Keys) {
    const SINK: &str = "sinks[0].";
    let (of_sinks, others): (Keys, Keys) =
        keys.into_iter().partition(|(path, _)| path.starts_with(SINK));
    let of_sinks = of_sinks.into_iter();
    let of_sinks = of_sinks.map(|(path, forms)| (path[SINK.len()..].to_owned(), forms));
    (of_sinks.collect(), others)
}

fn merge(keys: &mut Keys, more: Keys) {
    for (path, forms) in more {
        keys.entry(path).or_default().extend(forms);
    }
}

/// A key, and the keys below it.
#[derive(Default)]
struct Node<'a> {
    forms: BTreeSet<&'a Form>,
    keys: BTreeMap<&'a str, Self>,
}

impl<'a> Node<'a> {
    fn of(keys: &'a Keys) -> Self {
        let mut root = Self::default();
        for (path, forms) in keys {
            let mut node = &mut root;
            for name in path.split('.') {
                // The keys of a list's items are below the list.
                node = node.keys.entry(name.trim_end_matches("[0]")).or_default();
            }
            node.forms.extend(forms);
        }
        root
    }

    fn schema(&self) -> Value {
        if self.forms.is_empty() || self.forms.contains(&Form::Any) {
            return json!({});
        }
        let mut schemas: Vec<Value> = Vec::new();
        for form in &self.forms {
            // Open sections are sections too.
            if !(**form == Form::Section && self.forms.contains(&Form::Open)) {
                schemas.push(self.schema_of(form));
            }
        }
        match schemas.len() {
            1 => schemas.remove(0),
            _ => json!({"anyOf": schemas}),
        }
    }

    fn schema_of(&self, form: &Form) -> Value {
        match form {
            Form::Any => json!({}),
            Form::Boolean => json!({"type": "boolean"}),
            Form::Number(least, most) => number(*least, *most),
            Form::OneOf(names) => json!({"enum": names}),
            Form::Text => json!({"type": "string"}),
            Form::List(items) => json!({"type": "array", "items": self.schema_of(items)}),
            Form::Section => section(self),
            Form::Open => json!({"type": ["object", "null"]}),
        }
    }
}

/// Helm reads numbers as doubles, whose integers are exact up to 2⁵³: larger bounds are left out.
fn number(least: i128, most: i128) -> Value {
    const EXACT: i128 = 1 << 53;
    let mut schema = Map::new();
    schema.insert("type".to_owned(), "integer".into());
    for (key, bound) in [("minimum", least), ("maximum", most)] {
        if let Ok(exact) = i64::try_from(bound)
            && i128::from(exact).abs() <= EXACT
        {
            schema.insert(key.to_owned(), exact.into());
        }
    }
    schema.into()
}

/// A section may be null: all keys below it are commented out.
fn section(node: &Node<'_>) -> Value {
    let keys = node.keys.iter().map(|(name, node)| ((*name).to_owned(), node.schema()));
    json!({
        "type": ["object", "null"],
        "additionalProperties": false,
        "properties": keys.collect::<Map<_, _>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<'a>(schema: &'a Value, path: &str) -> &'a Value {
        let names = path.split('.');
        names.fold(schema, |schema, name| &schema["properties"][name])
    }

    #[test]
    fn keys_have_the_type_and_the_bounds_that_the_agent_checks() {
        let schema = json_schema();
        assert_eq!(schema["additionalProperties"], false);
        for (path, expected) in [
            ("capture.hook", json!({"enum": ["auto", "xdp", "tc"]})),
            ("capture.snap_length", json!({"type": "integer", "minimum": 1, "maximum": 65_557})),
            ("capture.fragments", json!({"type": "boolean"})),
            ("telemetry.pod_interfaces", json!({"enum": ["summed", "each"]})),
            ("kubernetes.servers.namespace", json!({"type": "string"})),
        ] {
            assert_eq!(*at(&schema, path), expected, "{path}");
        }
        assert_eq!(at(&schema, "capture")["additionalProperties"], false);
        let tunnels = at(&schema, "capture.tunnels");
        let types = json!({"enum": ["vxlan", "geneve", "gre", "ipip"]});
        assert_eq!(at(&tunnels["items"], "types")["items"], types);
    }

    #[test]
    fn sinks_have_the_keys_of_their_type() {
        let schema = json_schema();
        let sinks = at(&schema, "sinks")["items"]["allOf"].as_array().unwrap();
        assert_eq!(sinks.len(), SINKS.len());
        let of = |sink: &str| {
            let is = |it: &&Value| it["if"]["properties"]["type"]["const"] == sink;
            &sinks.iter().find(is).unwrap()["then"]
        };
        assert_eq!(*at(of("stdout"), "rotate_bytes"), Value::Null);
        assert_eq!(at(of("file"), "rotate_bytes")["type"], "integer");
        // Options of librdkafka, and those of a topic.
        for open in ["options", "create_topic.options"] {
            assert_eq!(*at(of("kafka"), open), json!({"type": ["object", "null"]}));
        }
        for key in ["mechanism", "username", "token_file", "token_endpoint", "client_secret_file"] {
            assert_ne!(*at(of("kafka"), &format!("sasl.{key}")), Value::Null, "{key}");
        }
    }

    /// The chart has the schema in a line of its own schema: helm reads no other file.
    #[test]
    fn the_schema_of_the_chart_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/helm/tap53/values.schema.json");
        let written = std::fs::read_to_string(path).unwrap();
        let begin = "    \"configuration\": ";
        let current = |line: &str| match line.strip_prefix(begin) {
            Some(_) => format!("{begin}{},\n", json_schema()),
            None => format!("{line}\n"),
        };
        let made: String = written.lines().map(current).collect();
        assert!(made.contains(begin), "no line for it in {path}");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, made).unwrap();
            return;
        }
        let written: Value = serde_json::from_str(&written).unwrap();
        let is_new = written["definitions"]["configuration"] == json_schema();
        assert!(is_new, "run `UPDATE_DOCS=1 cargo test -p tap53 --lib chart`");
    }

    #[test]
    fn a_rule_for_addresses_is_a_name_or_a_section() {
        let schema = json_schema();
        let rule = at(&schema, "privacy.client_address")["anyOf"].as_array().unwrap();
        let [names, sections] = &rule[..] else { panic!("{rule:?}") };
        assert_eq!(names["enum"], json!(["keep", "truncate", "hash", "drop"]));
        let keys: Vec<_> = sections["properties"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["hash", "truncate"]);
    }
}
