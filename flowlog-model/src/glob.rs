//! Patterns for names: `*` stands for any characters, also none, and `?` for exactly one. There is no escape, for neither sign is
//! of use in a device's name.
use std::fmt;
use std::str::Chars;

use crate::text::Text;

/// A pattern of `MAX_BYTES` bytes at most.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Glob<const MAX_BYTES: usize>(String);

impl<const MAX_BYTES: usize> Glob<MAX_BYTES> {
    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the pattern stands for all of `name`. Takes at most the product of both lengths in steps.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        matches(&self.0, name, |expected, found| expected == found)
    }
}

/// Whether `pattern` stands for all of `text`, where `is_same` says of a character of each whether they are the same. Takes at most the
/// product of both lengths in steps.
#[must_use]
pub fn matches(pattern: &str, text: &str, is_same: impl Fn(char, char) -> bool) -> bool {
    let mut pattern = pattern.chars();
    let mut rest = text.chars();
    // Where to go on if what follows the last `*` does not fit: after that `*`, and one character further in the text.
    let mut retry: Option<(Chars<'_>, Chars<'_>)> = None;
    loop {
        let before = rest.clone();
        match (pattern.next(), rest.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                rest = before.clone();
                retry = Some((pattern.clone(), before));
            }
            (Some('?'), Some(_)) => {}
            (Some(expected), Some(found)) if is_same(expected, found) => {}
            _ => {
                let Some((after_star, from)) = &mut retry else {
                    return false;
                };
                if from.next().is_none() {
                    return false;
                }
                pattern = after_star.clone();
                rest = from.clone();
            }
        }
    }
}

impl<const MAX_BYTES: usize> Text for Glob<MAX_BYTES> {
    fn allowed() -> String {
        format!(
            "allowed are 1 to {MAX_BYTES} bytes, in which `*` stands for any characters and `?` for one"
        )
    }

    fn from_text(text: &str) -> Option<Self> {
        let legal = (1..=MAX_BYTES).contains(&text.len()) && !text.chars().any(char::is_control);
        legal.then(|| Self(text.to_owned()))
    }
}

impl<const MAX_BYTES: usize> fmt::Display for Glob<MAX_BYTES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de, const MAX_BYTES: usize> serde::Deserialize<'de> for Glob<MAX_BYTES> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::text::deserialize_text(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn glob(pattern: &str) -> Glob<64> {
        crate::text::parse_text(pattern).unwrap()
    }

    #[test]
    fn matches() {
        let cases = [
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("eth0", "eth", false),
            ("eth?", "eth0", true),
            ("eth?", "eth", false),
            ("eth?", "eth10", false),
            ("*", "", true),
            ("*", "anything", true),
            ("?", "ä", true),
            ("tap*", "tap", true),
            ("tap*", "tap-1", true),
            ("tap*", "atap", false),
            ("*-1", "tap-1-1", true),
            ("*-1", "tap-1-2", false),
            ("a*b*c", "aXbbYc", true),
            ("a*b*c", "aXbbYcd", false),
            ("a**?c", "abc", true),
            ("a**?c", "ac", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(glob(pattern).matches(name), expected, "{pattern} on {name}");
        }
    }

    /// The definition, without any care for time.
    fn by_definition(pattern: &[char], name: &[char]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, rest) => rest.is_none(),
            (Some(('*', after)), _) => {
                (0..=name.len()).any(|skip| by_definition(after, &name[skip..]))
            }
            (Some(('?', after)), Some((_, rest))) => by_definition(after, rest),
            (Some((expected, after)), Some((found, rest))) => {
                expected == found && by_definition(after, rest)
            }
            (Some(_), None) => false,
        }
    }

    proptest! {
        #[test]
        fn matches_as_defined(pattern in "[ab*?]{1,8}", name in "[ab]{0,10}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(glob(&pattern).matches(&name), by_definition(&chars(&pattern), &chars(&name)));
        }
    }

    #[test]
    fn a_hostile_pattern_ends() {
        let name = format!("{}b", "a".repeat(10_000));
        assert!(!glob(&"*a".repeat(32)).matches(&name));
    }
}
