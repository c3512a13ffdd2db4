//! The percent-encoding of RFC 3986, and parameters as they travel in a query or a form body.
use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// All but the unreserved characters of RFC 3986, section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A parameter's name and value, decoded.
pub type Parameter = (String, String);

/// What is wrong with parameters as they travel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParametersError {
    /// More than the limit.
    #[error("there are more than {limit} parameters")]
    TooMany {
        /// How many are allowed.
        limit: usize,
    },
    /// Not UTF-8 once decoded.
    #[error("a parameter is not UTF-8: \"{}\"", .0.escape_debug())]
    NotUtf8(String),
    /// A `%` that two hexadecimal digits do not follow.
    #[error("a parameter has a % without two hexadecimal digits: \"{}\"", .0.escape_debug())]
    BadEscape(String),
}

/// Encodes a text: unreserved characters stay, every other byte of its UTF-8 becomes `%XX`.
#[must_use]
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Writes parameters as a query: `a=1&b=%20`.
#[must_use]
pub fn query<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut query = String::new();
    for (name, value) in parameters {
        if !query.is_empty() {
            query.push('&');
        }
        query.push_str(&encode(name));
        query.push('=');
        query.push_str(&encode(value));
    }
    query
}

/// The parameters of a query or of a form body, in their order. A `+` is a space; a name without `=` has the empty value; an empty
/// piece between two `&` is nothing.
///
/// # Errors
/// [`ParametersError`]; the `limit` counts parameters.
pub fn parameters(encoded: &str, limit: usize) -> Result<Vec<Parameter>, ParametersError> {
    let mut parameters = Vec::new();
    for piece in encoded.split('&').filter(|piece| !piece.is_empty()) {
        if parameters.len() == limit {
            return Err(ParametersError::TooMany { limit });
        }
        let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
        parameters.push((decode(name)?, decode(value)?));
    }
    Ok(parameters)
}

fn decode(text: &str) -> Result<String, ParametersError> {
    // The decoder itself would take a broken escape for plain text; what was signed would then be ambiguous.
    let broken = text.split('%').skip(1).any(|rest| {
        let digits = rest.as_bytes().get(..2);
        !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    if broken {
        return Err(ParametersError::BadEscape(text.to_owned()));
    }
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced)
        .decode_utf8()
        .map(Cow::into_owned)
        .map_err(|_| ParametersError::NotUtf8(text.to_owned()))
}

/// The parameters sorted by name, then value, and encoded: what both signatures are made of. Sorted as they are before they are
/// encoded, by bytes, as the SDKs do.
#[must_use]
pub fn canonical(parameters: &[Parameter]) -> String {
    let mut sorted: Vec<&Parameter> = parameters.iter().collect();
    sorted.sort_unstable();
    query(
        sorted
            .into_iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_unreserved_characters_stay() {
        assert_eq!(encode("aZ09-._~"), "aZ09-._~");
        assert_eq!(encode(" +*/é流"), "%20%2B%2A%2F%C3%A9%E6%B5%81");
    }

    #[test]
    fn parameters_as_they_travel() {
        let parsed = parameters("a=1&&b&c=&d=x+y%2B%20z&a=%E6%B5%81&e==", 9).unwrap();
        let expected = [
            ("a", "1"),
            ("b", ""),
            ("c", ""),
            ("d", "x y+ z"),
            ("a", "流"),
            ("e", "="),
        ];
        assert_eq!(
            parsed,
            expected.map(|(name, value)| (name.into(), value.into()))
        );
        for bad in ["a=%", "a=%4", "%zz=1", "a=%C3"] {
            assert!(parameters(bad, 9).is_err(), "{bad}");
        }
        assert_eq!(
            parameters("a&b&c", 2),
            Err(ParametersError::TooMany { limit: 2 })
        );
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(given in prop::collection::vec((".*", ".*"), 0..8)) {
            let given: Vec<Parameter> = given.into_iter().filter(|(name, value)| !(name.is_empty() && value.is_empty())).collect();
            let encoded = query(given.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            prop_assert!(encoded.is_ascii() && !encoded.contains([' ', '+']));
            prop_assert_eq!(parameters(&encoded, 8).unwrap(), given.clone());
            // A client that writes a space as `+` signs the same text.
            prop_assert_eq!(parameters(&encoded.replace("%20", "+"), 8).unwrap(), given);
        }

        #[test]
        fn the_canonical_form_does_not_depend_on_the_order(
            (given, shuffled) in prop::collection::vec(("[aA é流+~%&=]{0,3}", "[bB é流+~%&=]{0,3}"), 0..8)
                .prop_flat_map(|given| (Just(given.clone()), Just(given).prop_shuffle()))
        ) {
            prop_assert_eq!(canonical(&given), canonical(&shuffled));
            let mut sorted = given;
            sorted.sort();
            let read = parameters(&canonical(&sorted), 8).unwrap();
            prop_assert_eq!(read, sorted);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            let _ = parameters(&text, 1000);
        }
    }
}
