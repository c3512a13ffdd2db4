//! The search language, parsed.
use winnow::ascii::{Caseless, multispace0};
use winnow::combinator::{alt, cut_err, delimited, eof, fail, not, opt, peek, preceded, repeat};
use winnow::error::{ContextError, StrContext, StrContextValue};
use winnow::prelude::*;
use winnow::stream::{LocatingSlice, Location as _, Stateful};
use winnow::token::{literal, none_of, one_of, rest, take_while};

use super::field::{self, Kind};
use super::{
    Bound, Comparison, Condition, MAX_CONDITIONS, MAX_DEPTH, MAX_QUERY_BYTES, MAX_VALUE_BYTES,
    Number, Pattern, Search, is_bare, is_reserved,
};
use crate::log_service::query::{QueryError, Wrong};

type Input<'a> = Stateful<LocatingSlice<&'a str>, Depth>;

/// How many parentheses and `not`s are open.
#[derive(Clone, Copy, Debug, Default)]
struct Depth(usize);

/// A query, taken apart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Parsed {
    /// The search.
    pub(crate) search: Search,
    /// Where the SQL begins, in octets, after the `|`; none if there is none.
    pub(crate) sql: Option<usize>,
}

/// Parses a query as far as its SQL, which is not looked at.
///
/// # Errors
/// [`QueryError::Wrong`], with the position and with what was expected there.
pub(crate) fn parse(query: &str) -> Result<Parsed, QueryError> {
    if query.len() > MAX_QUERY_BYTES {
        return Err(Wrong::whole(format!(
            "the query has {} octets: allowed are {MAX_QUERY_BYTES}",
            query.len()
        ))
        .into());
    }
    let input = Input {
        input: LocatingSlice::new(query),
        state: Depth::default(),
    };
    let parsed = whole
        .parse(input)
        .map_err(|error| wrong(query, error.offset(), error.inner()))?;
    let conditions = parsed.search.conditions();
    if conditions > MAX_CONDITIONS {
        return Err(Wrong::whole(format!(
            "the search has {conditions} conditions: allowed are {MAX_CONDITIONS}"
        ))
        .into());
    }
    let longest = parsed.search.longest_value();
    if longest > MAX_VALUE_BYTES {
        return Err(Wrong::whole(format!(
            "the search has a value of {longest} octets: allowed are {MAX_VALUE_BYTES}"
        ))
        .into());
    }
    Ok(parsed)
}

/// The error at `offset`: the innermost description is the nearest.
fn wrong(query: &str, offset: usize, error: &ContextError) -> QueryError {
    let expected = error.context().find_map(|context| match context {
        StrContext::Expected(StrContextValue::Description(what)) => Some(*what),
        _ => None,
    });
    Wrong::expected(
        query,
        offset,
        expected.unwrap_or("and, or, | or the end of the query"),
    )
    .into()
}

/// Names what was expected.
fn expected(what: &'static str) -> StrContext {
    StrContext::Expected(StrContextValue::Description(what))
}

/// Applies a parser: it tells the compiler what errors there are.
fn next<'a, O>(
    mut parser: impl ModalParser<Input<'a>, O, ContextError>,
    input: &mut Input<'a>,
) -> ModalResult<O> {
    parser.parse_next(input)
}

fn whole(input: &mut Input<'_>) -> ModalResult<Parsed> {
    next(multispace0, input)?;
    let is_empty = next(opt(peek(alt((eof.void(), "|".void())))), input)?.is_some();
    let search = if is_empty {
        Search::Everything
    } else {
        any_of(input)?
    };
    next(multispace0, input)?;
    let sql = if next(opt("|"), input)?.is_some() {
        let offset = input.current_token_start();
        next(rest, input)?;
        Some(offset)
    } else {
        None
    };
    Ok(Parsed { search, sql })
}

fn any_of(input: &mut Input<'_>) -> ModalResult<Search> {
    let first = all_of(input)?;
    let more: Vec<Search> = next(repeat(0.., preceded(keyword("or"), cut_err(all_of))), input)?;
    Ok(joined(first, more, Search::Any))
}

