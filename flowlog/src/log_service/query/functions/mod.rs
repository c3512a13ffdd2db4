//! Functions that are not DataFusion's own.
//!
//! | function | result |
//! |---|---|
//! | `from_unixtime(seconds)` | the time |
//! | `date_format(time, format)` | text, by the format of MySQL and Presto: `%Y-%m-%d %H:%i:%s` |
//! | `date_trunc(unit, time)` | the time at which the hour, day, … began |
//! | `is_subnet_of(block, address)` | whether the address is in the CIDR block |
//! | `is_private(address)` | whether the address is of private use (RFC 1918, RFC 4193) |
//!
//! A time may be given as a number of Unix seconds too. All times are UTC.
pub(crate) mod address;
mod bounded;
pub(crate) mod client;
pub(crate) mod time;

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, StringViewArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF};

/// The functions that SQL may call: of `theirs`, which are DataFusion's, those that we have not ourselves.
pub(crate) fn all(mut theirs: Vec<Arc<ScalarUDF>>) -> Vec<Arc<ScalarUDF>> {
    let ours = ours();
    theirs.retain(|function| {
        let mut names = function
            .aliases()
            .iter()
            .map(String::as_str)
            .chain([function.name()]);
        !names.any(|name| {
            bounded::REFUSED.contains(&name) || ours.iter().any(|function| function.name() == name)
        })
    });
    for function in &mut theirs {
        if let Some(bounded) = bounded::bounded(function) {
            *function = Arc::new(bounded);
        }
    }
    theirs.extend(ours);
    theirs
}

fn ours() -> Vec<Arc<ScalarUDF>> {
    vec![
        Arc::new(ScalarUDF::new_from_impl(address::IsSubnetOf::new())),
        Arc::new(ScalarUDF::new_from_impl(address::IsPrivate::new())),
        Arc::new(ScalarUDF::new_from_impl(time::FromUnixtime::new())),
        Arc::new(ScalarUDF::new_from_impl(time::DateFormat::new())),
        Arc::new(ScalarUDF::new_from_impl(time::DateTrunc::new())),
    ]
}

/// The argument as an array of `rows` texts, whichever of Arrow's types of text it has.
fn texts(argument: &ColumnarValue, rows: usize) -> Result<StringViewArray> {
    view(&argument.to_array(rows)?)
}

fn view(array: &ArrayRef) -> Result<StringViewArray> {
    Ok(cast(array, &DataType::Utf8View)?.as_string_view().clone())
}
