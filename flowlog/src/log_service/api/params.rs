//! Parameters of a call, from the query or from a body of JSON, in which clients write numbers as numbers or as text.
use std::collections::BTreeMap;

use flowlog_model::signature::encoding::Parameter;
use serde_json::Value;

use super::error::{Code, LogError};

/// The parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Params(BTreeMap<String, String>);

impl Params {
    /// Those of a query.
    pub(super) fn of_query(query: &[Parameter]) -> Self {
        Self(query.iter().cloned().collect())
    }

    /// The texts, numbers and truth values in a JSON object; what else it has is nothing to us.
    ///
    /// # Errors
    /// [`Code::PostBodyInvalid`] if it is no JSON object.
    pub(super) fn of_json(body: &[u8]) -> Result<Self, LogError> {
        let text = |value| match value {
            Value::String(text) => Some(text),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(is) => Some(is.to_string()),
            _ => None,
        };
        let object = object(body)?;
        let texts = object
            .into_iter()
            .filter_map(|(name, value)| Some((name, text(value)?)));
        Ok(Self(texts.collect()))
    }

    /// A text; none where it is missing or empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }

    /// A whole number, at most `most`; none where it is missing.
    ///
    /// # Errors
    /// [`Code::ParameterInvalid`].
    pub(super) fn number<N: TryFrom<u64>>(
        &self,
        name: &str,
        most: u64,
    ) -> Result<Option<N>, LogError> {
        let number = |text: &str| {
            let number = text.parse::<u64>().ok().filter(|number| *number <= most)?;
            N::try_from(number).ok()
        };
        let invalid =
            || LogError::parameter(name, format_args!("allowed are whole numbers up to {most}"));
        self.text(name)
            .map(|text| number(text).ok_or_else(invalid))
            .transpose()
    }

    /// A truth value; false where it is missing. The official client writes `True`.
    ///
    /// # Errors
    /// [`Code::ParameterInvalid`].
    pub(super) fn truth(&self, name: &str) -> Result<bool, LogError> {
        match self.text(name).map(str::to_ascii_lowercase).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(LogError::parameter(name, "allowed are true and false")),
        }
    }

    /// A moment, in Unix seconds.
    ///
    /// # Errors
    /// [`Code::InvalidTimestamp`], also where it is missing.
    pub(super) fn time(&self, name: &str) -> Result<u32, LogError> {
        self.number(name, u64::from(u32::MAX))
            .ok()
            .flatten()
            .ok_or_else(|| {
                let message = format!("The parameter {name} is to be a time in Unix seconds.");
                LogError::new(Code::InvalidTimestamp, message)
            })
    }
}

/// A body that is a JSON object.
///
/// # Errors
/// [`Code::PostBodyInvalid`].
pub(super) fn object(body: &[u8]) -> Result<serde_json::Map<String, Value>, LogError> {
    serde_json::from_slice(body).map_err(|error| {
        let message = format!("The body is no JSON object: {error}.");
        LogError::new(Code::PostBodyInvalid, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_truths_are_taken_as_text_too() {
        let params = Params::of_json(
            br#"{"from": 1, "to": "2", "reverse": true, "query": "", "topic": null, "x": []}"#,
        )
        .unwrap();
        assert_eq!((params.time("from"), params.time("to")), (Ok(1), Ok(2)));
        assert_eq!(
            (params.truth("reverse"), params.truth("forward")),
            (Ok(true), Ok(false))
        );
        assert_eq!(
            (params.text("query"), params.text("topic"), params.text("x")),
            (None, None, None)
        );
        let params = Params::of_query(&[
            ("powerSql".into(), "False".into()),
            ("line".into(), "-1".into()),
        ]);
        assert_eq!(params.truth("powerSql"), Ok(false));
        assert_eq!(
            params.number::<u32>("line", 9).unwrap_err().code(),
            Code::ParameterInvalid
        );
        assert_eq!(params.number::<u32>("size", 9), Ok(None));
        assert_eq!(
            params.time("from").unwrap_err().code(),
            Code::InvalidTimestamp
        );
        assert_eq!(
            Params::of_json(b"[]").unwrap_err().code(),
            Code::PostBodyInvalid
        );
    }
}
