//! Functions of DataFusion's whose result can be far longer than what they are given, held to a length: the memory for a result is not
//! that of the queries' pool.
use datafusion::arrow::array::StringViewArray;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::arrow::{array::AsArray as _, compute::cast};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use super::texts;

/// Longest text that a text is filled up to, in characters.
const MAX_FILLED_CHARS: i64 = 1024;
/// Most octets that a function's results for one batch of rows may have.
const MAX_OCTETS: usize = 64 << 20;

/// Functions that are not there at all: one that gives a text a million times.
pub(super) const REFUSED: [&str; 1] = ["repeat"];

/// How a function's result grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Growth {
    /// `lpad(text, length, fill)`.
    Filled,
    /// `replace(text, from, to)`: at most `to` before and after each octet.
    Replaced,
}

/// A function that is held to a length.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: ScalarUDF,
    growth: Growth,
}

/// The function, held to a length if it is one that has to be.
pub(super) fn bounded(function: &ScalarUDF) -> Option<ScalarUDF> {
    let growth = match function.name() {
        "lpad" | "rpad" => Growth::Filled,
        "replace" | "regexp_replace" => Growth::Replaced,
        _ => return None,
    };
    let inner = function.clone();
    Some(ScalarUDF::new_from_impl(Bounded { inner, growth }))
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(given)
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arguments)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match (self.growth, args.args.as_slice()) {
            (Growth::Filled, [_, length, ..]) => {
                let lengths = cast(&length.to_array(args.number_rows)?, &DataType::Int64)?;
                let lengths = lengths.as_primitive::<Int64Type>();
                if let Some(length) = lengths.iter().flatten().find(|n| *n > MAX_FILLED_CHARS) {
                    return exec_err!(
                        "{}: {length} characters are asked for, and allowed are {MAX_FILLED_CHARS}",
                        self.name()
                    );
                }
            }
            (Growth::Replaced, [text, _, to, ..]) => {
                let (text, to) = (texts(text, args.number_rows)?, texts(to, args.number_rows)?);
                if longest(&text, &to) > MAX_OCTETS {
                    return exec_err!(
                        "{}: the result may be longer than {MAX_OCTETS} bytes",
                        self.name()
                    );
                }
            }
            _ => {}
        }
        self.inner.invoke_with_args(args)
    }
}

/// The most octets that there can be when `to` is put before and after each octet of the text.
fn longest(text: &StringViewArray, to: &StringViewArray) -> usize {
    let of_row = |(text, to): (Option<&str>, Option<&str>)| {
        let (text, to) = (text.map_or(0, str::len), to.map_or(0, str::len));
        (text + 1).saturating_mul(to).saturating_add(text)
    };
    text.iter()
        .zip(to.iter())
        .map(of_row)
        .fold(0, usize::saturating_add)
}
