//! Expressions that select records: `client in 10.0.0.0/8 and not rcode = NOERROR and latency > 50ms`.
//!
//! ```text
//!  expression = conjunction { "or" conjunction }
//!  conjunction = term { "and" term }
//!  term = "not" term | "(" expression ")" | comparison
//!  comparison = field                                   a field that is true or false
//!             | field ("=" | "!=") (literal | "null")
//!             | field ("<" | "<=" | ">" | ">=") literal
//!             | field "~" pattern
//!             | field "in" (literal | "(" literal { "," literal } ")")
//!  field = name [ "." (key | name) ]                    a label, or a field of the records in an array
//! ```
//!
//! [`parse`] checks names and literals against the catalogue of fields, so an [`Expression`] has no errors
//! left when it is evaluated. What it displays parses to the same expression.

mod display;
mod error;
mod literal;
mod matcher;
mod parser;
#[cfg(test)]
mod tests;
mod token;

use std::net::IpAddr;

use ipnet::IpNet;

use crate::catalogue::Kind;

pub use error::ParseError;
pub use matcher::Matcher;
pub use parser::parse;

/// A condition on a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    /// Both.
    And(Box<Self>, Box<Self>),
    /// One or both.
    Or(Box<Self>, Box<Self>),
    /// Not this one.
    Not(Box<Self>),
    /// A comparison of a field.
    Compare(Operand, Test),
}

/// A field, or a part of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Operand {
    /// Name of the field.
    pub field: String,
    /// Key of a label, or name of a field of the records in an array.
    pub key: Option<String>,
    /// Kind of the values that are compared.
    pub kind: Kind,
}

/// A condition on a value. Of several values, one has to meet it.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// It is true.
    IsTrue,
    /// There is no value.
    IsNull,
    /// There is a value.
    IsNotNull,
    /// It is this one.
    Equal(Literal),
    /// Not [`Test::Equal`]: also met without a value.
    NotEqual(Literal),
    /// It is smaller or larger.
    Order(Order, Literal),
    /// It matches.
    Matches(Glob),
    /// It is one of these, or in one of these networks.
    In(Vec<Literal>),
}

/// An order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// A value in an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// A text; bytes are texts of hexadecimal digits.
    Text(String),
    /// A number.
    Number(i64),
    /// True or false.
    Boolean(bool),
    /// Nanoseconds.
    Duration(i64),
    /// Microseconds since 1970 UTC.
    Time(i64),
    /// An address.
    Address(IpAddr),
    /// A network.
    Network(IpNet),
}

/// A pattern of a text: with `*`, `?` and `[…]` as in a shell, without these a suffix of labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Glob {
    /// Its text.
    pub text: String,
    /// The compiled pattern; `None` for a suffix.
    pattern: Option<glob::Pattern>,
}

impl Expression {
    /// Calls `visit` with each operand.
    pub fn operands(&self, visit: &mut impl FnMut(&Operand)) {
        match self {
            Self::And(one, other) | Self::Or(one, other) => {
                one.operands(visit);
                other.operands(visit);
            }
            Self::Not(inner) => inner.operands(visit),
            Self::Compare(operand, _) => visit(operand),
        }
    }
}
