//! Values that people write as text: in the configuration, in the inventory, on the command line and in JSON.
//!
//! Each says in one clause what is allowed, and that clause is the end of every error about it, whether the text was wrong or
//! there was a number where the text should be. [`crate::input`] builds its sentences on this.
//!
//! | helper | for |
//! |---|---|
//! | [`Text`] | any type that is written as text |
//! | [`text_type!`](crate::text_type) | gives such a type `FromStr`, `Serialize` and `Deserialize` |
//! | [`spelled_enum!`](crate::spelled_enum) | an enum whose variants have a spelling each |
//! | [`WholeNumber`] | a whole number within bounds |
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

/// A value that is written as text.
pub trait Text: Sized {
    /// What is allowed, as a clause without a full stop: `allowed are 1m, 5m and 10m`.
    fn allowed() -> String;

    /// The value that `text` stands for; none if it is not allowed.
    fn from_text(text: &str) -> Option<Self>;
}

/// A text that does not stand for a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is not valid: {allowed}", .text.escape_debug())]
pub struct InvalidText {
    /// The text as it was given.
    pub text: String,
    /// What is allowed, as [`Text::allowed`] says it.
    pub allowed: String,
}

/// Parses `text`.
///
/// # Errors
/// [`InvalidText`] if [`Text::from_text`] refuses it.
pub fn parse_text<T: Text>(text: &str) -> Result<T, InvalidText> {
    T::from_text(text).ok_or_else(|| InvalidText {
        text: text.to_owned(),
        allowed: T::allowed(),
    })
}

/// Deserialises a value that is written as text; its errors say what is allowed.
///
/// # Errors
/// The deserialiser's, and `invalid value` or `invalid type` with [`Text::allowed`] as what was expected.
pub fn deserialize_text<'de, D: Deserializer<'de>, T: Text>(
    deserializer: D,
) -> Result<T, D::Error> {
    deserializer.deserialize_str(TextVisitor(PhantomData))
}

struct TextVisitor<T>(PhantomData<T>);

impl<T: Text> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&T::allowed())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// Writes items as a list in words: `1m, 5m and 10m`.
pub fn in_words<I: IntoIterator<Item = S>, S: AsRef<str>>(items: I) -> String {
    let items: Vec<S> = items.into_iter().collect();
    let mut words = String::new();
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            words.push_str(if index + 1 == items.len() {
                " and "
            } else {
                ", "
            });
        }
        words.push_str(item.as_ref());
    }
    words
}

/// Says which of a few spellings are allowed, as a clause.
pub fn allowed_spellings<'a>(spellings: impl IntoIterator<Item = &'a str>) -> String {
    let spellings: Vec<&str> = spellings.into_iter().collect();
    format!(
        "allowed {} {}",
        if spellings.len() == 1 { "is" } else { "are" },
        in_words(spellings)
    )
}

/// Gives types that implement [`Text`] and `Display` the traits `FromStr`, `Serialize` and `Deserialize`.
/// The crate that uses it depends on serde.
#[macro_export]
macro_rules! text_type {
    ($($type:ty),+ $(,)?) => {$(
        impl ::std::str::FromStr for $type {
            type Err = $crate::text::InvalidText;

            fn from_str(text: &str) -> ::std::result::Result<Self, Self::Err> {
                $crate::text::parse_text(text)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $type {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> ::std::result::Result<Self, D::Error> {
                $crate::text::deserialize_text(deserializer)
            }
        }

        impl ::serde::Serialize for $type {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> ::std::result::Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )+};
}

/// Declares an enum whose variants have one spelling each, in every file, flag and JSON document.
#[macro_export]
macro_rules! spelled_enum {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $spelling:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        $vis enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $name {
            /// All of them, in the order of their declaration.
            $vis const ALL: &[Self] = &[$(Self::$variant),+];

            /// The spelling.
            #[must_use]
            $vis const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $spelling,)+ }
            }
        }

        impl $crate::text::Text for $name {
            fn allowed() -> ::std::string::String {
                $crate::text::allowed_spellings(Self::ALL.iter().map(|value| value.as_str()))
            }

            fn from_text(text: &str) -> ::std::option::Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == text)
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        $crate::text_type!($name);
    };
}

/// A whole number from `MIN` to `MAX`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WholeNumber<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> WholeNumber<MIN, MAX> {
    /// The number; none if it is out of bounds.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        (MIN..=MAX).contains(&number).then_some(Self(number))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for WholeNumber<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(WholeNumberVisitor::<MIN, MAX>)
    }
}

struct WholeNumberVisitor<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Visitor<'_> for WholeNumberVisitor<MIN, MAX> {
    type Value = WholeNumber<MIN, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "allowed are whole numbers from {MIN} to {MAX}")
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Self::Value, E> {
        WholeNumber::new(number)
            .ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Self::Value, E> {
        let in_bounds = u64::try_from(number).ok().and_then(WholeNumber::new);
        in_bounds.ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }
}

/// An identifier: of an ENI, a VSwitch, a VPC, an instance, an account or a region. 1 to 64 characters of `[A-Za-z0-9._:-]`, so
/// that it stands in a text record as one token.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(String);

impl Id {
    /// Longest identifier, in characters.
    pub const MAX_CHARS: usize = 64;

    /// The identifier as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The identifier as an owned string.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

impl Text for Id {
    fn allowed() -> String {
        format!(
            "allowed are 1 to {} characters of A-Z, a-z, 0-9, `.`, `_`, `:` and `-`",
            Self::MAX_CHARS
        )
    }

    fn from_text(text: &str) -> Option<Self> {
        let legal =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
        ((1..=Self::MAX_CHARS).contains(&text.len()) && text.bytes().all(legal))
            .then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

crate::text_type!(Id);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_in_words() {
        assert_eq!(in_words::<_, &str>([]), "");
        assert_eq!(in_words(["a"]), "a");
        assert_eq!(in_words(["a", "b"]), "a and b");
        assert_eq!(in_words(["a", "b", "c"]), "a, b and c");
    }

    #[test]
    fn ids() {
        for good in ["a", "eni-1", "vpc_A.1:b", &"x".repeat(64)] {
            assert_eq!(good.parse::<Id>().unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a\n", "ä", "a/b", "\"", &"x".repeat(65)] {
            assert!(bad.parse::<Id>().is_err(), "{bad:?}");
        }
        let error = "a\nb".parse::<Id>().unwrap_err().to_string();
        assert_eq!(
            error,
            "\"a\\nb\" is not valid: allowed are 1 to 64 characters of A-Z, a-z, 0-9, `.`, `_`, `:` and `-`"
        );
    }

    #[test]
    fn whole_numbers_keep_their_bounds() {
        type Priority = WholeNumber<1, 3>;
        let parse = serde_json::from_str::<Priority>;
        assert_eq!(parse("1").unwrap().get(), 1);
        assert_eq!(parse("3").unwrap().get(), 3);
        for bad in [
            "0",
            "4",
            "-1",
            "1.5",
            "\"1\"",
            "99999999999999999999",
            "null",
        ] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(
                error.contains("allowed are whole numbers from 1 to 3"),
                "{bad}: {error}"
            );
        }
    }
}
