//! What went wrong with an SQL, told with its place in the query.
use datafusion::arrow::error::ArrowError;
use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::Location;

use crate::log_service::query::error::{QueryError, Wrong};
use crate::log_service::store::schema::{OTHER, SEQUENCE};

/// What DataFusion names when there is no more room for what is spilled.
const SPILL_LIMIT: &str = "max_temp_directory_size";

/// Most characters of what DataFusion says.
const MAX_TOLD: usize = 240;

/// Most names of fields that an error lists.
const MAX_NAMES: usize = 40;

/// Why an SQL that begins at `start` octets of the query has no answer.
pub(crate) fn explain(query: &str, start: usize, error: &DataFusionError) -> QueryError {
    let place = error
        .diagnostic()
        .and_then(|told| told.span)
        .and_then(|span| offset(query, Location::new(span.start.line, span.start.column)));
    let wrong = |message: String| {
        let place = place.or_else(|| named(&message).and_then(|name| find(query, start, name)));
        QueryError::Wrong(place.map_or_else(
            || Wrong::whole(message.clone()),
            |place| Wrong::at(query, place, message.clone()),
        ))
    };
    match error.find_root() {
        DataFusionError::SQL(error, _) => syntax(query, start, error),
        DataFusionError::SchemaError(error, _) => wrong(field(query, start, error)),
        DataFusionError::Plan(message)
        | DataFusionError::NotImplemented(message)
        | DataFusionError::Execution(message) => wrong(first_sentence(message)),
        DataFusionError::ArrowError(error, _) => match error.as_ref() {
            ArrowError::DivideByZero => wrong("a division by zero".to_owned()),
            ArrowError::CastError(message)
            | ArrowError::ComputeError(message)
            | ArrowError::ArithmeticOverflow(message) => wrong(first_sentence(message)),
            // The disk manager's error comes as one of the files that it makes.
            ArrowError::IoError(message, _) if message.contains(SPILL_LIMIT) => QueryError::Memory,
            other => QueryError::Internal(other.to_string()),
        },
        DataFusionError::ResourcesExhausted(_) => QueryError::Memory,
        DataFusionError::Collection(errors) => match errors.first() {
            Some(first) => explain(query, start, first),
            None => QueryError::Internal(error.strip_backtrace()),
        },
        DataFusionError::Diagnostic(_, inner) => explain(query, start, inner),
        other => QueryError::Internal(other.strip_backtrace()),
    }
}

/// The parser ends its sentence with the place.
fn syntax(query: &str, start: usize, error: &ParserError) -> QueryError {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => {
            message.as_str()
        }
        ParserError::RecursionLimitExceeded => {
            return Wrong::at(query, start, "the SQL is nested too deeply").into();
        }
    };
    let message = message.replace("EOF", "the end of the query");
    let Some((said, place)) = message.split_once(" at Line: ") else {
        return Wrong::at(query, query.len(), decapitalized(&message)).into();
    };
    let numbers = place.split_once(", Column: ").and_then(|(line, column)| {
        let column = column.split(|c: char| !c.is_ascii_digit()).next()?;
        Some(Location::new(
            line.trim().parse().ok()?,
            column.parse().ok()?,
        ))
    });
    let place = numbers
        .and_then(|place| offset(query, place))
        .unwrap_or(query.len());
    Wrong::at(
        query,
        place,
        decapitalized(&said.replace(", found: ", "; found ")),
    )
    .into()
}

fn field(query: &str, start: usize, error: &SchemaError) -> String {
    match error {
        SchemaError::FieldNotFound {
            field,
            valid_fields,
        } => {
            let mut known: Vec<&str> = valid_fields
                .iter()
                .map(Column::name)
                .filter(|name| ![OTHER, SEQUENCE].contains(name))
                .collect();
            known.dedup();
            known.truncate(MAX_NAMES);
            let hint = if find(query, start, &format!("{}-", field.name())).is_some() {
                "; a field with a hyphen is to be in double quotes, as \"eni-id\""
            } else {
                ""
            };
            format!(
                "there is no field \"{}\"{hint}; expected one of {}",
                field.name(),
                known.join(", ")
            )
        }
        SchemaError::AmbiguousReference { field } => {
            format!("\"{}\" may be the field of several tables", field.name())
        }
        SchemaError::DuplicateQualifiedField { name, .. }
        | SchemaError::DuplicateUnqualifiedField { name } => {
            format!("two columns are called \"{name}\"")
        }
    }
}

/// Without the advice that is for DataFusion's developers; cut off where it repeats much of the query.
fn first_sentence(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let sentence = line.split(". This was likely").next().unwrap_or(line);
    let told = match sentence.char_indices().nth(MAX_TOLD) {
        Some((end, _)) => format!("{}…", &sentence[..end]),
        None => sentence.trim_end_matches('.').to_owned(),
    };
    decapitalized(&told)
}

/// The message as the part of a sentence.
fn decapitalized(message: &str) -> String {
    let mut characters = message.chars();
    match characters.next() {
        // Not what is all in capitals.
        Some(first)
            if !characters
                .as_str()
                .starts_with(|second: char| second.is_uppercase()) =>
        {
            first.to_lowercase().chain(characters).collect()
        }
        _ => message.to_owned(),
    }
}

/// The first name in quotes of a message.
fn named(message: &str) -> Option<&str> {
    let quote = message.find(['\'', '"', '`'])?;
    let sign = message[quote..].chars().next()?;
    message[quote + 1..]
        .split(sign)
        .next()
        .filter(|name| !name.is_empty())
}

/// Where the name is in the SQL, in any case of letters.
fn find(query: &str, start: usize, name: &str) -> Option<usize> {
    let sql = query.get(start..)?.to_ascii_lowercase();
    sql.find(&name.to_ascii_lowercase()).map(|at| start + at)
}

/// The place in octets of a line and column, both from 1; none if the parser did not say.
pub(crate) fn offset(query: &str, place: Location) -> Option<usize> {
    let line = usize::try_from(place.line).ok()?.checked_sub(1)?;
    let column = usize::try_from(place.column).ok()?.checked_sub(1)?;
    let begin = if line == 0 {
        0
    } else {
        query.match_indices('\n').nth(line - 1)?.0 + 1
    };
    let rest = query.get(begin..)?;
    Some(
        rest.char_indices()
            .nth(column)
            .map_or(query.len(), |(at, _)| begin + at),
    )
}