fn all_of(input: &mut Input<'_>) -> ModalResult<Search> {
    let first = one(input)?;
    let more: Vec<Search> = next(
        repeat(0.., alt((preceded(keyword("and"), cut_err(one)), one))),
        input,
    )?;
    Ok(joined(first, more, Search::All))
}

fn joined(first: Search, mut more: Vec<Search>, join: fn(Vec<Search>) -> Search) -> Search {
    if more.is_empty() {
        return first;
    }
    more.insert(0, first);
    join(more)
}

fn one(input: &mut Input<'_>) -> ModalResult<Search> {
    preceded(
        multispace0,
        alt((
            negated,
            in_parentheses,
            everything,
            condition.map(Search::Where),
        )),
    )
    .context(expected("a word, a key, not or ("))
    .parse_next(input)
}

fn negated(input: &mut Input<'_>) -> ModalResult<Search> {
    next(keyword("not"), input)?;
    deeper(input, |input| cut_err(one).parse_next(input)).map(|inner| Search::Not(Box::new(inner)))
}

fn in_parentheses(input: &mut Input<'_>) -> ModalResult<Search> {
    next("(", input)?;
    let inner = deeper(input, |input| cut_err(any_of).parse_next(input))?;
    next(
        preceded(multispace0, cut_err(")")).context(expected("and, or or )")),
        input,
    )?;
    Ok(inner)
}

/// Parses what is one deeper: the parser calls itself there, and the stack has an end.
fn deeper<'a>(
    input: &mut Input<'a>,
    mut parser: impl FnMut(&mut Input<'a>) -> ModalResult<Search>,
) -> ModalResult<Search> {
    if input.state.0 == MAX_DEPTH {
        return cut_err(fail)
            .context(expected(
                "at most 30 parentheses and nots around a condition",
            ))
            .parse_next(input);
    }
    input.state.0 += 1;
    let parsed = parser(input);
    input.state.0 -= 1;
    parsed
}

fn everything(input: &mut Input<'_>) -> ModalResult<Search> {
    next("*", input)?;
    let word = one_of(is_value);
    next(
        cut_err(not(word)).context(expected("a space: a word does not begin with *")),
        input,
    )?;
    Ok(Search::Everything)
}

/// A word of the language, with the spaces before it.
fn keyword<'a>(word: &'static str) -> impl ModalParser<Input<'a>, (), ContextError> {
    delimited(
        multispace0,
        literal(Caseless(word)),
        peek(not(one_of(is_value))),
    )
    .void()
}

