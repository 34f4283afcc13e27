//! Parses expressions by recursive descent.

use std::ops::Range;

use super::{
    Expression, Operand, Order, ParseError, Test,
    literal::{literal, pattern},
    token::{Spanned, Token, tokens},
};
use crate::catalogue::{Catalogue, Kind};

/// Maximum depth of parentheses and `not`, which bounds the stack.
const MAX_DEPTH: usize = 64;

/// Maximum size of an expression in bytes: `and` and `or` take a level of the tree each.
const MAX_BYTES: usize = 8 << 10;

/// An error with the bytes that it is about.
type Fault = (Range<usize>, String);

/// Parses an expression whose fields are in `catalogue`.
///
/// # Errors
/// Returns the place, the reason and the nearest known name.
pub fn parse(text: &str, catalogue: &Catalogue) -> Result<Expression, ParseError> {
    let error = |(at, why)| ParseError { expression: text.to_owned(), at, why };
    if text.len() > MAX_BYTES {
        return Err(error((0..0, format!("it is longer than {MAX_BYTES} bytes"))));
    }
    let tokens = tokens(text).map_err(error)?;
    let mut parser = Parser { tokens: &tokens, catalogue, depth: 0 };
    let expression = parser.expression().map_err(error)?;
    match parser.peek() {
        (Token::End, _) => Ok(expression),
        (_, at) => {
            Err(error((at.clone(), "expected and, or, or the end of the expression".to_owned())))
        }
    }
}

struct Parser<'t, 'a> {
    tokens: &'t [Spanned<'a>],
    catalogue: &'t Catalogue,
    depth: usize,
}

impl<'t, 'a> Parser<'t, 'a> {
    fn peek(&self) -> &'t Spanned<'a> {
        // The last token is the end, which is not taken.
        &self.tokens[0]
    }

    fn next(&mut self) -> &'t Spanned<'a> {
        let token = self.peek();
        if token.0 != Token::End {
            self.tokens = &self.tokens[1..];
        }
        token
    }

    /// Takes the next token if it is this keyword or sign.
    fn accept(&mut self, expected: &str) -> bool {
        let is_it = match &self.peek().0 {
            Token::Word(word) => word.eq_ignore_ascii_case(expected),
            Token::Sign(sign) => *sign == expected,
            Token::Quoted(_) | Token::End => false,
        };
        if is_it {
            self.next();
        }
        is_it
    }

    fn expect(&mut self, expected: &str) -> Result<(), Fault> {
        match self.accept(expected) {
            true => Ok(()),
            false => Err((self.peek().1.clone(), format!("expected `{expected}`"))),
        }
    }

    fn expression(&mut self) -> Result<Expression, Fault> {
        let mut left = self.conjunction()?;
        while self.accept("or") {
            left = Expression::Or(Box::new(left), Box::new(self.conjunction()?));
        }
        Ok(left)
    }

    fn conjunction(&mut self) -> Result<Expression, Fault> {
        let mut left = self.term()?;
        while self.accept("and") {
            left = Expression::And(Box::new(left), Box::new(self.term()?));
        }
        Ok(left)
    }

