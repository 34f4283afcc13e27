//! Parses the YAML file into nodes with line numbers, and reads sections from them.
//!
//! Serde's derived readers stop at the first error. This reader collects problems and continues, so
//! that an operator sees all of them at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use clap::{ValueEnum, builder::PossibleValue};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::{
    Problem,
    description::{Description, Form},
    suggestion::with_suggestion,
};

/// A node of the file.
pub(super) type Node = Spanned<Value>;

/// The content of a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, or a key without a value.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i128),
    /// Another number.
    Real(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A section: keys in the order of the file.
    Map(Vec<(Spanned<String>, Node)>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("nothing"),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Real(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "{value:?}"),
            Self::List(_) => f.write_str("a list"),
            Self::Map(_) => f.write_str("a section"),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;

        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a YAML value")
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_none<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Boolean(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Integer(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(Value::Integer(value.into()))
            }

            fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
                Ok(Value::Integer(value))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value::Real(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value::Text(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Value::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
                let mut map = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    map.push(entry);
                }
                Ok(Value::Map(map))
            }
        }

        deserializer.deserialize_any(ValueVisitor)
    }
}

/// Reads the file's text.
pub fn parse(text: &str) -> Result<Node, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        // YAML 1.2: only true and false are booleans, so that `node: no` stays text.
        strict_booleans: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options)
}

/// A section of the file. Readers take keys one by one; a key that remains is reported as unknown.
pub struct Section<'p> {
    path: String,
    place: Option<(u64, u64)>,
    entries: Vec<(Spanned<String>, Node)>,
    /// Keys that readers asked for: those that the section may have.
    known: BTreeSet<String>,
    machine: Machine,
    problems: &'p mut Vec<Problem>,
    /// Set while keys are described in place of being read.
    description: Option<Description>,
}

/// The machine on which a configuration is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Machine {
    /// The one that the agent will run on: files that the configuration names are looked at.
    #[default]
    Agent,
    /// Another one: nothing but the text of the configuration is looked at.
    Other,
}

/// Returns line and column of a node, from 1.
fn place<T>(node: &Spanned<T>) -> (u64, u64) {
    (node.referenced.line(), node.referenced.column())
}

impl<'p> Section<'p> {
    /// Reads the whole file with `read`, and reports the keys that `read` did not take.
    pub fn root<T>(
        node: Option<Node>,
        problems: &'p mut Vec<Problem>,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        Self::root_on(Machine::Agent, node, problems, read)
    }

    /// As [`Section::root`], on a certain machine.
    pub fn root_on<T>(
        machine: Machine,
        node: Option<Node>,
        problems: &'p mut Vec<Problem>,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        Self::open(String::new(), node, machine, problems, None, read)
    }

    /// Describes the keys that `read` takes from a file. Keys that it takes only if another one has a
    /// certain value need a `node` that has this value.
    pub fn describe<T>(
        node: Option<Node>,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> BTreeMap<String, BTreeSet<Form>> {
        let description = Description::default();
        // A file that is only described has no problems.
        let mut problems = Vec::new();
        let open = Some(description.clone());
        Section::open(String::new(), node, Machine::Other, &mut problems, open, read);
        description.into_keys()
    }

    fn open<T>(
        path: String,
        node: Option<Node>,
        machine: Machine,
        problems: &mut Vec<Problem>,
        description: Option<Description>,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let place = node.as_ref().map(place);
        let entries = match node.map(|node| node.value) {
            // A key without a value: all entries below it are commented out.
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Map(entries)) => entries,
            Some(other) => {
                problems.push(Problem {
                    path: path.clone(),
                    place,
                    value: Some(other.to_string()),
                    reason: "must be a section of keys and values".to_owned(),
                });
                Vec::new()
            }
        };
        let known = BTreeSet::new();
        let mut section = Section { path, place, entries, known, machine, problems, description };
        let result = read(&mut section);
        section.report_unknown();
        result
    }

