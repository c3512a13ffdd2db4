//! Reading TOML that people write: the configuration and the inventory.
//!
//! Whatever is wrong ends as an [`InputError`]: one sentence that names file, line, key and what is allowed, such as
//! ``agent.toml:12: `window` is "7m": allowed are 1m, 5m and 10m``. serde and toml find the place; this module finds the key at
//! it and puts their messages into the words of this project:
//!
//! | what is wrong | the sentence after `file:line: ` |
//! |---|---|
//! | not TOML | `` `window` is not TOML at column 10: string values must be quoted `` |
//! | a key twice | `` `window` is given twice: allowed is once `` |
//! | an unknown key | `` `windw` is not known here: allowed are … `` |
//! | a missing key | `` `name` is missing: `[[flow-log]]` needs it `` |
//! | a wrong type, a wrong value | `` `window` is 7: allowed are 1m, 5m and 10m `` |
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::text::allowed_spellings;

/// Longest value that an error repeats, in characters.
const MAX_SHOWN_CHARS: usize = 60;

/// What is wrong with a configuration or an inventory, in one sentence on one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {problem}")]
pub struct InputError {
    file: String,
    line: usize,
    key: Option<String>,
    problem: String,
}

impl InputError {
    /// The file, as its reader named it.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line, from 1.
    #[must_use]
    pub const fn line(&self) -> usize {
        self.line
    }

    /// The key, without the names of its tables; none where the trouble lies outside any key.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The sentence without file and line.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

/// A TOML text and the name of its file, to make errors of. Spans are ranges of bytes, as [`Spanned`] has them.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    text: &'a str,
    file: &'a str,
}

impl<'a> Document<'a> {
    /// A document; `file` is only for errors.
    #[must_use]
    pub const fn new(text: &'a str, file: &'a str) -> Self {
        Self { text, file }
    }

    /// Deserialises the document.
    ///
    /// # Errors
    /// [`InputError`] for something that is not as `T` wants it; of several such things it names one.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, InputError> {
        let tree = DeTable::parse(self.text).map_err(|error| self.syntax_error(&error))?;
        toml::from_str(self.text).map_err(|error| self.data_error(&error, tree.get_ref()))
    }

    /// Number of the line in which the span begins, from 1.
    #[must_use]
    pub fn line(&self, span: &Range<usize>) -> usize {
        let before = self
            .text
            .as_bytes()
            .get(..span.start)
            .unwrap_or(self.text.as_bytes());
        before.iter().filter(|&&byte| byte == b'\n').count() + 1
    }

    /// The error that the value at `span` is not allowed. `clause` says what is: `allowed are 1m, 5m and 10m`.
    #[must_use]
    pub fn refuse(&self, span: &Range<usize>, clause: impl fmt::Display) -> InputError {
        let tree = DeTable::parse(self.text).ok();
        self.refuse_value(span, clause, tree.as_ref().map(Spanned::get_ref))
    }

    /// The error that `key` is missing from the table at `span`. `clause` says why it is needed.
    #[must_use]
    pub fn missing(&self, span: &Range<usize>, key: &str, clause: impl fmt::Display) -> InputError {
        self.error(
            span,
            Some(key),
            format_args!("`{key}` is missing: {clause}"),
        )
    }

    fn error(
        &self,
        span: &Range<usize>,
        key: Option<&str>,
        problem: impl fmt::Display,
    ) -> InputError {
        InputError {
            file: one_line(self.file),
            line: self.line(span),
            key: key.map(str::to_owned),
            problem: one_line(&problem.to_string()),
        }
    }

    /// An error of the TOML parser itself.
    fn syntax_error(&self, error: &toml::de::Error) -> InputError {
        let span = error.span().unwrap_or(0..0);
        if error.message() == "duplicate key" {
            let key = bare(self.slice(&span));
            return self.error(
                &span,
                Some(key),
                format_args!("`{key}` is given twice: allowed is once"),
            );
        }
        let line_start = self
            .text
            .get(..span.start)
            .and_then(|before| before.rfind('\n'))
            .map_or(0, |feed| feed + 1);
        let before = self.slice(&(line_start..span.start));
        let column = before.chars().count() + 1;
        let key = before
            .split_once('=')
            .map(|(key, _)| key.trim())
            .filter(|key| is_bare_key(key));
        let what = key.map_or("this".to_owned(), |key| format!("`{key}`"));
        self.error(
            &span,
            key,
            format_args!("{what} is not TOML at column {column}: {}", error.message()),
        )
    }

    /// An error of serde, about TOML that is well-formed.
    fn data_error(&self, error: &toml::de::Error, tree: &DeTable<'_>) -> InputError {
        let span = error.span().unwrap_or(0..0);
        let message = error.message();
        let expected = message
            .rsplit_once(", expected ")
            .map(|(_, expected)| expected);
        if message.starts_with("unknown field ") {
            let key = bare(self.slice(&span));
            let allowed =
                allowed_spellings(expected.unwrap_or_default().split('`').skip(1).step_by(2));
            return self.error(
                &span,
                Some(key),
                format_args!("`{key}` is not known here: {allowed}"),
            );
        }
        if let Some(key) = message
            .strip_prefix("missing field `")
            .and_then(|rest| rest.strip_suffix('`'))
        {
            return self.missing(&span, key, self.needs_it(&span, tree));
        }
        match expected {
            Some(expected) => self.refuse_value(&span, in_our_words(expected), Some(tree)),
            None => self.refuse_value(&span, message, Some(tree)),
        }
    }

    fn needs_it(&self, span: &Range<usize>, tree: &DeTable<'_>) -> String {
        match (find(tree, span), self.slice(span)) {
            (None, _) => "it must stand at the top of the file".into(),
            (Some(_), header) if header.starts_with('[') => format!("`{header}` needs it"),
            (Some((key, _)), _) => format!("`{key}` needs it"),
        }
    }

    fn refuse_value(
        &self,
        span: &Range<usize>,
        clause: impl fmt::Display,
        tree: Option<&DeTable<'_>>,
    ) -> InputError {
        let found = tree.and_then(|tree| find(tree, span));
        let shown = self.shown(span, found.map(|(_, value)| value));
        match found {
            Some((key, _)) => self.error(
                span,
                Some(key),
                format_args!("`{key}` is {shown}: {clause}"),
            ),
            None => self.error(span, None, format_args!("{shown} is not allowed: {clause}")),
        }
    }

    /// The value as the file has it, shortened; a table with a header, whose span is only that, as a word.
    fn shown(&self, span: &Range<usize>, value: Option<&DeValue<'_>>) -> String {
        let source = self.slice(span);
        if matches!(value, Some(DeValue::Table(_))) && !source.starts_with('{') {
            return if source.starts_with("[[") {
                "a list of tables"
            } else {
                "a table"
            }
            .into();
        }
        let mut shown: String = source.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some((end, _)) = shown.char_indices().nth(MAX_SHOWN_CHARS) {
            shown.truncate(end);
            shown.push('…');
        }
        shown
    }

    fn slice(&self, span: &Range<usize>) -> &'a str {
        self.text.get(span.clone()).unwrap_or_default()
    }
}

