//! Writes expressions so that they parse to the same.

use std::fmt::{self, Display, Formatter, Write as _};

use super::{Expression, Glob, Literal, Operand, Order, Test};

impl Expression {
    /// Returns how strongly it binds.
    const fn strength(&self) -> u8 {
        match self {
            Self::Or(..) => 0,
            Self::And(..) => 1,
            Self::Not(_) | Self::Compare(..) => 2,
        }
    }

    /// Writes it, in parentheses if it binds less strongly than `least`.
    fn write(&self, f: &mut Formatter<'_>, least: u8) -> fmt::Result {
        match self.strength() < least {
            true => write!(f, "({self})"),
            false => write!(f, "{self}"),
        }
    }
}

impl Display for Expression {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (one, word, other) = match self {
            Self::And(one, other) => (one, "and", other),
            Self::Or(one, other) => (one, "or", other),
            Self::Not(inner) => {
                f.write_str("not ")?;
                return inner.write(f, 2);
            }
            Self::Compare(operand, test) => return write!(f, "{operand}{test}"),
        };
        one.write(f, self.strength())?;
        write!(f, " {word} ")?;
        // Both are associative to the left.
        other.write(f, self.strength() + 1)
    }
}

impl Display for Operand {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.field)?;
        self.key.as_ref().map_or(Ok(()), |key| write!(f, ".{key}"))
    }
}

impl Display for Test {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::IsTrue => Ok(()),
            Self::IsNull => f.write_str(" = null"),
            Self::IsNotNull => f.write_str(" != null"),
            Self::Equal(literal) => write!(f, " = {literal}"),
            Self::NotEqual(literal) => write!(f, " != {literal}"),
            Self::Order(order, literal) => write!(f, " {} {literal}", order.sign()),
            Self::Matches(Glob { text, .. }) => {
                f.write_str(" ~ ")?;
                quote(f, text)
            }
            Self::In(literals) => {
                f.write_str(" in (")?;
                for (number, literal) in literals.iter().enumerate() {
                    let comma = if number == 0 { "" } else { ", " };
                    write!(f, "{comma}{literal}")?;
                }
                f.write_str(")")
            }
        }
    }
}

impl Order {
    const fn sign(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

impl Display for Literal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => quote(f, text),
            Self::Number(number) => write!(f, "{number}"),
            Self::Boolean(boolean) => write!(f, "{boolean}"),
            Self::Duration(nanoseconds) => write!(f, "{nanoseconds}ns"),
            Self::Time(micros) => match jiff::Timestamp::from_microsecond(*micros) {
                Ok(time) => write!(f, "{time}"),
                Err(_) => Err(fmt::Error),
            },
            Self::Address(address) => write!(f, "{address}"),
            Self::Network(network) => write!(f, "{network}"),
        }
    }
}

fn quote(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            f.write_char('\\')?;
        }
        f.write_char(character)?;
    }
    f.write_char('"')
}
