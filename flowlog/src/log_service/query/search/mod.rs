//! The search language: its syntax tree, how it is written, and what it means.
//!
//! ```text
//! search    = [ any ]
//! any       = all { "or" all }
//! all       = one { [ "and" ] one }
//! one       = "not" one | "(" any ")" | "*" | condition
//! condition = value | key ":" value | key ":" "*"
//!           | key ( ">" | ">=" | "<" | "<=" | "=" ) number
//!           | key "in" ( "[" | "(" ) number number ( "]" | ")" )
//! value     = word | word with "*" or "?" after its first character | text in double quotes
//! ```
//!
//! The words `and`, `or`, `not` and `in` may be written in any case. As values they are quoted, but for `in` after a colon: `direction:in`.
//! In quotes, `\"` and `\\` stand for `"` and `\`, and `*` and `?` for themselves.
//!
//! | value of | what `key: value` means |
//! |---|---|
//! | a number field of a record | the number; a value that is no number is looked for in the client's own field of that name |
//! | `srcaddr`, `dstaddr` | the address however it is spelled; a CIDR block: an address in it; with `*` or `?`: the text |
//! | another field of a record, `__topic__`, `__source__` | the whole text; `ACCEPT`, `in`, `OK`, `IPv4` and the like in any case of letters |
//! | a client's own field | the words of the value, one after the other, in any case of ASCII letters; or the whole text |
//!
//! A value without a key is looked for in all fields but `__time__`. A record without the field fulfils no condition on it, and so fulfils
//! `not` of it.
pub(crate) mod field;
#[cfg(test)]
pub(crate) mod naive;
mod parse;
#[cfg(test)]
mod tests;
pub(crate) mod translate;
pub(crate) mod word;

use std::fmt::{self, Write as _};

pub(crate) use parse::{Parsed, parse};

/// Most conditions in a search.
pub const MAX_CONDITIONS: usize = 30;
/// Most parentheses and `not`s around a condition.
pub const MAX_DEPTH: usize = 30;
/// Most octets of a value. A field may have a megabyte, and looking for a value in it can take as many steps as both have octets together,
/// multiplied.
pub const MAX_VALUE_BYTES: usize = 1024;
/// Most octets of a query, its SQL included.
pub const MAX_QUERY_BYTES: usize = 32 * 1024;

/// Which records are looked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Search {
    /// All of them.
    Everything,
    /// Those that fulfil a condition.
    Where(Condition),
    /// Those that a search does not find.
    Not(Box<Self>),
    /// Those that all searches find; two or more.
    All(Vec<Self>),
    /// Those that any of the searches finds; two or more.
    Any(Vec<Self>),
}

/// A condition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Condition {
    /// Any field has the value.
    Anywhere(Pattern),
    /// The field has the value.
    Field(String, Pattern),
    /// The field is there.
    Present(String),
    /// The field is a number that compares so.
    Compare(String, Comparison, Number),
    /// The field is a number between the two.
    Between(String, Bound, Bound),
}

/// A value to look for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Pattern {
    /// As it is.
    Exact(String),
    /// With `*` for any characters, also none, and `?` for exactly one; neither is the first character.
    Wildcard(String),
}

/// How numbers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `=`
    Equal,
}

/// An end of a range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bound {
    /// The number.
    pub(crate) number: Number,
    /// Whether the number is in the range: `[` and `]`, not `(` and `)`.
    pub(crate) included: bool,
}

/// A number as the search has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    /// Without a fraction.
    Integer(i64),
    /// With a fraction.
    Decimal(f64),
}

impl Search {
    /// How many conditions there are.
    pub(crate) fn conditions(&self) -> usize {
        match self {
            Self::Everything => 0,
            Self::Where(_) => 1,
            Self::Not(inner) => inner.conditions(),
            Self::All(parts) | Self::Any(parts) => parts.iter().map(Self::conditions).sum(),
        }
    }

    /// Octets of the longest value.
    pub(crate) fn longest_value(&self) -> usize {
        match self {
            Self::Where(Condition::Anywhere(pattern) | Condition::Field(_, pattern)) => {
                match pattern {
                    Pattern::Exact(text) | Pattern::Wildcard(text) => text.len(),
                }
            }
            Self::Everything | Self::Where(_) => 0,
            Self::Not(inner) => inner.longest_value(),
            Self::All(parts) | Self::Any(parts) => {
                parts.iter().map(Self::longest_value).max().unwrap_or(0)
            }
        }
    }
}

impl Comparison {
    const fn sign(self) -> &'static str {
        match self {
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Equal => "=",
        }
    }
}

/// Whether a word that is not quoted can have the character. Wildcards are not among them.
fn is_bare(character: char) -> bool {
    !character.is_whitespace()
        && !character.is_control()
        && !"\"'()[]:<>=,|\\*?".contains(character)
}

/// Whether the word means something by itself.
fn is_reserved(word: &str) -> bool {
    ["and", "or", "not", "in"]
        .iter()
        .any(|reserved| word.eq_ignore_ascii_case(reserved))
}

impl fmt::Display for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_char('*'),
            Self::Where(condition) => condition.fmt(f),
            Self::Not(inner) => {
                f.write_str("not ")?;
                inner.fmt_part(f)
            }
            Self::All(parts) => fmt_parts(parts, " and ", f),
            Self::Any(parts) => fmt_parts(parts, " or ", f),
        }
    }
}

impl Search {
    /// As a part of another search: in parentheses where it has parts itself.
    fn fmt_part(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(_) | Self::Any(_) => write!(f, "({self})"),
            _ => fmt::Display::fmt(self, f),
        }
    }
}

fn fmt_parts(parts: &[Search], between: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(between)?;
        }
        part.fmt_part(f)?;
    }
    Ok(())
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anywhere(pattern) => pattern.fmt(f),
            Self::Field(key, pattern) => write!(f, "{}: {pattern}", Quoted(key)),
            Self::Present(key) => write!(f, "{}: *", Quoted(key)),
            Self::Compare(key, comparison, number) => {
                write!(f, "{} {} {number}", Quoted(key), comparison.sign())
            }
            Self::Between(key, low, high) => {
                let open = if low.included { '[' } else { '(' };
                let close = if high.included { ']' } else { ')' };
                write!(
                    f,
                    "{} in {open}{} {}{close}",
                    Quoted(key),
                    low.number,
                    high.number
                )
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => Quoted(text).fmt(f),
            Self::Wildcard(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => number.fmt(f),
            // With the fraction also where it is 0, so that it is read as a decimal again.
            Self::Decimal(number) => {
                let text = number.to_string();
                f.write_str(&text)?;
                if text.contains('.') {
                    Ok(())
                } else {
                    f.write_str(".0")
                }
            }
        }
    }
}

/// A text that is quoted where it has to be.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.is_empty() && self.0.chars().all(is_bare) && !is_reserved(self.0) {
            return f.write_str(self.0);
        }
        f.write_char('"')?;
        for character in self.0.chars() {
            if matches!(character, '"' | '\\') {
                f.write_char('\\')?;
            }
            f.write_char(character)?;
        }
        f.write_char('"')
    }
}
