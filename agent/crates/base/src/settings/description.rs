//! Describes the keys that readers take, for a schema of the configuration.
//!
//! The readers describe themselves, so that a key cannot be missing: each check is called with a value
//! that it refuses, and its reason names what it accepts. A check with a reason of its own counts as one
//! that accepts anything.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use super::{
    Value,
    tree::{BOOLEAN, ONE_OF, TEXT, WHOLE_NUMBER},
};

/// The values that a key accepts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// Not known.
    Any,
    /// `true` or `false`.
    Boolean,
    /// A whole number between these bounds, inclusive.
    Number(i128, i128),
    /// One of these names.
    OneOf(Vec<String>),
    /// Text.
    Text,
    /// A list of these.
    List(Box<Self>),
    /// A section, whose keys are described themselves.
    Section,
    /// A section of any keys.
    Open,
}

impl Form {
    /// Returns what a check accepts.
    pub(super) fn of<T>(check: impl FnOnce(&Value) -> Result<T, String>) -> Self {
        match check(&Value::Map(Vec::new())) {
            Ok(_) => Self::Any,
            Err(reason) => Self::of_reason(&reason),
        }
    }

    fn of_reason(reason: &str) -> Self {
        match reason {
            BOOLEAN => return Self::Boolean,
            TEXT => return Self::Text,
            _ => {}
        }
        let number = || {
            let (least, most) = reason.strip_prefix(WHOLE_NUMBER)?.split_once(" to ")?;
            Some(Self::Number(least.parse().ok()?, most.parse().ok()?))
        };
        let one_of = || {
            let names: Vec<_> =
                reason.strip_prefix(ONE_OF)?.split(", ").map(str::to_owned).collect();
            let is_name = |name: &String| {
                name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            };
            names.iter().all(is_name).then_some(Self::OneOf(names))
        };
        number().or_else(one_of).unwrap_or(Self::Any)
    }
}

/// The keys that were described so far, by their paths, such as `sinks[0].topic`. A key without a form
/// was only looked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Description(Rc<RefCell<BTreeMap<String, BTreeSet<Form>>>>);

impl Description {
    pub(super) fn add(&self, path: String, form: Option<Form>) {
        self.0.borrow_mut().entry(path).or_default().extend(form);
    }

    pub(super) fn into_keys(self) -> BTreeMap<String, BTreeSet<Form>> {
        self.0.take()
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::{
        super::{Section, boolean, choice, label, milliseconds, parse, text, whole_number},
        *,
    };

    #[derive(Clone, Copy, ValueEnum)]
    enum Mode {
        Fast,
        VerySafe,
    }

    fn described(file: &str, read: impl FnOnce(&mut Section<'_>)) -> String {
        let keys = Section::describe(Some(parse(file).unwrap()), read);
        let line = |(path, forms): (String, BTreeSet<Form>)| format!("{path} {forms:?}\n");
        keys.into_iter().map(line).collect()
    }

    #[test]
    fn checks_say_what_they_accept() {
        let keys = described("{}", |root| {
            root.read("on", boolean);
            root.read("size", whole_number(1..=7_u8));
            root.read("wait_ms", milliseconds(0..=5));
            root.read("mode", choice::<Mode>);
            root.read("name", text(label));
            root.read("own", |_| Err::<(), _>("must be one of a kind; or two".to_owned()));
            root.read_list("names", text(label));
            root.require("needed", boolean);
        });
        assert_eq!(
            keys,
            "mode {OneOf([\"fast\", \"very-safe\"])}\nname {Text}\nnames {List(Text)}\nneeded \
             {Boolean}\non {Boolean}\nown {Any}\nsize {Number(1, 7)}\nwait_ms {Number(0, 5)}\n"
        );
    }

    #[test]
    fn sections_are_described_whether_they_are_there_or_not() {
        let read = |root: &mut Section<'_>| {
            root.section("a", |a| a.read("on", boolean));
            root.optional_section("b", |b| b.section("options", |options| options.keys()));
            root.sections("c", |c| match c.read("mode", choice::<Mode>) {
                Some(Mode::Fast) => c.read("speed", boolean),
                _ => c.read("other", boolean),
            });
            if root.has_section("d") {
                root.section("d", |d| d.read("x", boolean));
            }
        };
        assert_eq!(
            described("{}", read),
            "a {Section}\na.on {Boolean}\nb {Section}\nb.options {Section, Open}\nc \
             {List(Section)}\nc[0].mode {OneOf([\"fast\", \"very-safe\"])}\nc[0].other {Boolean}\nd \
             {}\n"
        );
        let keys = described("{c: [{mode: fast}], d: {}}", read);
        assert!(keys.contains("c[0].speed {Boolean}\n"), "{keys}");
        assert!(keys.contains("d {Section}\nd.x {Boolean}\n"), "{keys}");
    }
}