    /// Reports the keys that no reader took.
    fn report_unknown(&mut self) {
        for (key, _) in std::mem::take(&mut self.entries) {
            let known = self.known.iter().map(String::as_str);
            let reason = with_suggestion("no such key".to_owned(), &key.value, known);
            self.problems.push(Problem {
                path: self.path_of(&key.value),
                place: Some(place(&key)),
                value: None,
                reason,
            });
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn take(&mut self, key: &str) -> Option<Node> {
        self.known.insert(key.to_owned());
        let position = self.entries.iter().position(|(name, _)| name.value == key)?;
        Some(self.entries.remove(position).1)
    }

    /// Leaves the rest of the section unread, and so does not report its keys as unknown.
    pub fn skip_rest(&mut self) {
        self.entries.clear();
    }

    /// Reports a problem of `key`, which may be missing.
    pub fn refuse(&mut self, key: &str, value: Option<String>, reason: impl Into<String>) {
        self.problems.push(Problem {
            path: self.path_of(key),
            place: self.place,
            value,
            reason: reason.into(),
        });
    }

    /// Reports a problem of the section itself.
    pub fn refuse_all(&mut self, reason: impl Into<String>) {
        self.problems.push(Problem {
            path: self.path.clone(),
            place: self.place,
            value: None,
            reason: reason.into(),
        });
    }

    /// Reports a problem of a command line flag.
    pub fn refuse_flag(&mut self, flag: &str, value: &str, reason: impl Into<String>) {
        self.problems.push(Problem {
            path: flag.to_owned(),
            place: None,
            value: Some(format!("{value:?}")),
            reason: reason.into(),
        });
    }

    /// Reads the section under `key`, which is empty if the key is missing.
    pub fn section<T>(&mut self, key: &str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        self.describe_key(key, Some(Form::Section));
        let (node, description) = (self.take(key), self.description.clone());
        Section::open(self.path_of(key), node, self.machine, self.problems, description, read)
    }

    /// Reads the section under `key`; returns `None` if it is missing.
    pub fn optional_section<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> Option<T> {
        self.known.insert(key.to_owned());
        let is_read = self.has(key) || self.description.is_some();
        is_read.then(|| self.section(key, read))
    }

    /// Returns the machine on which the configuration is read.
    pub const fn machine(&self) -> Machine {
        self.machine
    }

    /// Accepts paths that `check` accepts; it looks at files on the agent's machine only.
    pub fn path(
        &self,
        check: fn(&str, Machine) -> Result<PathBuf, String>,
    ) -> impl Fn(&Value) -> Result<PathBuf, String> + use<> {
        let machine = self.machine;
        text(move |text| check(text, machine))
    }

    /// Reads the value of `key`. Returns `None` if the key is missing, or if `check` refuses the
    /// value, which is reported.
    pub fn read<T>(
        &mut self,
        key: &str,
        check: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        self.describe_key(key, None);
        let path = self.path_of(key);
        match (self.take(key), &self.description) {
            (Some(node), _) => checked(&node, path, self.problems, check),
            (None, None) => None,
            (None, Some(description)) => {
                description.add(path, Some(Form::of(check)));
                None
            }
        }
    }

    fn describe_key(&self, key: &str, form: Option<Form>) {
        if let Some(description) = &self.description {
            description.add(self.path_of(key), form);
        }
    }

    /// Reads the value of `key`. Returns `None` if it is missing or refused, and reports either.
    pub fn require<T>(
        &mut self,
        key: &str,
        check: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        if !self.has(key) {
            self.refuse(key, None, "missing");
        }
        self.read(key, check)
    }

    /// Returns true if the file has `key` and no reader has taken it yet.
    pub fn has(&self, key: &str) -> bool {
        self.describe_key(key, None);
        self.entries.iter().any(|(name, _)| name.value == key)
    }

    /// Returns the keys that no reader has taken yet.
    pub fn keys(&self) -> Vec<String> {
        if let Some(description) = &self.description {
            description.add(self.path.clone(), Some(Form::Open));
        }
        self.entries.iter().map(|(name, _)| name.value.clone()).collect()
    }

    /// Returns true if `key` has a section as its value.
    pub fn has_section(&self, key: &str) -> bool {
        self.describe_key(key, None);
        let mut entries = self.entries.iter();
        entries.any(|(name, node)| name.value == key && matches!(node.value, Value::Map(_)))
    }

    /// Reads the items of the list under `key`, without those that `check` refuses. Returns `None`
    /// if the key is missing or not a list.
    pub fn read_list<T>(
        &mut self,
        key: &str,
        check: impl Fn(&Value) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let path = self.path_of(key);
        if let Some(description) = &self.description {
            description.add(path.clone(), Some(Form::List(Box::new(Form::of(&check)))));
        }
        let items = self.items(key)?;
        let problems = &mut *self.problems;
        Some(
            items
                .iter()
                .enumerate()
                .filter_map(|(index, item)| {
                    checked(item, format!("{path}[{index}]"), problems, &check)
                })
                .collect(),
        )
    }

    /// Reads a list like [`Section::read_list`], but refuses an empty one.
    pub fn read_some<T>(
        &mut self,
        key: &str,
        check: impl Fn(&Value) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let is_empty = |(name, node): &(Spanned<String>, Node)| {
            name.value == key && matches!(&node.value, Value::List(items) if items.is_empty())
        };
        if self.entries.iter().any(is_empty) {
            self.refuse(key, None, "must not be empty");
        }
        self.read_list(key, check)
    }

    /// Reads the sections of the list under `key`; there are none if the key is missing.
    pub fn sections<T>(
        &mut self,
        key: &str,
        mut read: impl FnMut(&mut Section<'_>) -> T,
    ) -> Vec<T> {
        let path = self.path_of(key);
        self.describe_key(key, Some(Form::List(Box::new(Form::Section))));
        let mut items = self.items(key).unwrap_or_default();
        if self.description.is_some() && items.is_empty() {
            items.push(Spanned::new(Value::Null, Location::UNKNOWN, Location::UNKNOWN));
        }
        let mut results = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            let (node, description) = (Some(item), self.description.clone());
            results.push(Section::open(
                path,
                node,
                self.machine,
                self.problems,
                description,
                &mut read,
            ));
        }
        results
    }

    fn items(&mut self, key: &str) -> Option<Vec<Node>> {
        // Without a description of this key, whose items the caller describes.
        let (path, node) = (self.path_of(key), self.take(key)?);
        checked(&node, path, self.problems, |value| match value {
            Value::List(items) => Ok(items.clone()),
            _ => Err("must be a list".to_owned()),
        })
    }
}

/// Reasons of the checks below, from which [`Form::of`] knows what they accept.
pub(super) const BOOLEAN: &str = "must be true or false";
pub(super) const TEXT: &str = "must be text";
pub(super) const WHOLE_NUMBER: &str = "must be a whole number from ";
pub(super) const ONE_OF: &str = "must be one of ";

fn checked<T>(
    node: &Node,
    path: String,
    problems: &mut Vec<Problem>,
    check: impl FnOnce(&Value) -> Result<T, String>,
) -> Option<T> {
    check(&node.value)
        .map_err(|reason| {
            problems.push(Problem {
                path,
                place: Some(place(node)),
                value: Some(node.value.to_string()),
                reason,
            });
        })
        .ok()
}

/// Accepts whole numbers in a range.
pub fn whole_number<T>(range: RangeInclusive<T>) -> impl Fn(&Value) -> Result<T, String>
where
    T: Copy + PartialOrd + fmt::Display + TryFrom<i128>,
{
    move |value| {
        let number = match value {
            Value::Integer(number) => T::try_from(*number).ok(),
            _ => None,
        };
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| format!("{WHOLE_NUMBER}{} to {}", range.start(), range.end()))
    }
}

/// Accepts whole numbers of milliseconds.
pub fn milliseconds(range: RangeInclusive<u64>) -> impl Fn(&Value) -> Result<Duration, String> {
    let number = whole_number(range);
    move |value| number(value).map(Duration::from_millis)
}

/// Accepts whole numbers of seconds.
pub fn seconds(range: RangeInclusive<u64>) -> impl Fn(&Value) -> Result<Duration, String> {
    let number = whole_number(range);
    move |value| number(value).map(Duration::from_secs)
}

/// Accepts `true` and `false`.
pub fn boolean(value: &Value) -> Result<bool, String> {
    match value {
        Value::Boolean(value) => Ok(*value),
        _ => Err(BOOLEAN.to_owned()),
    }
}

/// Accepts the names of an enumeration.
pub fn choice<T: ValueEnum>(value: &Value) -> Result<T, String> {
    let found = match value {
        Value::Text(text) => T::from_str(text, false).ok(),
        _ => None,
    };
    found.ok_or_else(|| {
        let values: Vec<_> =
            T::value_variants().iter().filter_map(ValueEnum::to_possible_value).collect();
        let one_of = |names: Vec<&str>| format!("{ONE_OF}{}", names.join(", "));
        match value {
            Value::Text(text) => {
                let names: Vec<_> = values.iter().map(PossibleValue::get_name).collect();
                with_suggestion(one_of(names.clone()), text, names)
            }
            // Also for a description of the key, which has to have all of them.
            _ => one_of(values.iter().flat_map(PossibleValue::get_name_and_aliases).collect()),
        }
    })
}

/// Accepts text that `check` accepts.
pub fn text<T>(check: impl Fn(&str) -> Result<T, String>) -> impl Fn(&Value) -> Result<T, String> {
    move |value| match value {
        Value::Text(text) => check(text),
        Value::List(_) | Value::Map(_) | Value::Null => Err(TEXT.to_owned()),
        _ => Err("must be text: put it in quotes".to_owned()),
    }
}

/// Accepts a short label without white space and control characters, so that it is safe in a log
/// line and in a record.
pub fn label(text: &str) -> Result<String, String> {
    const MAX_BYTES: usize = 253;
    if text.is_empty() {
        Err("must not be empty".to_owned())
    } else if text.len() > MAX_BYTES {
        Err(format!("must not be longer than {MAX_BYTES} bytes"))
    } else if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        Err("must not contain white space or control characters".to_owned())
    } else {
        Ok(text.to_owned())
    }
}