/// A table of a document. As serde derives it, a struct could also be written as a list of its values in order, and nobody would
/// mean that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Table<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TableVisitor(PhantomData))
    }
}

struct TableVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for TableVisitor<T> {
    type Value = Table<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("allowed is a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Table)
    }
}

/// The innermost key whose value encloses the span, and that value.
fn find<'t>(table: &'t DeTable<'_>, span: &Range<usize>) -> Option<(&'t str, &'t DeValue<'t>)> {
    table
        .iter()
        .find_map(|(key, value)| find_in(key.get_ref(), value, span))
}

fn find_in<'t>(
    key: &'t str,
    value: &'t Spanned<DeValue<'_>>,
    span: &Range<usize>,
) -> Option<(&'t str, &'t DeValue<'t>)> {
    // A table's span is its header alone, so that what is in it is looked through whether the header fits or not.
    let inner = match value.get_ref() {
        DeValue::Table(table) => find(table, span),
        DeValue::Array(items) => items.iter().find_map(|item| find_in(key, item, span)),
        _ => None,
    };
    let encloses = value.span().start <= span.start && span.end <= value.span().end;
    inner.or_else(|| encloses.then_some((key, value.get_ref())))
}

/// What serde says it expected, as a clause. Our own types say it as one already.
fn in_our_words(expected: &str) -> String {
    match expected {
        clause if clause.starts_with("allowed ") => clause.into(),
        "a string" | "a borrowed string" => "allowed is text in quotes".into(),
        "a sequence" => "allowed is a list".into(),
        "a boolean" => "allowed are true and false".into(),
        other => format!("allowed is {other}"),
    }
}

/// A key without its quotes.
fn bare(key: &str) -> &str {
    key.trim_matches(['"', '\''])
}

fn is_bare_key(key: &str) -> bool {
    !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// Writes control characters as escapes, so that no name or value from a file can break the line.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests;
