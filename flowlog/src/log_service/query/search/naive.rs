//! What a search means, evaluated log by log on the text that the client sent: the oracle of the tests.
use super::field::{self, Kind};
use super::{Bound, Comparison, Condition, Number, Pattern, Search};
use std::net::IpAddr;

/// A log as a client sent it, each key once.
#[derive(Clone, Debug)]
pub(crate) struct NaiveLog {
    pub(crate) time: u32,
    pub(crate) topic: String,
    pub(crate) source: String,
    pub(crate) contents: Vec<(String, String)>,
}

impl NaiveLog {
    /// The value of the key, with hyphens or underscores where it is a record's field.
    fn value(&self, key: &str) -> Option<String> {
        let key = field::of(key).map_or_else(|| key.to_owned(), |column| column.key);
        match key.as_str() {
            field::TIME => Some(self.time.to_string()),
            field::TOPIC => Some(self.topic.clone()),
            field::SOURCE => Some(self.source.clone()),
            key => self
                .contents
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value.clone()),
        }
    }

    fn keys(&self) -> impl Iterator<Item = &str> {
        [field::TOPIC, field::SOURCE]
            .into_iter()
            .chain(self.contents.iter().map(|(key, _)| key.as_str()))
    }
}

/// Whether the search finds the log.
pub(crate) fn finds(search: &Search, log: &NaiveLog) -> bool {
    match search {
        Search::Everything => true,
        Search::Not(inner) => !finds(inner, log),
        Search::All(parts) => parts.iter().all(|part| finds(part, log)),
        Search::Any(parts) => parts.iter().any(|part| finds(part, log)),
        Search::Where(Condition::Anywhere(pattern)) => {
            log.keys().any(|key| has(log, key, pattern, false))
        }
        Search::Where(Condition::Field(key, pattern)) => has(log, key, pattern, true),
        Search::Where(Condition::Present(key)) => log.value(key).is_some(),
        Search::Where(Condition::Compare(key, comparison, number)) => {
            compares(log, key, *comparison, *number)
        }
        Search::Where(Condition::Between(key, low, high)) => {
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
            compares(log, key, above(low), low.number)
                && compares(log, key, below(high), high.number)
        }
    }
}

fn has(log: &NaiveLog, key: &str, pattern: &Pattern, blocks: bool) -> bool {
    let Some(value) = log.value(key) else {
        return false;
    };
    let Some(column) = field::of(key) else {
        return has_words(&value, pattern);
    };
    let Pattern::Exact(text) = pattern else {
        let Pattern::Wildcard(glob) = pattern else {
            unreachable!()
        };
        // What is no number is kept as a client's own field; numbers have no wildcards.
        return if column.kind == Kind::Number {
            number(&column, &value).is_none() && has_words(&value, pattern)
        } else {
            like(glob, &value)
        };
    };
    match column.kind {
        Kind::Number => match (number(&column, &value), text.parse::<i64>()) {
            (Some(value), Ok(wanted)) => value == wanted,
            (Some(_), Err(_)) => false,
            (None, _) => has_words(&value, pattern),
        },
        Kind::Address => match (
            value.parse::<IpAddr>(),
            text.parse::<IpAddr>(),
            text.parse::<ipnet::IpNet>(),
        ) {
            (Ok(value), Ok(wanted), _) => value == wanted,
            (Ok(value), _, Ok(net)) if blocks => net.contains(&value),
            _ => value == *text,
        },
        Kind::Word(words) => {
            value == *text || (words.contains(&value.as_str()) && value.eq_ignore_ascii_case(text))
        }
        Kind::Text => value == *text,
    }
}

/// The number that the field's column has: one that is written as it would be given back, and has room. All else is a client's own field.
fn number(column: &field::Column, value: &str) -> Option<i64> {
    let small =
        ["version", "srcport", "dstport", "protocol", "tcp_flags"].contains(&column.name.as_str());
    let number = value
        .parse::<i64>()
        .ok()
        .filter(|number| number.to_string() == value)?;
    (!small || i32::try_from(number).is_ok()).then_some(number)
}

fn has_words(value: &str, pattern: &Pattern) -> bool {
    let split = |text: &str| -> Vec<String> {
        let delimiter = |c: char| c.is_control() || " ,'\";=()[]{}?@&<>/:".contains(c);
        text.to_ascii_lowercase()
            .split(delimiter)
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    };
    match pattern {
        Pattern::Wildcard(glob) => {
            let glob = glob.to_ascii_lowercase();
            like(&glob, &value.to_ascii_lowercase())
                || split(value).iter().any(|word| like(&glob, word))
        }
        Pattern::Exact(text) => {
            let wanted = split(text);
            value.eq_ignore_ascii_case(text)
                || (!wanted.is_empty()
                    && split(value)
                        .windows(wanted.len())
                        .any(|words| words == wanted))
        }
    }
}

/// By the definition of `*` and `?`.
fn like(pattern: &str, text: &str) -> bool {
    let mut pattern = pattern.chars();
    match pattern.next() {
        None => text.is_empty(),
        Some('*') => text
            .char_indices()
            .map(|(at, _)| at)
            .chain([text.len()])
            .any(|skip| like(pattern.as_str(), &text[skip..])),
        Some(expected) => {
            let mut text = text.chars();
            text.next().is_some_and(|found| {
                (expected == '?' || expected == found) && like(pattern.as_str(), text.as_str())
            })
        }
    }
}

fn compares(log: &NaiveLog, key: &str, comparison: Comparison, wanted: Number) -> bool {
    let Some(value) = log.value(key) else {
        return false;
    };
    let order = match (field::of(key), wanted) {
        (Some(column), Number::Integer(wanted)) => {
            number(&column, &value).map(|value| value.cmp(&wanted))
        }
        (Some(column), Number::Decimal(wanted)) => number(&column, &value).map(|value| {
            // What has a fraction is so small that the rounding of its like does not matter.
            if wanted.fract() == 0.0 {
                i128::from(value).cmp(&(wanted as i128))
            } else {
                (value as f64).total_cmp(&wanted)
            }
        }),
        (None, wanted) => {
            let wanted = match wanted {
                Number::Integer(wanted) => wanted as f64,
                Number::Decimal(wanted) => wanted,
            };
            value
                .parse::<f64>()
                .ok()
                .filter(|value| value.is_finite())
                .and_then(|value| value.partial_cmp(&wanted))
        }
    };
    order.is_some_and(|order| match comparison {
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Equal => order.is_eq(),
    })
}
