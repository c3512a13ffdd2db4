//! Parameters of the product's API: names with values, and lists as `TrafficPath.1` and `Tag.1.Key`.
use flowlog_model::signature::encoding::Parameter;

use crate::serve::error::ApiError;

/// The most items of a list.
const MAX_ITEMS: usize = 50;

/// The parameters of a request. Those that an action does not know are nothing to it: SDKs send some with every request.
#[derive(Clone, Debug, Default)]
pub(super) struct Params(pub(super) Vec<Parameter>);

impl Params {
    /// The value of a parameter; none if it is not there.
    ///
    /// # Errors
    /// Where it is there twice: it would not be clear which one is meant.
    pub(super) fn get(&self, name: &'static str) -> Result<Option<&str>, ApiError> {
        let mut found = self.0.iter().filter(|(found, _)| found == name);
        match (found.next(), found.next()) {
            (found, None) => Ok(found.map(|(_, value)| value.as_str())),
            _ => Err(ApiError::invalid(name, "it is given twice")),
        }
    }

    /// As [`Self::get`], owned.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(super) fn text(&self, name: &'static str) -> Result<Option<String>, ApiError> {
        Ok(self.get(name)?.map(str::to_owned))
    }

    /// The value of a parameter that must be there and not empty.
    ///
    /// # Errors
    /// Where it is not, or is there twice.
    pub(super) fn required(&self, name: &'static str) -> Result<&str, ApiError> {
        self.get(name)?
            .filter(|value| !value.is_empty())
            .ok_or_else(|| ApiError::missing(name))
    }

    /// The value of a filter: empty is as if it were not there.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(super) fn filter(&self, name: &'static str) -> Result<Option<String>, ApiError> {
        Ok(self.text(name)?.filter(|value| !value.is_empty()))
    }

    /// A whole number.
    ///
    /// # Errors
    /// Where it is none, or is there twice.
    pub(super) fn number(&self, name: &'static str) -> Result<Option<u64>, ApiError> {
        self.get(name)?
            .map(|value| {
                let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                let number = digits.then(|| value.parse().ok()).flatten();
                number.ok_or_else(|| ApiError::invalid(name, "allowed is a whole number"))
            })
            .transpose()
    }

    /// The items of a list, `name.1`, `name.2` and so on, in the order of their numbers, which may have gaps.
    ///
    /// # Errors
    /// Where a number is not from 1 to 50 or is there twice.
    pub(super) fn list(&self, name: &'static str) -> Result<Vec<&str>, ApiError> {
        let items = self.numbered(name, |rest| rest.is_empty().then_some(()))?;
        Ok(items.into_iter().map(|(_, (), value)| value).collect())
    }

    /// The items of a list of pairs, `name.1.Key` with `name.1.Value`; a value that is not there is empty.
    ///
    /// # Errors
    /// Where a number is not from 1 to 50, something is there twice, a pair has no key, or two have the same.
    pub(super) fn pairs(&self, name: &'static str) -> Result<Vec<(String, String)>, ApiError> {
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        enum Part {
            Key,
            Value,
        }
        let parts = self.numbered(name, |rest| match rest {
            ".Key" => Some(Part::Key),
            ".Value" => Some(Part::Value),
            _ => None,
        })?;
        let mut pairs: Vec<(usize, String, String)> = Vec::new();
        for (number, part, value) in parts {
            match (part, pairs.last_mut()) {
                (Part::Key, _) => pairs.push((number, value.to_owned(), String::new())),
                (Part::Value, Some((last, _, pair))) if *last == number => value.clone_into(pair),
                (Part::Value, _) => return Err(ApiError::invalid(name, "a value has no key")),
            }
        }
        let mut keys: Vec<&String> = pairs.iter().map(|(_, key, _)| key).collect();
        keys.sort_unstable();
        if keys.windows(2).any(|two| two.first() == two.last()) {
            return Err(ApiError::invalid(name, "two tags have the same key"));
        }
        Ok(pairs
            .into_iter()
            .map(|(_, key, value)| (key, value))
            .collect())
    }

    /// Parameters `name.NUMBER` with what follows the number, sorted.
    fn numbered<T: Copy + Ord>(
        &self,
        name: &'static str,
        part: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<(usize, T, &str)>, ApiError> {
        let mut items = Vec::new();
        for (given, value) in &self.0 {
            let Some(rest) = given
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('.'))
            else {
                continue;
            };
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, rest) = rest.split_at(digits);
            let Some(part) = part(rest) else {
                continue;
            };
            let number = number
                .parse()
                .ok()
                .filter(|number| (1..=MAX_ITEMS).contains(number))
                .ok_or_else(|| ApiError::invalid(name, "items are numbered from 1 to 50"))?;
            items.push((number, part, value.as_str()));
        }
        items.sort_unstable();
        let twice = items.windows(2).any(|two| match two {
            [one, other] => (one.0, one.1) == (other.0, other.1),
            _ => false,
        });
        if twice {
            return Err(ApiError::invalid(name, "an item is given twice"));
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn params(given: &[(&str, &str)]) -> Params {
        let owned = given
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Params(owned.collect())
    }

    #[test]
    fn single_values() {
        let given = params(&[("A", "1"), ("B", ""), ("C", "x"), ("C", "x"), ("D", "-1")]);
        assert_eq!(given.get("A").unwrap(), Some("1"));
        assert_eq!(given.number("A").unwrap(), Some(1));
        assert_eq!(given.get("B").unwrap(), Some(""));
        assert_eq!(given.filter("B").unwrap(), None);
        assert_eq!(given.get("none").unwrap(), None);
        assert_eq!(
            given.required("B").unwrap_err().code(),
            "MissingParameter.B"
        );
        assert_eq!(
            given.required("E").unwrap_err().code(),
            "MissingParameter.E"
        );
        assert_eq!(given.get("C").unwrap_err().code(), "InvalidParameter.C");
        for bad in ["B", "D"] {
            assert!(given.number(if bad == "B" { "B" } else { "D" }).is_err());
        }
        assert!(
            params(&[("A", "99999999999999999999")])
                .number("A")
                .is_err()
        );
    }

    #[test]
    fn lists() {
        let given = params(&[
            ("P.2", "b"),
            ("P.1", "a"),
            ("P.9", "c"),
            ("P", "x"),
            ("P.1.Key", "x"),
            ("Q.1", "x"),
        ]);
        assert_eq!(given.list("P").unwrap(), ["a", "b", "c"]);
        for bad in [
            &[("P.0", "a")][..],
            &[("P.51", "a")],
            &[("P.", "a")],
            &[("P.1", "a"), ("P.1", "a")],
            &[("P.1", "a"), ("P.01", "a")],
        ] {
            assert!(params(bad).list("P").is_err(), "{bad:?}");
        }
    }

    #[test]
    fn pairs() {
        let given = params(&[
            ("T.2.Value", "w"),
            ("T.1.Key", "k"),
            ("T.2.Key", "l"),
            ("T.3.Key", "m"),
        ]);
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            given.pairs("T").unwrap(),
            [pair("k", ""), pair("l", "w"), pair("m", "")]
        );
        for bad in [
            &[("T.1.Value", "a")][..],
            &[("T.1.Key", "a"), ("T.2.Key", "a")],
            &[("T.1.Key", "a"), ("T.1.Key", "b")],
            &[("T.1.Key", "a"), ("T.2.Value", "b")],
        ] {
            assert!(params(bad).pairs("T").is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_parameters_make_it_panic(given in prop::collection::vec(("[TP.0-9KeyValu]{0,8}", ".{0,4}"), 0..20)) {
            let given = Params(given);
            let _ = (given.list("P"), given.pairs("T"), given.number("T"), given.required("P"));
        }
    }
}