    fn term(&mut self) -> Result<Expression, Fault> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err((self.peek().1.clone(), "it is nested too deeply".to_owned()));
        }
        let term = if self.accept("not") {
            Expression::Not(Box::new(self.term()?))
        } else if self.accept("(") {
            let inner = self.expression()?;
            self.expect(")")?;
            inner
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(term)
    }

    fn comparison(&mut self) -> Result<Expression, Fault> {
        let (operand, name_at) = self.operand()?;
        let (token, at) = self.peek();
        let test = match token {
            Token::Sign(sign @ ("=" | "!=" | "<" | "<=" | ">" | ">=" | "~")) => {
                self.next();
                self.test(&operand.kind, sign, at)?
            }
            Token::Word(word) if word.eq_ignore_ascii_case("in") => {
                self.next();
                self.set(&operand.kind)?
            }
            _ if operand.kind == Kind::Boolean => Test::IsTrue,
            _ => {
                let why = format!("expected an operator after `{}`, such as =", operand.field);
                return Err((name_at.end..at.end.max(name_at.end), why));
            }
        };
        Ok(Expression::Compare(operand, test))
    }

    fn operand(&mut self) -> Result<(Operand, Range<usize>), Fault> {
        let (token, at) = self.next();
        let Token::Word(word) = token else {
            return Err((at.clone(), "expected the name of a field".to_owned()));
        };
        let (name, key) = match word.split_once('.') {
            Some((name, key)) => (name, Some(key)),
            None => (*word, None),
        };
        let Some(field) = self.catalogue.find(name) else {
            let at = at.start..at.start + name.len();
            return Err((at, self.unknown(name)));
        };
        let kind = kind_of(&field.kind, name, key).map_err(|why| (at.clone(), why))?;
        let key = key.map(str::to_owned);
        Ok((Operand { field: field.name.clone(), key, kind }, at.clone()))
    }

    fn unknown(&self, name: &str) -> String {
        match self.catalogue.nearest(name) {
            Some(nearest) => format!("unknown field `{name}`; did you mean `{nearest}`?"),
            None => format!("unknown field `{name}`; `tap53 schema` lists the fields"),
        }
    }

    fn test(&mut self, kind: &Kind, sign: &str, at: &Range<usize>) -> Result<Test, Fault> {
        if matches!(sign, "=" | "!=") && self.accept("null") {
            return Ok(if sign == "=" { Test::IsNull } else { Test::IsNotNull });
        }
        if sign == "~" {
            return match kind {
                Kind::Text | Kind::Texts | Kind::Labels => self.pattern(),
                _ => Err((at.clone(), "`~` is for texts".to_owned())),
            };
        }
        let order = match sign {
            "=" => return self.literal(kind).map(Test::Equal),
            "!=" => return self.literal(kind).map(Test::NotEqual),
            "<" => Order::Less,
            "<=" => Order::LessOrEqual,
            ">" => Order::Greater,
            _ => Order::GreaterOrEqual,
        };
        match kind {
            Kind::Number | Kind::Duration | Kind::Time => {
                Ok(Test::Order(order, self.literal(kind)?))
            }
            _ => Err((at.clone(), format!("`{sign}` is for numbers, durations and times"))),
        }
    }

    fn set(&mut self, kind: &Kind) -> Result<Test, Fault> {
        if !self.accept("(") {
            return Ok(Test::In(vec![self.literal(kind)?]));
        }
        let mut literals = vec![self.literal(kind)?];
        while self.accept(",") {
            literals.push(self.literal(kind)?);
        }
        self.expect(")")?;
        Ok(Test::In(literals))
    }

    fn literal(&mut self, kind: &Kind) -> Result<super::Literal, Fault> {
        let (text, at) = self.text()?;
        literal(kind, &text).map_err(|why| (at, why))
    }

    fn pattern(&mut self) -> Result<Test, Fault> {
        let (text, at) = self.text()?;
        pattern(&text).map(Test::Matches).map_err(|why| (at, why))
    }

    fn text(&mut self) -> Result<(String, Range<usize>), Fault> {
        let (token, at) = self.next();
        match token {
            Token::Word(word) => Ok(((*word).to_owned(), at.clone())),
            Token::Quoted(text) => Ok((text.clone(), at.clone())),
            Token::Sign("=") => Err((at.clone(), "equality is a single `=`".to_owned())),
            Token::Sign(_) | Token::End => Err((at.clone(), "expected a value".to_owned())),
        }
    }
}

/// Returns the kind of a field or of a part of it.
fn kind_of(kind: &Kind, name: &str, key: Option<&str>) -> Result<Kind, String> {
    match (kind, key) {
        (Kind::Labels, None) => Err(format!("expected a label: `{name}.KEY`")),
        (Kind::Labels, Some(_)) => Ok(Kind::Text),
        (Kind::Records(fields), key) => {
            let field = key.and_then(|key| fields.iter().find(|field| field.name == key));
            let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
            let known =
                || format!("expected one of its fields: `{name}.` and {}", names.join(", "));
            field.map(|field| field.kind.clone()).ok_or_else(known)
        }
        (kind, None) => Ok(kind.clone()),
        (_, Some(_)) => Err(format!("`{name}` has no parts")),
    }
}
