//! A search as DataFusion's expressions over the columns of a logstore.
//!
//! Where a record lacks a field, a condition is NULL: what filters takes that for false, and so do `and` and `or`. Only `not` has to say
//! so, as `IS NOT TRUE`.
use std::net::IpAddr;
use std::sync::Arc;

use datafusion::logical_expr::{Expr, ScalarUDF, lit};
use datafusion::prelude::ident;
use ipnet::IpNet;

use super::field::{self, Column, Kind};
use super::word::Matcher;
use super::{Bound, Comparison, Condition, Number, Pattern, Search};
use crate::log_service::query::functions::address::IsSubnetOf;
use crate::log_service::query::functions::client::{HasKey, HasWords, NumberOf};
use crate::log_service::store::schema::OTHER;

/// The records that the search finds.
pub(crate) fn filter(search: &Search) -> Expr {
    match search {
        Search::Everything => lit(true),
        Search::Where(condition) => holds(condition),
        Search::Not(inner) => filter(inner).is_not_true(),
        Search::All(parts) => joined(parts.iter().map(filter), Expr::and, true),
        Search::Any(parts) => joined(parts.iter().map(filter), Expr::or, false),
    }
}

fn joined(parts: impl Iterator<Item = Expr>, join: fn(Expr, Expr) -> Expr, none: bool) -> Expr {
    parts.reduce(join).unwrap_or_else(|| lit(none))
}

fn holds(condition: &Condition) -> Expr {
    match condition {
        Condition::Anywhere(pattern) => {
            let columns = field::searched().map(|column| has(&column, pattern, false));
            joined(columns.chain([has_words(None, pattern)]), Expr::or, false)
        }
        Condition::Field(key, pattern) => match field::of(key) {
            Some(column) if column.kind == Kind::Number => {
                has(&column, pattern, true).or(has_words(Some(&column.key), pattern))
            }
            Some(column) => has(&column, pattern, true),
            None => has_words(Some(key), pattern),
        },
        Condition::Present(key) => match field::of(key) {
            Some(column) if column.kind == Kind::Number => {
                ident(column.name).is_not_null().or(has_key(&column.key))
            }
            Some(column) => ident(column.name).is_not_null(),
            None => has_key(key),
        },
        Condition::Compare(key, comparison, number) => compares(key, *comparison, *number),
        Condition::Between(key, low, high) => {
            let above = |bound: &Bound| {
                if bound.included {
                    Comparison::GreaterOrEqual
                } else {
                    Comparison::Greater
                }
            };
            let below = |bound: &Bound| {
                if bound.included {
                    Comparison::LessOrEqual
                } else {
                    Comparison::Less
                }
            };
            compares(key, above(low), low.number).and(compares(key, below(high), high.number))
        }
    }
}

/// Whether the column has the value. With `blocks`, a CIDR block stands for the addresses in it.
fn has(column: &Column, pattern: &Pattern, blocks: bool) -> Expr {
    let value = ident(&column.name);
    let text = match pattern {
        // A number has no wildcards.
        Pattern::Wildcard(_) if column.kind == Kind::Number => return lit(false),
        Pattern::Wildcard(text) => return value.like(lit(like(text))),
        Pattern::Exact(text) => text,
    };
    match column.kind {
        Kind::Number => text
            .parse::<i64>()
            .map_or_else(|_| lit(false), |number| value.eq(lit(number))),
        Kind::Address => match (text.parse::<IpAddr>(), text.parse::<IpNet>()) {
            // As records are written: see flowlog-model's format.
            (Ok(address), _) => value.eq(lit(address.to_string())),
            (_, Ok(block)) if blocks => {
                udf(IsSubnetOf::new()).call(vec![lit(block.to_string()), value])
            }
            _ => value.eq(lit(text.as_str())),
        },
        Kind::Word(words) => {
            let word = words.iter().find(|word| word.eq_ignore_ascii_case(text));
            match word {
                Some(word) if word != text => value
                    .clone()
                    .eq(lit(*word))
                    .or(value.eq(lit(text.as_str()))),
                _ => value.eq(lit(text.as_str())),
            }
        }
        Kind::Text => value.eq(lit(text.as_str())),
    }
}

/// The wildcards of SQL's LIKE.
fn like(pattern: &str) -> String {
    let mut like = String::with_capacity(pattern.len());
    for character in pattern.chars() {
        match character {
            '*' => like.push('%'),
            '?' => like.push('_'),
            '%' | '_' => like.extend(['\\', character]),
            _ => like.push(character),
        }
    }
    like
}

fn compares(key: &str, comparison: Comparison, number: Number) -> Expr {
    let Some(column) = field::of(key) else {
        let number = match number {
            Number::Integer(number) => number as f64,
            // As the field's value: -0 is 0.
            Number::Decimal(number) => number + 0.0,
        };
        return compared(
            udf(NumberOf::new(key)).call(vec![ident(OTHER)]),
            comparison,
            lit(number),
        );
    };
    let value = ident(column.name);
    match number {
        Number::Integer(number) => compared(value, comparison, lit(number)),
        Number::Decimal(number) => compares_decimal(value, comparison, number),
    }
}

/// A whole number is compared with the next whole number below or above, so that statistics are of use.
fn compares_decimal(value: Expr, comparison: Comparison, number: f64) -> Expr {
    // Two to the power of 63, which is no i64.
    const END: f64 = 9_223_372_036_854_775_808.0;
    let always = value.clone().is_not_null();
    let (above, below) = (number >= END, number < -END);
    match comparison {
        Comparison::Equal if number.fract() != 0.0 || above || below => lit(false),
        Comparison::Greater | Comparison::GreaterOrEqual if above => lit(false),
        Comparison::Greater | Comparison::GreaterOrEqual if below => always,
        Comparison::Less | Comparison::LessOrEqual if above => always,
        Comparison::Less | Comparison::LessOrEqual if below => lit(false),
        Comparison::Greater | Comparison::LessOrEqual => {
            compared(value, comparison, lit(number.floor() as i64))
        }
        Comparison::GreaterOrEqual | Comparison::Less | Comparison::Equal => {
            compared(value, comparison, lit(number.ceil() as i64))
        }
    }
}

fn compared(value: Expr, comparison: Comparison, number: Expr) -> Expr {
    match comparison {
        Comparison::Greater => value.gt(number),
        Comparison::GreaterOrEqual => value.gt_eq(number),
        Comparison::Less => value.lt(number),
        Comparison::LessOrEqual => value.lt_eq(number),
        Comparison::Equal => value.eq(number),
    }
}

fn has_words(key: Option<&str>, pattern: &Pattern) -> Expr {
    udf(HasWords::new(key, Matcher::new(pattern))).call(vec![ident(OTHER)])
}

fn has_key(key: &str) -> Expr {
    udf(HasKey::new(key)).call(vec![ident(OTHER)])
}

fn udf(function: impl datafusion::logical_expr::ScalarUDFImpl + 'static) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(function))
}
