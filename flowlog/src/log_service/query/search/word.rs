//! Values looked for in a client's own fields, which are any text.
use super::Pattern;

/// What separates words, beside control characters.
const DELIMITERS: &str = " ,'\";=()[]{}?@&<>/:";

/// A pattern made ready to be looked for in many texts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Matcher {
    /// The pattern in lower case of ASCII letters.
    text: String,
    wildcard: bool,
}

impl Matcher {
    pub(crate) fn new(pattern: &Pattern) -> Self {
        match pattern {
            Pattern::Exact(text) => Self {
                text: text.to_ascii_lowercase(),
                wildcard: false,
            },
            Pattern::Wildcard(text) => Self {
                text: text.to_ascii_lowercase(),
                wildcard: true,
            },
        }
    }

    /// Whether the text has the words of the pattern, one after the other, or is the pattern.
    pub(crate) fn matches(&self, text: &str) -> bool {
        if self.wildcard {
            return glob(&self.text, text) || words(text).any(|word| glob(&self.text, word));
        }
        if text.eq_ignore_ascii_case(&self.text) {
            return true;
        }
        let mut wanted = words(&self.text).peekable();
        if wanted.peek().is_none() {
            return false;
        }
        let mut found = words(text);
        loop {
            let mut candidate = found.clone();
            if wanted.clone().all(|word| {
                candidate
                    .next()
                    .is_some_and(|other| other.eq_ignore_ascii_case(word))
            }) {
                return true;
            }
            if found.next().is_none() {
                return false;
            }
        }
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> + Clone {
    text.split(|c: char| c.is_control() || DELIMITERS.contains(c))
        .filter(|word| !word.is_empty())
}

/// Whether `pattern`, in lower case, stands for all of `text` in any case of ASCII letters.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    flowlog_model::glob::matches(pattern, text, |expected, found| {
        expected == found.to_ascii_lowercase()
    })
}