fn condition(input: &mut Input<'_>) -> ModalResult<Condition> {
    let key = match free_value(input)? {
        Pattern::Exact(key) => key,
        wildcard @ Pattern::Wildcard(_) => {
            let sign = (multispace0, one_of([':', '>', '<', '=']));
            next(
                cut_err(not(sign)).context(expected("a key without * and ?")),
                input,
            )?;
            return Ok(Condition::Anywhere(wildcard));
        }
    };
    if let Some(condition) = next(opt(|input: &mut Input<'_>| has(&key, input)), input)? {
        return Ok(condition);
    }
    if let Some(condition) = next(opt(|input: &mut Input<'_>| compares(&key, input)), input)? {
        return Ok(condition);
    }
    if let Some((low, high)) = next(opt(preceded(keyword("in"), cut_err(range))), input)? {
        return Ok(Condition::Between(key, low, high));
    }
    Ok(Condition::Anywhere(Pattern::Exact(key)))
}

/// What follows a key: `: value`.
fn has(key: &str, input: &mut Input<'_>) -> ModalResult<Condition> {
    // An IPv6 address without a key would be taken for a key and a value.
    next(
        cut_err(not("::")).context(expected("one colon; an address with :: is to be in quotes")),
        input,
    )?;
    next((multispace0, ":", multispace0), input)?;
    if next(opt(('*', peek(not(one_of(is_value))))), input)?.is_some() {
        return Ok(Condition::Present(key.to_owned()));
    }
    cut_err(alt((
        quoted,
        bare(is_value, |word| {
            is_reserved(word) && !word.eq_ignore_ascii_case("in")
        }),
    )))
    .context(expected("a value, which does not begin with * or ?"))
    .map(|pattern| Condition::Field(key.to_owned(), pattern))
    .parse_next(input)
}

/// What follows a key: `> number` and the like.
fn compares(key: &str, input: &mut Input<'_>) -> ModalResult<Condition> {
    next(multispace0, input)?;
    let numeric = field::of(key).is_none_or(|field| field.kind == Kind::Number);
    if !numeric && next(opt(peek(one_of(['>', '<', '=']))), input)?.is_some() {
        return cut_err(fail)
            .context(expected(": and a value, for the field is no number"))
            .parse_next(input);
    }
    let sign = alt((
        ">=".value(Comparison::GreaterOrEqual),
        ">".value(Comparison::Greater),
        "<=".value(Comparison::LessOrEqual),
        "<".value(Comparison::Less),
        "=".value(Comparison::Equal),
    ));
    let comparison = next(sign, input)?;
    let number = next(preceded(multispace0, cut_err(number)), input)?;
    Ok(Condition::Compare(key.to_owned(), comparison, number))
}

/// What follows a key and `in`.
fn range(input: &mut Input<'_>) -> ModalResult<(Bound, Bound)> {
    let open = alt(('['.value(true), '('.value(false))).context(expected("[ or ("));
    let close = alt((']'.value(true), ')'.value(false))).context(expected("] or )"));
    let low_included = next(preceded(multispace0, open), input)?;
    let low = next(preceded(multispace0, number), input)?;
    let high = next(preceded(multispace0, number), input)?;
    let high_included = next(preceded(multispace0, close), input)?;
    Ok((
        Bound {
            number: low,
            included: low_included,
        },
        Bound {
            number: high,
            included: high_included,
        },
    ))
}

fn number(input: &mut Input<'_>) -> ModalResult<Number> {
    let digits = || take_while(1.., |c: char| c.is_ascii_digit());
    (
        opt('-'),
        digits(),
        opt(('.', digits())),
        peek(not(one_of(is_bare))),
    )
        .take()
        .verify_map(|text: &str| {
            if text.contains('.') {
                text.parse()
                    .ok()
                    .filter(|number: &f64| number.is_finite())
                    .map(Number::Decimal)
            } else {
                text.parse().ok().map(Number::Integer)
            }
        })
        .context(expected("a number, from -2^63 to 2^63 - 1"))
        .parse_next(input)
}

/// A value without a key before it, or a key.
fn free_value(input: &mut Input<'_>) -> ModalResult<Pattern> {
    alt((quoted, bare(|c| is_bare(c) || is_wildcard(c), is_reserved))).parse_next(input)
}

const fn is_wildcard(character: char) -> bool {
    matches!(character, '*' | '?')
}

/// Whether a word after a key and a colon can have the character: also colons, for addresses.
fn is_value(character: char) -> bool {
    is_bare(character) || is_wildcard(character) || character == ':'
}

fn bare<'a>(
    characters: fn(char) -> bool,
    refused: fn(&str) -> bool,
) -> impl ModalParser<Input<'a>, Pattern, ContextError> {
    take_while(1.., characters)
        .verify(move |word: &str| !word.starts_with(is_wildcard) && !refused(word))
        .map(|word: &str| {
            if word.contains(is_wildcard) {
                Pattern::Wildcard(word.to_owned())
            } else {
                Pattern::Exact(word.to_owned())
            }
        })
}

fn quoted(input: &mut Input<'_>) -> ModalResult<Pattern> {
    let escaped = preceded(
        '\\',
        cut_err(one_of(['"', '\\'])).context(expected("\" or \\ after \\")),
    );
    let text = repeat(0.., alt((escaped, none_of(['"', '\\'])))).fold(
        String::new,
        |mut text, character: char| {
            text.push(character);
            text
        },
    );
    delimited(
        '"',
        text,
        cut_err('"').context(expected("the closing quote")),
    )
    .map(Pattern::Exact)
    .parse_next(input)
}
