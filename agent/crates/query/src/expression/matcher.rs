//! Evaluates an expression on rows.

use std::net::IpAddr;

use super::{Expression, Glob, Literal, Operand, Order, Test};
use crate::{
    catalogue::Kind,
    row::{Fields, Row, Slot, Value},
};

/// An expression with the places of its fields in a row.
#[derive(Clone, Debug)]
pub struct Matcher {
    root: Node,
    paths: Vec<String>,
}

#[derive(Clone, Debug)]
enum Node {
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Not(Box<Node>),
    Compare { slot: Slot, key: Option<String>, several: bool, test: Test },
}

impl Matcher {
    /// Prepares an expression; its fields are added to `fields`.
    #[must_use]
    pub fn new(expression: &Expression, fields: &mut Fields) -> Self {
        let mut paths = Vec::new();
        let root = Node::new(expression, fields, &mut paths);
        Self { root, paths }
    }

    /// Returns the names of the fields of which it compares a field of their records.
    #[must_use]
    pub fn paths(&self) -> &[String] {
        &self.paths
    }

    /// Returns true if the record meets the condition.
    #[inline]
    #[must_use]
    pub fn matches(&self, row: &Row<'_, '_>) -> bool {
        self.root.matches(row)
    }
}

impl Node {
    fn new(expression: &Expression, fields: &mut Fields, paths: &mut Vec<String>) -> Self {
        let mut node = |inner| Box::new(Self::new(inner, fields, paths));
        match expression {
            Expression::And(one, other) => Self::And(node(one), node(other)),
            Expression::Or(one, other) => Self::Or(node(one), node(other)),
            Expression::Not(inner) => Self::Not(node(inner)),
            Expression::Compare(operand, test) => {
                let Operand { field, key, kind } = operand;
                // Labels are texts in the flat profile too.
                if key.is_some() && !field.ends_with("_labels") {
                    paths.push(field.clone());
                }
                let several = matches!(kind, Kind::Texts | Kind::Addresses);
                let slot = fields.slot(field);
                Self::Compare { slot, key: key.clone(), several, test: test.clone() }
            }
        }
    }

    fn matches(&self, row: &Row<'_, '_>) -> bool {
        match self {
            Self::And(one, other) => one.matches(row) && other.matches(row),
            Self::Or(one, other) => one.matches(row) || other.matches(row),
            Self::Not(inner) => !inner.matches(row),
            Self::Compare { slot, key, several, test } => {
                compare(row.get(*slot), key.as_deref(), *several, test)
            }
        }
    }
}

fn compare(value: Value<'_>, key: Option<&str>, several: bool, test: &Test) -> bool {
    match test {
        Test::IsNull => !any(value, key, several, &mut |value| value != Value::Null),
        Test::IsNotNull => any(value, key, several, &mut |value| value != Value::Null),
        Test::NotEqual(literal) => !any(value, key, several, &mut |value| equal(value, literal)),
        Test::IsTrue => value == Value::Boolean(true),
        Test::Equal(literal) => any(value, key, several, &mut |value| equal(value, literal)),
        Test::Order(order, literal) => {
            any(value, key, several, &mut |value| order.holds(value, literal))
        }
        Test::Matches(glob) => {
            any(value, key, several, &mut |value| value.text().is_some_and(|it| glob.matches(it)))
        }
        Test::In(literals) => any(value, key, several, &mut |value| {
            literals.iter().any(|literal| equal(value, literal))
        }),
    }
}

/// Returns true if the value, or one of its parts, meets the condition.
fn any(
    value: Value<'_>,
    key: Option<&str>,
    several: bool,
    test: &mut dyn FnMut(Value<'_>) -> bool,
) -> bool {
    let mut found = false;
    match (key, value) {
        (None, value) if !several => return test(value),
        (None, value) => value.each(|item| found = found || test(item)),
        (Some(key), Value::Nested(crate::avro::Shape::List(_), _)) => {
            value.each(|item| item.get(key, |part| found = found || test(part)));
        }
        (Some(key), value) => value.get(key, |part| found = test(part)),
    }
    found
}

fn equal(value: Value<'_>, literal: &Literal) -> bool {
    match (value, literal) {
        (Value::Text(text), Literal::Text(literal)) => text.eq_ignore_ascii_case(literal),
        (Value::Text(text), Literal::Address(address)) => text.parse() == Ok::<IpAddr, _>(*address),
        (Value::Text(text), Literal::Network(network)) => {
            text.parse().is_ok_and(|address: IpAddr| network.contains(&address))
        }
        (Value::Bytes(bytes), Literal::Text(hexadecimal)) => {
            data_encoding::HEXLOWER.encode(bytes) == *hexadecimal
        }
        (Value::Boolean(value), Literal::Boolean(literal)) => value == *literal,
        (value, literal) => literal.number().is_some_and(|it| value.number() == Some(it)),
    }
}

impl Literal {
    const fn number(&self) -> Option<i64> {
        match self {
            Self::Number(number) | Self::Duration(number) | Self::Time(number) => Some(*number),
            _ => None,
        }
    }
}

impl Order {
    fn holds(self, value: Value<'_>, literal: &Literal) -> bool {
        let (Some(value), Some(literal)) = (value.number(), literal.number()) else { return false };
        match self {
            Self::Less => value < literal,
            Self::LessOrEqual => value <= literal,
            Self::Greater => value > literal,
            Self::GreaterOrEqual => value >= literal,
        }
    }
}

impl Glob {
    /// Matching without regard to case; `*` and `?` match any character.
    const OPTIONS: glob::MatchOptions = glob::MatchOptions {
        case_sensitive: false,
        require_literal_separator: false,
        require_literal_leading_dot: false,
    };

    fn matches(&self, text: &str) -> bool {
        match &self.pattern {
            Some(pattern) => pattern.matches_with(text, Self::OPTIONS),
            None => is_below(text, &self.text),
        }
    }
}

/// Returns true if a name is `suffix`, or below it.
fn is_below(name: &str, suffix: &str) -> bool {
    let suffix = suffix.strip_prefix('.').unwrap_or(suffix);
    let Some(before) = name.len().checked_sub(suffix.len()) else { return false };
    let ends = name.as_bytes()[before..].eq_ignore_ascii_case(suffix.as_bytes());
    ends && (before == 0 || name.as_bytes()[before - 1] == b'.')
}
