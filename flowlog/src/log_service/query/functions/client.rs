//! Looks into a client's own fields, which are all in one column.
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, StringArray, StringViewArray,
};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::view;
use crate::log_service::query::search::word::Matcher;

/// The fields of a batch of logs.
struct Fields {
    keys: StringViewArray,
    values: StringViewArray,
    /// Where each row's fields begin in the two; one more than there are rows.
    offsets: Vec<usize>,
}

impl Fields {
    fn of(args: &ScalarFunctionArgs) -> Result<Self> {
        let [argument] = args.args.as_slice() else {
            return exec_err!("a function of a client's fields takes their column");
        };
        let array = argument.to_array(args.number_rows)?;
        let Some(map) = array.as_map_opt() else {
            return exec_err!("a function of a client's fields takes a map");
        };
        Ok(Self {
            keys: view(map.keys())?,
            values: view(map.values())?,
            offsets: map
                .offsets()
                .iter()
                .map(|offset| usize::try_from(*offset).unwrap_or_default())
                .collect(),
        })
    }

    fn rows(&self) -> impl Iterator<Item = impl Iterator<Item = (&str, &str)>> {
        self.offsets.windows(2).map(move |range| {
            (range[0]..range[1]).map(move |at| (self.keys.value(at), self.values.value(at)))
        })
    }

    /// The value of the key in each row. Of a key that is there twice, the last value counts.
    fn values_of<'a>(&'a self, key: &'a str) -> impl Iterator<Item = Option<&'a str>> {
        self.rows().map(move |row| {
            row.filter(|(name, _)| *name == key)
                .last()
                .map(|(_, value)| value)
        })
    }
}

/// Makes a function of the column with a client's fields.
macro_rules! function {
    ($(#[$doc:meta])* $type:ident { $($field:ident: $field_type:ty),* }, $name:literal, $result:expr, $evaluate:expr) => {
        $(#[$doc])*
        #[derive(Debug, PartialEq, Eq, Hash)]
        pub(crate) struct $type {
            $($field: $field_type,)*
            signature: Signature,
        }

        impl ScalarUDFImpl for $type {
            fn name(&self) -> &'static str {
                $name
            }

            fn signature(&self) -> &Signature {
                &self.signature
            }

            fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
                Ok($result)
            }

            fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
                let evaluate: fn(&Self, &Fields) -> ArrayRef = $evaluate;
                Ok(ColumnarValue::Array(evaluate(self, &Fields::of(&args)?)))
            }
        }
    };
}

function! {
    /// Whether a field has the words that are looked for; any field if there is no key.
    HasWords { key: Option<String>, matcher: Matcher }, "client_has_words", DataType::Boolean, |this, fields| {
        let found: BooleanArray = match &this.key {
            Some(key) => fields.values_of(key).map(|value| value.map(|value| this.matcher.matches(value))).collect(),
            None => fields.rows().map(|mut row| Some(row.any(|(_, value)| this.matcher.matches(value)))).collect(),
        };
        Arc::new(found)
    }
}

function! {
    /// Whether the field is there.
    HasKey { key: String }, "client_has_key", DataType::Boolean, |this, fields| {
        Arc::new(fields.values_of(&this.key).map(|value| Some(value.is_some())).collect::<BooleanArray>())
    }
}

function! {
    /// The field as a number; NULL if it is none, or is not finite.
    NumberOf { key: String }, "client_number", DataType::Float64, |this, fields| {
        // Arrow holds -0 for less than 0, and so does SQL; adding 0 makes it 0.
        let number = |value: Option<&str>| value?.parse::<f64>().ok().filter(|number| number.is_finite()).map(|number| number + 0.0);
        Arc::new(fields.values_of(&this.key).map(number).collect::<Float64Array>())
    }
}

function! {
    /// The field as a whole number; NULL if it is none.
    IntegerOf { key: String }, "client_integer", DataType::Int64, |this, fields| {
        Arc::new(fields.values_of(&this.key).map(|value| value?.parse::<i64>().ok()).collect::<Int64Array>())
    }
}

function! {
    /// The field as text.
    TextOf { key: String }, "client_text", DataType::Utf8, |this, fields| {
        Arc::new(fields.values_of(&this.key).collect::<StringArray>())
    }
}

fn of_map() -> Signature {
    Signature::any(1, Volatility::Immutable)
}

impl HasWords {
    pub(crate) fn new(key: Option<&str>, matcher: Matcher) -> Self {
        Self {
            key: key.map(str::to_owned),
            matcher,
            signature: of_map(),
        }
    }
}

impl HasKey {
    pub(crate) fn new(key: &str) -> Self {
        Self {
            key: key.to_owned(),
            signature: of_map(),
        }
    }
}

impl NumberOf {
    pub(crate) fn new(key: &str) -> Self {
        Self {
            key: key.to_owned(),
            signature: of_map(),
        }
    }
}

impl IntegerOf {
    pub(crate) fn new(key: &str) -> Self {
        Self {
            key: key.to_owned(),
            signature: of_map(),
        }
    }
}

impl TextOf {
    pub(crate) fn new(key: &str) -> Self {
        Self {
            key: key.to_owned(),
            signature: of_map(),
        }
    }
}
